"""Pulling and the convolution after it in the other order, with the same result.

Both are linear: a 3x3 convolution of pulled voxels sums, over taps, levels and the corners of the
bilinear sampling, matrices applied to features. Applied to the feature map first, a tenth of the
cells, the matrices cost a fraction; what is left is a constant weighted sum of rows.
"""
from dataclasses import dataclass
from functools import cached_property
from typing import List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .pooling import PullMap, pull_dense


@dataclass(frozen=True)
class CSRMatrix:
    """A constant sparse matrix: every cell is a weighted sum of a table's rows.

    Attributes:
        index (Tensor): (M,) int32 rows, by cell.
        weight (Tensor): (M,) float32.
        start (Tensor): (cells + 1,) int32; entries ``start[c]`` to ``start[c + 1]`` are cell c's.
        num_rows (int): Of the table.
    """
    index: Tensor
    weight: Tensor
    start: Tensor
    num_rows: int

    def __call__(self, table: Tensor) -> Tensor:
        """(num_rows, C) to (cells, C); the gradient is the transposed sum, without atomics."""
        if torch.is_grad_enabled() and table.requires_grad:
            return _CSRProduct.apply(table, self)
        return F.embedding_bag(self.index, table, self.start, mode='sum', include_last_offset=True,
                               per_sample_weights=self.weight.to(table.dtype))

    @cached_property
    def transposed(self) -> 'CSRMatrix':
        """From cells to the table's rows."""
        row, order = self.index.sort(stable=True)
        start = torch.searchsorted(row, torch.arange(
            self.num_rows + 1, dtype=torch.int32, device=row.device), out_int32=True)
        counts = self.start.diff()
        cell = torch.arange(len(counts), dtype=torch.int32, device=row.device)
        return CSRMatrix(cell.repeat_interleave(counts)[order], self.weight[order], start,
                      len(counts))


class _CSRProduct(torch.autograd.Function):

    @staticmethod
    def forward(ctx, table, rows):
        ctx.transposed = rows.transposed
        return rows(table)

    @staticmethod
    def backward(ctx, grad):
        return ctx.transposed(grad.contiguous()), None


@torch.no_grad()
def build_reordered_maps(pull: PullMap, shape: Tuple[int, int, int], feature_size: Tuple[int, int],
                        kernel_size: int = 3, wrap: bool = False,
                        padding_mode: str = 'zeros') -> List[CSRMatrix]:
    """The constant sums of :func:`pull_fused`, one for each geometry.

    The table's rows are ``pixel * levels * K^2 + level * K^2 + tap``, with
    ``pixel = (view * h + row) * w + column`` and ``tap = i * K + j`` of a K x K kernel.

    Args:
        pull (PullMap): Of the rig and the grid.
        shape (tuple): (levels, rows, columns).
        feature_size (tuple): (h, w).
        kernel_size (int): K, odd; the convolution has stride 1 and pads with zeros.
        wrap, padding_mode: See :func:`.pooling.sample_features`.
    """
    views, levels, taps = pull.position.shape[1], shape[0], kernel_size**2
    level, tap = (torch.arange(n, dtype=torch.int32, device=pull.position.device)
                  for n in (levels, taps))
    maps = []
    for pixel, weight in zip(*_corners(pull, feature_size, wrap, padding_mode)):
        row = (pixel.unflatten(0, shape) * levels + level[:, None, None, None]) * taps
        row = _windows(row, kernel_size) + tap
        weight = _windows(weight.unflatten(0, shape), kernel_size)
        kept = weight != 0
        start = F.pad(kept.flatten(2).sum(2).flatten().cumsum(0), (1, 0))
        maps.append(CSRMatrix(row[kept], weight[kept], start.int(),
                           views * feature_size[0] * feature_size[1] * levels * taps))
    return maps


def _windows(voxels, kernel_size):
    """(levels, R, C, entries) to the voxels under a kernel, (R, C, levels, entries, taps)."""
    half = kernel_size // 2
    padded = F.pad(voxels, [0, 0, *[half] * 4])
    return padded.unfold(1, kernel_size, 1).unfold(2, kernel_size, 1).flatten(4).permute(
        1, 2, 0, 3, 4)


def _corners(pull, size, wrap, padding_mode):
    """(G, P, N * 4) pixels of all views and their bilinear weights, shared among the views."""
    height, width = size
    x, y = (((value + 1) * count - 1) / 2
            for value, count in zip(pull.position.unbind(-1), (width, height)))
    if padding_mode == 'border':
        x, y = x if wrap else x.clamp(0, width - 1), y.clamp(0, height - 1)
    share = 1 / pull.position.shape[1]
    if pull.seen is not None:
        share = pull.seen / pull.seen.sum(1, keepdim=True).clamp_min(1)
    view = torch.arange(len(pull.position[0]), dtype=torch.int32, device=x.device)[None, :, None]
    pixels, weights = [], []
    for right in (0, 1):
        for below in (0, 1):
            col, row = x.floor() + right, y.floor() + below
            weight = (1 - (x - col).abs()) * (1 - (y - row).abs()) * share
            inside = (row >= 0) & (row < height)
            if wrap:
                col = col % width
            else:
                inside = inside & (col >= 0) & (col < width)
            pixel = row.clamp(0, height - 1) * width + col.clamp(0, width - 1)
            pixels.append(pixel.int() + view * height * width)
            weights.append(weight * inside)
    return (torch.stack(part, -1).transpose(1, 2).flatten(2) for part in (pixels, weights))


def pull_fused(features: Tensor, weight: Tensor, maps: Sequence[CSRMatrix],
                   shape: Tuple[int, int, int]) -> Tensor:
    """``F.conv2d(pull_dense(features, ...), weight, padding=K // 2)`` without the voxels.

    The matrices run in the dtype of autocast, the sums in float32.

    Args:
        features (Tensor): (B, N, C, h, w).
        weight (Tensor): (O, C * levels, K, K), or (B, O, C * levels, K, K) for each sample its own.
        maps (list[CSRMatrix]): Of :func:`build_reordered_maps`; one a sample, or one for all.
        shape (tuple): (levels, rows, columns).

    Returns:
        Tensor: (B, O, rows, columns), channels last in memory.
    """
    batch, _, channels = features.shape[:3]
    matrices, outputs = table_matrices(weight, shape[0]), weight.shape[-4]
    cells = []
    for n in range(batch):
        pixels = features[n].movedim(1, -1).reshape(-1, channels)
        table = pixels @ matrices[n if len(matrices) > 1 else 0]
        table = table if table.dtype == torch.float64 else table.float()
        cells.append(maps[n if len(maps) > 1 else 0](table.view(-1, outputs)))
    return torch.stack(cells).unflatten(1, shape[1:]).movedim(-1, 1)


def table_matrices(weight: Tensor, levels: int) -> Tensor:
    """((B,) O, C * levels, K, K) to what makes a pixel's rows, (B or 1, C, levels * K^2 * O)."""
    outputs, inputs = weight.shape[-4:-2]
    weight = weight.reshape(-1, outputs, inputs // levels, levels * weight.shape[-1]**2)
    return weight.permute(0, 2, 3, 1).flatten(2)


def pull_occupied_fused(features: Tensor, weight: Tensor, pull: PullMap,
                            occupied: Sequence[Tensor], shape: Tuple[int, int, int],
                            wrap: bool = False, padding_mode: str = 'zeros') -> Tensor:
    """``F.conv2d(pull_occupied(features, ...), weight, padding=K // 2)`` at the occupied voxels.

    Each occupied voxel adds its feature times a tap's matrix to the cells under the kernel. Their
    number decides on the sizes, so a GPU would wait for it: this order is meant for CPUs.

    Args:
        features (Tensor): (B, N, C, h, w).
        weight (Tensor): (O, C * levels, K, K).
        pull (PullMap): Of the same rig and grid.
        occupied (list[Tensor]): Per sample the (M,) flat voxel indices, sorted.
        shape (tuple): (levels, rows, columns).
        wrap, padding_mode: See :func:`.pooling.sample_features`.

    Returns:
        Tensor: (B, O, rows, columns), channels last in memory.
    """
    levels, rows, cols = shape
    matrices = table_matrices(weight, levels)[0].chunk(levels, 1)
    outputs, size = weight.shape[0], weight.shape[-1]
    width, half = cols + size - 1, size // 2
    # A voxel at (row, column) reaches cell (row - i + half, column - j + half) through tap (i, j);
    # the plane has a border of half a kernel.
    reach = (size - 1) * (width + 1) - torch.tensor(
        [i * width + j for i in range(size) for j in range(size)], device=features.device)
    planes = []
    for sample, index in enumerate(occupied):
        geometry = min(sample, len(pull.position) - 1)
        values = pull_dense(features[sample:sample + 1], pull.at(geometry, index),
                            (1, 1, len(index)), wrap, padding_mode)[0, :, 0].T
        level = index // (rows * cols)
        cell = index // cols % rows * width + index % cols
        counts = torch.bincount(level, minlength=levels).tolist()
        plane = torch.zeros((rows + size - 1) * width, outputs, device=values.device,
                            dtype=torch.promote_types(values.dtype, torch.float32))
        for matrix, value, start in zip(matrices, values.split(counts), cell.split(counts)):
            added = (value @ matrix).view(-1, outputs)
            plane = plane.index_add(0, (start[:, None] + reach).flatten(), added.to(plane.dtype))
        planes.append(plane.view(-1, width, outputs)[half:half + rows, half:half + cols])
    return torch.stack(planes).movedim(-1, 1)
