"""Steps that one report is made in, one after the other."""
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from mmengine.config import Config

from ..errors import UserError
from .jobs import CODE, Job, JobRunner, flat, shortened
from .process import ROOT, clock, reason, training_step


class Stage(Job):
    """A step whose commands are known beforehand, all steps writing below one folder.

    Args:
        name: of its state and log.
        title: for people.
        out: where everything goes.
        templates: arguments of Python; ``{name}`` stands for what ``values`` has at that time.
        proof: file below ``out`` that exists when it is finished.
        folder: below ``out``; removed before the step is made again with other settings.
        needs: stages whose settings are part of this one's.
        configs: config files whose content is part of the settings.
        values: by name, functions that give words.
        keep: stop instead of removing results of other settings.
        log: file of the output below ``out/logs``.
        after: called when the commands are done.
    """

    def __init__(self, name: str, title: str, out: Path, templates: Sequence[Sequence[str]],
                 proof: str, folder: str = '', needs: Sequence[Job] = (),
                 configs: Sequence[str] = (),
                 values: Optional[Mapping[str, Callable[[], Sequence[str]]]] = None,
                 keep: bool = False, log: str = '',
                 after: Callable[[], None] = lambda: None):
        super().__init__(name, out / '.stages' / name, {job.name: job for job in needs})
        self.title, self.templates, self.keep, self.after = title, templates, keep, after
        self.folder, self.proof = out / folder if folder else None, out / proof
        self.values = values or {}
        self.lock, self.log = out / '.lock', out / 'logs' / (log or f'{name}.log')
        self.busy = (f'another quickstart, or a training that it started, still runs in {out}; '
                     'wait for it, or choose another --out-dir')
        self.settings = {**CODE, **flat(dict(commands=templates, configs={
            path: Config.fromfile(ROOT / path, import_custom_modules=False).to_dict()
            for path in configs}))}

    def commands(self) -> Iterator[List[str]]:
        """The commands with checkpoints and frames filled in."""
        for template in self.templates:
            yield [word for words in map(self._fill, template) for word in words]

    def _fill(self, word: str) -> List[str]:
        for name, value in self.values.items():
            if f'{{{name}}}' in word:
                return [word.replace(f'{{{name}}}', one) for one in value()]
        return [word]

    def begin(self) -> None:
        """Remove results of other settings, where they are of a quickstart."""
        if self.status() in ('new', 'changed'):
            if self.folder and self.folder.exists() and any(self.folder.iterdir()):
                self._remove()
            self.log.unlink(missing_ok=True)
            for name in ('begun', 'result'):
                (self.state / f'{name}.json').unlink(missing_ok=True)
        super().begin()

    def _remove(self) -> None:
        if not self.begun:
            raise UserError(f'{self.folder} exists and is not of a quickstart; remove it, or '
                            'choose another --out-dir')
        what = shortened(self.differences()) or 'of a step before'
        if self.keep:
            raise UserError(f'{self.folder} was made with other settings or configs ({what}) and '
                            '--keep is given; choose another --out-dir, or start without --keep')
        print(f'removing {self.folder}, which was made with other settings or configs ({what})')
        shutil.rmtree(self.folder)

    def measure(self) -> dict:
        self.after()
        return {}

    def failure(self, code: int) -> str:
        how = f'was killed (signal {-code}; 9 may mean: out of memory)' if code < 0 else \
            f'failed (exit code {code}): {reason(self.log)}'
        return (f'to {self.title} {how} -- whole log: {self.log}; '
                'the same command continues here')


class StageRunner(JobRunner):
    """Runs stages one after the other, and shows what is left.

    Args:
        stages: to run, in order.
        seconds: expected duration of each.
        report: file that is there at the end.
    """

    def __init__(self, stages: Sequence[Stage], seconds: Mapping[str, int], report: Path):
        super().__init__(stages, keep_going=False)
        self.seconds, self.report, self.start = seconds, report, time.monotonic()

    def run(self) -> None:
        super().run()
        print(f'\nfinished in {clock(time.monotonic() - self.start)}; open in a browser:\n'
              f'{self.report.resolve()}')

    def remaining(self, current: Stage, seconds: Optional[float] = None) -> float:
        """Expected seconds to the end, at this machine's speed so far.

        Args:
            current: the running stage.
            seconds: what is left of it, if known.
        """
        finished = [stage for stage in self.jobs if stage.status() == 'finished']
        spent = sum(stage.begun['seconds'] for stage in finished)
        expected = sum(self.seconds[stage.name] for stage in finished)
        speed = spent / expected if expected else 1
        todo = sum(self.seconds[stage.name] for stage in self.jobs
                   if stage is not current and stage not in finished)
        own = speed * self.seconds[current.name] if seconds is None else seconds
        return own + speed * todo

    def environment(self, slot: int) -> Dict[str, str]:
        """As this process's: one stage at a time has the machine."""
        return {**os.environ, 'PYTHONUNBUFFERED': '1'}

    def _head(self, stage: Stage) -> str:
        return f'[{self.jobs.index(stage) + 1}/{len(self.jobs)}] {stage.title}'

    def show_skipped(self, job: Stage) -> None:
        print(f'{self._head(job)}: finished before ({clock(job.begun["seconds"])})')

    def show_begin(self, job: Stage) -> None:
        print(f'\n{self._head(job)}   elapsed {clock(time.monotonic() - self.start)}, about '
              f'{clock(self.remaining(job))} left', flush=True)

    def show_command(self, job: Stage, line: str) -> None:
        print(f'$ {line}', flush=True)

    def show_line(self, job: Stage, tool: str, line: str) -> None:
        """Print what tells a person about progress."""
        text, bar = line.rstrip('\r\n'), line.endswith('\r')
        if tool == 'tools/create_data.py':
            if text and (not bar or sys.stdout.isatty()):
                print(f'  {text}', end='\r' if bar else '\n', flush=True)
        elif tool == 'tools/train.py' and (step := training_step(text)):
            left = '' if step.seconds_left is None else (
                f'   {clock(step.seconds_left)} left of this, '
                f'{clock(self.remaining(job, step.seconds_left))} of all')
            print(f'  {step.text} loss {step.loss}{left}', flush=True)
        elif found := re.search(r'Iter\((?:val|test)\).*?(bev/IoU.*?)(?=  data_time|$)', text):
            print(f'  held-out: {found[1]}', flush=True)
        elif re.search(r'\d parameters .*|^\S+\.png$', text):
            print(f'  {text}', flush=True)
