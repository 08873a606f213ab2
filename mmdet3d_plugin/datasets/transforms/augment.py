"""Augmentation of the whole sample: images, points, boxes and BEV together."""
import math

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ...errors import UserError
from ...geometry import rigid
from ...structures import fields

_STEPS_WITHOUT_PANORAMA = 3600
_FLIP_Y = np.diag([1.0, -1.0, 1.0, 1.0])


@TRANSFORMS.register_module()
class RandomYaw(BaseTransform):
    """Rotate the whole sample about the vertical axis, and perhaps flip it.

    Panoramas and the LiDAR image are rolled by whole columns (nothing is resampled), the points
    are transformed, and ``bev_aug`` makes boxes and targets follow. Goes after the loaders and
    :class:`BuildLiDARImage`, before :class:`RasterizeBEV`::

        train_pipeline = [load_camera, load_scan, lidar_image, dict(type='RandomYaw'), targets,
                          dict(type='PackBEVInputs')]

    Convention: with the transform ``G = Rz(yaw) [flip y]`` of the LiDAR frame, ``p_aug = G p``,
    a panorama rolled by ``k`` of its W columns to the right is what a camera sees whose axes are
    rotated by ``yaw = -2 pi k / W``. Its ``lidar2cam`` from the raw frame becomes
    ``G lidar2cam``, and :class:`CameraRig`, which undoes ``bev_aug``, projects augmented points by

        ``(G lidar2cam) (G bev_aug)^-1``.

    Without horizontal offset and tilt between camera and LiDAR, ``G`` and ``lidar2cam`` commute:
    the rig stays as it was, bit for bit, and cached geometry with it (with a flip, only if both
    look the same way). Otherwise each sample has a rig of its own and its geometry is computed
    anew, which is correct but slower. Images of other lenses stay; their rigs follow ``bev_aug``.

    Args:
        max_deg (float): Largest angle to either side, degrees.
        flip (float): Probability of swapping left and right.

    Raises:
        UserError: Targets were rasterised before, or a panorama does not cover 360 degrees.
    """

    def __init__(self, max_deg: float = 180.0, flip: float = 0.0):
        if not 0 <= max_deg <= 180:
            raise UserError(f'max_deg: expected 0 to 180, got {max_deg}')
        if not 0 <= flip <= 1:
            raise UserError(f'flip: expected a probability, got {flip}')
        self.max_deg, self.flip = max_deg, flip

    def transform(self, results: dict) -> dict:
        """Draw a transform and apply it."""
        if fields.GT_BEV in results:
            raise UserError('RandomYaw: the targets are rasterised already; put it before '
                            'RasterizeBEV in the pipeline')
        cameras = [c for c in results.get(fields.CAMERAS, ()) if _is_panorama(c)]
        if fields.LIDAR_IMG in results:
            cameras.append(results[fields.LIDAR_CAMERA])
        steps = math.gcd(*(c['width'] for c in cameras)) or _STEPS_WITHOUT_PANORAMA
        limit = int(steps * self.max_deg / 360)
        step = int(torch.randint(-limit, min(limit + 1, steps - limit), ()))
        return rotate(results, step, steps, flip=bool(torch.rand(()) < self.flip))


def rotate(results: dict, step: int, steps: int, flip: bool = False) -> dict:
    """Flip the sample if asked, then rotate it clockwise by ``step / steps`` of 360 degrees.

    Args:
        results (dict): A frame in the pipeline.
        step, steps (int): ``steps`` divides the width of every panorama.
        flip (bool): Swap left and right.
    """
    # Rounding makes rotations by 90 degrees exact.
    bev_aug = rigid.yaw_matrix(-2 * math.pi * step / steps).round(15)
    bev_aug = bev_aug @ _FLIP_Y if flip else bev_aug

    def roll(image, axis):
        image = np.flip(image, axis) if flip else image
        return np.roll(image, step * (image.shape[axis] // steps), axis)

    def rotate_camera(camera):
        return dict(camera, lidar2cam=bev_aug @ camera['lidar2cam'])

    views = list(zip(results.get(fields.IMG, ()), results.get(fields.CAMERAS, ())))
    if views:
        views = [(roll(image, 1), rotate_camera(camera)) if _is_panorama(camera)
                 else (image, camera) for image, camera in views]
        results[fields.IMG], results[fields.CAMERAS] = map(list, zip(*views))
    if 'coverage' in results:
        results['coverage'] = roll(results['coverage'], 1)
    if fields.LIDAR_IMG in results:
        results[fields.LIDAR_IMG] = roll(results[fields.LIDAR_IMG], 2)
        results[fields.LIDAR_CAMERA] = rotate_camera(results[fields.LIDAR_CAMERA])
    apply_bev_aug(results, bev_aug)
    return results


@TRANSFORMS.register_module()
class GlobalRotScaleTransFlip(BaseTransform):
    """Rotate, translate, scale and flip the scene under the images; BEVFusion's augmentation.

    Convention: ``p_aug = F s (R p + t)`` with the yaw R, the translation t, the scale s and the
    flips F; this ``bev_aug`` transforms the points here, and boxes, targets and rigs follow it.
    Images stay.

    Args:
        scale_range (tuple): Range of s.
        rot_deg (float): Largest yaw to either side, degrees.
        translation_std (float): Standard deviation of each coordinate of t, metres.
        flip (tuple): Probabilities of negating x and of negating y.

    Raises:
        UserError: Targets were rasterised before.
    """

    def __init__(self, scale_range=(0.9, 1.1), rot_deg: float = 45.0,
                 translation_std: float = 0.5, flip=(0.5, 0.5)):
        self.scale_range, self.rot_deg = tuple(scale_range), rot_deg
        self.translation_std, self.flip = translation_std, tuple(flip)

    def transform(self, results: dict) -> dict:
        """Draw a transform and apply it."""
        if fields.GT_BEV in results:
            raise UserError('GlobalRotScaleTransFlip: the targets are rasterised already; put it '
                            'before RasterizeMap or RasterizeBEV in the pipeline')
        low, high = self.scale_range
        scale = low + (high - low) * float(torch.rand(()))
        yaw = math.radians(self.rot_deg) * (2 * float(torch.rand(())) - 1)
        translation = self.translation_std * torch.randn(3).double().numpy()
        signs = [-1.0 if p else 1.0 for p in (torch.rand(2) < torch.tensor(self.flip)).tolist()]
        bev_aug = rigid.rigid(translation=translation) @ rigid.yaw_matrix(yaw)
        bev_aug = np.diag([*signs, 1.0, 1.0]) @ np.diag([scale, scale, scale, 1.0]) @ bev_aug
        apply_bev_aug(results, bev_aug)
        return results


def apply_bev_aug(results: dict, bev_aug: np.ndarray) -> None:
    """Add a (4, 4) transform to a frame's ``bev_aug``, and transform its points if any."""
    results[fields.BEV_AUG] = bev_aug @ results.get(fields.BEV_AUG, np.eye(4))
    for key in filter(fields.is_points, list(results)):
        points = results[key] = results[key].clone()
        xyz = rigid.apply(bev_aug, points.tensor[:, :3].double().numpy())
        points.tensor[:, :3] = torch.from_numpy(xyz)


def _is_panorama(camera: dict) -> bool:
    """Whether the image can be rolled; an equirect image that was cut is an error."""
    if camera['lens'] != 'equirect':
        return False
    scale, shear = np.asarray(camera.get('img_aug', np.eye(3)))[0, :2]
    if shear or round(scale * camera.get('raw_width', camera['width'])) != camera['width']:
        raise UserError(f"RandomYaw: the image of {camera['name']} is not its whole 360-degree "
                        'panorama; put RandomYaw before transforms that crop or rotate it')
    return True
