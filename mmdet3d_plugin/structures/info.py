"""The info file: mmdet3d's v2 schema plus our few fields, checked on write and on load.

``{'metainfo': {...}, 'data_list': [frame, ...]}``; geometry is in the LiDAR frame, x forward,
y left, z up (in that of nuScenes' LiDAR where ``lidar_frame`` of the metainfo says so); metres,
radians, seconds; paths are relative to the data root.

metainfo
    ``categories`` {name: index >= 0, or -1 to ignore}, ``dataset``, ``version``, ``info_version``,
    ``split``; ``skipped`` (optional) {what was bad: number of frames without which the conversion
    went on}; ``bev`` (optional) the BEV ``cells`` of each class that a ``rasterizer`` draws;
    ``lidar_image`` (optional) common to all scans: ``projection`` ``'staggered'`` (with
    ``height``, ``width``, ``pixel_shift_by_row``, ``fov_up``, ``fov_down``) or ``'spherical'``.
frame
    ``sample_idx`` int, ``token``, ``scene_token``, ``frame_id`` str, ``timestamp`` float,
    ``ego2global`` 4x4 (optional), ``images`` {name: camera} (optional), ``lidar_points``
    {``lidar_path``, ``num_pts_feats``} (optional), ``instances`` [instance, ...] (maybe empty);
    ``image_sweeps`` (optional) past images, newest first: ``timestamp`` and ``images``, whose
    ``lidar2cam`` goes from the LiDAR frame of *this* frame, so that it contains the ego motion
camera
    ``img_path``, ``height``, ``width`` px of the file, ``lens`` (``'equirect'``, ``'pinhole'``,
    ``'mei'``), ``lidar2cam`` 4x4; ``cam2img`` 3x3 for pinholes; ``mei`` {parameter: float} and
    ``theta_max_deg`` for fisheyes; ``source_lens`` ``'dual_fisheye'`` and ``aperture_deg`` where
    the file is the raw image of an equirect camera, otherwise ``fov_up`` and ``fov_down``, the
    elevations of a panorama's edges (optional, +-pi / 2); other fields than ``CAMERA_FIELDS`` are
    errors
instance
    ``bbox_3d`` 7 floats (gravity centre, length, width, height, yaw), ``bbox_label_3d`` int; all
    instances of a frame have the same keys. Optional: ``velocity`` 2 floats (NaN where unknown),
    ``num_lidar_pts`` and ``num_radar_pts`` points in the box, ``bbox_3d_isvalid`` bool,
    ``visibility`` int (1 to 4, of nuScenes), ``category`` str of the data set, ``attribute`` str
    (of nuScenes, such as ``'vehicle.parked'``, or empty)

Every number has limits that no sensor and no place on Earth exceeds; text has no NUL. Fields that
are not listed may hold plain values.
"""

import hashlib
import io
import os
import pickle
import reprlib
from itertools import chain
from typing import Mapping, Optional

import numpy as np

from ..checkpoints import atomic_write
from ..errors import UserError, did_you_mean, parse_errors
from ..geometry.rigid import is_rigid
from ..plain_pickle import Array, load_plain

INFO_VERSION = '1.1'
LENSES = ('equirect', 'pinhole', 'mei')
CAMERA_FIELDS = (
    'img_path', 'height', 'width', 'lens', 'lidar2cam', 'cam2img', 'mei', 'theta_max_deg',
    'tangential', 'source_lens', 'aperture_deg', 'fov_up', 'fov_down', 'cam2ego', 'timestamp',
    'sample_data_token')
MEI_PARAMETERS = ('xi', 'k1', 'k2', 'p1', 'p2', 'gamma1', 'gamma2', 'u0', 'v0')

SECONDS = 1e11
FARTHEST = 1e5
"""Metres to a box, and limit of its angle and speed; scans reach no further."""
LARGEST = 1e3
"""Metres of a box."""
SIDE = 1 << 16
"""Pixels of an image."""
CLASSES = 1 << 10
FEATURES = 64
TEXT = 1 << 12
"""Characters, of a path for example."""
VALUES = 1 << 20
"""Plain values in fields of a frame that are not of the schema."""
_NUMBERS = {int, float, *(np.dtype(code).type for code in 'bBhHiIlLqQefd')}
_LISTS = {list, tuple, np.ndarray, Array}
_PLAIN = {*_NUMBERS, bool, np.bool_, str, bytes, type(None)}


def validate_infos(infos: dict, source: str = 'infos') -> dict:
    """Check an info dict against the schema.

    Args:
        infos: what an info file holds.
        source: its name in error messages.

    Returns:
        ``infos`` itself.

    Raises:
        UserError: naming the path of the first bad field, for example
            ``data_list[3].instances[1].bbox_3d: expected 7 finite floats, got ...``.
    """
    check = _Check(source)
    categories = _check_metainfo(check, infos)
    frames = check.key(infos, 'data_list', list, '')
    for _ in _checked(check, frames, categories):
        pass
    return infos


def _checked(check, frames, categories):
    """The frames, each after its check."""
    numbers = {}
    for n, frame in enumerate(frames):
        _check_frame(check, frame, f'data_list[{n}]', categories)
        first = numbers.setdefault(frame['token'], n)
        if first != n:
            check.fail(f'data_list[{n}].token', f'another than that of data_list[{first}]',
                       frame['token'])
        yield frame


def save_infos(infos: dict, path: str) -> str:
    """Validate and write an info file atomically: it appears complete or not at all.

    Args:
        infos: its ``data_list`` may be any iterable; memory holds one frame of it at a time.
        path: the file.

    Returns:
        str: SHA-256 of the file, hexadecimal.

    Raises:
        UserError: :func:`load_infos` would refuse it, or the disk is full.
    """
    check, digest = _Check(path), hashlib.sha256()
    categories = _check_metainfo(check, infos)
    if 'data_list' not in infos:
        raise UserError(f'{path}: data_list: missing, expected an iterable')
    with atomic_write(path) as file:
        for piece in _pickled(infos['metainfo'], _checked(check, infos['data_list'], categories)):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _pickled(metainfo, frames):
    """Pickle of ``dict(metainfo=..., data_list=[...])`` in pieces, one for each frame.

    The pickles of the frames are concatenated between the opcodes of the list. Protocol 3 writes
    the index of every memo entry, so each frame may use the indices from 0 again. One
    ``pickle.Pickler`` for the whole list cannot do this: it keeps the output of protocol 3 in
    memory to the end, later protocols do not allow to clear the memo, and without a memo
    (``fast``) the files are 20 to 40 % larger.
    """
    yield b''.join((pickle.PROTO, b'\x03', pickle.EMPTY_DICT, pickle.MARK, _body('metainfo'),
                    _body(metainfo), _FRAMES))
    for frame in frames:
        yield _body(frame)
    yield pickle.APPENDS + pickle.SETITEMS + pickle.STOP


def _body(value):
    return pickle.dumps(value, 3)[2:-1]  # without the opcodes PROTO and STOP


_FRAMES = _body('data_list') + pickle.EMPTY_LIST + pickle.MARK


def load_infos(path: str) -> dict:
    """Read and validate an info file; a pickle that would run code is refused.

    Raises:
        UserError: the file is missing, not an info file, or breaks the schema.
    """
    if not os.path.isfile(path):
        raise UserError(f'{path}: no such info file; write it with tools/create_data.py, or '
                        'name the folder that has it: --cfg-options data_root=DIR (of one loader: '
                        'train_dataloader.dataset.data_root=DIR)')
    with parse_errors(f'{path}: not a readable info file',
                      'write it again with tools/create_data.py'), open(path, 'rb') as file:
        infos = load_plain(file)
    return validate_infos(infos, path)


def load_metainfo(path: str) -> dict:
    """The metainfo of an info file, of which :func:`save_infos` writes it first.

    Raises:
        UserError: the file is not readable, or has none.
    """
    try:
        with open(path, 'rb') as file:
            head, found, _ = file.read(1 << 20).partition(_FRAMES)
            if found:
                file = io.BytesIO(head + pickle.SETITEMS + pickle.STOP)
            file.seek(0)
            return _Check(path).key(load_plain(file), 'metainfo', dict, '')
    except Exception as error:
        raise UserError(f'{path}: not a readable info file: {error}') from error


def lidar2global(frame: Mapping) -> Optional[np.ndarray]:
    """(4, 4) float64 pose of a frame's LiDAR frame in the world; None where it is unknown."""
    if 'ego2global' not in frame:
        return None
    lidar2ego = frame.get('lidar_points', {}).get('lidar2ego', np.eye(4))
    return np.asarray(frame['ego2global'], np.float64) @ np.asarray(lidar2ego, np.float64)


def number_of_points(instance: dict) -> int:
    """LiDAR and radar points in the box of an instance; -1 where the info file does not say."""
    if 'num_lidar_pts' not in instance:
        return -1
    return int(instance['num_lidar_pts']) + int(instance.get('num_radar_pts', 0))


def check_rig(images: Mapping, source: str) -> None:
    """Check the cameras of one frame that is not of an info file; files need no ``img_path``.

    Args:
        images: name -> camera, as ``images`` of a frame.
        source: where they are from, for the error.

    Raises:
        UserError: naming the camera and the first bad field.
    """
    check = _Check(source)
    if not check.kind(images, dict, 'images'):
        raise UserError(f'{source}: images: no camera')
    for name, camera in check.named(images, 'images'):
        _check_camera(check, camera, f'images.{name}', path_needed=False)


def check_scan(points: Mapping, source: str) -> None:
    """Check ``lidar_points`` of one frame that is not of an info file.

    Raises:
        UserError: naming the first bad field.
    """
    _check_points(_Check(source), points, 'lidar_points')


class _Check:
    """Raises one-line errors that start with the file and the path of the field."""

    def __init__(self, source):
        self.source = source

    def fail(self, path, expected, got):
        raise UserError(f'{self.source}: {path}: expected {expected}, got {_shown(got)}')

    def kind(self, value, kind, path):
        """The value, of a type that is read back as it is written: none that is derived from it."""
        valid = type(value) is kind or (kind is int and isinstance(value, np.integer))
        if not valid:
            self.fail(path or 'top level', kind.__name__, value)
        if kind is str and ('\0' in value or len(value) > TEXT or not _encodable(value)):
            self.fail(path, f'text of at most {TEXT} characters without NUL', value)
        return value

    def key(self, parent, name, kind, path):
        path = f'{path}.{name}' if path else name
        if name not in parent:
            raise UserError(f'{self.source}: {path}: missing, expected {kind.__name__}')
        return self.kind(parent[name], kind, path)

    def named(self, value, path):
        """Pairs of a dict whose keys are text."""
        for name, item in self.kind(value, dict, path).items():
            yield self.kind(name, str, f'a key of {path}'), item

    def floats(self, value, shape, path, limit=1e8):
        array = _array(value, shape)
        if array is None or not np.isfinite(array).all():
            size = 'x'.join(map(str, shape))
            self.fail(path, f'{size} finite floats' if shape else 'a finite float', value)
        if not (np.abs(array) <= limit).all():
            self.fail(path, f'numbers of at most {limit:g}', value)
        return array

    def number(self, value, path, limit=1e8):
        return float(self.floats(value, (), path, limit))

    def integer(self, parent, name, path, low, high, what):
        value = self.key(parent, name, int, path)
        if not low <= value < high:
            self.fail(f'{path}.{name}', what, value)
        return value

    def rigid(self, value, path):
        if not is_rigid(self.floats(value, (4, 4), path)):
            self.fail(path, 'a rigid 4x4 transform', value)

    def plain(self, value, path, known=()):
        """The fields of a dict that are not known hold plain values, and not too many of them."""
        left = [VALUES]
        for name, item in self.named(value, path):
            if name not in known and not _is_plain(item, left):
                self.fail(f'{path}.{name}', f'plain values, at most {VALUES}, nested 8 deep', item)


def _array(value, shape) -> Optional[np.ndarray]:
    """Numbers as float64, or None: lists are not read beyond the expected shape."""
    flat = [value]
    try:
        for size in shape:
            if not set(map(type, flat)) <= _LISTS or not set(map(len, flat)) <= {size}:
                return None
            flat = list(chain.from_iterable(flat))
        good = set(map(type, flat)) <= _NUMBERS
        return np.array(flat, np.float64).reshape(shape) if good else None
    except (TypeError, OverflowError):  # an array without dimensions; an integer of 400 digits
        return None


def _encodable(text) -> bool:
    try:
        return bool(os.fsencode(text)) or not text
    except UnicodeError:
        return False


def _is_plain(value, left, depth=8) -> bool:
    """Whether a value is read back as it is written; ``left`` [values] bounds the time."""
    if type(value) is dict:
        if not set(map(type, value)) <= _PLAIN:
            return False
        value = value.values()
    elif isinstance(value, np.ndarray):
        return value.dtype.kind in 'biuf'
    elif type(value) not in (list, tuple):
        return type(value) in _PLAIN
    left[0] -= len(value)
    return depth > 0 <= left[0] and (set(map(type, value)) <= _PLAIN or all(
        type(item) in _PLAIN or _is_plain(item, left, depth - 1) for item in value))


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 3, 8, 8, 4
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 80


def _shown(value) -> str:
    """Type and value in a short line, however large the value is."""
    try:
        text = _REPR.repr(value)
    except Exception:  # an integer of thousands of digits
        text = '...'
    text = ' '.join(f'{type(value).__name__} {text}'.split())
    return text if len(text) < 120 else text[:117] + '...'


def _check_metainfo(check, infos) -> dict:
    """Check the metainfo; returns its categories."""
    meta = check.key(check.kind(infos, dict, ''), 'metainfo', dict, '')
    for key in ('dataset', 'version', 'info_version'):
        check.key(meta, key, str, 'metainfo')
    categories = check.key(meta, 'categories', dict, 'metainfo')
    for name, index in check.named(categories, 'metainfo.categories'):
        if not -1 <= check.kind(index, int, f'metainfo.categories[{name!r}]') < CLASSES:
            check.fail(f'metainfo.categories[{name!r}]', f'-1 to {CLASSES - 1}', index)
    for key in {'lidar_frame', 'split'} & set(meta):
        check.key(meta, key, str, 'metainfo')
    if 'lidar_image' in meta:
        _check_lidar_image(check, meta['lidar_image'])
    check.plain(meta, 'metainfo')
    return categories


def _check_lidar_image(check, image):
    path = 'metainfo.lidar_image'
    check.kind(image, dict, path)
    projection = check.key(image, 'projection', str, path)
    if projection not in ('staggered', 'spherical'):
        check.fail(f'{path}.projection', "'staggered' or 'spherical'", projection)
    if projection == 'staggered':
        height = check.integer(image, 'height', path, 1, SIDE, 'rows of a scan')
        check.integer(image, 'width', path, 1, SIDE, 'columns of a scan')
        shifts = check.floats(image.get('pixel_shift_by_row'), (height, ),
                              f'{path}.pixel_shift_by_row')
        if np.abs(shifts).max() >= SIDE:
            check.fail(f'{path}.pixel_shift_by_row', 'columns of a scan', shifts)
    _check_elevations(check, image, path)


def _check_elevations(check, values, path, defaults=(None, None)):
    """The edges of an image on the sphere."""
    up, down = (check.number(values.get(key, default), f'{path}.{key}')
                for key, default in zip(('fov_up', 'fov_down'), defaults))
    if not -1.5708 <= down < up <= 1.5708:
        check.fail(f'{path}.fov_up', 'elevations of the edges, fov_down < fov_up, radians',
                   (up, down))


_FRAME_FIELDS = ('sample_idx', 'token', 'scene_token', 'frame_id', 'timestamp', 'ego2global',
                 'images', 'image_sweeps', 'lidar_points', 'lidar_sweeps', 'instances')


def _check_frame(check, frame, path, categories):
    check.kind(frame, dict, path)
    check.integer(frame, 'sample_idx', path, 0, 1 << 63, 'the number of a frame')
    for key in ('token', 'scene_token', 'frame_id'):
        check.key(frame, key, str, path)
    check.number(frame.get('timestamp'), f'{path}.timestamp', SECONDS)
    if 'ego2global' in frame:
        check.rigid(frame['ego2global'], f'{path}.ego2global')
    for name, camera in check.named(frame.get('images', {}), f'{path}.images'):
        _check_camera(check, camera, f'{path}.images.{name}')
    _check_image_sweeps(check, frame, path)
    if 'lidar_points' in frame:
        _check_points(check, frame['lidar_points'], f'{path}.lidar_points')
    sweeps = check.kind(frame.get('lidar_sweeps', []), list, f'{path}.lidar_sweeps')
    _check_sweeps(check, sweeps, f'{path}.lidar_sweeps')
    _check_instances(check, check.key(frame, 'instances', list, path), path, categories)
    check.plain(frame, path, _FRAME_FIELDS)


def _check_image_sweeps(check, frame, path):
    path = f'{path}.image_sweeps'
    for n, sweep in enumerate(check.kind(frame.get('image_sweeps', []), list, path)):
        at = f'{path}[{n}]'
        check.number(check.kind(sweep, dict, at).get('timestamp'), f'{at}.timestamp', SECONDS)
        for name, camera in check.named(check.key(sweep, 'images', dict, at), f'{at}.images'):
            _check_camera(check, camera, f'{at}.images.{name}')
        check.plain(sweep, at, ('images', ))


def _check_points(check, points, path):
    check.kind(points, dict, path)
    check.key(points, 'lidar_path', str, path)
    features = check.integer(points, 'num_pts_feats', path, 3, FEATURES + 1,
                             f'3 to {FEATURES} values of a point')
    names = points.get('feature_names', [''] * features)
    if type(names) not in (list, tuple) or len(names) != features:
        check.fail(f'{path}.feature_names', f'{features} names', names)
    for name in names:
        check.kind(name, str, f'{path}.feature_names')
    for key in {'lidar2ego', 'lidar2sensor', 'scan2lidar'} & set(points):
        check.rigid(points[key], f'{path}.{key}')
    if 'motion' in points:
        check.floats(points['motion'], (6,), f'{path}.motion', FARTHEST)
    check.plain(points, path)


def _check_sweeps(check, sweeps, path):
    for n, sweep in enumerate(() if _good_sweeps(sweeps) else sweeps):
        at = f'{path}[{n}]'
        points = check.key(check.kind(sweep, dict, at), 'lidar_points', dict, at)
        check.key(points, 'lidar_path', str, f'{at}.lidar_points')
        check.rigid(points.get('lidar2sensor'), f'{at}.lidar_points.lidar2sensor')
    left = [VALUES]
    for n, sweep in enumerate(sweeps):
        if not _is_plain(sweep, left):
            check.fail(f'{path}[{n}]', f'plain values, at most {VALUES}, nested 8 deep', sweep)


def _good_sweeps(sweeps) -> bool:
    """Whether all sweeps of a frame follow the schema; one check for all, for speed."""
    try:
        points = [sweep['lidar_points'] for sweep in sweeps]
        paths = [p['lidar_path'] for p in points]
        matrices = _array([p['lidar2sensor'] for p in points], (len(points), 4, 4))
        return (set(map(type, paths)) <= {str} and '\0' not in ''.join(paths)
                and matrices is not None and is_rigid(matrices))
    except (KeyError, TypeError, IndexError):
        return False


def _check_camera(check, camera, path, path_needed=True):
    for name, _ in check.named(camera, path):
        if name not in CAMERA_FIELDS:
            raise UserError(f'{check.source}: {path}.{name}: no such field of a camera'
                            f'{did_you_mean(name, CAMERA_FIELDS)}')
    if path_needed or 'img_path' in camera:
        check.key(camera, 'img_path', str, path)
    for key in ('height', 'width'):
        check.integer(camera, key, path, 1, SIDE, 'pixels of an image')
    lens = check.key(camera, 'lens', str, path)
    if lens not in LENSES:
        check.fail(f'{path}.lens', f'one of {LENSES}', lens)
    check.rigid(camera.get('lidar2cam'), f'{path}.lidar2cam')
    if 'cam2ego' in camera:
        check.rigid(camera['cam2ego'], f'{path}.cam2ego')
    if 'timestamp' in camera:
        check.number(camera['timestamp'], f'{path}.timestamp', SECONDS)
    for key, kind in (('sample_data_token', str), ('tangential', bool)):
        if key in camera:
            check.key(camera, key, kind, path)
    check.plain(camera, path)
    _LENS_CHECKS[lens](check, camera, path)


def _check_pinhole(check, camera, path):
    matrix = check.floats(camera.get('cam2img'), (3, 3), f'{path}.cam2img', 1e6)
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0 and matrix[1, 0] == 0
            and (matrix[2] == [0, 0, 1]).all()):
        check.fail(f'{path}.cam2img', '[[fx, skew, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0',
                   camera['cam2img'])


def _check_mei(check, camera, path):
    mei = check.key(camera, 'mei', dict, path)
    for name, _ in check.named(mei, f'{path}.mei'):
        if name not in MEI_PARAMETERS:
            raise UserError(f'{check.source}: {path}.mei.{name}: no such parameter'
                            f'{did_you_mean(name, MEI_PARAMETERS)}')
    for name in MEI_PARAMETERS:
        value = check.number(mei.get(name), f'{path}.mei.{name}', np.inf)
        if abs(value) > 1e6 or (name.startswith('gamma') and value <= 0):
            check.fail(f'{path}.mei.{name}', 'a parameter of a fisheye', value)
    if not 0 < check.number(camera.get('theta_max_deg'), f'{path}.theta_max_deg') <= 180:
        check.fail(f'{path}.theta_max_deg', 'degrees from the axis', camera['theta_max_deg'])


def _check_equirect(check, camera, path):
    lens = camera.get('source_lens', 'dual_fisheye')
    if not isinstance(lens, str) or lens != 'dual_fisheye':  # of an array, no comparison is a flag
        check.fail(f'{path}.source_lens', "'dual_fisheye', or none", lens)
    if not 0 < check.number(camera.get('aperture_deg', 180), f'{path}.aperture_deg') <= 360:
        check.fail(f'{path}.aperture_deg', 'degrees of a lens', camera['aperture_deg'])
    _check_elevations(check, camera, path, (np.pi / 2, -np.pi / 2))


_LENS_CHECKS = dict(pinhole=_check_pinhole, mei=_check_mei, equirect=_check_equirect)


def _check_instances(check, instances, path, categories):
    known = set(categories.values()) | {-1}
    if not _good_instances(instances, known):
        _find_bad_instance(check, instances, path, known)
    left = [VALUES]
    for n, instance in enumerate(instances):
        if not _is_plain(instance, left):
            check.fail(f'{path}.instances[{n}]', f'plain values, at most {VALUES}, nested 8 deep',
                       instance)


def _find_bad_instance(check, instances, path, known):
    keys = None
    for n, instance in enumerate(instances):
        at = f'{path}.instances[{n}]'
        check.kind(instance, dict, at)
        box = check.floats(instance.get('bbox_3d'), (7, ), f'{at}.bbox_3d', np.inf)
        if box[3:6].min() <= 0:
            check.fail(f'{at}.bbox_3d', 'length, width, height > 0', instance['bbox_3d'])
        if not _in_reach(box):
            check.fail(f'{at}.bbox_3d', f'a place of at most {FARTHEST:g} m and a size of at most '
                       f'{LARGEST:g} m', instance['bbox_3d'])
        label = check.key(instance, 'bbox_label_3d', int, at)
        if label not in known:
            check.fail(f'{at}.bbox_label_3d', f'an index of metainfo.categories {sorted(known)}',
                       label)
        if 'velocity' in instance and not _good_velocities([instance['velocity']]):
            check.fail(f'{at}.velocity', f'2 numbers of at most {FARTHEST:g}, or NaN',
                       instance['velocity'])
        names = [name for name, _ in check.named(instance, at)]
        keys = keys or set(names)
        if set(names) != keys:
            check.fail(at, f'the keys of instances[0], {sorted(keys)}', sorted(names))


def _in_reach(boxes) -> bool:
    return bool((np.abs(boxes) <= FARTHEST).all() and (boxes[..., 3:6] <= LARGEST).all())


def _good_velocities(values) -> bool:
    """Whether each is two numbers; NaN is an unknown one."""
    array = _array(values, (len(values), 2))
    return array is not None and not (np.abs(array) > FARTHEST).any()


def _good_instances(instances, known) -> bool:
    """Whether all instances of a frame follow the schema; one check for all, for speed."""
    try:
        boxes = _array([i['bbox_3d'] for i in instances], (len(instances), 7))
        labels = [i['bbox_label_3d'] for i in instances]
        return (boxes is not None and _in_reach(boxes) and (boxes[:, 3:6] > 0).all()
                and set(labels) <= known and set(map(type, labels)) <= {int}
                and set(map(type, chain(*instances))) <= {str}
                and all(i.keys() == instances[0].keys() for i in instances)
                and _good_velocities([i['velocity'] for i in instances if 'velocity' in i]))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        return False
