"""Sampling maps that turn a dual fisheye or several images into one equirect panorama.

Frame: the LiDAR frame, x forward, y left, z up. An equirect panorama of H x W pixels looks forward
at its centre column; columns grow clockwise seen from above (to the right); row 0 is the highest
elevation. A map holds, for every panorama pixel, the source position in OpenCV's pixel
coordinates, where integers are pixel centres.
"""

from functools import lru_cache

import numpy as np
import torch

from .cameras import Equirect, lens_of

THETA_APERTURE_DEG = 203.0
"""Full angle covered by each image circle of the Ricoh Theta S."""


def equirect_rays(height: int, width: int, fov_up: float = np.pi / 2,
                  fov_down: float = -np.pi / 2) -> np.ndarray:
    """Viewing directions of the pixel centres of an equirect image.

    Convention: that of :class:`.cameras.Equirect`: pixel (r, c) looks at azimuth
    pi * (1 - 2 * (c + 0.5) / W), left positive, and at
    elevation fov_up - (r + 0.5) / H * (fov_up - fov_down); fov_up and fov_down belong to the top
    and bottom *edges*.

    Args:
        height, width: image size in pixels.
        fov_up, fov_down: elevation of the edges, radians.

    Returns:
        (H, W, 3) float64 unit vectors in the LiDAR axes.

    Example:
        >>> equirect_rays(1, 4)[0].round(3) + 0.
        array([[-0.707,  0.707,  0.   ],
               [ 0.707,  0.707,  0.   ],
               [ 0.707, -0.707,  0.   ],
               [-0.707, -0.707,  0.   ]])
    """
    rows, cols = torch.meshgrid(torch.arange(height, dtype=torch.float64),
                                torch.arange(width, dtype=torch.float64), indexing='ij')
    lens = Equirect(*torch.tensor([fov_up, fov_down], dtype=torch.float64))
    pixels = torch.stack([cols, rows], -1)
    return lens.unproject(pixels, torch.ones_like(rows), (height, width)).numpy()


def dual_fisheye_pixels(directions, side: int,
                        aperture_deg: float = THETA_APERTURE_DEG) -> np.ndarray:
    """Position of viewing directions in a native Ricoh dual-fisheye image.

    Model: equidistant, r = theta / (aperture / 2) on the unit image circle, which fills its square.
    The right square holds the front lens, turned 90 degrees clockwise on disk; the left one the
    rear lens, turned 90 degrees counter-clockwise (undone by turning the left square clockwise,
    the right one counter-clockwise).

    Convention: directions with x >= 0 come from the front lens. Upright and seen along its own
    axis, the front lens shows the vehicle's left on its left, the rear lens on its right.

    Args:
        directions: (..., 3), LiDAR axes, any length > 0.
        side: side of one square, pixels (the image is side x 2*side).
        aperture_deg: full angle of the image circle, degrees.

    Returns:
        (..., 2) float64 (row, col) in the native image, integers at pixel centres.
    """
    x, y, z = np.moveaxis(np.asarray(directions, dtype=np.float64), -1, 0)
    lateral = np.hypot(y, z)
    radius = np.arctan2(lateral, np.abs(x)) * 2 / np.deg2rad(aperture_deg)
    scale = radius / np.maximum(lateral, 1e-12)
    front = x >= 0
    col = side / 2 * (1 + np.where(front, -1, 1) * scale * y) - 0.5
    row = side / 2 * (1 - scale * z) - 0.5
    return _to_native(row, col, front, side)


def dual_fisheye_views(image) -> tuple:
    """The two image circles of a native Ricoh dual-fisheye image, each turned upright.

    Args:
        image: (side, 2 * side, 3).

    Returns:
        The front lens's and the rear lens's (side, side, 3).
    """
    import cv2  # turns an image four times as fast as NumPy
    side = image.shape[1] // 2
    rear, front = image[:side, :side], image[:side, side:]
    return (cv2.rotate(front, cv2.ROTATE_90_COUNTERCLOCKWISE),
            cv2.rotate(rear, cv2.ROTATE_90_CLOCKWISE))


def is_panorama(image) -> bool:
    """Whether an image given for a dual fisheye is a panorama.

    Its left and right edges continue each other, and the corners of its two squares, which the
    circles of a dual fisheye do not reach, are not dark.

    Args:
        image: (side, 2 * side, 3) uint8.
    """
    side = image.shape[1] // 2
    cut = side // 8
    corners = [image[rows, cols] for rows in (slice(cut), slice(side - cut, side))
               for cols in (slice(cut), slice(side - cut, side + cut), slice(2 * side - cut, None))]
    if not cut or np.median(np.concatenate([c.ravel() for c in corners])) <= 32:
        return False
    left, right = image[:, 0].astype(np.int16), image[:, -1].astype(np.int16)
    return bool(np.abs(left - right).mean() <= 16)


def dual_fisheye_cameras(lidar2cam, side: int, aperture_deg: float = THETA_APERTURE_DEG) -> tuple:
    """Camera dicts of :func:`dual_fisheye_views`; the model is :func:`dual_fisheye_pixels`'.

    Args:
        lidar2cam: (4, 4) from the LiDAR frame to the image's, which has the panorama's axes.
        side: of one square, pixels.
        aperture_deg: full angle of each image circle.

    Returns:
        The front and the rear camera: lens ``equidistant``, axes x right, y down, z along the axis.
    """
    middle = (side - 1) / 2
    lens = dict(f=side / np.deg2rad(aperture_deg), u0=middle, v0=middle)
    cameras = []
    for name, ahead in (('front', 1.0), ('rear', -1.0)):
        axes = np.array([[0, -ahead, 0, 0], [0, 0, -1, 0], [ahead, 0, 0, 0], [0, 0, 0, 1]])
        cameras.append(dict(
            name=name, lens='equidistant', lidar2cam=axes @ np.asarray(lidar2cam, np.float64),
            height=side, width=side, equidistant=dict(lens), theta_max_deg=aperture_deg / 2,
            img_aug=np.eye(3)))
    return tuple(cameras)


def release_indices(height: int, width: int, side: int,
                    aperture_deg: float = THETA_APERTURE_DEG) -> tuple:
    """Integer source maps of the KD360 release, in its upright (pre-rotated) image.

    End-point-inclusive angles, truncated source positions, columns rolled by floor(270/360 * W):
    within half a pixel of the pixel-centre convention. For parity only.

    Args:
        height, width: panorama size.
        side: side of one fisheye square.

    Returns:
        xs, ys: (H, W) int32 column and row in the upright image of side x 2*side.
    """
    lat = np.linspace(-1, 1, height)[:, None] * (np.pi / 2)
    i = np.arange(width)
    rear = i < width / 2
    lon = np.where(rear, 1, -1) * (1 - 2 * i / (width - 1)) * np.pi
    x, y = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon)
    z = np.broadcast_to(np.sin(lat), x.shape)
    radius = np.arctan2(np.sqrt(x ** 2 + z ** 2), y) * (2 / np.deg2rad(aperture_deg))
    theta = np.arctan2(z, x)
    xs = side / 2 * np.where(rear, 1 + radius * np.cos(theta), 3 - radius * np.cos(theta))
    ys = side / 2 * (1 + radius * np.sin(theta))
    xs = np.minimum(2 * side - 1, np.floor(xs)).astype(np.int32)
    ys = np.minimum(side - 1, np.floor(ys)).astype(np.int32)
    shift = int(np.floor(270 * width / 360))
    return np.roll(xs, shift, 1), np.roll(ys, shift, 1)


@lru_cache(maxsize=4)
def dual_fisheye_maps(height: int, width: int, side: int, sampling: str = 'bilinear',
                      aperture_deg: float = THETA_APERTURE_DEG, fov_up: float = np.pi / 2,
                      fov_down: float = -np.pi / 2) -> tuple:
    """Maps for ``cv2.remap`` from the native dual-fisheye image to the panorama; cached.

    Args:
        height, width: panorama size.
        side: side of one fisheye square (the image's upper side x 2*side pixels are used).
        sampling: 'bilinear' (pixel centres) or 'release' (nearest neighbour, bit-equal to the
            KD360 release).
        aperture_deg: full angle of each image circle.
        fov_up, fov_down: elevation of the panorama's edges, radians; 'release' knows only the
            full sphere.

    Returns:
        The two maps in OpenCV's fixed-point form (1/32 pixel), read-only by agreement.

    Raises:
        ValueError: unknown sampling, or a cropped panorama with 'release'.
    """
    if sampling == 'bilinear':
        rays = equirect_rays(height, width, fov_up, fov_down)
        rows, cols = np.moveaxis(dual_fisheye_pixels(rays, side, aperture_deg), -1, 0)
    elif sampling == 'release':
        if (fov_up, fov_down) != (np.pi / 2, -np.pi / 2):
            raise ValueError("sampling='release' covers the full sphere only: leave fov_up and "
                             "fov_down at +-pi/2 or use sampling='bilinear'")
        xs, ys = release_indices(height, width, side, aperture_deg)
        front = xs >= side
        rows, cols = np.moveaxis(_to_native(ys, np.where(front, xs - side, xs), front, side), -1, 0)
    else:
        raise ValueError(f"sampling must be 'bilinear' or 'release', got {sampling!r}")
    return fixed_point_maps(rows, cols, nearest=sampling == 'release')


def _to_native(row, col, front, side: int) -> np.ndarray:
    """Upright position inside one square -> (row, col) in the native side x 2*side image."""
    last = side - 1
    return np.stack([np.where(front, col, last - col), np.where(front, side + last - row, row)], -1)


def stitch_maps(cameras, height: int, width: int, fov_up: float = np.pi / 2,
                fov_down: float = -np.pi / 2, center=(0.0, 0.0, 0.0), radius: float = 20.0,
                ground_z: float = None, feather_px: float = 80.0) -> tuple:
    """How to stitch images of any lens into one equirect panorama seen from ``center``.

    Every panorama pixel is assumed to show a point at ``radius`` or, where the ray meets it
    earlier, on the plane z = ``ground_z``; things elsewhere are displaced by parallax.

    Args:
        cameras: dicts with ``lens``, ``lidar2cam`` (4, 4), ``height``, ``width`` and what the lens
            needs; see :data:`.cameras.LENSES`.
        height, width, fov_up, fov_down: of the panorama; see :func:`equirect_rays`.
        center: of the panorama in the LiDAR frame, metres.
        radius: of the sphere around ``center``, metres; may be infinite.
        ground_z: height of the road in the LiDAR frame, metres; None = no road.
        feather_px: distance from the border of what an image shows over which it fades, source
            pixels; 0 = a hard cut: the image whose border is farthest wins.

    Returns:
        (layers, coverage): ``layers`` for :func:`stitch`. The first one (None, maps, None) takes
        every pixel from the image that sees it best; each further one, (index (M,), maps,
        alpha (M, 1) float32), blends pixels of the flattened panorama with the next best image.
        Maps refer to the images side by side, and lead outside where no image was seen.
        ``coverage`` (H, W) bool is true where one was.
    """
    center = np.asarray(center, np.float64)
    points = equirect_rays(height, width, fov_up, fov_down)
    inverse_depth = np.full((height, width, 1), 1 / radius)
    if ground_z is not None:
        inverse_depth = np.maximum(inverse_depth, points[..., 2:] / (ground_z - center[2]))
    points += center * inverse_depth
    rows, cols, border = (np.zeros((len(cameras), height * width), np.float32) for _ in range(3))
    border -= 1
    left = 0
    for n, camera in enumerate(cameras):
        index = np.flatnonzero(_near_view(camera, points, inverse_depth))
        row, col, edge = _view(camera, points.reshape(-1, 3)[index],
                               inverse_depth.reshape(-1, 1)[index])
        rows[n, index], cols[n, index], border[n, index] = row, col + left, edge
        left += camera['width']
    coverage = border.max(0) >= 0
    best = border.argmax(0), np.arange(height * width)
    row, col = (np.where(coverage, a[best], -2).reshape(height, width) for a in (rows, cols))
    layers = [(None, fixed_point_maps(row, col), None)]
    if feather_px > 0:
        layers += _blending_layers(rows, cols, border, feather_px)
    return layers, coverage.reshape(height, width)


def _blending_layers(rows, cols, border, feather_px):
    """The layers after the first, from (N, H * W) positions and distances of all images."""
    overlap = np.flatnonzero((border >= 0).sum(0) > 1)
    order = np.argsort(-border[:, overlap], axis=0, kind='stable')
    rows, cols, border = (np.take_along_axis(a[:, overlap], order, 0) for a in (rows, cols, border))
    weight = np.clip((border + 1) / feather_px, 0, 1) * (border >= 0)
    alpha = weight / np.maximum(weight.cumsum(0), 1e-12)
    layers = []
    for n in range(1, len(border)):
        index = np.flatnonzero(weight[n])
        if index.size:
            block = np.resize(index, (-(-index.size // 1024), 1024))
            maps = fixed_point_maps(rows[n][block], cols[n][block])
            layers.append((overlap[index], maps, alpha[n][index].astype(np.float32)[:, None]))
    return layers


def _near_view(camera, points, inverse_depth, step: int = 8) -> np.ndarray:
    """(H, W) bool: the blocks of pixels at most two blocks away from one whose corner is shown."""
    import cv2
    rows = np.append(np.arange(0, len(points), step), len(points) - 1)
    coarse = _view(camera, points[rows, ::step], inverse_depth[rows, ::step])[2] >= 0
    coarse = np.pad(coarse.astype(np.uint8), ((0, 0), (2, 2)), 'wrap')
    near = cv2.dilate(coarse, np.ones((5, 5), np.uint8))[:, 2:-2] > 0
    return near.repeat(step, 0).repeat(step, 1)[:points.shape[0], :points.shape[1]]


def _view(camera, points, inverse_depth):
    """Rows and columns in an image, and distance to the border of what it shows, source pixels.

    The points are ``points / inverse_depth``, handled without the division, because they may be
    at infinity. The distance is negative for points that the image does not show.
    """
    lidar2cam = np.asarray(camera['lidar2cam'], np.float64)
    points = points @ lidar2cam[:3, :3].T + lidar2cam[:3, 3] * inverse_depth
    lens, size = lens_of(camera), (camera['height'], camera['width'])
    pixel, depth, valid = (t.numpy() for t in lens.project(torch.from_numpy(points), size))
    cols, rows = np.moveaxis(pixel, -1, 0)
    border = np.minimum(np.minimum(cols, size[1] - 1 - cols), np.minimum(rows, size[0] - 1 - rows))
    if camera['lens'] == 'mei':  # the border is a rim at an angle; gamma / (1 + xi) px per radian
        theta = np.arccos(np.clip(points[..., 2] / depth, -1, 1))
        rim = np.arccos(lens.cos_theta_max.item()) - theta
        border = np.minimum(border, rim * lens.gamma1.item() / (1 + lens.xi.item()))
    return rows, cols, np.where(valid & (border >= 0), border, -1)


def stitch(images, layers) -> np.ndarray:
    """Blend images by :func:`stitch_maps`: list of (h, w, 3) uint8 -> (H, W, 3) uint8."""
    height = max(len(image) for image in images)
    canvas = np.concatenate([
        np.pad(p, ((0, height - len(p)), (0, 0), (0, 0))) if len(p) < height else p
        for p in images], 1)
    out = remap(canvas, layers[0][1], black_outside=True)
    flat = out.reshape(-1, 3)
    for index, maps, alpha in layers[1:]:
        under = flat[index].astype(np.float32)
        flat[index] = under + (remap(canvas, maps).reshape(-1, 3)[:len(index)] - under) * alpha + .5
    return out


def fixed_point_maps(rows, cols, nearest: bool = False) -> tuple:
    """Maps for :func:`remap` from (H, W) source rows and columns; twice as fast as floats."""
    import cv2
    cols, rows = (np.ascontiguousarray(a, np.float32) for a in (cols, rows))
    return cv2.convertMaps(cols, rows, cv2.CV_16SC2, nninterpolation=nearest)


def remap(image, maps, nearest: bool = False, black_outside: bool = False) -> np.ndarray:
    """``cv2.remap`` with replicated or black borders: (h, w, 3) uint8 -> (H, W, 3) uint8."""
    import cv2
    return cv2.remap(image, *maps, cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_CONSTANT if black_outside else cv2.BORDER_REPLICATE)
