"""Experiment files: the trainings of one table, over several seeds."""
import contextlib
import copy
import functools
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Dict, List, Mapping, Optional, Sequence

from mmdet3d.registry import MODELS
from mmengine.config import Config

from ..checkpoints import file_sha256
from ..engine import check_config, latest_checkpoint, load_config
from ..errors import UserError, build_from, did_you_mean, parse_errors
from .jobs import CODE, Job, JobRunner, check_entry, flat, shortened, write_text
from .process import ROOT, clock, training_step

NEEDED = {'title', 'metrics', 'seeds', 'runs'}
PARENTS = ('teacher', 'start')
RUN_KEYS = {'config', 'options', *PARENTS, 'columns', 'paper'}
_TYPES = dict(title=str, metrics=(list, tuple), seeds=(list, tuple), runs=dict, paper=str,
              baseline=(str, type(None)), others=dict)
_RUN_TYPES = dict(config=str, options=(dict, type(None)), teacher=(str, type(None)),
                  start=(str, type(None)), columns=(dict, type(None)),
                  paper=(list, tuple, type(None)))


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
        _check_types(known, _TYPES, f'experiment {path}: ')
        for key in ('metrics', 'seeds', 'runs'):
            if not known[key]:
                raise UserError(f'experiment {path}: {key}: it is empty')
        for n, metric in enumerate(known['metrics']):
            _check_types({f'metrics[{n}]': metric}, {f'metrics[{n}]': str}, f'experiment {path}: ')
        check_seeds(known['seeds'], f'experiment {path}: seeds')
        experiment = cls(**known)
        for name, run in experiment.runs.items():
            experiment._check_run(f'experiment {path}: runs.{name}', name, run)
        for name, figures in experiment.others.items():
            experiment._check_figures(f'experiment {path}: others.{name}', figures)
        if experiment.baseline is not None:
            experiment.check_names([experiment.baseline], f'experiment {path}: baseline')
        return experiment

    def _check_run(self, where: str, name: str, run: Mapping) -> None:
        if not isinstance(name, str) or not re.fullmatch(r'(?!\.\.?$)[\w.+-]{1,100}', name):
            raise UserError(f'{where:.200}: a run names a folder; use letters, digits and _ . + -, '
                            'at most 100')
        _check_types({'': run}, {'': dict}, where)
        for key in run:
            if key not in RUN_KEYS:
                raise UserError(f'{where}.{key!s:.80}: no such key'
                                f'{did_you_mean(str(key), RUN_KEYS)}')
        if 'config' not in run:
            raise UserError(f'{where}: it has no config')
        _check_types(run, _RUN_TYPES, f'{where}.')
        self._check_figures(f'{where}.paper', run.get('paper') or [None] * len(self.metrics))
        self._check_parents(where, (name, ))

    def _check_figures(self, where: str, figures: Sequence) -> None:
        if not isinstance(figures, (list, tuple)) or len(figures) != len(self.metrics) or not all(
                value is None or (type(value) in (int, float) and abs(value) < 1e6)
                for value in figures):
            raise UserError(f'{where}: expected {len(self.metrics)} figures, one for each of '
                            f'metrics, got {figures!r:.80}')

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
                raise UserError(f'{where}: no run {name!r:.120}{did_you_mean(name, self.runs)}')

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


def _check_types(values: Mapping, types: Mapping, where: str) -> None:
    for key, value in values.items():
        if not isinstance(value, types[key]):
            kinds = types[key] if isinstance(types[key], tuple) else (types[key], )
            names = ' or '.join(kind.__name__ for kind in kinds if kind is not type(None))
            raise UserError(f'{where}{key}: expected {names}, got {value!r:.80}')


def check_seeds(seeds: Sequence[int], where: str) -> None:
    """Raise an error unless all seeds are different numbers that torch takes."""
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed < 1 << 32:
            raise UserError(f'{where}: expected whole numbers from 0 to {(1 << 32) - 1}, got '
                            f'{seed!r:.40}')
    if len(set(seeds)) < len(seeds):
        raise UserError(f'{where}: one occurs twice: {list(seeds)!r:.80}')


class Training(Job):
    """A run with one seed.

    Args:
        name, seed: which.
        folder: work dir of the training.
        config: complete, but for the paths of its parents.
        metrics: names of the metrics to keep.
        parents: ``teacher`` and ``start`` where it has them.
    """

    def __init__(self, name: str, seed: int, folder: Path, config: Config,
                 metrics: Sequence[str] = (), parents: Optional[Mapping[str, 'Training']] = None):
        super().__init__(name, folder, parents)
        self.seed, self.folder, self.config, self.metrics = seed, folder, config, metrics
        self.proof, self.lock = folder / 'last_checkpoint', folder / '.lock'
        self.busy = f'another process trains in {folder}; wait for it'
        self.log = folder / 'train.log'

    def __str__(self) -> str:
        return f'{self.name}, seed {self.seed}'

    @property
    def settings(self) -> Dict[str, str]:
        settings = flat(self.config._cfg_dict.to_dict())
        return {**settings, **contents(settings), **CODE}

    @property
    def begun(self) -> dict:
        """Nothing before the first checkpoint, which is when a training can be resumed."""
        return super().begun if self.proof.is_file() else {}

    @property
    def result(self) -> Optional[dict]:
        """Its ``metrics`` and the name of its last ``checkpoint``, besides a job's."""
        result = super().result
        if result is not None:
            with parse_errors(f'{self.state / "result.json"}: damaged',
                              'delete it; the same command makes it again'):
                check_entry(result, 'checkpoint', str)
                check_entry(result, 'metrics', dict)
                for name in result['metrics']:
                    check_entry(result['metrics'], name, float)
                if Path(result['checkpoint']).name != result['checkpoint']:
                    raise ValueError(f'checkpoint: {result["checkpoint"]!r:.60} is in another '
                                     'folder')
        return result

    def commands(self) -> List[List[str]]:
        """Write the config with its parents' checkpoints; the training resumes what is there."""
        config, last = copy.deepcopy(self.config), {
            key: str(parent.folder / parent.result['checkpoint'])
            for key, parent in self.needs.items()}
        if 'teacher' in last:
            config.model.teacher = dict(config=str(self.needs['teacher'].folder / 'config.py'),
                                        checkpoint=last['teacher'])
        config.load_from = last.get('start', config.get('load_from'))
        write_text(self.folder / 'config.py', config.pretty_text)
        return [['tools/train.py', str(self.folder / 'config.py'), '--work-dir', str(self.folder),
                 '--resume']]

    def measure(self) -> dict:
        return dict(name=self.name, seed=self.seed,
                    metrics=read_metrics(self.folder, self.metrics),
                    checkpoint=Path(latest_checkpoint(self.folder)).name)


def contents(settings: Mapping[str, str]) -> Dict[str, str]:
    """What the files hold that a config names: info files and checkpoints.

    Args:
        settings: Of the config, by dotted key.

    Returns:
        dict: Path to 16 digits of the content's hash; of a folder of checkpoints, their names and
        times.
    """
    found = {}
    for key, value in settings.items():
        parent, _, name = key.rpartition('.')
        path = Path(settings.get(f'{parent}.data_root', ''), value)
        if name in ('ann_file', 'checkpoint', 'load_from') and path.exists():
            status = path.stat()
            found[f'content of {path}'] = _content(path, status.st_size, status.st_mtime_ns)
    return found


@functools.lru_cache(maxsize=64)
def _content(path: Path, size: int, time: int) -> str:
    if path.is_dir():
        files = sorted((file.name, file.stat().st_mtime_ns) for file in path.glob('*.pth'))
        return hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    return file_sha256(path)[:16]


def make_trainings(experiment: Experiment, names: Sequence[str], seeds: Sequence[int],
                   work_dir: Path, overrides: Mapping) -> List[Training]:
    """The trainings of the named runs and of their parents, in an order that can be run."""
    trainings: Dict[tuple, Training] = {}
    for name in experiment.with_parents(names):
        config = _load(experiment, name, overrides)
        for seed in seeds:
            own = copy.deepcopy(config)
            own.merge_from_dict({'randomness.seed': seed})
            parents = {key: trainings[parent, seed]
                       for key, parent in experiment.parents(name).items()}
            trainings[name, seed] = Training(name, seed, work_dir / name / f'seed_{seed}', own,
                                             experiment.metrics, parents)
    return list(trainings.values())


def _load(experiment: Experiment, name: str, overrides: Mapping) -> Config:
    """A run's config with its options, checked but for its model."""
    run = experiment.runs[name]
    path = Path(run['config'])
    try:
        options = copy.deepcopy({**(run.get('options') or {}), **overrides})
        config = load_config(path if path.is_absolute() else ROOT / path, options)
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


def check_models(trainings: Sequence[Training]) -> None:
    """Build the models of what is not finished, to find errors before the first training.

    Raises:
        UserError: A model's config has one.
    """
    for name, config in {training.name: training.config for training in trainings
                         if training.status() != 'finished'}.items():
        build_from(MODELS, copy.deepcopy(config.model), f'runs.{name}.model')


def refuse_changed(trainings: Sequence[Training]) -> None:
    """Raise an error that names the runs whose results are another config's."""
    changed = {training.name: training for training in trainings
               if training.status() == 'changed'}
    if changed:
        other = list(dict.fromkeys(text for training in changed.values()
                                   for text in training.differences()))
        raise UserError(
            f'{", ".join(changed)}: {trainings[0].folder.parents[1]} has results of another config '
            f'({shortened(other) or "of a parent"}); train them again with --redo, count them as '
            'they are with --keep, or choose another --work-dir')


def read_metrics(folder: Path, names: Sequence[str]) -> Dict[str, float]:
    """The metrics of a training's last validation by step, whatever clock its logs are named by."""
    last: dict = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # a kill cut the line short
                record = json.loads(line)
                if (isinstance(record, dict) and 'loss' not in record
                        and record.get('step', 0) >= last.get('step', 0)):
                    last = record
    for name in names:
        if name not in last:
            measured = [key for key in last if '/' in key]
            raise UserError(f'metrics: the validation gives no {name!r}'
                            f'{did_you_mean(name, measured)}')
        if math.isnan(last[name]):
            raise UserError(f'metrics: {name} is not a number: the validation data have no ground '
                            'truth for it; choose a split with annotations')
    return {name: last[name] for name in names}


class TrainingRunner(JobRunner):
    """Trains; shows every quarter of a training, and when the rest will be done."""

    def __init__(self, trainings: Sequence[Training], parallel: int = 1) -> None:
        super().__init__(trainings, parallel)
        self.seconds: List[float] = []
        self.quarters: Dict[str, int] = {}

    def show_line(self, job: Job, tool: str, line: str) -> None:
        step = training_step(line)
        if step and (quarter := 4 * step.done // step.total) != self.quarters.get(str(job), 0):
            self.quarters[str(job)] = quarter
            print(f'{job}: {25 * quarter:3d} %, loss {step.loss}', flush=True)

    def show_end(self, job: Job, result: dict, left: int) -> None:
        self.seconds.append(result['seconds'])
        eta = mean(self.seconds) * left / self.parallel
        print(f'{job}: {describe(result["metrics"])} in {clock(result["seconds"])}'
              f'{f"; {left} left, about {clock(eta)}" if left else ""}', flush=True)


def describe(metrics: Mapping[str, float]) -> str:
    """Names and values in one line."""
    return ', '.join(f'{name} {value:.2f}' for name, value in metrics.items())
