"""Pillars: from points to a BEV map without a third dimension."""
from typing import Optional, Sequence, Tuple

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import UserError
from ...geometry import BEVGrid
from ...geometry.voxels import voxelize
from ..branches import require
from ..flips import Flips


@MODELS.register_module()
class PillarBranch(BaseModule):
    """Points to BEV by PointPillars' encoder: the largest feature of the points of each pillar.

    A point's feature is its own values, its offset from the mean of its pillar's points, and from
    the pillar's centre. Rows and columns follow the model's grid, whose cells may be larger.

    Args:
        grid (BEVGrid): The model's grid (passed by the model); its orientation is used.
        in_channels (int): F, values of a point: x, y, z and others.
        channels (int): C, of the map.
        pillar_size (tuple): x, y in metres.
        point_range (tuple): Lowest x, y, z and highest x, y, z, metres; points outside are left
            out.
        max_points (int, optional): Points of a pillar that count, the first ones; the missing ones
            take part as zeros (mmdet3d's hard pillars). Default: all points, and no zeros.
        max_pillars (tuple): Of a cloud at most, in training and otherwise; with ``max_points``.
        kind_column (int, optional): Column of MVP's points that tells virtual (-1) from other
            points (0, 1); the network reads 1 and 0.
    """

    def __init__(self, grid, in_channels: int = 5, channels: int = 64,
                 pillar_size: Tuple[float, float] = (0.2, 0.2),
                 point_range: Sequence[float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
                 max_points: Optional[int] = None,
                 max_pillars: Tuple[int, int] = (30_000, 40_000),
                 kind_column: Optional[int] = None, init_cfg=None):
        super().__init__(init_cfg)
        grid = grid if isinstance(grid, BEVGrid) else BEVGrid(**grid)
        self._axes = [('xy'.index(axis[1]), axis[0] == '-') for axis in (grid.rows, grid.cols)]
        low, high = point_range[:3], point_range[3:]
        self._sizes = [round((b - a) / s) for a, b, s in zip(low, high, pillar_size)]
        self.shape = tuple(self._sizes[axis] for axis, _ in self._axes)
        self.voxel_size = (*pillar_size, high[2] - low[2])
        self.point_range, self.in_channels = tuple(point_range), in_channels
        self.max_points, self.max_pillars = max_points, tuple(max_pillars)
        self.kind_column = kind_column
        self.linear = nn.Linear(in_channels + 6, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)

    def forward(self, inputs: dict, flips: Optional[Flips] = None) -> Tensor:
        """``inputs['points']``, (P, F) each, to (B, C, rows, columns)."""
        require(inputs, 'points', 'points', 'the LiDAR loaders')
        if flips is not None:
            raise UserError('model.flips: PillarBranch does not support flips in the network; use '
                            'the BEV augmentation of the pipeline')
        points = inputs['points']
        with torch.autocast(points[0].device.type, enabled=False):
            clouds = [self._prepared(cloud) for cloud in points]
            encode = self._dynamic if self.max_points is None else self._hard
            pillars, cell = encode(clouds)
        canvas = pillars.new_zeros(len(points) * self.shape[0] * self.shape[1], pillars.shape[1])
        canvas = canvas.index_copy(0, cell, pillars).unflatten(0, (len(points), *self.shape))
        return canvas.movedim(-1, 1)

    def _prepared(self, cloud):
        if cloud.shape[1] != self.in_channels:
            raise UserError(f'lidar_branch.in_channels is {self.in_channels}, but the points have '
                            f'{cloud.shape[1]} values; load those that the model was trained with '
                            '(LoadPointCloud.use_dim, LoadSweeps)')
        cloud = cloud.float()
        if self.kind_column is None:
            return cloud
        kind = (cloud[:, self.kind_column] < 0).float()
        return torch.cat([cloud[:, :self.kind_column], kind[:, None],
                          cloud[:, self.kind_column + 1:]], 1)

    def _dynamic(self, clouds: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
        """Features (V, C) and cells (V,) of all pillars, of all points."""
        points, cells, centers = [], [], []
        for sample, cloud in enumerate(clouds):
            low, high = cloud.new_tensor(self.point_range).split(3)
            inside = ((cloud[:, :3] >= low) & (cloud[:, :3] < high)).all(1)
            cloud = cloud[inside]
            xy = ((cloud[:, :2] - low[:2]) / cloud.new_tensor(self.voxel_size[:2])).floor().long()
            xy = torch.minimum(xy, xy.new_tensor(self._sizes[:2]) - 1)
            points.append(cloud)
            cells.append(self._cell(xy, sample))
            centers.append(self._center(xy))
        points, center = torch.cat(points), torch.cat(centers)
        cell, pillar = torch.cat(cells).unique(return_inverse=True)
        count = pillar.new_zeros(len(cell)).index_add_(0, pillar, torch.ones_like(pillar))
        total = points.new_zeros(len(cell), 3).index_add_(0, pillar, points[:, :3])
        mean = (total / count[:, None])[pillar]
        features = self._features(points, mean, center)
        features = self._norm(self.linear(features)).relu()
        index = pillar[:, None].expand_as(features)
        largest = features.new_zeros(len(cell), features.shape[1]).scatter_reduce(
            0, index, features, 'amax')
        return largest, cell

    def _hard(self, clouds: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
        """As :meth:`_dynamic`, of ``max_points`` points."""
        found = [voxelize(cloud, self.voxel_size, self.point_range, self.max_points,
                          self.max_pillars[not self.training]) for cloud in clouds]
        voxels, index, count = map(torch.cat, zip(*found))
        mean = voxels[:, :, :3].sum(1, keepdim=True) / count[:, None, None]
        features = self._features(voxels, mean, self._center(index)[:, None])
        used = torch.arange(self.max_points, device=count.device) < count[:, None]
        features = self.linear(features * used[:, :, None])
        features = self._norm(features.flatten(0, 1)).relu().view_as(features)
        cell = torch.cat([self._cell(xyz, n) for n, (_, xyz, _) in enumerate(found)])
        return features.amax(1), cell

    @staticmethod
    def _features(points, mean, center):
        xyz = points[..., :3]
        return torch.cat([points, xyz - mean, xyz - center], -1)

    def _norm(self, features):
        """Batch norm; a single row, which has no variance, takes the running one."""
        if self.training and len(features) < 2:
            return nn.functional.batch_norm(
                features, self.norm.running_mean, self.norm.running_var, self.norm.weight,
                self.norm.bias, eps=self.norm.eps)
        return self.norm(features)

    def _center(self, index):
        """(V, 2 or 3) indices along x, y to centres (V, 3), metres."""
        size, low = index.new_tensor(self.voxel_size, dtype=torch.float32), self.point_range[:3]
        index = torch.cat([index[:, :2], torch.zeros_like(index[:, :1])], 1)
        return (index + 0.5) * size + size.new_tensor(low)

    def _cell(self, index, sample):
        """Place of pillars in the map of a batch."""
        row, col = (self._sizes[axis] - 1 - index[:, axis] if backwards else index[:, axis]
                    for axis, backwards in self._axes)
        return (sample * self.shape[0] + row) * self.shape[1] + col
