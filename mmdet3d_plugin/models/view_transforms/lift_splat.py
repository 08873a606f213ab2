"""Lift-Splat: features spread along their rays by a predicted depth, summed in BEV cells."""
from dataclasses import replace
from typing import Optional, Sequence, Tuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError, build_from
from ...geometry import BEVGrid, CameraRig
from ...geometry.lifting import build_lift_maps, lift_pool, volume_pool
from .view_transform import ViewTransform


@MODELS.register_module()
class LiftSplat(ViewTransform):
    """The view transform of Lift-Splat, BEVDet, BEVDepth and BEVFusion without compiled pooling.

    D depth logits and C context channels are predicted for each feature; each cell sums the
    context of the rays through it, weighted by the depth's probability.

    Args:
        grid (BEVGrid): The model's grid (passed by the model); its orientation is used.
        in_channels (int): Of the image features.
        channels (int): C.
        depth (tuple): First and last bin and step, metres; the last is excluded.
        x_range, y_range, z_range (tuple): Of the map, metres.
        resolution (float): Side of its cells, metres.
        num_levels (int): Height levels, which become channels.
        rounding (str): ``'floor'``; ``'trunc'`` as in BEVFusion's release, which also takes in the
            points up to one cell below the ranges.
        pixel (str): Where features sit in the image: at the ``'center'`` of the pixels they
            cover, or as in the release from ``'corner'`` to corner. See :func:`frustum`.
        bins (str): Where a bin's features are put: at its ``'lower'`` edge, as in all releases, or
            at its ``'center'``, where depth supervision means them.
        depth_net (dict, optional): A :class:`DepthNet`, such as ``MegviiDepthNet``. Default: a 1x1
            convolution, as in BEVFusion's ``LSSTransform``.
        refine (dict, optional): Network on the lifted features (B, C, D, h, w) of one image, such
            as ``DepthRefinement``. They are then held in memory.
        compressor (dict, optional): From voxels to the BEV map; see :class:`ViewTransform`.
    """

    def __init__(self, grid, in_channels: int = 256, channels: int = 80,
                 depth: Tuple[float, float, float] = (1.0, 60.0, 0.5),
                 x_range: Tuple[float, float] = (-51.2, 51.2),
                 y_range: Tuple[float, float] = (-51.2, 51.2), resolution: float = 0.4,
                 z_range: Tuple[float, float] = (-10.0, 10.0), num_levels: int = 1,
                 rounding: str = 'floor', pixel: str = 'center',
                 bins: str = 'lower', depth_net: Optional[dict] = None,
                 refine: Optional[dict] = None, compressor: Optional[dict] = None, init_cfg=None):
        super().__init__(init_cfg)
        if bins not in ('lower', 'center'):
            raise UserError(f"LiftSplat.bins: expected 'lower' or 'center', got {bins!r}")
        grid = grid if isinstance(grid, BEVGrid) else BEVGrid(**grid)
        self.grid = replace(grid, x_range=x_range, y_range=y_range,
                            resolution=resolution).with_levels(z_range, num_levels)
        self.channels, self.rounding, self.pixel = channels, rounding, pixel
        self.depths = torch.arange(*depth) + (depth[2] / 2 if bins == 'center' else 0)
        self.depth_net = build_from(
            MODELS, depth_net, 'view_transform.depth_net', in_channels=in_channels,
            channels=channels, num_bins=len(self.depths))
        if depth_net is None:
            self.depthnet = nn.Conv2d(in_channels, len(self.depths) + channels, 1)
        self.refine = build_from(MODELS, refine, 'view_transform.refine', channels=channels)
        self.build_compressor(compressor)
        self._cached = None, None

    def lift_maps(self, rig: CameraRig, feature_size: Tuple[int, int]):
        """Constant geometry; the last rig's is kept, for cameras that do not move."""
        key = rig.fingerprint, feature_size, rig.lidar2cam.device
        if self._cached[0] != key:
            self._cached = key, build_lift_maps(self.grid, rig, feature_size, self.depths,
                                                self.rounding, self.pixel)
        return self._cached[1]

    def predict(self, features: Tensor, rig: CameraRig) -> Tuple[Tensor, Tensor]:
        """Context (B, N, C, h, w) and probabilities of the depths (B, N, D, h, w), float32."""
        if self.depth_net is not None:
            context, depth = self.depth_net(features, rig)
        else:
            out = self.depthnet(features.flatten(0, 1)).unflatten(0, (-1, features.shape[1]))
            depth, context = out.split([len(self.depths), self.channels], 2)
        return context, depth.float().softmax(2)

    def to_voxels(self, predicted: Tuple[Tensor, Tensor], rig: CameraRig,
                  points: Optional[Sequence[Tensor]] = None) -> Tensor:
        """See :class:`ViewTransform`; float32. ``points`` are unused."""
        context, depth = predicted
        maps = self.lift_maps(rig, tuple(context.shape[-2:]))
        shape = (self.grid.num_levels, *self.grid.shape)
        if self.refine is None:
            return lift_pool(context, depth, maps, shape)
        lifted = context[:, :, :, None] * depth[:, :, None]
        lifted = self.refine(lifted.flatten(0, 1)).unflatten(0, lifted.shape[:2])
        return volume_pool(lifted, maps, shape)

    def __getstate__(self):
        return {**self.__dict__, '_cached': (None, None)}
