"""BEVDet's image neck."""
from typing import Sequence

import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class SingleLevelFPN(BaseModule):
    """FPN that returns its finest level alone: 1x1 laterals, nearest upsampling and sum, one 3x3.

    Args:
        in_channels (tuple): Of the backbone's levels, shallow to deep.
        out_channels (int): C'.
    """

    def __init__(self, in_channels: Sequence[int] = (1024, 2048), out_channels: int = 512,
                 init_cfg=None):
        super().__init__(init_cfg)
        self.laterals = nn.ModuleList(nn.Conv2d(c, out_channels, 1) for c in in_channels)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Levels, shallow to deep, to one map at the size of the first."""
        levels = [lateral(level) for lateral, level in zip(self.laterals, features)]
        joined = levels.pop()
        for level in reversed(levels):
            joined = level + F.interpolate(joined, level.shape[-2:], mode='nearest')
        return self.conv(joined)
