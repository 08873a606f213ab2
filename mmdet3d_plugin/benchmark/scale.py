"""How a student's cost grows with its image, its map, its voxels and the batch."""
import dataclasses
from pathlib import Path
from typing import Dict, Sequence

import numpy as np
from mmengine.config import Config
from tqdm import tqdm

from ..checkpoints import atomic_write
from ..engine import load_config
from .latency import Entry, count_macs, measure
from .memory import peak_memory
from .reports import Settings, load_entry

AXES = {'height of the image, px': (256, 512, 768, 1024),
        'range of the map, m': (25, 50, 75, 100),
        'levels of voxels': (4, 8, 12, 16),
        'batch': (1, 2, 3, 4)}
POWERS = {'height': 2, 'range': 2}  # the number of pixels and of cells grows with the square
PANELS = {'latency, ms': 'milliseconds', 'GMACs': 'gmacs', 'peak memory, MiB': 'peak'}


def overrides(cfg: Config, axis: str, value: int) -> Dict[str, object]:
    """The options of a config that set one size."""
    branch = cfg.model.camera_branch
    if axis.startswith('height'):
        return {'test_dataloader.dataset.pipeline.0.size': (value, 2 * value)}
    if axis.startswith('range'):
        return {f'model.grid.{side}': (-value, value) for side in ('x_range', 'y_range')}
    if axis.startswith('levels'):
        levels = branch.view_transform.num_levels
        low, high = branch.view_transform.z_range
        return {'model.camera_branch.view_transform.num_levels': value,
                'model.camera_branch.view_transform.z_range': (
                    low, low + (high - low) / levels * value),
                'model.camera_branch.view_transform.compressor.in_channels':
                    branch.view_transform.compressor.in_channels // levels * value}
    return {}


def measure_axes(config: str, axes: Sequence[str], settings: Settings) -> Dict[str, dict]:
    """The points of each of ``AXES`` and each backend: axis -> backend -> list of points."""
    report = {axis: {backend: [] for backend in settings.backends} for axis in axes}
    work = [(axis, backend, value) for axis in axes for value in AXES[axis]
            for backend in settings.backends]
    for axis, backend, value in tqdm(work, 'points', unit='point'):
        report[axis][backend].append(measure_point(config, axis, value, backend, settings))
    return report


def measure_point(config: str, axis: str, value: int, backend: str,
                  settings: Settings) -> Dict[str, float]:
    """Latency, GMACs and peak memory of one backend at one size."""
    settings = dataclasses.replace(
        settings, cfg_options=overrides(load_config(config), axis, value),
        batch_size=value if axis == 'batch' else 1)
    entry = Entry(backend, config, backend=backend)
    load_entry(entry, settings)
    measure([entry], settings.frames, 1, settings.batch_size)
    spent = [sum(entry.seconds[part][n] for part in ('preprocess', 'network', 'predict'))
             for n in range(settings.frames)]
    macs = count_macs(entry)
    return dict(value=value, milliseconds=1000 * float(np.median(spent)),
                gmacs=macs and macs * settings.batch_size / 1e9,
                peak=peak_memory(entry.inferencer.model, backend,
                                 entry.batch(0, settings.batch_size)))


def off_line(points: Sequence[Dict[str, float]], power: int = 1) -> float:
    """Largest deviation of the memory from a straight line over ``value ** power``, of its span."""
    values, peaks = (np.array([point[key] for point in points]) for key in ('value', 'peak'))
    values = values**power
    fitted = np.polyval(np.polyfit(values, peaks, 1), values)
    return float(np.abs(peaks - fitted).max() / np.ptp(peaks))


def plot_axes(report: Dict[str, dict], path: Path) -> None:
    """Rows are latency, MACs and memory; columns the sizes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout='constrained')
    panels = figure.subplots(len(PANELS), len(report), squeeze=False, sharex='col', sharey='row')
    for column, (axis, backends) in enumerate(report.items()):
        for row, (label, key) in enumerate(PANELS.items()):
            panel = panels[row, column]
            for backend, points in backends.items():
                if points[0][key] is not None:
                    panel.plot([point['value'] for point in points],
                               [point[key] for point in points], marker='o', label=backend)
            panel.grid(alpha=0.3)
            if not column:
                panel.set_ylabel(label)
        panels[-1, column].set_xlabel(axis)
        panels[-1, column].set_xticks([point['value'] for point in points])
    for row in panels:
        row[0].set_ylim(bottom=0)
    panels[0, 0].legend()
    with atomic_write(path) as file:
        figure.savefig(file, format='png', dpi=100)
