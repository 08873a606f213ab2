"""What the sensors of a frame see, drawn onto each other."""
from pathlib import Path
from typing import Sequence

import numpy as np
from mmdet3d.registry import TRANSFORMS

from ..structures import read_image
from .draw import draw_boxes, draw_lidar_image, draw_points, panel


def draw_sensors(packed: dict, vehicle_labels: Sequence[int]) -> np.ndarray:
    """Panorama, scan and boxes in its two halves, and the LiDAR image; RGB.

    Args:
        packed: a frame with boxes, as a model gets it; the image is half as wide as its panorama.
        vehicle_labels: labels of the boxes that are drawn in yellow.
    """
    inputs, sample = packed['inputs'], packed['data_samples']
    camera, = sample.metainfo['cameras']
    boxes, labels = sample.gt_instances_3d.bboxes_3d, sample.gt_instances_3d.labels_3d.numpy()
    boxes = np.c_[boxes.gravity_center, boxes.tensor[:, 3:7]]
    vehicle = np.isin(labels, vehicle_labels)
    panorama = np.ascontiguousarray(inputs['img'][0].permute(1, 2, 0).numpy())
    width = panorama.shape[1] // 2
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
    photo = scan.with_suffix('.png')
    if photo.is_file():
        rows.insert(0, ('', [('left camera', read_image(str(photo))[..., ::-1])]))
    return panel(rows, width)
