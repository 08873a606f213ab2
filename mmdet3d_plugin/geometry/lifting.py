"""Lifting image features along their rays and summing them in BEV cells: plain torch."""
import math
from typing import NamedTuple, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .bev_grid import BEVGrid
from .cameras import CameraRig


class LiftMap(NamedTuple):
    """Which (pixel, depth) pairs of a rig fall into which cell of a grid, sorted by cell.

    Attributes:
        pair (Tensor): (M,) int64, ``(view * D + depth) * h * w + pixel`` of the pairs inside.
        pixel (Tensor): (M,) int64, ``view * h * w + pixel`` of the same pairs.
        start (Tensor): (cells + 1,) int64; pairs ``start[c]`` to ``start[c + 1]`` are in cell c,
            ``c = (level * rows + row) * columns + column``.
    """
    pair: Tensor
    pixel: Tensor
    start: Tensor


def frustum(size: Tuple[int, int], feature_size: Tuple[int, int], depths: Tensor,
            pixel: str = 'center') -> Tuple[Tensor, Tensor]:
    """Positions of the pairs of a feature map and depths.

    Args:
        size (tuple): (H, W) of the image.
        feature_size (tuple): (h, w).
        depths (Tensor): (D,) metres.
        pixel (str): ``'center'``: a feature sits at the centre of the pixels it covers.
            ``'corner'``: the first and the last are at the centres of the image's outermost
            pixels (Lift-Splat's release and code derived from it).

    Returns:
        tuple: image positions (D * h * w, 2) as (column, row), and depths (D * h * w,); float32.
    """
    if pixel not in ('center', 'corner'):
        raise ValueError(f"pixel: expected 'center' or 'corner', got {pixel!r}")
    axes = []
    for length, count in zip(size, feature_size):
        if pixel == 'corner':
            axes.append(torch.linspace(0, length - 1, count))
        else:
            axes.append((torch.arange(count) + 0.5) * (length / count) - 0.5)
    depth, row, col = torch.meshgrid(depths.float(), *axes, indexing='ij')
    return torch.stack([col, row], -1).flatten(0, 2), depth.flatten()


@torch.no_grad()
def build_lift_maps(grid: BEVGrid, rig: CameraRig, feature_size: Tuple[int, int], depths: Tensor,
                    rounding: str = 'floor', pixel: str = 'center') -> Sequence[LiftMap]:
    """Sort the pairs of each geometry of a rig into the cells of a grid.

    Args:
        grid (BEVGrid): A grid with height levels, in the rig's augmented LiDAR frame.
        rig (CameraRig): The cameras.
        feature_size (tuple): (h, w) of the feature maps.
        depths (Tensor): (D,) metres, in the lens's sense (z of a pinhole).
        rounding (str): See :meth:`BEVGrid.to_index`.
        pixel (str): See :func:`frustum`.

    Returns:
        list[LiftMap]: One for each geometry, on the rig's device.
    """
    area, count = feature_size[0] * feature_size[1], grid.num_levels * math.prod(grid.shape)
    maps = []
    for n in range(rig.num_geometries):
        cells = cells_of_pairs(grid, rig.geometry(n), feature_size, depths, rounding, pixel)
        kept = (cells < count).nonzero()[:, 0]
        cell, order = cells[kept].sort(stable=True)
        pair = kept[order]
        start = torch.searchsorted(cell, torch.arange(count + 1, device=cell.device))
        pixel_of = pair // (len(depths) * area) * area + pair % area
        maps.append(LiftMap(pair, pixel_of, start))
    return maps


def cells_of_pairs(grid: BEVGrid, rig: CameraRig, feature_size: Tuple[int, int], depths: Tensor,
                   rounding: str = 'floor', pixel: str = 'center') -> Tensor:
    """The cell of each (view, depth, pixel) of a rig of one geometry.

    Args:
        grid, rig, feature_size, depths, rounding, pixel: See :func:`build_lift_maps`.

    Returns:
        Tensor: (N * D * h * w,) int64, see :class:`LiftMap`; the number of cells for the pairs
        outside.
    """
    position, depth = (x.to(rig.lidar2cam.device)
                       for x in frustum(rig.size, feature_size, depths, pixel))
    views, (rows, cols) = rig.lidar2cam.shape[1], grid.shape
    points = rig.unproject(position.expand(1, views, -1, -1), depth.expand(1, views, -1))
    index, inside = grid.to_index(points.reshape(-1, 3), rounding)
    level, row, col = index.unbind(-1)
    return torch.where(inside, (level * rows + row) * cols + col, grid.num_levels * rows * cols)


def lift_pool(context: Tensor, depth: Tensor, maps: Sequence[LiftMap],
              shape: Tuple[int, int, int]) -> Tensor:
    """Sum ``depth * context`` over the pairs in each cell.

    The products are never held: each cell is one bag of pixels weighted by their depth
    probabilities, forward and backward.

    Args:
        context (Tensor): (B, N, C, h, w) features.
        depth (Tensor): (B, N, D, h, w) probabilities.
        maps (list[LiftMap]): One for each sample, or one for all.
        shape (tuple): (levels, rows, columns).

    Returns:
        Tensor: (B, C * levels, rows, columns) float32 (float64 for float64 inputs), channel index
        ``c * levels + level``; zero in cells without a pair.
    """
    return _pool(context, maps, shape,
                 lambda n, lift: (lift.pixel, depth[n].reshape(-1)[lift.pair]))


def volume_pool(volume: Tensor, maps: Sequence[LiftMap], shape: Tuple[int, int, int]) -> Tensor:
    """Sum lifted features over the pairs in each cell.

    Args:
        volume (Tensor): (B, N, C, D, h, w).
        maps, shape: See :func:`lift_pool`.

    Returns:
        Tensor: See :func:`lift_pool`.
    """
    return _pool(volume, maps, shape, lambda n, lift: (lift.pair, None))


def _pool(features, maps, shape, bags):
    """Sum the rows of ``features`` that ``bags(n, lift)`` names, with weights or None, by cell."""
    channels, dtype = features.shape[2], features.dtype
    dtype = dtype if dtype == torch.float64 else torch.float32
    pooled = []
    with torch.autocast(features.device.type, enabled=False):
        for n in range(len(features)):
            lift = maps[n if len(maps) > 1 else 0]
            table = features[n].movedim(1, -1).reshape(-1, channels).to(dtype)
            rows, weights = bags(n, lift)
            cells = F.embedding_bag(rows, table, lift.start, mode='sum', include_last_offset=True,
                                    per_sample_weights=None if weights is None
                                    else weights.to(dtype))
            pooled.append(cells.T.reshape(channels * shape[0], *shape[1:]))
        return torch.stack(pooled)
