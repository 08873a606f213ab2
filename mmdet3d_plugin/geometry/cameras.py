"""Cameras that project and unproject, whatever their lens.

The order "undo BEV augmentation -> LiDAR to camera -> lens -> image augmentation" is written in
:class:`CameraRig` and nowhere else.
"""
import math
from dataclasses import dataclass, replace
from typing import Dict, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

_EPS = 1e-6


def azimuth_elevation(xyz: Tensor) -> Tuple[Tensor, Tensor]:
    """Directions of points in an x forward, y left, z up frame.

    Convention: azimuth is positive to the *right* (clockwise seen from above), in (-pi, pi];
    elevation is positive upwards. Both are 0 with zero gradient at the origin, and the gradient is
    finite on the vertical axis.

    Args:
        xyz (Tensor): (..., 3).

    Returns:
        tuple: azimuth (...,) and elevation (...,), radians.
    """
    x, y, z = xyz.unbind(-1)
    horizontal = x.square() + y.square()
    vertical = horizontal < _EPS**2
    safe_x = torch.where(vertical, torch.ones_like(x), x)
    safe_y = torch.where(vertical, torch.zeros_like(y), y)
    azimuth = torch.atan2(-safe_y, safe_x)
    radius = torch.where(vertical, torch.full_like(x, _EPS), horizontal.clamp_min(_EPS**2).sqrt())
    at_origin = vertical & (z.abs() < _EPS)
    elevation = torch.atan2(torch.where(at_origin, torch.zeros_like(z), z), radius)
    return azimuth, elevation


# Lenses: pairs of functions between camera-frame points and continuous pixels ---------------------
#
# Convention: integers are pixel centres, so the image spans [-0.5, size - 0.5].


def project_equirect(xyz: Tensor, params: Tensor, size: Tuple[int, int]):
    """Equirectangular projection; camera frame x forward, y left, z up.

    ``c = ((azimuth / pi + 1) W - 1) / 2`` and ``r = (fov_up - el) / (fov_up - fov_down) H - 1/2``:
    the centre column looks forward, columns grow to the right, row 0 is the top.

    Args:
        xyz (Tensor): (..., 3) points.
        params (Tensor): (..., 2) elevation of the top and of the bottom edge of the image, radians.
        size (tuple): (H, W) of the raw image.

    Returns:
        tuple: pixels (..., 2) as (column, row); depth (...,) = Euclidean range, metres; valid
        (...,) false at the camera's centre.
    """
    azimuth, elevation = azimuth_elevation(xyz)
    top, bottom = params.unbind(-1)
    column = ((azimuth / math.pi + 1) * size[1] - 1) / 2
    row = (top - elevation) / (top - bottom) * size[0] - 0.5
    depth = xyz.square().sum(-1).clamp_min(_EPS**2).sqrt()
    return torch.stack([column, row], -1), depth, depth > 2 * _EPS


def unproject_equirect(pixel: Tensor, depth: Tensor, params: Tensor, size: Tuple[int, int]):
    """Exact reverse of :func:`project_equirect`: (..., 2) pixels and (...,) ranges to points."""
    column, row = pixel.unbind(-1)
    top, bottom = params.unbind(-1)
    azimuth = ((2 * column + 1) / size[1] - 1) * math.pi
    elevation = top - (row + 0.5) / size[0] * (top - bottom)
    ray = torch.stack([elevation.cos() * azimuth.cos(), -elevation.cos() * azimuth.sin(),
                       elevation.sin()], -1)
    return ray * depth[..., None]


def project_pinhole(xyz: Tensor, params: Tensor, size: Tuple[int, int]):
    """Pinhole projection; camera frame x right, y down, z forward.

    Args:
        xyz (Tensor): (..., 3) points.
        params (Tensor): (..., 9) the flattened 3x3 intrinsic matrix, pixels.
        size (tuple): Unused; all lenses share one signature.

    Returns:
        tuple: pixels (..., 2) as (column, row); depth (...,) = z, metres; valid (...,) true in
        front of the camera.
    """
    depth = xyz[..., 2]
    valid = depth > 1e-3
    safe = torch.where(valid, depth, torch.ones_like(depth))
    ray = torch.stack([xyz[..., 0] / safe, xyz[..., 1] / safe, torch.ones_like(safe)], -1)
    matrix = params.unflatten(-1, (3, 3))
    return (matrix @ ray[..., None])[..., :2, 0], depth, valid


def unproject_pinhole(pixel: Tensor, depth: Tensor, params: Tensor, size: Tuple[int, int]):
    """Exact reverse of :func:`project_pinhole`: (..., 2) pixels and (...,) z to points."""
    homogeneous = torch.cat([pixel, torch.ones_like(pixel[..., :1])], -1)
    inverse = _inverse(params.unflatten(-1, (3, 3)))
    return (inverse @ homogeneous[..., None])[..., 0] * depth[..., None]


def mei_params(camera: Dict) -> np.ndarray:
    """Parameters of :func:`project_mei` from a camera dict.

    Args:
        camera (dict): ``mei`` {``xi``, ``k1``, ``k2``, ``p1``, ``p2``, ``gamma1``, ``gamma2``,
            ``u0``, ``v0``}; ``theta_max_deg``, the angle from the axis up to which the lens shows a
            image (optional); ``tangential``, whether p1 and p2 count. By default they do not, as
            in KITTI-360's devkit, which is 1 pixel at most.

    Returns:
        np.ndarray: (11,) float64: the nine parameters, the cosine of the largest valid angle, and
        the largest rho^2 of the one-to-one part.
    """
    mei = camera['mei']
    xi, k1, k2 = mei['xi'], mei['k1'], mei['k2']
    # rho grows with the angle up to arccos(-1 / xi), or for xi <= 1 without limit up to
    # arccos(-xi); distortion keeps the order while its slope 1 + 3 k1 rho^2 + 5 k2 rho^4 > 0.
    largest = 1 / (xi**2 - 1) if xi > 1 else math.inf
    for root in np.roots([5 * k2, 3 * k1, 1]):
        if abs(root.imag) < 1e-12 and root.real > 0:
            largest = min(largest, float(root.real))
    cosine = -min(xi, 1 / max(xi, _EPS)) + _EPS
    if math.isfinite(largest):
        root = math.sqrt(max(1 + (1 - xi**2) * largest, 0))
        cosine = (xi + root) / (1 + largest) - xi
    if camera.get('theta_max_deg') is not None:
        cosine = max(cosine, math.cos(math.radians(camera['theta_max_deg'])))
    p1, p2 = (mei['p1'], mei['p2']) if camera.get('tangential') else (0.0, 0.0)
    return np.array([xi, k1, k2, p1, p2, mei['gamma1'], mei['gamma2'], mei['u0'], mei['v0'],
                     cosine, min(largest, 1e6)])


def _mei_tangential(m: Tensor, p1: Tensor, p2: Tensor) -> Tensor:
    x, y = m.unbind(-1)
    square = x * x + y * y
    return torch.stack([2 * p1 * x * y + p2 * (square + 2 * x * x),
                        p1 * (square + 2 * y * y) + 2 * p2 * x * y], -1)


def project_mei(xyz: Tensor, params: Tensor, size: Tuple[int, int]):
    """Unified (Mei) projection of a fisheye; camera frame x right, y down, z along the axis.

    With n = P / |P|: ``m = (n_x, n_y) / (n_z + xi)``, ``rho = |m|``,
    ``m_d = m (1 + k1 rho^2 + k2 rho^4) + tangential(m)``, ``pixel = gamma m_d + (u0, v0)``.
    Beyond the one-to-one limit (for xi > 1 an angle of arccos(-1 / xi)) points fold back into the
    image, so the bounds of the image alone would let them in: ``valid`` does not.

    Args:
        xyz (Tensor): (..., 3) points.
        params (Tensor): (..., 11), see :func:`mei_params`.
        size (tuple): Unused; all lenses share one signature.

    Returns:
        tuple: pixels (..., 2) as (column, row); depth (...,) = Euclidean range, metres; valid
        (...,) true up to the largest angle of ``params``.
    """
    xi, k1, k2, p1, p2, gamma1, gamma2, u0, v0, cosine, _ = params.unbind(-1)
    depth = xyz.square().sum(-1).clamp_min(_EPS**2).sqrt()
    n = xyz / depth[..., None]
    m = n[..., :2] / (n[..., 2] + xi).clamp_min(_EPS)[..., None]
    square = m.square().sum(-1)
    bent = m * (1 + k1 * square + k2 * square**2)[..., None] + _mei_tangential(m, p1, p2)
    pixel = torch.stack([gamma1 * bent[..., 0] + u0, gamma2 * bent[..., 1] + v0], -1)
    return pixel, depth, (n[..., 2] >= cosine) & (depth > 2 * _EPS)


def unproject_mei(pixel: Tensor, depth: Tensor, params: Tensor, size: Tuple[int, int]):
    """Exact reverse of :func:`project_mei` up to the one-to-one limit: pixels, ranges to points.

    Ten steps of Newton's method on rho^2, which is smooth at the centre; a pixel beyond the limit
    gives a ray at the limit.
    """
    xi, k1, k2, p1, p2, gamma1, gamma2, u0, v0, _, largest = params.unbind(-1)
    column, row = pixel.unbind(-1)
    bent = torch.stack([(column - u0) / gamma1, (row - v0) / gamma2], -1)
    m, square = bent, bent.square().sum(-1)
    for _ in range(10):
        target = bent - _mei_tangential(m, p1, p2)
        square = torch.minimum(square, largest)
        radial = 1 + k1 * square + k2 * square**2
        slope = radial * (radial + 2 * square * (k1 + 2 * k2 * square))
        error = square * radial**2 - target.square().sum(-1)
        square = torch.minimum((square - error / slope.clamp_min(_EPS)).clamp_min(0), largest)
        m = target / (1 + k1 * square + k2 * square**2)[..., None]
    m = m * (largest / torch.maximum(m.square().sum(-1), largest)).sqrt()[..., None]
    root = (1 + (1 - xi**2) * square).clamp_min(_EPS**2).sqrt()
    scale = (xi + root) / (1 + square)
    return torch.cat([scale[..., None] * m, (scale - xi)[..., None]], -1) * depth[..., None]


def equidistant_params(camera: Dict) -> np.ndarray:
    """Parameters of :func:`project_equidistant` from a camera dict.

    Args:
        camera (dict): ``equidistant`` {``f``: pixels per radian, ``u0``, ``v0``: the axis};
            ``theta_max_deg``, the angle from the axis up to which the lens shows an image
            (optional, default 180).

    Returns:
        np.ndarray: (4,) float64 f, u0, v0 and the largest angle in radians.
    """
    lens = camera['equidistant']
    limit = math.radians(camera.get('theta_max_deg', 180.0))
    return np.array([lens['f'], lens['u0'], lens['v0'], limit])


def project_equidistant(xyz: Tensor, params: Tensor, size: Tuple[int, int]):
    """Equidistant projection of a fisheye; camera frame x right, y down, z along the axis.

    ``pixel = f theta (x, y) / |(x, y)| + (u0, v0)`` with the angle theta from the axis.

    Args:
        xyz (Tensor): (..., 3) points.
        params (Tensor): (..., 4), see :func:`equidistant_params`.
        size (tuple): Unused; all lenses share one signature.

    Returns:
        tuple: pixels (..., 2) as (column, row); depth (...,) = Euclidean range, metres; valid
        (...,) true up to the largest angle of ``params``.
    """
    focal, u0, v0, limit = params.unbind(-1)
    depth = xyz.square().sum(-1).clamp_min(_EPS**2).sqrt()
    lateral = xyz[..., :2].square().sum(-1).clamp_min(_EPS**2).sqrt()  # smooth on the axis
    theta = torch.atan2(lateral, xyz[..., 2])
    offset = xyz[..., :2] * (focal * theta / lateral)[..., None]
    pixel = torch.stack([offset[..., 0] + u0, offset[..., 1] + v0], -1)
    return pixel, depth, (theta <= limit) & (depth > 2 * _EPS)


def unproject_equidistant(pixel: Tensor, depth: Tensor, params: Tensor, size: Tuple[int, int]):
    """Exact reverse of :func:`project_equidistant`; a pixel beyond the limit gives a ray there."""
    focal, u0, v0, limit = params.unbind(-1)
    column, row = pixel.unbind(-1)
    offset = torch.stack([column - u0, row - v0], -1) / focal[..., None]
    angle = offset.square().sum(-1).clamp_min(_EPS**2).sqrt()
    theta = torch.minimum(angle, limit)
    ray = torch.cat([offset * (theta.sin() / angle)[..., None], theta.cos()[..., None]], -1)
    return ray * depth[..., None]


LENSES = {
    'equirect': (project_equirect, unproject_equirect,
                 lambda camera: (camera['fov_up'], camera['fov_down'])),
    'pinhole': (project_pinhole, unproject_pinhole,
                lambda camera: np.asarray(camera['cam2img'], np.float64)[:3, :3].ravel()),
    'mei': (project_mei, unproject_mei, mei_params),
    'equidistant': (project_equidistant, unproject_equidistant, equidistant_params),
}


@dataclass(frozen=True)
class CameraRig:
    """A batch of N calibrated cameras of one lens type.

    Args:
        lens (str): ``'equirect'``, ``'pinhole'``, ``'mei'`` or ``'equidistant'``.
        lidar2cam (Tensor): (B, N, 4, 4) float32 transforms from the *augmented* LiDAR frame to the
            camera frames: BEV augmentation is undone in them.
        params (Tensor): (B, N, P) lens parameters, see the lens functions.
        raw_size (tuple): (H, W) of the image that the lens model describes.
        size (tuple): (H, W) of the augmented image that the network receives.
        img_aug (Tensor): (B, N, 3, 3) raw pixel to augmented pixel.
        fingerprint (tuple): Equal for rigs with equal geometry; the key of cached geometry.
    """
    lens: str
    lidar2cam: Tensor
    params: Tensor
    raw_size: Tuple[int, int]
    size: Tuple[int, int]
    img_aug: Tensor
    fingerprint: Tuple = ()

    @classmethod
    def from_dicts(cls, cameras: Sequence[Sequence[Dict]], bev_aug: Sequence[np.ndarray] = None,
                   device='cpu') -> 'CameraRig':
        """Stack the camera dicts of a batch: ``cameras[sample][view]``.

        Each dict has ``lens``, ``lidar2cam`` (4, 4), ``height`` and ``width`` of the current
        image, ``img_aug`` (3, 3) raw to current pixel (optional), ``raw_height``/``raw_width`` if
        they differ, and the lens's own keys (``fov_up``/``fov_down``, ``cam2img``, or those of
        :func:`mei_params` or :func:`equidistant_params`).
        ``bev_aug[sample]`` (4, 4), where given, moved the LiDAR frame: ``p_aug = bev_aug p``; the
        rig undoes it, ``lidar2cam bev_aug^-1``. Transforms are kept to 1.5e-11, so that a camera
        that turned with the scene has bit for bit the rig of one that stayed.

        Raises:
            ValueError: The views of the batch differ in lens, number or size.
        """
        first = cameras[0][0]
        for views in cameras:
            for camera in views:
                for key in ('lens', 'height', 'width'):
                    if camera[key] != first[key]:
                        raise ValueError(
                            f"camera {camera.get('name')!r}: {key} is {camera[key]!r}, but "
                            f"{first[key]!r} in camera {first.get('name')!r}; the cameras of one "
                            'batch must share lens and image size')
        if len({len(views) for views in cameras}) != 1:
            raise ValueError(f'samples of one batch have {[len(v) for v in cameras]} cameras')
        if first['lens'] not in LENSES:
            raise ValueError(f"unknown lens {first['lens']!r}; known: {', '.join(LENSES)}")
        read = LENSES[first['lens']][2]
        arrays = dict(
            lidar2cam=[[c['lidar2cam'] for c in views] for views in cameras],
            params=[[read(c) for c in views] for views in cameras],
            img_aug=[[c.get('img_aug', np.eye(3)) for c in views] for views in cameras])
        arrays = {key: np.asarray(value, np.float64) for key, value in arrays.items()}
        if bev_aug is not None:
            arrays['lidar2cam'] = arrays['lidar2cam'] @ np.linalg.inv(bev_aug)[:, None]
        arrays['lidar2cam'] = np.round(arrays['lidar2cam'] * 2.0**36) / 2.0**36 + 0.0
        size = (first['height'], first['width'])
        raw_size = (first.get('raw_height', size[0]), first.get('raw_width', size[1]))
        # One distinct geometry is stored once, whatever the batch size: batches of a fixed rig
        # share their cached sampling positions.
        if all((value == value[:1]).all() for value in arrays.values()):
            arrays = {key: value[:1] for key, value in arrays.items()}
        fingerprint = (first['lens'], raw_size, size,
                       *(value.tobytes() for value in arrays.values()))
        tensors = {key: torch.as_tensor(value, dtype=torch.float32, device=device)
                   for key, value in arrays.items()}
        return cls(first['lens'], raw_size=raw_size, size=size, fingerprint=fingerprint, **tensors)

    @property
    def num_geometries(self) -> int:
        """B, or 1 when all samples of the batch share their geometry."""
        return self.lidar2cam.shape[0]

    def geometry(self, index: int) -> 'CameraRig':
        """The rig of one geometry; its ``num_geometries`` is 1."""
        one = {name: getattr(self, name)[index:index + 1]
               for name in ('lidar2cam', 'params', 'img_aug')}
        return replace(self, fingerprint=(*self.fingerprint, index), **one)

    def project(self, points: Tensor, bounds: bool = True) -> Tuple[Tensor, Tensor, Tensor]:
        """Project augmented LiDAR points into every view.

        Convention: pixels are (column, row), integers are pixel centres.

        Args:
            points (Tensor): (P, 3) or (B, P, 3), metres, LiDAR frame after BEV augmentation.
            bounds (bool): Whether a point must fall inside the image to be valid.

        Returns:
            tuple: pixels (B, N, P, 2); depth (B, N, P), metres (z for a pinhole, else the
            range); valid (B, N, P), true where the lens sees the point.
            B is 1 when the whole batch shares its geometry.
        """
        if points.dim() == 2:
            points = points[None]
        with torch.autocast(points.device.type, enabled=False):
            points = points.float()
            local = _transform(self.lidar2cam, points[:, None])
            project = LENSES[self.lens][0]
            pixel, depth, valid = project(local, self.params[:, :, None], self.raw_size)
            homogeneous = torch.cat([pixel, torch.ones_like(pixel[..., :1])], -1)
            pixel = (homogeneous @ self.img_aug.transpose(-1, -2))[..., :2]
        if not bounds:
            return pixel, depth, valid
        column, row = pixel.unbind(-1)
        height, width = self.size
        inside = (row >= -0.5) & (row <= height - 0.5)
        if not self.wraps:
            inside = inside & (column >= -0.5) & (column <= width - 0.5)
        return pixel, depth, valid & inside

    def unproject(self, pixel: Tensor, depth: Tensor) -> Tensor:
        """Exact reverse of :meth:`project`: (B, N, P, 2) and (B, N, P) to points (B, N, P, 3)."""
        with torch.autocast(pixel.device.type, enabled=False):
            homogeneous = torch.cat([pixel, torch.ones_like(pixel[..., :1])], -1).float()
            inverse = _inverse(self.img_aug).transpose(-1, -2)
            raw_pixel = (homogeneous @ inverse)[..., :2]
            unproject = LENSES[self.lens][1]
            local = unproject(raw_pixel, depth.float(), self.params[:, :, None], self.raw_size)
            rotation = _inverse(self.lidar2cam[..., :3, :3])
            return (local - self.lidar2cam[..., None, :3, 3]) @ rotation.transpose(-1, -2)

    @property
    def wraps(self) -> bool:
        """Whether columns continue across the image's left and right border."""
        return self.lens == 'equirect'


def _transform(matrix: Tensor, points: Tensor) -> Tensor:
    """(..., 4, 4) on (..., P, 3), column-vector convention."""
    return points @ matrix[..., :3, :3].transpose(-1, -2) + matrix[..., None, :3, 3]


def _inverse(matrix: Tensor) -> Tensor:
    """Of (..., 3, 3) matrices, by their cofactors: plain products, which every runtime has."""
    a, b, c = matrix.unbind(-2)
    cofactors = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -1)
    return cofactors / (a * cofactors[..., 0]).sum(-1)[..., None, None]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a.roll(-1, -1) * b.roll(-2, -1) - a.roll(-2, -1) * b.roll(-1, -1)
