"""Areas and lines of a map -> masks on the BEV grid."""
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Sequence

import numpy as np

from .bev_grid import BEVGrid

METHODS = ('exact', 'devkit')
_LINE, _POLYGON = 1, 3  # shapely's type ids


@dataclass(frozen=True)
class MapLayer:
    """Areas or lines of a map, with a spatial index.

    Args:
        shapes: (N,) shapely polygons or line strings in the order of the file; metres.
        lines: whether they are lines.
        keep_invalid: whether the devkit draws areas whose outlines cross themselves.
    """
    shapes: np.ndarray
    lines: bool = False
    keep_invalid: bool = False

    @cached_property
    def tree(self):
        """Index of the shapes' bounds."""
        from shapely import STRtree
        return STRtree(self.shapes)

    @cached_property
    def valid(self) -> np.ndarray:
        """(N,) bool."""
        from shapely import is_valid
        return is_valid(self.shapes)

    @cached_property
    def edges(self):
        """Edges of the shapes, one shape after the other.

        Returns:
            tuple: (E, 2, 2) float64 (end, xy), and (N + 1,) number of each shape's first edge.
            Areas are on the left of their edges; invalid ones are repaired.
        """
        import shapely
        shapes, owner = self.shapes, np.arange(len(self.shapes))
        if not self.lines:
            repaired = shapely.make_valid(shapes[~self.valid])
            shapes = np.array(shapes)
            shapes[~self.valid] = repaired
            shapes, owner = _parts(shapes, _POLYGON)
            shapes, polygon = shapely.get_rings(shapes, return_index=True)
            hole = np.diff(polygon, prepend=-1) == 0
            turned = shapely.is_ccw(shapes) == hole
            shapes[turned] = shapely.reverse(shapes[turned])
            owner = owner[polygon]
        points, part = shapely.get_coordinates(shapes, return_index=True)
        joined = part[1:] == part[:-1]
        edges = np.stack([points[:-1], points[1:]], 1)[joined]
        first = np.searchsorted(owner[part[:-1][joined]], np.arange(len(self.shapes) + 1))
        return edges, first

    def prepare(self):
        """Compute what queries need, so that processes forked later share it."""
        return self.tree, self.valid, self.edges

    def near(self, low, high) -> np.ndarray:
        """Numbers, ascending, of the shapes whose bounds meet those of (2,) ``low``, ``high``."""
        from shapely import box
        return np.sort(self.tree.query(box(*low, *high)))


def rasterize_map(classes: Sequence[Sequence[MapLayer]], frame2map, grid: BEVGrid,
                  method: str = 'exact', line_width: float = 1.0, bev_aug=None,
                  scale_aware: bool = True) -> np.ndarray:
    """Draw classes of a map on the BEV grid; they may overlap.

    The grid lies flat on the map: place and heading of the frame count, roll and pitch do not.

    Convention of ``'exact'``: a cell belongs to an area when its centre lies in it, and to a line
    when its centre is at most half the line's width away.

    Convention of ``'devkit'``: bit-equal to nuscenes-devkit's ``get_map_mask``, called as BEVFusion
    does. Corners of areas are rounded to whole cells, outlines belong to them; corners of lines are
    truncated, and OpenCV draws lines two cells wide (three along an axis). The patch's edge is the
    middle of the first cell: a square of 20 m covers 41 cells of 0.5 m. Of ``bev_aug``, flips are
    flips of the mask; a turn by more than 90 degrees is a smaller one and two flips. What makes the
    devkit fail (a line that enters the patch twice, under shapely 2; an area that touches the
    patch in a line) is drawn as far as it can be.

    Args:
        classes: layers of each class.
        frame2map: (4, 4) LiDAR frame before augmentation to map.
        grid: the BEV grid.
        method: 'exact' or 'devkit'.
        line_width: of 'exact', metres on the map.
        bev_aug: (4, 4) turn, flip, uniform scale and shift of the LiDAR frame.
        scale_aware: False leaves the scale of ``bev_aug`` out, as BEVFusion does although its
            features have it: at 50 m and a scale of 1.1 they are 5 m apart.

    Returns:
        (K, R, C) float32 {0, 1}.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be 'exact' or 'devkit', got {method!r}")
    motion = np.eye(4) if bev_aug is None else np.array(bev_aug, np.float64)
    scale = math.sqrt(abs(np.linalg.det(motion[:2, :2])))
    if not scale_aware:
        motion[:3] /= scale
        scale = 1.0
    to_map = np.asarray(frame2map, np.float64) @ np.linalg.inv(motion)
    if method == 'exact':
        canvas = _Exact(to_map, scale, grid, line_width)
    else:
        canvas = _Devkit(to_map, scale, grid, _flips(motion))
    out = np.zeros((len(classes), *grid.shape), np.float32)
    for mask, layers in zip(out, classes):
        for layer in layers:
            mask[canvas.draw(layer)] = 1
    return out


def _flips(motion):
    """Signs of x and y that leave a turn by at most 90 degrees of a motion."""
    x = -1 if motion[0, 0] < 0 else 1
    return x, x if np.linalg.det(motion[:2, :2]) > 0 else -x


def _heading(to_map):
    return float(np.arctan2(to_map[1, 0], to_map[0, 0]))  # math's differs in the last bit


def _parts(shapes, kind):
    """The parts of one type that shapes are made of, and the numbers of these shapes."""
    import shapely
    owner = np.arange(len(shapes))
    for _ in range(2):  # collections hold multi-polygons
        shapes, of = shapely.get_parts(shapes, return_index=True)
        owner = owner[of]
    chosen = shapely.get_type_id(shapes) == kind
    return shapes[chosen], owner[chosen]


# Cell centres ---------------------------------------------------------------------------------


class _Exact:
    """Draws by cell centres.

    Args:
        to_map: (4, 4) augmented frame to map.
        scale: metres of the augmented frame per metre.
        grid: the BEV grid.
        line_width: metres.
    """

    def __init__(self, to_map, scale, grid, line_width):
        cos, sin = math.cos(_heading(to_map)), math.sin(_heading(to_map))
        side = math.copysign(1, np.linalg.det(to_map[:2, :2]))
        self.axes = np.array([[cos, -sin * side], [sin, cos * side]])
        self.origin, self.scale, self.grid = to_map[:2, 3], scale, grid
        self.half_line = line_width / 2
        corners = np.stack(np.meshgrid(grid.x_range, grid.y_range), -1).reshape(4, 2)
        corners = self.origin + corners @ self.axes.T / scale
        self.low, self.high = corners.min(0) - line_width, corners.max(0) + line_width

    def draw(self, layer):
        """(R, C) bool mask of a layer."""
        chosen = layer.near(self.low, self.high)
        if not len(chosen):
            return np.zeros(self.grid.shape, bool)
        edges, first = layer.edges
        edges = np.concatenate([edges[first[n]:first[n + 1]] for n in chosen]) - self.origin
        local = (edges[..., :1] * self.axes[0] + edges[..., 1:] * self.axes[1]) * self.scale
        ends = self.grid.to_pixel(local) - 0.5  # whole numbers are cell centres
        if layer.lines:
            half_width = self.half_line * self.scale / self.grid.resolution
            return _stroke(ends, half_width, self.grid.shape)
        return _fill(ends, self.grid.shape)


def _fill(ends, shape):
    """Cells whose centres are inside polygons with consistent orientation.

    Args:
        ends: (E, 2, 2) (end, (row, col)) of the edges; whole numbers are cell centres.
        shape: (rows, cols).

    Returns:
        (rows, cols) bool: the winding number is not 0.
    """
    edge, row = _rows(ends[..., 0].min(1), ends[..., 0].max(1), shape[0])
    (row0, col0), (row1, col1) = ends[edge].transpose(1, 2, 0)
    col = col0 + (row - row0) * (col1 - col0) / (row1 - row0)
    return _covered(row, col, np.where(row1 > row0, 1, -1), shape) != 0


def _stroke(ends, half, shape):
    """Cells whose centres are at most ``half`` cells from a segment; arguments as of _fill."""
    top, bottom = ends[..., 0].min(1) - half, ends[..., 0].max(1) + half
    edge, row = _rows(top, np.nextafter(bottom, np.inf), shape[0])
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)

    def widen(inside, low, high):
        np.minimum(left, low, out=left, where=inside)
        np.maximum(right, high, out=right, where=inside)

    start, end = ends[edge].transpose(1, 0, 2)
    for at, col in (start.T, end.T):  # a disc round each end
        reach = half ** 2 - (row - at) ** 2
        width = np.sqrt(reach.clip(0))
        widen(reach >= 0, col - width, col + width)
    way = end - start
    length = np.hypot(*way.T)
    normal = half * np.stack([-way[:, 1], way[:, 0]], -1) / np.where(length, length, 1)[:, None]
    for side in (-normal, normal):  # the sides of the strip between them
        share = (row - (start + side)[:, 0]) / np.where(way[:, 0], way[:, 0], np.inf)
        col = (start + side)[:, 1] + share * way[:, 1]
        widen((share >= 0) & (share <= 1) & (way[:, 0] != 0), col, col)
    row, left, right = (values[left <= right] for values in (row, left, right))
    starts = _covered(row, left, 1, shape)
    return starts > _covered(row, np.nextafter(right, np.inf), 1, shape)


def _rows(top, bottom, count):
    """Pairs of a span's number and a whole row in [top, bottom) of it and in [0, count)."""
    first, last = (np.ceil(v).clip(0, count).astype(np.int64) for v in (top, bottom))
    span = np.repeat(np.arange(len(first)), last - first)
    start = np.cumsum(last - first) - (last - first)
    return span, np.arange(len(span)) - start[span] + first[span]


def _covered(row, col, weight, shape):
    """(rows, cols) int64 sum of the weights of the crossings at or left of each cell's centre."""
    col = np.ceil(col).clip(0, shape[1]).astype(np.int64)
    weight = np.broadcast_to(weight, row.shape)
    sums = np.bincount(row * (shape[1] + 1) + col, weight, shape[0] * (shape[1] + 1))
    return sums.reshape(shape[0], -1)[:, :-1].cumsum(1).round().astype(np.int64)


# The devkit -----------------------------------------------------------------------------------


class _Devkit:
    """Draws as nuscenes-devkit, whose order of operations matters to the last bit.

    Args:
        to_map, scale, grid: as of _Exact.
        flips: signs of x and y with which the mask is made.
    """

    def __init__(self, to_map, scale, grid, flips):
        from shapely import transform
        from shapely.geometry import box
        self.grid, self.flips = grid, flips
        middle = np.array([np.mean(grid.x_range), np.mean(grid.y_range), 0, 1])
        self.center = tuple((to_map @ middle)[:2].tolist())
        self.degrees = _heading(to_map * (flips[0], 1, 1, 1)) / np.pi * 180
        self.size = np.array([np.ptp(grid.x_range), np.ptp(grid.y_range)])
        self.cells = np.round(self.size / grid.resolution).astype(int)
        self.size = self.size / scale
        (x, y), (half_x, half_y) = self.center, self.size / 2
        upright = box(x - half_x, y - half_y, x + half_x, y + half_y)
        self.patch = transform(upright, lambda points: self.turn(points, self.degrees))
        self.local = box(-half_x, -half_y, half_x, half_y)

    def turn(self, points, degrees):
        """Turn points about the patch's centre."""
        angle, (x, y) = degrees * math.pi / 180, self.center
        cos, sin = (0.0 if abs(v) < 2.5e-16 else v for v in (math.cos(angle), math.sin(angle)))
        return np.stack([
            cos * points[:, 0] + -sin * points[:, 1] + (x - x * cos + y * sin),
            sin * points[:, 0] + cos * points[:, 1] + (y - x * sin - y * cos)], -1)

    def draw(self, layer):
        """(R, C) bool mask of a layer."""
        import shapely
        low, high = np.reshape(self.patch.bounds, (2, 2))
        chosen = layer.near(low, high)
        if not layer.lines and not layer.keep_invalid:
            chosen = chosen[layer.valid[chosen]]
        shapes = _cut(layer.shapes[chosen], self.patch)
        shapes = shapely.transform(
            shapes, lambda points: self.turn(points, -self.degrees) - self.center)
        shapes = shapely.transform(
            _cut(shapes, self.local),
            lambda points: (points + self.size / 2) * (self.cells / self.size))
        mask = np.zeros(self.cells[::-1], np.uint8)
        paint = _paint_lines if layer.lines else _paint_areas
        parts, owner = _parts(shapes, _LINE if layer.lines else _POLYGON)
        for start, end in zip(*_runs(owner)):
            paint(mask, parts[start:end])
        return self.orient(mask > 0)

    def orient(self, mask):
        """(y, x) mask of the patch -> (R, C) of the grid."""
        mask = mask[::self.flips[1], ::self.flips[0]]
        if self.grid.rows[1] == 'x':
            mask = mask.T
        return mask[tuple(slice(None, None, -1 if axis[0] == '-' else 1)
                          for axis in (self.grid.rows, self.grid.cols))]


def _cut(shapes, area):
    """What of shapes is in an area, without empty rests."""
    import shapely
    try:
        shapes = shapely.intersection(shapes, area)
    except shapely.errors.GEOSException:  # an invalid shape
        shapes = shapely.intersection(shapely.make_valid(shapes), area)
    return shapes[~shapely.is_empty(shapes)]


def _runs(values):
    """Starts and ends of the runs of equal values."""
    borders = np.flatnonzero(np.diff(values, prepend=-1, append=-1))
    return borders[:-1], borders[1:]


def _paint_areas(mask, polygons):
    import cv2
    for number, rings in ((1, [p.exterior for p in polygons]),
                          (0, [ring for p in polygons for ring in p.interiors])):
        if rings:
            cv2.fillPoly(mask, [np.round(ring.coords).astype(np.int32) for ring in rings], number)


def _paint_lines(mask, lines):
    import cv2
    for line in lines:
        cv2.polylines(mask, [np.asarray(line.coords).astype(np.int32)], False, 1, 2)
