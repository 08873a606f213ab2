"""Compare models: parameters, MACs, accuracy, efficiency ratio, latency.

    python tools/benchmark.py CONFIG [CHECKPOINT.pth] [RESULT.json] [CONFIG ...] [--synthetic]
                              [--forms eager deployed openvino ...] [--replica] [--memory]
    python tools/benchmark.py --data CONFIG [CONFIG ...] [--split train]
    python tools/benchmark.py --train CONFIG [CONFIG ...]

Latency is measured in four parts: loading a frame, preprocessing it, the network, and the head's
prediction. The models take turns, so that a busy machine slows all of them alike; the same frames
for all, some turns to warm up, then mean, median, 90th and 95th percentile and minimum. MACs are
those of convolutions, linear layers and matrix products, for one frame. A distiller is measured as
what is deployed: its student. RESULT.json is what tools/test.py or tools/run_experiments.py wrote.

A form is how a model runs: eager; deployed (norms folded, constant geometry), onnxruntime or
openvino; eager and deployed also with -compiled, -bf16 or -fp16 after the name, openvino with
-bf16. --replica adds the official data flow of KD360-VoxelBEV's student and each form's speed in
multiples of it. Freed memory is kept for the next tensors, as the tools here do; the replica runs
in a process without that, and with it as replica-kept. The column "difference" is the largest of
the segmentation's probability from that of the model's first form but the replica.
"""
import argparse
import copy
import json
import os
import platform
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch
from mmdet3d.registry import DATASETS, METRICS, MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.datasets.timing import time_input, time_loader, time_transforms
from mmdet3d_plugin.datasets.transforms.loading import equirect_camera
from mmdet3d_plugin.deployment.forms import build_form
from mmdet3d_plugin.deployment.memory import peak_memory, peak_resident
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import CfgOptions, read_result, run_tool
from mmdet3d_plugin.engine.memory import keep_freed_memory
from mmdet3d_plugin.engine.training_speed import describe_steps, time_steps, training_steps
from mmdet3d_plugin.errors import UserError, build_from
from mmdet3d_plugin.structures import fields

PARTS = ('load', 'preprocess', 'network', 'predict')
STATISTICS: Dict[str, Callable[[np.ndarray], float]] = {
    'mean': np.mean, 'median': np.median, 'p90': lambda ms: np.percentile(ms, 90),
    'p95': lambda ms: np.percentile(ms, 95), 'min': np.min}


@dataclass
class Entry:
    """A model to measure, in one form.

    Attributes:
        name: of its rows.
        config, checkpoint, result: files; the last two may be missing.
        style: name of the form.
        inferencer: the model and how its frames are loaded.
        made: a synthetic frame, in place of the test data.
        form: how it runs; see :mod:`mmdet3d_plugin.deployment.forms`.
        difference: of the segmentation's probability from the first form's, largest of a frame.
        peak: memory of a process that does nothing else, MiB.
        seconds: of each measured turn, by part.
    """

    name: str
    config: str
    checkpoint: Optional[str] = None
    result: Optional[str] = None
    style: str = 'eager'
    inferencer: Optional[BEVInferencer] = None
    made: Optional[dict] = None
    form: Optional[object] = None
    difference: Optional[float] = None
    peak: Optional[float] = None
    seconds: Dict[str, List[float]] = field(default_factory=lambda: {part: [] for part in PARTS})

    @property
    def network(self) -> nn.Module:
        """What runs at inference: the student of a distiller, else the model itself."""
        return getattr(self.inferencer.model, 'student', self.inferencer.model)

    def batch(self, start: int, size: int) -> dict:
        """Frames of the test data, or ``size`` times the synthetic one, collated."""
        if self.made:
            return pseudo_collate([self.made] * size)
        dataset = self.inferencer.dataset
        return pseudo_collate([dataset[i % len(dataset)] for i in range(start, start + size)])


# ------------------------------------------------------------------------------------------- inputs
def synthetic_frame(pipeline: Sequence[Mapping], points: int) -> dict:
    """A packed frame of noise with the sizes of a pipeline's; needs no files.

    Args:
        pipeline: of the test data; its panorama and LiDAR image loaders say the sizes.
        points: number of LiDAR points, within 50 m and 2 m of height.

    Raises:
        UserError: The pipeline loads images that are no panorama.
    """
    inputs, meta = {}, dict(bev_aug=np.eye(4))
    generator = np.random.default_rng(0)
    packed = next((t.get('keys') for t in pipeline if t['type'] == 'PackBEVInputs'), None)
    for transform in [t for step in pipeline for t in step.get('transforms', [step])]:
        kind = transform['type']
        if kind.endswith('Panorama'):
            size = tuple(transform.get('size', (1024, 2048)))
            inputs[fields.IMG] = torch.from_numpy(
                generator.integers(0, 256, (1, 3, *size), dtype=np.uint8))
            fov = np.deg2rad(transform.get('fov_deg', (90, -90)))
            meta[fields.CAMERAS] = [equirect_camera('synthetic', np.eye(4), size, fov)]
        elif kind.endswith('LiDARImage'):
            size = tuple(transform['size'])
            inputs[fields.LIDAR_IMG] = torch.from_numpy(
                generator.random((len(transform['channels']), *size), dtype=np.float32))
            fov = np.deg2rad(transform.get('fov_deg', (22.5, -22.5)))
            meta[fields.LIDAR_CAMERA] = equirect_camera('synthetic', np.eye(4), size, fov)
            cloud = generator.uniform((-50, -50, -2), (50, 50, 2), (points, 3))
            inputs[fields.POINTS] = torch.from_numpy(cloud.astype(np.float32))
    if not inputs:
        raise UserError('--synthetic: the test pipeline has no ...Panorama and no ...LiDARImage, '
                        'whose sizes the inputs would take; measure on real data')
    return dict(inputs={key: value for key, value in inputs.items() if key in (packed or inputs)},
                data_samples=Det3DDataSample(metainfo=meta))


# ---------------------------------------------------------------------------------------- measuring
@torch.no_grad()
def step(entry: Entry, start: int, size: int) -> Dict[str, float]:
    """One turn of one model, with ``size`` frames from ``start`` on; seconds by part."""
    clock = [_now()]
    batch = entry.batch(start, size)
    clock.append(_now())
    data = entry.form.prepare(batch)
    clock.append(_now())
    outs = entry.form.run(data)
    clock.append(_now())
    entry.form.finish(outs)
    clock.append(_now())
    return dict(zip(PARTS, np.diff(clock).tolist()))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(entries: Sequence[Entry], frames: int, warmup: int, batch_size: int) -> None:
    """Fill ``seconds`` of every model, turn by turn, after ``warmup`` turns."""
    for turn in range(warmup + frames):
        for entry in entries:
            for part, seconds in step(entry, turn * batch_size, batch_size).items():
                if turn >= warmup:
                    entry.seconds[part].append(seconds)


@torch.no_grad()
def count_macs(entry: Entry) -> Optional[int]:
    """Multiply-adds of convolutions, linear layers and matrix products for one frame in torch."""
    form = getattr(entry.form, 'local', entry.form)
    if not hasattr(form, 'network') or 'compiled' in entry.style:
        return None
    data = form.prepare(entry.batch(0, 1))
    form.run(data)  # the geometry, which is computed once
    with FlopCounterMode(display=False) as counter:
        form.run(data)
    return counter.get_total_flops() // 2


@torch.no_grad()
def compare(entries: Sequence[Entry]) -> None:
    """Fill ``difference`` of every form from its model's first, on the first frame."""
    first = {}
    for entry in sorted(entries, key=lambda entry: entry.style.startswith('replica')):
        outs = entry.form.run(entry.form.prepare(entry.batch(0, 1)))
        if 'segmentation' in outs:
            found = entry.form.probability(outs).cpu()
            expected = first.setdefault(id(entry.inferencer), found)
            entry.difference = float((found - expected).abs().max())


@torch.no_grad()
def evaluate(entry: Entry) -> Dict[str, float]:
    """The metrics of the config's test data."""
    dataset, config = entry.inferencer.dataset, entry.inferencer.model.cfg
    metric = METRICS.build(config.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        batch = pseudo_collate([dataset[index]])
        samples = entry.inferencer.model.test_step(batch)
        metric.process(batch, [sample.to_dict() for sample in samples])
    return metric.evaluate(len(dataset))


def describe(entry: Entry, macs: Optional[int], metrics: Mapping[str, float],
             batch_size: int) -> dict:
    """Everything that is known of a model."""
    parameters = sum(p.numel() for p in entry.network.parameters())
    ms = {part: 1000 * np.array(seconds) for part, seconds in entry.seconds.items()}
    ms['without loading'] = ms['preprocess'] + ms['network'] + ms['predict']
    ms['all'] = ms['load'] + ms['without loading']
    iou = metrics.get('bev/IoU100')
    return dict(
        config=entry.config, checkpoint=entry.checkpoint, form=entry.style,
        difference=entry.difference, peak_mib=entry.peak, parameters=parameters,
        trainable=sum(p.numel() for p in entry.network.parameters() if p.requires_grad),
        macs=macs, metrics=dict(metrics),
        efficiency_ratio=None if iou is None else iou / (parameters / 1e6),
        frames_per_second=1000 * batch_size / float(np.median(ms['without loading'])),
        milliseconds={part: {name: float(of(values)) for name, of in STATISTICS.items()}
                      for part, values in ms.items()})


# ------------------------------------------------------------------------------------------ loading
def describe_data(cfg: Config, split: str, frames: int, warmup: int) -> dict:
    """Milliseconds of each transform and of a frame, and the loader's throughput."""
    loader_cfg = cfg.get(f'{split}_dataloader')
    if not loader_cfg:
        raise UserError(f'config {cfg.filename}: it has no {split}_dataloader')
    dataset = build_from(DATASETS, loader_cfg.dataset, f'{split}_dataloader.dataset')
    turns = tqdm(range(warmup + frames), 'transforms', unit='frame')
    spent = list(time_transforms(dataset, turns))[warmup:]
    parts = {name: 1000 * np.array([turn[name] for turn in spent]) for name in spent[0]}
    parts['all'] = sum(parts.values())
    whole = parts['all'][:, 0].sum()
    loader = Runner.build_dataloader(loader_cfg, seed=0)
    batches = -(-frames // loader.batch_size)
    seconds = list(tqdm(time_loader(loader, batches), 'data loader', batches, unit='batch'))
    return dict(
        input=describe_input(cfg, dataset, frames, warmup),
        frames_on_disk=len(dataset), workers=loader.num_workers, batch_size=loader.batch_size,
        frames_per_second=batches * loader.batch_size / sum(seconds),
        milliseconds={name: dict({key: float(of(ms[:, 0])) for key, of in STATISTICS.items()},
                                 cpu=float(np.median(ms[:, 1])), share=ms[:, 0].sum() / whole)
                      for name, ms in parts.items()})


def describe_input(cfg: Config, dataset, frames: int, warmup: int) -> Optional[dict]:
    """Milliseconds from the images' files to the network's input; None without images."""
    model = cfg.get('model') or {}
    preprocessor = model.get('data_preprocessor') or model.get('student', {}).get(
        'data_preprocessor')
    if not preprocessor or not dataset.get_data_info(0).get('images'):
        return None
    preprocess = build_from(MODELS, preprocessor, 'model.data_preprocessor')
    spent = list(time_input(dataset, preprocess, range(warmup + frames)))[warmup:]
    return {part: 1000 * float(np.median([turn[part] for turn in spent])) for part in spent[0]}


def text_of_data(report: Mapping) -> str:
    """The table of each config and how it was made."""
    texts = []
    for name, data in report['data'].items():
        rows = [[name, *STATISTICS, 'cpu', 'share']]
        rows += [[part, *(f'{ms[key]:.2f}' for key in (*STATISTICS, 'cpu')),
                  f'{100 * ms["share"]:.0f} %'] for part, ms in data['milliseconds'].items()]
        texts.append(aligned(rows))
        if data['input']:
            texts.append('From the images to the network\'s input {all:.1f} ms of the processor: '
                         'loading {loading:.1f} (of it decoding {decoding:.1f}), packing '
                         '{packing:.1f}, preprocessing {preprocessing:.1f}.'.format_map(
                             data['input']))
        texts.append(f'{data["workers"]} workers, batch {data["batch_size"]}: '
                     f'{data["frames_per_second"]:.1f} frames/s through the data loader.')
    return '\n\n'.join([*texts, (
        f'Milliseconds a frame, one thread ({report["machine"]}), {report["frames"]} frames of '
        f'{report["split"]} after {report["warmup"]} to warm up; cpu is the median without '
        'waiting for disk and other processes.')]) + '\n'


# ----------------------------------------------------------------------------------------- training
def describe_training(cfg: Config, turns: int, warmup: int) -> dict:
    """Times of the steps, frames a second of them and of two loading workers, peak memory."""
    loader_cfg = dict(cfg.train_dataloader, num_workers=2, persistent_workers=False)
    size = loader_cfg['batch_size']
    dataset = build_from(DATASETS, loader_cfg['dataset'], 'train_dataloader.dataset')
    batches = [pseudo_collate([dataset[(size * n + i) % len(dataset)] for i in range(size)])
               for n in range(2)]
    steps = training_steps(cfg, batches)
    spent = list(time_steps(steps, tqdm(range(warmup + turns), 'training', unit='turn')))[warmup:]
    peak = peak_resident()
    loader = Runner.build_dataloader(loader_cfg, seed=0)
    loading = list(tqdm(time_loader(loader, turns), 'data loader', turns, unit='batch'))
    return dict(batch_size=size, steps=describe_steps(spent), peak_mib=peak,
                loader_frames_per_second=turns * size / sum(loading))


def text_of_training(report: Mapping) -> str:
    """The table of all configs and how it was made."""
    rows = [['model', 'step', 'cpu ms', 'clock ms', 'ratio', 'frames/s', 'loader frames/s',
             'batch']]
    for name, entry in report['training'].items():
        rows += [[name, part, f'{ms["cpu"]:.0f}', f'{ms["clock"]:.0f}', f'{ms["ratio"]:.2f}',
                  f'{1000 * entry["batch_size"] / ms["clock"]:.1f}',
                  f'{entry["loader_frames_per_second"]:.1f}', str(entry['batch_size'])]
                 for part, ms in entry['steps'].items()]
    peak = max(entry['peak_mib'] for entry in report['training'].values())
    return (f'{aligned(rows)}\n\nMedians of {report["frames"]} turns after {report["warmup"]} to '
            f'warm up, {report["threads"]} threads ({report["machine"]}), steps in turn; the '
            f'loader has two workers. Peak memory of the whole process: {peak:.0f} MiB.\n')


# ------------------------------------------------------------------------------------------- tables
def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [[cell.rjust(width) if i else cell.ljust(width)
              for i, (cell, width) in enumerate(zip(row, widths))] for row in rows]
    lines.insert(1, ['-' * (width - bool(i)) + ':' * bool(i) for i, width in enumerate(widths)])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def text_of(report: Mapping) -> str:
    """Both tables and how they were made."""
    models = report['models']
    names = list(dict.fromkeys(key for model in models.values() for key in model['metrics']))
    replicas = {model['config']: model for model in models.values()
                if model['form'] == 'replica'}
    head = [['model', 'parameters', 'trainable', 'GMACs', *(n.split('/')[-1] for n in names), 'ER',
             'network ms', 'without loading ms', 'all ms', 'frames/s', 'x replica', 'difference',
             'peak MiB']]
    parts = [['model', 'part, ms', *STATISTICS]]
    for name, model in models.items():
        times, ratio = model['milliseconds'], model['efficiency_ratio']
        replica = replicas.get(model['config'])
        faster = replica and (replica['milliseconds']['without loading']['median'] /
                              times['without loading']['median'])
        head.append([
            name, f'{model["parameters"]:,}', f'{model["trainable"]:,}',
            _number(model['macs'] and model['macs'] / 1e9),
            *(_number(model['metrics'].get(key)) for key in names),
            _number(ratio), *(f'{times[part]["median"]:.1f}' for part in (
                'network', 'without loading', 'all')), f'{model["frames_per_second"]:.1f}',
            _number(faster), _number(model['difference'], '.1e'),
            _number(model['peak_mib'], '.0f')])
        parts += [[name if i == 0 else '', part, *(f'{value:.2f}' for value in values.values())]
                  for i, (part, values) in enumerate(times.items())]
    filled = [column for column in zip(*head)
              if column[0] in ('ER', 'GMACs') or set(column[1:]) != {'–'}]
    return (f'{aligned(list(zip(*filled)))}\n\nTimes are medians; ER is IoU100 per million '
            f'parameters.\n\n{aligned(parts)}\n\n{protocol(report)}\n')


def _number(value: Optional[float], style: str = '.2f') -> str:
    return '–' if value is None else format(value, style)


def protocol(report: Mapping) -> str:
    """How the latency was measured, in one sentence."""
    inputs = 'synthetic inputs, not loaded' if report['synthetic'] else 'frames of the test data'
    return (f'{report["device"]}, {report["threads"]} threads ({report["machine"]}), '
            f'batch {report["batch_size"]}, {report["frames"]} turns after {report["warmup"]} to '
            f'warm up, {inputs}, models in turn.')


def machine() -> str:
    """Processor, its cores for this process, and the version of torch."""
    cpu = platform.processor() or platform.machine()
    if Path('/proc/cpuinfo').is_file():
        found = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text())
        cpu = found[1] if found else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return f'{cpu}, {cores} cores, torch {torch.__version__}'


def parse_models(words: Sequence[str], names: Optional[Sequence[str]]) -> List[Entry]:
    """Group the words into models: each config, its checkpoint and its result."""
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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('models', nargs='+', metavar='CONFIG [CHECKPOINT] [RESULT]',
                        help='.py, and where given .pth and .json; random weights without .pth')
    parser.add_argument('--names', nargs='+', help='of the models (default: config names)')
    parser.add_argument('--frames', type=int, default=20, help='turns to measure (default: 20)')
    parser.add_argument('--warmup', type=int, default=3, help='turns before (default: 3)')
    parser.add_argument('--batch-size', type=int, default=1, help='frames of a turn (default: 1)')
    parser.add_argument('--synthetic', action='store_true',
                        help="noise of the test data's sizes; needs no data")
    parser.add_argument('--points', type=int, default=131072,
                        help='LiDAR points of a synthetic frame (default: 131072)')
    parser.add_argument('--forms', nargs='+', default=['eager'], metavar='FORM',
                        help='in which each model runs (default: eager); see above')
    parser.add_argument('--replica', action='store_true',
                        help='measure against the official data flow')
    parser.add_argument('--memory', action='store_true',
                        help='measure peak memory too, each form in a process of its own')
    parser.add_argument('--test', action='store_true',
                        help='evaluate checkpoints that have no RESULT on the test data')
    parser.add_argument('--data', action='store_true',
                        help='time the loading of frames, by transform, in place of the models')
    parser.add_argument('--train', action='store_true',
                        help='time steps of training, in place of the models')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train',
                        help='whose frames --data loads (default: train)')
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument('--threads', type=int, help='of the CPU (default: as torch chooses)')
    parser.add_argument('--out', nargs='+', default=[], help='files to write, .json or .md')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='to override in every config')
    args = parser.parse_args()
    if min(args.frames, args.batch_size, args.points) < 1 or args.warmup < 0:
        parser.error('expected --frames, --batch-size and --points of at least 1 and --warmup of '
                     'at least 0')
    if args.test and args.synthetic:
        parser.error('--test needs the test data; leave --synthetic out')
    for flag in ('data', 'train'):
        if getattr(args, flag) and (args.test or args.synthetic or args.data and args.train):
            parser.error(f'--{flag} measures nothing else; leave the others out')
    for path in args.out:
        if Path(path).suffix not in ('.json', '.md'):
            parser.error(f'--out {path}: expected a name that ends with .json or .md')
    return args


def check_configs_only(flag: str, entries: Sequence[Entry]) -> None:
    """Refuse checkpoints and results."""
    for entry in entries:
        if entry.checkpoint or entry.result:
            raise UserError(f'{flag}: {entry.checkpoint or entry.result} is no config')


def report_on_training(args: argparse.Namespace, entries: Sequence[Entry]) -> dict:
    """Everything that --train measures."""
    check_configs_only('--train', entries)
    keep_freed_memory()  # as tools/train.py does
    return dict(machine=machine(), threads=torch.get_num_threads(), frames=args.frames,
                warmup=args.warmup, training={
                    entry.name: describe_training(load_config(entry.config, args.cfg_options),
                                                  args.frames, args.warmup) for entry in entries})


def report_on_data(args: argparse.Namespace, entries: Sequence[Entry]) -> dict:
    """Everything that --data measures."""
    check_configs_only('--data', entries)
    keep_freed_memory()  # as tools/train.py does
    return dict(machine=machine(), split=args.split, frames=args.frames, warmup=args.warmup, data={
        entry.name: describe_data(load_config(entry.config, args.cfg_options), args.split,
                                  args.frames, args.warmup) for entry in entries})


def load_entry(entry: Entry, args: argparse.Namespace) -> None:
    """Build the model, a synthetic frame where asked for, and the form."""
    if entry.inferencer is None:
        entry.inferencer = BEVInferencer(
            load_config(entry.config, args.cfg_options), entry.checkpoint, args.device)
    if args.synthetic:
        entry.made = synthetic_frame(entry.inferencer.dataset_cfg.pipeline, args.points)
    entry.form = build_form(entry.style, entry.inferencer.model, entry.batch(0, args.batch_size))


def in_forms(entries: Sequence[Entry], args: argparse.Namespace) -> List[Entry]:
    """Each model in each form, built; forms of one model share it."""
    styles = [*(['replica'] if args.replica else []), *args.forms]
    if len(set(styles)) < len(styles):
        raise UserError('--forms: each form once')
    found = []
    for entry in entries:
        load_entry(entry, args)
        for style in styles:
            one = entry if style == 'eager' else copy.copy(entry)
            if style != 'eager':
                one.style, one.seconds = style, {part: [] for part in PARTS}
                load_entry(one, args)
            if len(styles) > 1:
                one = copy.copy(one)
                one.name = f'{entry.name}, {style}'
            found.append(one)
    return found


def report_on_models(args: argparse.Namespace, entries: Sequence[Entry]) -> dict:
    """Everything that is measured of models."""
    results = {entry.name: read_result(entry.result) for entry in entries if entry.result}
    keep_freed_memory()
    entries = in_forms(entries, args)
    compare(entries)
    measure(entries, args.frames, args.warmup, args.batch_size)
    gpu = next(entries[0].network.parameters()).is_cuda
    report = dict(device=torch.cuda.get_device_name() if gpu else 'CPU', machine=machine(),
                  threads=torch.get_num_threads(), batch_size=args.batch_size, frames=args.frames,
                  warmup=args.warmup, synthetic=args.synthetic, models={})
    for entry in entries:
        metrics = results.get(entry.name.split(',')[0], {})
        if args.test and entry.checkpoint and not metrics:
            metrics = evaluate(entry)
        if args.memory:
            entry.peak = peak_memory(entry.inferencer.model, entry.style,
                                     entry.batch(0, args.batch_size))
        report['models'][entry.name] = describe(entry, count_macs(entry), metrics,
                                                args.batch_size)
    return report


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    entries = parse_models(args.models, args.names)
    measure_all, write = ((report_on_data, text_of_data) if args.data else
                          (report_on_training, text_of_training) if args.train else
                          (report_on_models, text_of))
    report = measure_all(args, entries)
    text = write(report)
    print(text)
    for path in args.out:
        content = text if Path(path).suffix == '.md' else json.dumps(report, indent=1)
        with atomic_write(path) as file:
            file.write(content.encode())


if __name__ == '__main__':
    run_tool(main)
