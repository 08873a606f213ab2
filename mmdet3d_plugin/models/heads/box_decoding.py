"""Raw outputs of a centre-based detection head to boxes: best cells, thresholds, NMS."""
from dataclasses import dataclass
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmcv.ops import box_iou_rotated
from torch import Tensor

from ...errors import UserError
from ...geometry import BEVGrid

NMS_TYPES = ('rotate', 'circle', None)


class Boxes(NamedTuple):
    """Boxes of one task in one sample, the highest score first.

    Attributes:
        boxes (Tensor): (N, 9) x, y, z of the centre, length, width, height, yaw, vx, vy; without
            a branch for the velocity (N, 7).
        scores (Tensor): (N,) probabilities.
        classes (Tensor): (N,) int64 index into the task's classes.
    """
    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def take(self, index) -> 'Boxes':
        """Those of a slice, a mask or indices."""
        return Boxes(*(part[index] for part in self))


@dataclass(frozen=True)
class TaskDecoding:
    """How the boxes of a task are chosen.

    Attributes:
        classes: Names.
        max_num: So many cells with the highest scores are decoded.
        score_threshold: Scores must be above it.
        post_center_range: Lowest x, y, z and highest x, y, z of a box's centre, metres.
        nms_type: ``'rotate'`` removes boxes whose IoU seen from above with a better one is more
            than ``nms_thr``, ``'circle'`` those whose centre is too near to that of a better one;
            None removes none. The classes of a task suppress each other.
        nms_thr: IoU.
        squared_radius: For circle NMS: the *square* of the least distance of centres, square
            metres; mmdet3d calls it ``min_radius``.
        scale_factors: For rotated NMS: of each class, factor of length and width (Scale-NMS, which
            makes small boxes overlap).
        pre_max_size: So many boxes go into the NMS; None is all.
        post_max_size: So many boxes are left; None is all.
    """
    classes: Tuple[str, ...]
    max_num: int = 500
    score_threshold: float = 0.1
    post_center_range: Optional[Tuple[float, ...]] = None
    nms_type: Optional[str] = 'rotate'
    nms_thr: float = 0.2
    squared_radius: float = 1.0
    scale_factors: Tuple[float, ...] = ()
    pre_max_size: Optional[int] = 1000
    post_max_size: Optional[int] = 83

    def __post_init__(self):
        if self.nms_type not in NMS_TYPES:
            raise UserError("test_cfg.nms_type: expected 'rotate', 'circle' or None, got "
                            f'{self.nms_type!r}')
        if self.scale_factors and len(self.scale_factors) != len(self.classes):
            raise UserError(f'test_cfg.scale_factors: {len(self.scale_factors)} values for the '
                            f'classes {", ".join(self.classes)}; give one for each')
        if self.post_center_range is not None and len(self.post_center_range) != 6:
            raise UserError('test_cfg.post_center_range: expected x, y, z of both ends, got '
                            f'{self.post_center_range}')


def task_decodings(tasks: Sequence[Sequence[str]], post_center_range=None,
                   **values: Any) -> Tuple[TaskDecoding, ...]:
    """The settings of each task.

    Args:
        tasks (sequence): Class names of each task.
        post_center_range (sequence, optional): Of all tasks.
        **values: Of :class:`TaskDecoding`, one for all tasks or a list with one for each; the
            ``scale_factors`` of a task are one for its classes or a list with one for each.

    Raises:
        UserError: A list has another length, or a value is none.
    """
    for name, value in values.items():
        if isinstance(value, (list, tuple)) and len(value) != len(tasks):
            raise UserError(f'test_cfg.{name}: {len(value)} values, but there are {len(tasks)} '
                            'tasks; give one value, or one for each task')
    if post_center_range is not None:
        post_center_range = tuple(map(float, post_center_range))
    decodings = []
    for number, classes in enumerate(tasks):
        own = {name: value[number] if isinstance(value, (list, tuple)) else value
               for name, value in values.items()}
        scale = own.pop('scale_factors', ())
        if not isinstance(scale, (list, tuple)):
            scale = (scale, ) * len(classes)
        decodings.append(TaskDecoding(tuple(classes), post_center_range=post_center_range,
                                      scale_factors=tuple(scale), **own))
    return tuple(decodings)


def decode_boxes(outs: Mapping[str, Tensor], grid: BEVGrid, decoding: TaskDecoding,
                 norm_bbox: bool = True, bottom: bool = False) -> List[Boxes]:
    """Raw outputs of a task to the boxes of each sample.

    Args:
        outs (dict): ``heatmap`` (B, classes, rows, columns) logits, and ``reg``, ``height``,
            ``dim``, ``rot`` and, where there is one, ``vel``, float32.
        grid (BEVGrid): Of the outputs.
        decoding (TaskDecoding): Which boxes are kept.
        norm_bbox (bool): ``dim`` is the logarithm.
        bottom (bool): ``height`` is that of the box's bottom instead of its centre.
    """
    cells = grid.shape[0] * grid.shape[1]
    logits = outs['heatmap'].flatten(1)
    logits, best = logits.topk(min(decoding.max_num, logits.shape[1]))
    cell = best % cells
    at = {name: out.flatten(2).gather(2, cell[:, None].expand(-1, out.shape[1], -1)).mT
          for name, out in outs.items() if name != 'heatmap'}
    pixel = torch.stack([cell // grid.shape[1], cell % grid.shape[1]], -1) + at['reg'].flip(-1)
    dim = at['dim'].exp() if norm_bbox else at['dim']
    z = at['height'] + dim[..., 2:] / 2 if bottom else at['height']
    yaw = torch.atan2(at['rot'][..., :1], at['rot'][..., 1:])
    parts = [grid.from_pixel(pixel), z, dim, yaw] + ([at['vel']] if 'vel' in at else [])
    boxes, scores = torch.cat(parts, -1), logits.sigmoid()
    wanted = scores > decoding.score_threshold
    if decoding.post_center_range is not None:
        low, high = boxes.new_tensor(decoding.post_center_range).view(2, 3)
        wanted &= ((boxes[..., :3] >= low) & (boxes[..., :3] <= high)).all(-1)
    return [_suppress(Boxes(*sample).take(keep), decoding)
            for *sample, keep in zip(boxes, scores, best // cells, wanted)]


def _suppress(found: Boxes, decoding: TaskDecoding) -> Boxes:
    found = found.take(slice(decoding.pre_max_size))
    if decoding.nms_type == 'circle':
        found = found.take(circle_nms(found.boxes[:, :2], decoding.squared_radius))
    elif decoding.nms_type == 'rotate':
        rectangles = found.boxes[:, [0, 1, 3, 4, 6]]
        if decoding.scale_factors:
            factors = rectangles.new_tensor(decoding.scale_factors)[found.classes]
            rectangles[:, 2:4] *= factors[:, None]
        found = found.take(rotated_nms(rectangles, decoding.nms_thr))
    return found.take(slice(decoding.post_max_size))


def circle_nms(centers: Tensor, squared_radius: float) -> Tensor:
    """Keep centres that are not too near to one that is kept before them.

    Args:
        centers (Tensor): (N, 2) metres, the best first.
        squared_radius (float): Centres with this squared distance or less are too near.

    Returns:
        Tensor: (K,) int64 indices, in their order.
    """
    return _greedy((centers[:, None] - centers).square().sum(-1) <= squared_radius)


def rotated_nms(rectangles: Tensor, iou: float) -> Tensor:
    """Keep rectangles that overlap none that is kept before them.

    It is mmcv's ``nms_rotated`` without the IoU of rectangles that are too far apart to meet, which
    are most: thirty times as fast on a CPU.

    Args:
        rectangles (Tensor): (N, 5) x, y, length, width, yaw, the best first.
        iou (float): Those with more are removed.

    Returns:
        Tensor: (K,) int64 indices, in their order.
    """
    reach = rectangles[:, 2:4].norm(dim=1) / 2
    distance = (rectangles[:, None, :2] - rectangles[:, :2]).norm(dim=-1)
    overlaps = (distance < reach[:, None] + reach).triu(1)
    first, second = overlaps.nonzero().T
    pairs = rectangles[first].contiguous(), rectangles[second].contiguous()
    overlaps[first, second] = box_iou_rotated(*pairs, aligned=True) > iou
    return _greedy(overlaps)


def _greedy(conflicts: Tensor) -> Tensor:
    """Indices of those in no conflict (row removes column) with one that is kept before them."""
    rows, kept = conflicts.cpu().numpy(), []
    free = np.ones(len(rows), bool)
    for n, row in enumerate(rows):
        if free[n]:
            kept.append(n)
            free &= ~row
    return torch.tensor(kept, dtype=torch.int64, device=conflicts.device)
