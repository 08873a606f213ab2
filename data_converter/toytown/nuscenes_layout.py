"""Writes toytown in nuScenes' original on-disk format, with nuScenes' rig.

Version v1.0-mini; towns are scenes named after the mini set's, so that every tool knows their
split. As in the original:

* Key frames at 2 Hz; LIDAR_TOP and six cameras have sweeps between them. Each sensor has times of
  its own, and an ego pose for each of its files. A sweep belongs to the key frame after it.
* ``LIDAR_TOP/*.pcd.bin`` is float32 x y z intensity ring, column after column, ring 0 (the lowest
  beam) to 31; x is right, y ahead. A void return is at the origin. Scans are taken at once.
* Boxes are upright in the world. A road user is annotated if the scan has points in its box, or if
  it is near and mostly visible. ``num_lidar_pts`` is counted in the scan.
* Left-hand traffic is in Singapore, right-hand traffic in Boston. Each town has a place and a
  direction of its own in its map. ``maps/expansion`` has the map (:mod:`.street_map`) and
  ``maps/basemap`` an image of it; the prior masks are black.

With ``virtual_points`` there are ``LIDAR_TOP_VIRTUAL/*.pcd.bin.npz`` too, as MVP makes them.

The towns have two objects of each class along the path (:class:`BusyTown`). Unlike the original
there are no radars, and there are ``metadata/toytown.json`` with the settings and
``metadata/seen/<scene>/<frame>.json``: the frame's files, and road user -> points in its box,
fraction of it that is visible.
"""

import json
import math
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

import numpy as np
from scipy.spatial.transform import Rotation

from mmdet3d_plugin.geometry.rigid import RFU_TO_FLU
from mmdet3d_plugin.structures import virtual_path

from ..nuscenes import CLASS_OF
from . import folder, street_map, virtual_points
from .busy_town import BusyTown
from .folder import FRAME_INTERVAL
from .road_users import RoadUser
from .sensors import (
    RayScene,
    Scan,
    SpinningLidar,
    digital,
    mounted,
    pose_matrix,
    take_image,
    take_scan,
)
from .street_map import token

VERSION = 'v1.0-mini'
TRAIN_SCENES = (61, 553, 655, 757, 796, 1077, 1094, 1100)
VAL_SCENES = (103, 916)
START = datetime(2018, 7, 24, 3, 22, 7, 647951)
SIZE = 900, 1600
"""Of the images that the cameras' intrinsics are for."""

# azimuth, elevation in degrees; place in metres; focal length, centre in pixels; time after the
# LiDAR's in ms. The six cameras of one of the original's cars.
CAMERAS = {
    'CAM_FRONT': (0.33, -0.3, (1.701, 0.016, 1.511), 1266.4, (816.3, 491.5), -35.5),
    'CAM_FRONT_RIGHT': (-56.40, -0.8, (1.551, -0.493, 1.496), 1260.8, (807.9, 495.3), -27.6),
    'CAM_FRONT_LEFT': (55.16, 0.1, (1.524, 0.495, 1.509), 1272.6, (826.6, 479.8), -43.1),
    'CAM_BACK': (179.86, 1.0, (0.028, 0.003, 1.579), 809.2, (829.2, 481.8), -10.4),
    'CAM_BACK_LEFT': (108.60, -0.9, (1.036, 0.485, 1.591), 1256.7, (792.1, 492.8), -0.5),
    'CAM_BACK_RIGHT': (-110.79, -0.9, (1.015, -0.481, 1.562), 1259.5, (807.3, 501.2), -20.1),
}
LIDAR = 'LIDAR_TOP'
_AHEAD, _LEFT, _UP = np.eye(3)
RIG = {  # sensor -> car; x ahead, y left, z up, origin on the road below the rear axle
    LIDAR: mounted((-_LEFT, _AHEAD, _UP), (0.944, 0.0, 1.840), 0.2, 0.6),
    **{name: mounted((-_LEFT, -_UP, _AHEAD), at, azimuth, -elevation)
       for name, (azimuth, elevation, at, *_) in CAMERAS.items()},
}

CATEGORIES = {  # kind of road user -> category; kinds that are no key here are cars
    'bus': 'vehicle.bus.rigid', 'double_decker': 'vehicle.bus.rigid', 'truck': 'vehicle.truck',
    'pedestrian': 'human.pedestrian.adult', 'trailer': 'vehicle.trailer',
    'excavator': 'vehicle.construction', 'ambulance': 'vehicle.emergency.ambulance',
    'barrier': 'movable_object.barrier', 'motorcycle': 'vehicle.motorcycle',
    'bicycle': 'vehicle.bicycle', 'cone': 'movable_object.trafficcone',
}
OTHER_CATEGORIES = (
    'vehicle.car', 'animal', 'human.pedestrian.child', 'human.pedestrian.construction_worker',
    'human.pedestrian.personal_mobility', 'human.pedestrian.police_officer',
    'human.pedestrian.stroller', 'human.pedestrian.wheelchair', 'movable_object.debris',
    'movable_object.pushable_pullable', 'static_object.bicycle_rack', 'vehicle.bus.bendy',
    'vehicle.emergency.police')
ATTRIBUTES = ('cycle.with_rider', 'cycle.without_rider', 'pedestrian.moving',
              'pedestrian.sitting_lying_down', 'pedestrian.standing', 'vehicle.moving',
              'vehicle.parked', 'vehicle.stopped')
VISIBILITY = ('v0-40', 'v40-60', 'v60-80', 'v80-100')
NEAR, MOSTLY = 45.0, 0.4
"""Metres, and fraction of a road user that must be visible to be annotated without points."""

MAPS = {  # location -> prior mask; width and height in metres, towns beside and above each other
    'singapore-queenstown': ('93406b464a165eaba6d9de76ca09f5da', (3228.6, 3687.1), (3, 4)),
    'boston-seaport': ('36092f0b03a857c6a3403e25b4b7aab3', (2979.5, 2118.1), (4, 3)),
}
LONGEST = 100
"""Key frames of a scene; the map has no room for a longer way."""


class TopLidar(SpinningLidar):
    """A spinning LiDAR with beams from +10.67 to -30.67 degrees, unstaggered."""

    @property
    def altitude_deg(self) -> np.ndarray:
        """(beams,) float64 elevation of each beam, top first."""
        return np.linspace(10.67, -30.67, self.beams)

    @property
    def shift(self) -> np.ndarray:
        """No stagger."""
        return np.zeros(self.beams, int)


def intrinsics(name: str, size: Tuple[int, int]) -> np.ndarray:
    """(3, 3) camera matrix for images of (H, W) pixels, integer coordinates at pixel centres."""
    *_, focal, (cx, cy), _ = CAMERAS[name]
    y, x = np.divide(size, SIZE)
    return np.array([[focal * x, 0, (cx + 0.5) * x - 0.5], [0, focal * y, (cy + 0.5) * y - 0.5],
                     [0, 0, 1]])


@lru_cache(maxsize=12)
def rays(name: str, size: Tuple[int, int], grid: int = 1) -> np.ndarray:
    """(H, W, grid², 3) float32 unit vectors of a camera's pixels, in its frame."""
    sub = (np.arange(grid) + 0.5) / grid - 0.5
    v, u, b, a = np.meshgrid(np.arange(size[0]), np.arange(size[1]), sub, sub, indexing='ij')
    pixel = np.stack([u + a, v + b, np.ones_like(u + a)], -1).reshape(*size, -1, 3)
    out = pixel @ np.linalg.inv(intrinsics(name, size)).T
    return (out / np.linalg.norm(out, axis=-1, keepdims=True)).astype(np.float32)


# ------------------------------------------------------------------ times and names
def scene_name(settings: dict, sequence: int) -> str:
    """Name of a town."""
    held_out = math.ceil(0.2 * settings['sequences'])
    train = settings['sequences'] - held_out
    number = TRAIN_SCENES[sequence] if sequence < train else VAL_SCENES[sequence - train]
    return f'scene-{number:04d}'


def times(channel: str, index: int, sweeps: Tuple[int, int]) -> List[float]:
    """Seconds in its town of a sensor's files that belong to a key frame; it is the last one."""
    key = index * FRAME_INTERVAL + (0 if channel == LIDAR else CAMERAS[channel][-1] / 1000)
    count = sweeps[channel != LIDAR] if index else 0
    steps = np.arange(count, -1, -1) / (count + 1) * FRAME_INTERVAL
    return [round(float(key - step), 6) for step in steps]


def car_pose(town: BusyTown, t: float) -> np.ndarray:
    """(4, 4) car to town."""
    x, y, yaw = town.ego.pose(t)
    return pose_matrix(x, y, 0.0, yaw)


def to_world(town: BusyTown) -> np.ndarray:
    """(4, 4) town to world: the town's map is in its own part of the map, turned."""
    _, size, grid = MAPS[location(town)]
    row, column = divmod(town.sequence, grid[0])
    middle = np.divide(size, grid) * (column + 0.5, row + 0.5)
    turn = pose_matrix(0, 0, 0, 0.7 + town.sequence)
    turn[:2, 3] = middle - turn[:2, :2] @ street_map.window(town).mean(0)
    return turn


def location(town: BusyTown) -> str:
    """Name of the map on which a town is."""
    return list(MAPS)[town.streets.side < 0]


def _log(town):
    """Log file of a town."""
    singapore = town.streets.side > 0
    date = START + timedelta(minutes=5 * town.sequence)
    car, zone = ('n015', '+0800') if singapore else ('n008', '-0400')
    return f'{car}-{date:%Y-%m-%d-%H-%M-%S}{zone}'


def microseconds(town: BusyTown, t: float) -> int:
    """Time stamp of a moment in a town."""
    start = int((START - datetime(1970, 1, 1)) / timedelta(microseconds=1))
    return start + 300_000_000 * town.sequence + round(t * 1e6)


def _path(town, channel, t, key):
    extension = 'pcd.bin' if channel == LIDAR else 'jpg'
    name = f'{_log(town)}__{channel}__{microseconds(town, t)}.{extension}'
    return Path('samples' if key else 'sweeps', channel, name)


def _seen_path(settings, sequence, index):
    return Path('metadata', 'seen', scene_name(settings, sequence), f'{index:04d}.json')


@lru_cache(maxsize=2)
def town_of(seed: int, sequence: int, length: int) -> BusyTown:
    """The town of a scene of ``length`` key frames; the last ones are kept."""
    return BusyTown(seed, sequence, length * FRAME_INTERVAL)


# ------------------------------------------------------------------ frames
def render(settings: dict, sequence: int, length: int, number: int, index: int) -> Dict[str, bytes]:
    """The files of a key frame and of the sweeps before it."""
    town = town_of(settings['seed'], sequence, length)
    scenes, files = {}, {}
    for channel in RIG:
        moments = times(channel, index, settings['sweeps'])
        for n, t in enumerate(moments):
            if t not in scenes:
                scenes[t] = RayScene(town.mesh(t))
            scene = scenes[t]
            rng = np.random.default_rng(
                [town.seed, town.sequence, 1000 + index, list(RIG).index(channel), n])
            path = _path(town, channel, t, n == len(moments) - 1)
            if channel == LIDAR:
                scan = scan_at(town, scene, t, settings['scan_size'], rng)
                files[path] = records(scan).tobytes()
                if settings.get('virtual_points'):
                    rng = np.random.default_rng(
                        [town.seed, town.sequence, 1000 + index, len(RIG), n])
                    files[virtual_path(path)] = virtual_points.encode(
                        virtual_points_at(town, scene, t, scan, settings['image_size'], rng))
            else:
                size = tuple(settings['image_size'])
                light = take_image(town, scene, car_pose(town, t) @ RIG[channel],
                                     rays(channel, size, settings['supersample']))
                files[path] = folder.jpeg(digital(light, rng))
        if channel == LIDAR:
            seen = visibility(town, scene, t, scan)
    record = dict(files=list(map(str, files)), seen=seen)
    files[_seen_path(settings, sequence, index)] = folder.to_json(record)
    return files


def scan_at(town: BusyTown, scene: RayScene, t: float, scan_size: Tuple[int, int],
            rng: np.random.Generator) -> Scan:
    """:class:`Scan` at time ``t``; its own axes are x ahead, y left, z up."""
    pose = car_pose(town, t) @ RIG[LIDAR] @ np.linalg.inv(RFU_TO_FLU)
    return take_scan(town, scene, pose, TopLidar(*scan_size), rng)


def records(scan: Scan) -> np.ndarray:
    """(columns·beams, 5) float32 x y z intensity ring of a scan."""
    beams, columns = scan.range_mm.shape
    xyz = scan.xyz @ RFU_TO_FLU[:3, :3].astype(np.float32)  # to the sensor's axes
    ring = np.broadcast_to(np.arange(beams)[::-1, None], (beams, columns))
    values = np.concatenate([xyz, scan.reflectivity[..., None], ring[..., None]], -1)
    return values[::-1].swapaxes(0, 1).reshape(-1, 5).astype('<f4')


def virtual_points_at(town: BusyTown, scene: RayScene, t: float, scan: Scan,
                      size: Tuple[int, int], rng: np.random.Generator) -> Dict[str, np.ndarray]:
    """See :func:`.virtual_points.virtual_points`; for images of (H, W) pixels."""
    size, car = virtual_points.mask_size(size), car_pose(town, t)
    classes = {user.instance: CLASS_OF.get(category(user)) for user in town.road_users}

    def mask(name):
        pose = car @ RIG[name]
        ways = np.ascontiguousarray(rays(name, size).reshape(-1, 3) @ pose[:3, :3].T, np.float32)
        return scene.instances(pose[:3, 3], ways).reshape(size)

    return virtual_points.virtual_points(
        records(scan), scan.instance[::-1].swapaxes(0, 1).reshape(-1),
        {user: name for user, name in classes.items() if name in virtual_points.CLASSES},
        {name: (np.linalg.inv(RIG[name]) @ RIG[LIDAR], intrinsics(name, size)) for name in CAMERAS},
        mask, rng)


def visibility(town: BusyTown, scene: RayScene, t: float,
               scan: Scan) -> Dict[int, Tuple[int, float]]:
    """{road user: (points of a scan in its box, fraction that is visible from the LiDAR)}."""
    pose = car_pose(town, t) @ RIG[LIDAR]
    to_town = pose @ np.linalg.inv(RFU_TO_FLU)
    points = scan.xyz[scan.range_mm > 0].astype(np.float64) @ to_town[:3, :3].T + to_town[:3, 3]
    steps = np.array([-0.4, -0.15, 0.15, 0.4])
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    seen = {}
    for user in town.road_users:
        middle = user.position(t) + (0, 0, user.size[2] / 2)
        if np.linalg.norm(middle - pose[:3, 3]) > 100:
            continue
        turn = pose_matrix(0, 0, 0, user.yaw)[:3, :3]
        near = points[(np.abs(points - middle) < np.linalg.norm(user.size) / 2).all(1)]
        inside = (np.abs((near - middle) @ turn) <= np.array(user.size) / 2).all(1)
        way = middle + (grid * user.size) @ turn.T - pose[:3, 3]
        reach = np.linalg.norm(way, axis=1)
        distance, face, _ = scene.cast(pose[:3, 3], way / reach[:, None])
        own = scene.mesh.instance[face] == user.instance
        seen[str(user.instance)] = int(inside.sum()), float(np.mean(own | (distance >= reach)))
    return seen


def _finished(out_dir, settings, sequence, number, index):
    path = out_dir / _seen_path(settings, sequence, index)
    return path.is_file() and all(
        (out_dir / file).is_file() for file in json.loads(path.read_text())['files'])


# ------------------------------------------------------------------ the folder
def write(out_dir: Union[str, Path], frames: int, seed: int = 0, image_size: Tuple[int, int] = SIZE,
          scan_size: Tuple[int, int] = (32, 1084), sequences: Optional[int] = None,
          workers: int = 1, supersample: int = 1, progress: bool = True,
          sweeps: Tuple[int, int] = (9, 5), virtual_points: bool = False) -> dict:
    """Writes a data set, or completes one that was started with the same settings.

    Args, Returns and Raises are those of :func:`.dur360bev_layout.write`, but for:

    Args:
        frames: number of key frames.
        image_size: (H, W) of an image.
        sequences: number of scenes (towns), 2 to 10, with at least three key frames each. The last
            fifth of them is mini_val.
        sweeps: LiDAR scans, and images of each camera, between two key frames.
        virtual_points: also write those of each scan, see :mod:`.virtual_points`.
    """
    out_dir = Path(out_dir)
    limit = len(TRAIN_SCENES) + len(VAL_SCENES)
    settings = folder.make_settings('nuscenes', frames, seed, image_size, scan_size, sequences,
                                    supersample, limit)
    settings['sweeps'] = [int(count) for count in sweeps]
    if virtual_points:
        settings['virtual_points'] = True
    if settings['sequences'] > min(limit, frames // 3):
        raise ValueError(f'sequences must be {limit} at most, with three key frames or more each, '
                         f'got {settings["sequences"]} for {frames} frames')
    if frames > LONGEST * settings['sequences']:
        raise ValueError(f'a scene can have {LONGEST} key frames, got {frames} for '
                         f'{settings["sequences"]} scenes; ask for more sequences or fewer frames')
    if min(image_size) < 16 or min(settings['sweeps']) < 0:
        raise ValueError('an image must be at least 16 high and wide, and sweeps not negative, '
                         f'got {" x ".join(map(str, image_size))} and {settings["sweeps"]}')
    written = folder.write(out_dir, settings, render, _finished, workers, progress)
    write_maps(out_dir / 'maps', settings)
    for name, rows in tables(out_dir, settings).items():
        folder.save(out_dir / VERSION / f'{name}.json', folder.to_json(rows))
    plan = folder.plan(settings)
    test = sum(len(rows) for _, _, rows in plan[-math.ceil(0.2 * len(plan)):])
    return dict(frames=frames, sequences=len(plan), train=frames - test, test=test,
                out_dir=str(out_dir), written=written)


def write_maps(out_dir: Path, settings: dict) -> None:
    """Writes the prior masks, the map expansion and its images into the folder ``maps``."""
    towns = {name: [] for name in MAPS}
    for _, sequence, rows in folder.plan(settings):
        town = town_of(settings['seed'], sequence, len(rows))
        towns[location(town)].append((scene_name(settings, sequence), town, to_world(town)))
    for name, (stem, size, _) in MAPS.items():
        content = street_map.expansion(size, towns[name])
        folder.save(out_dir / f'{stem}.png', folder.png(np.zeros((64, 64, 3), np.uint8)))
        folder.save(out_dir / 'expansion' / f'{name}.json', json.dumps(content).encode())
        folder.save(out_dir / 'basemap' / f'{name}.png', folder.png(street_map.image(content)))


def tables(out_dir: Path, settings: dict) -> Dict[str, List[dict]]:
    """Name -> rows of the 13 tables."""
    out = {name: [] for name in (
        'category attribute visibility instance sensor calibrated_sensor ego_pose log scene sample '
        'sample_data sample_annotation map').split()}
    for name in sorted({*CATEGORIES.values(), *OTHER_CATEGORIES}):
        out['category'].append(dict(token=token('category', name), name=name, description=''))
    for name in ATTRIBUTES:
        out['attribute'].append(dict(token=token('attribute', name), name=name, description=''))
    for number, level in enumerate(VISIBILITY, 1):
        out['visibility'].append(dict(token=str(number), level=level, description=''))
    for channel in RIG:
        out['sensor'].append(dict(token=token('sensor', channel), channel=channel,
                                  modality='lidar' if channel == LIDAR else 'camera'))
    for place, (stem, *_) in MAPS.items():
        out['map'].append(dict(token=token('map', place), category='semantic_prior',
                               filename=f'maps/{stem}.png', log_tokens=[]))
    for _, sequence, rows in folder.plan(settings):
        town = town_of(settings['seed'], sequence, len(rows))
        scene = scene_name(settings, sequence)
        samples = [token(scene, index) for index in range(len(rows))]
        _add_scene(out, town, scene, samples)
        for channel in RIG:
            _add_sensor(out, settings, town, scene, samples, channel)
        seen = [json.loads((out_dir / _seen_path(settings, sequence, index)).read_text())['seen']
                for index in range(len(rows))]
        for user in town.road_users:
            _add_user(out, town, scene, samples, user, seen)
    return out


def _add_scene(out, town, scene, samples):
    logfile, place = _log(town), location(town)
    log = token('log', scene)
    out['map'][list(MAPS).index(place)]['log_tokens'].append(log)
    out['log'].append(dict(token=log, logfile=logfile, vehicle=logfile[:4],
                           date_captured=f'{START:%Y-%m-%d}', location=place))
    out['scene'].append(dict(token=token(scene), name=scene, description='Toytown', log_token=log,
                             nbr_samples=len(samples), first_sample_token=samples[0],
                             last_sample_token=samples[-1]))
    out['sample'] += _chain(
        dict(token=sample, timestamp=microseconds(town, index * FRAME_INTERVAL),
             scene_token=token(scene)) for index, sample in enumerate(samples))


def _add_sensor(out, settings, town, scene, samples, channel):
    camera, calibrated = channel != LIDAR, token(scene, channel)
    height, width = settings['image_size'] if camera else (0, 0)
    matrix = intrinsics(channel, (height, width)).tolist() if camera else []
    out['calibrated_sensor'].append(dict(
        token=calibrated, sensor_token=token('sensor', channel), camera_intrinsic=matrix,
        **_placed(RIG[channel])))
    rows = []
    for index, sample in enumerate(samples):
        moments = times(channel, index, settings['sweeps'])
        for n, t in enumerate(moments):
            key, name = n == len(moments) - 1, token(scene, channel, microseconds(town, t))
            out['ego_pose'].append(dict(token=name, timestamp=microseconds(town, t),
                                        **_placed(to_world(town) @ car_pose(town, t))))
            rows.append(dict(
                token=name, sample_token=sample, ego_pose_token=name,
                calibrated_sensor_token=calibrated, timestamp=microseconds(town, t),
                fileformat='jpg' if camera else 'pcd', is_key_frame=key, height=height,
                width=width, filename=str(_path(town, channel, t, key))))
    out['sample_data'] += _chain(rows)


def _add_user(out, town, scene, samples, user, seen):
    """The instance of a road user and its annotations, if it has any."""
    rows, name = [], token(scene, 'user', user.instance)
    for index, sample in enumerate(samples):
        points, visible = seen[index].get(str(user.instance), (0, 0.0))
        t = index * FRAME_INTERVAL
        middle = user.position(t) + (0, 0, user.size[2] / 2)
        distance = np.linalg.norm(middle - car_pose(town, t)[:3, 3])
        if points or (visible > MOSTLY and distance < NEAR):
            pose = to_world(town) @ pose_matrix(*middle, user.yaw)
            length, width, height = user.size
            rows.append(dict(
                token=token(name, index), sample_token=sample, instance_token=name,
                visibility_token=str(1 + sum(visible >= limit for limit in (0.4, 0.6, 0.8))),
                attribute_tokens=[token('attribute', a) for a in attributes(user)],
                size=[width, length, height], num_lidar_pts=points, num_radar_pts=0,
                **_placed(pose)))
    if rows:
        out['instance'].append(dict(
            token=name, category_token=token('category', category(user)),
            nbr_annotations=len(rows), first_annotation_token=rows[0]['token'],
            last_annotation_token=rows[-1]['token']))
        out['sample_annotation'] += _chain(rows)


def category(user: RoadUser) -> str:
    """Name of the category of a road user."""
    return CATEGORIES.get(user.kind, 'vehicle.car')


def attributes(user: RoadUser) -> List[str]:
    """Names of the attributes of a road user: one, or none."""
    group, *_, name = category(user).split('.')
    if name in ('bicycle', 'motorcycle'):
        return ['cycle.with_rider' if user.speed else 'cycle.without_rider']
    if group == 'human':
        return ['pedestrian.moving' if user.speed else 'pedestrian.standing']
    if group == 'vehicle':
        still = 'vehicle.stopped' if user.category == 'Bus' else 'vehicle.parked'
        return ['vehicle.moving' if user.speed else still]
    return []


def _placed(matrix):
    """Translation and rotation (w x y z) of a pose, as records have them."""
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()
    return dict(translation=matrix[:3, 3].tolist(), rotation=[w, x, y, z])


def _chain(rows):
    """Add ``prev`` and ``next`` tokens to rows."""
    rows = list(rows)
    names = ['', *(row['token'] for row in rows), '']
    return [dict(row, prev=before, next=after)
            for row, before, after in zip(rows, names, names[2:])]
