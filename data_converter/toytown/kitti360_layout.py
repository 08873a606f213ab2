"""Writes toytown in KITTI-360's original on-disk format, with a rig of its own.

Drives are named after those with public labels; a drive's frames count from 0. As in the original:

* ``data_poses/<drive>/poses.txt`` leaves frames out: here frame 0 and frame 3. World coordinates
  are kilometres large.
* Fisheyes are square images of the MEI model, black beyond 92.5 degrees. p1 and p2 are in the
  calibration, but as in the original's devkit nobody applies them.
* Scans are float32 x y z reflectance of 64 unevenly spaced beams, echoes only. The LiDAR is
  tilted by half a degree. Scans are taken at once, without the car's motion.
* ``data_3d_bboxes/train/<drive>.xml`` has every standing road user of the town once, seen or not,
  and every moving one for each frame in which the scan has ``MIN_RETURNS`` echoes of it; also an
  object without ``transform``. ``train_full`` has a building with plane nodes, too, and
  one box without ids.

Unlike the original there are ``metadata/toytown.json`` with the settings, and
``metadata/returns/<drive>/<frame>.json``: road user -> LiDAR echoes.
"""

import json
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

import numpy as np
import torch

from mmdet3d_plugin.geometry.cameras import lens_of

from . import folder
from .folder import FRAME_INTERVAL
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
from .world import Town

DRIVES = (2, 3, 4, 5, 6, 7, 9, 10)
"""Names for the towns; the last one is always drive 10, which the converter holds out."""

MIN_RETURNS = 5
THETA_MAX_DEG = 92.5
SEMANTIC_IDS = {'Car': ('car', 13), 'Bus': ('bus', 34), 'Truck': ('truck', 14),
                'Pedestrian': ('pedestrian', 19)}
LENSES = {
    'image_02': dict(xi=2.3, k1=0.03, k2=2.5, p1=4e-4, p2=3e-4, gamma=0.979, center=(0.51, 0.503)),
    'image_03': dict(xi=2.5, k1=0.05, k2=4.2, p1=1e-3, p2=-7e-4, gamma=1.044, center=(0.499, 0.5)),
}
"""Parameters of the fisheyes; gamma and the centre in widths of the image."""

WORLD = pose_matrix(1250.0, 3800.0, 114.0, 0.7)
"""Town frame to world."""


_AHEAD, _LEFT, _UP = np.eye(3)
RIG = {  # sensor -> car; x ahead, y left, z up, origin on the road below the car's middle
    'pose': mounted((_AHEAD, -_LEFT, -_UP), (-0.05, 0.3, 0.89)),
    'velo': mounted((_AHEAD, _LEFT, _UP), (0.71, 0.0, 1.73), 0.3, 0.5),
    'image_00': mounted((-_LEFT, -_UP, _AHEAD), (1.52, 0.3, 1.55), 0.4, 2.0),
    'image_01': mounted((-_LEFT, -_UP, _AHEAD), (1.52, -0.3, 1.55), 0.6, 2.0),
    'image_02': mounted((_AHEAD, -_UP, _LEFT), (0.66, 0.45, 1.96), 2.0, 0.3),
    'image_03': mounted((-_AHEAD, -_UP, -_LEFT), (0.64, -0.45, 1.97), -1.1, -0.2),
}
RECTIFICATION = pose_matrix(0, 0, 0, 0.007)[:3, :3]


class UnevenLidar(SpinningLidar):
    """A spinning LiDAR whose lower half of beams is wider apart, from +2 to -24.9 degrees."""

    @property
    def altitude_deg(self) -> np.ndarray:
        """(beams,) float64 elevation of each beam, top first."""
        upper = self.beams // 2
        return np.concatenate([np.linspace(2.0, -8.5, upper),
                               np.linspace(-8.9, -24.9, self.beams - upper)])

    @property
    def shift(self) -> np.ndarray:
        """No stagger: the file has no order."""
        return np.zeros(self.beams, int)


def fisheye(name: str, side: int) -> dict:
    """Camera dict of a fisheye of ``side`` x ``side`` pixels, without its place in the rig."""
    lens = dict(LENSES[name])
    gamma, (u0, v0) = lens.pop('gamma') * side, lens.pop('center')
    mei = dict(lens, gamma1=gamma, gamma2=gamma * 0.9996, u0=u0 * side, v0=v0 * side)
    return dict(lens='mei', mei=mei, height=side, width=side, theta_max_deg=THETA_MAX_DEG)


@lru_cache(maxsize=4)
def fisheye_rays(name: str, side: int, grid: int = 1) -> Tuple[np.ndarray, np.ndarray]:
    """Rays of a fisheye image.

    Returns:
        tuple: (side, side, grid², 3) float32 unit vectors in the camera frame, and the (side, side)
        bool mask of the pixels whose centre the lens sees.
    """
    lens = lens_of(fisheye(name, side))
    sub = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid - 0.5
    pixel = torch.arange(side, dtype=torch.float64)
    offset = torch.cartesian_prod(sub, sub).reshape(-1, 2)
    col = (pixel[None, :, None] + offset[:, 0]).expand(side, side, -1)
    row = (pixel[:, None, None] + offset[:, 1]).expand(side, side, -1)
    rays = lens.unproject(torch.stack([col, row], -1), torch.ones_like(row), (side, side))
    return rays.numpy().astype(np.float32), (rays.mean(2)[..., 2] >= lens.cos_theta_max).numpy()


# ------------------------------------------------------------------ frames
def car_pose(town: Town, index: int) -> np.ndarray:
    """(4, 4) car to town."""
    x, y, yaw = town.ego.pose(index * FRAME_INTERVAL)
    return pose_matrix(x, y, 0.0, yaw)


def render_frame(town: Town, index: int, side: int, scan_size: Tuple[int, int],
                 supersample: int = 1) -> Tuple[Dict[str, np.ndarray], Scan, RayScene]:
    """One frame: {fisheye: (side, side, 3) uint8 RGB}, :class:`Scan`, and its scene."""
    rng = np.random.default_rng([town.seed, town.sequence, 1000 + index])
    car = car_pose(town, index)
    scene = RayScene(town.mesh(index * FRAME_INTERVAL))
    images = {}
    for name in LENSES:
        rays, inside = fisheye_rays(name, side, supersample)
        light = take_image(town, scene, car @ RIG[name], rays[inside])
        image = np.zeros((side, side, 3), np.uint8)
        image[inside] = digital(light, rng)
        images[name] = image
    return images, take_scan(town, scene, car @ RIG['velo'], UnevenLidar(*scan_size), rng), scene


def scan_records(scan: Scan) -> np.ndarray:
    """(P, 4) float32 x y z reflectance of the echoes, in the order of firing."""
    reflectance = np.clip(scan.reflectivity[..., None] / 255, 0, 1)
    records = np.concatenate([scan.xyz, reflectance], -1).swapaxes(0, 1).astype('<f4')
    return records[(scan.range_mm > 0).T]


def _paths(drive, index):
    images = {name: Path('data_2d_raw', drive, name, 'data_rgb', f'{index:010d}.png')
                for name in LENSES}
    return {'scan': Path('data_3d_raw', drive, 'velodyne_points', 'data', f'{index:010d}.bin'),
            'returns': Path('metadata', 'returns', drive, f'{index:010d}.json'), **images}


def _render(settings, sequence, length, number, index):
    """The files of a frame."""
    town = folder.town(settings['seed'], sequence, length)
    images, scan, _ = render_frame(
        town, index, settings['image_size'][0], settings['scan_size'], settings['supersample'])
    ids, counts = np.unique(scan.instance[scan.instance > 0], return_counts=True)
    paths = _paths(drive_name(settings, sequence), index)
    files = {paths[name]: folder.png(image) for name, image in images.items()}
    files[paths['scan']] = scan_records(scan).tobytes()
    files[paths['returns']] = folder.to_json(dict(zip(map(str, ids), counts.tolist())))
    return files


def _finished(out_dir, settings, sequence, number, index):
    return all((out_dir / path).is_file()
               for path in _paths(drive_name(settings, sequence), index).values())


# ------------------------------------------------------------------ the folder
def drive_name(settings: dict, sequence: int) -> str:
    """Folder name of a town."""
    last = sequence == settings['sequences'] - 1
    return f'2013_05_28_drive_{DRIVES[-1 if last else sequence]:04d}_sync'


def write(out_dir: Union[str, Path], frames: int, seed: int = 0,
          image_size: Tuple[int, int] = (1400, 1400), scan_size: Tuple[int, int] = (64, 2048),
          sequences: Optional[int] = None, workers: int = 1, supersample: int = 1,
          progress: bool = True) -> dict:
    """Writes a data set, or completes one that was started with the same settings.

    Args, Returns and Raises are those of :func:`.dur360bev_layout.write`, but for:

    Args:
        image_size: (H, W) of a fisheye image, W = H.
        sequences: number of drives (towns), 2 to 8, with at least two frames each. The last one is
            the test split.
    """
    out_dir = Path(out_dir)
    settings = folder.make_settings('kitti360', frames, seed, image_size, scan_size, sequences,
                                    supersample, len(DRIVES))
    if settings['sequences'] > min(len(DRIVES), frames // 2):
        raise ValueError(f'sequences must be {len(DRIVES)} at most, with two frames or more each, '
                         f'got {settings["sequences"]} for {frames} frames')
    if len(set(image_size)) != 1 or image_size[0] < 16:
        raise ValueError('a fisheye image must be square and at least 16 high, got '
                         f'{" x ".join(map(str, image_size))}')
    written = folder.write(out_dir, settings, _render, _finished, workers, progress)
    for path, text in _calibration(settings).items():
        folder.save(out_dir / 'calibration' / path, text.encode())
    plan = folder.plan(settings)
    lists = {'train': '', 'val': ''}
    for _, sequence, rows in plan:
        drive, length = drive_name(settings, sequence), len(rows)
        town = folder.town(settings['seed'], sequence, length)
        for path, text in _drive_files(out_dir, drive, town, length).items():
            folder.save(out_dir / path, text.encode())
        split = 'val' if sequence == settings['sequences'] - 1 else 'train'
        lists[split] += ''.join(f'data_3d_semantics/train/{drive}/static/{a:010d}_{b:010d}.ply\n'
                                for a, b in windows(length))
    for split, text in lists.items():
        path = f'data_3d_semantics/train/2013_05_28_drive_{split}.txt'
        folder.save(out_dir / path, text.encode())
    test = len(plan[-1][2])
    return dict(frames=frames, sequences=len(plan), train=frames - test, test=test,
                out_dir=str(out_dir), written=written)


def windows(length: int) -> List[Tuple[int, int]]:
    """First and last frames of the two annotated windows of a drive; one frame is in both."""
    return [(0, length // 2), (length // 2, length - 1)]


def posed(length: int) -> List[int]:
    """Frames that have a pose."""
    return [index for index in range(length) if index not in (0, 3)]


def _row(values):
    return ' '.join(f'{value:.10g}' for value in np.ravel(values))


def _calibration(settings):
    """Name -> text of the calibration files."""
    to_pose = {name: np.linalg.inv(RIG['pose']) @ RIG[name] for name in RIG if 'image' in name}
    cam0_to_velo = np.linalg.inv(RIG['velo']) @ RIG['image_00']
    files = {
        'calib_cam_to_pose.txt': ''.join(f'{name}: {_row(matrix[:3])}\n'
                                         for name, matrix in to_pose.items()),
        'calib_cam_to_velo.txt': _row(cam0_to_velo[:3]) + '\n',
        'calib_sick_to_velo.txt': _row(pose_matrix(-0.4, 0, -0.07)[:3]) + '\n',
    }
    side = settings['image_size'][0]
    perspective = 'calib_time: 01-Jun-2024 10:00:00\ncorner_dist: 1.0\n'
    for k in ('00', '01'):
        matrix = np.array([[0.39, 0, 0.49], [0, 0.39, 0.17], [0, 0, 1 / side]]) * side
        fourth = [[-0.6 * 0.39 * side if k == '01' else 0], [0], [0]]
        for key, values in dict(S=(side, side * 0.27 // 1), K=matrix, D=np.zeros(5), R=np.eye(3),
                                T=np.zeros(3), S_rect=(side, side * 0.27 // 1),
                                R_rect=RECTIFICATION, P_rect=np.hstack([matrix, fourth])).items():
            perspective += f'{key}_{k}: {_row(values)}\n'
    files['perspective.txt'] = perspective
    for name in LENSES:
        mei = fisheye(name, side)['mei']
        text = (f'%YAML:1.0\n---\nmodel_type: MEI\ncamera_name: {name}\nimage_width: {side}\n'
                f'image_height: {side}\n')
        for group, keys in (('mirror', ['xi']), ('distortion', ['k1', 'k2', 'p1', 'p2']),
                            ('projection', ['gamma1', 'gamma2', 'u0', 'v0'])):
            text += f'{group}_parameters:\n' + ''.join(f'   {k}: {mei[k]:.16e}\n' for k in keys)
        files[f'{name}.yaml'] = text
    return files


def _drive_files(out_dir, drive, town, length):
    """Path -> text of poses, timestamps and boxes of a drive."""
    start = datetime(2013, 5, 28, 8, 46) + timedelta(minutes=5 * town.sequence)
    times = [start + timedelta(seconds=index * FRAME_INTERVAL) for index in range(length)]
    stamps = ''.join(f'{t:%Y-%m-%d %H:%M:%S.%f}000\n' for t in times)
    rectify = np.eye(4)
    rectify[:3, :3] = RECTIFICATION
    poses, cam0 = '', ''
    for index in posed(length):
        car = WORLD @ car_pose(town, index)
        poses += f'{index} {_row((car @ RIG["pose"])[:3])}\n'
        cam0 += f'{index} {_row(car @ RIG["image_00"] @ np.linalg.inv(rectify))}\n'
    objects = list(_objects(out_dir, drive, town, length))
    files = {
        f'data_poses/{drive}/poses.txt': poses,
        f'data_poses/{drive}/cam0_to_world.txt': cam0,
        f'data_3d_raw/{drive}/velodyne_points/timestamps.txt': stamps,
        f'data_3d_bboxes/train/{drive}.xml': _xml(objects),
        f'data_3d_bboxes/train_full/{drive}.xml': _xml(_more_objects(objects)),
    }
    return files | {f'data_2d_raw/{drive}/{name}/timestamps.txt': stamps for name in LENSES}


# ------------------------------------------------------------------ boxes
CORNERS = 0.5 * np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1], [-1, 1, -1], [-1, 1, 1],
                          [-1, -1, -1], [-1, -1, 1]])
FACES = [[0, 2, 1], [2, 3, 1], [4, 6, 5], [6, 7, 5], [4, 5, 1], [5, 0, 1], [7, 6, 2], [6, 3, 2],
         [5, 7, 0], [7, 2, 0], [1, 3, 4], [3, 6, 4]]


def _objects(out_dir, drive, town, length):
    """(fields, transform or None) of every object, in the order of the file."""
    index = 0
    for user in town.road_users:
        for moment in range(length) if user.speed else (-1,):
            if user.speed:
                returns = json.loads((out_dir / _paths(drive, moment)['returns']).read_text())
                if returns.get(str(user.instance), 0) < MIN_RETURNS:
                    continue
            window = windows(length)[moment > length // 2 if user.speed else index % 2]
            yield _fields(index, user, moment, window), _transform(user, moment)
            index += 1
    fields = dict(_fields(index, town.road_users[0], -1, windows(length)[0]), label='lamp',
                  category='pole', semanticId=25)
    yield fields, None


def _fields(index, user, moment, window):
    label, kitti_id = SEMANTIC_IDS[user.category]
    category = 'pedestrian' if label == 'pedestrian' else 'vehicle'
    return dict(index=index, label=label, category=category, semanticId_orig=kitti_id,
                semanticId=kitti_id, instanceId=user.instance, timestamp=moment,
                dynamic=int(moment >= 0), dynamicSeq=user.instance if moment >= 0 else 0,
                start_frame=window[0], end_frame=window[1])


def _transform(user, moment):
    """Cube of side 1 to world."""
    x, y, z = user.position(max(moment, 0) * FRAME_INTERVAL)
    box = pose_matrix(x, y, z + user.size[2] / 2, user.yaw)
    return WORLD @ box @ np.diag([*user.size, 1.0])


def _more_objects(objects):
    """The objects of ``train_full``: the first one without ids, and a building besides."""
    ids = ('semanticId', 'instanceId', 'start_frame', 'end_frame')
    fields, transform = objects[0]
    yield {key: value for key, value in fields.items() if key not in ids}, transform
    yield from objects[1:]
    yield dict(fields, index=len(objects), label='building', category='building',
               semanticId_orig=11, semanticId=11, instanceId=0, timestamp=-1, dynamic=0), transform


def _xml(objects):
    lines = ['<?xml version="1.0"?>', '<opencv_storage>']
    for n, (fields, transform) in enumerate(objects, 1):
        lines.append(f'<object{n}>')
        lines += [f'  <{key}>{value}</{key}>' for key, value in fields.items()]
        if transform is not None:
            for suffix in ('', '_plane') if fields['label'] == 'building' else ('',):
                lines += [_matrix(f'transform{suffix}', transform),
                          _matrix(f'vertices{suffix}', CORNERS),
                          _matrix(f'faces{suffix}', FACES, 'i')]
        lines.append(f'</object{n}>')
    return '\n'.join([*lines, '</opencv_storage>', ''])


def _matrix(tag, values, kind='f'):
    """An OpenCV matrix; rows are indented, for the devkit drops line ends after splitting."""
    values = np.asarray(values)
    words = [f'{v:.8e}' if kind == 'f' else str(v) for v in values.ravel()]
    text = '\n      '.join(' '.join(words[i:i + 4]) for i in range(0, len(words), 4))
    return (f'  <{tag} type_id="opencv-matrix">\n    <rows>{values.shape[0]}</rows>\n'
            f'    <cols>{values.shape[1]}</cols>\n    <dt>{kind}</dt>\n    <data>\n'
            f'      {text}</data></{tag}>')
