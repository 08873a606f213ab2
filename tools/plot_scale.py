"""How a student's cost grows with its image, its map, its voxels and the batch.

    python tools/plot_scale.py [CONFIG] [--backends official eager deployed] [--out scale.png]

CONFIG is a student of KD360-VoxelBEV; inputs are synthetic. One size changes at a time, the others
stay as in the config; an image is twice as wide as high, a map goes as far to all sides. Each
point is the median latency of some rounds and the peak memory of a process of its own. The values
go to scale.json beside the plot; printed is how far the memory is off a straight line over the
number of pixels, cells, levels or samples.
"""
import argparse
import json
from pathlib import Path

import torch

from mmdet3d_plugin.benchmark.reports import Settings
from mmdet3d_plugin.benchmark.scale import AXES, POWERS, measure_axes, off_line, plot_axes
from mmdet3d_plugin.benchmark.tables import machine
from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import run_tool
from mmdet3d_plugin.engine.memory import keep_freed_memory
from mmdet3d_plugin.errors import UserError

STUDENT = 'configs/kd360/kd360_student_effb0_12k_dur360bev.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', nargs='?', default=STUDENT)
    parser.add_argument('--backends', nargs='+', default=['official', 'eager', 'deployed'],
                        help='see tools/benchmark.py (default: official eager deployed)')
    parser.add_argument('--axes', nargs='+', choices=[axis.split()[0] for axis in AXES],
                        default=[axis.split()[0] for axis in AXES],
                        help='which sizes change (default: all)')
    parser.add_argument('--frames', type=int, default=5, help='rounds of a point (default: 5)')
    parser.add_argument('--threads', type=int, help='of the CPU (default: as torch chooses)')
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument('--out', default='scale.png', help='plot (default: scale.png)')
    args = parser.parse_args()
    if args.frames < 1:
        parser.error('--frames: at least 1')
    if Path(args.out).suffix != '.png':
        parser.error(f'--out {args.out}: expected a name that ends with .png')
    return args


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if 'camera_branch' not in load_config(args.config).get('model', {}):
        raise UserError(f'{args.config}: expected a camera student, such as {STUDENT}')
    keep_freed_memory()
    settings = Settings(frames=args.frames, synthetic=True, points=1000, backends=args.backends,
                        device=args.device)
    chosen = [axis for axis in AXES if axis.split()[0] in args.axes]
    report = measure_axes(args.config, chosen, settings)
    for axis, backends in report.items():
        for backend, points in backends.items():
            off = off_line(points, POWERS.get(axis.split()[0], 1))
            print(f'{axis}, {backend}: memory is off a straight line by at most '
                  f'{100 * off:.1f} % of its growth')
    out = Path(args.out)
    plot_axes(report, out)
    with atomic_write(out.with_suffix('.json')) as file:
        file.write(json.dumps(dict(machine=machine(), threads=torch.get_num_threads(),
                                   config=args.config, axes=report), indent=1).encode())
    print(f'wrote {out} and {out.with_suffix(".json")}')


if __name__ == '__main__':
    run_tool(main)
