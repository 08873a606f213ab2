"""View transforms of a deployed student, with the layer after them.

For each there are up to four forms with one result:

* ``embedding_bag``: constant geometry and weighted sums of rows, which torch and OpenVINO have;
* ``block_dense``: the same sums as products of dense matrices, which ONNX has;
* ``grid_sample``: features sampled at constant positions, by operators that ONNX has;
* ``dynamic_calibration``: the geometry is computed from inputs, by operators that ONNX has.

All take features (B, N, C, h, w) and return the BEV map (B, C', rows, columns); the calibrated ones
also take ``lidar2cam`` (N, 4, 4), ``lens`` (N, P) and ``img_aug`` (N, 3, 3), see
:class:`CameraRig`.
"""
from dataclasses import replace
from typing import Iterator, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..geometry import CameraRig, PullMap, build_reordered_maps, pull_dense
from ..geometry.lifting import LiftMap, cells_of_pairs
from ..geometry.pooling import locate
from ..geometry.reordered import CSRMatrix, table_matrices
from ..models import CameraBranch, HeightCompressor, LiftSplat, VoxelPulling

CALIBRATION = ('lidar2cam', 'lens', 'img_aug')
"""Names of the inputs of the form ``dynamic_calibration``."""
_CHUNK = 2**24  # values of the largest intermediate table


def build_view(branch: CameraBranch, rig: CameraRig, size: Tuple[int, int], form: str) -> nn.Module:
    """The view transform of a camera branch and the layer after it.

    Args:
        branch: Whose parts are used.
        rig: Of one geometry.
        size: (h, w) of the features.
        form: ``'embedding_bag'``, ``'block_dense'``, ``'grid_sample'`` or
            ``'dynamic_calibration'``.

    Raises:
        UserError: This view transform cannot be deployed.
    """
    kind = type(branch.view_transform)
    if kind not in _FORMS or getattr(branch.view_transform, 'occupied', False):
        raise UserError(f'{kind.__name__}: a view transform that cannot be deployed; known: '
                        f'{", ".join(k.__name__ for k in _FORMS)}, without LiDAR points')
    chosen = _FORMS[kind][form]
    if issubclass(chosen, _Reordered) and not isinstance(
            branch.view_transform.compressor, HeightCompressor):
        chosen = GridSamplePull
    return chosen(branch, rig, size)


class GridSamplePull(nn.Module):
    """Voxels sampled at constant positions, then compressed."""

    def __init__(self, branch, rig, size):
        super().__init__()
        view = branch.view_transform
        self.compressor = view.compressor
        self.shape, self.style = (view.grid.num_levels, *view.grid.shape), view.sampling(rig)
        pull = view.pull_map(rig)
        self.register_buffer('position', pull.position)
        self.register_buffer('seen', pull.seen)

    def forward(self, features: Tensor) -> Tensor:
        pull = PullMap(self.position, self.seen)
        return self.compressor(pull_dense(features, pull, self.shape, **self.style))


class DynamicPull(nn.Module):
    """Voxels projected by the calibration, sampled there, then compressed."""

    def __init__(self, branch, rig, size):
        super().__init__()
        view, self.rig = branch.view_transform, rig
        self.compressor = view.compressor
        self.shape, self.style = (view.grid.num_levels, *view.grid.shape), view.sampling(rig)
        self.bounds = view.border == 'clamp'
        self.register_buffer('points', view.grid.centers().reshape(-1, 3).to(rig.lidar2cam))

    def forward(self, features: Tensor, *calibration: Tensor) -> Tensor:
        position, seen = locate(self.points, with_calibration(self.rig, calibration), self.bounds)
        pull = PullMap(position, seen.to(position.dtype))
        return self.compressor(pull_dense(features, pull, self.shape, **self.style))


class _Reordered(nn.Module):
    """The compressor's matrices on the features, then constant sums: see ``pull_fused``."""

    def __init__(self, branch, rig, size):
        super().__init__()
        view = branch.view_transform
        self.compressor = view.compressor
        levels, self.shape = view.grid.num_levels, view.grid.shape
        weight = self.compressor.conv.weight.detach()
        self.outputs, kernel_size = weight.shape[0], weight.shape[-1]
        rows, = build_reordered_maps(view.pull_map(rig), (levels, *self.shape), size, kernel_size,
                                    **view.sampling(rig))
        self.keep(rows)
        self.register_buffer('matrix', table_matrices(weight, levels)[0].contiguous())
        del self.compressor.conv  # what follows it is left

    def forward(self, features: Tensor) -> Tensor:
        pixels = features.movedim(2, -1).flatten(1, 3)
        table = (pixels @ self.matrix).unflatten(2, (-1, self.outputs)).flatten(1, 2)
        cells = self.sum(table.float())
        return self.compressor.norm_act(cells.transpose(1, 2).unflatten(2, self.shape))

    def keep(self, rows: CSRMatrix) -> None:
        """Register the sums as buffers."""
        raise NotImplementedError

    def sum(self, table: Tensor) -> Tensor:
        """(B, rows, O) to (B, cells, O)."""
        raise NotImplementedError


class EmbeddingBagPull(_Reordered):
    """One ``embedding_bag``: cells sum rows, the samples of a batch are columns of one table."""

    def keep(self, rows):
        self.register_buffer('index', F.pad(rows.index, (0, 1)))
        self.register_buffer('weight', F.pad(rows.weight, (0, 1)))
        self.register_buffer('start', rows.start[:-1])

    def sum(self, table):
        cells = F.embedding_bag(self.index, table.movedim(0, 1).flatten(1), self.start, mode='sum',
                                per_sample_weights=self.weight)
        return cells.unflatten(1, (-1, self.outputs)).transpose(0, 1)


class BlockDensePull(_Reordered):
    """Neighbouring cells read nearly the same rows, so a block of cells is one matrix product."""

    def keep(self, rows):
        groups, place = dense_blocks(rows, self.shape, self.outputs)
        self.groups = len(groups)
        for n, (row, weight) in enumerate(groups):
            self.register_buffer(f'row_{n}', row)
            self.register_buffer(f'weight_{n}', weight)
        self.register_buffer('place', place)

    def sum(self, table):
        sums = [(getattr(self, f'weight_{n}') @ table[:, getattr(self, f'row_{n}')]).flatten(1, 2)
                for n in range(self.groups)]
        return F.pad(torch.cat(sums, 1), (0, 0, 0, 1))[:, self.place]


class _Lift(nn.Module):
    """Context and depths of the features, pooled by ``pool``, then the layer after it."""

    def __init__(self, branch, rig, size):
        super().__init__()
        self.view, self.rig = branch.view_transform, rig
        if self.view.refine is not None:
            raise UserError('view_transform.refine: depth refinement is not deployed')
        self.compressor = self.view.compressor
        self.grid = self.view.grid

    def forward(self, features: Tensor, *calibration: Tensor) -> Tensor:
        return self.to_map(*self.predict(features, *calibration), *calibration)

    def predict(self, features: Tensor, *calibration: Tensor) -> Tuple[Tensor, Tensor]:
        """Context (B, N, C, h, w) and probabilities of the depths (B, N, D, h, w)."""
        rig = with_calibration(self.rig, calibration) if calibration else self.rig
        return self.view.predict(features, rig)

    def to_map(self, context: Tensor, depth: Tensor, *calibration: Tensor) -> Tensor:
        """The BEV map of what was predicted."""
        pixels = context.movedim(2, -1).flatten(1, 3)
        cells = self.pool(pixels, depth, *calibration)
        bev = cells.transpose(1, 2).unflatten(2, (self.grid.num_levels, *self.grid.shape))
        bev = bev.flatten(1, 2)
        return bev if self.compressor is None else self.compressor(bev)

    def pool(self, pixels: Tensor, depth: Tensor, *calibration: Tensor) -> Tensor:
        """(B, N * h * w, C) context and (B, N, D, h, w) probabilities to (B, cells, C)."""
        raise NotImplementedError


class EmbeddingBagLift(_Lift):
    """One ``embedding_bag``: cells sum pixels, weighted by their depths' probabilities."""

    def __init__(self, branch, rig, size):
        super().__init__(branch, rig, size)
        lift, = self.view.lift_maps(rig, size)
        self.register_buffer('pair', lift.pair)
        self.register_buffer('pixel', F.pad(lift.pixel, (0, 1)))
        self.register_buffer('start', lift.start[:-1])

    def pool(self, pixels: Tensor, depth: Tensor) -> Tensor:
        batch, area, _ = pixels.shape
        sample = torch.arange(batch, device=pixels.device)[:, None]
        weight = F.pad(depth.flatten(1)[:, self.pair], (0, 1))
        index, start = self.pixel + sample * area, self.start + sample * len(self.pixel)
        cells = F.embedding_bag(index.flatten(), pixels.flatten(0, 1).float(), start.flatten(),
                                mode='sum', per_sample_weights=weight.flatten().float())
        return cells.unflatten(0, (-1, len(self.start)))


class PaddedLift(_Lift):
    """Cells of a similar number of pairs are pooled together, filled up with pairs of weight 0."""

    def __init__(self, branch, rig, size):
        super().__init__(branch, rig, size)
        lift, = self.view.lift_maps(rig, size)
        groups, place = padded_bags(lift, self.view.channels)
        self.groups = len(groups)
        for n, (pixel, pair) in enumerate(groups):
            self.register_buffer(f'pixel_{n}', pixel)
            self.register_buffer(f'pair_{n}', pair)
        self.register_buffer('place', place)

    def pool(self, pixels: Tensor, depth: Tensor) -> Tensor:
        weights = F.pad(depth.flatten(1), (0, 1))
        sums = []
        for n in range(self.groups):
            weight = weights[:, getattr(self, f'pair_{n}')]
            rows = pixels[:, getattr(self, f'pixel_{n}')]
            sums.append((weight[:, :, None] @ rows)[:, :, 0])
        return F.pad(torch.cat(sums, 1), (0, 0, 0, 1))[:, self.place]


class DynamicLift(_Lift):
    """Cells of the pairs from the calibration, and a sum by scattering, a few depths at a time."""

    def __init__(self, branch, rig, size):
        super().__init__(branch, rig, size)
        self.size = size

    def pool(self, pixels: Tensor, depth: Tensor, *calibration: Tensor) -> Tensor:
        view, (batch, area, channels) = self.view, pixels.shape
        rig = with_calibration(self.rig, calibration)
        cell = cells_of_pairs(self.grid, rig, self.size, view.depths, view.rounding, view.pixel)
        views, depths = self.rig.lidar2cam.shape[1], len(view.depths)
        cell = cell.unflatten(0, (views, depths, -1)).transpose(0, 1).flatten(1)  # (D, N * h * w)
        weight = depth.flatten(3).permute(2, 1, 3, 0).flatten(1, 2)  # (D, N * h * w, B)
        rows = pixels.transpose(0, 1)
        count = self.grid.num_levels * self.grid.shape[0] * self.grid.shape[1]
        cells = pixels.new_zeros(count + 1, batch, channels)
        for some, shares in zip(*(x.split(max(1, _CHUNK // (area * channels)))
                                  for x in (cell, weight))):
            lifted = (shares[..., None] * rows).flatten(0, 1)
            cells = cells.index_add(0, some.flatten(), lifted)
        return cells[:-1].transpose(0, 1)


_FORMS = {
    VoxelPulling: dict(embedding_bag=EmbeddingBagPull, block_dense=BlockDensePull,
                       grid_sample=GridSamplePull, dynamic_calibration=DynamicPull),
    LiftSplat: dict(embedding_bag=EmbeddingBagLift, block_dense=PaddedLift,
                    grid_sample=PaddedLift, dynamic_calibration=DynamicLift)}


def with_calibration(rig: CameraRig, calibration: Tuple[Tensor, ...]) -> CameraRig:
    """The rig with another calibration: ``lidar2cam``, ``lens`` and ``img_aug`` of its views."""
    lidar2cam, lens, img_aug = (values[None] for values in calibration)
    return replace(rig, lidar2cam=lidar2cam, params=lens, img_aug=img_aug, fingerprint=())


def padded_bags(lift: LiftMap, channels: int) -> Tuple[List[Tuple[Tensor, Tensor]], Tensor]:
    """Cells with pairs, in groups of about equally many, which bound what is held at a time.

    Args:
        lift: The pairs of each cell.
        channels: Of a pixel.

    Returns:
        tuple: groups of pixel and pair (cells, K) int64 each, filled up with pixel 0 and the pair
        after the last one, ``-1``; and where each cell is among those of all groups, (cells,),
        for cells without a pair the number of those.
    """
    counts = lift.start.diff()
    order = counts.argsort(stable=True)
    order = order[counts[order] > 0]
    place = counts.new_full((len(counts), ), len(order))
    place[order] = torch.arange(len(order), device=order.device)
    groups = []
    for first, last, size in _alike(counts[order].tolist(), channels):
        slot = torch.arange(size, device=order.device)
        entry = lift.start[order[first:last], None] + slot
        filled = slot < counts[order[first:last], None]
        entry = entry.clamp_max(len(lift.pair) - 1)
        groups.append((torch.where(filled, lift.pixel[entry], 0),
                       torch.where(filled, lift.pair[entry], -1)))
    return groups, place


def _alike(sizes: List[int], channels: int) -> Iterator[Tuple[int, int, int]]:
    """First, last and largest of groups of growing sizes that differ by a fifth at most."""
    first = 0
    while first < len(sizes):
        last = first
        while last < len(sizes) and sizes[last] <= 1.2 * sizes[first] + 1 and (
                (last - first + 1) * sizes[last] * channels <= _CHUNK or last == first):
            last += 1
        yield first, last, sizes[last - 1]
        first = last


def dense_blocks(rows: CSRMatrix, shape: Tuple[int, int], channels: int, side: int = 8
                 ) -> Tuple[List[Tuple[Tensor, Tensor]], Tensor]:
    """A sparse matrix as dense blocks: ``side`` x ``side`` cells and all rows that they read.

    Args:
        rows: Of the cells of a plane.
        shape: Of the plane, (rows, columns).
        channels: Of a row of the table.
        side: Of a block, cells.

    Returns:
        tuple: groups of rows (T, K) int64 and weights (T, side^2, K), filled up with row 0 and
        weight 0; and where each cell is among those of all groups, (cells,), for cells of a block
        without rows the number of those.
    """
    device = rows.index.device
    cells = torch.arange(shape[0] * shape[1], device=device)
    row, col = cells // shape[1], cells % shape[1]
    block_of = row // side * -(-shape[1] // side) + col // side
    local_of = row % side * side + col % side
    cell = cells.repeat_interleave(rows.start.diff())
    read, entry = torch.unique(block_of[cell] * rows.num_rows + rows.index, return_inverse=True)
    counts = torch.bincount(read // rows.num_rows, minlength=int(block_of.max()) + 1)
    rank = entry - (counts.cumsum(0) - counts)[block_of[cell]]
    order = counts.argsort(stable=True)
    order = order[counts[order] > 0]
    position = counts.new_full((len(counts), ), len(order))
    position[order] = torch.arange(len(order), device=device)
    place = torch.where(position[block_of] < len(order), position[block_of] * side**2 + local_of,
                        len(order) * side**2)
    groups, at = [], position[block_of[cell]]
    for first, last, size in _alike(counts[order].tolist(), channels):
        chosen = (at >= first) & (at < last)
        where = at[chosen] - first, local_of[cell[chosen]], rank[chosen]
        index = torch.zeros(last - first, size, dtype=torch.long, device=device)
        index[where[0], where[2]] = rows.index[chosen].long()
        weight = torch.zeros(last - first, side**2, size, device=device)
        groups.append((index, weight.index_put(where, rows.weight[chosen], accumulate=True)))
    return groups, place
