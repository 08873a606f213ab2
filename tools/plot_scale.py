"""How a student's cost grows with its image, its map, its voxels and the batch.

    python tools/plot_scale.py [CONFIG] [--forms replica eager deployed] [--out scale.png]

CONFIG is a student of KD360-VoxelBEV; inputs are synthetic. One size changes at a time, the others
stay as in the config; an image is twice as wide as high, a map goes as far to all sides. Each
point is the median latency of some turns and the peak memory of a process of its own. The values go
to scale.json beside the plot; printed is how far the memory is off a straight line over the number
of pixels, cells, levels or samples.
"""
import argparse
import json
from pathlib import Path
from typing import Dict, List, Sequence

import numpy as np
import torch
from benchmark import Entry, count_macs, load_entry, machine, measure
from mmengine.config import Config
from tqdm import tqdm

from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.deployment.memory import peak_memory
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import run_tool
from mmdet3d_plugin.engine.memory import keep_freed_memory
from mmdet3d_plugin.errors import UserError

STUDENT = 'configs/kd360/kd360_student_effb0_dur360bev.py'
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


def measure_point(args: argparse.Namespace, axis: str, value: int, form: str) -> Dict[str, float]:
    """Latency, GMACs and peak memory of one form at one size."""
    cfg = load_config(args.config)
    options = argparse.Namespace(**{
        **vars(args), 'cfg_options': overrides(cfg, axis, value),
        'batch_size': value if axis == 'batch' else 1})
    entry = Entry(form, args.config, style=form)
    load_entry(entry, options)
    measure([entry], args.frames, 1, options.batch_size)
    spent = [sum(entry.seconds[part][n] for part in ('preprocess', 'network', 'predict'))
             for n in range(args.frames)]
    macs = count_macs(entry)
    return dict(value=value, milliseconds=1000 * float(np.median(spent)),
                gmacs=macs and macs * options.batch_size / 1e9,
                peak=peak_memory(entry.inferencer.model, form,
                                 entry.batch(0, options.batch_size)))


def off_line(points: Sequence[Dict[str, float]], power: int = 1) -> float:
    """Largest deviation of the memory from a straight line over ``value ** power``, of its span."""
    values, peaks = (np.array([point[key] for point in points]) for key in ('value', 'peak'))
    values = values**power
    fitted = np.polyval(np.polyfit(values, peaks, 1), values)
    return float(np.abs(peaks - fitted).max() / np.ptp(peaks))


def plot(report: Dict[str, dict], path: Path) -> None:
    """Rows are latency, MACs and memory; columns the sizes."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(PANELS), len(report), figsize=(13, 8), squeeze=False,
                                     sharex='col', sharey='row', layout='constrained')
    for column, (axis, forms) in enumerate(report.items()):
        for row, (label, key) in enumerate(PANELS.items()):
            panel = panels[row, column]
            for form, points in forms.items():
                if points[0][key] is not None:
                    panel.plot([point['value'] for point in points],
                               [point[key] for point in points], marker='o', label=form)
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
    pyplot.close(figure)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', nargs='?', default=STUDENT)
    parser.add_argument('--forms', nargs='+', default=['replica', 'eager', 'deployed'],
                        help='see tools/benchmark.py (default: replica eager deployed)')
    parser.add_argument('--axes', nargs='+', choices=[axis.split()[0] for axis in AXES],
                        default=[axis.split()[0] for axis in AXES],
                        help='which sizes change (default: all)')
    parser.add_argument('--frames', type=int, default=5, help='turns of a point (default: 5)')
    parser.add_argument('--threads', type=int, help='of the CPU (default: as torch chooses)')
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument('--out', default='scale.png', help='plot (default: scale.png)')
    args = parser.parse_args()
    if args.frames < 1:
        parser.error('--frames: at least 1')
    if Path(args.out).suffix != '.png':
        parser.error(f'--out {args.out}: expected a name that ends with .png')
    return argparse.Namespace(**vars(args), synthetic=True, points=1000)


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if 'camera_branch' not in load_config(args.config).get('model', {}):
        raise UserError(f'{args.config}: expected a camera student, such as {STUDENT}')
    keep_freed_memory()
    chosen: List[str] = [axis for axis in AXES if axis.split()[0] in args.axes]
    report: Dict[str, dict] = {axis: {form: [] for form in args.forms} for axis in chosen}
    work = [(axis, form, value) for axis in chosen for value in AXES[axis] for form in args.forms]
    for axis, form, value in tqdm(work, 'points', unit='point'):
        report[axis][form].append(measure_point(args, axis, value, form))
    for axis, forms in report.items():
        for form, points in forms.items():
            off = off_line(points, POWERS.get(axis.split()[0], 1))
            print(f'{axis}, {form}: memory is off a straight line by at most '
                  f'{100 * off:.1f} % of its growth')
    out = Path(args.out)
    plot(report, out)
    with atomic_write(out.with_suffix('.json')) as file:
        file.write(json.dumps(dict(machine=machine(), threads=torch.get_num_threads(),
                                   config=args.config, axes=report), indent=1).encode())
    print(f'wrote {out} and {out.with_suffix(".json")}')


if __name__ == '__main__':
    run_tool(main)
