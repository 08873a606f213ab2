"""What a prediction costs: latency by part, multiply-adds, and how far backends differ."""
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmdet3d.structures import Det3DDataSample
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..apis import BEVInferencer
from ..datasets.transforms.loading import equirect_camera
from ..errors import UserError
from ..structures import fields
from .tables import now, statistics

PARTS = ('load', 'preprocess', 'network', 'predict')


@dataclass
class Entry:
    """A model to measure, in one backend.

    Attributes:
        name: of its rows.
        config, checkpoint, result: files; the last two may be missing.
        backend: name of the backend; see :mod:`.backends`.
        inferencer: the model and how its frames are loaded.
        synthetic: a frame of noise, in place of the test data.
        runtime: the backend, built.
        difference: of the head's first output from that of the first backend, largest of a frame.
        peak: memory of a process that does nothing else, MiB.
        seconds: of each measured round, by part.
    """

    name: str
    config: str
    checkpoint: Optional[str] = None
    result: Optional[str] = None
    backend: str = 'eager'
    inferencer: Optional[BEVInferencer] = None
    synthetic: Optional[dict] = None
    runtime: Optional[object] = None
    difference: Optional[float] = None
    peak: Optional[float] = None
    seconds: Dict[str, List[float]] = field(default_factory=lambda: {part: [] for part in PARTS})

    @property
    def network(self) -> nn.Module:
        """What runs at inference: the student of a distiller, else the model itself."""
        return getattr(self.inferencer.model, 'student', self.inferencer.model)

    def batch(self, start: int, size: int) -> dict:
        """Frames of the test data, or ``size`` times the synthetic one, collated."""
        if self.synthetic:
            return pseudo_collate([self.synthetic] * size)
        dataset = self.inferencer.dataset
        return pseudo_collate([dataset[i % len(dataset)] for i in range(start, start + size)])


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


@torch.no_grad()
def step(entry: Entry, start: int, size: int) -> Dict[str, float]:
    """One round of one model, with ``size`` frames from ``start`` on; seconds by part."""
    clock = [now()]
    batch = entry.batch(start, size)
    clock.append(now())
    data = entry.runtime.preprocess(batch)
    clock.append(now())
    outs = entry.runtime.run(data)
    clock.append(now())
    entry.runtime.postprocess(outs)
    clock.append(now())
    return dict(zip(PARTS, np.diff(clock).tolist()))


def measure(entries: Sequence[Entry], frames: int, warmup: int, batch_size: int) -> None:
    """Fill ``seconds`` of every model, round by round, after ``warmup`` rounds."""
    for index in range(warmup + frames):
        for entry in entries:
            for part, seconds in step(entry, index * batch_size, batch_size).items():
                if index >= warmup:
                    entry.seconds[part].append(seconds)


@torch.no_grad()
def count_macs(entry: Entry) -> Optional[int]:
    """Multiply-adds of convolutions, linear layers and matrix products for one frame in torch."""
    runtime = getattr(entry.runtime, 'local', entry.runtime)
    if not hasattr(runtime, 'network') or 'compiled' in entry.backend:
        return None
    data = runtime.preprocess(entry.batch(0, 1))
    runtime.run(data)  # the geometry, which is computed once
    with FlopCounterMode(display=False) as counter:
        runtime.run(data)
    return counter.get_total_flops() // 2


@torch.no_grad()
def compare(entries: Sequence[Entry]) -> None:
    """Fill ``difference`` of every backend from its model's first, on the first frame."""
    first = {}
    for entry in sorted(entries, key=lambda entry: entry.backend.startswith('official')):
        outs = entry.runtime.run(entry.runtime.preprocess(entry.batch(0, 1)))
        found = next(iter(entry.runtime.decode(outs).values())).cpu()
        expected = first.setdefault(id(entry.inferencer), found)
        entry.difference = float((found - expected).abs().max())


@torch.no_grad()
def evaluate(entry: Entry) -> Dict[str, float]:
    """The metrics of the config's test data."""
    dataset, config = entry.inferencer.dataset, entry.inferencer.model.cfg
    metric = METRICS.build(config.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    if hasattr(metric, 'prepare'):
        metric.prepare(dataset)
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
        config=entry.config, checkpoint=entry.checkpoint, backend=entry.backend,
        difference=entry.difference, peak_mib=entry.peak, parameters=parameters,
        trainable=sum(p.numel() for p in entry.network.parameters() if p.requires_grad),
        macs=macs, metrics=dict(metrics),
        efficiency_ratio=None if iou is None else iou / (parameters / 1e6),
        frames_per_second=1000 * batch_size / float(np.median(ms['without loading'])),
        milliseconds={part: statistics(values) for part, values in ms.items()})
