"""Names shared by data sets, models, metrics and images.

Model inputs (``data['inputs']``):

* ``img`` (N, 3, H, W) uint8 RGB; a panorama is N = 1. With T - 1 past times (T, N, 3, H, W),
  newest first, and a ``time`` in each camera dict
* ``lidar_img`` (C, h, w) float32 in [0, 1]
* ``points`` (P, F) float32, x y z first, LiDAR frame after ``bev_aug``; other point clouds, such as
  those of a teacher, have names that start with ``points_``

Data sample: ``gt_bev`` and ``pred_bev`` are ``PixelData`` with ``seg`` (K, R, C) in [0, 1],
``centerness`` (1, R, C) and ``offset`` (2, R, C), (row, col) in cells from a cell to its object;
where asked for ``instances`` (K, R, C) int, the number of the object in this channel or 0.

``gt_instances_3d`` and ``pred_instances_3d`` are ``InstanceData`` with ``bboxes_3d``
LiDARInstance3DBoxes (N, 9): x, y, z of the bottom centre, length, width, height, yaw, vx, vy, in
the LiDAR frame after ``bev_aug``, metres, radians and seconds; ``labels_3d`` (N,) int64, indices of
the metainfo's ``classes``. The ground truth has velocities of NaN where they are unknown, and
``num_points`` (N,) int64 (LiDAR and radar, -1 where unknown), ``visibility`` (N,) int64 (1 to 4 of
nuScenes; 4 where unknown) and ``valid`` (N,) bool; predictions have ``scores_3d`` (N,). The
metainfo's ``lidar2global`` (4, 4) float64, where poses are known, is the pose of the LiDAR frame
before ``bev_aug``.
"""
from typing import List, Sequence

IMG, LIDAR_IMG, POINTS = 'img', 'lidar_img', 'points'

GT_BEV, PRED_BEV = 'gt_bev', 'pred_bev'
SEG, CENTERNESS, OFFSET, INSTANCES = 'seg', 'centerness', 'offset', 'instances'

CAMERAS, LIDAR_CAMERA = 'cameras', 'lidar_camera'
BEV_AUG, BEV_GRID, MAP_CLASSES = 'bev_aug', 'bev_grid', 'map_classes'
CLASSES, LIDAR2GLOBAL, PAST_INTERVAL = 'classes', 'lidar2global', 'past_interval'
EPOCH = 'epoch'

META_KEYS = ('token', 'sample_idx', 'scene_token', 'frame_id', 'timestamp', 'img_path',
             'lidar_path', CAMERAS, LIDAR_CAMERA, BEV_AUG, BEV_GRID, MAP_CLASSES, CLASSES,
             LIDAR2GLOBAL, PAST_INTERVAL)
"""Metainfo of a packed sample, where present."""


def at_time(cameras: Sequence[dict], time: int = 0) -> List[dict]:
    """The cameras of one time, of a sample's cameras of all times; 0 is the newest."""
    return [camera for camera in cameras if camera.get('time', 0) == time]


def num_times(cameras: Sequence[dict]) -> int:
    """T."""
    return 1 + max((camera.get('time', 0) for camera in cameras), default=0)


def is_points(key: str) -> bool:
    """Whether an entry of a frame, or an input, is a point cloud."""
    return key == POINTS or key.startswith(f'{POINTS}_')
