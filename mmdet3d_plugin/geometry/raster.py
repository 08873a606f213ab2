"""Boxes -> BEV targets: segmentation, centerness and offset to the object's centre."""
from dataclasses import replace
from functools import partial

import numpy as np

from .bev_grid import BEVGrid

FLOOR = 1e-3
"""Centerness below this value is 0."""


def rasterize(boxes, channels, grid: BEVGrid, num_channels: int, method: str = 'exact',
              sigma: float = 3.0, up=(0.0, 0.0, 1.0)) -> dict:
    """Draw boxes into BEV maps.

    Convention of ``'exact'``: a cell belongs to a box when its centre lies in the box (edges
    included); centres are continuous; where boxes overlap, the offset points to the nearest centre.

    Convention of ``'release'`` (KD360, bit-equal; only grids with rows -x, columns -y): centres and
    corners truncated to whole cells, outlines filled inclusively, centerness around the rounded
    centre, offsets of overlapping boxes added up. A 4.5 x 1.8 m car covers 10 x 4 cells of 0.5 m.

    Convention of ``'lift_splat'`` (the vehicle ground truth of Lift-Splat, bit-equal with the same
    OpenCV): the bottom corners, in cells from the first edge, are rounded to integers, and the
    polygon is filled with ``cv2.fillPoly``, outline included, on a grid with rows +x and columns
    +y, which is then turned to ``grid``; where boxes overlap, the last one is drawn on top.
    Centerness and offsets, which that protocol has not, are those of the exact centres. A
    4.5 x 1.8 m car covers 40 to 50 cells of 0.5 m, more than its area of 32.

    Args:
        boxes: (N, >=7) x, y, z, length, width, height, yaw; grid's frame, metres, radians.
        channels: (N,) int channel of each box; boxes with a negative channel are not drawn.
        grid: the BEV grid.
        num_channels: K.
        method: 'exact', 'release' or 'lift_splat'.
        sigma: standard deviation of the centerness, cells.
        up: (3,) direction in which boxes stand, in the grid's frame; only for 'lift_splat', whose
            boxes are upright in the world while the vehicle may be tilted.

    Returns:
        dict: ``seg`` (K, R, C) float32 {0, 1}; ``centerness`` (1, R, C) float32 in [0, 1], the
        maximum over objects of exp(-d^2 / (2 sigma^2)); ``offset`` (2, R, C) float32, (row, col)
        in cells from the cell to its object's centre, 0 outside objects; ``instances`` (K, R, C)
        int32, 1 + index of the box that a cell of this channel belongs to, 0 outside objects
        (where boxes overlap: 'exact' the nearest centre, otherwise the last one).

    Raises:
        ValueError: for an unknown method or a grid that 'release' does not know.
    """
    if method not in ('lift_splat', 'exact', 'release'):
        raise ValueError(f"method must be 'lift_splat', 'exact' or 'release', got {method!r}")
    if method == 'release' and (grid.rows, grid.cols) != ('-x', '-y'):
        raise ValueError("method='release' knows only grids with rows='-x', cols='-y', got rows="
                         f"{grid.rows!r}, cols={grid.cols!r}; use method='exact'")
    dtype = np.float64 if method == 'lift_splat' else np.float32
    boxes = np.asarray(boxes, dtype).reshape(len(boxes), -1 if len(boxes) else 7)
    channels = np.asarray(channels, np.int64)
    out = dict(seg=np.zeros((num_channels, *grid.shape), np.float32),
               centerness=np.zeros((1, *grid.shape), np.float32),
               offset=np.zeros((2, *grid.shape), np.float32),
               instances=np.zeros((num_channels, *grid.shape), np.int32))
    drawn = channels >= 0
    if drawn.any():
        draw = dict(exact=_draw_exact, release=_draw_release,
                    lift_splat=partial(_draw_lift_splat, up=up))[method]
        draw(boxes[drawn], channels[drawn], np.flatnonzero(drawn) + 1, grid, sigma, out)
    return out


def _draw_exact(boxes, channels, ids, grid, sigma, out):
    boxes = boxes.astype(np.float64)
    half = boxes[:, 3:5] / 2
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    reach = np.stack([np.abs(cos) * half[:, 0] + np.abs(sin) * half[:, 1],
                      np.abs(sin) * half[:, 0] + np.abs(cos) * half[:, 1]], -1)
    centres = grid.to_pixel(boxes[:, :2]) - 0.5
    edges = np.stack([grid.to_pixel(boxes[:, :2] - reach), grid.to_pixel(boxes[:, :2] + reach)])
    n, pixels = _cells_between(edges.min(0), edges.max(0), grid.shape)
    dx, dy = (grid.from_pixel(pixels + 0.5) - boxes[n, :2]).T
    inside = ((np.abs(cos[n] * dx + sin[n] * dy) <= half[n, 0])
              & (np.abs(cos[n] * dy - sin[n] * dx) <= half[n, 1]))
    n, pixels = n[inside], pixels[inside]
    delta = centres[n] - pixels
    nearest_last = np.argsort(np.hypot(*delta.T), kind='stable')[::-1]
    n, pixels, delta = n[nearest_last], pixels[nearest_last], delta[nearest_last]
    row, col = pixels.T
    out['seg'][channels[n], row, col] = 1
    out['offset'][:, row, col] = delta.T
    out['instances'][channels[n], row, col] = ids[n]
    _draw_centerness(centres, sigma, out['centerness'][0])


def _draw_release(boxes, channels, ids, grid, sigma, out):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    continuous = grid.to_pixel(boxes[:, :2])
    centres = np.round(continuous)
    rows, cols = np.ogrid[:grid.shape[0], :grid.shape[1]]
    for box, channel, n, whole, centre in zip(boxes, channels, ids, np.trunc(continuous), centres):
        angle = np.deg2rad(np.rad2deg(-float(box[6])) + 90)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        v, u = whole
        p = whole[::-1] + corners * (box[3:5] / np.float32(grid.resolution) / 2)
        du, dv = p[:, 0] - u, p[:, 1] - v
        polygon = np.stack([u + cos * du - sin * dv, v + sin * du + cos * dv], -1)
        mask = _fill_polygon(polygon.astype(np.int32), grid.shape)
        out['seg'][channel][mask > 0] = 1
        out['instances'][channel][mask > 0] = n
        out['offset'][0] += (centre[0] - rows) * mask
        out['offset'][1] += (centre[1] - cols) * mask
    _draw_centerness(centres, sigma, out['centerness'][0])


def _draw_lift_splat(boxes, channels, ids, grid, sigma, out, up):
    import cv2
    theirs = replace(grid, rows='+x', cols='+y')
    # in this precision: edges and sizes of cells are float32, corners float64
    low = np.array([grid.x_range[0], grid.y_range[0]], np.float32)
    size = np.full(2, grid.resolution, np.float32)
    first = low + size / 2
    instances = np.zeros((len(out['instances']), *theirs.shape), np.int32)
    for corners, channel, n in zip(_bottom_corners(boxes, up), channels, ids):
        cells = np.round((corners - first + size / 2) / size).astype(np.int32)
        cv2.fillPoly(instances[channel], [np.ascontiguousarray(cells[:, ::-1])], int(n))
    row, col = np.floor(theirs.to_pixel(grid.centers_2d().numpy())).astype(int).transpose(2, 0, 1)
    out['instances'][:] = instances[:, row, col]
    out['seg'][:] = out['instances'] > 0
    centres = grid.to_pixel(boxes[:, :2]) - 0.5
    place = np.zeros(ids.max() + 1, np.int64)
    place[ids] = np.arange(len(ids))
    top = out['instances'].max(0)
    rows, cols = np.nonzero(top)
    delta = centres[place[top[rows, cols]]] - np.stack([rows, cols], -1)
    out['offset'][:, rows, cols] = delta.T
    _draw_centerness(centres, sigma, out['centerness'][0])


def _bottom_corners(boxes, up) -> np.ndarray:
    """(N, 4, 2) x, y of the bottom face: front right, front left, rear left, rear right."""
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    ahead = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], -1)
    ahead = np.concatenate([ahead, -(ahead @ up[:2])[:, None] / up[2]], -1)  # orthogonal to up
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    left = np.cross(up, ahead)
    length, width, height = boxes[:, 3:6, None].swapaxes(0, 1)
    middle = boxes[:, :3] - height / 2 * up
    return np.stack([middle + x * length / 2 * ahead + y * width / 2 * left
                     for x, y in ((1, -1), (1, 1), (-1, 1), (-1, -1))], 1)[..., :2]


def _fill_polygon(polygon, shape):
    """Inclusive polygon fill, bit-equal to ``cv2.fillPoly`` of OpenCV 4.10 (the release's version).

    Later versions round the spans differently (4.11 changes a quarter of all small rectangles).
    Spans are kept in 1/65536 cells; the slope of an edge that leaves the image comes from its
    clipped end points.

    Args:
        polygon: (M, 2) int32 (col, row).
        shape: (rows, cols).

    Returns:
        (rows, cols) uint8 {0, 1}.
    """
    import cv2
    mask = np.zeros(shape, np.uint8)
    cv2.polylines(mask, [polygon], True, 1)
    rows, cols = shape
    points = [tuple(map(int, point)) for point in polygon]
    edges = []
    for start, end in zip(points[-1:] + points[:-1], points):
        if start[1] == end[1]:
            continue
        start, end = sorted((start, end), key=lambda point: point[1])
        a, b, half = start, end, 1 << 15
        if not all(0 <= x < cols and 0 <= y < rows for x, y in (start, end)):
            half, clipped = 0, cv2.clipLine((0, 0, cols, rows), start, end)[1:]
            if clipped[0][1] != clipped[1][1]:
                a, b = clipped
        run, rise = (b[0] - a[0]) << 16, b[1] - a[1]
        slope = run // rise if run >= 0 else -(-run // rise)
        edges.append((start[1], end[1], (a[0] << 16) + half + (start[1] - a[1]) * slope, slope))
    for row in range(max(0, min(polygon[:, 1])), min(rows, max(polygon[:, 1]))):
        spans = sorted(x + (row - top) * slope
                       for top, stop, x, slope in edges if top <= row < stop)
        for left, right in zip(spans[::2], spans[1::2]):
            mask[row, max(left >> 16, 0):max((right >> 16) + 1, 0)] = 1
    return mask


def _draw_centerness(centres, sigma, plane):
    """Maximum of Gaussians at (row, col) centres, only where they exceed ``FLOOR``."""
    radius = sigma * np.sqrt(-2 * np.log(FLOOR)) + 1
    n, pixels = _cells_between(centres - radius, centres + radius, plane.shape)
    bump = np.exp(-((pixels - centres[n]) ** 2).sum(1) / (2 * sigma ** 2))
    drawn = bump >= FLOOR
    index = np.ravel_multi_index(pixels[drawn].T, plane.shape)
    np.maximum.at(plane.reshape(-1), index, bump[drawn].astype(plane.dtype))


def _cells_between(low, high, shape):
    """The cells between pairs of continuous (row, col), within the grid.

    Args:
        low, high: (N, 2).
        shape: (rows, cols).

    Returns:
        (M,) int64 number of the pair, ascending, and (M, 2) int64 (row, col), of every cell.
    """
    start = np.maximum(np.floor(low), 0).astype(np.int64)
    size = np.maximum(np.minimum(np.ceil(high) + 1, shape).astype(np.int64) - start, 0)
    count = size.prod(1)
    n = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(n)) - (count.cumsum() - count)[n]
    return n, start[n] + np.stack(np.divmod(within, size[n, 1]), -1)
