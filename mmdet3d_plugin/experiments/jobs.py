"""Jobs that need one another: what is finished is skipped, what was interrupted goes on."""
import functools
import hashlib
import json
import os
import shlex
import signal
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

import torch

from ..checkpoints import atomic_write
from ..errors import UserError, parse_errors
from ..locking import locked
from ..version import __version__
from .process import ROOT, Processes, reason

CODE = {'mmdet3d_plugin': __version__}
"""What every result depends on, besides its own settings."""
_BEGUN = dict(fingerprint=str, config=dict, seconds=float, peak_kb=int, commands=list)
_RESULT = dict(fingerprint=str, seconds=float, commands=list)


class Job:
    """Commands that make something, and the memory of it.

    ``begun.json`` says what it was begun with and what it has cost, ``result.json`` what came out.

    Args:
        name: of the job.
        state: folder of these two files.
        needs: jobs that must be finished before, by what they are for.

    Attributes:
        settings (dict): What it is made with, as text by dotted key.
        proof (Path): File that exists where it is finished.
        lock (Path), busy (str): File that is held while it runs, and the error where it is.
        log (Path): Output of the commands.
    """

    settings: Mapping[str, str]
    proof: Path
    lock: Path
    busy: str
    log: Path

    def __init__(self, name: str, state: Path, needs: Optional[Mapping[str, 'Job']] = None):
        self.name, self.state, self.needs = name, state, dict(needs or {})

    def __str__(self) -> str:
        return self.name

    def commands(self) -> Iterable[Sequence[str]]:
        """Arguments of Python, one command after the other; asked for when the job runs."""
        raise NotImplementedError

    def measure(self) -> dict:
        """What is worth remembering when all commands are done."""
        return {}

    def failure(self, code: int) -> str:
        """The message where a command ends with an exit code that is not 0."""
        return f'{reason(self.log)} -- exit code {code}, whole log: {self.log}'

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the settings and of the needed jobs'."""
        needed = [job.fingerprint for job in self.needs.values()]
        content = repr((sorted(self.settings.items()), *(needed or [None])))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def begun(self) -> dict:
        """With what it was begun, and its ``seconds``, ``peak_kb`` and ``commands`` so far."""
        return self._known()

    def _known(self) -> dict:
        return read_state(self.state / 'begun.json', _BEGUN) or {}

    @property
    def result(self) -> Optional[dict]:
        """What came out of it; None before."""
        return read_state(self.state / 'result.json', _RESULT)

    def status(self) -> str:
        """``finished``, ``interrupted``, ``changed`` or ``new``."""
        begun, result = self.begun, self.result
        if not begun:
            return 'new'
        if begun['fingerprint'] != self.fingerprint or (result and not self.proof.exists()):
            return 'changed'
        return 'finished' if result else 'interrupted'

    def unfinished(self) -> List[str]:
        """The needed jobs that are not finished, with what they are."""
        return [f'its {key} ({job})' for key, job in self.needs.items()
                if job.status() != 'finished']

    def differences(self) -> List[str]:
        """The settings that have changed since it was begun: key, old and new value of each."""
        old, new = self.begun['config'], self.settings
        return [f'{key} {old.get(key)}, now {new.get(key)}' for key in {**old, **new}
                if old.get(key) != new.get(key)]

    def begin(self) -> None:
        """Remember the settings; what it cost with others is forgotten."""
        if self._known().get('fingerprint') != self.fingerprint:
            for name in ('begun', 'result'):
                (self.state / f'{name}.json').unlink(missing_ok=True)
        self.note()

    def note(self, **more) -> None:
        """Write the settings, and more, to what is known of it."""
        write_json(self.state / 'begun.json', dict(
            {**dict(seconds=0.0, peak_kb=0, commands=[]), **self._known(), **more},
            fingerprint=self.fingerprint, config=dict(self.settings)))

    def finish(self) -> dict:
        """Write the result."""
        known = self._known()
        result = dict(self.measure(), fingerprint=self.fingerprint,
                      seconds=round(known['seconds'], 1), commands=known['commands'])
        write_json(self.state / 'result.json', result)
        return result


class JobRunner:
    """Runs the jobs that are not finished; subclasses show it.

    Args:
        jobs: those that others need come first.
        parallel: number of jobs at a time.
        keep_going: whether the others go on where one fails.

    Attributes:
        failed (dict): Why, by job.
    """

    def __init__(self, jobs: Sequence[Job], parallel: int = 1, keep_going: bool = True) -> None:
        self.jobs, self.parallel, self.keep_going = jobs, parallel, keep_going
        self.failed: Dict[str, str] = {}
        self.slots = list(range(parallel))
        self.processes = Processes()

    def run(self) -> None:
        """Run everything that is not finished."""
        left = [job for job in self.jobs if job.status() != 'finished']
        for job in self.jobs:
            if job not in left:
                self.show_skipped(job)
        running: Dict[Future, Job] = {}
        with ThreadPoolExecutor(self.parallel) as pool, self._stopped_by_signals():
            while left or running:
                ready = [job for job in left if not job.unfinished()]
                for job in ready[:self.parallel - len(running)]:
                    left.remove(job)
                    running[pool.submit(self._run_job, job)] = job
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._end(running.pop(future), future, len(left) + len(running))
        for job in left:
            self.failed[str(job)] = f'{job.unfinished()[0]} is not finished'

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """End the processes where this one is to end, by Ctrl-C, SIGTERM or an error."""
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
        try:
            yield
        except BaseException as error:
            self.processes.stop()
            if isinstance(error, KeyboardInterrupt):
                print('the same command continues here', file=sys.stderr)
            raise
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)

    def _end(self, job: Job, future: Future, left: int) -> None:
        try:
            result = future.result()
        except UserError as error:
            if not self.keep_going:
                raise
            self.failed[str(job)] = str(error)
            print(f'{job}: failed', flush=True)
        else:
            self.show_end(job, result, left)

    def _run_job(self, job: Job) -> dict:
        slot = self.slots.pop()
        try:
            with locked(job.lock, job.busy) as lock:
                if unfinished := job.unfinished():
                    raise UserError(f'{unfinished[0]} is not finished')
                self.show_begin(job)
                job.begin()
                self._run_commands(job, self.environment(slot), lock)
                return job.finish()
        finally:
            self.slots.append(slot)

    def _run_commands(self, job: Job, env: Mapping[str, str], lock: int) -> None:
        for command in job.commands():
            line, start = shlex.join(['python', *command]), time.monotonic()
            self.show_command(job, line)
            code = peak = 0
            try:
                code, peak = self.processes.run(
                    command, job.log, functools.partial(self.show_line, job, command[0]), env, lock)
            finally:
                self._count(job, line, time.monotonic() - start, peak)
            if code:
                raise UserError(job.failure(code))

    @staticmethod
    def _count(job: Job, line: str, seconds: float, peak_kb: int) -> None:
        known = job._known()
        job.note(seconds=known['seconds'] + seconds, peak_kb=max(known['peak_kb'], peak_kb),
                 commands=[*(c for c in known['commands'] if c != line), line])

    def environment(self, slot: int) -> Dict[str, str]:
        """The cores and the GPUs are shared out among the jobs."""
        env = {**os.environ, 'PYTHONUNBUFFERED': '1'}
        paths = [str(ROOT), env.get('PYTHONPATH', '')]
        env['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
        env.setdefault('OMP_NUM_THREADS',
                       str(max(1, len(os.sched_getaffinity(0)) // self.parallel)))
        if self.parallel > 1 and torch.cuda.device_count() > 1:
            visible = env.get('CUDA_VISIBLE_DEVICES') or ','.join(
                map(str, range(torch.cuda.device_count())))
            devices = visible.split(',')
            env['CUDA_VISIBLE_DEVICES'] = devices[slot % len(devices)]
        return env

    def show_skipped(self, job: Job) -> None:
        """A job was finished before."""
        print(f'{job}: finished before')

    def show_begin(self, job: Job) -> None:
        """A job begins."""

    def show_command(self, job: Job, line: str) -> None:
        """A command of a job begins."""
        print(f'{job}: $ {line}', flush=True)

    def show_line(self, job: Job, tool: str, line: str) -> None:
        """A tool of a job has written a line."""

    def show_end(self, job: Job, result: dict, left: int) -> None:
        """A job is finished."""


def flat(value: object, path: str = '') -> Dict[str, str]:
    """The leaves of a config by dotted key, as text."""
    items = (value.items() if isinstance(value, Mapping)
             else enumerate(value) if isinstance(value, (list, tuple)) else ())
    found: Dict[str, str] = {}
    for name, item in items:
        found.update(flat(item, f'{path}.{name}'))
    return found or {path.removeprefix('.'): str(value)}


def shortened(texts: Sequence[str], count: int = 3) -> str:
    """The first texts, in one line."""
    return '; '.join([*texts[:count], *(['...'] if len(texts) > count else [])])


def read_state(path: Path, fields: Mapping[str, type]) -> Optional[dict]:
    """What a file remembers of a job; None where there is none.

    Args:
        path: the file.
        fields: type of each entry that it must have; a float is finite.

    Raises:
        UserError: It is damaged, or was written by another program.
    """
    if not path.is_file():
        return None
    with parse_errors(f'{path}: damaged', 'delete it; the same command makes it again'):
        content = json.loads(path.read_text())
        for name, kind in fields.items():
            check_entry(content, name, kind)
    return content


def check_entry(content: Mapping, name: str, kind: type) -> None:
    """Raise an error unless an entry is of a type; a float is finite and may be an integer."""
    value = content[name]
    wanted = (int, float) if kind is float else (kind, )
    if type(value) not in wanted or (kind is float and not abs(value) < 1e300):
        raise TypeError(f'{name}: expected {kind.__name__}, got {value!r:.60}')


def write_json(path: Path, content: Mapping) -> None:
    """Write a file whole or not at all."""
    write_text(path, json.dumps(content, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())
