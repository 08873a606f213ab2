"""nuScenes (or toytown written in its layout) -> info files that mmdet3d's own classes read, too.

Frame of reference is that of LIDAR_TOP, as in mmdet3d: x right, y ahead, z up, tilted with the
LiDAR. ``lidar2cam`` has the car's motion between scan and image in it. File names are without
folder: scans are in ``samples/LIDAR_TOP``, images in ``samples/<camera>``.

The tables are read row by row into columns; that of trainval has millions of rows.
"""

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from scipy.spatial.transform import Rotation

from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.errors import FrameError, UserError, did_you_mean, parse_errors
from mmdet3d_plugin.geometry import rigid
from mmdet3d_plugin.geometry.lidar_image import fov_of_beams
from mmdet3d_plugin.structures import INFO_VERSION, check_image
from mmdet3d_plugin.structures.vector_map import map_path

from . import common

SPLITS = {'v1.0-mini': dict(train='mini_train', val='mini_val'),
          'v1.0-trainval': dict(train='train', val='val'), 'v1.0-test': dict(test='test')}
"""Version -> split of the info file -> the devkit's name of the split."""

CLASSES = ('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle',
           'pedestrian', 'traffic_cone', 'barrier')
CATEGORIES = {name: index for index, name in enumerate(CLASSES)}
CLASS_OF = {
    'movable_object.barrier': 'barrier', 'vehicle.bicycle': 'bicycle',
    'vehicle.bus.bendy': 'bus', 'vehicle.bus.rigid': 'bus', 'vehicle.car': 'car',
    'vehicle.construction': 'construction_vehicle', 'vehicle.motorcycle': 'motorcycle',
    'human.pedestrian.adult': 'pedestrian', 'human.pedestrian.child': 'pedestrian',
    'human.pedestrian.construction_worker': 'pedestrian',
    'human.pedestrian.police_officer': 'pedestrian', 'movable_object.trafficcone': 'traffic_cone',
    'vehicle.trailer': 'trailer', 'vehicle.truck': 'truck'}
"""Category -> detection class; annotations of other categories are kept with label -1."""

ATTRIBUTES = ('cycle.with_rider', 'cycle.without_rider', 'pedestrian.moving',
              'pedestrian.standing', 'pedestrian.sitting_lying_down', 'vehicle.moving',
              'vehicle.parked', 'vehicle.stopped')
"""In mmdet3d's order; ``attr_label`` of an annotation without one is 8."""

LIDAR = 'LIDAR_TOP'
CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT',
           'CAM_BACK_RIGHT')
CHANNELS = (LIDAR, *CAMERAS)
FEATURES = ['x', 'y', 'z', 'intensity', 'ring']
BEAMS_DEG = np.linspace(10.67, -30.67, 32)
"""Elevation of the beams in the axes of the LiDAR."""


def convert(root_path: str, out_dir: Optional[str] = None, version: str = 'v1.0-trainval',
            workers: int = 1, check: bool = False, max_sweeps: int = 10,
            rasterizer: Optional[str] = None, only: Sequence[str] = (),
            overwrite: bool = False) -> dict:
    """Write ``nuscenes_infos_{train,val}.pkl`` (or ``test``), and a table of all images to each.

    A stopped conversion continues where it was; the files appear complete or not at all. Scenes
    whose first scan is not there (parts that were not downloaded) are left out and counted; so is
    the training split if none of its scenes is there, which evaluation does not need. Bad frames
    of the training split are left out and counted, one of another split is an error.

    Args:
        root_path: folder with samples/, sweeps/ and the folder of the version.
        out_dir: where the info files go, default the root path.
        version: 'v1.0-mini', 'v1.0-trainval' or 'v1.0-test'.
        workers: processes; they change nothing in the files.
        check: decode every image and scan of the key frames, and read the info files back.
        max_sweeps: LiDAR sweeps before each key frame at most, nearest first.
        rasterizer: method of RasterizeBEV: report the BEV cells of each class that it draws.
        only: splits to write; () = all of the version.
        overwrite: replace info files of another version.

    Returns:
        dict: file and report of each split, the number of scenes left out, and the locations
        without a map (only map segmentation needs them).

    Raises:
        UserError: naming the file, table or record that is missing, cut or malformed.
    """
    if version not in SPLITS:
        raise UserError(f'{version!r} is no version of nuScenes{did_you_mean(version, SPLITS)}; '
                        f'expected one of {", ".join(SPLITS)}')
    root, out_dir = str(root_path), str(out_dir or root_path)
    tables, summary, skipped, locations = load(root, version), {}, 0, set()
    if 'test' not in SPLITS[version] and not len(tables.annotations['pose']):
        raise UserError(f'{root}/{version}/sample_annotation.json: no annotations; extract the '
                        'metadata again')
    common.check_splits(only, SPLITS[version])
    _check_folders(root, tables, max_sweeps)
    os.makedirs(out_dir, exist_ok=True)
    with common.published(out_dir) as pending:
        for split, scenes in split_scenes(version).items():
            if only and split not in only:
                continue
            keys, missing = samples_of(tables, root, scenes)
            skipped += missing
            if not keys:
                text = (f'no scene of split {split!r} of {version} has files in samples/{LIDAR}; '
                        'download its parts, or check --version')
                if split != 'train' or only:
                    raise UserError(f'{root}: {text}; --splits train writes the other split alone')
                summary[split] = f'not written: {text}'
                continue
            path = os.path.join(out_dir, f'nuscenes_infos_{split}.pkl')
            base = metainfo(version, split)
            common.check_replaced(path, base, overwrite)
            data_list = frames(root, version, keys, max_sweeps, workers, f'{path}.journal', split,
                               check, rasterizer)
            meta = dict(base, skipped=data_list.skipped,
                        **common.bev_metainfo(data_list, CATEGORIES, rasterizer))
            infos = dict(metainfo=meta, data_list=data_list)
            counts = report(infos)
            write_images(tables, data_list.keys, pending(
                os.path.join(out_dir, f'nuscenes_images_{split}.npz')))
            common.write_infos(infos, pending(path), check)
            summary[split] = f'{path}: {counts}'
            locations.update(counts['locations'])
    missing = sorted(name for name in locations if not os.path.isfile(map_path(root, name)))
    return dict(summary, scenes_skipped=skipped, maps_missing=', '.join(missing) or 'none')


def _check_folders(root, tables, max_sweeps):
    """Name the folders that are missing as a whole, and the way to do without one."""
    for channel in CHANNELS:
        if not os.path.isdir(os.path.join(root, 'samples', channel)):
            raise UserError(f'{root}/samples/{channel}: no such folder; the conversion needs the '
                            f'key frames of {", ".join(CHANNELS)}, also for models that do not '
                            'read all of them; download it')
    folder = os.path.join(root, 'sweeps', LIDAR)
    sweeps = (tables.data['channel'] == 0) & ~tables.data['key']
    if max_sweeps and sweeps.any() and not os.path.isdir(folder):
        raise UserError(f'{folder}: no such folder; download the LiDAR sweeps, or convert the key '
                        'frames alone with --max-sweeps 0')


def metainfo(version: str, split: str) -> dict:
    """Metainfo of the info file."""
    up, down = fov_of_beams(BEAMS_DEG)
    return dict(
        dataset='nuscenes', version=version, info_version=INFO_VERSION, split=split,
        categories=dict(CATEGORIES), lidar_frame='x right, y forward, z up',
        lidar_image=dict(projection='spherical', fov_up=up, fov_down=down))


def report(infos: dict) -> dict:
    """Counts of a conversion, to check it."""
    def number(quality):
        return lambda frame: sum(map(quality, frame['instances']))

    locations = set()
    counts, labels, more = common.summarize(
        infos, sweeps=lambda frame: len(frame.get('lidar_sweeps', ())),
        without_points=number(lambda i: not i['bbox_3d_isvalid']),
        without_velocity=number(lambda i: i['velocity'][0] != i['velocity'][0]),
        locations=lambda frame: locations.add(frame['location']) or 0)
    objects = {name: labels[index] for name, index in CATEGORIES.items()}
    return dict(counts, objects=objects, other=labels[-1], **dict(
        more, locations=sorted(locations)))


# Tables ---------------------------------------------------------------------------------------

_CHUNK = 1 << 24  # characters


def read_rows(path: str) -> Iterator[dict]:
    """The records of a table, one after the other, without holding the file in memory.

    Raises:
        UserError: the file is missing, cut, or no array of objects.
    """
    decode, gap = json.JSONDecoder().raw_decode, re.compile(r'[\s,]*')
    with parse_errors(f'{path}: no table of nuScenes', 'extract the metadata again'), \
            open(path, encoding='utf-8-sig') as file:
        text = file.read(_CHUNK).lstrip()
        if not text.startswith('['):
            raise ValueError('it does not start with [')
        at = 1
        while True:
            at = gap.match(text, at).end()
            try:
                if text[at:at + 1] == ']':
                    return
                row, at = decode(text, at)
            except json.JSONDecodeError:
                more = file.read(_CHUNK)
                if not more:
                    raise
                text, at = text[at:] + more, 0
                continue
            if not isinstance(row, dict):
                raise ValueError(f'expected records, got {row!r:.60}')
            yield row


def read_columns(path: str, fields: Dict[str, Union[type, Callable[[dict], Any]]],
                 keep: Optional[Callable[[dict], bool]] = None) -> Dict[str, np.ndarray]:
    """Columns of a table.

    Args:
        path: the table.
        keep: record -> whether to read it; default all.
        fields: name -> type of the field of that name (str, int, bool), or function of a record
            that gives text, a number or a list of numbers.

    Returns:
        dict: name -> array over the records; text is bytes.

    Raises:
        UserError: also if a record lacks a field, or has one of another type.
    """
    blocks, block = [], []

    def close():
        columns = zip(*block) if block else [()] * len(fields)
        blocks.append([_column(kind, values) for kind, values in zip(fields.values(), columns)])
        block.clear()

    getters = [(lambda row, name=name: row[name]) if isinstance(kind, type) else kind
               for name, kind in fields.items()]
    row = None
    try:
        for row in filter(keep, read_rows(path)):
            block.append([get(row) for get in getters])
            if len(block) == 50_000:
                close()
        if block or not blocks:
            close()
        columns = dict(zip(fields, map(list, zip(*blocks))))
        blocks.clear()
        for name in columns:  # one after the other: two copies of a table are too much
            columns[name] = np.concatenate(columns[name])
        return columns
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{path}: a record lacks the field {error} or has a wrong one: '
                        f'{str(row)[:200]}; extract the metadata again') from error


def _column(kind, values) -> np.ndarray:
    if kind is str or (values and isinstance(values[0], str)):
        return np.array([value.encode() for value in values], None if values else 'S1')
    column = np.array(values, kind if isinstance(kind, type) else None)
    if column.dtype.kind not in 'ifb':
        raise ValueError(f'expected numbers, got {column.dtype}')
    return column


def locate(keys: np.ndarray, wanted: np.ndarray, table: str, user: str,
           optional: bool = False) -> np.ndarray:
    """Rows of tokens.

    Args:
        keys: (N,) bytes, the tokens of a table.
        wanted: (M,) bytes.
        table, user: files in which they are and from which they are referred to, for the error.
        optional: an empty token gives -1.

    Returns:
        (M,) int64.

    Raises:
        UserError: a token is not there, or there twice.
    """
    order = np.argsort(keys, kind='stable')
    ordered = keys[order]
    twice = ordered[1:] == ordered[:-1]
    if twice.any():
        raise UserError(f'{table}: two records {ordered[1:][twice][0].decode()}; extract the '
                        'metadata again')
    rows = np.full(len(wanted), -1)
    named = wanted != b'' if optional else np.ones(len(wanted), bool)
    if named.any():
        place = np.searchsorted(ordered, wanted[named]).clip(max=max(len(keys) - 1, 0))
        bad = ordered[place] != wanted[named] if len(keys) else named[named]
        if bad.any():
            raise UserError(f'{table}: no record {wanted[named][bad][0].decode()!r}, which {user} '
                            'refers to; extract the metadata again')
        rows[named] = order[place]
    return rows


@dataclass
class Tables:
    """The tables of a version, joined.

    Attributes:
        scenes: list of dict(token, name, location).
        samples: columns token, time (us), scene; sorted by scene and time.
        data: columns of the files of LIDAR_TOP and the cameras: sample, scene, channel, time, key,
            name (of the file), token, pose (row), calibrated (row), height, width; sorted by
            channel, scene and time.
        start: (files,) first row of ``data`` of the same channel and scene.
        keys: (samples, 7) row of ``data`` of each channel's key frame.
        poses: (rows, 7) float64 translation and rotation w x y z, ego to global.
        calibrated: list of dict(matrix (4, 4) sensor to ego, cam2img).
        annotations: columns place, rotation, size, velocity (global), points, category, visibility,
            attribute, instance, good (finite, with a size); sorted by sample.
        first: (samples + 1,) first row of ``annotations`` of each sample.
    """

    scenes: list
    samples: dict
    data: dict
    start: np.ndarray
    keys: np.ndarray
    poses: np.ndarray
    calibrated: list
    annotations: dict
    first: np.ndarray

    def pose(self, row: int) -> np.ndarray:
        """Ego to global when a file was taken."""
        values = self.poses[self.data['pose'][row]]
        return rigid.rigid(quaternion_matrix(values[3:]), values[:3])

    def extrinsics(self, row: int) -> dict:
        """Calibration of the sensor of a file."""
        return self.calibrated[self.data['calibrated'][row]]

    def number(self, token: str) -> int:
        """Row of a sample."""
        return self._numbers[token]

    def __post_init__(self):
        self._numbers = {token.decode(): n for n, token in enumerate(self.samples['token'])}


def load(root: str, version: str) -> Tables:
    """Tables of a version; kept in memory while the files stay.

    Raises:
        UserError: a table is missing or malformed, or refers to a record that is not there.
    """
    folder = os.path.join(str(root), version)
    if not os.path.isdir(folder):
        there = sorted(name for name in SPLITS if os.path.isdir(os.path.join(str(root), name)))
        raise UserError(f'{folder}: no such folder; ' + (
            f'there is {", ".join(there)}: choose it with --version' if there else
            'extract the metadata of nuScenes there, or check --root-path'))
    return _load(folder, stamp(root, version))


def stamp(root: str, version: str) -> tuple:
    """Changes when a table does."""
    return common.stamp(*(os.path.join(str(root), version, f'{name}.json') for name in (
        'attribute calibrated_sensor category ego_pose instance log sample sample_annotation '
        'sample_data scene sensor').split()))


@lru_cache(maxsize=1)
def _load(folder, stamp) -> Tables:
    def path(name):
        return os.path.join(folder, f'{name}.json')

    def columns(name, /, **fields):
        return read_columns(path(name), fields)

    logs = columns('log', token=str, location=str)
    scenes = columns('scene', token=str, name=str, log_token=str)
    log = locate(logs['token'], scenes['log_token'], path('log'), path('scene'))
    samples = columns('sample', token=str, timestamp=int, scene_token=str)
    scene = locate(scenes['token'], samples['scene_token'], path('scene'), path('sample'))
    order = np.lexsort((samples['timestamp'], scene))
    samples = dict(token=samples['token'][order], time=samples['timestamp'][order],
                   scene=scene[order])

    sensors = columns('sensor', token=str, channel=str)
    extrinsics = columns('calibrated_sensor', token=str, sensor_token=str, pose=_pose,
                     cam2img=lambda row: row['camera_intrinsic'] or np.zeros((3, 3)).tolist())
    _check_poses(extrinsics, path('calibrated_sensor'))
    if extrinsics['cam2img'].shape[1:] != (3, 3) or not np.isfinite(extrinsics['cam2img']).all():
        raise UserError(f'{path("calibrated_sensor")}: camera_intrinsic: expected 3x3 finite '
                        'numbers; extract the metadata again')
    sensor = locate(sensors['token'], extrinsics['sensor_token'], path('sensor'),
                    path('calibrated_sensor'))
    numbers = {name.encode(): n for n, name in enumerate(CHANNELS)}
    channel_of = {token.decode(): numbers[name] for token, name in zip(
        extrinsics['token'], sensors['channel'][sensor]) if name in numbers}
    data = read_columns(path('sample_data'), dict(
        token=str, sample_token=str, ego_pose_token=str, calibrated_sensor_token=str, timestamp=int,
        is_key_frame=bool, filename=str, height=int, width=int,
        channel=lambda row: channel_of[row['calibrated_sensor_token']]),
        keep=lambda row: row['calibrated_sensor_token'] in channel_of)
    if not len(data['token']):
        raise UserError(f'{path("sample_data")}: no files of LIDAR_TOP and the cameras; '
                        'extract the metadata again')
    data = _join_data(data, samples, extrinsics, path)
    poses = columns('ego_pose', token=str, pose=_pose)
    _check_poses(poses, path('ego_pose'))
    data['pose'] = locate(poses['token'], data.pop('ego_pose_token'), path('ego_pose'),
                          path('sample_data'))
    keys = np.full((len(samples['token']), len(CHANNELS)), -1)
    row = np.flatnonzero(data['key'])
    keys[data['sample'][row], data['channel'][row]] = row
    if np.count_nonzero(keys >= 0) < len(row):
        raise UserError(f'{path("sample_data")}: a sample has two key frames of one sensor; '
                        'extract the metadata again')
    group = data['channel'] * len(scenes['token']) + data['scene']
    annotations, first = _annotations(columns, path, samples)
    return Tables(
        [dict(token=token.decode(), name=name.decode(), location=logs['location'][at].decode())
         for token, name, at in zip(scenes['token'], scenes['name'], log)],
        samples, data, np.searchsorted(group, group), keys, poses['pose'],
        [dict(matrix=rigid.rigid(quaternion_matrix(pose[3:]), pose[:3]), cam2img=matrix.tolist())
         for pose, matrix in zip(extrinsics['pose'], extrinsics['cam2img'])], annotations, first)


def _pose(row):
    return [*map(float, row['translation']), *map(float, row['rotation'])]


def _good_poses(poses) -> np.ndarray:
    """Whether rows of (N, 7) are a finite translation and a unit quaternion."""
    with np.errstate(invalid='ignore', over='ignore'):
        norm = np.linalg.norm(poses[:, 3:], axis=1)
        return np.isfinite(poses).all(1) & (np.abs(norm - 1) < 1e-2)


def _check_poses(table, path):
    good = _good_poses(table['pose']) if table['pose'].shape[1:] == (7,) else np.zeros(1, bool)
    if not good.all():
        token = table['token'][np.argmin(good)].decode() if len(table['token']) else 'of any kind'
        raise UserError(f'{path}: record {token}: expected 3 finite numbers of a translation and 4 '
                        'of a rotation (a unit quaternion); extract the metadata again')


def _join_data(data, samples, extrinsics, path):
    """Columns of :attr:`Tables.data` but for the poses."""
    sample = locate(samples['token'], data['sample_token'], path('sample'), path('sample_data'))
    calibrated = locate(extrinsics['token'], data['calibrated_sensor_token'],
                        path('calibrated_sensor'), path('sample_data'))
    scene = samples['scene'][sample]
    order = np.lexsort((data['timestamp'], scene, data['channel']))
    joined = dict(
        sample=sample, scene=scene, channel=data['channel'], time=data['timestamp'],
        key=data['is_key_frame'].astype(bool), name=data['filename'], token=data['token'],
        calibrated=calibrated, height=data['height'], width=data['width'],
        ego_pose_token=data['ego_pose_token'])
    return {name: values[order] for name, values in joined.items()}


def _annotations(columns, path, samples):
    """Columns of :attr:`Tables.annotations`, and the first row of each sample."""
    categories, attributes = (columns(name, token=str, name=str)
                              for name in ('category', 'attribute'))
    instances = columns('instance', token=str, category_token=str)
    category = locate(categories['token'], instances['category_token'], path('category'),
                      path('instance'))
    raw = columns(
        'sample_annotation', token=str, sample_token=str, instance_token=str, prev=str, next=str,
        size=lambda row: [*map(float, row['size'])], pose=_pose,
        points=lambda row: [int(row['num_lidar_pts']), int(row['num_radar_pts'])],
        visibility=lambda row: int(row['visibility_token'] or 0),
        attribute=lambda row: (row['attribute_tokens'] or [''])[0])
    if not len(raw['token']):
        raw.update(pose=np.zeros((0, 7)), size=np.zeros((0, 3)), points=np.zeros((0, 2), int),
                   visibility=np.zeros(0, int), attribute=np.zeros(0, 'S1'))
    here = path('sample_annotation')
    if raw['pose'].shape[1:] != (7,) or raw['size'].shape[1:] != (3,):
        raise UserError(f'{here}: expected 3 numbers of a translation and of a size and 4 of a '
                        'rotation; extract the metadata again')
    raw['sample'] = locate(samples['token'], raw['sample_token'], path('sample'), here)
    row = np.arange(len(raw['token']))
    before, after = (locate(raw['token'], raw[name], here, here, optional=True)
                     for name in ('prev', 'next'))
    first, last = np.where(before < 0, row, before), np.where(after < 0, row, after)
    time = samples['time'][raw['sample']] if len(row) else np.zeros(0)
    duration = (time[last] - time[first]) / 1e6
    longest = np.where((before >= 0) & (after >= 0), 3.0, 1.5)  # as the devkit
    with np.errstate(all='ignore'):
        velocity = (raw['pose'][last, :3] - raw['pose'][first, :3]) / duration[:, None]
    velocity[(duration <= 0) | (duration > longest)] = np.nan
    attribute = locate(attributes['token'], raw['attribute'], path('attribute'), here,
                       optional=True)
    labels = [ATTRIBUTES.index(name.decode()) if name.decode() in ATTRIBUTES else 8
              for name in attributes['name']]
    instance = locate(instances['token'], raw['instance_token'], path('instance'), here)
    order = np.argsort(raw['sample'], kind='stable')
    names = [name.decode() for name in categories['name']]
    out = dict(
        pose=raw['pose'], size=raw['size'], velocity=velocity, points=raw['points'],
        category=category[instance], visibility=raw['visibility'], instance=instance,
        attribute=np.array([*labels, 8])[attribute],
        good=_good_poses(raw['pose']) & (raw['size'] > 0).all(1) & np.isfinite(raw['size']).all(1))
    out = {name: values[order] for name, values in out.items()}
    counts = np.bincount(raw['sample'], minlength=len(samples['token']))
    return dict(out, names=names), np.concatenate([[0], np.cumsum(counts)])


def quaternion_matrix(q: Sequence[float]) -> np.ndarray:
    """(..., 3, 3) rotations of quaternions (..., 4) w x y z.

    Example:
        >>> quaternion_matrix([0, 0, 0, 1])  # 180 degrees about z
        array([[-1.,  0.,  0.],
               [ 0., -1.,  0.],
               [ 0.,  0.,  1.]])
    """
    return Rotation.from_quat(np.roll(q, -1, -1)).as_matrix()


# Which frames ---------------------------------------------------------------------------------


def split_scenes(version: str) -> Dict[str, List[str]]:
    """Split -> names of its scenes, from the devkit."""
    from nuscenes.utils.splits import create_splits_scenes
    scenes = create_splits_scenes()
    return {split: scenes[name] for split, name in SPLITS[version].items()}


def samples_of(tables: Tables, root: str, scenes: Iterable[str]) -> Tuple[List[str], int]:
    """Tokens of the samples of scenes, sorted by scene and time, and the number of scenes left out.

    A scene is left out if it is in the tables, but the scan of its first sample is not there.
    """
    wanted, keys, missing = set(scenes), [], 0
    for number in np.argsort([scene['name'] for scene in tables.scenes], kind='stable'):
        rows = np.flatnonzero(tables.samples['scene'] == number)
        if tables.scenes[number]['name'] not in wanted or not len(rows):
            continue
        first = tables.keys[rows[0], 0]
        if first < 0 or os.path.isfile(os.path.join(root, tables.data['name'][first].decode())):
            keys += [tables.samples['token'][row].decode() for row in rows]
        else:
            missing += 1
    return keys, missing


# Frames ---------------------------------------------------------------------------------------


def frames(root: str, version: str, keys: Sequence[str], max_sweeps: int = 10, workers: int = 1,
           journal: Optional[str] = None, split: str = '', check: bool = False,
           rasterizer: Optional[str] = None) -> common.Frames:
    """Info frames of samples.

    Args:
        root: data root.
        version: of nuScenes.
        keys: tokens of the samples.
        max_sweeps: LiDAR sweeps of each at most.
        workers: processes.
        journal: file that remembers finished frames, default a temporary one.
        split: 'train' leaves out bad frames.
        check: decode every image and scan of the key frames.
        rasterizer: count the BEV cells that it draws.

    Raises:
        UserError: a file of a frame outside the training split is missing or cut; those of many
            frames of the training split are.
    """
    tables = load(root, version)  # before the processes fork, so that they share its memory
    shared = stamp(root, version)

    def stamps(token):
        rows = tables.keys[tables.number(token)]
        rows = [*rows[rows >= 0], *_sweep_rows(tables, rows[0], max_sweeps)]
        return shared, common.stamp(*(os.path.join(root, tables.data['name'][row].decode())
                                      for row in rows))

    return common.convert_frames(
        partial(_frame, root, version, max_sweeps), keys, journal, stamps, workers, split,
        partial(_files_of, root) if check else None, strict=split != 'train',
        finalize=lambda n, frame: frame.update(sample_idx=n), rasterizer=rasterizer)


def _frame(root, version, max_sweeps, token) -> dict:
    tables = load(root, version)
    number = tables.number(token)
    rows = tables.keys[number]
    missing = [name for name, row in zip(CHANNELS, rows) if row < 0]
    if missing:
        raise FrameError(f'{root}/{version}/sample_data.json: sample {token} has no key frame of '
                         f'{", ".join(missing)}; extract the metadata again', 'key frame')
    boxes = slice(tables.first[number], tables.first[number + 1])
    if not tables.annotations['good'][boxes].all():
        raise FrameError(f'{root}/{version}/sample_annotation.json: sample {token} has a box whose '
                         'size is not positive or whose place is not finite', 'labels')
    scene = tables.scenes[tables.samples['scene'][number]]
    ego2global, lidar2ego = tables.pose(rows[0]), tables.extrinsics(rows[0])['matrix']
    lidar2global = ego2global @ lidar2ego
    sweeps = [_sweep(root, tables, row, lidar2global)
              for row in _sweep_rows(tables, rows[0], max_sweeps)]
    beside = [tables.samples['token'][n].decode() if 0 <= n < len(tables.keys) and tables.samples[
        'scene'][n] == tables.samples['scene'][number] else '' for n in (number - 1, number + 1)]
    return dict(
        token=token, scene_token=scene['token'], scene_name=scene['name'], frame_id=token,
        location=scene['location'], prev=beside[0], next=beside[1],
        timestamp=int(tables.samples['time'][number]) / 1e6, ego2global=ego2global.tolist(),
        images={name: _camera(root, tables, row, lidar2global)
                for name, row in zip(CAMERAS, rows[1:])},
        lidar_points=dict(
            lidar_path=os.path.basename(_file(root, tables, rows[0])), feature_names=FEATURES,
            num_pts_feats=len(FEATURES), lidar2ego=lidar2ego.tolist()),
        **(dict(lidar_sweeps=sweeps) if sweeps else {}),  # mmdet3d does not accept an empty list
        instances=_instances(tables, number, lidar2global))


def _sweep_rows(tables, row, max_sweeps) -> range:
    """Rows of the scans before one, nearest first; none without it (-1)."""
    return range(row - 1, tables.start[row] - 1, -1)[:max_sweeps if row >= 0 else 0]


def _file(root, tables, row) -> str:
    """Name of a file relative to the root, after looking at the file."""
    name, channel = tables.data['name'][row].decode(), CHANNELS[tables.data['channel'][row]]
    path = os.path.join(root, name)
    folder = f'{"samples" if tables.data["key"][row] else "sweeps"}/{channel}'
    if os.path.dirname(name) != folder:
        raise UserError(f'{path}: expected in the folder {folder}; extract the metadata again')
    size = os.path.getsize(path) if os.path.isfile(path) else None
    if not size:
        way = ', or do without sweeps (--max-sweeps 0)' if name.startswith('sweeps/') else (
            common.other_format(os.path.dirname(path), os.path.splitext(name)[1]))
        raise FrameError(f'{path}: {"no such" if size is None else "empty"} file; extract the part '
                         f'of nuScenes that has it again{way}', _kind(channel))
    if channel == LIDAR and size % 20:
        raise FrameError(f'{path}: {size} bytes, expected points of 5 float32; the file is '
                         'cut, extract it again', 'scan')
    if channel != LIDAR:
        check_image(path)
    return name


def _kind(channel) -> str:
    return 'scan' if channel == LIDAR else 'image'


def _camera(root, tables, row, lidar2global) -> dict:
    extrinsics = tables.extrinsics(row)
    global2ego = np.linalg.inv(tables.pose(row))
    return dict(
        img_path=os.path.basename(_file(root, tables, row)), lens='pinhole',
        cam2img=extrinsics['cam2img'],
        height=int(tables.data['height'][row]), width=int(tables.data['width'][row]),
        cam2ego=extrinsics['matrix'].tolist(), timestamp=int(tables.data['time'][row]) / 1e6,
        lidar2cam=(np.linalg.inv(extrinsics['matrix']) @ global2ego @ lidar2global).tolist(),
        sample_data_token=tables.data['token'][row].decode())


def _sweep(root, tables, row, lidar2global) -> dict:
    """A sweep; ``lidar2sensor`` brings it into the key frame exactly, the way mmdet3d reads it.

    ``LoadPointsFromMultiSweeps`` computes p R - t for points as rows, so R and t are those of the
    way from key frame to sweep and from sweep to key frame: not one rigid matrix.
    """
    ego2global, lidar2ego = tables.pose(row), tables.extrinsics(row)['matrix']
    to_key = np.linalg.inv(lidar2global) @ ego2global @ lidar2ego
    lidar2sensor = rigid.rigid(to_key[:3, :3].T, -to_key[:3, 3])
    return dict(
        timestamp=int(tables.data['time'][row]) / 1e6, ego2global=ego2global.tolist(),
        sample_data_token=tables.data['token'][row].decode(),
        lidar_points=dict(lidar_path=_file(root, tables, row), num_pts_feats=len(FEATURES),
                          lidar2ego=lidar2ego.tolist(), lidar2sensor=lidar2sensor.tolist()))


def _instances(tables, number, lidar2global) -> list:
    found, global2lidar = [], np.linalg.inv(lidar2global)
    table = tables.annotations
    rows = range(tables.first[number], tables.first[number + 1])
    poses = table['pose'][rows.start:rows.stop]
    for row, pose, matrix in zip(rows, poses, quaternion_matrix(poses[:, 3:])):
        width, length, height = table['size'][row].tolist()
        place = rigid.apply(global2lidar, pose[None, :3])[0].tolist()
        heading = global2lidar[:3, :3] @ matrix[:, 0]
        velocity = global2lidar[:3, :3] @ [*table['velocity'][row, :2], 0.0]
        category = table['names'][table['category'][row]]
        label = CATEGORIES.get(CLASS_OF.get(category), -1)
        lidar, radar = table['points'][row].tolist()
        attribute = int(table['attribute'][row])
        found.append(dict(
            bbox_3d=[*place, length, width, height, float(np.arctan2(heading[1], heading[0]))],
            bbox_label=label, bbox_label_3d=label, velocity=velocity[:2].tolist(),
            num_lidar_pts=lidar, num_radar_pts=radar, bbox_3d_isvalid=lidar + radar > 0,
            category=category, attr_label=attribute, attribute=(*ATTRIBUTES, '')[attribute],
            visibility=int(table['visibility'][row]), instance_id=int(table['instance'][row])))
    return found


def _files_of(root, frame) -> list:
    scan = frame['lidar_points']['lidar_path']
    return [os.path.join(root, 'samples', LIDAR, scan), *(
        os.path.join(root, 'samples', name, camera['img_path'])
        for name, camera in frame['images'].items())]


# Images of temporal models ------------------------------------------------------------------


def write_images(tables: Tables, keys: Sequence[str], path: str) -> None:
    """Write the side table of all images, key frames and those between them.

    An ``.npz`` with, for each camera NAME: ``NAME.path`` (N,) bytes relative to the data root,
    ``NAME.time`` (N,) float64 seconds, ``NAME.ego2global`` (N, 4, 4), ``NAME.cam2ego`` (N, 4, 4)
    and ``NAME.cam2img`` (N, 3, 3) float64, in the order of scenes and time; ``NAME.key`` (frames,)
    int64 row of the image of each frame of the info file, and ``NAME.first`` (frames,) first row
    of its scene: rows key - 1, key - 2, ..., first are the images before it, nearest first.
    ``token`` (frames,) bytes are those of the frames.
    """
    samples = np.array([tables.number(key) for key in keys])
    scenes = np.unique(tables.samples['scene'][samples])
    out = dict(token=np.array(keys, 'S'))
    for channel, name in enumerate(CAMERAS, 1):
        mine = (tables.data['channel'] == channel) & np.isin(tables.data['scene'], scenes)
        rows = np.flatnonzero(mine)
        key = tables.keys[samples, channel]
        out |= {
            f'{name}.path': tables.data['name'][rows],
            f'{name}.time': tables.data['time'][rows] / 1e6,
            f'{name}.ego2global': np.array([tables.pose(row) for row in rows]),
            f'{name}.cam2ego': np.array([tables.extrinsics(row)['matrix'] for row in rows]),
            f'{name}.cam2img': np.array([tables.extrinsics(row)['cam2img'] for row in rows]),
            f'{name}.key': np.searchsorted(rows, key),
            f'{name}.first': np.searchsorted(rows, tables.start[key])}
    with atomic_write(path) as file:
        np.savez(file, **out)
