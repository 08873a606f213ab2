"""From files to the panorama, the points and the LiDAR image.

``requires`` and ``provides`` of a transform are the entries of the frame that it reads and adds;
see :class:`Cached`. ``prepare`` computes what all frames of a calibration share, such as sampling
maps. :class:`BEVDataset` calls it once, so that workers which are forked share the memory; spawned
ones compute their own.
"""
import json
import logging
import os
from functools import lru_cache
from typing import Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARPoints
from mmengine.logging import print_log

from ...errors import FrameError, UserError
from ...geometry import lidar_image, panorama, rigid
from ...structures import check_points, read_image

_REPEATED = 1 / 12
"""Seconds between a frame and past images that are its own; nuScenes' cameras have 12 Hz."""


def load_image(path: str, size: Tuple[int, int]) -> np.ndarray:
    """Read an image of known size as (H, W, 3) uint8 RGB.

    Raises:
        FrameError: it is missing, unreadable, or of another size.
    """
    if not os.path.isfile(path):
        raise FrameError(f'{path}: no such image; check data_root', 'image')
    image = read_image(path, size)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def load_camera(info: dict) -> np.ndarray:
    """The image of a camera as (H, W, 3) uint8 RGB: its file's, or its entry ``img`` (BGR)."""
    if 'img' in info:
        return cv2.cvtColor(info['img'], cv2.COLOR_BGR2RGB)
    return load_image(info['img_path'], (info['height'], info['width']))


def load_dual_fisheye(info: dict) -> np.ndarray:
    """The image of a dual-fisheye camera as (side, 2 * side, 3) uint8 RGB.

    Raises:
        UserError: The image is a panorama.
    """
    image = load_camera(info)
    if panorama.is_panorama(image):
        raise UserError(f'{info.get("img_path", "the image")}: expected a dual-fisheye image, got '
                        "a panorama; load it with dict(type='LoadPanorama') in place of the "
                        'loader of the config')
    return image


def dual_fisheye_of(results: dict, name: str) -> dict:
    """The camera of a frame that is a dual fisheye.

    Raises:
        UserError: There is no such camera, or it is another one.
    """
    info = require_key(require_key(results, 'images'), name)
    if 'lens' in info and info.get('source_lens') != 'dual_fisheye':
        hint = "; load a panorama with dict(type='LoadPanorama')" if (
            info.get('lens') == 'equirect') else ''
        raise UserError(f"images.{name}: expected source_lens 'dual_fisheye', which the loader of "
                        f"the config needs, got {info.get('source_lens')!r} with the lens "
                        f"{info.get('lens')!r}{hint}")
    return info


def read_points(path: str, features: int, expected: Optional[int] = None) -> np.ndarray:
    """Read a raw little-endian float32 scan as (P, features).

    Raises:
        FrameError: it is missing, cut, has another number of points than ``expected``, values
            that are not finite, or no return at all.
    """
    try:
        values = np.fromfile(path, '<f4')
    except OSError as error:
        raise FrameError(f'{path}: cannot read LiDAR scan: {error.strerror}; check data_root',
                         'scan') from error
    if values.size % features or (expected and values.size != expected * features) or (
            values.nbytes != os.path.getsize(path)):
        wanted = f'{expected} points' if expected else 'whole points'
        raise FrameError(f'{path}: {os.path.getsize(path)} bytes, expected {wanted} of {features} '
                         'float32; the file is cut, copy it again', 'scan')
    points = values.reshape(-1, features)
    check_points(points, path)
    return points


def require_key(info: dict, key: str) -> dict:
    """A part of a frame that a loader needs.

    Raises:
        UserError: the info file does not have it.
    """
    if key not in info:
        raise UserError(f'the info file has no {key!r} where this loader needs it; convert the '
                        'data set again, or choose a loader that fits it')
    return info[key]


def scan_layout(results: dict, projection: Optional[str] = None) -> dict:
    """What all scans of the data set share (``lidar_image`` of the info file).

    Raises:
        UserError: the info file does not say it, or says another projection.
    """
    layout = require_key(results, 'lidar_image')
    if projection and layout.get('projection', projection) != projection:
        raise UserError(f'the scans of the info file are {layout["projection"]}, this loader needs '
                        f'{projection} ones; choose a loader that fits them')
    return layout


@TRANSFORMS.register_module()
class LoadDualFisheyePanorama(BaseTransform):
    """The dual-fisheye image of a frame as an equirect panorama.

    Adds ``img``, a list with one (H, W, 3) uint8 RGB array, and ``cameras``, with its camera.

    Args:
        size (tuple): (H, W) of the panorama.
        sampling (str): ``'bilinear'`` at pixel centres, or ``'release'``: nearest neighbour with
            the end-point-inclusive angles of the KD360 release, bit-equal to it.
        fov_deg (tuple): Elevation of the top and bottom edge, degrees.
        camera (str): Name in the frame's ``images``.
        concentric (bool): Assume that camera and LiDAR share origin and axes, as the release does,
            whatever the data set's calibration says.
    """

    requires, provides = ('images', ), ('img', 'cameras')

    def __init__(self, size: Tuple[int, int] = (1024, 2048), sampling: str = 'bilinear',
                 fov_deg: Tuple[float, float] = (90, -90), camera: str = 'CAM_PANO',
                 concentric: bool = False):
        self.size, self.sampling, self.camera = tuple(size), sampling, camera
        self.concentric = concentric
        self.fov = tuple(np.deg2rad(fov_deg).tolist())
        panorama.dual_fisheye_maps(8, 16, 8, sampling, panorama.THETA_APERTURE_DEG, *self.fov)

    def transform(self, results: dict) -> dict:
        """Load and remap."""
        image = load_dual_fisheye(dual_fisheye_of(results, self.camera))
        nearest = self.sampling == 'release'
        results['img'] = [panorama.remap(image, self.prepare(results), nearest)]
        results['cameras'] = self.cameras_of(results)
        return results

    def cameras_of(self, results: dict) -> list:
        """The camera of the panorama."""
        info = dual_fisheye_of(results, self.camera)
        lidar2cam = np.eye(4) if self.concentric else info['lidar2cam']
        return [equirect_camera(self.camera, lidar2cam, self.size, self.fov)]

    def prepare(self, results: dict) -> tuple:
        """The sampling maps of a frame; those of the last calibrations are kept."""
        info = dual_fisheye_of(results, self.camera)
        aperture = info.get('aperture_deg', panorama.THETA_APERTURE_DEG)
        return panorama.dual_fisheye_maps(*self.size, info['width'] // 2, self.sampling, aperture,
                                          *self.fov)


@TRANSFORMS.register_module()
class LoadDualFisheye(BaseTransform):
    """The two image circles of a dual-fisheye image as they are, each a camera of its own.

    Adds ``img``, a list with the front and the rear lens's (H, W, 3) uint8 RGB arrays, upright, and
    ``cameras``, theirs, with the lens ``equidistant``. Nothing is resampled: a pixel is the file's.

    Args:
        rows (tuple): Part of the circles' height that is kept, from the top; (0, 1) is all.
        camera (str): Name in the frame's ``images``.
        concentric (bool): As in :class:`LoadDualFisheyePanorama`.
    """

    requires, provides = ('images', ), ('img', 'cameras')

    def __init__(self, rows: Tuple[float, float] = (0, 1), camera: str = 'CAM_PANO',
                 concentric: bool = False):
        if not 0 <= rows[0] < rows[1] <= 1:
            raise UserError(f'LoadDualFisheye.rows: expected two parts of the height such as '
                            f'(0.25, 0.875), got {rows}')
        self.rows, self.camera, self.concentric = tuple(rows), camera, concentric

    def transform(self, results: dict) -> dict:
        """Load, turn and crop."""
        info = dual_fisheye_of(results, self.camera)
        image = load_dual_fisheye(info)
        top, bottom = self.kept(info['width'] // 2)
        results['img'] = [np.ascontiguousarray(view[top:bottom])
                          for view in panorama.dual_fisheye_views(image)]
        results['cameras'] = self.cameras_of(results)
        return results

    def kept(self, side: int) -> Tuple[int, int]:
        """First row of a circle of ``side`` pixels that is kept, and the row after the last."""
        return tuple(round(part * side) for part in self.rows)

    def cameras_of(self, results: dict) -> list:
        """The front and the rear camera."""
        info = dual_fisheye_of(results, self.camera)
        top, bottom = self.kept(info['width'] // 2)
        cameras = panorama.dual_fisheye_cameras(
            np.eye(4) if self.concentric else info['lidar2cam'], info['width'] // 2,
            info.get('aperture_deg', panorama.THETA_APERTURE_DEG))
        for camera in cameras:
            camera['height'] = bottom - top
            camera['equidistant']['v0'] -= top
        return list(cameras)


def equirect_camera(name: str, lidar2cam, size: Tuple[int, int], fov: Tuple[float, float]) -> dict:
    """Camera dict of an equirect image; ``fov`` are the elevations of its edges, radians."""
    return dict(name=name, lens='equirect', lidar2cam=np.asarray(lidar2cam, np.float64),
                height=size[0], width=size[1], img_aug=np.eye(3), fov_up=fov[0], fov_down=fov[1])


@TRANSFORMS.register_module()
class LoadPanorama(BaseTransform):
    """An image that is an equirect panorama already.

    Its camera in the info file has the lens ``equirect`` and no ``source_lens``; ``fov_up`` and
    ``fov_down`` are the elevations of its edges, by default those of a full sphere. Whole rows are
    cut to ``fov_deg``, then the rest is resized. Adds ``img``, a list with one (H, W, 3) uint8 RGB
    array, and ``cameras``, with its camera, whose elevations are those of the rows that were kept.

    Args:
        size (tuple): (H, W) of the panorama.
        fov_deg (tuple): Elevation of the top and bottom edge, degrees.
        camera (str): Name in the frame's ``images``.
        concentric (bool): As in :class:`LoadDualFisheyePanorama`.
    """

    requires, provides = ('images', ), ('img', 'cameras')

    def __init__(self, size: Tuple[int, int] = (1024, 2048),
                 fov_deg: Tuple[float, float] = (90, -90), camera: str = 'CAM_PANO',
                 concentric: bool = False):
        self.size, self.camera, self.concentric = tuple(size), camera, concentric
        self.fov = tuple(np.deg2rad(fov_deg).tolist())

    def transform(self, results: dict) -> dict:
        """Load, crop and resize."""
        top, bottom, _ = self._rows(results)
        image = load_camera(results['images'][self.camera])[top:bottom]
        if image.shape[:2] != self.size:
            shrinks = self.size[0] <= len(image) and self.size[1] <= image.shape[1]
            image = cv2.resize(image, self.size[::-1], interpolation=(
                cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
        results['img'] = [np.ascontiguousarray(image)]
        results['cameras'] = self.cameras_of(results)
        return results

    def cameras_of(self, results: dict) -> list:
        """The camera of the panorama."""
        fov = self._rows(results)[2]
        lidar2cam = np.eye(4) if self.concentric else results['images'][self.camera]['lidar2cam']
        return [equirect_camera(self.camera, lidar2cam, self.size, fov)]

    def rows_of(self, results: dict) -> Tuple[int, int]:
        """First row of the image that is kept, and the row after the last."""
        return self._rows(results)[:2]

    def _rows(self, results):
        """First row that is kept, the row after the last, and the elevations of their edges."""
        info = require_key(require_key(results, 'images'), self.camera)
        if info.get('lens') != 'equirect' or 'source_lens' in info:
            raise UserError(f"images.{self.camera}: LoadPanorama needs the lens 'equirect' and no "
                            f"source_lens, got {info.get('lens')!r} and "
                            f"{info.get('source_lens')!r}; choose a loader that fits it")
        up, down = info.get('fov_up', np.pi / 2), info.get('fov_down', -np.pi / 2)
        row = (up - down) / info['height']
        top, bottom = (round((up - edge) / row) for edge in self.fov)
        if not 0 <= top < bottom <= info['height']:
            raise UserError(f'images.{self.camera}: the panorama shows '
                            f'{np.rad2deg(up):.1f} to {np.rad2deg(down):.1f} degrees, LoadPanorama '
                            f'needs {np.rad2deg(self.fov[0]):.1f} to '
                            f'{np.rad2deg(self.fov[1]):.1f}; set its fov_deg')
        return top, bottom, (up - top * row, up - bottom * row)


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """The images of a frame as they are, and perhaps past ones.

    Adds ``img``, a list of (H, W, 3) uint8 RGB arrays, and ``cameras``, theirs. With past images
    both lists hold one time after the other, newest first, and each camera has a ``time``: 0 for
    the frame's own, 1 for the newest past images, and so on; ``past_interval`` is the time between
    the two, seconds. They are chosen from ``image_sweeps``, of those whose files exist; in place of
    one whose file is missing the nearest in time is taken, with a warning. Where there are fewer,
    as at the start of a scene, the oldest time that exists is repeated; if it is the frame's own,
    ``past_interval`` is 1/12 s.

    Args:
        cameras (tuple, optional): Names of the images; default all of the frame, in its order.
        num_past (int): Times before the frame's own, T - 1.
        seconds (tuple, optional): For each past time how long ago it is: a number of seconds, or
            the lowest and the highest, of which one is drawn. Default: the newest ones.
        key_frames (bool): Choose only from images of key frames.

    Raises:
        UserError: ``seconds`` is not one for each past time, or with ``key_frames`` the past images
            of a frame do not say which are key frames'.
    """

    requires, provides = ('images', ), ('img', 'cameras')

    def __init__(self, cameras: Optional[Sequence[str]] = None, num_past: int = 0,
                 seconds: Optional[Sequence] = None, key_frames: bool = False):
        if num_past < 0:
            raise UserError(f'LoadMultiViewImages.num_past: expected >= 0, got {num_past}')
        if seconds is not None and len(seconds) != num_past:
            raise UserError(f'LoadMultiViewImages.seconds: expected {num_past}, one for each past '
                            f'time, got {seconds}')
        self.cameras, self.num_past, self.key_frames = cameras, num_past, key_frames
        self.seconds = [(s, s) if np.isscalar(s) else tuple(s) for s in seconds or ()]
        self._missing = set()
        if num_past:
            drawn = any(low < high for low, high in self.seconds)
            self.requires = None if drawn else ('images', 'image_sweeps')
            self.provides = ('img', 'cameras', 'past_interval')

    def transform(self, results: dict) -> dict:
        """Load."""
        past = self._past(results) if self.num_past else []
        results['cameras'] = self._cameras_of(results, past)
        if past:
            newest = past[0].get('timestamp', results.get('timestamp'))
            results['past_interval'] = (results.get('timestamp', 0) - newest) or _REPEATED
        results['img'] = [load_camera(info) for info in results['cameras']]
        for info in results['cameras']:
            info.pop('img', None)
        return results

    def cameras_of(self, results: dict) -> list:
        """The cameras of the images."""
        return self._cameras_of(results, self._past(results) if self.num_past else [])

    def _cameras_of(self, results, past):
        images = require_key(results, 'images')
        if not past:
            return self._cameras(images)
        return [dict(camera, time=time)
                for time, then in enumerate([images, *(entry['images'] for entry in past)])
                for camera in self._cameras(then, list(self.cameras or images))]

    def _past(self, results) -> list:
        """The entry of each past time, newest first."""
        sweeps = require_key(results, 'image_sweeps')
        times = getattr(sweeps, 'times', None)
        if times is None:
            times = np.array([sweep['timestamp'] for sweep in sweeps])
        left = [int(n) for n in np.arange(len(sweeps))[self._wanted(sweeps)]]
        ages = results.get('timestamp', 0) - times
        chosen = []
        while left and len(chosen) < self.num_past:
            number = self._existing(sweeps, left, self._choose(left, ages, len(chosen)), ages)
            if number is not None:
                chosen.append(sweeps[number])
                left = [n for n in left if n > number]
        last = chosen[-1] if chosen else dict(images=require_key(results, 'images'))
        return chosen + [last] * (self.num_past - len(chosen))

    def _existing(self, sweeps, left, number, ages) -> Optional[int]:
        """An entry, or the nearest in time whose files exist; those that do not leave ``left``."""
        wanted = ages[number]
        while True:
            missing = next((path for path in self._paths(sweeps[number])
                            if not os.path.isfile(path)), None)
            if missing is None:
                return number
            self._warn(missing)
            left.remove(number)
            if not left:
                return None
            number = min(left, key=lambda n: abs(ages[n] - wanted))

    def _paths(self, entry):
        return [camera['img_path'] for name, camera in entry['images'].items()
                if 'img' not in camera and name in (self.cameras or entry['images'])]

    def _warn(self, path):
        """Say once for each file that another is read in its place."""
        if path not in self._missing:
            self._missing.add(path)
            print_log(f'{path}: no such past image, the nearest in time is taken '
                      f'({len(self._missing)} missing so far in this process)', 'current',
                      logging.WARNING)

    def _wanted(self, sweeps):
        if not self.key_frames:
            return slice(None)
        if hasattr(sweeps, 'is_key'):
            return sweeps.is_key
        if len(sweeps) and not any('is_key' in sweep for sweep in sweeps):
            raise UserError("LoadMultiViewImages.key_frames: no entry of image_sweeps has 'is_key' "
                            '(whether it is of a key frame); name the image table of the data set '
                            '(image_table), or leave key_frames out')
        return np.array([sweep.get('is_key', False) for sweep in sweeps], bool)

    def _choose(self, left, ages, time) -> int:
        """Number of the entry for a past time, of those that are left."""
        if not self.seconds:
            return left[0]
        low, high = self.seconds[time]
        inside = [n for n in left if low <= ages[n] <= high]
        if low < high and inside:
            return inside[int(torch.randint(len(inside), ()))]
        return min(left, key=lambda n: max(low - ages[n], ages[n] - high))

    def _cameras(self, images: dict, names: Optional[Sequence[str]] = None) -> list:
        infos = {name: require_key(images, name) for name in names or self.cameras or images}
        return [dict(info, name=name, lidar2cam=np.asarray(info['lidar2cam'], np.float64),
                     img_aug=np.eye(3)) for name, info in infos.items()]


@TRANSFORMS.register_module()
class LoadStitchedPanorama(BaseTransform):
    """The images of a frame (pinholes, fisheyes), stitched into one equirect panorama.

    Adds ``img``, a list with one (H, W, 3) uint8 RGB array, ``cameras``, with its camera, and
    ``coverage`` (H, W) bool, where an image was seen; elsewhere the panorama is black. What
    :func:`geometry.panorama.stitch_maps` says about parallax holds.

    Args:
        size (tuple): (H, W) of the panorama.
        fov_deg (tuple): Elevation of the top and bottom edge, degrees.
        center (tuple): Of the panorama in the LiDAR frame, metres; between the cameras is best.
        radius (float): Assumed distance of what is seen, metres; ``float('inf')`` is allowed.
        ground_z (float, optional): Height of the road in the LiDAR frame, metres.
        feather_px (float): Width of the fade at the images' borders, their pixels; 0 = a hard cut
            where two images meet.
        cameras (tuple, optional): Names of the images; default all of the frame.
        lens (dict, optional): Changes to the cameras of the info file, such as
            ``dict(theta_max_deg=95)`` or ``dict(tangential=True)`` for fisheyes.
    """

    requires, provides = ('images', ), ('img', 'cameras', 'coverage')

    def __init__(self, size: Tuple[int, int] = (256, 2048),
                 fov_deg: Tuple[float, float] = (22.5, -22.5),
                 center: Sequence[float] = (0.0, 0.0, 0.0), radius: float = 20.0,
                 ground_z: Optional[float] = None, feather_px: float = 80.0,
                 cameras: Optional[Sequence[str]] = None, lens: Optional[dict] = None):
        self.size, self.fov = tuple(size), tuple(np.deg2rad(fov_deg).tolist())
        self.center, self.cameras, self.lens = tuple(center), cameras, dict(lens or {})
        self.options = (self.center, radius, ground_z, feather_px)

    def transform(self, results: dict) -> dict:
        """Load and stitch."""
        images = [load_camera(view) for view in self._views(results)]
        layers, coverage = self.prepare(results)
        results['img'] = [panorama.stitch(images, layers)]
        results['coverage'] = coverage
        results['cameras'] = self.cameras_of(results)
        return results

    def cameras_of(self, results: dict) -> list:
        """The camera of the panorama."""
        lidar2cam = rigid.rigid(translation=-np.asarray(self.center, np.float64))
        return [equirect_camera('CAM_PANO', lidar2cam, self.size, self.fov)]

    def images_of(self, results: dict) -> dict:
        """Name and (height, width) of the images, in the order in which they are stitched."""
        names = self.cameras or require_key(results, 'images')
        return {name: (view['height'], view['width'])
                for name, view in zip(names, self._views(results))}

    def prepare(self, results: dict) -> tuple:
        """The maps of a frame; those of the last calibrations are kept."""
        views = [{k: v for k, v in view.items() if k not in ('img', 'img_path')}
                 for view in self._views(results)]
        key = json.dumps(views, default=lambda array: np.asarray(array).tolist())
        return _stitch_maps(key, *self.size, *self.fov, *self.options)

    def _views(self, results):
        images = require_key(results, 'images')
        return [{**require_key(images, name), **self.lens} for name in self.cameras or images]


@lru_cache(maxsize=4)
def _stitch_maps(cameras: str, *args):
    return panorama.stitch_maps(json.loads(cameras), *args)


@TRANSFORMS.register_module()
class LoadPointCloud(BaseTransform):
    """A scan without order: P points of F float32.

    Adds ``scan`` (P, F) float32 as on disk, and ``points``, LiDARPoints (P', F'). Where the file
    has axes of its own (``scan2lidar`` of ``lidar_points``), both are in the LiDAR frame, and
    ``scan`` lacks points without a return.

    Args:
        use_dim (tuple): Columns of the file that ``points`` keeps; the first three are x, y, z.
        drop_no_returns (bool): Leave out points without a return (x = y = z = 0) instead of
            letting them mark the cell of the origin, as the KD360 release does.
        min_range (float): Leave out points nearer than this (echoes of the vehicle itself), metres.
        undistort (bool): Correct the scan for the vehicle's motion, where the info file knows it.
    """

    requires, provides = ('lidar_points', 'lidar_image'), ('scan', 'points')

    def __init__(self, use_dim: Sequence[int] = (0, 1, 2), drop_no_returns: bool = True,
                 min_range: float = 0.0, undistort: bool = False):
        self.use_dim, self.min_range = list(use_dim), min_range
        self.drop_no_returns, self.undistort = drop_no_returns, undistort

    def transform(self, results: dict) -> dict:
        """Load."""
        info, shape = require_key(results, 'lidar_points'), self._shape(results)
        expected = int(np.prod(shape)) if shape else None
        points = read_points(info['lidar_path'], info['num_pts_feats'], expected)
        if self.undistort and 'motion' in info:
            points = lidar_image.undistort(points, info['motion'])
        if 'scan2lidar' in info:  # points without a return are at the origin of the LiDAR
            points = points[points[:, :3].any(1)]
        x, y, z = points[:, :3].T
        kept = None
        if self.min_range > 0:
            kept = x * x + y * y + z * z >= self.min_range ** 2
        elif self.drop_no_returns:
            kept = (x != 0) | (y != 0) | (z != 0)
        if 'scan2lidar' in info:
            moved = rigid.apply(info['scan2lidar'], points[:, :3].astype(np.float64))
            points = np.concatenate([moved.astype(np.float32), points[:, 3:]], 1)
        results['scan'] = points.reshape(*shape, -1) if shape else points
        used = points if kept is None else points.take(np.flatnonzero(kept), 0)
        used = torch.from_numpy(used.take(self.use_dim, 1))
        results['points'] = LiDARPoints(used, points_dim=used.shape[1])
        return results

    def _shape(self, results):
        return None


@TRANSFORMS.register_module()
class LoadOusterScan(LoadPointCloud):
    """An organised scan of rows x columns points, in firing order.

    Like :class:`LoadPointCloud`, but ``scan`` is (rows, columns, F), staggered, and a file of
    another number of points is an error.
    """

    def _shape(self, results):
        layout = scan_layout(results, 'staggered')
        return layout['height'], layout['width']


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
        fov_deg (tuple, optional): Elevation of the top and bottom edge, degrees, in place of the
            data set's beams; the release assumes (22.5, -22.5).
    """

    FIELDS = dict(range=8, ambient=7, intensity=3, reflectivity=5)
    requires, provides = ('scan', 'lidar_image'), ('lidar_img', 'lidar_camera')

    def __init__(self, channels: Sequence[str] = ('range', 'ambient', 'intensity'),
                 size: Tuple[int, int] = (242, 2048), max_range: Optional[float] = None,
                 stateful: bool = False, interpolation: str = 'linear',
                 fov_deg: Optional[Tuple[float, float]] = None):
        unknown = [name for name in channels if name not in self.FIELDS]
        if unknown or not channels:
            raise UserError(f'channels: expected some of {", ".join(self.FIELDS)}, got {channels}')
        _check_interpolation(interpolation)
        self.channels, self.size = tuple(channels), tuple(size)
        self.nearest = interpolation == 'nearest'
        self.process = lidar_image.LiDARImageProcessor(stateful, max_range)
        if stateful:  # a frame's image depends on those before
            self.requires = None
        self.fov = fov_deg and tuple(np.deg2rad(fov_deg).tolist())

    def transform(self, results: dict) -> dict:
        """Build."""
        layout, scan = scan_layout(results, 'staggered'), results['scan']
        image = np.empty((len(self.channels), *self.size), np.float32)
        for out, name in zip(image, self.channels):
            raw = scan[..., self.FIELDS[name]]
            raw = lidar_image.destagger(raw, layout['pixel_shift_by_row'])
            if name == 'range':
                raw = raw / 1000
            out[:] = lidar_image.resize(self.process(name, raw), *self.size, self.nearest)
        results['lidar_img'] = image
        results['lidar_camera'] = equirect_camera(
            'LIDAR', np.eye(4), self.size, self.fov or (layout['fov_up'], layout['fov_down']))
        return results


@TRANSFORMS.register_module()
class SphericalLiDARImage(BaseTransform):
    """The LiDAR image of a scan without order, and its camera.

    Points are sorted into ``native`` rows and columns, the nearest one winning: rows by the beam
    number where the scan has one (``ring``, 0 = lowest beam) and otherwise by elevation. Single
    empty pixels are filled. Needs
    ``scan`` (P, F) with ``feature_names`` in the frame's ``lidar_points``; adds ``lidar_img``
    (C, h, w) float32 in [0, 1] and ``lidar_camera``. ``lidar2sensor`` of ``lidar_points`` (default
    identity) leads to the axes in which the beams are level.

    Args:
        channels (tuple): Of range, intensity, and mask (1 = a return).
        size (tuple): (h, w) of the image.
        native (tuple): Beams and columns of the LiDAR.
        max_range (float, optional): As in :class:`BuildLiDARImage`.
        interpolation (str): ``'linear'`` or ``'nearest'``.
    """

    requires, provides = ('scan', 'lidar_points', 'lidar_image'), ('lidar_img', 'lidar_camera')

    def __init__(self, channels: Sequence[str] = ('range', 'intensity'),
                 size: Tuple[int, int] = (64, 2048), native: Tuple[int, int] = (64, 2048),
                 max_range: Optional[float] = None, interpolation: str = 'linear'):
        known = ('range', 'intensity', 'mask')
        if not channels or set(channels) - set(known):
            raise UserError(f'channels: expected some of {", ".join(known)}, got {channels}')
        _check_interpolation(interpolation)
        self.channels, self.size, self.native = tuple(channels), tuple(size), tuple(native)
        self.nearest = interpolation == 'nearest'
        self.process = lidar_image.LiDARImageProcessor(max_range=max_range)

    def transform(self, results: dict) -> dict:
        """Build."""
        layout, info = scan_layout(results), results['lidar_points']
        scan, names = results['scan'], require_key(info, 'feature_names')
        if 'intensity' not in names:
            raise UserError(f'SphericalLiDARImage: the points have no intensity, only {names}; '
                            'convert the data set again')
        fov = layout['fov_up'], layout['fov_down']
        lidar2sensor = np.asarray(info.get('lidar2sensor', np.eye(4)), np.float64)
        points = rigid.apply(lidar2sensor, scan[:, :3])
        values = np.stack([np.linalg.norm(points, axis=1), scan[:, names.index('intensity')],
                           np.ones(len(scan), np.float32)], -1)
        ring = scan[:, names.index('ring')] if 'ring' in names else None
        raw = lidar_image.spherical_image(points, values, *self.native, *fov, ring)
        raw = lidar_image.close_gaps(raw)
        if ring is None:
            raw = lidar_image.close_gaps(raw, rows=True)
        images = dict(range=self.process('range', raw[0]), mask=raw[2],
                      intensity=self.process('intensity', raw[1]))
        results['lidar_img'] = np.stack([
            lidar_image.resize(images[name], *self.size, self.nearest) for name in self.channels])
        results['lidar_camera'] = equirect_camera('LIDAR', lidar2sensor, self.size, fov)
        return results


def _check_interpolation(name):
    if name not in ('linear', 'nearest'):
        raise UserError(f"interpolation: expected 'linear' or 'nearest', got {name!r}")
