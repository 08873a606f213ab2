"""Adapters: bring a student's tensor to its teacher's shape."""
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class ConvAdapter(BaseModule):
    """1x1 convolution, and bilinear resizing where the student's map has another size.

    Args:
        in_channels (int): Channels of the student.
        out_channels (int): Channels of the teacher.
    """

    def __init__(self, in_channels: int, out_channels: int, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, student: Tensor, size) -> Tensor:
        """(N, in_channels, h, w) to (N, out_channels, *size)."""
        adapted = self.conv(student)
        if adapted.shape[-2:] != size:
            adapted = F.interpolate(adapted, size, mode='bilinear', align_corners=False)
        return adapted
