"""Fusers of two BEV maps."""
from typing import Tuple

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn


@MMENGINE_MODELS.register_module()
class DoubledConv2d(nn.Conv2d):
    """Convolution of [F, F], computed from F with the sum of the two halves of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """F (B, C, rows, columns), or [F, F] with 2 C channels, to (B, C', rows, columns)."""
        if x.shape[1] == self.in_channels:
            return super().forward(x)
        return self._conv_forward(x, self.weight.unflatten(1, (2, -1)).sum(1), self.bias)


@MODELS.register_module()
class SGFM(BaseModule):
    r"""Soft-gated fusion module, KD360-VoxelBEV Eq. (1)-(3).

    .. math::
        G = \sigma(W [F_I, F_L]),\quad F = G F_I + (1 - G) F_L,\quad
        F_{out} = \mathrm{ReLU}(\mathrm{BN}(\mathrm{Conv}_{3\times3}([F, F])))

    The paper's doubled input makes one half of the 3x3 weights redundant; a convolution of C
    channels whose weights are the sum of the two halves computes the same.

    Args:
        channels (int): C of both maps.
        bias (bool): Biases in both convolutions. The paper has none, the authors' release has both.
        doubled (bool): Keep the paper's [F, F] input, to load the authors' weights.
    """

    def __init__(self, channels: int, bias: bool = False, doubled: bool = True, init_cfg=None):
        super().__init__(init_cfg)
        self.gate = nn.Conv2d(2 * channels, channels, 1, bias=bias)
        self.refine = ConvModule((1 + doubled) * channels, channels, 3, padding=1, bias=bias,
                                 conv_cfg=dict(type='DoubledConv2d') if doubled else None,
                                 norm_cfg=dict(type='BN'))

    def forward(self, camera: Tensor, lidar: Tensor) -> Tensor:
        """Two maps (B, C, rows, columns) to one."""
        gate = self.gate(torch.cat([camera, lidar], 1)).sigmoid()
        return self.refine(lidar + gate * (camera - lidar))


@MODELS.register_module()
class ConvFuser(BaseModule):
    """BEVFusion's fuser: [camera, LiDAR] -> 3x3 convolution, batch norm, ReLU.

    Args:
        in_channels (tuple): Of the camera's and of the LiDAR's map.
        out_channels (int): Of the fused map.
    """

    def __init__(self, in_channels: Tuple[int, int] = (80, 256), out_channels: int = 256,
                 init_cfg=None):
        super().__init__(init_cfg)
        self.conv = ConvModule(sum(in_channels), out_channels, 3, padding=1, bias=False,
                               norm_cfg=dict(type='BN'))

    def forward(self, camera: Tensor, lidar: Tensor) -> Tensor:
        """Two maps (B, C_i, rows, columns) to one."""
        return self.conv(torch.cat([camera, lidar], 1))
