"""From files to the panorama, the points and the LiDAR image."""
import os
from typing import Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARPoints

from ...errors import UserError
from ...geometry import lidar_image, panorama


def read_picture(path: str, size: Tuple[int, int]) -> np.ndarray:
    """Read a picture of known size as (H, W, 3) uint8 RGB.

    Raises:
        UserError: it is missing, unreadable, or of another size.
    """
    if not os.path.isfile(path):
        raise UserError(f'{path}: no such picture; check data_root')
    picture = cv2.imread(path, cv2.IMREAD_COLOR)
    if picture is None:
        raise UserError(f'{path}: unreadable picture; copy it again')
    if picture.shape[:2] != tuple(size):
        raise UserError(f'{path}: wrong picture size {picture.shape[1]}x{picture.shape[0]}, the '
                        f'info file says {size[1]}x{size[0]}; convert the data set again')
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)


def read_points(path: str, features: int, expected: Optional[int] = None) -> np.ndarray:
    """Read a raw little-endian float32 scan as (P, features).

    Raises:
        UserError: it is missing, cut, or has another number of points than ``expected``.
    """
    try:
        values = np.fromfile(path, '<f4')
    except OSError as error:
        raise UserError(f'{path}: cannot read LiDAR scan: {error.strerror}; check '
                        'data_root') from error
    if values.size % features or (expected and values.size != expected * features) or (
            values.nbytes != os.path.getsize(path)):
        wanted = f'{expected} points' if expected else 'whole points'
        raise UserError(f'{path}: {os.path.getsize(path)} bytes, expected {wanted} of {features} '
                        'float32; the file is cut, copy it again')
    return values.reshape(-1, features)


@TRANSFORMS.register_module()
class LoadDualFisheyePanorama(BaseTransform):
    """The dual-fisheye picture of a frame as an equirect panorama.

    Adds ``img``, a list with one (H, W, 3) uint8 RGB array, and ``cameras``, with its camera.

    Args:
        size (tuple): (H, W) of the panorama.
        sampling (str): ``'bilinear'`` at pixel centres, or ``'release'``: nearest neighbour with
            the end-point-inclusive angles of the KD360 release, bit-equal to it.
        fov_deg (tuple): Elevation of the top and bottom edge, degrees.
        camera (str): Name in the frame's ``images``.
    """

    def __init__(self, size: Tuple[int, int] = (1024, 2048), sampling: str = 'bilinear',
                 fov_deg: Tuple[float, float] = (90, -90), camera: str = 'CAM_PANO'):
        self.size, self.sampling, self.camera = tuple(size), sampling, camera
        self.fov = tuple(np.deg2rad(fov_deg).tolist())
        panorama.dual_fisheye_maps(8, 16, 8, sampling, panorama.THETA_APERTURE_DEG, *self.fov)

    def transform(self, results: dict) -> dict:
        """Load and remap."""
        info = results['images'][self.camera]
        picture = read_picture(info['img_path'], (info['height'], info['width']))
        aperture = info.get('aperture_deg', panorama.THETA_APERTURE_DEG)
        maps = panorama.dual_fisheye_maps(*self.size, info['width'] // 2, self.sampling, aperture,
                                          *self.fov)
        results['img'] = [panorama.remap(picture, maps, nearest=self.sampling == 'release')]
        results['cameras'] = [equirect_camera(self.camera, info['lidar2cam'], self.size, self.fov)]
        return results


def equirect_camera(name: str, lidar2cam, size: Tuple[int, int], fov: Tuple[float, float]) -> dict:
    """Camera dict of an equirect picture; ``fov`` are the elevations of its edges, radians."""
    return dict(name=name, lens='equirect', lidar2cam=np.asarray(lidar2cam, np.float64),
                height=size[0], width=size[1], img_aug=np.eye(3), fov_up=fov[0], fov_down=fov[1])


@TRANSFORMS.register_module()
class LoadOusterScan(BaseTransform):
    """An organised scan of rows x columns points, in firing order.

    Adds ``scan`` (rows, columns, F) float32, staggered, and ``points``, LiDARPoints (P, F').

    Args:
        use_dim (tuple): Columns of the file that ``points`` keeps; the first three are x, y, z.
        drop_no_returns (bool): Leave out points without a return (x = y = z = 0) instead of
            letting them mark the cell of the origin, as the KD360 release does.
    """

    def __init__(self, use_dim: Sequence[int] = (0, 1, 2), drop_no_returns: bool = True):
        self.use_dim, self.drop_no_returns = list(use_dim), drop_no_returns

    def transform(self, results: dict) -> dict:
        """Load."""
        layout, info = results['lidar_image'], results['lidar_points']
        shape = layout['height'], layout['width']
        points = read_points(info['lidar_path'], info['num_pts_feats'], shape[0] * shape[1])
        results['scan'] = points.reshape(*shape, -1)
        used = points[:, self.use_dim]
        if self.drop_no_returns:
            used = used[(points[:, 0] != 0) | (points[:, 1] != 0) | (points[:, 2] != 0)]
        used = torch.from_numpy(used)
        results['points'] = LiDARPoints(used, points_dim=used.shape[1])
        return results


@TRANSFORMS.register_module()
class BuildLiDARImage(BaseTransform):
    """The LiDAR image of an organised scan, and its camera.

    Needs ``scan``; adds ``lidar_img`` (C, h, w) float32 in [0, 1] and ``lidar_camera``, an equirect
    camera whose edges are half a row beyond the outer beams (+-22.5 degrees where the data set
    does not give the beams' angles).

    Args:
        channels (tuple): Of range, ambient, intensity, reflectivity.
        size (tuple): (h, w) of the image.
        max_range (float, optional): Metres at which the range channel is 1; None = the frame's
            own maximum, as in the KD360 release.
        stateful (bool): Smooth exposure and beam offsets over the frames seen by this worker, as
            the release does; by default a frame's image depends on the frame alone.
        interpolation (str): ``'linear'`` or ``'nearest'``.
    """

    FIELDS = dict(range=8, ambient=7, intensity=3, reflectivity=5)

    def __init__(self, channels: Sequence[str] = ('range', 'ambient', 'intensity'),
                 size: Tuple[int, int] = (242, 2048), max_range: Optional[float] = None,
                 stateful: bool = False, interpolation: str = 'linear'):
        unknown = [name for name in channels if name not in self.FIELDS]
        if unknown or not channels:
            raise UserError(f'channels: expected some of {", ".join(self.FIELDS)}, got {channels}')
        if interpolation not in ('linear', 'nearest'):
            raise UserError(f"interpolation: expected 'linear' or 'nearest', got {interpolation!r}")
        self.channels, self.size = tuple(channels), tuple(size)
        self.nearest = interpolation == 'nearest'
        self.process = lidar_image.LiDARImageProcessor(stateful, max_range)

    def transform(self, results: dict) -> dict:
        """Build."""
        layout, scan = results['lidar_image'], results['scan']
        image = np.empty((len(self.channels), *self.size), np.float32)
        for out, name in zip(image, self.channels):
            raw = scan[..., self.FIELDS[name]]
            picture = lidar_image.destagger(raw, layout['pixel_shift_by_row'])
            if name == 'range':
                picture = picture / 1000
            out[:] = lidar_image.resize(self.process(name, picture), *self.size, self.nearest)
        results['lidar_img'] = image
        results['lidar_camera'] = equirect_camera('LIDAR', np.eye(4), self.size,
                                                  (layout['fov_up'], layout['fov_down']))
        return results
