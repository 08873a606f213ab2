"""The main job on toytown: write a world, train teacher, student and distilled student, compare.

    python tools/quickstart.py [--out-dir DIR] [--seed N] [--smoke] [--keep]

Every step is an ordinary command of this project and is printed as it could be typed. The result
is DIR/report.html. A second start skips what is finished and resumes what is not; a step whose
settings or configs have changed is made again, with everything that depends on it.
"""
import argparse
import os
import re
from pathlib import Path

from mmdet3d_plugin.engine.cli import run_tool
from mmdet3d_plugin.experiments.quickstart import SECONDS, SMOKE_SECONDS, make_stages
from mmdet3d_plugin.experiments.stages import StageRunner

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out-dir', type=Path, default=ROOT / 'work_dirs' / 'quickstart',
                        help='default: work_dirs/quickstart')
    parser.add_argument('--seed', type=int, default=0, help='of the trainings (default: 0)')
    parser.add_argument('--smoke', action='store_true',
                        help='a few iterations on a handful of frames: does everything run?')
    parser.add_argument('--keep', action='store_true',
                        help='stop instead of removing results of other settings')
    args = parser.parse_args()
    args.out_dir = args.out_dir.resolve()
    if args.out_dir.is_relative_to(ROOT):  # short commands
        args.out_dir = args.out_dir.relative_to(ROOT)
    if re.search(r'[,=\[\](){}]', str(args.out_dir)):
        parser.error(f'--out-dir {args.out_dir}: a path with one of , = [ ] ( ) {{ }} cannot be '
                     'passed on in --cfg-options; choose another')
    os.chdir(ROOT)
    return args


def main() -> None:
    args = parse_args()
    stages = make_stages(args.out_dir, args.smoke, args.seed, args.keep)
    StageRunner(stages, SMOKE_SECONDS if args.smoke else SECONDS,
                args.out_dir / 'report.html').run()


if __name__ == '__main__':
    run_tool(main)
