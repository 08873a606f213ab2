"""BEVFusion's image neck."""
from typing import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class GeneralizedLSSFPN(BaseModule):
    """Top-down neck that concatenates: [level, upsampled level above] -> 1x1 -> 3x3.

    Args:
        in_channels (tuple): Of the backbone's levels, shallow to deep.
        out_channels (int): Of each output.
    """

    def __init__(self, in_channels: Sequence[int] = (192, 384, 768), out_channels: int = 256,
                 init_cfg=None):
        super().__init__(init_cfg)
        norm = dict(type='BN')
        above = [*[out_channels] * (len(in_channels) - 2), in_channels[-1]]
        self.laterals = nn.ModuleList(
            ConvModule(level + up, out_channels, 1, bias=False, norm_cfg=norm)
            for level, up in zip(in_channels, above))
        self.convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, bias=False, norm_cfg=norm)
            for _ in above)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Levels, shallow to deep, to one map at the size of the first."""
        above = features[-1]
        for level, lateral, conv in reversed(list(zip(features, self.laterals, self.convs))):
            up = F.interpolate(above, level.shape[-2:], mode='bilinear', align_corners=False)
            above = conv(lateral(torch.cat([level, up], 1)))
        return above
