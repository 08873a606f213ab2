"""Run an experiment: every training of a table, over several seeds, and the table itself.

    python tools/run_experiments.py FILE [--list] [--only NAME ...] [--seeds 0 1 2] [--jobs N]
    python tools/run_experiments.py FILE --slurm-array    # a cluster instead of this machine
    python tools/run_experiments.py FILE --table          # of what is finished

FILE is a config with ``title``, ``metrics``, ``seeds`` and ``runs``; see docs/experiments.md. A run
is one ``tools/train.py`` per seed in ``WORK_DIR/NAME/seed_S``. What is finished is skipped, what
was interrupted is resumed, a teacher is trained before its students, and where one run fails the
others go on.
"""
import argparse
import contextlib
import copy
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Set

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.engine import check_config, latest_checkpoint, load_config
from mmdet3d_plugin.engine.cli import CfgOptions, run_tool
from mmdet3d_plugin.errors import UserError, build_from, did_you_mean

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {'title', 'metrics', 'seeds', 'runs'}
PARENTS = ('teacher', 'start')
RUN_KEYS = {'config', 'options', *PARENTS, 'columns', 'paper'}


# ------------------------------------------------------------------------------ the experiment file
@dataclass(frozen=True)
class Experiment:
    """What an experiment file says.

    Attributes:
        title: of the table.
        metrics: names of the config's metrics, such as ``bev/IoU100``.
        seeds: of the trainings.
        runs: by name, ``config``, and where given ``options`` (nested or dotted overrides),
            ``teacher`` (name of a run), ``start`` (name of the run whose weights it starts from),
            ``columns`` (cells of the table) and ``paper`` (for each metric a figure or None).
        paper: what the paper's figures were measured on.
        baseline: run that the others are compared with, seed by seed.
        others: rows of the paper's that are not trained here: its figures by name.
    """

    title: str
    metrics: Sequence[str]
    seeds: Sequence[int]
    runs: Mapping[str, Mapping]
    paper: str = ''
    baseline: Optional[str] = None
    others: Mapping[str, Sequence] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> 'Experiment':
        """Read and check a file.

        Raises:
            UserError: A missing or unknown key, or a name that stands for no run.
        """
        content = load_config(path)._cfg_dict.to_dict()
        missing = sorted(NEEDED - set(content))
        if missing:
            raise UserError(f'experiment {path}: it has no {", ".join(missing)}; an experiment '
                            'file needs title, metrics, seeds and runs')
        known = {key: content[key] for key in cls.__dataclass_fields__ if key in content}
        experiment = cls(**known)
        for name, run in experiment.runs.items():
            experiment._check_run(f'experiment {path}: runs.{name}', name, run)
        for name, figures in experiment.others.items():
            experiment._check_figures(f'experiment {path}: others.{name}', figures)
        if experiment.baseline is not None:
            experiment.check_names([experiment.baseline], f'experiment {path}: baseline')
        return experiment

    def _check_run(self, where: str, name: str, run: Mapping) -> None:
        if not re.fullmatch(r'[\w.+-]+', name):
            raise UserError(f'{where}: a run names a folder; use letters, digits and _ . + -')
        for key in run:
            if key not in RUN_KEYS:
                raise UserError(f'{where}.{key}: no such key{did_you_mean(key, RUN_KEYS)}')
        if 'config' not in run:
            raise UserError(f'{where}: it has no config')
        self._check_figures(f'{where}.paper', run.get('paper') or self.metrics)
        self._check_parents(where, (name, ))

    def _check_figures(self, where: str, figures: Sequence) -> None:
        if len(figures) != len(self.metrics):
            raise UserError(f'{where}: expected {len(self.metrics)} figures, one for each of '
                            f'metrics, got {figures}')

    def _check_parents(self, where: str, chain: Sequence[str]) -> None:
        for key in PARENTS:
            parent = self.runs[chain[-1]].get(key)
            if not parent:
                continue
            self.check_names([parent], f'{where}.{key}')
            if parent in chain:
                raise UserError(f'{where}.{key}: {" <- ".join([*chain, parent])} is a circle')
            self._check_parents(where, (*chain, parent))

    def check_names(self, names: Sequence[str], where: str) -> None:
        """Raise an error unless all names are runs."""
        for name in names:
            if name not in self.runs:
                raise UserError(f'{where}: no run {name!r}{did_you_mean(name, self.runs)}')

    def parents(self, name: str) -> Dict[str, str]:
        """The runs that a run needs, by what for."""
        return {key: self.runs[name][key] for key in PARENTS if self.runs[name].get(key)}

    def depth(self, name: str) -> int:
        """Number of runs that must be trained one after another before a run."""
        return max((1 + self.depth(parent) for parent in self.parents(name).values()), default=0)

    def with_parents(self, names: Sequence[str]) -> List[str]:
        """The runs and those that they need, which come first, else in the file's order."""
        found, left = set(), list(names)
        while left:
            found.add(name := left.pop())
            left += self.parents(name).values()
        return sorted(found, key=lambda name: (self.depth(name), list(self.runs).index(name)))


@dataclass
class Task:
    """One training: a run with a seed.

    Attributes:
        name, seed: which.
        folder: work dir of the training.
        config: complete, but for the paths of its parents.
        fingerprint: of the config and of the parents'.
        parents: ``teacher`` and ``start`` where it has them; must be finished before.
    """

    name: str
    seed: int
    folder: Path
    config: Config
    fingerprint: str
    parents: Mapping[str, 'Task'] = field(default_factory=dict)

    def __str__(self) -> str:
        return f'{self.name}, seed {self.seed}'

    def unfinished(self) -> List[str]:
        """The parents that are not finished, with what they are."""
        return [f'its {key} ({parent})' for key, parent in self.parents.items()
                if parent.status() != 'finished']

    @property
    def result(self) -> Optional[dict]:
        """What a finished training measured; None before."""
        path = self.folder / 'result.json'
        return json.loads(path.read_text()) if path.is_file() else None

    def status(self) -> str:
        """``finished``, ``interrupted``, ``changed`` or ``new``."""
        note = self.folder / 'begun.json'
        if not note.is_file() or not (self.folder / 'last_checkpoint').is_file():
            return 'new'
        if json.loads(note.read_text())['fingerprint'] != self.fingerprint:
            return 'changed'
        return 'finished' if self.result else 'interrupted'

    def note(self) -> None:
        """Remember the config that the training is begun with."""
        write_text(self.folder / 'begun.json', json.dumps(dict(
            fingerprint=self.fingerprint, config=flat(self.config._cfg_dict.to_dict())), indent=1))

    def differences(self) -> List[str]:
        """Config keys that have changed since it was begun."""
        old = json.loads((self.folder / 'begun.json').read_text())['config']
        new = flat(self.config._cfg_dict.to_dict())
        return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def make_tasks(experiment: Experiment, names: Sequence[str], seeds: Sequence[int], work_dir: Path,
               overrides: Mapping) -> List[Task]:
    """The trainings of the named runs and of their parents, in an order that can be run."""
    tasks: Dict[tuple, Task] = {}
    for name in experiment.with_parents(names):
        config = _load(experiment, name, overrides)
        for seed in seeds:
            own = copy.deepcopy(config)
            own.merge_from_dict({'randomness.seed': seed})
            parents = {key: tasks[parent, seed]
                       for key, parent in experiment.parents(name).items()}
            content = sorted(flat(own._cfg_dict.to_dict()).items())
            needed = [parent.fingerprint for parent in parents.values()]
            digest = hashlib.sha256(repr((content, *(needed or [None]))).encode())
            tasks[name, seed] = Task(name, seed, work_dir / name / f'seed_{seed}', own,
                                     digest.hexdigest()[:16], parents)
    return list(tasks.values())


def _load(experiment: Experiment, name: str, overrides: Mapping) -> Config:
    """A run's config with its options, checked but for its model."""
    run = experiment.runs[name]
    path = Path(run['config'])
    try:
        config = load_config(path if path.is_absolute() else ROOT / path, run.get('options'))
        config.merge_from_dict(dict(overrides))
        check_config(config)
    except (UserError, KeyError, TypeError, AssertionError) as error:
        raise UserError(f'runs.{name}: {error}') from error
    if run.get('teacher'):
        if config.model.get('type') != 'Distiller':
            raise UserError(f'runs.{name}.teacher: {run["config"]} distils nothing '
                            f'(model.type is {config.model.get("type")}); leave the teacher out, '
                            'or take a config whose model is a Distiller')
        config.model.teacher = dict(config=experiment.runs[run['teacher']]['config'])
    return config


# ------------------------------------------------------------------------------------------ running
class Runner:
    """Trains tasks in processes of their own.

    Args:
        tasks: in an order that can be run.
        metrics: to keep of each.
        jobs: processes at a time.
    """

    def __init__(self, tasks: Sequence[Task], metrics: Sequence[str], jobs: int) -> None:
        self.tasks, self.metrics, self.jobs = tasks, metrics, jobs
        self.failed: Dict[str, str] = {}
        self.seconds: List[float] = []
        self.slots = list(range(jobs))
        self.processes: Set[subprocess.Popen] = set()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Train everything that is not finished."""
        left = [task for task in self.tasks if task.status() != 'finished']
        for task in self.tasks:
            if task not in left:
                print(f'{task}: finished before')
        running: Dict = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while left or running:
                    for task in [task for task in left
                                 if not task.unfinished()][:self.jobs - len(running)]:
                        left.remove(task)
                        running[pool.submit(self._train, task)] = task
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._report(running.pop(future), future, len(left) + len(running))
            except BaseException:
                self.stopped.set()
                for process in list(self.processes):
                    process.terminate()
                raise
        for task in left:
            self.failed[str(task)] = f'{task.unfinished()[0]} is not finished'

    def _report(self, task: Task, future, left: int) -> None:
        try:
            result = future.result()
        except UserError as error:
            self.failed[str(task)] = str(error)
            print(f'{task}: failed', flush=True)
            return
        self.seconds.append(result['seconds'])
        eta = f'; {left} left, about {clock(mean(self.seconds) * left / self.jobs)}' if left else ''
        print(f'{task}: {describe(result["metrics"])} in {clock(result["seconds"])}{eta}',
              flush=True)

    def _train(self, task: Task) -> dict:
        """Train one task, and write its result."""
        slot = self.slots.pop()
        try:
            with locked(task) as lock:
                begin = time.monotonic()
                command = prepare(task)
                log = task.folder / 'train.log'
                code = self._run_command(task, command, log, slot, lock)
                if code:
                    raise UserError(f'{reason(log)} -- exit code {code}, whole log: {log}')
                result = dict(
                    name=task.name, seed=task.seed, fingerprint=task.fingerprint,
                    metrics=read_metrics(task.folder, self.metrics),
                    checkpoint=Path(latest_checkpoint(task.folder)).name,
                    seconds=round(time.monotonic() - begin, 1),
                    command=shlex.join(['python', *command]))
                write_text(task.folder / 'result.json', json.dumps(result, indent=1))
                return result
        finally:
            self.slots.append(slot)

    def _run_command(self, task: Task, command: List[str], log: Path, slot: int, lock: int) -> int:
        """Run a command into the log and show its progress; returns the exit code."""
        print(f'{task}: $ {shlex.join(["python", *command])}', flush=True)
        quarter = 0
        with open(log, 'a', encoding='utf-8') as file:
            process = subprocess.Popen(
                [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                cwd=ROOT, env=self._environment(slot), pass_fds=(lock, ), text=True,
                errors='replace')
            self.processes.add(process)
            if self.stopped.is_set():
                process.terminate()
            for line in process.stdout:
                file.write(line)
                file.flush()
                step = re.search(r'\(train\).*?\[ *(\d+)/(\d+)\]', line)
                if step and (now := 4 * int(step[1]) // int(step[2])) != quarter:
                    quarter = now
                    loss = re.search(r' loss: (\S+)', line)
                    print(f'{task}: {25 * quarter:3d} %, loss {loss[1] if loss else "?"}',
                          flush=True)
            process.stdout.close()
            self.processes.remove(process)
            return process.wait()

    def _environment(self, slot: int) -> Dict[str, str]:
        """The cores and the GPUs are shared out among the jobs."""
        env = {**os.environ, 'PYTHONUNBUFFERED': '1'}
        paths = [str(ROOT), env.get('PYTHONPATH', '')]
        env['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
        env.setdefault('OMP_NUM_THREADS', str(max(1, len(os.sched_getaffinity(0)) // self.jobs)))
        if self.jobs > 1 and torch.cuda.device_count() > 1:
            visible = env.get('CUDA_VISIBLE_DEVICES') or ','.join(
                map(str, range(torch.cuda.device_count())))
            devices = visible.split(',')
            env['CUDA_VISIBLE_DEVICES'] = devices[slot % len(devices)]
        return env


def prepare(task: Task) -> List[str]:
    """Write the config of a task that begins or goes on; returns the training's arguments."""
    if unfinished := task.unfinished():
        raise UserError(f'{unfinished[0]} is not finished')
    config, last = copy.deepcopy(task.config), {
        key: str(parent.folder / parent.result['checkpoint'])
        for key, parent in task.parents.items()}
    if 'teacher' in last:
        config.model.teacher = dict(config=str(task.parents['teacher'].folder / 'config.py'),
                                    checkpoint=last['teacher'])
    config.load_from = last.get('start', config.get('load_from'))
    task.folder.mkdir(parents=True, exist_ok=True)
    task.note()
    write_text(task.folder / 'config.py', config.pretty_text)
    return ['tools/train.py', str(task.folder / 'config.py'), '--work-dir', str(task.folder),
            '--resume']


def read_metrics(folder: Path, names: Sequence[str]) -> Dict[str, float]:
    """The metrics of a training's last validation, which is after its last step."""
    last: dict = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a line that a kill cut short
                record = json.loads(line)
                if 'loss' not in record:
                    last = record
    for name in names:
        if name not in last:
            measured = [key for key in last if '/' in key]
            raise UserError(f'metrics: the validation gives no {name!r}'
                            f'{did_you_mean(name, measured)}')
    return {name: last[name] for name in names}


@contextlib.contextmanager
def locked(task: Task) -> Iterator[int]:
    """Hold a task's folder; its training inherits the lock, so an orphaned one counts too."""
    task.folder.mkdir(parents=True, exist_ok=True)
    with open(task.folder / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f'another process trains in {task.folder}; wait for it') from None
        yield file.fileno()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def reason(log: Path) -> str:
    """The line of a log that tells why a training failed."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r'\berror: |^\w*(Error|Interrupt)\b', line)]
    return (errors or lines or ['no output'])[-1].removeprefix('error: ')[:400]


def flat(value: object, path: str = '') -> Dict[str, str]:
    """The leaves of a config by dotted key, as text."""
    items = (value.items() if isinstance(value, Mapping)
             else enumerate(value) if isinstance(value, (list, tuple)) else ())
    found: Dict[str, str] = {}
    for name, item in items:
        found.update(flat(item, f'{path}.{name}'))
    return found or {path.removeprefix('.'): str(value)}


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{rest:02d}' if hours else f'{minutes}:{rest:02d}'


def describe(metrics: Mapping[str, float]) -> str:
    return ', '.join(f'{name} {value:.2f}' for name, value in metrics.items())


# ------------------------------------------------------------------------------------------ results
def collect(experiment: Experiment, tasks: Sequence[Task]) -> List[dict]:
    """One row per run: its cells and, by metric, the values by seed of what is finished.

    The paper's other rows follow, without values.
    """
    rows = []
    for name in [name for name in experiment.runs if any(t.name == name for t in tasks)]:
        run = experiment.runs[name]
        results = {task.seed: task.result['metrics'] for task in tasks
                   if task.name == name and task.status() == 'finished'}
        rows.append(dict(
            name=name, columns=run.get('columns') or {}, config=run['config'],
            values={metric: {seed: values[metric] for seed, values in results.items()
                             if metric in values} for metric in experiment.metrics},
            paper=dict(zip(experiment.metrics, run.get('paper') or ()))))
    rows += [dict(name=name, columns={}, values={metric: {} for metric in experiment.metrics},
                  paper=dict(zip(experiment.metrics, figures)))
             for name, figures in experiment.others.items()]
    base = next((row for row in rows if row['name'] == experiment.baseline), None)
    for row in rows:
        if base and row is not base:
            row['gain'] = {metric: {seed: value - base['values'][metric][seed]
                                    for seed, value in values.items()
                                    if seed in base['values'][metric]}
                           for metric, values in row['values'].items()}
    return rows


def spread(values: Mapping[int, float], sign: str = '') -> str:
    """Mean and, of several seeds, standard deviation (n - 1)."""
    values = list(values.values())
    if not values:
        return '–'
    deviation = f' ± {stdev(values):.2f}' if len(values) > 1 else ''
    return f'{mean(values):{sign}.2f}{deviation}'


def markdown(experiment: Experiment, rows: Sequence[dict], command: str) -> str:
    """The table as text."""
    columns = list(dict.fromkeys(key for row in rows for key in row['columns']))
    measured = [f'{metric.split("/")[-1]}' for metric in experiment.metrics]
    header = ['run', *columns, 'seeds', *measured]
    with_gain = any('gain' in row for row in rows)
    if with_gain:
        header.append(f'{measured[0]} − {experiment.baseline}')
    with_paper = any(row['paper'] for row in rows)
    if with_paper:
        header.append(f'paper: {" / ".join(measured)}')
    lines = [header, ['---'] * len(header)]
    for row in rows:
        seeds = str(len(next(iter(row['values'].values())))) if 'config' in row else '–'
        cells = [row['name'], *(str(row['columns'].get(key, '')) for key in columns), seeds,
                 *(spread(row['values'][metric]) for metric in experiment.metrics)]
        if with_gain:
            gain = row.get('gain')
            cells.append(spread(gain[experiment.metrics[0]], '+') if gain else '')
        if with_paper:
            cells.append(' / '.join('–' if value is None else f'{value:g}'
                                    for value in row['paper'].values()) or '–')
        lines.append(cells)
    notes = ['Mean ± standard deviation over the seeds, last checkpoint.']
    if with_gain:
        notes.append(f'Differences to {experiment.baseline} are taken seed by seed.')
    if with_paper:
        notes.append(f'The paper\'s figures{experiment.paper and f" ({experiment.paper})"} are '
                     'the paper\'s, not ours.')
    table = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    return f'# {experiment.title}\n\n{table}\n\n{" ".join(notes)}\n\n```bash\n{command}\n```\n'


def plot(experiment: Experiment, rows: Sequence[dict], path: Path) -> None:
    """One panel per metric: bars with deviations, the paper's figures as open diamonds."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(experiment.metrics), squeeze=False, sharey=True,
        figsize=(1.5 + 3.6 * len(experiment.metrics), 1.2 + 0.32 * len(rows)))
    for axis, metric in zip(axes[0], experiment.metrics):
        for place, row in enumerate(rows):
            values = list(row['values'][metric].values())
            if values:
                axis.barh(place, mean(values), color='#0f766e', height=0.6, alpha=0.8,
                          xerr=stdev(values) if len(values) > 1 else None,
                          error_kw=dict(ecolor='#1f2937', capsize=3))
            if row['paper'].get(metric) is not None:
                axis.plot(row['paper'][metric], place, 'D', mfc='none', mec='#d97706')
        axis.set(title=metric, xlim=(0, None))
        axis.set_yticks(range(len(rows)), [row['name'] for row in rows])
        axis.grid(axis='x', alpha=0.3)
    axes[0][0].invert_yaxis()
    if any(row['paper'] for row in rows):
        axes[0][0].plot([], [], 'D', mfc='none', mec='#d97706',
                        label=f'the paper\'s{experiment.paper and f", {experiment.paper}"}')
        figure.legend(loc='lower right', fontsize='small', frameon=False)
    figure.suptitle(experiment.title)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    with atomic_write(path) as file:
        figure.savefig(file, format='png', dpi=110)
    pyplot.close(figure)


def write_table(experiment: Experiment, tasks: Sequence[Task], work_dir: Path,
                command: str) -> None:
    """Write and print the table of what is finished."""
    rows = collect(experiment, tasks)
    text = markdown(experiment, rows, command)
    write_text(work_dir / 'table.md', text)
    write_text(work_dir / 'table.json', json.dumps(dict(
        title=experiment.title, metrics=experiment.metrics, rows=rows, command=command), indent=1))
    plot(experiment, rows, work_dir / 'table.png')
    print(f'\n{text}\nwrote {work_dir}/table.md, table.json and table.png')


# ---------------------------------------------------------------------------------------- the tool
def slurm_script(experiment: Experiment, tasks: Sequence[Task], command: Sequence[str]) -> str:
    """A script that submits one array per generation of parents and children, then the table."""
    depths = [experiment.depth(task.name) for task in tasks]
    base = shlex.join(['python', 'tools/run_experiments.py', *command])
    lines = ['#!/usr/bin/env bash',
             '# bash slurm.sh [options of sbatch, such as --partition=gpu --gres=gpu:1]',
             'set -euo pipefail', f'cd {shlex.quote(str(ROOT))}']
    wait_for = ''
    for depth in sorted(set(depths)):
        first = depths.index(depth)
        last = first + depths.count(depth) - 1
        lines.append(f'job=$(sbatch --parsable {wait_for}--array={first}-{last} "$@" '
                     f'--wrap \'{base} --task "$SLURM_ARRAY_TASK_ID"\')')
        lines.append(f'echo "tasks {first} to {last}: job $job"')
        wait_for = '--dependency=afterany:"${job%%;*}" '
    lines.append(f'sbatch {wait_for}"$@" --wrap \'{base} --table\'')
    return '\n'.join(lines) + '\n'


def list_tasks(tasks: Sequence[Task]) -> None:
    for index, task in enumerate(tasks):
        result = task.result if task.status() == 'finished' else None
        print(f'{index:3d}  {task.name:28s} seed {task.seed}  {task.status():12s}'
              f'{describe(result["metrics"]) if result else ""}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('file', type=Path, help='experiment file')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='runs, with those that they need')
    parser.add_argument('--seeds', nargs='+', type=int, help="default: the file's")
    parser.add_argument('--work-dir', type=Path,
                        help='default: work_dirs/experiments/<name of the file>')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time (default: 1)')
    parser.add_argument('--redo', nargs='*', metavar='NAME',
                        help='remove the results of these runs and of their students first; '
                        'default: of those whose config has changed')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='to override in the config of every run')
    parser.add_argument('--keep', nargs='*', metavar='NAME',
                        help='count results of these runs although their config has changed; '
                        'default: all')
    todo = parser.add_mutually_exclusive_group()
    todo.add_argument('--list', action='store_true', help='show the trainings and their state')
    todo.add_argument('--table', action='store_true', help='write the table of what is finished')
    todo.add_argument('--task', type=int, help='train only the task of this number of --list')
    todo.add_argument('--slurm-array', action='store_true',
                      help='write WORK_DIR/slurm.sh, which submits every training')
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error('expected --jobs of at least 1')
    return args


def short(path: Path) -> Path:
    """The path from the repository's root where it is below it."""
    path = path.resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def command_of(args: argparse.Namespace, work_dir: Path) -> List[str]:
    """The arguments that choose the trainings, to repeat them elsewhere."""
    words = [str(short(args.file)), '--work-dir', str(work_dir)]
    for flag in ('only', 'seeds'):
        if getattr(args, flag):
            words += [f'--{flag}', *map(str, getattr(args, flag))]
    if args.cfg_options:
        words += ['--cfg-options', *(f'{k}={v}' for k, v in args.cfg_options.items())]
    return words


def refuse_changed(tasks: Sequence[Task]) -> None:
    """Raise an error that names the runs whose results are another config's."""
    changed = {task.name: task for task in tasks if task.status() == 'changed'}
    if changed:
        keys = sorted({key for task in changed.values() for key in task.differences()})
        raise UserError(
            f'{", ".join(changed)}: {tasks[0].folder.parents[1]} has results of another config '
            f'({", ".join(keys[:3]) or "of a parent"}{" ..." * (len(keys) > 3)}); train them '
            'again with --redo, count them as they are with --keep, or choose another --work-dir')


def main() -> None:
    args = parse_args()
    experiment = Experiment.read(args.file)
    for flag in ('only', 'redo', 'keep'):
        experiment.check_names(getattr(args, flag) or (), f'--{flag}')
    work_dir = short(args.work_dir or ROOT / 'work_dirs' / 'experiments' / args.file.stem)
    command = command_of(args, work_dir)
    os.chdir(ROOT)
    tasks = make_tasks(experiment, args.only or list(experiment.runs),
                       args.seeds or experiment.seeds, work_dir, args.cfg_options)
    if args.list:
        return list_tasks(tasks)
    changed = [task.name for task in tasks if task.status() == 'changed']
    for task in tasks:
        if args.keep is not None and task.name in set(args.keep or changed) & set(changed):
            task.note()
        if args.redo is not None and task.folder.is_dir() and set(
                experiment.with_parents([task.name])) & set(args.redo or changed):
            print(f'removing {task.folder}')
            shutil.rmtree(task.folder)
    refuse_changed(tasks)
    if args.slurm_array:
        write_text(work_dir / 'slurm.sh', slurm_script(experiment, tasks, command))
        return print(f'wrote {work_dir}/slurm.sh for {len(tasks)} trainings; submit them with\n'
                     f'bash {work_dir}/slurm.sh --partition=... --gres=gpu:1')
    if args.task is not None and not 0 <= args.task < len(tasks):
        raise UserError(f'--task {args.task}: there are tasks 0 to {len(tasks) - 1}')
    runner = Runner(tasks if args.task is None else [tasks[args.task]], experiment.metrics,
                    args.jobs)
    if not args.table:
        for name, config in {task.name: task.config for task in runner.tasks
                             if task.status() != 'finished'}.items():
            build_from(MODELS, copy.deepcopy(config.model), f'runs.{name}.model')
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        runner.run()
    if args.task is None:
        write_table(experiment, tasks, work_dir,
                    shlex.join(['python', 'tools/run_experiments.py', *command]))
    if runner.failed:
        for name, why in runner.failed.items():
            print(f'{name}: {why}')
        raise UserError(f'{len(runner.failed)} of {len(runner.tasks)} trainings failed, for the '
                        'reasons above; the same command tries them again')


if __name__ == '__main__':
    run_tool(main)
