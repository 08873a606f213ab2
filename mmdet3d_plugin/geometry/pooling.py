"""Pulling image features into voxels: plain torch, standard operators only."""
from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .bev_grid import BEVGrid
from .cameras import CameraRig


class PullMap(NamedTuple):
    """Where every voxel of a grid looks in the feature maps of a rig; constant geometry.

    Attributes:
        position (Tensor): (B or 1, N, P, 2) normalised sampling positions in the sense of
            ``F.grid_sample(align_corners=False)``, P = levels x rows x columns.
        seen (Tensor | None): (B or 1, N, P) float 1/0, or None when every voxel is seen by every
            view, so that masking costs nothing.
    """
    position: Tensor
    seen: Optional[Tensor]

    def at(self, geometry: int, index: Tensor) -> 'PullMap':
        """Of one geometry, the voxels with the given flat indices (M,)."""
        return PullMap(self.position[geometry:geometry + 1, :, index], None if self.seen is None
                       else self.seen[geometry:geometry + 1, :, index])

    def only(self, kept: Tensor) -> 'PullMap':
        """With the voxels of each sample that are not ``kept`` (B, P) bool as unseen."""
        kept = kept[:, None].to(self.position.dtype)
        seen = kept.expand(-1, self.position.shape[1], -1) if self.seen is None \
            else self.seen * kept
        return PullMap(self.position, seen)


def build_pull_map(grid: BEVGrid, rig: CameraRig, bounds: bool = True) -> PullMap:
    """Project the grid's voxel centres into the rig.

    Convention: the normalised position of image pixel ``c`` is ``(2c + 1) / W - 1``, so -1 and 1
    are the image's outer edges and the same position addresses a feature map of any stride.

    Args:
        grid (BEVGrid): A grid with height levels, in the rig's augmented LiDAR frame.
        rig (CameraRig): The cameras.
        bounds (bool): Whether voxels outside the image count as unseen.

    Returns:
        PullMap: On the rig's device, float32, without gradient.
    """
    with torch.no_grad():
        points = grid.centers().reshape(-1, 3).to(rig.lidar2cam)
        position, valid = locate(points, rig, bounds)
        return PullMap(position, None if valid.all() else valid.to(position.dtype))


def locate(points: Tensor, rig: CameraRig, bounds: bool = True) -> Tuple[Tensor, Tensor]:
    """Where points look in the feature maps of a rig.

    Args:
        points (Tensor): (P, 3), metres, LiDAR frame after BEV augmentation.
        rig (CameraRig): The cameras.
        bounds (bool): Whether points outside the image count as unseen.

    Returns:
        tuple: normalised positions (B or 1, N, P, 2), see :class:`PullMap`, and whether the point
        is seen, (B or 1, N, P) bool.
    """
    pixel, _, valid = rig.project(points, bounds)
    x, y = (2 * pixel + 1).unbind(-1)  # not one tensor of both, which is copied to the device
    return torch.stack([x / rig.size[1], y / rig.size[0]], -1) - 1, valid


def sample_features(features: Tensor, position: Tensor, wrap: bool = False,
                    padding_mode: str = 'zeros') -> Tensor:
    """Bilinear sampling of 2-D maps at normalised positions.

    Args:
        features (Tensor): (B, C, h, w).
        position (Tensor): (B, H', W', 2) as (x, y), see :func:`build_pull_map`.
        wrap (bool): Columns continue across the left and right border (a panorama's seam).
        padding_mode (str): ``'zeros'`` or ``'border'`` beyond the border.

    Returns:
        Tensor: (B, C, H', W') in the dtype of ``features``.
    """
    with torch.autocast(features.device.type, enabled=False):
        position = position.to(features.dtype) if features.dtype == torch.float64 else position
        maps = features.to(position.dtype)
        if wrap:
            width = maps.shape[-1]
            maps = torch.cat([maps[..., -1:], maps, maps[..., :1]], -1)
            x, y = position.unbind(-1)
            position = torch.stack([x * (width / (width + 2)), y], -1)
        sampled = F.grid_sample(maps, position, mode='bilinear', padding_mode=padding_mode,
                                align_corners=False)
    return sampled.to(features.dtype)


def pull_dense(features: Tensor, pull: PullMap, shape: Tuple[int, int, int], wrap: bool = False,
               padding_mode: str = 'zeros') -> Tensor:
    """Fill every voxel with the mean of the features that the views see there.

    The result is written in the layout that the height compressor reads, channel index
    ``c * levels + level``, so nothing is permuted or copied afterwards.

    Args:
        features (Tensor): (B, N, C, h, w).
        pull (PullMap): Of the same rig and grid.
        shape (tuple): (levels, rows, columns).
        wrap, padding_mode: See :func:`sample_features`.

    Returns:
        Tensor: (B, C * levels, rows, columns).
    """
    batch, views, channels = features.shape[:3]
    levels, rows, cols = shape
    total, count = None, 0
    for view in range(views):
        position = pull.position[:, view].unflatten(1, (levels * rows, cols))
        sampled = sample_features(features[:, view], position.expand(batch, -1, -1, -1), wrap,
                                  padding_mode)
        if pull.seen is not None:
            seen = pull.seen[:, view].unflatten(1, (1, levels * rows, cols))
            sampled, count = sampled * seen, count + seen
        total = sampled if total is None else total + sampled
    if views > 1:
        total = total / (views if pull.seen is None else count.clamp_min(1))
    return total.reshape(batch, channels * levels, rows, cols)


def occupancy(points: Tensor, grid: BEVGrid) -> Tensor:
    """Which voxels contain at least one point; a device does not wait for it.

    Args:
        points (Tensor): (P, >=3) LiDAR points, metres.
        grid (BEVGrid): A grid with height levels.

    Returns:
        Tensor: (levels * rows * columns,) bool, at ``(level * rows + row) * columns + column``.
    """
    index, inside = grid.to_index(points[:, :3])
    level, row, col = index.unbind(-1)
    rows, cols = grid.shape
    count = grid.num_levels * rows * cols
    cell = torch.where(inside, (level * rows + row) * cols + col, count)
    return torch.zeros(count + 1, dtype=torch.bool, device=points.device).index_fill(
        0, cell, True)[:-1]


def occupied_voxels(points: Tensor, grid: BEVGrid) -> Tensor:
    """Flat indices of the voxels that contain at least one point, (M,) int64, sorted.

    Their number is read from the device; see :func:`occupancy`.
    """
    return occupancy(points, grid).nonzero()[:, 0]


def pull_occupied(features: Tensor, pull: PullMap, occupied, shape: Tuple[int, int, int],
                  wrap: bool = False, padding_mode: str = 'zeros') -> Tensor:
    """As :func:`pull_dense`, but only the occupied voxels are sampled; the others are zero.

    The same as ``pull_dense`` of ``pull.only(occupancy)``, which reads no number from the device.

    Args:
        features (Tensor): (B, N, C, h, w).
        pull (PullMap): Of the same rig and grid.
        occupied (list[Tensor]): Per sample the (M,) flat voxel indices.
        shape (tuple): (levels, rows, columns).
        wrap, padding_mode: See :func:`sample_features`.

    Returns:
        Tensor: (B, C * levels, rows, columns).
    """
    batch, views, channels = features.shape[:3]
    levels, rows, cols = shape
    filled = []
    for sample, index in enumerate(occupied):
        chosen = pull.at(min(sample, len(pull.position) - 1), index)
        values = pull_dense(features[sample:sample + 1], chosen, (1, 1, len(index)), wrap,
                            padding_mode)
        empty = values.new_zeros(channels, levels * rows * cols)
        filled.append(empty.index_copy(1, index, values.reshape(channels, -1)))
    return torch.stack(filled).reshape(batch, channels * levels, rows, cols)
