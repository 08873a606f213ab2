"""The BEV grid: metric ranges, cell size and orientation, and every index conversion."""
from dataclasses import asdict, dataclass, replace
from typing import Optional, Tuple, Union

import numpy as np
import torch
from torch import Tensor

Array = Union[np.ndarray, Tensor]

_AXES = {'x': 0, 'y': 1, 'z': 2}


def _parse_axis(name: str, value: str, allowed: str) -> Tuple[int, bool]:
    """``'-x'`` -> (0, True): which LiDAR axis an index follows and whether it runs against it."""
    if len(value) != 2 or value[0] not in '+-' or value[1] not in allowed:
        options = ', '.join(f"'{s}{a}'" for a in allowed for s in '+-')
        raise ValueError(f'BEVGrid.{name}: expected one of {options}, got {value!r}')
    return _AXES[value[1]], value[0] == '-'


def _num_cells(name: str, bounds: Tuple[float, float], resolution: float) -> int:
    span = bounds[1] - bounds[0]
    count = round(span / resolution)
    if count < 1 or abs(count * resolution - span) > 1e-6 * max(abs(span), 1.0):
        raise ValueError(
            f'BEVGrid.{name}: the range {tuple(bounds)} m is not a positive whole number of '
            f'{resolution} m cells; change the range or the resolution')
    return count


@dataclass(frozen=True)
class BEVGrid:
    """A bird's-eye-view grid in the LiDAR frame (x forward, y left, z up; metres).

    The orientation belongs to the grid: ``rows``, ``cols`` and ``levels`` name the LiDAR axis that
    the index follows, with its sign. KD360-VoxelBEV uses ``rows='-x', cols='-y'`` (ahead is up,
    left is left), mmdet3d's detectors ``rows='+y', cols='+x'``, BEVFusion ``rows='+x',
    cols='+y'``.

    Convention:
        - Continuous pixels are measured in cells from the grid's first edge: cell ``i`` spans
          ``[i, i + 1)`` and its centre is ``i + 0.5``.
        - A point exactly on the border of two cells belongs to the one further along the
          *positive* LiDAR axis, whatever the orientation; points on the outer border belong to
          the outermost cell (KD360's voxelisation, both ends inclusive).
        - Index order is (level, row, column).

    Args:
        x_range (tuple): Lower and upper x, metres.
        y_range (tuple): Lower and upper y, metres.
        resolution (float): Side of the square cells, metres.
        rows (str): Axis followed by the row index, ``'±x'`` or ``'±y'``.
        cols (str): Axis followed by the column index; the other one of x and y.
        z_range (tuple, optional): Lower and upper z of a voxel grid, metres.
        num_levels (int, optional): Number of height levels of a voxel grid.
        levels (str): Axis followed by the level index, ``'+z'`` (level 0 lowest) or ``'-z'``.
        forward_axis (str): Axis that points ahead of the car; ``'+y'`` in nuScenes' LiDAR frame.
            Only images ask for it.

    Raises:
        ValueError: A range is not a whole number of cells, or an axis name is unknown.

    Example:
        >>> grid = BEVGrid((-50, 50), (-50, 50), 0.5)
        >>> grid.shape
        (200, 200)
        >>> grid.to_pixel(np.array([10.0, 5.0]))
        array([80., 90.])
    """
    x_range: Tuple[float, float] = (-50.0, 50.0)
    y_range: Tuple[float, float] = (-50.0, 50.0)
    resolution: float = 0.5
    rows: str = '-x'
    cols: str = '-y'
    z_range: Optional[Tuple[float, float]] = None
    num_levels: Optional[int] = None
    levels: str = '+z'
    forward_axis: str = '+x'

    def __post_init__(self):
        for name in ('x_range', 'y_range', 'z_range'):
            bounds = getattr(self, name)
            if bounds is not None:
                object.__setattr__(self, name, (float(bounds[0]), float(bounds[1])))
        row_axis, _ = _parse_axis('rows', self.rows, 'xy')
        col_axis, _ = _parse_axis('cols', self.cols, 'xy')
        _parse_axis('levels', self.levels, 'z')
        _parse_axis('forward_axis', self.forward_axis, 'xy')
        if row_axis == col_axis:
            raise ValueError(f'BEVGrid: rows={self.rows!r} and cols={self.cols!r} follow one axis')
        for name in ('x_range', 'y_range'):
            _num_cells(name, getattr(self, name), self.resolution)
        if (self.z_range is None) != (self.num_levels is None):
            raise ValueError('BEVGrid: z_range and num_levels belong together; give both or none')

    # Sizes -------------------------------------------------------------------------------------

    @property
    def shape(self) -> Tuple[int, int]:
        """(rows, columns)."""
        return tuple(_num_cells(name, bounds, self.resolution)
                     for name, bounds in (('rows', self._bounds(self.rows)),
                                          ('cols', self._bounds(self.cols))))

    @property
    def level_height(self) -> float:
        """Height of one level, metres."""
        self._need_levels()
        return (self.z_range[1] - self.z_range[0]) / self.num_levels

    def with_levels(self, z_range: Tuple[float, float], num_levels: int,
                    levels: str = '+z') -> 'BEVGrid':
        """The same BEV grid extended to a voxel grid."""
        return replace(self, z_range=z_range, num_levels=num_levels, levels=levels)

    def asdict(self) -> dict:
        """The plain dict that a config writes; ``BEVGrid(**grid.asdict()) == grid``."""
        return asdict(self)

    def same_bev(self, other: 'BEVGrid') -> bool:
        """Whether both grids have the same cells seen from above."""
        keys = ('x_range', 'y_range', 'resolution', 'rows', 'cols')
        return all(getattr(self, key) == getattr(other, key) for key in keys)

    def top_down(self) -> 'BEVGrid':
        """The same cells as a driver's map shows them: ahead is up, left is left."""
        rows, cols = {'+x': ('-x', '-y'), '-x': ('+x', '+y'), '+y': ('-y', '+x'),
                      '-y': ('+y', '-x')}[self.forward_axis]
        return replace(self, rows=rows, cols=cols, z_range=None, num_levels=None)

    # Continuous conversions --------------------------------------------------------------------

    def to_pixel(self, xy: Array) -> Array:
        """Metric (..., 2) x, y to continuous (..., 2) row, column, in cells from the first edge."""
        return _stack([self._along(xy[..., _AXES[axis[1]]], axis) for axis in
                       (self.rows, self.cols)])

    def from_pixel(self, pixel: Array) -> Array:
        """Exact reverse of :meth:`to_pixel`: (..., 2) row, column to (..., 2) x, y in metres."""
        values = {}
        for k, axis in enumerate((self.rows, self.cols)):
            low, high = self._bounds(axis)
            step = pixel[..., k] * self.resolution
            values[axis[1]] = high - step if axis[0] == '-' else low + step
        return _stack([values['x'], values['y']])

    # Indices -----------------------------------------------------------------------------------

    def to_index(self, xyz: Tensor, rounding: str = 'floor') -> Tuple[Tensor, Tensor]:
        """Cell of each point.

        Args:
            xyz (Tensor): (..., 2 or 3) points in the LiDAR frame, metres; three coordinates for a
                voxel grid.
            rounding (str): ``'floor'``, or ``'trunc'`` for the releases that cast to integers,
                which sends the cell below the range to index 0.

        Returns:
            tuple: ``index`` (..., 2 or 3) int64 in the order (level,) row, column, clamped to the
            grid, and ``inside`` (...,) bool, both ends of each range inclusive.

        Raises:
            ValueError: ``rounding`` is unknown, or there is no height to index.
        """
        if rounding not in ('floor', 'trunc'):
            raise ValueError(f"rounding: expected 'floor' or 'trunc', got {rounding!r}")
        axes = [(axis, count, self.resolution)
                for axis, count in zip((self.rows, self.cols), self.shape)]
        if xyz.shape[-1] == 3:
            self._need_levels()
            axes.insert(0, (self.levels, self.num_levels, self.level_height))
        index, inside = [], torch.ones(xyz.shape[:-1], dtype=torch.bool, device=xyz.device)
        for axis, count, step in axes:
            low, high = self._bounds(axis)
            value = xyz[..., _AXES[axis[1]]]
            cells = (value - low) / step
            if rounding == 'trunc':
                inside = inside & (cells > -1) & (cells < count)
                cell = cells.trunc()
            else:
                inside = inside & (value >= low) & (value <= high)
                cell = cells.floor()
            cell = cell.clamp(0, count - 1).long()
            index.append(count - 1 - cell if axis[0] == '-' else cell)
        return torch.stack(index, -1), inside

    def centers_2d(self) -> Tensor:
        """(rows, columns, 2) x, y of the cell centres, float64 metres."""
        rows, cols = self.shape
        pixel = torch.stack(torch.meshgrid(
            torch.arange(rows, dtype=torch.float64) + 0.5,
            torch.arange(cols, dtype=torch.float64) + 0.5, indexing='ij'), -1)
        return self.from_pixel(pixel)

    def centers(self) -> Tensor:
        """(levels, rows, columns, 3) x, y, z of the voxel centres, float64 metres."""
        self._need_levels()
        xy = self.centers_2d()
        z = self.z_range[0] + (torch.arange(self.num_levels, dtype=torch.float64) + 0.5
                               ) * self.level_height
        if self.levels[0] == '-':
            z = z.flip(0)
        shape = (self.num_levels, *self.shape)
        return torch.cat([xy.expand(*shape, 2), z[:, None, None, None].expand(*shape, 1)], -1)

    def window(self, side: float) -> Tuple[slice, slice]:
        """Row and column slices of the square of ``side`` metres around the LiDAR's origin.

        Raises:
            ValueError: The square's border is not on a cell border or leaves the grid.
        """
        slices = []
        for axis, count in zip((self.rows, self.cols), self.shape):
            ends = sorted(float(self._along(np.float64(v), axis)) for v in (-side / 2, side / 2))
            start, stop = (round(v) for v in ends)
            if max(abs(start - ends[0]), abs(stop - ends[1])) > 1e-6 or start < 0 or stop > count:
                raise ValueError(
                    f'window of {side} m: its border is at cells {ends} of axis {axis}, which has '
                    f'{count} cells; choose a side that the {self.resolution} m grid can cut')
            slices.append(slice(start, stop))
        return tuple(slices)

    # Helpers -----------------------------------------------------------------------------------

    def _bounds(self, axis: str) -> Tuple[float, float]:
        return getattr(self, f'{axis[1]}_range')

    def _along(self, value: Array, axis: str) -> Array:
        low, high = self._bounds(axis)
        return (high - value if axis[0] == '-' else value - low) / self.resolution

    def _need_levels(self):
        if self.z_range is None:
            raise ValueError('this BEVGrid has no height; call grid.with_levels(z_range, levels)')


def _stack(parts) -> Array:
    return torch.stack(parts, -1) if isinstance(parts[0], Tensor) else np.stack(parts, -1)
