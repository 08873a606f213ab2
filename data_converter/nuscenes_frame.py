"""One nuScenes keyframe with an mmdet3d v2 info file -> an info file and a scan of ours.

The nuScenes LiDAR frame is x right, y forward, z up, and tilted with the LiDAR. Everything is
moved into our LiDAR frame, x forward, y left, z up: same origin, axes of the ego vehicle
(``lidar2ego`` without its translation). So scan, boxes and ``lidar2cam`` agree, and z is vertical.
"""

import os
from pathlib import Path

import numpy as np

from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.errors import UserError, parse_errors
from mmdet3d_plugin.geometry import rigid
from mmdet3d_plugin.geometry.lidar_image import fov_of_beams
from mmdet3d_plugin.geometry.rigid import RFU_TO_FLU
from mmdet3d_plugin.structures import INFO_VERSION, file_name, load_plain, read_image

from . import common

FEATURES = ['x', 'y', 'z', 'intensity', 'ring']
BEAMS_DEG = np.linspace(10.67, -30.67, 32)
"""Elevation of the 32 beams in the sensor's axes."""


def convert(root_path: str, out_dir: str) -> dict:
    """Write ``nuscenes_frame_infos.pkl`` and ``points/<token>.bin`` to ``out_dir``.

    Args:
        root_path: folder with one mmdet3d info file (``*.pkl``), its images and its sweep.
        out_dir: the data root of the new info file; images stay where they are.

    Returns:
        dict: the info file, and counts of cameras, points and objects.

    Raises:
        UserError: a file is missing or unreadable, or another conversion writes to the folder.
    """
    with common.alone_in(out_dir):
        return _convert(Path(root_path).absolute(), Path(out_dir).absolute())


def _convert(root: Path, out: Path) -> dict:
    infos = _read(root)
    frames = [_frame(root, out, n, frame) for n, frame in enumerate(infos['data_list'])]
    fov_up, fov_down = fov_of_beams(BEAMS_DEG)
    meta = dict(dataset='nuscenes', version=infos['metainfo'].get('version', ''),
                info_version=INFO_VERSION, split='frame',
                categories=dict(infos['metainfo']['categories']),
                lidar_frame='x forward, y left, z up',
                lidar_image=dict(projection='spherical', fov_up=fov_up, fov_down=fov_down))
    path = out / 'nuscenes_frame_infos.pkl'
    common.write_infos(dict(metainfo=meta, data_list=frames), str(path), check=True)
    return dict(infos=str(path), frames=len(frames), cameras=len(frames[0]['images']),
                objects=len(frames[0]['instances']))


def _read(root):
    paths = sorted(root.glob('*.pkl'))
    if len(paths) != 1:
        raise UserError(f'{root}: expected one mmdet3d info file (*.pkl), found {len(paths)}; '
                        '--root-path must hold it, its images and its sweep')
    with parse_errors(f'{paths[0]}: no mmdet3d v2 info file of nuScenes'), \
            open(paths[0], 'rb') as file:
        infos = load_plain(file)
        infos['metainfo']['categories'], infos['data_list'][0]['lidar_points']['lidar2ego']
    return infos


def _frame(root, out, number, frame):
    turn = rigid.rigid(np.array(frame['lidar_points']['lidar2ego'])[:3, :3])
    back = np.linalg.inv(turn)
    token = frame['token']
    lidar2global = np.array(frame['ego2global']) @ np.array(frame['lidar_points']['lidar2ego'])
    boxes = np.array([[*i['bbox_3d'], *i.get('velocity', (np.nan, np.nan))]
                      for i in frame['instances']], np.float64).reshape(-1, 9)
    scan = _scan(root / frame['lidar_points']['lidar_path'])
    scan[:, :3] = rigid.apply(turn, scan[:, :3])
    path = out / 'points' / f'{file_name(token)}.bin'
    with atomic_write(path) as file:
        file.write(scan.tobytes())
    lidar2ego = rigid.rigid(translation=np.array(frame['lidar_points']['lidar2ego'])[:3, 3])
    return dict(
        sample_idx=number, token=token, scene_token='nuscenes', frame_id=token,
        timestamp=float(frame['timestamp']), ego2global=np.array(frame['ego2global']).tolist(),
        images={name: _camera(root, camera, back) for name, camera in frame['images'].items()},
        lidar_points=dict(lidar_path=os.path.relpath(path, out), num_pts_feats=len(FEATURES),
                          feature_names=FEATURES, lidar2ego=lidar2ego.tolist(),
                          lidar2sensor=(RFU_TO_FLU @ back).tolist()),
        instances=[_instance(i, box) for i, box in zip(
            frame['instances'], rigid.transform_boxes(turn, boxes, lidar2global[2, :3]))])


def _instance(instance, box):
    label = int(instance['bbox_label_3d'])
    points = {key: int(instance.get(key, 0)) for key in ('num_lidar_pts', 'num_radar_pts')}
    return dict(bbox_3d=box[:7].tolist(), velocity=box[7:].tolist(), bbox_label_3d=label,
                bbox_label=label, **points, bbox_3d_isvalid=sum(points.values()) > 0)


def _camera(root, camera, back):
    path = root / camera['img_path']
    image = read_image(str(path))
    return dict(img_path=str(path), height=image.shape[0], width=image.shape[1], lens='pinhole',
                cam2img=np.array(camera['cam2img'])[:3, :3].tolist(),
                lidar2cam=(np.array(camera['lidar2cam']) @ back).tolist())


def _scan(path):
    if not path.is_file() or path.stat().st_size % 20:
        size = path.stat().st_size if path.is_file() else 'no'
        raise UserError(f'{path}: {size} bytes, expected points of 5 float32; copy the sweep again')
    return np.fromfile(path, '<f4').reshape(-1, 5)
