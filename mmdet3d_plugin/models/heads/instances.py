"""Instances from centerness and offset: peaks, grouping, oriented boxes."""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from ...geometry import BEVGrid


@MODELS.register_module()
class CenterGrouping:
    """Each peak of the centerness is an instance; foreground cells join the peak they point to.

    Args:
        threshold (float): A cell is foreground if its segmentation probability is at least this.
        peak (float): Least centerness of a peak.
        window (int): A peak is the largest value of a square of this many cells; odd.
        top_k (int): At most so many instances.
        max_distance (float, optional): Between where a cell points to and its peak, cells; cells
            that miss every peak by more belong to no instance. None: each cell belongs to one.
        z_range (tuple): Bottom and top of the boxes in the LiDAR frame, metres: a constant, since
            the maps do not tell heights.
    """

    def __init__(self, threshold: float = 0.5, peak: float = 0.1, window: int = 3,
                 top_k: int = 200, max_distance: Optional[float] = None,
                 z_range: Tuple[float, float] = (-1.8, -0.3)):
        if window % 2 == 0:
            raise ValueError(f'window: expected an odd number of cells, got {window}')
        self.threshold, self.peak, self.window, self.top_k = threshold, peak, window, top_k
        self.max_distance, self.z_range = max_distance, tuple(z_range)

    def __call__(self, seg: Tensor, centerness: Tensor, offset: Tensor) -> Tensor:
        """Group the maps of one sample.

        Args:
            seg (Tensor): (K, R, C) probabilities.
            centerness (Tensor): (1, R, C) in [0, 1].
            offset (Tensor): (2, R, C), (row, col) in cells from a cell to its object's centre.

        Returns:
            Tensor: (K, R, C) int32, the number of the instance in the channel of its class, else 0.
            An instance has the class with the largest sum of probabilities over its cells.
        """
        foreground = seg.amax(0) >= self.threshold
        peaks = find_peaks(centerness[0], self.peak, self.window, self.top_k)
        ids = group_cells(foreground, offset, peaks, self.max_distance)
        votes = seg.new_zeros(len(peaks) + 1, len(seg))
        votes.index_add_(0, ids[foreground], seg[:, foreground].T)
        classes = torch.arange(len(seg), device=seg.device)[:, None, None]
        return torch.where(votes.argmax(1)[ids] == classes, ids, 0).int()

    def boxes(self, maps: PixelData, grid: BEVGrid) -> InstanceData:
        """Oriented boxes of the instances of one sample.

        Args:
            maps (PixelData): ``instances``, ``seg`` and ``centerness``.
            grid (BEVGrid): Of the maps.

        Returns:
            InstanceData: ``bboxes_3d``, ``labels_3d`` (the channel), ``scores_3d`` (mean
            probability times largest centerness of an instance's cells).
        """
        boxes, labels = oriented_boxes(maps.instances, grid, self.z_range)
        (channel, row, col), index = _cells(maps.instances)
        probability = _mean(maps.seg[channel, row, col][:, None], index, len(boxes))[:, 0]
        centerness = probability.new_zeros(len(boxes)).scatter_reduce(
            0, index, maps.centerness[0, row, col], 'amax')
        return InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, origin=(0.5, 0.5, 0.5)),
                            labels_3d=labels, scores_3d=probability * centerness)


def find_peaks(values: Tensor, threshold: float, window: int = 3, top_k: int = 200) -> Tensor:
    """Local maxima, largest first; of neighbours of equal value the first.

    Args:
        values (Tensor): (R, C); cells that are not finite are no peaks.
        threshold (float): Least value of a peak.
        window (int): Side of the square in which a peak is the largest, cells; odd.
        top_k (int): At most so many.

    Returns:
        Tensor: (P, 2) int64 row and column.
    """
    values = values.nan_to_num(float('-inf'), float('-inf'), float('-inf'))
    largest = F.max_pool2d(values[None], window, 1, window // 2)[0]
    peaks = ((values == largest) & (values >= threshold)).nonzero()
    order = values[peaks[:, 0], peaks[:, 1]].argsort(descending=True, stable=True)
    peaks = peaks[order[:top_k]]
    near = (peaks[:, None] - peaks).abs().amax(-1) <= window // 2
    return peaks[~near.tril(-1).any(1)]


def group_cells(foreground: Tensor, offset: Tensor, peaks: Tensor,
                max_distance: Optional[float] = None) -> Tensor:
    """Give each foreground cell to the peak nearest to where it points.

    Args:
        foreground (Tensor): (R, C) bool.
        offset (Tensor): (2, R, C), (row, col) in cells; cells that are not finite join no peak.
        peaks (Tensor): (P, 2) row and column.
        max_distance (float, optional): Cells pointing farther from every peak join none.

    Returns:
        Tensor: (R, C) int64, 0 or 1 + the index of the peak.
    """
    ids = torch.zeros_like(foreground, dtype=torch.int64)
    cells = (foreground & offset.isfinite().all(0)).nonzero()
    if len(peaks) and len(cells):
        row, col = cells.unbind(1)
        target = cells + offset[:, row, col].T
        distance, nearest = (target[:, None] - peaks).norm(dim=-1).min(1)
        far = distance > (float('inf') if max_distance is None else max_distance)
        ids[row, col] = (nearest + 1).masked_fill(far, 0)
    return ids


def oriented_boxes(instances: Tensor, grid: BEVGrid,
                   z_range: Tuple[float, float]) -> Tuple[Tensor, Tensor]:
    """Rectangles with the area and the principal axes of the instances.

    The second moments are those of the cells as squares, ``length = sqrt(12 variance)`` along an
    axis, and both sides are scaled to the instance's area: upright rectangles of whole cells are
    found exactly. On rasterised cars of 4.5 x 1.8 m and cells of 0.5 m the boxes overlap the true
    ones with a mean IoU of 0.92, rectangles of least area around the cells with 0.72 (0.91 when
    shrunk to the same area).

    Convention: yaw is in (-pi/2, pi/2]. A mask does not tell front from rear, so headings are right
    up to 180 degrees; a mask without a longer side has yaw 0.

    Args:
        instances (Tensor): (K, R, C) int, 0 = none; a number occurs in one channel only.
        grid (BEVGrid): Of the map.
        z_range (tuple): Bottom and top of all boxes, metres.

    Returns:
        tuple: (N, 7) float32 gravity centre, length, width, height, yaw in the LiDAR frame, and
        (N,) int64 channel, in the order of the instances' numbers.
    """
    (channel, row, col), index = _cells(instances)
    cells = index.bincount()
    count = len(cells)
    xy = grid.from_pixel(torch.stack([row, col], -1).double() + 0.5)
    centre = _mean(xy, index, count)
    dx, dy = (xy - centre[index]).T
    xx, yy, cross = _mean(torch.stack([dx * dx, dy * dy, dx * dy], -1), index, count).T
    split = torch.hypot((xx - yy) / 2, cross)
    variance = ((xx + yy) / 2)[:, None] + torch.stack([split, -split], -1) + grid.resolution**2 / 12
    size = (12 * variance).sqrt()
    size = size * (cells * grid.resolution**2 / size.prod(1)).sqrt()[:, None]
    bottom, top = z_range
    level = centre.new_tensor([(bottom + top) / 2, top - bottom]).expand(count, 2)
    yaw = torch.atan2(2 * cross, xx - yy) / 2
    boxes = torch.cat([centre, level[:, :1], size, level[:, 1:], yaw[:, None]], 1)
    return boxes.float(), channel.new_zeros(count).index_copy_(0, index, channel)


def _cells(instances: Tensor):
    """(M, 3) channel, row and column of the cells in instances, and (M,) which of the N it is."""
    cells = instances.nonzero().unbind(1)
    return cells, instances[cells].unique(return_inverse=True)[1]


def _mean(values: Tensor, index: Tensor, count: int) -> Tensor:
    """(M, D) values to their (count, D) means over equal indices."""
    total = values.new_zeros(count, values.shape[1]).index_add_(0, index, values)
    return total / index.bincount(minlength=count)[:, None]
