"""Training targets of a centre-based detection head, without a loop over objects."""
from dataclasses import dataclass
from typing import NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from ...errors import UserError, did_you_mean
from ...geometry import BEVGrid


class CenterTargets(NamedTuple):
    """Targets of one sample or, with a batch in front, of several.

    Attributes:
        heatmap (Tensor): (C, rows, columns) float32, the classes of all tasks one after another.
        codes (Tensor): (T, M, 10) float32 of the M slots of each task: offset of the centre from
            its cell along columns and rows (cells), z (metres), length, width, height (of norm_bbox
            their logarithm), sine and cosine of the yaw, velocity.
        index (Tensor): (T, M) int64, ``row * columns + column`` of the centre's cell.
        mask (Tensor): (T, M) bool, whether the slot has an object.
    """
    heatmap: Tensor
    codes: Tensor
    index: Tensor
    mask: Tensor

    @classmethod
    def stack(cls, samples: Sequence['CenterTargets']) -> 'CenterTargets':
        """Those of a batch."""
        return cls(*map(torch.stack, zip(*samples)))


@dataclass(frozen=True)
class CenterTargetDrawer:
    """Draws the targets of a sample; equal to the bit to mmdet3d's ``CenterHead.get_targets``.

    Nothing in it waits for the device: objects have fixed slots, those that do not count are
    masked.

    Args:
        grid (BEVGrid): Of the heatmap.
        num_classes (tuple): Of each task.
        gaussian_overlap (float): Least IoU of a box whose corners are displaced by the radius.
        min_radius (int): Least radius of a Gaussian, cells.
        max_objs (int): Slots of each task; further objects are left out.
        norm_bbox (bool): The codes have the logarithm of the size.
        rounding (str): See :meth:`BEVGrid.to_index`; mmdet3d has ``'trunc'``, by which the objects
            less than a cell below the range are drawn, too.
    """
    grid: BEVGrid
    num_classes: Tuple[int, ...]
    gaussian_overlap: float = 0.1
    min_radius: int = 2
    max_objs: int = 500
    norm_bbox: bool = True
    rounding: str = 'floor'

    def __call__(self, boxes: Tensor, channel: Tensor) -> CenterTargets:
        """Draw.

        Args:
            boxes (Tensor): (N, 9) x, y, z, length, width, height, yaw, vx, vy in the LiDAR frame,
                float32. Boxes without a finite position and a positive size do not count; other
                values that are NaN stay NaN.
            channel (Tensor): (N,) int64, of the heatmap; the number of channels = ignore.
        """
        task, slot = self._slots(channel)
        index, inside = self.grid.to_index(boxes[:, :2], self.rounding)
        size = boxes[:, 3:6]
        counts = (slot < self.max_objs) & inside & (size > 0).all(1) & size.isfinite().all(1)
        index = index.where(counts[:, None], 0)
        position = self.grid.to_pixel(boxes[:, :2])
        yaw = boxes[:, 6:7]
        codes = torch.cat([(position - index).flip(1), boxes[:, 2:3],
                           size.log() if self.norm_bbox else size, yaw.sin(), yaw.cos(),
                           boxes[:, 7:]], 1)
        flat = index[:, 0] * self.grid.shape[1] + index[:, 1]
        place = task * (self.max_objs + 1) + slot

        def in_slots(values: Tensor) -> Tensor:
            """(N, ...) to (T, M, ...); those that do not count are 0."""
            shape = len(self.num_classes) + 1, self.max_objs + 1
            slots = values.new_zeros(shape[0] * shape[1], *values.shape[1:])
            counted = counts.view(-1, *[1] * (values.dim() - 1))
            slots[place] = values.where(counted, values.new_zeros(()))
            return slots.unflatten(0, shape)[:-1, :-1]

        return CenterTargets(self._heatmap(index, size, channel, counts), in_slots(codes),
                             in_slots(flat), in_slots(counts))

    def _slots(self, channel: Tensor) -> Tuple[Tensor, Tensor]:
        """Task and slot of each object; in a task, objects are in the order of their classes."""
        ordered, order = channel.sort(stable=True)
        starts = [0]
        for count in self.num_classes:
            starts.append(starts[-1] + count)
        task = sum((ordered >= start).long() for start in starts[1:])
        slot = torch.arange(len(order), device=order.device) - torch.searchsorted(task, task)
        back = order.argsort()
        return task[back], slot[back].clamp(max=self.max_objs)

    def _heatmap(self, index: Tensor, size: Tensor, channel: Tensor, counts: Tensor) -> Tensor:
        """The largest Gaussian in each cell."""
        length, width = (size[:, :2] / self.grid.resolution).unbind(1)
        radius = gaussian_radius(length, width, self.gaussian_overlap)
        radius = radius.where(counts, 0).clamp(max=1e6).int().clamp_min(self.min_radius)[:, None]
        reach = max(self.grid.shape)
        if radius.device.type == 'cpu' and len(radius):  # elsewhere reading it would wait
            reach = int(radius.max())
        (rows, row_squares), (cols, col_squares) = (
            _window(centre[:, None], radius, reach, cells)
            for centre, cells in zip(index.unbind(1), self.grid.shape))
        sigma = (2 * radius + 1).double()[..., None] / 6
        gaussians = (-(row_squares[:, :, None] + col_squares[:, None]) / (2 * sigma * sigma)).exp()
        channels = sum(self.num_classes)
        channel = channel.where(counts, channels)
        cell = (channel[:, None] * self.grid.shape[0] + rows) * self.grid.shape[1]
        cell = cell[:, :, None] + cols[:, None]
        heatmap = torch.zeros(channels + 1, *self.grid.shape, device=size.device)
        heatmap.view(-1).scatter_reduce_(0, cell.flatten(), gaussians.float().flatten(), 'amax')
        return heatmap[:-1]


def _window(centre: Tensor, radius: Tensor, reach: int, cells: int) -> Tuple[Tensor, Tensor]:
    """The cells up to ``reach`` from a centre that the grid has, along one axis.

    Returns:
        tuple: (N, K) int64 index, and float64 squared distance from the centre, infinite beyond
        the radius.
    """
    count = min(2 * reach + 1, cells)
    index = (centre - reach).clamp(0, cells - count) + torch.arange(count, device=centre.device)
    distance = index - centre
    return index, distance.double().square().masked_fill(distance.abs() > radius, float('inf'))


def gaussian_radius(length: Tensor, width: Tensor, overlap: float) -> Tensor:
    """CornerNet's radius, in the order of mmdet3d's operations.

    Args:
        length, width (Tensor): (N,) of the boxes, cells.
        overlap (float): Least IoU.

    Returns:
        Tensor: (N,) cells. It is CornerNet's with its error, ``(b + sqrt(b^2 - 4 a c)) / 2``
        without the division by ``a``, with which all released models were trained.
    """
    total = width + length
    roots = []
    for a, b, c in (
            (1, total, width * length * (1 - overlap) / (1 + overlap)),
            (4, 2 * total, (1 - overlap) * length * width),
            (4 * overlap, -2 * overlap * total, (overlap - 1) * length * width)):
        roots.append((b + (b**2 - 4 * a * c).sqrt()) / 2)
    return torch.stack(roots).amin(0)


def class_channels(tasks: Sequence[Sequence[str]], classes: Sequence[str]) -> Tuple[int, ...]:
    """Which channel of the heatmap a class of the data has, by name.

    Args:
        tasks (sequence): Class names of each task.
        classes (sequence): Names of the data's labels.

    Returns:
        tuple: For each class and, last, for labels of no class; the number of channels = ignore.

    Raises:
        UserError: The data has no class of that name.
    """
    names = [name for task in tasks for name in task]
    for name in names:
        if name not in classes:
            raise UserError(f'head.tasks: the data has no class {name!r}'
                            f'{did_you_mean(name, classes)}')
    return tuple(names.index(name) if name in names else len(names)
                 for name in (*classes, None))
