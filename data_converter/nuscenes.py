"""nuScenes (or toytown written in its layout) -> info files that mmdet3d's own classes read, too.

Frame of reference is that of LIDAR_TOP, as in mmdet3d: x right, y ahead, z up, tilted with the
scanner. ``lidar2cam`` has the car's motion between scan and picture in it. File names are without
folder: scans are in ``samples/LIDAR_TOP``, pictures in ``samples/<camera>``.

The tables are read row by row into columns; that of trainval has millions of rows.
"""

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.errors import UserError, did_you_mean
from mmdet3d_plugin.geometry import rigid
from mmdet3d_plugin.geometry.lidar_image import fov_of_beams
from mmdet3d_plugin.structures import INFO_VERSION
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
"""Elevation of the beams in the scanner's axes."""


def convert(root_path, out_dir=None, version='v1.0-trainval', workers=1, check=False,
            max_sweeps=10) -> dict:
    """Write ``nuscenes_infos_{train,val}.pkl`` (or ``test``), and a table of all pictures to each.

    A stopped conversion continues where it was; the files appear complete or not at all. Scenes
    whose first scan is not there (parts that were not downloaded) are left out and counted.

    Args:
        root_path: folder with samples/, sweeps/ and the folder of the version.
        out_dir: where the info files go, default the root path.
        version: 'v1.0-mini', 'v1.0-trainval' or 'v1.0-test'.
        workers: processes; they change nothing in the files.
        check: decode every picture and scan of the key frames, and read the info files back.
        max_sweeps: LiDAR sweeps before each key frame at most, nearest first.

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
    tables, summary, left_out, locations = load(root, version), {}, 0, set()
    os.makedirs(out_dir, exist_ok=True)
    for split, scenes in split_scenes(version).items():
        keys, missing = samples_of(tables, root, scenes)
        left_out += missing
        if not keys:
            raise UserError(f'{root}: no scene of split {split!r} of {version} has files in '
                            f'samples/{LIDAR}; download its parts, or check --version')
        path = os.path.join(out_dir, f'nuscenes_infos_{split}.pkl')
        data_list = frames(root, version, keys, max_sweeps, workers, f'{path}.journal', split)
        infos = dict(metainfo=metainfo(version, split), data_list=data_list)
        write_pictures(tables, version, split, keys,
                       os.path.join(out_dir, f'nuscenes_pictures_{split}.npz'))
        common.write_infos(infos, path, check, partial(_files_of, root), workers)
        summary[split] = f'{path}: {report(infos)}'
        locations |= {frame['location'] for frame in data_list}
    missing = sorted(name for name in locations if not os.path.isfile(map_path(root, name)))
    return dict(summary, scenes_left_out=left_out, maps_missing=', '.join(missing) or 'none')


def metainfo(version, split) -> dict:
    """Metainfo of the info file."""
    up, down = fov_of_beams(BEAMS_DEG)
    return dict(
        dataset='nuscenes', version=version, info_version=INFO_VERSION, split=split,
        categories=dict(CATEGORIES), lidar_frame='x right, y forward, z up',
        lidar_image=dict(projection='spherical', fov_up=up, fov_down=down))


def report(infos) -> dict:
    """Counts that show at a glance whether a conversion is what it should be."""
    data = infos['data_list']
    instances = [instance for frame in data for instance in frame['instances']]
    labels = np.array([i['bbox_label_3d'] for i in instances], int)
    return dict(
        frames=len(data), scenes=len({frame['scene_token'] for frame in data}),
        locations=sorted({frame['location'] for frame in data}),
        sweeps=sum(len(frame.get('lidar_sweeps', ())) for frame in data),
        empty_frames=sum(not frame['instances'] for frame in data),
        objects=dict(zip(CLASSES, np.bincount(labels[labels >= 0], minlength=10).tolist())),
        other=int((labels < 0).sum()),
        without_points=sum(not i['bbox_3d_isvalid'] for i in instances),
        without_velocity=sum(i['velocity'][0] != i['velocity'][0] for i in instances))


# Tables ---------------------------------------------------------------------------------------

_CHUNK = 1 << 24  # characters


def read_rows(path):
    """The records of a table, one after the other, without holding the file in memory.

    Raises:
        UserError: the file is missing, cut, or no array of objects.
    """
    decode, gap = json.JSONDecoder().raw_decode, re.compile(r'[\s,]*')
    try:
        with open(path, encoding='utf-8') as file:
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
                    raise ValueError(f'expected records, got {row!r}'[:80])
                yield row
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: no table of nuScenes: {error}; extract the metadata '
                        'again') from error


def read_columns(path, fields) -> dict:
    """Columns of a table.

    Args:
        path: the table.
        fields: name -> function of a record, or None for the field of that name.

    Returns:
        dict: name -> array over the records; text is bytes.

    Raises:
        UserError: also if a record lacks a field.
    """
    blocks, block = [], []

    def close():
        columns = zip(*block) if block else [()] * len(fields)
        blocks.append([np.array([v.encode() for v in c] if c and isinstance(c[0], str) else c)
                       for c in map(tuple, columns)])
        block.clear()

    getters = [get or (lambda row, name=name: row[name]) for name, get in fields.items()]
    row = None
    try:
        for row in read_rows(path):
            block.append([get(row) for get in getters])
            if len(block) == 50_000:
                close()
        if block or not blocks:
            close()
        return dict(zip(fields, map(np.concatenate, zip(*blocks))))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{path}: a record lacks the field {error} or has a wrong one: '
                        f'{str(row)[:200]}') from error


def locate(keys, wanted, table, user) -> np.ndarray:
    """Rows of tokens.

    Args:
        keys: (N,) bytes, the tokens of a table.
        wanted: (M,) bytes; an empty token gives -1.
        table, user: files in which they are and from which they are referred to, for the error.

    Returns:
        (M,) int64.

    Raises:
        UserError: a token is not there.
    """
    wanted = np.asarray(wanted)
    rows = np.full(len(wanted), -1)
    named = wanted != b'' if len(wanted) else np.zeros(0, bool)
    if named.any():
        order = np.argsort(keys, kind='stable')
        place = np.searchsorted(keys, wanted[named], sorter=order).clip(max=len(keys) - 1)
        found = order[place] if len(keys) else np.zeros(0, int)
        bad = keys[found] != wanted[named] if len(keys) else np.ones(named.sum(), bool)
        if bad.any():
            raise UserError(f'{table}: no record {wanted[named][bad][0].decode()}, which {user} '
                            'refers to; extract the metadata again')
        rows[named] = found
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
            attribute, instance; sorted by sample.
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

    def pose(self, row) -> np.ndarray:
        """Ego to global when a file was taken."""
        values = self.poses[self.data['pose'][row]]
        return rigid.rigid(quaternion_matrix(values[3:]), values[:3])

    def mount(self, row) -> dict:
        """Calibration of the sensor of a file."""
        return self.calibrated[self.data['calibrated'][row]]

    def number(self, token) -> int:
        """Row of a sample."""
        return self._numbers[token]

    def __post_init__(self):
        self._numbers = {token.decode(): n for n, token in enumerate(self.samples['token'])}


def load(root, version) -> Tables:
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


def stamp(root, version) -> tuple:
    """Changes when a table does."""
    return common.stamp(*(os.path.join(str(root), version, f'{name}.json') for name in (
        'attribute calibrated_sensor category ego_pose instance log sample sample_annotation '
        'sample_data scene sensor').split()))


@lru_cache(maxsize=1)
def _load(folder, stamp) -> Tables:
    def path(name):
        return os.path.join(folder, f'{name}.json')

    def columns(name, *plain, **made):
        return read_columns(path(name), {**dict.fromkeys(plain), **made})

    logs = columns('log', 'token', 'location')
    scenes = columns('scene', 'token', 'name', 'log_token')
    log = locate(logs['token'], scenes['log_token'], path('log'), path('scene'))
    samples = columns('sample', 'token', 'timestamp', 'scene_token')
    scene = locate(scenes['token'], samples['scene_token'], path('scene'), path('sample'))
    order = np.lexsort((samples['timestamp'], scene))
    samples = dict(token=samples['token'][order], time=samples['timestamp'][order],
                   scene=scene[order])

    sensors = columns('sensor', 'token', 'channel')
    mounts = columns('calibrated_sensor', 'token', 'sensor_token', pose=_pose,
                     cam2img=lambda row: row['camera_intrinsic'] or np.zeros((3, 3)).tolist())
    sensor = locate(sensors['token'], mounts['sensor_token'], path('sensor'),
                    path('calibrated_sensor'))
    numbers = {name.encode(): n for n, name in enumerate(CHANNELS)}
    channel_of = {token.decode(): numbers[name] for token, name in zip(
        mounts['token'], sensors['channel'][sensor]) if name in numbers}
    data = columns(
        'sample_data', 'token', 'sample_token', 'ego_pose_token', 'calibrated_sensor_token',
        'timestamp', 'is_key_frame', 'filename', 'height', 'width',
        channel=lambda row: channel_of.get(row['calibrated_sensor_token'], -1))
    data = {name: values[data['channel'] >= 0] for name, values in data.items()}
    data = _join_data(data, samples, mounts, path)
    poses = columns('ego_pose', 'token', pose=_pose)
    data['pose'] = locate(poses['token'], data.pop('ego_pose_token'), path('ego_pose'),
                          path('sample_data'))
    keys = np.full((len(samples['token']), len(CHANNELS)), -1)
    row = np.flatnonzero(data['key'])
    keys[data['sample'][row], data['channel'][row]] = row
    group = data['channel'] * len(scenes['token']) + data['scene']
    annotations, first = _annotations(columns, path, samples)
    return Tables(
        [dict(token=token.decode(), name=name.decode(), location=logs['location'][at].decode())
         for token, name, at in zip(scenes['token'], scenes['name'], log)],
        samples, data, np.searchsorted(group, group), keys, poses['pose'],
        [dict(matrix=rigid.rigid(quaternion_matrix(pose[3:]), pose[:3]), cam2img=matrix.tolist())
         for pose, matrix in zip(mounts['pose'], mounts['cam2img'])], annotations, first)


def _pose(row):
    return [*map(float, row['translation']), *map(float, row['rotation'])]


def _join_data(data, samples, mounts, path):
    """Columns of :attr:`Tables.data` but for the poses."""
    sample = locate(samples['token'], data['sample_token'], path('sample'), path('sample_data'))
    calibrated = locate(mounts['token'], data['calibrated_sensor_token'],
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
    categories, attributes = columns('category', 'token', 'name'), columns(
        'attribute', 'token', 'name')
    instances = columns('instance', 'token', 'category_token')
    category = locate(categories['token'], instances['category_token'], path('category'),
                      path('instance'))
    raw = columns(
        'sample_annotation', 'token', 'sample_token', 'instance_token', 'prev', 'next', 'size',
        pose=_pose, points=lambda row: [row['num_lidar_pts'], row['num_radar_pts']],
        visibility=lambda row: int(row['visibility_token'] or 0),
        attribute=lambda row: (row['attribute_tokens'] or [''])[0])
    if not len(raw['token']):
        raw['pose'], raw['size'], raw['points'] = np.zeros((0, 7)), np.zeros((0, 3)), np.zeros(
            (0, 2), int)
    here = path('sample_annotation')
    raw['sample'] = locate(samples['token'], raw['sample_token'], path('sample'), here)
    row = np.arange(len(raw['token']))
    before, after = (locate(raw['token'], raw[name], here, here) for name in ('prev', 'next'))
    first, last = np.where(before < 0, row, before), np.where(after < 0, row, after)
    time = samples['time'][raw['sample']] if len(row) else np.zeros(0)
    duration = (time[last] - time[first]) / 1e6
    longest = np.where((before >= 0) & (after >= 0), 3.0, 1.5)  # as the devkit
    with np.errstate(all='ignore'):
        velocity = (raw['pose'][last, :3] - raw['pose'][first, :3]) / duration[:, None]
    velocity[(duration <= 0) | (duration > longest)] = np.nan
    attribute = locate(attributes['token'], raw['attribute'], path('attribute'), here)
    labels = [ATTRIBUTES.index(name.decode()) if name.decode() in ATTRIBUTES else 8
              for name in attributes['name']]
    instance = locate(instances['token'], raw['instance_token'], path('instance'), here)
    order = np.argsort(raw['sample'], kind='stable')
    names = [name.decode() for name in categories['name']]
    out = dict(
        pose=raw['pose'], size=raw['size'], velocity=velocity, points=raw['points'],
        category=category[instance], visibility=raw['visibility'], instance=instance,
        attribute=np.array([*labels, 8])[attribute])
    out = {name: values[order] for name, values in out.items()}
    counts = np.bincount(raw['sample'], minlength=len(samples['token']))
    return dict(out, names=names), np.concatenate([[0], np.cumsum(counts)])


def quaternion_matrix(q) -> np.ndarray:
    """(3, 3) rotation of a quaternion w x y z.

    Example:
        >>> quaternion_matrix([0, 0, 0, 1])  # half a turn about z
        array([[-1.,  0.,  0.],
               [ 0., -1.,  0.],
               [ 0.,  0.,  1.]])
    """
    w, x, y, z = np.asarray(q, np.float64) / np.linalg.norm(q)
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                     [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                     [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]])


# Which frames ---------------------------------------------------------------------------------


def split_scenes(version) -> dict:
    """Split -> names of its scenes, from the devkit."""
    from nuscenes.utils.splits import create_splits_scenes
    scenes = create_splits_scenes()
    return {split: scenes[name] for split, name in SPLITS[version].items()}


def samples_of(tables, root, scenes) -> tuple:
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


def frames(root, version, keys, max_sweeps=10, workers=1, journal=None, desc='') -> list:
    """Info frames of samples.

    Args:
        root: data root.
        version: of nuScenes.
        keys: tokens of the samples.
        max_sweeps: LiDAR sweeps of each at most.
        workers: processes.
        journal: file that remembers finished frames, default none is kept.
        desc: title of the progress bar.

    Raises:
        UserError: any file that is missing or cut.
    """
    load(root, version)  # before the processes fork: they share it
    mark = stamp(root, version), max_sweeps
    done = common.resumable_map(partial(_frame, root, version, max_sweeps), keys, journal,
                                lambda key: mark, workers, desc)
    for n, frame in enumerate(done):
        frame['sample_idx'] = n
    return done


def _frame(root, version, max_sweeps, token) -> dict:
    tables = load(root, version)
    number = tables.number(token)
    rows = tables.keys[number]
    missing = [name for name, row in zip(CHANNELS, rows) if row < 0]
    if missing:
        raise UserError(f'{root}/{version}/sample_data.json: sample {token} has no key frame of '
                        f'{", ".join(missing)}; extract the metadata again')
    scene = tables.scenes[tables.samples['scene'][number]]
    ego2global, lidar2ego = tables.pose(rows[0]), tables.mount(rows[0])['matrix']
    lidar2global = ego2global @ lidar2ego
    sweeps = [_sweep(root, tables, row, lidar2global)
              for row in range(rows[0] - 1, tables.start[rows[0]] - 1, -1)[:max_sweeps]]
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
        **(dict(lidar_sweeps=sweeps) if sweeps else {}),  # mmdet3d wants no empty list
        instances=_instances(tables, number, lidar2global))


def _file(root, tables, row) -> str:
    """Name of a file relative to the root, after looking at the file."""
    name, channel = tables.data['name'][row].decode(), CHANNELS[tables.data['channel'][row]]
    path = os.path.join(root, name)
    folder = f'{"samples" if tables.data["key"][row] else "sweeps"}/{channel}'
    if os.path.dirname(name) != folder:
        raise UserError(f'{path}: expected in the folder {folder}; extract the metadata again')
    size = os.path.getsize(path) if os.path.isfile(path) else None
    if not size:
        raise UserError(f'{path}: {"no such" if size is None else "empty"} file; extract the part '
                        'of nuScenes that has it again')
    if channel == LIDAR and size % 20:
        raise UserError(f'{path}: {size} bytes, expected whole points of 5 float32; the file is '
                        'cut, extract it again')
    return name


def _camera(root, tables, row, lidar2global) -> dict:
    mount = tables.mount(row)
    global2ego = np.linalg.inv(tables.pose(row))
    return dict(
        img_path=os.path.basename(_file(root, tables, row)), lens='pinhole',
        cam2img=mount['cam2img'],
        height=int(tables.data['height'][row]), width=int(tables.data['width'][row]),
        cam2ego=mount['matrix'].tolist(), timestamp=int(tables.data['time'][row]) / 1e6,
        lidar2cam=(np.linalg.inv(mount['matrix']) @ global2ego @ lidar2global).tolist(),
        sample_data_token=tables.data['token'][row].decode())


def _sweep(root, tables, row, lidar2global) -> dict:
    """A sweep; ``lidar2sensor`` brings it into the key frame exactly, the way mmdet3d reads it.

    ``LoadPointsFromMultiSweeps`` computes p R - t for points as rows, so R and t are those of the
    way from key frame to sweep and from sweep to key frame: not one rigid matrix.
    """
    ego2global, lidar2ego = tables.pose(row), tables.mount(row)['matrix']
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
    for row in range(tables.first[number], tables.first[number + 1]):
        pose, (width, length, height) = table['pose'][row], table['size'][row].tolist()
        place = rigid.apply(global2lidar, pose[None, :3])[0].tolist()
        heading = global2lidar[:3, :3] @ quaternion_matrix(pose[3:])[:, 0]
        velocity = global2lidar[:3, :3] @ [*table['velocity'][row, :2], 0.0]
        category = table['names'][table['category'][row]]
        label = CATEGORIES.get(CLASS_OF.get(category), -1)
        lidar, radar = table['points'][row].tolist()
        found.append(dict(
            bbox_3d=[*place, length, width, height, float(np.arctan2(heading[1], heading[0]))],
            bbox_label=label, bbox_label_3d=label, velocity=velocity[:2].tolist(),
            num_lidar_pts=lidar, num_radar_pts=radar, bbox_3d_isvalid=lidar + radar > 0,
            category=category, attr_label=int(table['attribute'][row]),
            visibility=int(table['visibility'][row]), instance_id=int(table['instance'][row])))
    return found


def _files_of(root, frame) -> list:
    scan = frame['lidar_points']['lidar_path']
    return [os.path.join(root, 'samples', LIDAR, scan), *(
        os.path.join(root, 'samples', name, camera['img_path'])
        for name, camera in frame['images'].items())]


# Pictures of temporal models ------------------------------------------------------------------


def write_pictures(tables, version, split, keys, path) -> None:
    """Write the side table of all pictures, key frames and those between them.

    An ``.npz`` with, for each camera NAME: ``NAME.path`` (N,) bytes relative to the data root,
    ``NAME.time`` (N,) float64 seconds, ``NAME.ego2global`` (N, 4, 4), ``NAME.cam2ego`` (N, 4, 4)
    and ``NAME.cam2img`` (N, 3, 3) float64, in the order of scenes and time; ``NAME.key`` (frames,)
    int64 row of the picture of each frame of the info file, and ``NAME.first`` (frames,) first row
    of its scene: rows key - 1, key - 2, ..., first are the pictures before it, nearest first.
    """
    samples = np.array([tables.number(key) for key in keys])
    scenes = np.unique(tables.samples['scene'][samples])
    out = {}
    for channel, name in enumerate(CAMERAS, 1):
        mine = (tables.data['channel'] == channel) & np.isin(tables.data['scene'], scenes)
        rows = np.flatnonzero(mine)
        key = tables.keys[samples, channel]
        out |= {
            f'{name}.path': tables.data['name'][rows],
            f'{name}.time': tables.data['time'][rows] / 1e6,
            f'{name}.ego2global': np.array([tables.pose(row) for row in rows]),
            f'{name}.cam2ego': np.array([tables.mount(row)['matrix'] for row in rows]),
            f'{name}.cam2img': np.array([tables.mount(row)['cam2img'] for row in rows]),
            f'{name}.key': np.searchsorted(rows, key),
            f'{name}.first': np.searchsorted(rows, tables.start[key])}
    with atomic_write(path) as file:
        np.savez(file, **out)
