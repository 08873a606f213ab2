"""Fit teacher and student to one real nuScenes keyframe and draw what they see.

    python tools/fit_keyframe.py --root-path DIR [--out-dir work_dirs/keyframe]

DIR holds one keyframe with its mmdet3d info file (mmdetection3d's ``demo/data/nuscenes``). The
frame is converted, both models are trained on it and tested on it; the images show the sensors
(``sensors.png``) and the predictions (``predictions.png``). A KITTI scan beside DIR
(``../kitti*/*.bin``) is drawn as a LiDAR image (``kitti.png``).
"""
import argparse
import copy
import sys
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmdet3d.registry import DATASETS, TRANSFORMS  # noqa: E402

from data_converter.nuscenes_frame import convert  # noqa: E402
from mmdet3d_plugin.apis import BEVInferencer  # noqa: E402
from mmdet3d_plugin.datasets import NuScenesBEVDataset  # noqa: E402
from mmdet3d_plugin.engine import build_runner, load_config  # noqa: E402
from mmdet3d_plugin.engine.cli import CfgOptions, run_tool  # noqa: E402
from mmdet3d_plugin.engine.runner import latest_checkpoint  # noqa: E402
from mmdet3d_plugin.errors import UserError  # noqa: E402
from mmdet3d_plugin.visualization import (  # noqa: E402
    draw_boxes,
    draw_lidar_image,
    draw_points,
    panel,
)
from tools.visualize import draw_frame  # noqa: E402

CONFIG = 'configs/kd360/kd360_{}_r18_nuscenes_keyframe.py'
ROLES = ('teacher', 'student')
GOAL = 90.0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root-path', required=True, type=Path,
                        help='folder of info file, six images and sweep')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/keyframe'),
                        help='checkpoints and images (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='to override in both configs')
    return parser.parse_args()


def read_config(role: str, out_dir: Path, options: dict):
    """The role's config on the converted frame."""
    roots = {f'{split}_dataloader.dataset.data_root': str(out_dir / 'data')
             for split in ('train', 'val', 'test')}
    cfg = load_config(ROOT / CONFIG.format(role), {**roots, **options})
    cfg.work_dir, cfg.visualizer.name = str(out_dir / role), role
    return cfg


def fit(cfg) -> dict:
    """Train and test; returns the metrics, and the seconds that the training took."""
    runner, start = build_runner(cfg), time.time()
    runner.train()
    return dict(runner.test(), seconds=time.time() - start)


def draw_sensors(cfg, width: int = 2048) -> np.ndarray:
    """Panorama, scan and boxes in its two halves, and the LiDAR image; RGB."""
    dataset = copy.deepcopy(cfg.train_dataloader.dataset)
    dataset.pipeline[0].size = (width // 4, 2 * width)
    frame = DATASETS.build(dataset)[0]
    inputs, sample = frame['inputs'], frame['data_samples']
    camera, = sample.metainfo['cameras']
    boxes, labels = sample.gt_instances_3d.bboxes_3d, sample.gt_instances_3d.labels_3d.numpy()
    boxes = np.c_[boxes.gravity_center, boxes.tensor[:, 3:7]]
    vehicle = np.isin(labels, NuScenesBEVDataset.vehicle_labels())
    panorama = np.ascontiguousarray(inputs['img'][0].permute(1, 2, 0).numpy())
    points = inputs['points'].numpy()
    drawn = draw_points(panorama, camera, points[np.linalg.norm(points, axis=1) < 50])
    drawn = draw_boxes(drawn, camera, boxes[~vehicle], (210, 210, 210))
    drawn = draw_boxes(drawn, camera, boxes[vehicle])
    middle = slice(width // 2, -width // 2)
    ahead, behind = drawn[:, middle], np.roll(drawn, width, 1)[:, middle]
    return panel([
        ('six images, stitched', [('', panorama)]),
        ('scan (red near, blue 50 m) and boxes (yellow: vehicles), projected',
         [('ahead, left to right', ahead)]),
        ('', [('behind, right to left', behind)]),
        ('LiDAR image: range, intensity',
         [('', draw_lidar_image(inputs['lidar_img'].numpy(), width // 16))])], width + 16)


def draw_kitti(scan: Path, width: int = 1440) -> np.ndarray:
    """LiDAR image of a 64-beam KITTI scan where it has points, below its image; RGB."""
    frame = dict(lidar_points=dict(lidar_path=str(scan), num_pts_feats=4,
                                   feature_names=['x', 'y', 'z', 'intensity']),
                 lidar_image=dict(fov_up=np.deg2rad(3), fov_down=np.deg2rad(-25)))
    for cfg in (dict(type='LoadPointCloud'),
                dict(type='SphericalLiDARImage', channels=('range', 'intensity', 'mask'),
                     native=(64, 2048), size=(64, 2048), max_range=60.)):
        frame = TRANSFORMS.build(cfg)(frame)
    seen = frame['lidar_img'][-1] > 0
    rows, cols = (slice(np.argmax(side), len(side) - np.argmax(side[::-1]))
                  for side in (seen.any(1), seen.any(0)))
    image = frame['lidar_img'][:2, rows, cols]
    image = draw_lidar_image(image, 5 * image.shape[1] // 2)  # square: rows are 0.44 degrees
    rows = [(f'{scan.name}: range, intensity', [('LiDAR image', image)])]
    photo = cv2.imread(str(scan.with_suffix('.png')))
    if photo is not None:
        rows.insert(0, ('', [('left camera', photo[..., ::-1])]))
    return panel(rows, width)


def write(path: Path, image: np.ndarray) -> None:
    """Write an RGB image and say so."""
    cv2.imwrite(str(path), image[..., ::-1])
    print(path, flush=True)


def main() -> None:
    args = parse_args()
    out_dir = args.out_dir
    convert(args.root_path, out_dir / 'data')
    configs = {role: read_config(role, out_dir, args.cfg_options) for role in ROLES}
    write(out_dir / 'sensors.png', draw_sensors(configs['teacher']))
    for scan in sorted(args.root_path.absolute().parent.glob('kitti*/*.bin'))[:1]:
        write(out_dir / 'kitti.png', draw_kitti(scan))
    results = {role: fit(cfg) for role, cfg in configs.items()}
    models = {role: BEVInferencer(cfg, latest_checkpoint(cfg.work_dir), 'cpu')
              for role, cfg in configs.items()}
    write(out_dir / 'predictions.png', draw_frame(0, models, 1440)[1])
    print(f'\n{"":8}{"IoU100 %":>10}{"IoU50 %":>10}{"iterations":>12}{"seconds":>9}')
    for role, result in results.items():
        print(f'{role:8}{result["bev/IoU100"]:10.1f}{result["bev/IoU50"]:10.1f}'
              f'{configs[role].train_cfg.max_iters:12}{result["seconds"]:9.0f}')
    missed = [role for role in ROLES if results[role]['bev/IoU100'] < GOAL]
    if missed:
        raise UserError(f'{" and ".join(missed)}: IoU100 below {GOAL:.0f} %; train longer with '
                        '--cfg-options train_cfg.max_iters=N param_scheduler.0.total_steps=N')


if __name__ == '__main__':
    run_tool(main)
