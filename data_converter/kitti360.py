"""KITTI-360 (or toytown written in its layout) -> info files.

Frame of reference: the velodyne, x forward, y left, z up. ``T_a_b`` maps points of frame b into
frame a (4x4, float64): v velodyne, p pose (IMU; x forward, y right, z down), w world, c camera.
``ego2global`` is ``T_w_v`` of the frame.

A static box is kept where the frame's scan has points in it: boxes of the accumulated cloud are
hidden or far away in most frames, and the car passes some places twice. A dynamic box belongs to
the frame of its timestamp.
"""

import math
import os
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Dict, List, Optional, Tuple

import numpy as np
import yaml

from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.errors import FrameError, UserError, did_you_mean, parse_errors
from mmdet3d_plugin.geometry import rigid
from mmdet3d_plugin.geometry.lidar_image import undistort
from mmdet3d_plugin.structures import INFO_VERSION, check_points
from mmdet3d_plugin.structures.info import MEI_PARAMETERS

from . import common

LABELS = {'car': (26, 13), 'truck': (27, 14), 'bus': (28, 34), 'caravan': (29, 16),
          'trailer': (30, 15), 'motorcycle': (32, 17), 'bicycle': (33, 18), 'person': (24, 19),
          'rider': (25, 20), 'train': (31, 33), 'unknown vehicle': (43, 36)}
"""Name -> (id, kittiId) of the classes that are kept; the XML's ``semanticId`` is the kittiId."""

CATEGORIES = {name: index for index, name in enumerate(LABELS)}
ALIASES = {'pedestrian': 'person', 'unknownVehicle': 'unknown vehicle'}
"""Words of the XML's ``label`` that differ from the label table."""

DRIVES = (0, 2, 3, 4, 5, 6, 7, 9, 10)
"""Drives with public labels."""

FIRST_LABELLED = {0: 250}
"""Drive -> first frame with labels, where that is not the first one."""

CAMERAS = {'CAM_FISHEYE_LEFT': 'image_02', 'CAM_FISHEYE_RIGHT': 'image_03'}
FEATURES = ['x', 'y', 'z', 'intensity']
THETA_MAX_DEG = 92.5
"""Half of the fisheyes' field of view; further out the image is black."""

LIDAR_FOV_DEG = 3.0, -25.0
TRACK_GAP = 5
"""Frames over which a velocity is measured at most, each way."""


@dataclass(frozen=True)
class Options:
    """What a conversion keeps; written into the metainfo of the info files.

    Attributes:
        boxes: folder of ``data_3d_bboxes``: 'train' or 'train_full'.
        sequences: numbers of the drives to convert; () = all that have boxes.
        split: 'drives' (``val_drives`` are held out), 'windows' (the official window lists), or a
            folder with ``train.txt`` and ``val.txt``, lines of ``<sequence>;<frame>``.
        val_drives: numbers of the drives held out. The paper follows a split without naming its
            drives; 10 is from memory, so state the drives with every result.
        max_frames: frames of train and val at most, drawn evenly; 0 = all. The paper: 20k and 1k.
        radius: metres around the car within which static boxes are looked at.
        min_points: a static box needs so many points of the frame's scan.
        undistort: count the points in the scan corrected for the car's motion.
    """

    boxes: str = 'train'
    sequences: tuple = ()
    split: str = 'drives'
    val_drives: tuple = (10,)
    max_frames: tuple = (20000, 1000)
    radius: float = 75.0
    min_points: int = 1
    undistort: bool = False


def convert(root_path: str, out_dir: Optional[str] = None, options: Optional[Options] = None,
            workers: int = 1, check: bool = False, rasterizer: Optional[str] = None,
            only: Tuple[str, ...] = (), overwrite: bool = False) -> dict:
    """Write ``kitti360_infos_{train,val}.pkl``, and the frames of each to ``kitti360_split/``.

    A stopped conversion continues where it was; the files appear complete or not at all. Bad frames
    of the training split are left out and counted, one of the other split is an error.

    Args:
        root_path: folder with calibration/, data_2d_raw/, data_3d_raw/, data_3d_bboxes/,
            data_poses/.
        out_dir: where the info files go, default the root path.
        options: :class:`Options`, default the paper's where it states them.
        workers: processes; they change nothing in the files.
        check: decode every image and scan, and read the info files back.
        rasterizer: method of RasterizeBEV: report the BEV cells of each class that it draws.
        only: splits to write, 'train' or 'val'; () = both.
        overwrite: replace info files of other options.

    Returns:
        dict: file and report of each split, the frames left out by reason, and the drives
        with scans that have no line in ``timestamps.txt``.

    Raises:
        UserError: naming the file (and line) that is missing, cut or malformed.
    """
    out_dir, options = out_dir or root_path, options or Options()
    common.check_splits(only, ('train', 'val'))
    lists, skipped = splits(root_path, options, only)
    summary = {}
    with common.published(out_dir) as pending:
        for split, keys in lists.items():
            path = os.path.join(out_dir, f'kitti360_infos_{split}.pkl')
            base = metainfo(split, options)
            common.check_replaced(path, base, overwrite)
            listed = os.path.join(out_dir, 'kitti360_split', f'{split}.txt')
            with atomic_write(pending(listed)) as file:
                file.write(''.join(f'{name};{frame:010d}\n' for name, frame in keys).encode())
            data_list = frames(root_path, keys, options, workers, f'{path}.journal', split, check,
                               rasterizer)
            meta = dict(base, skipped=data_list.skipped,
                        **common.bev_metainfo(data_list, CATEGORIES, rasterizer))
            infos = dict(metainfo=meta, data_list=data_list)
            counts = report(infos)
            common.write_infos(infos, pending(path), check)
            summary[split] = f'{path}: {counts}'
    untimed = {name: _untimed(root_path, name, options.boxes)
               for name in sorted({name for keys in lists.values() for name, _ in keys})}
    if any(untimed.values()):
        summary['timestamps'] = ', '.join(
            f'{name}: {count} scans have no line in velodyne_points/timestamps.txt'
            for name, count in untimed.items() if count) + (
                '; their time is counted on at 10 Hz, and their velocities are unknown')
    return dict(summary, skipped=skipped)


def metainfo(split: str, options: Options) -> dict:
    """Metainfo of the info file."""
    up, down = map(math.radians, LIDAR_FOV_DEG)
    return dict(
        dataset='kitti360', version=options.boxes, info_version=INFO_VERSION, split=split,
        categories=dict(CATEGORIES), lidar_frame='x forward, y left, z up',
        lidar_image=dict(projection='spherical', fov_up=up, fov_down=down),
        conversion=asdict(options))


def report(infos: dict) -> dict:
    """Counts of a conversion, to check it."""
    counts, labels, more = common.summarize(
        infos, dynamic=lambda frame: sum(not i['is_static'] for i in frame['instances']))
    objects = {name: labels[index] for name, index in CATEGORIES.items()}
    return dict(counts, objects=objects, **more)


# Which frames ---------------------------------------------------------------------------------


def sequence_name(drive: int) -> str:
    """Folder name of a drive."""
    return f'2013_05_28_drive_{drive:04d}_sync'


def splits(root: str, options: Options, only: Tuple[str, ...] = ()
           ) -> Tuple[Dict[str, List[Tuple[str, int]]], Dict[str, int]]:
    """Frames of each split, subsampled evenly, and counts of the skipped frames by reason.

    Args:
        root: data root.
        options: :class:`Options`.
        only: splits that are needed; () = both.

    Returns:
        tuple: dict 'train', 'val' -> sorted list of (sequence name, frame number); dict reason ->
        number of frames.

    Raises:
        UserError: a split without frames, an unknown drive, or a file that is missing.
    """
    unknown = sorted(set(options.sequences) - set(DRIVES))
    if unknown:
        raise UserError(f'drives {unknown} have no public labels; the labelled ones are '
                        f'{", ".join(map(str, DRIVES))}')
    split_of = _split_of(root, options)
    lists, skipped = dict(train=[], val=[]), {}
    drives = sorted(set(options.sequences)) or [drive for drive in DRIVES if os.path.isfile(
        _boxes_path(root, sequence_name(drive), options.boxes))]
    for name in map(sequence_name, drives):
        usable, reasons = usable_frames(root, name, options)
        for frame in usable:
            split = split_of(name, frame)
            if split is None:
                reasons['in no split'] = reasons.get('in no split', 0) + 1
            else:
                lists[split].append((name, frame))
        for reason, count in reasons.items():
            skipped[reason] = skipped.get(reason, 0) + count
    for (split, keys), most in zip(list(lists.items()), options.max_frames):
        if only and split not in only:
            del lists[split]
            continue
        if not keys:
            other = 'val' if split == 'train' else 'train'
            raise UserError(f'{root}: no frames for split {split!r} in drives {drives} (left out: '
                            f'{skipped}); check data_3d_bboxes/{options.boxes}, --sequences and '
                            f'--val-drives, divide the drives with --split FOLDER (train.txt and '
                            f'val.txt) or --split windows, or write --splits {other} alone')
        lists[split] = subsample(keys, most)
        if len(lists[split]) < len(keys):
            skipped[f'{split} thinned'] = len(keys) - len(lists[split])
    return lists, skipped


def subsample(items: list, most: int) -> list:
    """``most`` items drawn evenly, index floor(i N / M); all of them if ``most`` is 0 or larger.

    Example:
        >>> subsample([0, 1, 2, 3, 4], 3)
        [0, 1, 3]
    """
    count = len(items)
    return list(items) if not 0 < most < count else [
        items[i * count // most] for i in range(most)]


def usable_frames(root: str, name: str, options: Options) -> Tuple[List[int], Dict[str, int]]:
    """Frames with pose, scan and both images in the annotated part of a drive.

    Returns:
        tuple: sorted frame numbers, and dict reason -> number of frames that lack it.
    """
    posed = sequence(root, name, options.boxes).poses
    drive = int(name.split('_')[4])
    files = {'no scan': _numbers(_folder(root, name), '.bin')}
    for camera in CAMERAS.values():
        files[f'no {camera}'] = _numbers(_folder(root, name, camera), '.png')
    reasons = dict.fromkeys(('no pose', *files, 'not annotated'), 0)
    reasons['no pose'] = len(set.union(*files.values()) - posed.keys())
    windows, usable = _windows(root, name, options), []
    for frame in sorted(posed):
        missing = [reason for reason, there in files.items() if frame not in there]
        if missing:
            reasons[missing[0]] += 1
        elif frame < FIRST_LABELLED.get(drive, 0) or not _inside(frame, windows):
            reasons['not annotated'] += 1
        else:
            usable.append(frame)
    return usable, {reason: count for reason, count in reasons.items() if count}


def _untimed(root, name, boxes) -> int:
    """Number of scans of a drive without a line in its timestamps."""
    known = len(sequence(root, name, boxes).times)
    return sum(number >= known for number in _numbers(_folder(root, name), '.bin'))


def _windows(root, name, options):
    """Annotated windows of a drive: of the official lists, else of its boxes; () = everything."""
    listed = [w for windows in official_windows(root).values() for w in windows.get(name, ())]
    return listed or sequence(root, name, options.boxes).windows


def _inside(frame, windows) -> bool:
    return not windows or any(start <= frame <= end for start, end in windows)


def official_windows(root: str) -> Dict[str, Dict[str, List[Tuple[int, int]]]]:
    """The official window lists: 'train' and 'val' -> {sequence: [(first frame, last frame)]}.

    Empty where the lists are not there.

    Raises:
        UserError: a line is no window.
    """
    out = dict(train={}, val={})
    for split, windows in out.items():
        path = os.path.join(root, 'data_3d_semantics', 'train', f'2013_05_28_drive_{split}.txt')
        for n, line in enumerate(common.read_lines(path) if os.path.isfile(path) else (), 1):
            try:
                _, _, name, _, stem = line.split('/')
                start, end = map(int, os.path.splitext(stem)[0].split('_'))
            except ValueError as error:
                raise UserError(f'{path}:{n}: expected data_3d_semantics/train/<sequence>/static/'
                                f'<first>_<last>.ply, got {line!r}') from error
            windows.setdefault(name, []).append((start, end))
    return out


def _split_of(root, options):
    """(sequence name, frame) -> 'train', 'val' or None."""
    if options.split == 'drives':
        held_out = {sequence_name(drive) for drive in options.val_drives}
        return lambda name, frame: 'val' if name in held_out else 'train'
    if options.split == 'windows':
        windows = official_windows(root)
        if not (windows['train'] and windows['val']):
            raise UserError(f'{root}/data_3d_semantics/train: no window lists 2013_05_28_drive_'
                            "{train,val}.txt; download KITTI-360's semantics, or split by drives")

        def split_of(name, frame):  # windows overlap; what is in both belongs to val
            for split in ('val', 'train'):
                if name in windows[split] and _inside(frame, windows[split][name]):
                    return split
        return split_of
    if not os.path.isdir(options.split):
        hint = did_you_mean(options.split, ('drives', 'windows'))
        raise UserError(f'--split {options.split}: expected drives, windows, or a folder with '
                        f'train.txt and val.txt{hint}')
    table = {}
    for split in ('train', 'val'):
        path = os.path.join(options.split, f'{split}.txt')
        for n, line in enumerate(common.read_lines(path), 1):
            name, _, frame = line.partition(';')
            if not frame.strip().isdigit():
                raise UserError(f'{path}:{n}: expected <sequence>;<frame>, got {line!r}')
            if table.setdefault((name, int(frame)), split) != split:
                raise UserError(f'{path}:{n}: {line!r} is in train.txt too')
    return lambda name, frame: table.get((name, frame))


# Frames ---------------------------------------------------------------------------------------


def frames(root: str, keys: List[Tuple[str, int]], options: Options, workers: int = 1,
           journal: Optional[str] = None, split: str = '', check: bool = False,
           rasterizer: Optional[str] = None) -> common.Frames:
    """Info frames.

    Args:
        root: data root.
        keys: (sequence name, frame number) of each.
        options: :class:`Options`.
        workers: processes.
        journal: file that remembers finished frames, default a temporary one.
        split: 'train' leaves out bad frames.
        check: decode every image.
        rasterizer: count the BEV cells that it draws.

    Raises:
        UserError: a file of the set, or of a frame outside the training split, is missing, cut or
            malformed; many frames of the training split are.
    """
    shared = {name: sequence(root, name, options.boxes).stamp for name, _ in keys}

    def stamps(key):
        return common.stamp(*_files(root, *key)), shared[key[0]]

    def finalize(n, frame):
        frame['sample_idx'] = n
        fisheyes = sequence(root, frame['scene_token'], options.boxes).fisheyes
        for camera, folder in CAMERAS.items():
            frame['images'][camera].update(fisheyes[folder])

    return common.convert_frames(
        partial(_frame, root, options), keys, journal, stamps, workers, split,
        partial(_files_of, root) if check else None, strict=split != 'train', finalize=finalize,
        rasterizer=rasterizer)


def _frame(root, options, key) -> dict:
    name, number = key
    drive = sequence(root, name, options.boxes)
    scan_path, *image_paths = _files(root, name, number)
    points = read_scan(scan_path)[:, :3].astype(np.float64)
    motion = drive.motion(number)
    if options.undistort:
        points = undistort(points, motion)
    images = {}
    for (camera, folder), path in zip(CAMERAS.items(), image_paths):
        model = drive.fisheyes[folder]
        size = common.image_size(path)
        if size != (model['height'], model['width']):
            raise FrameError(f'{path}: wrong image size {size[1]}x{size[0]}, calibration/{folder}'
                             f'.yaml says {model["width"]}x{model["height"]}', 'image')
        images[camera] = dict(img_path=os.path.relpath(path, root))
    return dict(
        token=f'{name}_{number:010d}', scene_token=name, frame_id=f'{number:010d}',
        timestamp=drive.time(number), ego2global=drive.velo_to_world(number).tolist(),
        images=images, instances=_instances(drive, number, points, options),
        lidar_points=dict(lidar_path=os.path.relpath(scan_path, root), motion=motion,
                          num_pts_feats=len(FEATURES), feature_names=FEATURES))


def _instances(drive, number, points, options) -> list:
    world_to_velo = np.linalg.inv(drive.velo_to_world(number))
    found = []
    for box in (*drive.static, *drive.dynamic.get(number, ())):
        place = world_to_velo @ box.transform
        static = box.timestamp < 0
        if static and np.linalg.norm(place[:3, 3]) > options.radius:
            continue
        inside = points_inside(points, place)
        if static and inside < options.min_points:
            continue
        velocity = world_to_velo[:3, :3] @ drive.velocity(box)
        label = CATEGORIES[box.category]
        found.append(dict(
            bbox_3d=upright_box(place), bbox_label=label, bbox_label_3d=label,
            velocity=velocity[:2].tolist(), num_lidar_pts=inside, is_static=static,
            instance_id=1000 * LABELS[box.category][0] + box.instance, source_index=box.index))
    return found


def upright_box(place: np.ndarray) -> List[float]:
    """Centre x y z, length, width, height, yaw of a box given by its transform."""
    sizes = np.linalg.norm(place[:3, :3], axis=0)
    return [*place[:3, 3].tolist(), *sizes.tolist(), math.atan2(place[1, 0], place[0, 0])]


def points_inside(points: np.ndarray, place: np.ndarray) -> int:
    """How many points lie in the box that ``place`` (4, 4) makes of the cube of side 1."""
    reach = np.abs(place[:3, :3]).sum(1) / 2
    near = points[(np.abs(points - place[:3, 3]) <= reach).all(1)]
    local = (near - place[:3, 3]) @ np.linalg.inv(place[:3, :3]).T
    return int((np.abs(local) <= 0.5).all(1).sum())


def read_scan(path: str) -> np.ndarray:
    """(P, 4) float32: x, y, z, reflectance in [0, 1].

    Raises:
        FrameError: the file is missing or cut, has no return or values that are not finite.
    """
    size = os.path.getsize(path) if os.path.isfile(path) else None
    if not size or size % 16:
        raise FrameError(f'{path}: {size or "no"} bytes, expected points of 4 float32; the '
                         'file is cut, copy it again', 'scan')
    points = np.fromfile(path, '<f4').reshape(-1, 4)
    check_points(points, path)
    return points


# Drives ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """An annotated box: ``transform`` (4, 4) makes a box in the world of the cube of side 1.

    ``timestamp`` is -1 for a static object, else the only frame in which the box is valid.
    """

    category: str
    transform: np.ndarray
    timestamp: int
    instance: int
    index: int


@dataclass
class Sequence:
    """Data common to all frames of a drive; see :func:`sequence`."""

    poses: dict
    pose_from_velo: np.ndarray
    fisheyes: dict
    static: list
    dynamic: dict
    tracks: dict
    windows: list
    times: list
    stamp: tuple

    def velo_to_world(self, frame: int) -> np.ndarray:
        """T_w_v."""
        return self.poses[frame] @ self.pose_from_velo

    def time(self, frame: int) -> float:
        """Seconds; beyond the lines of the drive's timestamps counted on at 10 Hz."""
        if frame < len(self.times):
            return self.times[frame]
        return (self.times[-1] if self.times else -0.1) + 0.1 * (frame + 1 - len(self.times))

    def motion(self, frame: int) -> List[float]:
        """Motion during the scan: rotation vector (rad), translation (m); zeros if unknown.

        It takes points from the velodyne's frame of the scan before to this frame's.
        """
        before, now = (frame - 1, frame) if frame else (0, 1)
        if before not in self.poses or now not in self.poses:
            return [0.0] * 6
        import cv2
        step = np.linalg.inv(self.velo_to_world(now)) @ self.velo_to_world(before)
        return [*cv2.Rodrigues(step[:3, :3])[0].ravel().tolist(), *step[:3, 3].tolist()]

    def velocity(self, box: Box) -> np.ndarray:
        """(3,) m/s in the world by central difference; 0 for static boxes, NaN if unknown."""
        if box.timestamp < 0:
            return np.zeros(3)
        if box.timestamp >= len(self.times):
            return np.full(3, np.nan)
        track = self.tracks[box.category, box.instance]
        near = [t for t in range(-TRACK_GAP, TRACK_GAP + 1)
                if box.timestamp + t in track and box.timestamp + t < len(self.times)]
        before = max((t for t in near if t < 0), default=0)
        after = min((t for t in near if t > 0), default=0)
        first, last = box.timestamp + before, box.timestamp + after
        duration = self.time(last) - self.time(first)
        return (track[last] - track[first]) / duration if duration > 0 else np.full(3, np.nan)


def sequence(root: str, name: str, boxes: str) -> Sequence:
    """Poses, calibration, boxes and times of a drive; kept in memory while the files stay."""
    paths = dict(
        boxes=_boxes_path(root, name, boxes),
        poses=os.path.join(root, 'data_poses', name, 'poses.txt'),
        times=os.path.join(root, 'data_3d_raw', name, 'velodyne_points', 'timestamps.txt'),
        **{key: os.path.join(root, 'calibration', key) for key in (
            'calib_cam_to_pose.txt', 'calib_cam_to_velo.txt', 'image_02.yaml', 'image_03.yaml')})
    for key, what in (('poses', 'poses (data_poses)'), ('boxes', '3D boxes (data_3d_bboxes)')):
        if not os.path.isfile(paths[key]):
            raise UserError(f'{paths[key]}: no such file; download the {what} of {name}, or leave '
                            'the drive out with --sequences')
    return _sequence(tuple(paths.items()), common.stamp(*paths.values()))


@lru_cache(maxsize=len(DRIVES))
def _sequence(paths, stamp) -> Sequence:
    paths = dict(paths)
    poses = read_poses(paths['poses'])
    to_pose = read_calibration(paths['calib_cam_to_pose.txt'])
    velo_from_cam0 = read_calibration(paths['calib_cam_to_velo.txt'])['']
    pose_from_velo = to_pose['image_00'] @ np.linalg.inv(velo_from_cam0)
    fisheyes = {}
    for folder in CAMERAS.values():
        lidar2cam = np.linalg.inv(to_pose[folder]) @ pose_from_velo
        fisheyes[folder] = dict(read_fisheye(paths[f'{folder}.yaml']),
                                lidar2cam=lidar2cam.tolist())
    objects, windows = read_boxes(paths['boxes'])
    dynamic, tracks = {}, {}
    for box in objects:
        if box.timestamp >= 0:
            dynamic.setdefault(box.timestamp, []).append(box)
            track = tracks.setdefault((box.category, box.instance), {})
            track[box.timestamp] = box.transform[:3, 3]
    return Sequence(poses, pose_from_velo, fisheyes, [b for b in objects if b.timestamp < 0],
                    dynamic, tracks, windows, read_times(paths['times']), stamp)


def read_poses(path: str) -> Dict[int, np.ndarray]:
    """Frame number -> (4, 4) float64 ``T_w_p``; frames in which the car stood still are missing.

    Raises:
        UserError: with file and line number.
    """
    poses = {}
    for n, line in enumerate(common.read_lines(path), 1):
        word, *numbers = line.split() or ['']
        matrix = _matrix(numbers, f'{path}:{n}')
        try:
            frame = int(word.removesuffix('.0'))
        except ValueError:
            frame = -1
        if frame < 0 or frame in poses:
            raise UserError(f'{path}:{n}: expected a frame number of its own, got {word!r}; '
                            'download data_poses again')
        poses[frame] = matrix
    if not poses:
        raise UserError(f'{path}: no poses; download data_poses again')
    return poses


def read_calibration(path: str) -> Dict[str, np.ndarray]:
    """Name -> (4, 4) float64 of the lines ``name: 12 numbers``; the name may be missing ('').

    Raises:
        UserError: the file is missing or malformed, or lacks one of the four cameras.
    """
    matrices = {}
    for n, line in enumerate(common.read_lines(path), 1):
        name, _, numbers = line.rpartition(':')
        matrices[name.strip()] = _matrix(numbers.split(), f'{path}:{n}')
    for name in ('image_00', *CAMERAS.values()) if 'pose' in os.path.basename(path) else ('',):
        if name not in matrices:
            raise UserError(f'{path}: no line {name + ":" if name else "of 12 numbers"}; download '
                            'the calibration again')
    return matrices


def _matrix(numbers, where) -> np.ndarray:
    """A rigid 3x4 matrix as (4, 4)."""
    try:
        matrix = np.array(numbers, np.float64).reshape(3, 4)
    except ValueError as error:
        raise UserError(f'{where}: expected 12 numbers of a 3x4 matrix, got {len(numbers)} words; '
                        'copy the file again') from error
    matrix = np.vstack([matrix, [0, 0, 0, 1]])
    if not rigid.is_rigid(matrix):
        raise UserError(f'{where}: expected a rotation and a translation, the rotation is not '
                        'orthonormal; copy the file again')
    return matrix


def read_fisheye(path: str) -> dict:
    """Lens, parameters and image size of a fisheye from its OpenCV YAML file.

    Raises:
        UserError: the file is missing or malformed; naming the key.
    """
    text = '\n'.join(common.read_lines(path)[1:])  # the first line, %YAML:1.0, is no YAML
    with parse_errors(f'{path}: no fisheye calibration of type MEI',
                      'download the calibration again'):
        raw = yaml.safe_load(text)
        parts = {**raw['mirror_parameters'], **raw['distortion_parameters'],
                 **raw['projection_parameters']}
        height, width = int(raw['image_height']), int(raw['image_width'])
        mei = {key: float(parts[key]) for key in MEI_PARAMETERS}
        if not 0 < min(height, width) <= max(height, width) < 1 << 16 or \
                not max(map(abs, mei.values())) < 1e6 or not min(mei['gamma1'], mei['gamma2']) > 0:
            raise ValueError('a size or parameter is out of range')
    return dict(lens='mei', height=height, width=width, theta_max_deg=THETA_MAX_DEG, mei=mei)


def read_times(path: str) -> List[float]:
    """Seconds of the frames from 0 on that have a line; [] where the file is missing."""
    lines = common.read_lines(path) if os.path.isfile(path) else []
    return [common.parse_time(line, f'{path}:{n}') for n, line in enumerate(lines, 1)]


# Boxes ----------------------------------------------------------------------------------------

_FIELDS = ('index', 'label', 'semanticId', 'instanceId', 'timestamp', 'dynamicSeq', 'start_frame',
           'end_frame', 'transform/data')


class _Reader:
    """An XML target that keeps the wanted fields of every child of the root, as text."""

    def __init__(self):
        self.path, self.objects, self.text = [], [], None

    def doctype(self, *_):
        raise ValueError('it has a document type declaration, which KITTI-360 has not')

    def start(self, tag, _):
        self.path.append(tag)
        if len(self.path) > 16:
            raise ValueError('it is nested too deeply')
        if len(self.path) == 2:
            self.objects.append({})
        self.text = [] if '/'.join(self.path[2:]) in _FIELDS else None

    def data(self, text):
        if self.text is not None:
            self.text.append(text)

    def end(self, _):
        if self.text is not None:
            self.objects[-1]['/'.join(self.path[2:])] = ''.join(self.text).strip()
            self.text = None
        self.path.pop()


def read_boxes(path: str) -> Tuple[List[Box], List[Tuple[int, int]]]:
    """Boxes of the kept classes, and the windows in which the drive is annotated.

    Without ``semanticId`` (some of ``train_full``) the class follows from ``label`` and the track
    from ``dynamicSeq``. Objects without a transform, and flat ones, are no boxes.

    Returns:
        tuple: list of :class:`Box`; sorted list of (first, last) frame.

    Raises:
        UserError: the file is cut, no XML, has a DTD, or an object is malformed; naming it.
    """
    reader = _Reader()
    with parse_errors(f'{path}: unreadable 3D boxes', 'download data_3d_bboxes again'):
        ET.parse(path, ET.XMLParser(target=reader))
    names = {kitti: name for name, (_, kitti) in LABELS.items()}
    boxes, windows = [], set()
    for n, fields in enumerate(reader.objects, 1):
        try:
            if 'start_frame' in fields and 'end_frame' in fields:
                windows.add((int(fields['start_frame']), int(fields['end_frame'])))
            word = fields.get('label', '')
            category = names.get(int(fields['semanticId'])) if 'semanticId' in fields else \
                ALIASES.get(word, word)
            if category not in LABELS or 'transform/data' not in fields:
                continue
            transform = np.array(fields['transform/data'].split(), np.float64).reshape(4, 4)
            if not (np.abs(transform) < 1e8).all():
                raise ValueError('its transform is not finite, or beyond 1e8')
            if np.linalg.svd(transform[:3, :3], compute_uv=False).min() > 1e-3:
                boxes.append(Box(
                    category, transform, int(fields.get('timestamp', -1)),
                    int(fields.get('instanceId', fields.get('dynamicSeq', 0))),
                    int(fields.get('index', n))))
        except ValueError as error:
            raise UserError(f'{path}: object {n} ({fields.get("label", "without label")}): '
                            f'{error}') from error
    if not reader.objects:
        raise UserError(f'{path}: no objects; download data_3d_bboxes again, or leave the drive '
                        'out with --sequences')
    return boxes, sorted(windows)


# Paths ----------------------------------------------------------------------------------------


def _folder(root, name, camera=None) -> str:
    if camera:
        return os.path.join(root, 'data_2d_raw', name, camera, 'data_rgb')
    return os.path.join(root, 'data_3d_raw', name, 'velodyne_points', 'data')


def _boxes_path(root, name, boxes) -> str:
    return os.path.join(root, 'data_3d_bboxes', boxes, f'{name}.xml')


def _files(root, name, frame) -> tuple:
    """Paths of scan, left and right image of a frame."""
    images = (os.path.join(_folder(root, name, c), f'{frame:010d}.png') for c in CAMERAS.values())
    return os.path.join(_folder(root, name), f'{frame:010d}.bin'), *images


def _files_of(root, frame) -> tuple:
    return _files(root, frame['scene_token'], int(frame['frame_id']))


def _numbers(folder, suffix) -> set:
    """Frame numbers of the files of a folder."""
    if not os.path.isdir(folder):
        raise UserError(f'{folder}: no such folder; download this part of the drive, or leave the '
                        'drive out with --sequences; the conversion needs scans and both fisheyes, '
                        'also for models that do not read all of them')
    if suffix == '.png' and (hint := common.other_format(folder, suffix)):
        raise UserError(f'{folder}: no images{hint}')
    return {int(file[:10]) for file in os.listdir(folder)
            if len(file) == 14 and file[:10].isdigit() and file.endswith(suffix)}
