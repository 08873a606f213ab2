"""The reports of ``tools/benchmark.py``: of models, of loading, and of training."""
import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Mapping, Optional, Sequence

import torch

from ..apis import BEVInferencer
from ..engine import load_config
from ..engine.cli import read_result
from ..engine.memory import keep_freed_memory
from ..errors import UserError
from .backends import build_backend, check_backend
from .data_loading import describe_data
from .latency import (
    PARTS,
    Entry,
    compare,
    count_macs,
    describe,
    evaluate,
    measure,
    synthetic_frame,
)
from .memory import peak_memory
from .tables import STATISTICS, aligned, device_name, machine
from .training_speed import describe_training


@dataclass
class Settings:
    """How to measure.

    Attributes:
        frames, warmup: rounds to measure, and before.
        batch_size: frames of a round.
        synthetic, points: frames of noise in place of the test data, and their LiDAR points.
        backends: names, see :func:`.build_backend`.
        official: measure the official baseline too, as the first.
        memory: measure peak memory too.
        test: evaluate checkpoints that have no result on the test data.
        split: whose frames :func:`report_on_data` loads.
        device: defaults to the GPU if there is one.
        cfg_options: to override in every config.
    """

    frames: int = 20
    warmup: int = 3
    batch_size: int = 1
    synthetic: bool = False
    points: int = 131072
    backends: Sequence[str] = ('eager', )
    official: bool = False
    memory: bool = False
    test: bool = False
    split: str = 'train'
    device: Optional[str] = None
    cfg_options: Mapping = field(default_factory=dict)


def parse_models(words: Sequence[str], names: Optional[Sequence[str]] = None) -> List[Entry]:
    """Group paths into models: each config, its checkpoint and its result."""
    entries: List[Entry] = []
    for word in words:
        kind = {'.py': 'config', '.pth': 'checkpoint', '.json': 'result'}.get(Path(word).suffix)
        if kind == 'config':
            entries.append(Entry(Path(word).stem, word))
        elif kind is None or not entries or getattr(entries[-1], kind):
            raise UserError(f'{word}: expected CONFIG.py, followed by at most one CHECKPOINT.pth '
                            'and one RESULT.json of it')
        else:
            setattr(entries[-1], kind, word)
    if names:
        if len(names) != len(entries):
            raise UserError(f'--names: expected {len(entries)}, got {len(names)}')
        for entry, name in zip(entries, names):
            entry.name = name
    if len({entry.name for entry in entries}) < len(entries):
        raise UserError('two models have the same name; tell them apart with --names')
    return entries


def load_entry(entry: Entry, settings: Settings) -> None:
    """Build the model, a synthetic frame where asked for, and the backend."""
    if entry.inferencer is None:
        entry.inferencer = BEVInferencer(
            load_config(entry.config, settings.cfg_options), entry.checkpoint, settings.device)
    if settings.synthetic:
        entry.synthetic = synthetic_frame(entry.inferencer.dataset_cfg.pipeline, settings.points)
    entry.runtime = build_backend(entry.backend, entry.inferencer.model,
                                  entry.batch(0, settings.batch_size))


def in_backends(entries: Sequence[Entry], settings: Settings) -> List[Entry]:
    """Each model in each backend, built; backends of one model share it."""
    backends = [*(['official'] if settings.official else []), *settings.backends]
    if len(set(backends)) < len(backends):
        raise UserError('--backends: each backend once')
    for backend in backends:
        check_backend(backend)
    found = []
    for entry in entries:
        load_entry(entry, settings)
        for backend in backends:
            one = entry if backend == 'eager' else copy.copy(entry)
            if backend != 'eager':
                one.backend, one.seconds = backend, {part: [] for part in PARTS}
                load_entry(one, settings)
            if len(backends) > 1:
                one = copy.copy(one)
                one.name = f'{entry.name}, {backend}'
            found.append(one)
    return found


def report_on_models(settings: Settings, entries: Sequence[Entry]) -> dict:
    """Everything that is measured of models."""
    results = {entry.name: read_result(entry.result) for entry in entries if entry.result}
    keep_freed_memory()
    entries = in_backends(entries, settings)
    compare(entries)
    measure(entries, settings.frames, settings.warmup, settings.batch_size)
    report = dict(device=device_name(settings.device), machine=machine(),
                  threads=torch.get_num_threads(), batch_size=settings.batch_size,
                  frames=settings.frames, warmup=settings.warmup, synthetic=settings.synthetic,
                  models={})
    for entry in entries:
        metrics = results.get(entry.name.split(',')[0], {})
        if settings.test and entry.checkpoint and not metrics:
            metrics = evaluate(entry)
        if settings.memory:
            entry.peak = peak_memory(entry.inferencer.model, entry.backend,
                                     entry.batch(0, settings.batch_size))
        report['models'][entry.name] = describe(entry, count_macs(entry), metrics,
                                                settings.batch_size)
    return report


def report_on_data(settings: Settings, entries: Sequence[Entry]) -> dict:
    """The loading of frames of each config."""
    _refuse_checkpoints('--data', entries)
    keep_freed_memory()  # as tools/train.py does
    return dict(machine=machine(), split=settings.split, frames=settings.frames,
                warmup=settings.warmup, data={entry.name: describe_data(
                    load_config(entry.config, settings.cfg_options), settings.split,
                    settings.frames, settings.warmup) for entry in entries})


def report_on_training(settings: Settings, entries: Sequence[Entry]) -> dict:
    """The training steps of each config."""
    _refuse_checkpoints('--train', entries)
    keep_freed_memory()  # as tools/train.py does
    return dict(device=device_name(settings.device), machine=machine(),
                threads=torch.get_num_threads(), frames=settings.frames,
                warmup=settings.warmup, training={entry.name: describe_training(
                    load_config(entry.config, settings.cfg_options), settings.frames,
                    settings.warmup, settings.device) for entry in entries})


def _refuse_checkpoints(flag: str, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.checkpoint or entry.result:
            raise UserError(f'{flag}: {entry.checkpoint or entry.result} is no config')


def text_of_models(report: Mapping) -> str:
    """The table of models, the table of their parts, and how they were made."""
    models = report['models']
    names = list(dict.fromkeys(key for model in models.values() for key in model['metrics']))
    baselines = {model['config']: model for model in models.values()
                 if model['backend'] == 'official'}
    head = [['model', 'parameters', 'trainable', 'GMACs', *(n.split('/')[-1] for n in names), 'ER',
             'network ms', 'without loading ms', 'all ms', 'frames/s', 'x official', 'difference',
             'peak MiB']]
    parts = [['model', 'part, ms', *STATISTICS]]
    for name, model in models.items():
        times = model['milliseconds']
        baseline = baselines.get(model['config'])
        faster = baseline and (baseline['milliseconds']['without loading']['median'] /
                               times['without loading']['median'])
        head.append([
            name, f'{model["parameters"]:,}', f'{model["trainable"]:,}',
            _number(model['macs'] and model['macs'] / 1e9),
            *(_number(model['metrics'].get(key)) for key in names),
            _number(model['efficiency_ratio']), *(f'{times[part]["median"]:.1f}' for part in (
                'network', 'without loading', 'all')), f'{model["frames_per_second"]:.1f}',
            _number(faster), _number(model['difference'], '.1e'),
            _number(model['peak_mib'], '.0f')])
        parts += [[name if i == 0 else '', part, *(f'{value:.2f}' for value in values.values())]
                  for i, (part, values) in enumerate(times.items())]
    filled = [column for column in zip(*head)
              if column[0] in ('ER', 'GMACs') or set(column[1:]) != {'–'}]
    return (f'{aligned(list(zip(*filled)))}\n\nTimes are medians; ER is IoU100 per million '
            f'parameters.\n\n{aligned(parts)}\n\n{_protocol(report)}\n')


def _number(value: Optional[float], style: str = '.2f') -> str:
    return '–' if value is None else format(value, style)


def _protocol(report: Mapping) -> str:
    """How the latency was measured, in one sentence."""
    inputs = 'synthetic inputs, not loaded' if report['synthetic'] else 'frames of the test data'
    return (f'{report["device"]}, {report["threads"]} threads ({report["machine"]}), '
            f'batch {report["batch_size"]}, {report["frames"]} rounds after {report["warmup"]} to '
            f'warm up, {inputs}, models alternately.')
