"""Draw frames of a config's data: as on disk, as the model gets them, or at each transform.

    python tools/browse_dataset.py CONFIG --out-dir DIR [--mode original transformed pipeline]
    python tools/browse_dataset.py CONFIG --show

One image a frame and mode. original: the files, that is images (with boxes where their lens is
known) and the scan from above. transformed: what enters the model, that is images with boxes, scan
or LiDAR image, and targets. pipeline: what can be seen before and after each transform that changes
it.
"""
import argparse
import contextlib
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from mmdet3d.registry import DATASETS

from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import add_config_arguments, run_tool
from mmdet3d_plugin.errors import UserError, build_from
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.locking import drawing_into
from mmdet3d_plugin.visualization import save_image
from mmdet3d_plugin.visualization.frames import MODES, draw_data


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_config_arguments(parser)
    parser.add_argument('--out-dir', help='folder of the images')
    parser.add_argument('--show', action='store_true',
                        help='in a window; any key goes on, q or Esc stops')
    parser.add_argument('--mode', nargs='+', choices=MODES, default=['transformed'],
                        help='what to draw (default: transformed)')
    parser.add_argument('-n', '--number', type=int, default=8,
                        help='frames, evenly spaced (default: 8)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--width', type=int, default=1440, help='of an image, px (default: 1440)')
    args = parser.parse_args()
    if not (args.out_dir or args.show):
        parser.error('expected --out-dir DIR, --show, or both')
    if min(args.number, args.width) < 1:
        parser.error('expected --number and --width of at least 1')
    return args


def show(image: np.ndarray, title: str) -> bool:
    """Show an image until a key is pressed; False to stop."""
    if sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & set(os.environ):
        raise UserError('--show: this machine has no display; give --out-dir DIR instead')
    try:
        cv2.imshow('browse_dataset', image[..., ::-1])
        cv2.setWindowTitle('browse_dataset', title)
        return cv2.waitKey() & 0xFF not in (27, ord('q'))
    except cv2.error as error:
        raise UserError('--show: this OpenCV opens no windows (opencv-python-headless); give '
                        '--out-dir DIR instead') from error


def main() -> None:
    args = parse_args()
    with drawing_into(args.out_dir) if args.out_dir else contextlib.nullcontext():
        browse(args)


def browse(args: argparse.Namespace) -> None:
    """Draw frames of a split, to files or a window."""
    cfg = load_config(args.config, args.cfg_options)
    loader = cfg.get(f'{args.split}_dataloader')
    if not loader:
        raise UserError(f'config {args.config}: it has no {args.split}_dataloader')
    dataset = build_from(DATASETS, loader.dataset, f'{args.split}_dataloader.dataset')
    grid = cfg.get('model', {}).get('student', cfg.get('model', {})).get('grid')
    grid = BEVGrid(**grid) if grid else None
    for index in np.linspace(0, len(dataset) - 1, min(args.number, len(dataset))).astype(int):
        for mode in args.mode:
            token = dataset.get_data_info(int(index)).get('token', '')
            title = f'{args.split} {index}, {mode}: {token}'
            image = draw_data(dataset, int(index), mode, title, args.width, grid)
            if args.out_dir:
                path = Path(args.out_dir) / f'{args.split}_{index:06d}_{mode}.png'
                save_image(path, image)
                print(path)
            if args.show and not show(image, title):
                return


if __name__ == '__main__':
    run_tool(main)
