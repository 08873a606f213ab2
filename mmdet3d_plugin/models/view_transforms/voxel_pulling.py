"""VoxelPulling: the parameter-free view transform of KD360-VoxelBEV (Sec. 3.2)."""
from collections import OrderedDict
from typing import Optional, Sequence, Tuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from ...errors import UserError
from ...geometry import (
    BEVGrid,
    CameraRig,
    PullMap,
    build_pull_map,
    build_reordered_maps,
    occupancy,
    occupied_voxels,
    pull_dense,
    pull_fused,
    pull_occupied,
    pull_occupied_fused,
)
from .compressors import HeightCompressor, UnsampledVoxels, Voxels
from .view_transform import ViewTransform

_CACHED_GEOMETRIES = 8


@MODELS.register_module()
class VoxelPulling(ViewTransform):
    """Voxel centres look up the image features that they project to.

    The geometry depends on grid and calibration only, so it is computed once per rig and kept on
    the device; a forward pass samples and nothing else.

    Args:
        grid (dict | BEVGrid): The model's BEV grid (passed by the model).
        z_range (tuple): Lowest and highest z of the voxels in the LiDAR frame, metres.
        num_levels (int): Number of height levels L.
        levels (str): ``'-z'`` (level 0 highest) or ``'+z'`` (level 0 lowest); the order in which
            a checkpoint's height compressor expects them.
        occupied (bool): Fill only voxels that contain a LiDAR point; dense otherwise. A CPU samples
            those alone; other devices sample all and mask, since they would wait for the number.
        wrap (bool): Sample across the seam of a panorama. False reproduces the authors' release.
        border (str): ``'clamp'``: a voxel inside the image reads full features up to its edge,
            one outside reads zero. ``'fade'``: bilinear fading to zero around the edge, as in the
            authors' release.
        compressor (dict, optional): From voxels to the BEV map; see :class:`ViewTransform`.
        order (str): ``'sample_first'``, then convolve, or ``'conv_first'``, which is the same but
            for rounding and cheaper on a CPU; ``'auto'``: convolve first on a CPU, where the
            compressor allows.
    """

    def __init__(self, grid, z_range, num_levels: int, levels: str = '-z', occupied: bool = False,
                 wrap: bool = True, border: str = 'clamp', compressor: Optional[dict] = None,
                 order: str = 'auto', init_cfg=None):
        super().__init__(init_cfg)
        self.build_compressor(compressor)
        if order not in ('auto', 'sample_first', 'conv_first'):
            raise UserError("order: expected 'auto', 'sample_first' or 'conv_first', got "
                            f'{order!r}')
        can_fuse = isinstance(self.compressor, HeightCompressor)
        if order == 'conv_first' and not can_fuse:
            raise UserError("order: 'conv_first' needs the compressor HeightCompressor; use 'auto'")
        self.order = order if can_fuse else 'sample_first'
        if border not in ('clamp', 'fade'):
            raise ValueError(f"border: expected 'clamp' or 'fade', got {border!r}")
        grid = grid if isinstance(grid, BEVGrid) else BEVGrid(**grid)
        self.grid = grid.with_levels(z_range, num_levels, levels)
        self.occupied = occupied
        self.wrap = wrap
        self.border = border
        self._constants = OrderedDict()

    def pull_map(self, rig: CameraRig) -> PullMap:
        """The rig's constant geometry, from the cache when it was seen before."""
        return self._cached(rig, (), lambda: build_pull_map(
            self.grid, rig, bounds=self.border == 'clamp'))

    def _cached(self, rig, key, build):
        key = (rig.fingerprint, rig.lidar2cam.device, *key)
        if key not in self._constants:
            self._constants[key] = build()
            if len(self._constants) > _CACHED_GEOMETRIES:
                self._constants.popitem(last=False)
        self._constants.move_to_end(key)
        return self._constants[key]

    def sampling(self, rig: CameraRig) -> dict:
        """How features are sampled: arguments of :func:`pull_dense`."""
        return dict(wrap=self.wrap and rig.wraps,
                    padding_mode='border' if self.border == 'clamp' else 'zeros')

    def to_voxels(self, predicted: Tuple[Tensor], rig: CameraRig,
                  points: Optional[Sequence[Tensor]] = None) -> Voxels:
        """See :class:`ViewTransform`; ``points`` are needed when ``occupied``."""
        features, = predicted
        if self.order == 'conv_first' or self.order == 'auto' and features.device.type == 'cpu':
            return UnsampledVoxels(self, features, rig, points)
        shape = (self.grid.num_levels, *self.grid.shape)
        style = self.sampling(rig)
        if not self.occupied:
            return pull_dense(features, self.pull_map(rig), shape, **style)
        pull = self.pull_map(rig)
        if features.device.type == 'cpu':
            return pull_occupied(features, pull, self._voxels_of(points), shape, **style)
        occupied = torch.stack(self._voxels_of(points, occupancy))
        return pull_dense(features, pull.only(occupied), shape, **style)

    def _voxels_of(self, points, find=occupied_voxels):
        if points is None:
            raise UserError('VoxelPulling(occupied=True) needs the LiDAR points; load them in the '
                             'pipeline and keep them in PackBEVInputs')
        return [find(cloud, self.grid) for cloud in points]

    def forward_fused(self, features: Tensor, rig: CameraRig, weight: Tensor,
                  points: Optional[Sequence[Tensor]] = None) -> Tensor:
        """Sample and convolve, with the kernel's matrices first: the same, but cheaper.

        Args:
            features (Tensor): (B, N, C, h, w) image features of the rig's N views.
            rig (CameraRig): The calibrated cameras.
            weight (Tensor): (O, C * L, K, K), or for each sample its own (B, O, C * L, K, K) if not
                ``occupied``.
            points (list[Tensor], optional): Per sample (P, >=3), metres; needed when ``occupied``.

        Returns:
            Tensor: (B, O, rows, columns) float32.
        """
        shape = (self.grid.num_levels, *self.grid.shape)
        if self.occupied:
            return pull_occupied_fused(features, weight, self.pull_map(rig),
                                           self._voxels_of(points), shape, **self.sampling(rig))
        size, kernel_size = tuple(features.shape[-2:]), weight.shape[-1]
        maps = self._cached(rig, (size, kernel_size), lambda: build_reordered_maps(
            self.pull_map(rig), shape, size, kernel_size, **self.sampling(rig)))
        return pull_fused(features, weight, maps, shape)

    def __getstate__(self):
        return {**self.__dict__, '_constants': OrderedDict()}
