"""Sparse 3-D networks on voxels, and the branch from points to BEV."""
from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import UserError, build_from
from ...geometry import BEVGrid
from ...geometry.voxels import voxelize
from ..branches import require
from ..flips import Flips
from .sparse_conv import SparseConv3d, SparseMap, SubMConv3d


class SiteNorm(nn.BatchNorm1d):
    """Batch norm over active sites; a single site, which has no variance, takes the running one."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-3, momentum=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """(V, C) -> (V, C)."""
        if self.training and len(features) < 2:
            return F.batch_norm(features, self.running_mean, self.running_var, self.weight,
                                self.bias, eps=self.eps)
        return super().forward(features)


class SparseConvModule(nn.Module):
    """Convolution, norm, ReLU at active sites."""

    def __init__(self, conv: SparseConv3d):
        super().__init__()
        self.conv, self.norm = conv, SiteNorm(conv.weight.shape[-1])

    def forward(self, sites: SparseMap) -> SparseMap:
        """Run."""
        sites = self.conv(sites)
        return sites.with_features(self.norm(sites.features).relu())


class SparseBlock(nn.Module):
    """Residual block of two submanifold convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.norm1 = SubMConv3d(channels, channels), SiteNorm(channels)
        self.conv2, self.norm2 = SubMConv3d(channels, channels), SiteNorm(channels)

    def forward(self, sites: SparseMap) -> SparseMap:
        """Run."""
        out = self.conv1(sites)
        out = self.conv2(out.with_features(self.norm1(out.features).relu()))
        return out.with_features((self.norm2(out.features) + sites.features).relu())


@MODELS.register_module()
class SparseVoxelEncoder(BaseModule):
    """SECOND's residual sparse encoder, as in BEVFusion: voxels to a BEV map.

    A submanifold convolution; four stages of two residual blocks, the first three ended by a
    convolution of stride 2; one that halves the height. Its levels become channels.

    Args:
        in_channels (int): Of a voxel's feature.
        channels (tuple): Channels of the stages.
        out_channels (int): Of a level of the last map.
        paddings (tuple): Of the strided convolutions; (rows, columns, levels) or one number.
        blocks (int): Residual blocks of a stage.
    """

    def __init__(self, in_channels: int = 5, channels: Sequence[int] = (16, 32, 64, 128),
                 out_channels: int = 128, paddings: Sequence = (1, 1, (1, 1, 0)), blocks: int = 2,
                 init_cfg=None):
        super().__init__(init_cfg)
        self.stem = SparseConvModule(SubMConv3d(in_channels, channels[0]))
        self.stages = nn.ModuleList()
        for n, width in enumerate(channels):
            stage = [SparseBlock(width) for _ in range(blocks)]
            if n + 1 < len(channels):
                stage.append(SparseConvModule(
                    SparseConv3d(width, channels[n + 1], 3, 2, paddings[n])))
            self.stages.append(nn.Sequential(*stage))
        self.out = SparseConvModule(
            SparseConv3d(channels[-1], out_channels, (1, 1, 3), (1, 1, 2), 0))

    def forward(self, voxels: SparseMap) -> Tensor:
        """Voxels to (B, out_channels * levels, rows, columns), channel ``c * levels + level``."""
        sites = self.stem(voxels)
        for stage in self.stages:
            sites = stage(sites)
        dense = self.out(sites).dense()  # (B, C, rows, columns, levels)
        return dense.movedim(-1, 2).flatten(1, 2)


@MODELS.register_module()
class VoxelBranch(BaseModule):
    """Points to BEV: voxels with the mean of their points, a sparse encoder.

    Rows and columns of the voxels follow the model's grid, levels go upwards.

    Args:
        grid (BEVGrid): The model's grid (passed by the model); its orientation is used.
        voxel_size (tuple): x, y, z in metres.
        point_range (tuple): Lowest x, y, z, and highest x, y, z, metres.
        encoder (dict): Of a :class:`SparseMap` to a BEV map.
        max_points (int): Points of a voxel that count, the first ones.
        max_voxels (tuple): Voxels of a cloud at most, in training and otherwise.
        extra_levels (int): Empty levels on top; BEVFusion's encoder has one.
    """

    def __init__(self, grid, encoder: dict, voxel_size: Sequence[float] = (0.1, 0.1, 0.2),
                 point_range: Sequence[float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
                 max_points: int = 10, max_voxels: Tuple[int, int] = (90_000, 120_000),
                 extra_levels: int = 1, init_cfg=None):
        super().__init__(init_cfg)
        grid = grid if isinstance(grid, BEVGrid) else BEVGrid(**grid)
        sizes = [round((high - low) / size) for low, high, size in zip(
            point_range[:3], point_range[3:], voxel_size)]
        self._axes = [('xy'.index(axis[1]), axis[0] == '-') for axis in (grid.rows, grid.cols)]
        self._sizes = sizes
        self.shape = (*(sizes[axis] for axis, _ in self._axes), sizes[2] + extra_levels)
        self.voxel_size, self.point_range = tuple(voxel_size), tuple(point_range)
        self.max_points, self.max_voxels = max_points, tuple(max_voxels)
        self.encoder = build_from(MODELS, encoder, 'model.lidar_branch.encoder')

    def forward(self, inputs: dict, flips: Optional[Flips] = None) -> Tensor:
        """``inputs['points']``, (P, F) each, to (B, C, rows, columns)."""
        require(inputs, 'points', 'points', 'the LiDAR loaders')
        if flips is not None:
            raise UserError('model.flips: VoxelBranch does not support flips in the network; use '
                            'the BEV augmentation of the pipeline')
        with torch.autocast(inputs['points'][0].device.type, enabled=False):
            return self.encoder(self.voxels(inputs['points']))

    def voxels(self, points: Sequence[Tensor]) -> SparseMap:
        """Mean features and sites of the voxels of a batch."""
        features, index = [], []
        for sample, cloud in enumerate(points):
            voxels, xyz, count = voxelize(cloud.float(), self.voxel_size, self.point_range,
                                          self.max_points, self.max_voxels[not self.training])
            features.append(voxels.sum(1) / count[:, None])
            site = [self._sizes[axis] - 1 - xyz[:, axis] if backwards else xyz[:, axis]
                    for axis, backwards in self._axes]
            index.append(torch.stack([torch.full_like(count, sample), *site, xyz[:, 2]], 1))
        return SparseMap(torch.cat(features), torch.cat(index), self.shape, len(points))
