"""From the voxels of a view transform to its BEV map."""
from typing import NamedTuple, Optional, Sequence, Union

from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn

from ...geometry import CameraRig
from ..flips import Flips


class UnsampledVoxels(NamedTuple):
    """Voxels that are not sampled yet: what samples and convolves them in one step.

    Attributes:
        view_transform (VoxelPulling): Whose voxels.
        features (Tensor): (B, N, C, h, w).
        rig (CameraRig): Of the cameras.
        points (list[Tensor], optional): LiDAR points of each sample.
    """
    view_transform: nn.Module
    features: Tensor
    rig: CameraRig
    points: Optional[Sequence[Tensor]] = None

    def conv2d(self, weight: Tensor) -> Tensor:
        """(O, C * L, K, K), or (B, O, C * L, K, K) kernels to (B, O, rows, columns)."""
        return self.view_transform.forward_fused(self.features, self.rig, weight, self.points)


Voxels = Union[Tensor, UnsampledVoxels]


@MMENGINE_MODELS.register_module()
class VoxelConv2d(nn.Conv2d):
    """A convolution of stride 1 on the BEV plane whose input may be :class:`UnsampledVoxels`."""

    def forward(self, voxels: Voxels, flips: Optional[Flips] = None) -> Tensor:
        """(B, C * L, rows, columns) to (B, O, rows, columns), in the flipped frame if asked."""
        if isinstance(voxels, Tensor):
            convolve = super().forward
            return convolve(voxels) if flips is None else flips.enter_bev(convolve, voxels)
        if flips is None:
            return voxels.conv2d(self.weight)
        return flips.enter_bev_by_kernel(voxels.conv2d, self.weight)


@MODELS.register_module()
class HeightCompressor(ConvModule):
    """Fold the height levels into channels: 3x3 convolution, instance norm, GELU.

    Args:
        in_channels (int): C * L of the view transform.
        out_channels (int): Channels of the BEV map.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False,
                         conv_cfg=dict(type='VoxelConv2d'),
                         norm_cfg=dict(type='IN', affine=False), act_cfg=dict(type='GELU'))

    def forward(self, voxels: Voxels, flips: Optional[Flips] = None) -> Tensor:
        """(B, C * L, rows, columns) to (B, O, rows, columns).

        Norm and activation commute with flips, so the convolution alone runs in the flipped frame.
        """
        return self.norm_act(self.conv(voxels, flips))

    def norm_act(self, bev: Tensor) -> Tensor:
        """What follows the convolution."""
        return self.activate(self.norm(bev))


@MODELS.register_module()
class BEVDownsample(BaseModule):
    """Halve a BEV map: three 3x3 convolutions (strides 1, 2, 1) with batch norm and ReLU.

    Args:
        channels (int): C, kept.
    """

    def __init__(self, channels: int, init_cfg=None):
        super().__init__(init_cfg)
        self.layers = nn.Sequential(*(
            ConvModule(channels, channels, 3, stride, padding=1, bias=False,
                       norm_cfg=dict(type='BN')) for stride in (1, 2, 1)))

    def forward(self, bev: Tensor, flips: Optional[Flips] = None) -> Tensor:
        """(B, C, rows, columns) -> (B, C, rows / 2, columns / 2)."""
        return self.layers(bev) if flips is None else flips.enter_bev(self.layers, bev)
