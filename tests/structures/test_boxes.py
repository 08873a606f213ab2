"""Rows of boxes."""
import torch
from mmdet3d.structures import LiDARInstance3DBoxes

from mmdet3d_plugin.structures import gravity_boxes


def test_rows_have_the_gravity_centre():
    row = [1., 2., 3., 4., 5., 6., 0.5, 7., 8.]
    boxes = LiDARInstance3DBoxes([row], box_dim=9)
    assert gravity_boxes(boxes).tolist() == [[1., 2., 6., 4., 5., 6., 0.5, 7., 8.]]
    made = LiDARInstance3DBoxes([row], box_dim=9, origin=(0.5, 0.5, 0.5))
    torch.testing.assert_close(gravity_boxes(made), torch.tensor([row]))
    assert gravity_boxes(boxes[:0]).shape == (0, 9)
