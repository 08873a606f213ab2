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
    ``bbox_3d`` 7 floats (gravity centre, length, width, height, yaw), ``bbox_label_3d`` int;
    all instances of a frame have the same keys
"""

import hashlib
import io
import os
import pickle
from typing import Mapping

import numpy as np

from ..checkpoints import atomic_write
from ..errors import UserError, did_you_mean
from ..geometry.rigid import is_rigid
from ..plain_pickle import load_plain

INFO_VERSION = '1.1'
LENSES = ('equirect', 'pinhole', 'mei')
CAMERA_FIELDS = (
    'img_path', 'height', 'width', 'lens', 'lidar2cam', 'cam2img', 'mei', 'theta_max_deg',
    'tangential', 'source_lens', 'aperture_deg', 'fov_up', 'fov_down', 'cam2ego', 'timestamp',
    'sample_data_token')
MEI_PARAMETERS = ('xi', 'k1', 'k2', 'p1', 'p2', 'gamma1', 'gamma2', 'u0', 'v0')


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
    check.kind(infos, dict, '')
    categories = _check_metainfo(check, check.key(infos, 'metainfo', dict, ''))
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
    """
    check, digest = _Check(path), hashlib.sha256()
    categories = _check_metainfo(check, infos['metainfo'])
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
    try:
        with open(path, 'rb') as file:
            infos = load_plain(file)
    except Exception as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'{path}: not a readable info file ({reason}); write it again with '
                        'tools/create_data.py') from error
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


def check_rig(images: Mapping, source: str) -> None:
    """Check the cameras of one frame that is not of an info file; files need no ``img_path``.

    Args:
        images: name -> camera, as ``images`` of a frame.
        source: where they are from, for the error.

    Raises:
        UserError: naming the camera and the first bad field.
    """
    check = _Check(source)
    check.kind(images, dict, 'images')
    if not images:
        raise UserError(f'{source}: images: no camera')
    for name, camera in images.items():
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
        got = ' '.join(f'{type(got).__name__} {got!r}'.split())
        got = got if len(got) < 120 else got[:117] + '...'
        raise UserError(f'{self.source}: {path}: expected {expected}, got {got}')

    def kind(self, value, kind, path):
        valid = isinstance(value, (kind, np.integer) if kind is int else kind)
        if not valid or (kind is int and isinstance(value, bool)):
            self.fail(path or 'top level', kind.__name__, value)
        return value

    def key(self, parent, name, kind, path):
        path = f'{path}.{name}' if path else name
        if name not in parent:
            raise UserError(f'{self.source}: {path}: missing, expected {kind.__name__}')
        return self.kind(parent[name], kind, path)

    def floats(self, value, shape, path):
        try:
            array = np.asarray(value)
            text = array.dtype.kind in 'USb'  # numpy would read '1' and True as numbers
            array = np.array(np.nan) if text else array.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            array = np.array(np.nan)
        if array.shape != shape or not np.isfinite(array).all():
            size = 'x'.join(map(str, shape))
            self.fail(path, f'{size} finite floats' if shape else 'a finite float', value)

    def number(self, value, path):
        self.floats(value, (), path)
        return value

    def rigid(self, value, path):
        self.floats(value, (4, 4), path)
        if not is_rigid(value):
            self.fail(path, 'a rigid 4x4 transform', value)


def _check_metainfo(check, meta) -> dict:
    """Check the metainfo; returns its categories."""
    for key in ('dataset', 'version', 'info_version'):
        check.key(meta, key, str, 'metainfo')
    categories = check.key(meta, 'categories', dict, 'metainfo')
    for name, index in categories.items():
        check.kind(index, int, f'metainfo.categories[{name!r}]')
    if 'lidar_frame' in meta:
        check.key(meta, 'lidar_frame', str, 'metainfo')
    if 'lidar_image' in meta:
        _check_lidar_image(check, meta['lidar_image'])
    return categories


def _check_lidar_image(check, image):
    path = 'metainfo.lidar_image'
    check.kind(image, dict, path)
    projection = check.key(image, 'projection', str, path)
    if projection not in ('staggered', 'spherical'):
        check.fail(f'{path}.projection', "'staggered' or 'spherical'", projection)
    if projection == 'staggered':
        height = check.key(image, 'height', int, path)
        check.key(image, 'width', int, path)
        shifts = image.get('pixel_shift_by_row')
        check.floats(shifts, (height,), f'{path}.pixel_shift_by_row')
        if max(map(abs, shifts), default=0) >= 1 << 16:
            check.fail(f'{path}.pixel_shift_by_row', 'columns of a scan', shifts)
    up, down = (check.number(image.get(key), f'{path}.{key}') for key in ('fov_up', 'fov_down'))
    if not -1.5708 <= down < up <= 1.5708:
        check.fail(f'{path}.fov_up', 'elevations of the edges, fov_down < fov_up, radians',
                   (up, down))


def _check_frame(check, frame, path, categories):
    check.kind(frame, dict, path)
    check.key(frame, 'sample_idx', int, path)
    for key in ('token', 'scene_token', 'frame_id'):
        check.key(frame, key, str, path)
    check.floats(frame.get('timestamp'), (), f'{path}.timestamp')
    if 'ego2global' in frame:
        check.rigid(frame['ego2global'], f'{path}.ego2global')
    for name, camera in check.kind(frame.get('images', {}), dict, f'{path}.images').items():
        _check_camera(check, camera, f'{path}.images.{name}')
    _check_image_sweeps(check, frame, path)
    if 'lidar_points' in frame:
        _check_points(check, frame['lidar_points'], f'{path}.lidar_points')
    sweeps = check.kind(frame.get('lidar_sweeps', []), list, f'{path}.lidar_sweeps')
    _check_sweeps(check, sweeps, f'{path}.lidar_sweeps')
    _check_instances(check, check.key(frame, 'instances', list, path), path, categories)


def _check_image_sweeps(check, frame, path):
    path = f'{path}.image_sweeps'
    for n, sweep in enumerate(check.kind(frame.get('image_sweeps', []), list, path)):
        at = f'{path}[{n}]'
        check.floats(check.kind(sweep, dict, at).get('timestamp'), (), f'{at}.timestamp')
        for name, camera in check.key(sweep, 'images', dict, at).items():
            _check_camera(check, camera, f'{at}.images.{name}')


def _check_points(check, points, path):
    check.kind(points, dict, path)
    check.key(points, 'lidar_path', str, path)
    features = check.key(points, 'num_pts_feats', int, path)
    names = points.get('feature_names', [''] * features)
    if features < 3 or not isinstance(names, list) or len(names) != features:
        check.fail(f'{path}.feature_names', f'{features} names, 3 at least', names)
    if 'lidar2ego' in points:
        check.rigid(points['lidar2ego'], f'{path}.lidar2ego')
    if 'motion' in points:
        check.floats(points['motion'], (6,), f'{path}.motion')


def _check_sweeps(check, sweeps, path):
    if _good_sweeps(sweeps):
        return
    for n, sweep in enumerate(sweeps):
        at = f'{path}[{n}]'
        points = check.key(check.kind(sweep, dict, at), 'lidar_points', dict, at)
        check.key(points, 'lidar_path', str, f'{at}.lidar_points')
        check.rigid(points.get('lidar2sensor'), f'{at}.lidar_points.lidar2sensor')


def _good_sweeps(sweeps) -> bool:
    """Whether all sweeps of a frame follow the schema; one check for all, for speed."""
    try:
        points = [sweep['lidar_points'] for sweep in sweeps]
        return all(isinstance(p['lidar_path'], str) for p in points) and is_rigid(
            np.reshape([p['lidar2sensor'] for p in points], (len(points), 4, 4)))
    except (KeyError, TypeError, ValueError):
        return False


def _check_camera(check, camera, path, path_needed=True):
    check.kind(camera, dict, path)
    for name in camera:
        if name not in CAMERA_FIELDS:
            raise UserError(f'{check.source}: {path}.{name}: no such field of a camera'
                            f'{did_you_mean(str(name), CAMERA_FIELDS)}')
    if path_needed or 'img_path' in camera:
        check.key(camera, 'img_path', str, path)
    for key in ('height', 'width'):
        if not 0 < check.key(camera, key, int, path) < 1 << 16:
            check.fail(f'{path}.{key}', 'pixels of an image', camera[key])
    lens = check.key(camera, 'lens', str, path)
    if lens not in LENSES:
        check.fail(f'{path}.lens', f'one of {LENSES}', lens)
    check.rigid(camera.get('lidar2cam'), f'{path}.lidar2cam')
    _LENS_CHECKS[lens](check, camera, path)


def _check_pinhole(check, camera, path):
    check.floats(camera.get('cam2img'), (3, 3), f'{path}.cam2img')
    matrix = np.asarray(camera['cam2img'], np.float64)
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0 and matrix[1, 0] == 0
            and (matrix[2] == [0, 0, 1]).all()):
        check.fail(f'{path}.cam2img', '[[fx, skew, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0',
                   camera['cam2img'])


def _check_mei(check, camera, path):
    mei = check.key(camera, 'mei', dict, path)
    for name in mei:
        if name not in MEI_PARAMETERS:
            raise UserError(f'{check.source}: {path}.mei.{name}: no such parameter'
                            f'{did_you_mean(str(name), MEI_PARAMETERS)}')
    for name in MEI_PARAMETERS:
        check.floats(mei.get(name), (), f'{path}.mei.{name}')
        if abs(mei[name]) > 1e6 or (name.startswith('gamma') and mei[name] <= 0):
            check.fail(f'{path}.mei.{name}', 'a parameter of a fisheye', mei[name])
    if not 0 < check.number(camera.get('theta_max_deg'), f'{path}.theta_max_deg') <= 180:
        check.fail(f'{path}.theta_max_deg', 'degrees from the axis', camera['theta_max_deg'])


def _check_equirect(check, camera, path):
    if camera.get('source_lens', 'dual_fisheye') != 'dual_fisheye':
        check.fail(f'{path}.source_lens', "'dual_fisheye', or none", camera['source_lens'])
    if not 0 < check.number(camera.get('aperture_deg', 180), f'{path}.aperture_deg') <= 360:
        check.fail(f'{path}.aperture_deg', 'degrees of a lens', camera['aperture_deg'])
    up, down = (check.number(camera.get(key, default), f'{path}.{key}')
                for key, default in (('fov_up', np.pi / 2), ('fov_down', -np.pi / 2)))
    if not -1.5708 <= down < up <= 1.5708:
        check.fail(f'{path}.fov_up', 'elevations of the edges, fov_down < fov_up, radians',
                   (up, down))


_LENS_CHECKS = dict(pinhole=_check_pinhole, mei=_check_mei, equirect=_check_equirect)


def _check_instances(check, instances, path, categories):
    known = set(categories.values()) | {-1}
    if _good_instances(instances, known):
        return
    keys = None
    for n, instance in enumerate(instances):
        at = f'{path}.instances[{n}]'
        check.kind(instance, dict, at)
        check.floats(instance.get('bbox_3d'), (7,), f'{at}.bbox_3d')
        if min(instance['bbox_3d'][3:6]) <= 0:
            check.fail(f'{at}.bbox_3d', 'length, width, height > 0', instance['bbox_3d'])
        label = check.key(instance, 'bbox_label_3d', int, at)
        if label not in known:
            check.fail(f'{at}.bbox_label_3d', f'an index of metainfo.categories {sorted(known)}',
                       label)
        keys = keys or set(instance)
        if set(instance) != keys:
            check.fail(at, f'the keys of instances[0], {sorted(keys)}', sorted(instance))


def _good_instances(instances, known) -> bool:
    """Whether all instances of a frame follow the schema; one check for all, for speed."""
    try:
        boxes = np.array([i['bbox_3d'] for i in instances], np.float64).reshape(-1, 7)
        labels = {i['bbox_label_3d'] for i in instances}
        return (len(boxes) == len(instances) and np.isfinite(boxes).all()
                and (boxes[:, 3:6] > 0).all() and labels <= known
                and not any(isinstance(label, bool) for label in labels)
                and all(i.keys() == instances[0].keys() for i in instances))
    except (TypeError, ValueError, KeyError, AttributeError):
        return False
