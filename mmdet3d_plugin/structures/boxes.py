"""Boxes of mmdet3d as the rows that geometry and metrics work on."""
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from torch import Tensor


def gravity_boxes(boxes: LiDARInstance3DBoxes) -> Tensor:
    """(N, 7) or (N, 9) x, y, z of the gravity centre, length, width, height, yaw, and vx, vy.

    The tensor of ``LiDARInstance3DBoxes`` has the bottom centre in place of the gravity centre;
    frame, units and dtype are those of the boxes.
    """
    return torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], 1)
