"""Boxes of a 3D detector: heading, velocity and class, in the images and from above."""
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData

from ..geometry import BEVGrid, rigid
from ..structures import fields, gravity_boxes
from .draw import (
    by_direction,
    count_in_image,
    draw_bev,
    draw_boxes,
    draw_lines,
    instance_colours,
    map_legend,
    panel,
    scaled_view,
)

SCORE_THRESHOLD = 0.3
"""Of the boxes that are drawn."""
_COLOURS = ((230, 120, 20), (210, 40, 40), (120, 60, 180), (50, 90, 220), (130, 90, 50),
            (110, 110, 110), (20, 160, 170), (50, 150, 50), (225, 60, 160), (165, 165, 20),
            (0, 200, 120))
_SLOW = 0.5  # m/s
_Views = Sequence[Tuple[dict, np.ndarray]]


class Objects(NamedTuple):
    """Boxes that are drawn.

    Attributes:
        boxes (ndarray): (N, 7) or (N, 9) x, y, z of the gravity centre, length, width, height,
            yaw, and vx, vy in m/s, NaN where unknown.
        labels (ndarray): (N,) int.
    """
    boxes: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, instances: InstanceData, threshold: float = SCORE_THRESHOLD) -> 'Objects':
        """Those of an ``InstanceData`` whose score, where it has scores, is at least so high."""
        values = gravity_boxes(instances.bboxes_3d).cpu().numpy()
        labels = instances.labels_3d.cpu().numpy()
        if 'scores_3d' in instances:
            kept = instances.scores_3d.cpu().numpy() >= threshold
            values, labels = values[kept], labels[kept]
        return cls(values.astype(np.float64), labels)


def class_colours(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB of the classes of a detector."""
    more = instance_colours(np.arange(max(count - len(_COLOURS), 0)))
    return np.concatenate([np.array(_COLOURS, np.uint8), more])[:count]


def velocity_arrows(boxes, seconds: float = 1.0) -> Tuple[np.ndarray, np.ndarray]:
    """Arrows from the middle of the lower faces to where these are after some time.

    Args:
        boxes: (N, >=7) gravity centres; those without velocity, or slower than 0.5 m/s, have none.
        seconds: until then.

    Returns:
        tuple: (3 K, 2, 3) ends of straight lines, three an arrow; (3 K,) number of the box.
    """
    boxes = np.asarray(boxes, np.float64)
    velocity = boxes[:, 7:9] if boxes.shape[1] >= 9 else np.zeros((len(boxes), 2))
    moving, = np.nonzero(np.linalg.norm(velocity, axis=1) >= _SLOW)
    way = np.pad(velocity[moving] * seconds, ((0, 0), (0, 1)))
    start = boxes[moving, :3] - boxes[moving, 5:6] / 2 * [0, 0, 1]
    side = way[:, [1, 0, 2]] * [-1, 1, 0]
    tip = start + way
    lines = np.stack([np.stack([start, tip], 1)] + [
        np.stack([tip, tip - 0.25 * way + sign * 0.12 * side], 1) for sign in (-1, 1)], 1)
    return lines.reshape(-1, 2, 3), moving.repeat(3)


def draw_objects(image: np.ndarray, camera: dict, boxes, colours, thickness: int = 1
                 ) -> np.ndarray:
    """Draw boxes, with a cross on their fronts, and velocities into a copy of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        camera: camera dict of the image, of any lens.
        boxes: (N, >=7) gravity centres, LiDAR frame.
        colours: (N, 3) RGB.
        thickness: of the lines, px.
    """
    out = draw_boxes(image, camera, np.asarray(boxes)[:, :7], colours, thickness)
    arrows, owner = velocity_arrows(boxes)
    return draw_lines(out, camera, arrows, np.asarray(colours)[owner], thickness)


def draw_objects_bev(grid: BEVGrid, boxes, colours, points=None, size: int = 480) -> np.ndarray:
    """Outlines from above, each with a line from the centre to the front, and velocities.

    Args:
        grid: what is shown.
        boxes: (N, >=7) gravity centres, frame of the grid.
        colours: (N, 3) RGB.
        points: (P, >=2), drawn grey.
        size: of the longer side of the image, px.
    """
    boxes, colours = np.asarray(boxes), np.asarray(colours)
    corners = rigid.box_corners(boxes[:, :7])[:, :4]
    front = np.stack([boxes[:, :3], corners[:, :2].mean(1)], 1)
    lines = np.concatenate([np.stack([corners, np.roll(corners, -1, 1)], 2), front[:, None]], 1)
    arrows, owner = velocity_arrows(boxes)
    return draw_bev(grid, points=points, size=size,
                    lines=np.concatenate([lines.reshape(-1, 2, 3), arrows]),
                    colours=np.concatenate([colours.repeat(5, 0), colours[owner]]))


def detection_panel(sample: Det3DDataSample, views: _Views, points=None,
                    predictions: Optional[Mapping[str, Det3DDataSample]] = None,
                    grid: Optional[BEVGrid] = None, title: str = '', width: int = 1440,
                    threshold: float = SCORE_THRESHOLD) -> np.ndarray:
    """A frame with the boxes of the ground truth and of each prediction, in the classes' colours.

    Args:
        sample: Packed; its ``gt_instances_3d``, where it has them, and ``classes`` are drawn.
        views: Camera dict, with its name, and image (H, W, 3) uint8 RGB of each camera.
        points: (P, >=2) of the scan in the sample's frame.
        predictions: Name -> predicted sample with ``pred_instances_3d``.
        grid: What is shown from above.
        title: Of the panel.
        width: px.
        threshold: Boxes of at least this score are drawn.
    """
    shown: Dict[str, Objects] = {}
    if 'gt_instances_3d' in sample:
        shown['ground truth'] = Objects.of(sample.gt_instances_3d)
    for name, found in (predictions or {}).items():
        shown[name] = Objects.of(found.pred_instances_3d, threshold)
    grid = grid or BEVGrid()
    classes = [str(name) for name in sample.metainfo.get(fields.CLASSES, ())]
    palette = class_colours(1 + max([len(classes) - 1, *(
        label for objects in shown.values() for label in objects.labels)]))
    to_lidar = np.linalg.inv(sample.metainfo.get(fields.BEV_AUG, np.eye(4)))
    rows = [row for name, objects in shown.items() for row in _view_rows(
        views, grid, name, rigid.transform_boxes(to_lidar, objects.boxes),
        palette[objects.labels], width)]
    above = [(f'{name}, {len(objects.labels)} boxes',
              draw_objects_bev(grid, objects.boxes, palette[objects.labels], points, 720))
             for name, objects in shown.items()]
    limit = f', scores of at least {threshold:g}' if predictions else ''
    rows.append((f"bird's-eye view; arrows: motion in one second{limit}",
                 above or [('no boxes', draw_bev(grid, points=points, size=720))]))
    if classes:
        legend = map_legend(classes, width - 16, colours=palette)
        rows.append(('', [('', legend)]))
    return panel([(title, []), *rows] if title else rows, width)


def newest_views(sample: Det3DDataSample, inputs: Mapping) -> List[Tuple[dict, np.ndarray]]:
    """Cameras and images of a packed frame; of past images none."""
    if fields.IMG not in inputs:
        return []
    images = inputs[fields.IMG]
    images = (images[0] if images.dim() == 5 else images).permute(0, 2, 3, 1)
    return list(zip(fields.at_time(sample.metainfo[fields.CAMERAS]), images.cpu().numpy()))


def _view_rows(views: _Views, grid: BEVGrid, what: str, boxes, colours, width: int) -> list:
    by_name = {camera['name']: (camera, image) for camera, image in views}
    order = by_direction({name: camera['lidar2cam'] for name, (camera, _) in by_name.items()},
                         grid)
    side = width // max(map(len, order), default=1)
    rows = []
    for row in order:
        drawn = []
        for name in row:
            camera, image = by_name[name]
            image, camera = scaled_view(image, camera, side)
            count = count_in_image(camera, boxes)
            drawn.append((f'{name}, {count} of {len(boxes)}, {what}',
                          draw_objects(image, camera, boxes, colours)))
        rows.append(('', drawn))
    return rows
