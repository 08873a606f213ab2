"""Augmentation of the whole sample: pictures, points, boxes and BEV together."""
import math

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ...errors import UserError
from ...geometry import rigid
from ...structures import fields

_STEPS_WITHOUT_PANORAMA = 3600
_MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])


@TRANSFORMS.register_module()
class RandomYaw(BaseTransform):
    """Turn, and perhaps mirror, the whole sample about the vertical axis.

    Panoramas and the LiDAR image are rolled by whole columns (nothing is resampled), the points
    move, and ``bev_aug`` makes boxes and targets follow. Goes after the loaders and
    :class:`BuildLiDARImage`, before :class:`RasterizeBEV`::

        train_pipeline = [load_camera, load_scan, lidar_image, dict(type='RandomYaw'), targets,
                          dict(type='PackBEVInputs')]

    Convention: with the motion ``G = Rz(yaw) [mirror y]`` of the LiDAR frame, ``p_aug = G p``, a
    panorama rolled by ``k`` of its W columns to the right is what a camera sees whose axes turned
    by ``yaw = -2 pi k / W``. Its ``lidar2cam`` from the raw frame becomes ``G lidar2cam``, and
    :class:`CameraRig`, which undoes ``bev_aug``, projects augmented points by

        ``(G lidar2cam) (G bev_aug)^-1``.

    Without horizontal offset and tilt between camera and LiDAR, ``G`` and ``lidar2cam`` commute:
    the rig stays as it was, bit for bit, and cached geometry with it (mirrored, only if both look
    the same way). Otherwise each sample's rig is another and its geometry is computed anew, which
    is right but slower. Pictures of other lenses stay; their rigs follow ``bev_aug``.

    Args:
        max_deg (float): Largest angle to either side, degrees.
        mirror (float): Probability of swapping left and right.

    Raises:
        UserError: Targets were rasterised before, or a panorama is not a whole turn.
    """

    def __init__(self, max_deg: float = 180.0, mirror: float = 0.0):
        if not 0 <= max_deg <= 180:
            raise UserError(f'max_deg: expected 0 to 180, got {max_deg}')
        if not 0 <= mirror <= 1:
            raise UserError(f'mirror: expected a probability, got {mirror}')
        self.max_deg, self.mirror = max_deg, mirror

    def transform(self, results: dict) -> dict:
        """Draw a motion and apply it."""
        if fields.GT_BEV in results:
            raise UserError('RandomYaw: the targets are rasterised already; put it before '
                            'RasterizeBEV in the pipeline')
        cameras = [c for c in results.get(fields.CAMERAS, ()) if _is_panorama(c)]
        if fields.LIDAR_IMG in results:
            cameras.append(results[fields.LIDAR_CAMERA])
        steps = math.gcd(*(c['width'] for c in cameras)) or _STEPS_WITHOUT_PANORAMA
        limit = int(steps * self.max_deg / 360)
        step = int(torch.randint(-limit, min(limit + 1, steps - limit), ()))
        return move(results, step, steps, mirror=bool(torch.rand(()) < self.mirror))


def move(results: dict, step: int, steps: int, mirror: bool = False) -> dict:
    """Mirror the sample if asked, then turn it clockwise by ``step / steps`` of a turn.

    Args:
        results (dict): A frame in the pipeline.
        step, steps (int): ``steps`` divides the width of every panorama.
        mirror (bool): Swap left and right.
    """
    # Rounding makes quarter turns exact.
    motion = rigid.yaw_matrix(-2 * math.pi * step / steps).round(15)
    motion = motion @ _MIRROR if mirror else motion

    def roll(picture, axis):
        picture = np.flip(picture, axis) if mirror else picture
        return np.roll(picture, step * (picture.shape[axis] // steps), axis)

    def turn(camera):
        return dict(camera, lidar2cam=motion @ camera['lidar2cam'])

    results[fields.BEV_AUG] = motion @ results.get(fields.BEV_AUG, np.eye(4))
    views = list(zip(results.get(fields.IMG, ()), results.get(fields.CAMERAS, ())))
    if views:
        views = [(roll(p, 1), turn(c)) if _is_panorama(c) else (p, c) for p, c in views]
        results[fields.IMG], results[fields.CAMERAS] = map(list, zip(*views))
    if 'coverage' in results:
        results['coverage'] = roll(results['coverage'], 1)
    if fields.LIDAR_IMG in results:
        results[fields.LIDAR_IMG] = roll(results[fields.LIDAR_IMG], 2)
        results[fields.LIDAR_CAMERA] = turn(results[fields.LIDAR_CAMERA])
    move_points(results, motion)
    return results


@TRANSFORMS.register_module()
class AugmentBEV(BaseTransform):
    """Turn, shift, scale and mirror the scene under the pictures; BEVFusion's augmentation.

    Convention: ``p_aug = F s (R p + t)`` with the yaw R, the shift t, the scale s and the mirrors
    F; this ``bev_aug`` moves the points here, and boxes, targets and rigs follow it. Pictures stay.

    Args:
        scale (tuple): Range of s.
        yaw_deg (float): Largest angle to either side, degrees.
        shift (float): Standard deviation of each coordinate of t, metres.
        mirror (tuple): Probabilities of negating x and of negating y.

    Raises:
        UserError: Targets were rasterised before.
    """

    def __init__(self, scale=(0.9, 1.1), yaw_deg: float = 45.0, shift: float = 0.5,
                 mirror=(0.5, 0.5)):
        self.scale, self.yaw_deg, self.shift = tuple(scale), yaw_deg, shift
        self.mirror = tuple(mirror)

    def transform(self, results: dict) -> dict:
        """Draw a motion and apply it."""
        if fields.GT_BEV in results:
            raise UserError('AugmentBEV: the targets are rasterised already; put it before '
                            'RasterizeMap or RasterizeBEV in the pipeline')
        low, high = self.scale
        scale = low + (high - low) * float(torch.rand(()))
        yaw = math.radians(self.yaw_deg) * (2 * float(torch.rand(())) - 1)
        shift = self.shift * torch.randn(3).double().numpy()
        signs = [-1.0 if p else 1.0 for p in (torch.rand(2) < torch.tensor(self.mirror)).tolist()]
        motion = rigid.rigid(translation=shift) @ rigid.yaw_matrix(yaw)
        motion = np.diag([*signs, 1.0, 1.0]) @ np.diag([scale, scale, scale, 1.0]) @ motion
        results[fields.BEV_AUG] = motion @ results.get(fields.BEV_AUG, np.eye(4))
        move_points(results, motion)
        return results


def move_points(results: dict, motion: np.ndarray) -> None:
    """Move the points of a frame by a (4, 4) motion, if there are any."""
    if fields.POINTS in results:
        points = results[fields.POINTS] = results[fields.POINTS].clone()
        moved = rigid.apply(motion, points.tensor[:, :3].double().numpy())
        points.tensor[:, :3] = torch.from_numpy(moved)


def _is_panorama(camera: dict) -> bool:
    """Whether the picture can be rolled; an equirect picture that was cut is an error."""
    if camera['lens'] != 'equirect':
        return False
    scale, shear = np.asarray(camera.get('img_aug', np.eye(3)))[0, :2]
    if shear or round(scale * camera.get('raw_width', camera['width'])) != camera['width']:
        raise UserError(f"RandomYaw: the picture of {camera['name']} is not the whole turn of its "
                        'panorama; put RandomYaw before transforms that cut or turn pictures')
    return True
