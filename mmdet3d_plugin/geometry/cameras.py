"""Cameras that project and unproject, whatever their lens.

The order "undo BEV augmentation -> LiDAR to camera -> lens -> image augmentation" is written in
:class:`CameraRig` and nowhere else.
"""
import math
from dataclasses import dataclass, replace
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

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


# Lenses -------------------------------------------------------------------------------------------
#
# A lens is a named tuple of its parameters: numbers of one camera, or tensors of shape (...,). Each
# has ``from_dict(camera)``, ``project(xyz, size)`` and its exact reverse ``unproject``; ``size`` is
# (H, W) of the raw image, which only Equirect uses.
#
# Convention: integers are pixel centres, so the image spans [-0.5, size - 0.5].


class Equirect(NamedTuple):
    """Equirectangular projection; camera frame x forward, y left, z up.

    ``c = ((azimuth / pi + 1) W - 1) / 2`` and ``r = (fov_up - el) / (fov_up - fov_down) H - 1/2``:
    the centre column looks forward, columns grow to the right, row 0 is the top.
    ``fov_up`` and ``fov_down`` are the elevations of the image's edges, radians.
    """
    fov_up: Tensor
    fov_down: Tensor

    @classmethod
    def from_dict(cls, camera: Dict) -> 'Equirect':
        """From a camera dict with ``fov_up`` and ``fov_down``, by default a whole sphere."""
        return cls(camera.get('fov_up', math.pi / 2), camera.get('fov_down', -math.pi / 2))

    def project(self, xyz: Tensor, size: Tuple[int, int]) -> Tuple[Tensor, Tensor, Tensor]:
        """Project (..., 3) points.

        Returns:
            tuple: pixels (..., 2) as (column, row); depth (...,) = Euclidean range, metres; valid
            (...,) false at the camera's centre.
        """
        azimuth, elevation = azimuth_elevation(xyz)
        column = ((azimuth / math.pi + 1) * size[1] - 1) / 2
        row = (self.fov_up - elevation) / (self.fov_up - self.fov_down) * size[0] - 0.5
        depth = xyz.square().sum(-1).clamp_min(_EPS**2).sqrt()
        return torch.stack([column, row], -1), depth, depth > 2 * _EPS

    def unproject(self, pixel: Tensor, depth: Tensor, size: Tuple[int, int]) -> Tensor:
        """(..., 2) pixels and (...,) ranges to points."""
        column, row = pixel.unbind(-1)
        azimuth = ((2 * column + 1) / size[1] - 1) * math.pi
        elevation = self.fov_up - (row + 0.5) / size[0] * (self.fov_up - self.fov_down)
        ray = torch.stack([elevation.cos() * azimuth.cos(), -elevation.cos() * azimuth.sin(),
                           elevation.sin()], -1)
        return ray * depth[..., None]


class Pinhole(NamedTuple):
    """Pinhole projection; camera frame x right, y down, z forward.

    The fields are the 3x3 intrinsic matrix row by row, pixels.
    """
    fx: Tensor
    skew: Tensor
    cx: Tensor
    k10: Tensor
    fy: Tensor
    cy: Tensor
    k20: Tensor
    k21: Tensor
    k22: Tensor

    @classmethod
    def from_dict(cls, camera: Dict) -> 'Pinhole':
        """From a camera dict with ``cam2img`` (3, 3) or larger."""
        return cls(*np.asarray(camera['cam2img'], np.float64)[:3, :3].ravel())

    @property
    def matrix(self) -> Tensor:
        """(..., 3, 3) intrinsic matrix."""
        return torch.stack(self, -1).unflatten(-1, (3, 3))

    def project(self, xyz: Tensor, size: Tuple[int, int]) -> Tuple[Tensor, Tensor, Tensor]:
        """Project (..., 3) points.

        Returns:
            tuple: pixels (..., 2) as (column, row); depth (...,) = z, metres; valid (...,) true in
            front of the camera.
        """
        depth = xyz[..., 2]
        valid = depth > 1e-3
        safe = torch.where(valid, depth, torch.ones_like(depth))
        ray = torch.stack([xyz[..., 0] / safe, xyz[..., 1] / safe, torch.ones_like(safe)], -1)
        return (self.matrix @ ray[..., None])[..., :2, 0], depth, valid

    def unproject(self, pixel: Tensor, depth: Tensor, size: Tuple[int, int]) -> Tensor:
        """(..., 2) pixels and (...,) z to points."""
        homogeneous = torch.cat([pixel, torch.ones_like(pixel[..., :1])], -1)
        return (_inverse(self.matrix) @ homogeneous[..., None])[..., 0] * depth[..., None]


class MEI(NamedTuple):
    """Unified (Mei) projection of a fisheye; camera frame x right, y down, z along the axis.

    With n = P / |P|: ``m = (n_x, n_y) / (n_z + xi)``, ``rho = |m|``,
    ``m_d = m (1 + k1 rho^2 + k2 rho^4) + tangential(m)``, ``pixel = gamma m_d + (u0, v0)``.
    Beyond the one-to-one limit (for xi > 1 an angle of arccos(-1 / xi)) points fold back into the
    image, so the bounds of the image alone would let them in: ``valid`` does not.
    ``cos_theta_max`` is the cosine of the largest valid angle and ``rho2_max`` the largest rho^2
    of the one-to-one part.
    """
    xi: Tensor
    k1: Tensor
    k2: Tensor
    p1: Tensor
    p2: Tensor
    gamma1: Tensor
    gamma2: Tensor
    u0: Tensor
    v0: Tensor
    cos_theta_max: Tensor
    rho2_max: Tensor

    @classmethod
    def from_dict(cls, camera: Dict) -> 'MEI':
        """From a camera dict.

        Args:
            camera (dict): ``mei`` {``xi``, ``k1``, ``k2``, ``p1``, ``p2``, ``gamma1``, ``gamma2``,
                ``u0``, ``v0``}; ``theta_max_deg``, the angle from the axis up to which the lens
                shows an image (optional); ``tangential``, whether p1 and p2 count. By default they
                do not, as in KITTI-360's devkit, which is 1 pixel at most.
        """
        mei = dict(camera['mei'])
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
        if not camera.get('tangential'):
            mei.update(p1=0.0, p2=0.0)
        values = {name: mei[name] for name in cls._fields if name in mei}
        return cls(**values, cos_theta_max=cosine, rho2_max=min(largest, 1e6))

    def _tangential(self, m: Tensor) -> Tensor:
        x, y = m.unbind(-1)
        square = x * x + y * y
        return torch.stack([2 * self.p1 * x * y + self.p2 * (square + 2 * x * x),
                            self.p1 * (square + 2 * y * y) + 2 * self.p2 * x * y], -1)

    def project(self, xyz: Tensor, size: Tuple[int, int]) -> Tuple[Tensor, Tensor, Tensor]:
        """Project (..., 3) points.

        Returns:
            tuple: pixels (..., 2) as (column, row); depth (...,) = Euclidean range, metres; valid
            (...,) true up to the largest angle of the lens.
        """
        depth = xyz.square().sum(-1).clamp_min(_EPS**2).sqrt()
        n = xyz / depth[..., None]
        m = n[..., :2] / (n[..., 2] + self.xi).clamp_min(_EPS)[..., None]
        square = m.square().sum(-1)
        bent = m * (1 + self.k1 * square + self.k2 * square**2)[..., None] + self._tangential(m)
        pixel = torch.stack([self.gamma1 * bent[..., 0] + self.u0,
                             self.gamma2 * bent[..., 1] + self.v0], -1)
        return pixel, depth, (n[..., 2] >= self.cos_theta_max) & (depth > 2 * _EPS)

    def unproject(self, pixel: Tensor, depth: Tensor, size: Tuple[int, int]) -> Tensor:
        """(..., 2) pixels and (...,) ranges to points, exact up to the one-to-one limit.

        Ten steps of Newton's method on rho^2, which is smooth at the centre; a pixel beyond the
        limit gives a ray at the limit.
        """
        xi, k1, k2, largest = self.xi, self.k1, self.k2, self.rho2_max
        column, row = pixel.unbind(-1)
        bent = torch.stack([(column - self.u0) / self.gamma1, (row - self.v0) / self.gamma2], -1)
        m, square = bent, bent.square().sum(-1)
        for _ in range(10):
            target = bent - self._tangential(m)
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


class Equidistant(NamedTuple):
    """Equidistant projection of a fisheye; camera frame x right, y down, z along the axis.

    ``pixel = f theta (x, y) / |(x, y)| + (u0, v0)`` with the angle theta from the axis, valid up to
    ``theta_max`` radians.
    """
    f: Tensor
    u0: Tensor
    v0: Tensor
    theta_max: Tensor

    @classmethod
    def from_dict(cls, camera: Dict) -> 'Equidistant':
        """From a camera dict.

        Args:
            camera (dict): ``equidistant`` {``f``: pixels per radian, ``u0``, ``v0``: the axis};
                ``theta_max_deg``, the angle from the axis up to which the lens shows an image
                (optional, default 180).
        """
        lens = camera['equidistant']
        limit = math.radians(camera.get('theta_max_deg', 180.0))
        return cls(lens['f'], lens['u0'], lens['v0'], limit)

    def project(self, xyz: Tensor, size: Tuple[int, int]) -> Tuple[Tensor, Tensor, Tensor]:
        """Project (..., 3) points.

        Returns:
            tuple: pixels (..., 2) as (column, row); depth (...,) = Euclidean range, metres; valid
            (...,) true up to the largest angle of the lens.
        """
        depth = xyz.square().sum(-1).clamp_min(_EPS**2).sqrt()
        lateral = xyz[..., :2].square().sum(-1).clamp_min(_EPS**2).sqrt()  # smooth on the axis
        theta = torch.atan2(lateral, xyz[..., 2])
        offset = xyz[..., :2] * (self.f * theta / lateral)[..., None]
        pixel = torch.stack([offset[..., 0] + self.u0, offset[..., 1] + self.v0], -1)
        return pixel, depth, (theta <= self.theta_max) & (depth > 2 * _EPS)

    def unproject(self, pixel: Tensor, depth: Tensor, size: Tuple[int, int]) -> Tensor:
        """(..., 2) pixels and (...,) ranges to points; beyond the limit a ray at the limit."""
        column, row = pixel.unbind(-1)
        offset = torch.stack([column - self.u0, row - self.v0], -1) / self.f[..., None]
        angle = offset.square().sum(-1).clamp_min(_EPS**2).sqrt()
        theta = torch.minimum(angle, self.theta_max)
        ray = torch.cat([offset * (theta.sin() / angle)[..., None], theta.cos()[..., None]], -1)
        return ray * depth[..., None]


LENSES = dict(equirect=Equirect, pinhole=Pinhole, mei=MEI, equidistant=Equidistant)


def lens_of(camera: Dict):
    """The lens of one camera dict; its parameters are float64 tensors of shape ()."""
    lens = LENSES[camera['lens']]
    return lens(*torch.tensor(lens.from_dict(camera), dtype=torch.float64))


@dataclass(frozen=True)
class CameraRig:
    """A batch of N calibrated cameras of one lens type.

    Args:
        lens (str): ``'equirect'``, ``'pinhole'``, ``'mei'`` or ``'equidistant'``.
        lidar2cam (Tensor): (B, N, 4, 4) float32 transforms from the *augmented* LiDAR frame to the
            camera frames: BEV augmentation is undone in them.
        params (Tensor): (B, N, P) lens parameters, in the order of :attr:`param_names`.
        raw_size (tuple): (H, W) of the image that the lens model describes.
        size (tuple): (H, W) of the augmented image that the network receives.
        img_aug (Tensor): (B, N, 3, 3) raw pixel to augmented pixel.
        fingerprint (tuple): Equal for rigs with equal geometry; the key of cached geometry.
        bev_aug (Tensor, optional): (B, 4, 4) float32 LiDAR frame to augmented LiDAR frame, where
            the data has one. ``lidar2cam`` contains it; depth nets read it.
        calibration (CameraRig, optional): The rig whose calibration depth nets read in place of
            this one's: the newest, of past images, whose extrinsics contain the ego motion.
    """
    lens: str
    lidar2cam: Tensor
    params: Tensor
    raw_size: Tuple[int, int]
    size: Tuple[int, int]
    img_aug: Tensor
    fingerprint: Tuple = ()
    bev_aug: Optional[Tensor] = None
    calibration: Optional['CameraRig'] = None

    @classmethod
    def from_dicts(cls, cameras: Sequence[Sequence[Dict]], bev_aug: Sequence[np.ndarray] = None,
                   device='cpu') -> 'CameraRig':
        """Stack the camera dicts of a batch: ``cameras[sample][view]``.

        Each dict has ``lens``, ``lidar2cam`` (4, 4), ``height`` and ``width`` of the current
        image, ``img_aug`` (3, 3) raw to current pixel (optional), ``raw_height``/``raw_width`` if
        they differ, and the lens's own keys; see the ``from_dict`` of :data:`LENSES`.
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
        read = LENSES[first['lens']].from_dict
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
        if first['lens'] == 'equirect' and any(
                (c.get('raw_height', c['height']), c.get('raw_width', c['width'])) != raw_size
                for views in cameras for c in views):
            raise ValueError('panoramas of one batch must have one raw size; resize them in the '
                             'loader, or load them with batch_size 1')
        # One distinct geometry is stored once, whatever the batch size: batches of a fixed rig
        # share their cached sampling positions.
        if all((value == value[:1]).all() for value in arrays.values()):
            arrays = {key: value[:1] for key, value in arrays.items()}
        fingerprint = (first['lens'], raw_size, size, arrays['lidar2cam'].shape[:2],
                       *(value.tobytes() for value in arrays.values()))
        tensors = {key: torch.as_tensor(value, dtype=torch.float32, device=device)
                   for key, value in arrays.items()}
        if bev_aug is not None:
            tensors['bev_aug'] = torch.as_tensor(np.asarray(bev_aug), dtype=torch.float32,
                                                 device=device)
        return cls(first['lens'], raw_size=raw_size, size=size, fingerprint=fingerprint, **tensors)

    @property
    def param_names(self) -> Tuple[str, ...]:
        """What the P columns of ``params`` are."""
        return LENSES[self.lens]._fields

    def _lens(self):
        """The lens of all views, with parameters of shape (B, N, 1)."""
        return LENSES[self.lens](*self.params[:, :, None].unbind(-1))

    @property
    def cam2lidar(self) -> Tensor:
        """(B, N, 4, 4) from the camera frames to the augmented LiDAR frame."""
        return invert(self.lidar2cam)

    @property
    def num_geometries(self) -> int:
        """B, or 1 when all samples of the batch share their geometry."""
        return self.lidar2cam.shape[0]

    def geometry(self, index: int) -> 'CameraRig':
        """The rig of one geometry; its ``num_geometries`` is 1."""
        one = {name: getattr(self, name)[index:index + 1]
               for name in ('lidar2cam', 'params', 'img_aug')}
        if self.bev_aug is not None:
            one['bev_aug'] = self.bev_aug[index:index + 1]
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
            pixel, depth, valid = self._lens().project(local, self.raw_size)
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
            local = self._lens().unproject(raw_pixel, depth.float(), self.raw_size)
            rotation = _inverse(self.lidar2cam[..., :3, :3])
            return (local - self.lidar2cam[..., None, :3, 3]) @ rotation.transpose(-1, -2)

    @property
    def wraps(self) -> bool:
        """Whether columns continue across the image's left and right border."""
        return self.lens == 'equirect'


def _transform(matrix: Tensor, points: Tensor) -> Tensor:
    """(..., 4, 4) on (..., P, 3), column-vector convention."""
    return points @ matrix[..., :3, :3].transpose(-1, -2) + matrix[..., None, :3, 3]


def invert(matrix: Tensor) -> Tensor:
    """Inverse of (..., 4, 4) affine transforms, of plain products."""
    linear = _inverse(matrix[..., :3, :3])
    translation = -(linear @ matrix[..., :3, 3:])
    top = torch.cat([linear, translation], -1)
    return torch.cat([top, matrix[..., 3:, :]], -2)


def _inverse(matrix: Tensor) -> Tensor:
    """Of (..., 3, 3) matrices, by their cofactors: plain products, which every runtime has."""
    a, b, c = matrix.unbind(-2)
    cofactors = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -1)
    return cofactors / (a * cofactors[..., 0]).sum(-1)[..., None, None]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a.roll(-1, -1) * b.roll(-2, -1) - a.roll(-2, -1) * b.roll(-1, -1)
