"""Hard voxelisation of point clouds: plain torch, on any device."""
from typing import Sequence, Tuple

import torch
from torch import Tensor


@torch.no_grad()
def voxelize(points: Tensor, voxel_size: Sequence[float], point_range: Sequence[float],
             max_points: int, max_voxels: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Gather points in voxels, bit for bit as mmcv's deterministic ``Voxelization``.

    A point is in voxel ``floor((p - low) / size)``. Voxels come in the order of their first points;
    those beyond ``max_voxels`` are dropped, and so are the points of a voxel beyond
    ``max_points``.

    Args:
        points (Tensor): (P, F >= 3), the first three x, y, z in metres.
        voxel_size (tuple): x, y, z in metres.
        point_range (tuple): Lowest x, y, z and highest x, y, z; the highest are outside.
        max_points (int): Of a voxel.
        max_voxels (int): Of the cloud.

    Returns:
        tuple: ``voxels`` (V, max_points, F), zero where there are fewer points; ``index`` (V, 3)
        int64 along x, y, z; ``count`` (V,) int64 points of each voxel.
    """
    size, bounds = points.new_tensor(voxel_size), points.new_tensor(point_range)
    shape = ((bounds[3:] - bounds[:3]) / size).round().long()
    cell = ((points[:, :3] - bounds[:3]) / size).floor().long()
    kept = ((cell >= 0) & (cell < shape)).all(1).nonzero()[:, 0]
    cell = cell[kept]
    key, order = ((cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]).sort(stable=True)
    fresh = torch.ones_like(key, dtype=torch.bool)
    fresh[1:] = key[1:] != key[:-1]
    start = fresh.nonzero()[:, 0]  # of each voxel in the sorted points
    group = fresh.cumsum(0) - 1
    place = torch.arange(len(key), device=key.device) - start[group]  # in its voxel
    by_first = order[start].argsort()[:max_voxels]  # stable sort: the first of a voxel is earliest
    rank = by_first.new_full((len(start), ), -1)
    rank[by_first] = torch.arange(len(by_first), device=key.device)
    voxel = rank[group]
    used = (voxel >= 0) & (place < max_points)
    voxels = points.new_zeros(len(by_first), max_points, points.shape[1])
    voxels[voxel[used], place[used]] = points[kept[order[used]]]
    count = start.new_zeros(len(by_first)).index_add_(0, voxel[used], torch.ones_like(voxel[used]))
    return voxels, cell[order[start[by_first]]], count
