"""Tabulate and plot the curves of one or more trainings.

    python tools/analyze_logs.py LOG [LOG ...] [--keys loss bev/IoU100] [--out curves.png]
        [--smooth N] [--log]

LOG is a ``vis_data/*.json`` file of mmengine, or a work dir, whose newest log is taken. Without
``--keys`` every loss term and every metric is shown.
"""
import argparse
from pathlib import Path

from mmdet3d_plugin.engine.cli import run_tool
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.visualization.curves import (
    find_log,
    log_names,
    plot_curves,
    read_curves,
    select_curves,
    table_of_curves,
)

PLOTS = ('.png', '.pdf', '.svg')


def main() -> None:
    parser = argparse.ArgumentParser(description='Tabulate and plot the curves of trainings')
    parser.add_argument('logs', nargs='+', type=Path, help='log files or work dirs')
    parser.add_argument('--keys', nargs='+', default=[], help='names of curves; default: all')
    parser.add_argument('--out', type=Path, help='image to write (.png, .pdf, .svg)')
    parser.add_argument('--smooth', type=int, default=1, metavar='N',
                        help='draw the mean of the last N values (default: 1)')
    parser.add_argument('--log', action='store_true',
                        help='logarithmic values, in panels where all are positive')
    args = parser.parse_args()
    if args.smooth < 1:
        parser.error('expected --smooth of at least 1')
    if args.out and args.out.suffix not in PLOTS:
        parser.error(f'--out {args.out}: expected a name that ends with {", ".join(PLOTS)}')
    logs = [read_curves(find_log(log)) for log in args.logs]
    runs = select_curves(dict(zip(log_names(args.logs), logs)), args.keys)
    for name, curves in runs.items():
        if not curves:
            raise UserError(f'log {name}: it has no curves yet; wait for the first log line')
        print(f'== {name}')
        print(table_of_curves(curves))
    if args.out:
        plot_curves(runs, args.out, args.smooth, args.log)
        print(f'wrote {args.out}')


if __name__ == '__main__':
    run_tool(main)
