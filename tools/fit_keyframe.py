"""Fit teacher and student to one real nuScenes keyframe and draw what they see.

    python tools/fit_keyframe.py --root-path DIR [--task detection] [--out-dir work_dirs/keyframe]

DIR holds one keyframe with its mmdet3d info file (mmdetection3d's ``demo/data/nuscenes``). The
frame is converted, both models are trained on it and tested on it; the images show the sensors
(``sensors.png``) and the predictions (``predictions.png``). With ``--task detection`` they are 3D
detectors; an object with five LiDAR points is found if a box is 0.5 m from it. A KITTI scan beside
DIR (``../kitti*/*.bin``) is drawn as a LiDAR image (``kitti.png``).
"""
import argparse
import copy
import time
from pathlib import Path

import numpy as np
from mmdet3d.registry import DATASETS

from data_converter.nuscenes_frame import convert
from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.datasets import NuScenesBEVDataset
from mmdet3d_plugin.engine import build_runner, load_config
from mmdet3d_plugin.engine.cli import CfgOptions, run_tool
from mmdet3d_plugin.engine.runner import latest_checkpoint
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.evaluation.detection import found_share
from mmdet3d_plugin.visualization import save_image
from mmdet3d_plugin.visualization.frames import draw_predictions
from mmdet3d_plugin.visualization.sensors import draw_kitti, draw_sensors

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = dict(
    segmentation=dict(teacher='configs/kd360/kd360_teacher_r18_150it_nuscenes_keyframe.py',
                      student='configs/kd360/kd360_student_r18_300it_nuscenes_keyframe.py'),
    detection=dict(teacher='configs/detection/centerpoint_teacher_pillar_300it_nuscenes_keyframe.py',
                   student='configs/detection/bevdepth_student_r18_300it_nuscenes_keyframe.py'))
GOALS = dict(segmentation=(90.0, 90.0), detection=(80.0, 0.0))
"""Percent that teacher and student must reach, of the first column."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root-path', required=True, type=Path,
                        help='folder of info file, six images and sweep')
    parser.add_argument('--task', choices=tuple(CONFIGS), default='segmentation')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/keyframe'),
                        help='checkpoints and images (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='to override in both configs')
    return parser.parse_args()


def read_config(task: str, role: str, out_dir: Path, options: dict):
    """The role's config on the converted frame."""
    cfg = load_config(ROOT / CONFIGS[task][role], {'data_root': str(out_dir / 'data'), **options})
    cfg.work_dir, cfg.visualizer.name = str(out_dir / role), role
    return cfg


def fit(cfg) -> dict:
    """Train and test; returns the metrics, and the seconds that the training took."""
    runner, start = build_runner(cfg), time.monotonic()
    runner.train()
    return dict(runner.test(), seconds=time.monotonic() - start)


def draw_sensors_of(cfg, width: int = 2048) -> np.ndarray:
    """The training data's first frame at a higher resolution; the config stays as it is."""
    dataset = copy.deepcopy(cfg.train_dataloader.dataset)
    dataset.pipeline[0].size = (width // 4, 2 * width)
    return draw_sensors(DATASETS.build(dataset)[0], NuScenesBEVDataset.vehicle_labels())


def write(path: Path, image: np.ndarray) -> None:
    """Write an RGB image and say so."""
    save_image(path, image)
    print(path, flush=True)


def scores(task: str, result: dict, inferencer: BEVInferencer) -> dict:
    """Percentages by column, that with a goal first."""
    if task == 'segmentation':
        return {f'IoU{side} %': result[f'bev/IoU{side}'] for side in (100, 50)}
    found = inferencer(0)
    truth = inferencer.dataset[0]['data_samples'].gt_instances_3d
    share = found_share(found.pred_instances_3d, truth[truth.num_points >= 5], 0.5)
    return {'found %': 100 * share, 'mAP %': 100 * result['det/mAP']}


def main() -> None:
    args = parse_args()
    out_dir = args.out_dir
    convert(args.root_path, out_dir / 'data')
    configs = {role: read_config(args.task, role, out_dir, args.cfg_options)
               for role in CONFIGS[args.task]}
    if args.task == 'segmentation':
        write(out_dir / 'sensors.png', draw_sensors_of(configs['teacher']))
    for scan in sorted(args.root_path.absolute().parent.glob('kitti*/*.bin'))[:1]:
        write(out_dir / 'kitti.png', draw_kitti(scan))
    results = {role: fit(cfg) for role, cfg in configs.items()}
    models = {role: BEVInferencer(cfg, latest_checkpoint(cfg.work_dir), 'cpu')
              for role, cfg in configs.items()}
    write(out_dir / 'predictions.png', draw_predictions(0, models, 1440)[1])
    table = {role: scores(args.task, results[role], models[role]) for role in configs}
    names = list(table['teacher'])
    print(f'\n{"":8}{"".join(f"{name:>10}" for name in names)}{"iterations":>12}{"seconds":>9}')
    for role, row in table.items():
        print(f'{role:8}{"".join(f"{value:10.1f}" for value in row.values())}'
              f'{configs[role].train_cfg.max_iters:12}{results[role]["seconds"]:9.0f}')
    missed = [role for role, goal in zip(table, GOALS[args.task]) if table[role][names[0]] < goal]
    if missed:
        raise UserError(f'{" and ".join(missed)}: {names[0].removesuffix(" %")} below '
                        f'{GOALS[args.task][0]:.0f} %; train longer with --cfg-options max_iters=N')


if __name__ == '__main__':
    run_tool(main)
