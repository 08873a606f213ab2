"""Depth of a scan in the cells of feature maps."""
from dataclasses import replace
from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from .cameras import CameraRig

_CELLS = {
    'center': lambda pixel, stride: ((pixel + 0.5) / stride).floor(),
    'floor': lambda pixel, stride: (pixel.trunc() / stride).floor(),
    'round': lambda pixel, stride: (pixel / stride).round()}


@torch.no_grad()
def depth_maps(points: Sequence[Tensor], rig: CameraRig, feature_size: Tuple[int, int],
               cell: str = 'center', depth_range: Tuple[float, float] = (0.0, float('inf')),
               border: Optional[float] = None) -> Tensor:
    """The depth of the nearest point in each cell of the feature maps of a rig.

    Points are sorted into cells without a loop, and a device does not wait for a size.

    Args:
        points (list[Tensor]): Of each sample (P, >=3), metres, LiDAR frame after BEV augmentation.
        rig (CameraRig): The cameras.
        feature_size (tuple): (h, w) of the feature maps.
        cell (str): The cell of a pixel p for the stride s. ``'center'``: the one that covers it,
            ``floor((p + 1/2) / s)``, since integers are pixel centres; ``'floor'`` of
            ``trunc(p) / s`` and ``'round'`` of ``p / s`` as BEVDepth's and BEVDet's releases have
            it.
        depth_range (tuple): Only points from the first depth to below the second are used, metres.
        border (float, optional): Only points more than so many pixels inside the raw image are
            used. Default: all that the augmented image shows, also where it is black.

    Returns:
        Tensor: (B, N, h, w) float32 metres, in the lens's sense (z of a pinhole); 0 where no point
        is seen.

    Raises:
        ValueError: ``cell`` is unknown.
    """
    if cell not in _CELLS:
        raise ValueError(f'cell: expected one of {", ".join(map(repr, _CELLS))}, got {cell!r}')
    return torch.stack([
        _depth_map(cloud, rig.geometry(min(n, rig.num_geometries - 1)), feature_size,
                   _CELLS[cell], depth_range, border) for n, cloud in enumerate(points)])


def _depth_map(points, rig, feature_size, cell_of, depth_range, border):
    height, width = feature_size
    pixel, depth, valid = (x[0] for x in rig.project(points[:, :3], bounds=False))
    col = cell_of(pixel[..., 0], rig.size[1] / width)
    row = cell_of(pixel[..., 1], rig.size[0] / height)
    valid = valid & (col >= 0) & (col < width) & (row >= 0) & (row < height)
    valid = valid & (depth >= depth_range[0]) & (depth < depth_range[1])
    if border is not None:
        raw = replace(rig, img_aug=torch.eye(3, device=depth.device).expand_as(rig.img_aug))
        position = raw.project(points[:, :3], bounds=False)[0][0]
        last = position.new_tensor(rig.raw_size[::-1]) - border
        valid = valid & ((position > border) & (position < last)).all(-1)
    views = len(depth)
    view = torch.arange(views, device=depth.device)[:, None]
    index = torch.where(valid, (view * height + row) * width + col, views * height * width)
    nearest = depth.new_full((views * height * width + 1, ), float('inf')).scatter_reduce(
        0, index.long().flatten(), depth.flatten(), 'amin')[:-1]
    nearest = torch.where(nearest.isinf(), 0.0, nearest)
    return nearest.view(views, height, width)


def depth_bins(depth: Tensor, bins: Tuple[float, float, float]) -> Tuple[Tensor, Tensor]:
    """The bin of each depth.

    Args:
        depth (Tensor): Metres; 0 where there is none.
        bins (tuple): First lower edge, last upper edge and step, metres.

    Returns:
        tuple: ``index`` int64, the bin i with ``low + i step <= depth < low + (i + 1) step``,
        clamped; and ``inside`` bool, false outside the bins and where there is no depth.
    """
    low, high, step = bins
    count = num_bins(bins)
    inside = (depth >= low) & (depth < high) & (depth > 0)
    return ((depth - low) / step).floor().clamp(0, count - 1).long(), inside


def num_bins(bins: Tuple[float, float, float]) -> int:
    """Number of bins between the first lower and the last upper edge."""
    return len(torch.arange(*bins))
