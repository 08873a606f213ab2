"""Necks that bring a backbone's features to one map of C channels."""
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layers import conv_in_relu, pad


@MODELS.register_module()
class Projection(BaseModule):
    """1x1 convolution of the last feature map.

    Args:
        in_channels (int): Channels of the backbone's last output.
        out_channels (int): C.
    """

    def __init__(self, in_channels: int, out_channels: int, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(..., (B, in_channels, h, w)) -> (B, out_channels, h, w)."""
        return self.conv(features[-1])


@MODELS.register_module()
class UpsampleConcat(BaseModule):
    """Join a deep map with the shallower one at twice its resolution, then project.

    The deep map is upsampled by two and, where an odd size makes it differ, resized once more to
    the shallow one; both resizes are bilinear. [shallow, deep] -> 2 x (3x3 conv, IN, ReLU) -> 1x1.

    Args:
        in_channels (tuple): Channels of the shallow and of the deep map.
        mid_channels (int): Channels of the 3x3 convolutions.
        out_channels (int): C.

    Attributes:
        wrap (bool): Columns continue across the left and right border.
    """

    def __init__(self, in_channels: Tuple[int, int], mid_channels: int, out_channels: int,
                 init_cfg=None):
        super().__init__(init_cfg)
        self.join = nn.Sequential(conv_in_relu(sum(in_channels), mid_channels),
                                  conv_in_relu(mid_channels, mid_channels))
        self.project = nn.Conv2d(mid_channels, out_channels, 1)
        self.wrap = False

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(..., (B, C1, h, w), (B, C2, ~h/2, ~w/2)) -> (B, out_channels, h, w)."""
        shallow, deep = features[-2:]
        deep = self._double(deep)
        if deep.shape[-2:] != shallow.shape[-2:]:
            deep = _resize(deep, shallow.shape[-2:])
        return self.project(self.join(torch.cat([shallow, deep], 1)))

    def _double(self, deep: Tensor) -> Tensor:
        height, width = (2 * size for size in deep.shape[-2:])
        if not self.wrap:
            return _resize(deep, (height, width))
        return _resize(pad(deep, (1, 1)), (height, width + 4))[..., 2:-2]


def _resize(maps: Tensor, size: Tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size, mode='bilinear', align_corners=False)
