"""Branches: from one sensor's input to its BEV feature map."""
from typing import Optional, Sequence

from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..errors import UserError, build_from
from ..geometry import CameraRig
from .flips import Flips
from .view_transforms import VoxelPulling


@MODELS.register_module()
class HeightCompressor(ConvModule):
    """Fold the height levels into channels: 3x3 convolution, instance norm, GELU.

    Args:
        in_channels (int): C * L of the view transform.
        out_channels (int): Channels of the BEV map.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False,
                         norm_cfg=dict(type='IN', affine=False), act_cfg=dict(type='GELU'))

    def norm_act(self, bev: Tensor) -> Tensor:
        """What follows the convolution: norm and activation, which commute with flips."""
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

    def forward(self, bev: Tensor) -> Tensor:
        """(B, C, rows, columns) -> (B, C, rows / 2, columns / 2)."""
        return self.layers(bev)


class _PullingBranch(BaseModule):
    """Image encoder -> view transform -> height compressor."""

    def __init__(self, encoder: dict, view_transform: dict, compressor: dict, grid,
                 path: str, order: str = 'auto', init_cfg=None):
        super().__init__(init_cfg)
        self.encoder = build_from(MODELS, encoder, f'{path}.encoder')
        self.view_transform = build_from(MODELS, view_transform, f'{path}.view_transform',
                                         grid=grid)
        self.compressor = build_from(MODELS, compressor, f'{path}.compressor')
        if order not in ('auto', 'sample_first', 'conv_first'):
            raise UserError(f"{path}.order: expected 'auto', 'sample_first' or 'conv_first', got "
                            f'{order!r}')
        commutes = (isinstance(self.view_transform, VoxelPulling) and
                    isinstance(self.compressor, HeightCompressor))
        if order == 'conv_first' and not commutes:
            raise UserError(f"{path}.order: 'conv_first' needs VoxelPulling and HeightCompressor; "
                            "use 'auto'")
        self.order = order if commutes else 'sample_first'

    def _encode(self, images: Tensor, flips: Optional[Flips] = None) -> Tensor:
        """(B, N, C, H, W) -> (B, N, C', h, w)."""
        batch, views = images.shape[:2]

        def encode(stacked):
            return self.encoder(stacked.flatten(0, 1)).unflatten(0, (batch, views))

        return encode(images) if flips is None else flips.run_on_image(encode, images)

    def _transform(self, features: Tensor, rig: CameraRig, flips: Optional[Flips] = None,
                   points: Optional[Sequence[Tensor]] = None) -> Tensor:
        """Features of the views to the BEV map, in the cheaper of both orders."""
        if self.order == 'conv_first' or self.order == 'auto' and features.device.type == 'cpu':
            weight = self.compressor.conv.weight
            if flips is None:
                bev = self.view_transform.forward_fused(features, rig, weight, points)
            else:
                bev = flips.enter_bev_by_kernel(
                    lambda turned: self.view_transform.forward_fused(features, rig, turned), weight)
            return self.compressor.norm_act(bev)
        voxels = self.view_transform(features, rig, points)
        return self.compressor(voxels) if flips is None else flips.enter_bev(
            self.compressor, voxels)


@MODELS.register_module()
class CameraBranch(_PullingBranch):
    """Images to BEV.

    Args:
        encoder (dict): Image encoder.
        view_transform (dict): Receives the features and the camera rig.
        compressor (dict): Height compressor.
        grid (BEVGrid): The model's grid (passed by the model).
        order (str): ``'sample_first'``, then compress, or ``'conv_first'``, which is the same but
            for rounding and cheaper on a CPU; ``'auto'``: convolve first on a CPU, where view
            transform and compressor allow.
    """

    def __init__(self, encoder, view_transform, compressor, grid, path='model.camera_branch',
                 order='auto', init_cfg=None):
        super().__init__(encoder, view_transform, compressor, grid, path, order, init_cfg)

    def forward(self, inputs: dict, flips: Optional[Flips] = None) -> Tensor:
        """``inputs['imgs']`` (B, N, 3, H, W) and ``inputs['rig']`` to (B, C, rows, columns)."""
        require(inputs, 'imgs', 'img', 'a camera loader')
        features = self._encode(inputs['imgs'], flips)
        return self._transform(features, inputs['rig'], flips)


@MODELS.register_module()
class LiDARImageBranch(_PullingBranch):
    """The LiDAR image to BEV, at the voxels that the scan occupies.

    Args as in :class:`CameraBranch`. Its features are never flipped: the LiDAR image is exact.
    """

    def __init__(self, encoder, view_transform, compressor, grid, path='model.lidar_branch',
                 order='auto', init_cfg=None):
        super().__init__(encoder, view_transform, compressor, grid, path, order, init_cfg)

    def forward(self, inputs: dict, flips: Optional[Flips] = None) -> Tensor:
        """``inputs['lidar_img']`` (B, C, h, w), ``['lidar_rig']``, ``['points']`` to BEV."""
        for key in ('lidar_img', 'points'):
            require(inputs, key, key, 'the LiDAR loaders')
        features = self._encode(inputs['lidar_img'][:, None])
        return self._transform(features, inputs['lidar_rig'], points=inputs['points'])


def require(inputs: dict, key: str, packed: str, loader: str) -> None:
    """Raise a UserError if the batch lacks an input."""
    if inputs.get(key) is None:
        raise UserError(
            f'the model needs inputs[{key!r}], but the batch has {sorted(inputs)}; put {loader} in '
            f'the pipeline and {packed!r} in PackBEVInputs.keys')
