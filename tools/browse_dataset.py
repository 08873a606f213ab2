"""Draw frames of a config's data as the pipeline delivers them.

    python tools/browse_dataset.py CONFIG --out-dir DIR [-n 8] [--split train]

One picture a frame: panorama with boxes, LiDAR image, ground truth with the scan.
"""
import argparse
from pathlib import Path

import cv2
import numpy as np
from mmdet3d.registry import DATASETS

from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import add_config_arguments, run_tool
from mmdet3d_plugin.errors import UserError, build_from
from mmdet3d_plugin.visualization import frame_panel


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_config_arguments(parser)
    parser.add_argument('--out-dir', required=True, help='folder of the pictures')
    parser.add_argument('-n', '--number', type=int, default=8,
                        help='frames, evenly spaced (default: 8)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--width', type=int, default=1440, help='of a picture, px (default: 1440)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    loader = cfg.get(f'{args.split}_dataloader')
    if not loader:
        raise UserError(f'config {args.config}: it has no {args.split}_dataloader')
    dataset = build_from(DATASETS, loader.dataset, f'{args.split}_dataloader.dataset')
    out_dir = Path(args.out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    for index in np.linspace(0, len(dataset) - 1, min(args.number, len(dataset))).astype(int):
        packed = dataset[int(index)]
        sample = packed['data_samples']
        title = f'{args.split} {index}: {sample.metainfo.get("token", "")}'
        path = out_dir / f'{args.split}_{index:06d}.png'
        picture = frame_panel(sample, packed['inputs'], {}, title, args.width)
        cv2.imwrite(str(path), picture[..., ::-1])
        print(path)


if __name__ == '__main__':
    run_tool(main)
