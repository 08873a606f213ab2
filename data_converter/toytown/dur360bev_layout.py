"""Writes toytown in Dur360BEV's original on-disk format.

What a frame holds (``<id>`` = '1000' and a six-digit running number):

* ``image/data/<id>.png``: dual fisheye as the camera stores it. Turning the left square 90°
  clockwise and the right square 90° counter-clockwise gives the upright image: left = rear lens,
  right = front lens, equidistant, the inscribed circle of a square standing for 203°.
* ``ouster_points/data/<id>.bin``: float32 (beams·columns, 9), ring after ring, in firing order
  (staggered): x y z [m] intensity time [ns] reflectivity ring ambient range [mm]. Without an echo
  everything but time and ring is 0.
* ``labels/data/<id>.txt``: one object a line, ``class h w l x y z yaw`` in the LiDAR frame,
  (x, y, z) = box centre; every car, van (as Car), bus, truck and pedestrian with at least
  ``MIN_RETURNS`` LiDAR returns, as real labels are drawn from LiDAR points.
* ``oxts/data/<id>.txt``: lat lon alt roll pitch yaw (deg, deg, m, rad).

Unlike the real data there are ``metadata/calibration.json`` (``lidar2cam``, 4×4) and
``metadata/sequences.json`` (id → sequence name), and ``metadata/toytown.json`` with the settings.
"""

import math
import pickle
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import List, Optional, Tuple, Union

import numpy as np

from . import folder
from .folder import FRAME_INTERVAL
from .sensors import (
    DualFisheye,
    RayScene,
    Scan,
    SpinningLidar,
    digital,
    pose_matrix,
    take_image,
    take_scan,
)
from .world import Town

MIN_RETURNS = 5
KINDS = {'image': '.png', 'ouster_points': '.bin', 'labels': '.txt', 'oxts': '.txt'}
POINT_FIELDS = ('x', 'y', 'z', 'intensity', 'time', 'reflectivity', 'ring', 'ambient', 'range')


@dataclass(frozen=True)
class Rig:
    """Sensors on the ego car's roof: metres above the road, axes parallel to the car's."""

    camera: DualFisheye
    lidar: SpinningLidar
    camera_at: tuple = (0.05, 0.0, 1.95)
    lidar_at: tuple = (0.0, 0.0, 1.80)
    supersample: int = 2

    @property
    def lidar2cam(self) -> np.ndarray:
        """(4, 4) float64 from LiDAR to camera frame (both x forward, y left, z up)."""
        return np.linalg.inv(pose_matrix(*self.camera_at)) @ pose_matrix(*self.lidar_at)

    def poses(self, town: Town, t: float) -> Tuple[np.ndarray, np.ndarray]:
        """(camera to town, LiDAR to town) at time ``t``, both (4, 4) float64."""
        x, y, yaw = town.ego.pose(t)
        car = pose_matrix(x, y, 0.0, yaw)
        return car @ pose_matrix(*self.camera_at), car @ pose_matrix(*self.lidar_at)


@dataclass(frozen=True)
class Box:
    """A labelled object in the LiDAR frame: centre and size (l, w, h) in metres, yaw in rad."""

    instance: int
    category: str
    center: tuple
    size: tuple
    yaw: float
    returns: int

    def line(self) -> str:
        """The object as a line of a label file."""
        length, width, height = self.size
        numbers = (height, width, length, *self.center, self.yaw)
        return ' '.join([self.category, *(f'{v:.4f}' for v in numbers)])


@dataclass(frozen=True)
class Frame:
    """One rendered frame.

    Attributes:
        image: (h, 2h, 3) uint8 RGB, upright dual fisheye (rear | front).
        scan: :class:`Scan`.
        boxes: list of :class:`Box`, those with at least ``MIN_RETURNS`` returns.
        scene: :class:`RayScene`, for passes over the same geometry.
        camera_pose, lidar_pose: (4, 4) sensor to town.
    """

    image: np.ndarray
    scan: Scan
    boxes: list
    scene: RayScene
    camera_pose: np.ndarray
    lidar_pose: np.ndarray


def render_frame(town: Town, index: int, rig: Rig, interval: float = FRAME_INTERVAL) -> Frame:
    """Renders frame ``index`` of a town; the same arguments always give the same frame.

    Args:
        town: :class:`Town`.
        index: frame number in its sequence.
        rig: :class:`Rig`.
        interval: seconds between frames.

    Returns:
        Frame: image, scan, labels and the geometry behind them.
    """
    t = index * interval
    rng = np.random.default_rng([town.seed, town.sequence, 1000 + index])
    camera_pose, lidar_pose = rig.poses(town, t)
    scene = RayScene(town.mesh(t))
    rays, inside = rig.camera.directions(rig.supersample)
    light = take_image(town, scene, camera_pose, rays[inside])
    image = np.zeros((*inside.shape, 3), np.uint8)
    image[inside] = digital(light, rng)
    scan = take_scan(town, scene, lidar_pose, rig.lidar, rng)
    return Frame(
        image, scan, label_boxes(town, t, scan, lidar_pose), scene, camera_pose, lidar_pose
    )


def label_boxes(town: Town, t: float, scan: Scan, lidar_pose: np.ndarray,
                min_returns: int = MIN_RETURNS) -> List[Box]:
    """Boxes of the road users with at least ``min_returns`` echoes in a scan, nearest first."""
    ids, counts = np.unique(scan.instance[scan.instance > 0], return_counts=True)
    returns = dict(zip(ids.tolist(), counts.tolist()))
    to_lidar = np.linalg.inv(lidar_pose)
    heading = math.atan2(lidar_pose[1, 0], lidar_pose[0, 0])
    boxes = []
    for user in town.road_users:
        if returns.get(user.instance, 0) >= min_returns:
            middle = user.position(t) + (0, 0, user.size[2] / 2)
            center = to_lidar[:3, :3] @ middle + to_lidar[:3, 3]
            yaw = math.remainder(user.yaw - heading, math.tau)
            boxes.append(
                Box(
                    user.instance,
                    user.category,
                    tuple(center.tolist()),
                    user.size,
                    yaw,
                    returns[user.instance],
                )
            )
    return sorted(boxes, key=lambda box: math.hypot(*box.center[:2]))


def native(image: np.ndarray) -> np.ndarray:
    """Turns an upright dual fisheye (h, 2h, ...) into the camera's stored orientation."""
    h = len(image)
    return np.concatenate([np.rot90(image[:, :h], 1), np.rot90(image[:, h:], -1)], 1)


def scan_records(scan: Scan) -> np.ndarray:
    """(beams·columns, 9) float32 records of a scan in the order of the file."""
    beams, columns = scan.range_mm.shape
    time = np.broadcast_to(np.round(np.arange(columns) * 1e8 / columns), (beams, columns))
    ring = np.broadcast_to(np.arange(beams)[:, None], (beams, columns))
    x, y, z = np.moveaxis(scan.xyz, -1, 0)
    return (
        np.stack(
            [x, y, z, scan.intensity, time, scan.reflectivity, ring, scan.ambient, scan.range_mm],
            -1,
        )
        .astype('<f4')
        .reshape(-1, 9)
    )


# ------------------------------------------------------------------ the folder
def write(out_dir: Union[str, Path], frames: int, seed: int = 0,
          image_size: Tuple[int, int] = (640, 1280), scan_size: Tuple[int, int] = (128, 2048),
          sequences: Optional[int] = None, workers: int = 1, supersample: int = 2,
          progress: bool = True) -> dict:
    """Writes a data set, or completes one that was started with the same settings.

    Args:
        out_dir: folder; new, empty, or started by this function with the same settings.
        frames: number of frames over all sequences, at least 2.
        seed: of the world.
        image_size: (H, W) of the dual-fisheye image, W = 2·H.
        scan_size: (beams, columns) of a scan.
        sequences: number of sequences (towns), at least 2; about ``frames / 12`` when None.
            The last fifth of them is the test split.
        workers: processes; they change nothing in the files.
        supersample: n × n rays per pixel.
        progress: whether to show a progress bar.

    Returns:
        dict: ``frames``, ``written`` (now), ``sequences``, ``train``, ``test``, ``out_dir``.

    Raises:
        ValueError: for impossible settings.
        FileExistsError: if ``out_dir`` holds something else or has other settings.
        ImportError: if trimesh, embreex or tqdm is missing.
        ChildProcessError: if a worker process dies.
    """
    out_dir, (height, width) = Path(out_dir), image_size
    settings = folder.make_settings(
        'dur360bev', frames, seed, image_size, scan_size, sequences, supersample
    )
    if width != 2 * height or height < 16:
        raise ValueError(
            'the dual-fisheye image must be twice as wide as high and at least 16 high, '
            f'got height {height}, width {width}'
        )
    written = folder.write(out_dir, settings, _render, _finished, workers, progress)
    _write_sensor_metadata(out_dir, settings)
    return dict(
        _write_index(out_dir, folder.plan(settings)), out_dir=str(out_dir), written=written
    )


def make_rig(image_size: Tuple[int, int], scan_size: Tuple[int, int], supersample: int = 2) -> Rig:
    """The sensors for an image of (H, 2·H) pixels and a scan of (beams, columns)."""
    return Rig(DualFisheye(image_size[0]), SpinningLidar(*scan_size), supersample=supersample)


def _stem(number):
    return f'1000{number:06d}'


def _path(kind, number):
    return Path(kind) / 'data' / (_stem(number) + KINDS[kind])


def _finished(out_dir, settings, sequence, number, index):
    beams, columns = settings['scan_size']
    return (
        all((out_dir / _path(kind, number)).is_file() for kind in KINDS)
        and (out_dir / _path('ouster_points', number)).stat().st_size == beams * columns * 36
    )


def _render(settings, sequence, length, number, index):
    """The files of a frame."""
    rig = make_rig(settings['image_size'], settings['scan_size'], settings['supersample'])
    town = folder.town(settings['seed'], sequence, length)
    frame = render_frame(town, index, rig)
    return {
        _path('image', number): folder.png(native(frame.image)),
        _path('ouster_points', number): scan_records(frame.scan).tobytes(),
        _path('oxts', number): _oxts(town, index * FRAME_INTERVAL).encode(),
        _path('labels', number): ''.join(box.line() + '\n' for box in frame.boxes).encode(),
    }


def _oxts(town, t):
    """Position and attitude as a GNSS/INS would give them, near 54.77° N, 1.57° W."""
    x, y, yaw = town.ego.pose(t)
    lat = 54.77 + y / 111_320 + 0.01 * town.sequence
    lon = -1.57 + x / (111_320 * math.cos(math.radians(54.77)))
    return f'{lat:.9f} {lon:.9f} 60.000 0.000000 0.000000 {yaw:.6f}\n'


# ------------------------------------------------------------------ metadata
def _write_sensor_metadata(out_dir, settings):
    rig = make_rig(settings['image_size'], settings['scan_size'])
    beams, columns = settings['scan_size']
    os1 = {
        'prod_line': 'toytown',
        'lidar_mode': f'{columns}x10',
        'beam_altitude_angles': [round(float(a), 6) for a in rig.lidar.altitude_deg],
        'data_format': {
            'pixels_per_column': beams,
            'columns_per_frame': columns,
            'pixel_shift_by_row': [int(s) for s in rig.lidar.shift],
        },
    }
    folder.save(out_dir / 'metadata' / 'os1.json', folder.to_json(os1))
    calibration = {'lidar2cam': rig.lidar2cam.tolist()}
    folder.save(out_dir / 'metadata' / 'calibration.json', folder.to_json(calibration))
    folder.save(out_dir / 'labels' / 'dataformat.txt', b'class height width length x y z yaw\n')
    folder.save(out_dir / 'oxts' / 'dataformat.txt', b'lat lon alt roll pitch yaw\n')
    fields = (' '.join(POINT_FIELDS) + '\n').encode()
    folder.save(out_dir / 'ouster_points' / 'dataformat.txt', fields)


def _write_index(out_dir, plan):
    """Timestamps, sequence names and, last of all, the split file."""
    rows = [(name, s, number, index) for name, s, frames in plan for number, index in frames]
    start = datetime(2024, 6, 1, 10)
    times = [
        start + timedelta(minutes=5 * s, seconds=index * FRAME_INTERVAL) for _, s, _, index in rows
    ]
    stamps = ''.join(f'{t:%Y-%m-%d %H:%M:%S.%f}000\n' for t in times).encode()
    for kind in KINDS:
        folder.save(out_dir / kind / 'timestamps.txt', stamps)
    folder.save(
        out_dir / 'metadata' / 'sequences.json',
        folder.to_json({_stem(number): name for name, _, number, _ in rows}),
    )
    held_out = math.ceil(0.2 * len(plan))
    test = np.array([number for _, s, number, _ in rows if s >= len(plan) - held_out], np.int64)
    train = np.array([number for _, s, number, _ in rows if s < len(plan) - held_out], np.int64)
    folder.save(
        out_dir / 'metadata' / 'dataset_ext_indices.pkl',
        pickle.dumps({'train_indices': train, 'test_indices': test}, protocol=4),
    )
    return dict(frames=len(rows), sequences=len(plan), train=len(train), test=len(test))
