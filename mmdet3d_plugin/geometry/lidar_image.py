"""LiDAR images: one row per beam, one column per firing, several measured channels.

Organised scans (Ouster) are destaggered and corrected as in the KD360 release; unorganised scans
are rendered through their ring index or a spherical projection. Image columns follow the equirect
convention (centre = forward, to the right = clockwise), rows run from the highest beam down.
"""

import numpy as np


def destagger(scan, shift_by_row) -> np.ndarray:
    """Undo the column shift between the beams of an Ouster scan.

    Convention: out[r, j] = scan[r, (j + W - shift[r]) mod W].

    Args:
        scan: (H, W, ...) in firing order.
        shift_by_row: (H,) int, columns (``pixel_shift_by_row`` of the sensor's metadata).

    Returns:
        Array like ``scan``.

    Raises:
        ValueError: if the number of shifts differs from the number of rows.

    Example:
        >>> destagger(np.arange(8).reshape(2, 4), [1, 0])
        array([[3, 0, 1, 2],
               [4, 5, 6, 7]])
    """
    scan, shift = np.asarray(scan), np.asarray(shift_by_row, dtype=np.int64)
    if shift.shape != scan.shape[:1]:
        raise ValueError(f'pixel_shift_by_row has {shift.size} entries, the scan {len(scan)} rows')
    out = np.empty_like(scan)
    for row, (line, s) in enumerate(zip(scan, shift % scan.shape[1])):
        out[row, s:], out[row, :s] = line[:len(line) - s], line[len(line) - s:]
    return out


def stagger(image, shift_by_row) -> np.ndarray:
    """Exact reverse of :func:`destagger`."""
    return destagger(image, -np.asarray(shift_by_row))


def beam_offsets(image) -> np.ndarray:
    """Additive offset of every beam, from the median difference to its neighbour above.

    The running sum of the medians, less its straight-line fit, less its minimum.

    Args:
        image: (H, W), H >= 2.

    Returns:
        (H,) float64, >= 0.
    """
    steps = np.median(np.diff(np.asarray(image, np.float64), axis=0), axis=1)
    dark = np.concatenate([[0.0], np.cumsum(steps)])
    rows = np.arange(len(dark))
    dark -= np.polyval(np.polyfit(rows, dark, 1), rows)
    return dark - dark.min()


class BeamUniformity:
    """Removes the additive offset between beams (ambient light of an Ouster).

    Args:
        stateful: False: the result is a function of the frame alone (the offsets of this frame).
            True: as in the release, offsets are renewed every 8th call and smoothed with 0.92.
    """

    def __init__(self, stateful: bool = False):
        self.stateful, self.calls, self.dark = stateful, 0, None

    def __call__(self, image) -> np.ndarray:
        """(H, W) raw image -> (H, W) float32 >= 0."""
        if not self.stateful or self.calls % 8 == 0:
            new = beam_offsets(image)
            first = self.dark is None or not self.stateful
            self.dark = new if first else 0.92 * self.dark + 0.08 * new
        self.calls += 1
        return np.clip(image - self.dark[:, None].astype(np.float32), 0, 2 ** 32 - 1)


class AutoExposure:
    """Maps the 10th percentile of the non-zero samples to 0, the 90th to 0.8, and clips to [0, 1].

    Every fourth sample in row order is used, or all of them if that leaves fewer than 100.
    An image without any non-zero sample becomes zero; one grey level becomes 0 / 1.

    Args:
        stateful: False: a function of the frame alone. True: as in the release, limits are measured
            every 3rd call and smoothed with 0.9 at every call.
    """

    def __init__(self, stateful: bool = False):
        self.stateful, self.calls = stateful, 0
        self.limits = self.smooth = None

    def __call__(self, image) -> np.ndarray:
        """(H, W) >= 0 -> (H, W) float32 in [0, 1]."""
        image = np.asarray(image, np.float32)
        if not self.stateful or self.calls % 3 == 0:
            measured = exposure_limits(image)
            self.limits = self.limits if self.stateful and measured is None else measured
        if self.limits is None:
            return np.zeros_like(image)
        self.calls += 1
        if not self.stateful or self.smooth is None:
            self.smooth = self.limits
        self.smooth = 0.9 * self.smooth + 0.1 * self.limits
        low, high = self.smooth
        low, gain = np.float32(low), np.float32(0.8 / max(high - low, 1e-6))
        return np.clip((image - low) * gain, 0, 1)


def exposure_limits(image):
    """10th and 90th percentile of the non-zero samples of an image.

    Returns:
        (2,) float64, or None if nothing is non-zero.
    """
    flat = np.asarray(image).reshape(-1)
    used = flat[::4][flat[::4] != 0]
    if used.size < 100:
        used = flat[flat != 0]
    return np.percentile(np.sort(used), [10, 90]).astype(np.float64) if used.size else None


def normalise_range(range_m, max_range: float = None) -> np.ndarray:
    """Range divided by ``max_range`` (clipped), or by the frame's own maximum as in the release.

    Args:
        range_m: (H, W) metres, 0 = no return.
        max_range: metres; None = maximum of this frame.

    Returns:
        (H, W) float32 in [0, 1]; zeros for an empty frame.
    """
    range_m = np.asarray(range_m, np.float32)
    top = np.float32(range_m.max() if max_range is None else max_range)
    return np.clip(range_m / top, 0, 1) if top > 0 else np.zeros_like(range_m)


class LiDARImageProcessor:
    """Measured channels of a destaggered scan -> channels in [0, 1].

    * ``range``: metres, divided by the frame's maximum or ``max_range``
    * ``ambient``: beam uniformity, auto exposure, square root
    * ``intensity``: auto exposure, square root
    * ``reflectivity``: auto exposure

    Args:
        stateful: False (default): every frame alone. True: the release's smoothing over frames.
        max_range: metres, or None for the frame's maximum (the release).
    """

    channels = ('range', 'ambient', 'intensity', 'reflectivity')

    def __init__(self, stateful: bool = False, max_range: float = None):
        self.max_range = max_range
        self.beams = BeamUniformity(stateful)
        self.exposure = {name: AutoExposure(stateful) for name in self.channels[1:]}

    def __call__(self, channel: str, image) -> np.ndarray:
        """(H, W) measured values -> (H, W) float32 in [0, 1].

        Raises:
            ValueError: for an unknown channel.
        """
        if channel == 'range':
            return normalise_range(image, self.max_range)
        if channel not in self.exposure:
            raise ValueError(f'unknown LiDAR image channel {channel!r}, '
                             f'expected one of {self.channels}')
        if channel == 'ambient':
            image = self.beams(image)
        out = self.exposure[channel](image)
        return out if channel == 'reflectivity' else np.sqrt(out)


def resize(image, height: int, width: int, nearest: bool = False) -> np.ndarray:
    """Resize one channel: (h, w) float32 -> (height, width) float32, half-pixel centres."""
    import cv2
    if image.shape == (height, width):
        return image
    mode = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=mode)


def spherical_indices(points, height: int, width: int, fov_up: float, fov_down: float,
                      ring=None) -> tuple:
    """Pixels hit by an unorganised scan, and the point that hits each; the nearest one wins.

    Convention: column = floor((1 - azimuth / pi) / 2 * W) with azimuth left positive; row by
    elevation between fov_up (top edge) and fov_down (bottom edge), or by ``ring`` where given
    (ring 0 is the lowest beam).

    Args:
        points: (P, >=3), x forward, y left, z up, metres.
        height, width: image size.
        fov_up, fov_down: radians.
        ring: (P,) beam index, 0 = lowest, scaled from max(ring)+1 = ``height`` beams.

    Returns:
        rows, cols, index: (M,) int64 each; every (row, col) at most once.
    """
    points = np.asarray(points, np.float64)[:, :3]
    distance = np.linalg.norm(points, axis=1)
    x, y, z = points.T
    cols = np.floor((1 - np.arctan2(y, x) / np.pi) / 2 * width).astype(np.int64) % width
    if ring is None:
        elevation = np.arctan2(z, np.hypot(x, y))
        rows = np.floor((fov_up - elevation) / (fov_up - fov_down) * height).astype(np.int64)
    else:
        rows = height - 1 - np.asarray(ring).astype(np.int64)
    index = np.flatnonzero((distance > 0) & (rows >= 0) & (rows < height))[::-1]
    pixel, distance = (rows * width + cols)[index], distance[index]
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, pixel, distance)
    wins = distance == nearest[pixel]
    winner = np.full(height * width, -1)
    winner[pixel[wins]] = index[wins]  # the last one assigned stays: the first of the scan
    pixel = np.flatnonzero(winner >= 0)
    return *np.divmod(pixel, width), winner[pixel]


def spherical_image(points, values, height: int, width: int, fov_up: float, fov_down: float,
                    ring=None) -> np.ndarray:
    """Render per-point values of an unorganised scan as an image; see :func:`spherical_indices`.

    Args:
        points: (P, >=3).
        values: (P, C).

    Returns:
        (C, height, width) float32, 0 where no point falls.
    """
    rows, cols, index = spherical_indices(points, height, width, fov_up, fov_down, ring)
    values = np.asarray(values, np.float32)
    out = np.zeros((values.shape[1], height, width), np.float32)
    out[:, rows, cols] = values[index].T
    return out


def close_gaps(image, rows: bool = False) -> np.ndarray:
    """Fill pixels without a return between two neighbours that have one with their mean.

    Points of an unorganised scan fall unevenly on the pixels, which leaves single holes.

    Args:
        image: (C, H, W), 0 where no point fell in the first channel.
        rows: False: neighbours to the left and right, around the border; True: above and below.

    Returns:
        (C, H, W) float32.
    """
    image = np.asarray(image, np.float32)
    axis = 1 if rows else 2
    one, other = np.roll(image, 1, axis), np.roll(image, -1, axis)
    gap = (image[0] == 0) & (one[0] != 0) & (other[0] != 0)
    if rows:
        gap[[0, -1]] = False
    return np.where(gap, (one + other) / 2, image)


def undistort(points, motion) -> np.ndarray:
    """Compensate the motion of the vehicle during one revolution of the LiDAR.

    All points are moved to the time at which the LiDAR points forward. A point at azimuth phi (left
    positive) was measured s = phi / 2 pi revolutions before that, so p' = R(s r) p + s t.

    Convention: the LiDAR rotates clockwise seen from above, from the left over ahead to the right.

    Args:
        points: (P, >=3) x forward, y left, z up, and other columns, which stay.
        motion: (6,) rotation vector r (rad) and translation t (m) of the transform from the
            LiDAR's frame one revolution before to its frame now.

    Returns:
        (P, >=3) like ``points``.
    """
    from scipy.spatial.transform import Rotation
    points = np.array(points)
    xyz = points[:, :3].astype(np.float64)
    fraction = np.arctan2(xyz[:, 1], xyz[:, 0])[:, None] / (2 * np.pi)
    motion = fraction * np.asarray(motion, np.float64)
    points[:, :3] = Rotation.from_rotvec(motion[:, :3]).apply(xyz) + motion[:, 3:]
    return points


def fov_of_beams(altitude_deg) -> tuple:
    """Elevation of the top and bottom edge of an image whose rows are these beams.

    Args:
        altitude_deg: (H,) elevation of the row centres, top first, degrees.

    Returns:
        (fov_up, fov_down) radians: half a mean spacing beyond the outer beams.
    """
    top, bottom = np.deg2rad(altitude_deg[0]), np.deg2rad(altitude_deg[-1])
    half = (top - bottom) / (len(altitude_deg) - 1) / 2
    return float(top + half), float(bottom - half)
