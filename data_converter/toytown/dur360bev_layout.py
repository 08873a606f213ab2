"""Writes toytown in Dur360BEV's original on-disk format.

What a frame holds (``<id>`` = '1000' and a six-digit running number):

* ``image/data/<id>.png``: dual fisheye as the camera stores it. Turning the left square 90°
  clockwise and the right square 90° counter-clockwise gives the upright picture: left = rear lens,
  right = front lens, equidistant, the inscribed circle of a square standing for 203°.
* ``ouster_points/data/<id>.bin``: float32 (beams·columns, 9), ring after ring, in firing order
  (staggered): x y z [m] intensity time [ns] reflectivity ring ambient range [mm]. Without an echo
  everything but time and ring is 0.
* ``labels/data/<id>.txt``: one object a line, ``class h w l x y z yaw`` in the LiDAR frame,
  (x, y, z) = box centre; every car, van (as Car), bus, truck and pedestrian with at least
  ``MIN_RETURNS`` LiDAR returns, as real labels are drawn from what the scanner saw.
* ``oxts/data/<id>.txt``: lat lon alt roll pitch yaw (deg, deg, m, rad).

Unlike the real data there are ``metadata/calibration.json`` (``lidar2cam``, 4×4) and
``metadata/sequences.json`` (id → sequence name), and ``metadata/toytown.json`` with the settings.
"""

import json
import math
import os
import pickle
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .sensors import (
    DualFisheye,
    RayScene,
    Scan,
    SpinningLidar,
    pose_matrix,
    take_picture,
    take_scan,
)
from .world import Town

VERSION = 1  # of the world: raised whenever the same settings give other files
MIN_RETURNS = 5
FRAME_INTERVAL = 0.5  # seconds
FRAMES_PER_SEQUENCE = 12
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
    def lidar2cam(self):
        """(4, 4) float64 from LiDAR to camera frame (both x forward, y left, z up)."""
        return np.linalg.inv(pose_matrix(*self.camera_at)) @ pose_matrix(*self.lidar_at)

    def poses(self, town, t):
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

    def line(self):
        """The object as a line of a label file."""
        length, width, height = self.size
        numbers = (height, width, length, *self.center, self.yaw)
        return ' '.join([self.category, *(f'{v:.4f}' for v in numbers)])


@dataclass(frozen=True)
class Frame:
    """One rendered frame.

    Attributes:
        picture: (h, 2h, 3) uint8 RGB, upright dual fisheye (rear | front).
        scan: :class:`Scan`.
        boxes: list of :class:`Box`, those with at least ``MIN_RETURNS`` returns.
        scene: :class:`RayScene`, for passes over the same geometry.
        camera_pose, lidar_pose: (4, 4) sensor to town.
    """

    picture: np.ndarray
    scan: Scan
    boxes: list
    scene: RayScene
    camera_pose: np.ndarray
    lidar_pose: np.ndarray


def render_frame(town, index, rig, interval=FRAME_INTERVAL):
    """Renders frame ``index`` of a town; the same arguments always give the same frame.

    Args:
        town: :class:`Town`.
        index: frame number in its sequence.
        rig: :class:`Rig`.
        interval: seconds between frames.

    Returns:
        Frame: picture, scan, labels and the geometry behind them.
    """
    t = index * interval
    rng = np.random.default_rng([town.seed, town.sequence, 1000 + index])
    camera_pose, lidar_pose = rig.poses(town, t)
    scene = RayScene(town.mesh(t))
    rays, inside = rig.camera.directions(rig.supersample)
    light = take_picture(town, scene, camera_pose, rays[inside])
    picture = np.zeros((*inside.shape, 3), np.uint8)
    picture[inside] = np.clip(light * 255 + rng.normal(0, 1.5, light.shape) + 0.5, 0, 255)
    scan = take_scan(town, scene, lidar_pose, rig.lidar, rng)
    return Frame(
        picture, scan, label_boxes(town, t, scan, lidar_pose), scene, camera_pose, lidar_pose
    )


def label_boxes(town, t, scan, lidar_pose, min_returns=MIN_RETURNS):
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


def native(picture):
    """Turns an upright dual fisheye (h, 2h, ...) into the camera's stored orientation."""
    h = len(picture)
    return np.concatenate([np.rot90(picture[:, :h], 1), np.rot90(picture[:, h:], -1)], 1)


def scan_records(scan):
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
def write(
    out_dir,
    frames,
    seed=0,
    image_size=(640, 1280),
    scan_size=(128, 2048),
    sequences=None,
    workers=1,
    supersample=2,
    progress=True,
):
    """Writes a data set, or finishes one that was begun with the same settings.

    Args:
        out_dir: folder; new, empty, or begun by this function with the same settings.
        frames: number of frames over all sequences, at least 2.
        seed: of the world.
        image_size: (H, W) of the dual-fisheye picture, W = 2·H.
        scan_size: (beams, columns) of a scan.
        sequences: number of sequences (towns), at least 2; about ``frames / 12`` when None.
            The last fifth of them, whole, is the test split.
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
    out_dir = Path(out_dir)
    settings = _settings(frames, seed, image_size, scan_size, sequences, supersample)
    _require('cv2', 'embreex', 'tqdm', 'trimesh')
    _claim(out_dir, settings)
    plan = _plan(settings)
    _write_sensor_metadata(out_dir, settings)
    jobs = []
    for _, sequence, rows in plan:
        todo = [
            (number, index) for number, index in rows if not _finished(out_dir, number, settings)
        ]
        jobs += [
            (str(out_dir), settings, sequence, todo[i : i + FRAMES_PER_SEQUENCE], len(rows))
            for i in range(0, len(todo), FRAMES_PER_SEQUENCE)
        ]
    _run(jobs, workers, frames, progress)
    return dict(
        _write_index(out_dir, plan), out_dir=str(out_dir), written=sum(len(job[3]) for job in jobs)
    )


def _require(*modules):
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ImportError(f'toytown needs {", ".join(missing)}: pip install trimesh embreex tqdm')


def _settings(frames, seed, image_size, scan_size, sequences, supersample):
    if frames < 2:
        raise ValueError(
            f'toytown needs at least 2 frames (one to train, one to test), got {frames}'
        )
    if sequences is None:
        sequences = max(2, math.ceil(frames / FRAMES_PER_SEQUENCE))
    if not 2 <= sequences <= frames:
        raise ValueError(
            f'sequences must be between 2 and the number of frames ({frames}), got {sequences}'
        )
    height, width = image_size
    if width != 2 * height or height < 16:
        raise ValueError(
            'the dual-fisheye picture must be twice as wide as high and at least 16 high, '
            f'got height {height}, width {width}'
        )
    beams, columns = scan_size
    if beams < 2 or columns < 16:
        raise ValueError(f'a scan needs at least 2 beams and 16 columns, got {beams} x {columns}')
    if seed < 0 or supersample < 1:
        raise ValueError(f'seed must be >= 0 and supersample >= 1, got {seed} and {supersample}')
    return dict(
        layout='dur360bev',
        version=VERSION,
        frames=int(frames),
        seed=int(seed),
        image_size=[int(height), int(width)],
        scan_size=[int(beams), int(columns)],
        sequences=int(sequences),
        supersample=int(supersample),
    )


def make_rig(image_size, scan_size, supersample=2):
    """The sensors for a picture of (H, 2·H) pixels and a scan of (beams, columns)."""
    return Rig(DualFisheye(image_size[0]), SpinningLidar(*scan_size), supersample=supersample)


def _claim(out_dir, settings):
    path = out_dir / 'metadata' / 'toytown.json'
    if path.exists():
        there = json.loads(path.read_text())
        other = sorted(k for k in settings.keys() | there.keys() if settings.get(k) != there.get(k))
        if other:
            was, now = ({k: d.get(k) for k in other} for d in (there, settings))
            raise FileExistsError(
                f'{out_dir} was begun with other settings: there {was}, asked {now}. '
                'Use the same settings to finish it, or another --out-dir'
            )
        for kind in KINDS:
            for left in (out_dir / kind / 'data').glob('.*.tmp'):
                left.unlink()
        return
    foreign = (p for p in out_dir.rglob('*') if p.is_file() and p.suffix != '.tmp')
    if out_dir.exists() and (not out_dir.is_dir() or any(foreign)):
        raise FileExistsError(
            f'{out_dir} exists and is not a toytown folder; choose a new --out-dir'
        )
    for kind in KINDS:
        (out_dir / kind / 'data').mkdir(parents=True, exist_ok=True)
    _save(path, _json(settings))


def _plan(settings):
    """[(sequence name, sequence number, [(global frame number, frame number in sequence)])]"""
    ranges = np.array_split(np.arange(settings['frames']), settings['sequences'])
    return [
        (f'toytown_{settings["seed"]:04d}_{s:04d}', s, [(int(i), n) for n, i in enumerate(r)])
        for s, r in enumerate(ranges)
    ]


def _stem(number):
    return f'1000{number:06d}'


def _path(out_dir, kind, number):
    return Path(out_dir) / kind / 'data' / (_stem(number) + KINDS[kind])


def _finished(out_dir, number, settings):
    beams, columns = settings['scan_size']
    return (
        all(_path(out_dir, kind, number).is_file() for kind in KINDS)
        and _path(out_dir, 'ouster_points', number).stat().st_size == beams * columns * 36
    )


# ------------------------------------------------------------------ rendering jobs
def _run(jobs, workers, frames, progress):
    from tqdm import tqdm

    done = frames - sum(len(job[3]) for job in jobs)
    with tqdm(
        total=frames, initial=done, desc='toytown', unit='frame', disable=not progress
    ) as bar:
        if workers <= 1 or len(jobs) <= 1:
            for job in jobs:
                for _ in _render_job(job):
                    bar.update()
            return
        for count in _in_processes(jobs, workers):
            bar.update(count)


def _in_processes(jobs, workers):
    """Yields the number of frames of each finished job; a dead worker is an error, not a wait."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context('spawn'), _start_worker)
    try:
        for job in as_completed([pool.submit(_render_all, job) for job in jobs]):
            yield job.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            'a worker process died (out of memory?); the same command, perhaps with fewer '
            '--workers, finishes the rest'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker():
    import signal

    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback


def _render_all(job):
    return sum(1 for _ in _render_job(job))


@lru_cache(maxsize=1)
def _town(seed, sequence, duration):
    return Town(seed, sequence, duration)


def _render_job(job):
    """Renders and saves the frames of one job, yielding after each."""
    out_dir, settings, sequence, rows, length = job
    rig = make_rig(settings['image_size'], settings['scan_size'], settings['supersample'])
    town = _town(settings['seed'], sequence, length * FRAME_INTERVAL)
    for number, index in rows:
        frame = render_frame(town, index, rig)
        _save(_path(out_dir, 'image', number), _png(native(frame.picture)))
        _save(_path(out_dir, 'ouster_points', number), scan_records(frame.scan).tobytes())
        _save(_path(out_dir, 'oxts', number), _oxts(town, index * FRAME_INTERVAL).encode())
        _save(
            _path(out_dir, 'labels', number),
            ''.join(box.line() + '\n' for box in frame.boxes).encode(),
        )
        yield number


def _oxts(town, t):
    """Position and attitude as a GNSS/INS would give them, near 54.77° N, 1.57° W."""
    x, y, yaw = town.ego.pose(t)
    lat = 54.77 + y / 111_320 + 0.01 * town.sequence
    lon = -1.57 + x / (111_320 * math.cos(math.radians(54.77)))
    return f'{lat:.9f} {lon:.9f} 60.000 0.000000 0.000000 {yaw:.6f}\n'


def _png(rgb):
    import cv2

    ok, data = cv2.imencode(
        '.png', np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 4]
    )
    if not ok:
        raise RuntimeError(f'OpenCV could not encode a picture of shape {rgb.shape} as PNG')
    return data.tobytes()


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
    _save(out_dir / 'metadata' / 'os1.json', _json(os1))
    _save(out_dir / 'metadata' / 'calibration.json', _json({'lidar2cam': rig.lidar2cam.tolist()}))
    _save(out_dir / 'labels' / 'dataformat.txt', b'class height width length x y z yaw\n')
    _save(out_dir / 'oxts' / 'dataformat.txt', b'lat lon alt roll pitch yaw\n')
    _save(out_dir / 'ouster_points' / 'dataformat.txt', (' '.join(POINT_FIELDS) + '\n').encode())


def _write_index(out_dir, plan):
    """Timestamps, sequence names and, last of all, the split file."""
    rows = [(name, s, number, index) for name, s, frames in plan for number, index in frames]
    start = datetime(2024, 6, 1, 10)
    times = [
        start + timedelta(minutes=5 * s, seconds=index * FRAME_INTERVAL) for _, s, _, index in rows
    ]
    stamps = ''.join(f'{t:%Y-%m-%d %H:%M:%S.%f}000\n' for t in times).encode()
    for kind in KINDS:
        _save(out_dir / kind / 'timestamps.txt', stamps)
    _save(
        out_dir / 'metadata' / 'sequences.json',
        _json({_stem(number): name for name, _, number, _ in rows}),
    )
    held_out = math.ceil(0.2 * len(plan))
    test = np.array([number for _, s, number, _ in rows if s >= len(plan) - held_out], np.int64)
    train = np.array([number for _, s, number, _ in rows if s < len(plan) - held_out], np.int64)
    _save(
        out_dir / 'metadata' / 'dataset_ext_indices.pkl',
        pickle.dumps({'train_indices': train, 'test_indices': test}, protocol=4),
    )
    return dict(frames=len(rows), sequences=len(plan), train=len(train), test=len(test))


def _json(value):
    return (json.dumps(value, indent=1) + '\n').encode()


def _save(path, data):
    """Writes bytes so that the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    part.write_bytes(data)
    os.replace(part, path)
