"""Bird's-eye-view maps and 3D boxes of images or of a video, without torch.

    python tools/infer_onnx.py MODEL INPUT OUT_DIR

MODEL is what tools/export_onnx.py wrote, .onnx or .xml, with MODEL.json and MODEL.npz beside it
(student.onnx.json and student.onnx.npz beside student.onnx).
INPUT is an image, a video, or a folder of images; for networks of several cameras a folder with
one folder of images for each, whose names are in MODEL.json. OUT_DIR/bev/NAME.png is the map seen
from above, OUT_DIR/boxes/NAME.json the 3D boxes of a detector, OUT_DIR/maps/NAME.npz (with --maps)
the network's outputs, OUT_DIR/video.mp4 all frames with their maps. Beside the map are the images
of the cameras that look ahead, from left to right of the car, and below them those of the cameras
that look back, likewise.

A network that reads past images keeps what it predicted from the frames before. It needs --poses, a
JSON file with the place of the LiDAR frame in the world and the time of each frame:
{"NAME": {"lidar2global": 4x4, "time": SECONDS}}, NAME as in OUT_DIR/bev/NAME.png.

Frames that are there are not computed again unless their images have changed, so a run that was
stopped goes on. OUT_DIR/run.json says whose results they are; those of another input, model,
threshold or calibration are not mixed with them.

Needs numpy, OpenCV and onnxruntime or openvino.
"""
import argparse
import contextlib
import difflib
import hashlib
import io
import json
import os
import struct
import sys
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np

FORMAT = 3
PIXELS = 1 << 28
"""Of an image; its header is read before."""
IMAGES = ('.png', '.jpg', '.jpeg', '.bmp')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm')
Source = Tuple[str, Callable[[], List[np.ndarray]]]
LENS_COLUMNS = (
    ('fov_up', 'fov_down'), ('fx', 'skew', 'cx', 'k10', 'fy', 'cy', 'k20', 'k21', 'k22'),
    ('xi', 'k1', 'k2', 'p1', 'p2', 'gamma1', 'gamma2', 'u0', 'v0', 'cos_theta_max', 'rho2_max'),
    ('f', 'u0', 'v0', 'theta_max'))
"""Parameters of the lenses: equirect, pinhole, mei, equidistant."""
BRANCHES = dict(reg=2, height=1, dim=3, rot=2)
"""Channels of the outputs that make boxes, beside heatmap and velocity."""


class InputError(ValueError):
    """Something the user can repair; printed as one line."""


@contextlib.contextmanager
def parse_errors(problem: str, hint: str) -> Iterator[None]:
    """Turn what a parser raises into one line: its file is missing, damaged, or made to do harm."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = ' '.join(str(error).split())[:200]
        raise InputError(f'{problem}: {type(error).__name__} {reason}; {hint}') from error


# -------------------------------------------------------------------------------------------- model
class Exported:
    """An exported network with its description.

    Args:
        path: ``.onnx`` or ``.xml``.
        threads: Of the CPU, 0 = all.
        precision: OpenVINO's inference precision, ``'f32'`` or ``'bf16'``.
    """

    def __init__(self, path: Path, threads: int = 0, precision: str = 'f32') -> None:
        if not path.is_file():
            raise InputError(f'model {path}: no such file; export one with tools/export_onnx.py')
        self.path = path
        self.meta = _read_meta(path)
        arrays = _beside(path, '.npz')
        with parse_errors(f'{arrays}: unreadable', 'export the model again'), \
                np.load(arrays) as stored:
            self.arrays = {name: stored[name] for name in stored.files}
        self.names = list(self.meta['outputs'])
        self.size = tuple(self.meta['inputs']['images']['shape'][-2:])
        self.past = self.meta.get('past', [])
        self.feed = {name: np.array(self.meta['calibration'][name], np.float32)
                     for name in self.meta['inputs'] if name not in ('images', *self.past)}
        load = _openvino if path.suffix == '.xml' else _onnxruntime
        try:
            self._run = load(self, threads, precision)
        except ImportError as error:
            raise InputError(f'model {path}: {error}; pip install {load.__name__[1:]}') from error
        except Exception as error:
            reason = ' '.join(str(error).split())[:160]
            raise InputError(f'model {path}: it is no model that runs here ({reason}); '
                             'export it again') from error

    def __call__(self, images: Sequence[np.ndarray], past: Optional[Dict[str, np.ndarray]] = None
                 ) -> Dict[str, np.ndarray]:
        """Predict from the (H, W, 3) RGB images of one frame; each output without its batch.

        Args:
            images: Of the cameras.
            past: Values of the inputs of past frames; zeros by default.
        """
        planes = np.stack([image.transpose(2, 0, 1) for image in images])[None]
        past = past or {name: np.zeros(self.meta['inputs'][name]['shape'], np.float32)
                        for name in self.past}
        results = self._run(dict(self.feed, **past, images=np.ascontiguousarray(planes)))
        return {name: out[0] for name, out in zip(self.names, results)}


def _read_meta(path: Path) -> dict:
    file = _beside(path, '.json')
    with parse_errors(f'{file}: it describes no exported model', 'export the model again'):
        meta = json.loads(file.read_text())
        if meta['format'] == FORMAT:
            _check_meta(meta)
    if meta['format'] != FORMAT:
        raise InputError(f'{file}: of format {meta["format"]!s:.40}, this program reads {FORMAT}; '
                         'export the model again')
    own = meta.pop('description_sha256', None)
    if hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest() != own:
        raise InputError(f'{file}: changed or damaged since it was written; export the model again')
    _check_hash(file, path, meta['sha256'])
    _check_hash(file, _beside(path, '.npz'), meta['arrays_sha256'])
    if path.suffix == '.xml':
        _check_hash(file, path.with_suffix('.bin'), meta.get('weights_sha256'))
    return meta


def _check_meta(meta) -> None:
    """Access and check what the program needs of a description."""
    views, _, height, width = meta['inputs']['images']['shape'][1:]
    classes, steps = meta['classes'], meta['preprocessing']
    sizes = list(steps['images'].values())
    if not all(type(n) is int and 0 < n < 1 << 16 for n in (views, height, width, *sum(sizes, []))):
        raise ValueError(f'its images are {meta["inputs"]["images"]["shape"]} of {sizes}'[:200])
    if views > 64 or not sizes or any(len(size) != 2 for size in sizes):
        raise ValueError(f'its images are {meta["inputs"]["images"]["shape"]} of {sizes}'[:200])
    if not isinstance(steps['kind'], str) or not all(
            isinstance(name, str) for name in (*meta['outputs'], *classes)):
        raise TypeError('outputs, classes or the kind of preprocessing are no text')
    _numbers(meta['thresholds'], (len(classes), ), 'thresholds')
    rows = meta['camera_rows']
    if not rows or not all(row and set(row) <= set(range(views)) for row in rows):
        raise ValueError(f'camera_rows are {rows}'[:200])
    if 'lens' in meta['inputs']:
        columns, shape = (meta['inputs']['lens'][key] for key in ('columns', 'shape'))
        if len(columns) != shape[-1] or sorted(map(str, columns)) not in map(sorted, LENS_COLUMNS):
            raise ValueError(f'the columns of lens are {columns}'[:200])
    past = meta.get('past', [])
    for name in set(meta['inputs']) - {'images', *past}:
        _numbers(meta['calibration'][name], tuple(meta['inputs'][name]['shape']), name)
    if past:
        _check_past(meta, past, views)
    for key in ('sha256', 'arrays_sha256'):
        if not isinstance(meta[key], str):
            raise TypeError(f'{key} is no text')
    for prefix, settings in meta.get('decoding', {}).items():
        _check_decoding(prefix, settings, meta)


def _check_past(meta, past, views) -> None:
    *states, motion = past
    shapes = {name: meta['inputs'][name]['shape'] for name in past}
    times = shapes[motion][0]
    if not states or not all(type(n) is int and 0 < n < 1 << 16 for n in sum(shapes.values(), [])):
        raise ValueError(f'its past inputs are {shapes}'[:200])
    if times > 64 or motion not in ('motion', 'past_lidar2cam') or any(
            not name.startswith('past_') or shapes[name][0] != times
            or meta['outputs'][name.replace('past', 'next', 1)]['shape'] != [1, *shapes[name][1:]]
            for name in states):
        raise ValueError(f'its past inputs are {shapes}'[:200])
    _numbers(meta['calibration']['lidar2cam'], (views, 4, 4), 'lidar2cam')


def _check_decoding(prefix: str, settings: dict, meta: dict) -> None:
    if settings['kind'] != 'center_point':
        raise ValueError(f'the outputs are decoded by {settings["kind"]}'[:200])
    grid = meta['grid']
    if not {grid['rows'], grid['cols'], grid['forward_axis']} <= {'+x', '-x', '+y', '-y'} or (
            grid['rows'][1] == grid['cols'][1]):
        raise ValueError(f'its grid follows {grid["rows"]} and {grid["cols"]}'[:200])
    for name, count in (('x_range', (2, )), ('y_range', (2, )), ('resolution', ())):
        _numbers(grid[name], count, name)
    if not (grid['x_range'][0] < grid['x_range'][1] and grid['y_range'][0] < grid['y_range'][1]):
        raise ValueError('its grid is empty')
    if type(settings['norm_bbox']) is not bool or settings['z'] not in ('center', 'bottom'):
        raise ValueError(f'norm_bbox or z of {settings}'[:200])
    vel = ('vel', ) if settings['velocity'] else ()
    for t, task in enumerate(settings['tasks']):
        classes = len(task['classes'])
        for name in ('heatmap', *BRANCHES, *vel):
            size = BRANCHES.get(name, classes if name == 'heatmap' else 2)
            shape = meta['outputs'][f'{prefix}task{t}.{name}']['shape']
            if shape != ['batch', size, *meta['grid']['shape']]:
                raise ValueError(f'output {prefix}task{t}.{name} is {shape}'[:200])
        for name in ('score_threshold', 'nms_thr', 'squared_radius'):
            _numbers(task[name], (), name)
        _numbers(task['scale_factors'], (len(task['scale_factors']) and classes, ), 'scale_factors')
        if task['post_center_range'] is not None:
            _numbers(task['post_center_range'], (6, ), 'post_center_range')
        for name in ('max_num', 'pre_max_size', 'post_max_size'):
            if type(task[name]) is not int and (name == 'max_num' or task[name] is not None):
                raise TypeError(f'{name} is no whole number')
        if task['nms_type'] not in ('rotate', 'circle', None) or not all(
                isinstance(name, str) for name in task['classes']):
            raise ValueError('nms_type or classes')


def _check_hash(description: Path, file: Path, expected: str) -> None:
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
        raise InputError(f'{description}: it describes another file than {file.name}; keep all '
                         'files of one export together')


def _beside(path: Path, suffix: str) -> Path:
    file = path.with_name(path.name + suffix)
    if not file.is_file():
        raise InputError(f'{file}: missing; it belongs beside {path.name}, where '
                         'tools/export_onnx.py wrote it')
    return file


def _onnxruntime(exported, threads, precision):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers = [name for name in ('CUDAExecutionProvider', 'CPUExecutionProvider')
                 if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(str(exported.path), options, providers=providers)
    return lambda feed: session.run(exported.names, feed)


def _openvino(exported, threads, precision):
    import openvino

    core = openvino.Core()
    model = core.read_model(str(exported.path))
    model.reshape({'images': [1, *exported.meta['inputs']['images']['shape'][1:]]})
    compiled = core.compile_model(model, 'CPU', {
        'INFERENCE_PRECISION_HINT': precision, 'INFERENCE_NUM_THREADS': threads,
        'PERFORMANCE_HINT': 'LATENCY'})
    request = compiled.create_infer_request()

    def run(feed):
        results = request.infer(feed)
        return [results[name] for name in exported.names]

    return run


def calibrate(exported: Exported, file: Path) -> None:
    """Take another calibration from a JSON.

    It holds ``lidar2cam``, ``lens`` or ``img_aug``, or all, as the network takes them, or the
    cameras as in an info file: ``{"images": {NAME: {"lens": ..., "lidar2cam": 4x4, ...}}}``.
    """
    if not exported.feed:
        raise InputError(f'--calibration {file}: that of {exported.path} is a constant; export it '
                         'with --calibration input')
    with parse_errors(f'--calibration {file}: unreadable',
                      f'expected a JSON with {", ".join(exported.feed)}'):
        given = json.loads(file.read_text(encoding='utf-8-sig'))
        if 'images' in given:
            given = _of_cameras(exported, given['images'], f'--calibration {file}')
        values = {name: np.array(value, np.float32) for name, value in given.items()}
    for name, value in values.items():
        if name not in exported.feed or value.shape != exported.feed[name].shape:
            shapes = ', '.join(f'{key} {old.shape}' for key, old in exported.feed.items())
            near = did_you_mean(name, exported.feed) if name not in exported.feed else ''
            raise InputError(f'--calibration {file}: {name} of shape {value.shape}; expected '
                             f'{shapes}{near}')
    for name, value in values.items():
        for n, part in enumerate(value):
            if not np.isfinite(part).all():
                raise InputError(f'--calibration {file}: {name}[{n}]: expected finite numbers, '
                                 f'got {part.tolist()}')
            if name == 'lidar2cam' and not is_rigid(part):
                raise InputError(f'--calibration {file}: {name}[{n}]: expected a rotation and a '
                                 f'translation, got {part.tolist()}')
            if name == 'img_aug' and not (abs(np.linalg.det(part)) > 1e-9
                                          and part[2].tolist() == [0, 0, 1]):
                raise InputError(f'--calibration {file}: {name}[{n}]: expected a matrix with the '
                                 f'last row 0 0 1 and an inverse, got {part.tolist()}')
            if name == 'lens':
                columns = exported.meta['inputs']['lens']['columns']
                _check_lens(dict(zip(columns, part.tolist())), f'--calibration {file}: lens[{n}]')
    exported.feed.update(values)


def _of_cameras(exported, images, source) -> dict:
    """Values of the inputs from the cameras of a rig."""
    steps = exported.meta['preprocessing']
    if steps['kind'] not in ('resize', 'remap', 'panorama'):
        raise InputError(f'{source}: what happens to the images before this network depends on '
                         'their cameras; export it again with --info')
    check_rig(images, source)
    for name in images:
        if name not in steps['images']:
            raise InputError(f'{source}: images.{name}: the network has no such camera'
                             f'{did_you_mean(name, steps["images"])}')
    values = dict(lidar2cam=[], lens=[])
    lens = 'pinhole' if steps['kind'] == 'resize' else 'equirect'
    for name, size in steps['images'].items():
        if name not in images:
            raise InputError(f'{source}: images.{name}: missing; the network reads '
                             f'{", ".join(steps["images"])}')
        camera = images[name]
        if camera['lens'] != lens or [camera['height'], camera['width']] != list(size):
            raise InputError(
                f'{source}: images.{name}: {camera["lens"]} of {camera["width"]}x'
                f'{camera["height"]}, the network was exported for {lens} of {size[1]}x{size[0]}; '
                'export it again with --info')
        values['lidar2cam'].append(camera['lidar2cam'])
        values['lens'].append(np.ravel(camera.get('cam2img', ())).tolist())
    return values if lens == 'pinhole' else dict(lidar2cam=values['lidar2cam'])


def _check_lens(lens: Dict[str, float], source: str) -> None:
    """Check the parameters of a lens by the names of the columns."""
    for name in ('fx', 'fy', 'f', 'gamma1', 'gamma2', 'rho2_max'):
        if not lens.get(name, 1) > 0:
            raise InputError(f'{source}: {name}: expected a number > 0, got {lens[name]}')
    if 'k22' in lens and [lens[name] for name in ('k10', 'k20', 'k21', 'k22')] != [0, 0, 0, 1]:
        raise InputError(f'{source}: expected a pinhole, rows fx skew cx, 0 fy cy, 0 0 1, got '
                         f'{list(lens.values())}')
    if 'fov_up' in lens and not -1.5708 <= lens['fov_down'] < lens['fov_up'] <= 1.5708:
        raise InputError(f'{source}: expected elevations fov_down < fov_up, radians, got '
                         f'{lens["fov_down"]} and {lens["fov_up"]}')


# The checks of a rig are those of the package's info files, which this program does without.
CAMERA_FIELDS = (
    'img_path', 'height', 'width', 'lens', 'lidar2cam', 'cam2img', 'mei', 'theta_max_deg',
    'tangential', 'source_lens', 'aperture_deg', 'fov_up', 'fov_down', 'cam2ego', 'timestamp',
    'sample_data_token')
MEI_PARAMETERS = ('xi', 'k1', 'k2', 'p1', 'p2', 'gamma1', 'gamma2', 'u0', 'v0')
NUMBERS = dict(aperture_deg=(0, 360), theta_max_deg=(0, 180), fov_up=(-1.5708, 1.5708),
               fov_down=(-1.5708, 1.5708))


def check_rig(images: dict, source: str) -> None:
    """Check cameras as in an info file; the first bad field is named.

    Raises:
        InputError: A field is missing, unknown, or has a value that no camera has.
    """
    if not isinstance(images, dict) or not images:
        raise InputError(f'{source}: images: expected {{NAME: camera}}, got {images!r:.80}')
    for name, camera in images.items():
        at = f'{source}: images.{name}'
        if not isinstance(camera, dict):
            raise InputError(f'{at}: expected a camera, got {camera!r:.80}')
        _known(camera, CAMERA_FIELDS, at)
        for key in ('height', 'width'):
            value = _field(camera, key, at)
            if type(value) is not int or not 0 < value < 1 << 16:
                raise InputError(f'{at}.{key}: expected pixels of an image, got {value!r:.80}')
        lens = _field(camera, 'lens', at)
        if lens not in ('equirect', 'pinhole', 'mei'):
            raise InputError(f'{at}.lens: expected equirect, pinhole or mei, got {lens!r:.80}')
        if not is_rigid(_numbers(_field(camera, 'lidar2cam', at), (4, 4), f'{at}.lidar2cam')):
            raise InputError(f'{at}.lidar2cam: expected a rotation and a translation, got '
                             f'{camera["lidar2cam"]}')
        _check_camera_lens(camera, lens, at)


def _check_camera_lens(camera, lens, at):
    if lens == 'pinhole':
        matrix = _numbers(_field(camera, 'cam2img', at), (3, 3), f'{at}.cam2img', 1e6)
        names = ('fx', 'skew', 'cx', 'k10', 'fy', 'cy', 'k20', 'k21', 'k22')
        _check_lens(dict(zip(names, matrix.ravel().tolist())), f'{at}.cam2img')
        return
    if lens == 'mei':
        mei = _field(camera, 'mei', at)
        if not isinstance(mei, dict):
            raise InputError(f'{at}.mei: expected its parameters, got {mei!r:.80}')
        _known(mei, MEI_PARAMETERS, f'{at}.mei')
        for name in MEI_PARAMETERS:
            value = _numbers(_field(mei, name, f'{at}.mei'), (), f'{at}.mei.{name}', np.inf)
            if abs(value) > 1e6 or (name.startswith('gamma') and value <= 0):
                raise InputError(f'{at}.mei.{name}: expected a parameter of a fisheye, got {value}')
    elif camera.get('source_lens', 'dual_fisheye') != 'dual_fisheye':
        raise InputError(f"{at}.source_lens: expected 'dual_fisheye', or none, got "
                         f'{camera["source_lens"]!r:.80}')
    needed = ('theta_max_deg', ) if lens == 'mei' else ()
    for name in needed or ('aperture_deg', 'fov_up', 'fov_down'):
        if name in (*needed, *camera):
            low, high = NUMBERS[name]
            value = _numbers(_field(camera, name, at), (), f'{at}.{name}')
            if not low <= value <= high or (name.endswith('deg') and value == 0):
                raise InputError(f'{at}.{name}: expected {low} to {high}, got {value}')
    if lens == 'equirect':
        _check_lens(dict(fov_up=camera.get('fov_up', 1.5), fov_down=camera.get('fov_down', -1.5)),
                    f'{at}.fov_up')


def _known(values, names, at):
    for name in values:
        if name not in names:
            raise InputError(f'{at}.{name}: no such field{did_you_mean(name, names)}')


def _field(values, name, at):
    if name not in values:
        raise InputError(f'{at}.{name}: missing')
    return values[name]


def _numbers(value, shape, at, limit=1e8) -> np.ndarray:
    try:
        raw = np.asarray(value)
        array = raw.astype(np.float64) if raw.dtype.kind in 'iufO' else np.array(np.nan)
    except (TypeError, ValueError, OverflowError):
        array = np.array(np.nan)
    if array.shape != shape or not np.isfinite(array).all() or (
            np.abs(array).max(initial=0) > limit):
        size = 'x'.join(map(str, shape))[:80]
        raise InputError(f'{at}: expected {size or "a"} finite number'
                         f'{"s" if shape else ""} of at most {limit:g}, got {value!r:.80}')
    return array


def is_rigid(matrix: np.ndarray) -> bool:
    """Whether a (4, 4) matrix is a rotation and a translation."""
    turn = np.asarray(matrix, np.float64)[:3, :3]
    return bool((np.abs(matrix) < 1e8).all() and (matrix[3] == [0, 0, 0, 1]).all()
                and np.abs(turn @ turn.T - np.eye(3)).max() <= 1e-3 and np.linalg.det(turn) > 0)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint for a misspelt word."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f'; did you mean {close[0]!r}?' if close else f'; known: {", ".join(known)}'


# ---------------------------------------------------------------------------------------- images
def load_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Raises:
        InputError: It is missing, no image, or one of more than ``PIXELS`` pixels.
    """
    try:
        width, height = header_size(path)
        if width * height > PIXELS:
            raise InputError(f'{path}: its header says {width}x{height}, expected at most {PIXELS} '
                             'pixels')
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except (OSError, cv2.error, struct.error):
        image = None
    if image is None:
        raise InputError(f'{path}: missing or no image')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def header_size(path: Path) -> Tuple[int, int]:
    """(width, height) of a PNG, JPEG or BMP file by its header; zeros where it is none of these."""
    with open(path, 'rb') as file:
        head = file.read(26)
        if head.startswith(b'\x89PNG'):
            return struct.unpack('>II', head[16:24])
        if head.startswith(b'BM'):
            return tuple(map(abs, struct.unpack('<ii', head[18:26])))
        at = 2
        for _ in range(1000 if head.startswith(b'\xff\xd8') else 0):
            file.seek(at)
            segment = file.read(9)
            if len(segment) < 9 or segment[0] != 0xFF or segment[1] == 0xDA:
                break
            if 0xC0 <= segment[1] <= 0xCF and segment[1] not in (0xC4, 0xC8, 0xCC):
                return struct.unpack('>HH', segment[5:])[::-1]
            at += 1 if segment[1] == 0xFF else 2 + int.from_bytes(segment[2:4], 'big')
    return 0, 0


def prepare(exported: Exported, images: Sequence[np.ndarray], name: str) -> List[np.ndarray]:
    """The network's images from the cameras', as the description's ``preprocessing`` says.

    A single image that has the network's size already, and not the camera's, is taken as it is.
    """
    steps, size = exported.meta['preprocessing'], exported.size
    sizes = {camera: tuple(wanted) for camera, wanted in steps['images'].items()}
    if len(images) == 1 and images[0].shape[:2] == size and size not in sizes.values() and (
            exported.meta['inputs']['images']['shape'][1] == 1):
        return list(images)
    for image, (camera, wanted) in zip(images, sizes.items()):
        if image.shape[:2] != wanted:
            found = f'{image.shape[1]}x{image.shape[0]}'
            raise InputError(f'{name}: wrong image size {found} of {camera}, the model was '
                             f'exported for {wanted[1]}x{wanted[0]}; export it with the '
                             'calibration of this camera (--info)')
    if steps['kind'] in ('remap', 'circles') and is_panorama(images[0]):
        raise InputError(f'{name}: expected a dual-fisheye image, got a panorama, which '
                         f'needs the size of the network, {size[1]}x{size[0]}, or a '
                         'model that was exported with LoadPanorama')
    if steps['kind'] == 'remap':
        maps = exported.arrays['map_0'], exported.arrays['map_1']
        return [cv2.remap(images[0], *maps, cv2.INTER_NEAREST if steps['nearest'] else
                          cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)]
    if steps['kind'] == 'circles':
        return circles(images[0], *steps['rows'])
    if steps['kind'] == 'panorama':
        return [panorama(images[0], *steps['rows'], size)]
    if steps['kind'] == 'stitch':
        return [stitch(images, exported.arrays, steps['layers'])]
    return [cut(image, steps['resized'][camera], steps['corner'][camera], size, steps['filter'])
            for image, camera in zip(images, sizes)]


def is_panorama(image: np.ndarray) -> bool:
    """Whether an image given for a dual fisheye is a panorama: its edges continue each other, and
    the corners of its two squares are not dark.
    """
    side = image.shape[1] // 2
    cut = side // 8
    corners = [image[rows, cols] for rows in (slice(cut), slice(side - cut, side))
               for cols in (slice(cut), slice(side - cut, side + cut), slice(2 * side - cut, None))]
    if not cut or np.median(np.concatenate([c.ravel() for c in corners])) <= 32:
        return False
    left, right = image[:, 0].astype(np.int16), image[:, -1].astype(np.int16)
    return bool(np.abs(left - right).mean() <= 16)


def panorama(image: np.ndarray, top: int, bottom: int, size: Tuple[int, int]) -> np.ndarray:
    """The rows of a panorama from ``top`` to ``bottom``, resized to (H, W)."""
    image = image[top:bottom]
    if image.shape[:2] == size:
        return image
    shrinks = size[0] <= len(image) and size[1] <= image.shape[1]
    return cv2.resize(image, size[::-1],
                      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def circles(image: np.ndarray, top: int, bottom: int) -> List[np.ndarray]:
    """The front and the rear circle of a dual fisheye, upright, from row ``top`` to ``bottom``."""
    side = image.shape[1] // 2
    front = cv2.rotate(image[:side, side:], cv2.ROTATE_90_COUNTERCLOCKWISE)
    rear = cv2.rotate(image[:side, :side], cv2.ROTATE_90_CLOCKWISE)
    return [front[top:bottom], rear[top:bottom]]


def stitch(images: Sequence[np.ndarray], arrays: Dict[str, np.ndarray],
           layers: int) -> np.ndarray:
    """Blend images into one panorama; the first layer is the panorama, the others blend in."""
    height = max(len(image) for image in images)
    canvas = np.concatenate([np.pad(p, ((0, height - len(p)), (0, 0), (0, 0))) for p in images],
                            1)
    maps = [(arrays[f'layer_{n}_map_0'], arrays[f'layer_{n}_map_1']) for n in range(layers)]
    out = cv2.remap(canvas, *maps[0], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    flat = out.reshape(-1, 3)
    for n in range(1, layers):
        index, share = arrays[f'layer_{n}_index'], arrays[f'layer_{n}_alpha']
        over = cv2.remap(canvas, *maps[n], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        under = flat[index].astype(np.float32)
        flat[index] = under + (over.reshape(-1, 3)[:len(index)] - under) * share + .5
    return out


def cut(image: np.ndarray, resized: Sequence[int], corner: Sequence[int], size: Tuple[int, int],
        resampling: str) -> np.ndarray:
    """Resize to (width, height), then cut (H, W) from a corner on; black outside."""
    if resampling == 'pil':
        try:
            from PIL import Image
        except ImportError as error:
            raise InputError('this model resizes images as Pillow does; pip install pillow'
                             ) from error
        image = np.array(Image.fromarray(image).resize(resized, Image.BICUBIC))
    elif tuple(resized) != image.shape[1::-1]:
        image = cv2.resize(image, tuple(resized), interpolation=cv2.INTER_AREA)
    shift = np.float64([[1, 0, -corner[0]], [0, 1, -corner[1]]])
    return cv2.warpAffine(image, shift, size[::-1], flags=cv2.INTER_NEAREST)


# ------------------------------------------------------------------------------------------ frames
def frames_of(path: Path, cameras: Sequence[str]) -> Tuple[int, Iterator[Source]]:
    """Number of frames (0 = unknown), and their names with functions that read the images."""
    if not path.exists():
        raise InputError(f'input {path}: no such file or folder')
    if path.is_dir():
        files = _files_by_camera(path, cameras)
        stems = Counter(paths[0].stem for paths in files)
        return len(files), ((paths[0].stem if stems[paths[0].stem] == 1 else paths[0].name,
                             lambda paths=paths: list(map(load_image, paths)))
                            for paths in files)
    if len(cameras) > 1:
        raise InputError(f'input {path}: the model reads {len(cameras)} cameras; give a folder '
                         f'with the folders {", ".join(cameras)}')
    if path.suffix.lower() in IMAGES:
        return 1, iter([(path.stem, lambda: [load_image(path)])])
    video = cv2.VideoCapture(str(path))
    if path.suffix.lower() not in VIDEOS or not video.isOpened():
        raise InputError(f'input {path}: no image ({" ".join(IMAGES)}) and no video '
                         f'({" ".join(VIDEOS)}) that OpenCV reads')
    return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))), _frames_of_video(video)


def _files_by_camera(path: Path, cameras: Sequence[str]) -> List[Tuple[Path, ...]]:
    folders = [path] if len(cameras) == 1 else [path / camera for camera in cameras]
    if len(cameras) == 1 and not _images_in(path) and (path / cameras[0]).is_dir():
        folders = [path / cameras[0]]
    files = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f'input {path}: it has no folder {folder.name}; the model reads '
                             f'{", ".join(cameras)}, a folder of images each')
        files.append(_images_in(folder))
        if not files[-1] or len(files[-1]) != len(files[0]):
            raise InputError(f'input {folder}: {len(files[-1])} images ({" ".join(IMAGES)}), '
                             f'expected {len(files[0]) or "some"}, as many as of every camera')
    return list(zip(*files))


def _images_in(folder: Path) -> List[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES and
                  not file.name.startswith('.'))


def _frames_of_video(video) -> Iterator[Source]:
    number = 0
    while True:
        found, image = video.read()
        if not found:
            return
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        yield f'{number:06d}', lambda rgb=rgb: [rgb]
        number += 1


# -------------------------------------------------------------------------------------------- past
class Past:
    """What a network that reads past images needs of the frames before.

    Args:
        exported: The network.
        file: With the poses and times of the frames.
        steps: How many frames ago each past time is; default 1, 2 and so on.
    """

    def __init__(self, exported: Exported, file: Path, steps: Optional[Sequence[int]]) -> None:
        times = exported.meta['inputs'][exported.past[-1]]['shape'][0]
        self.exported, self.steps = exported, list(steps or range(1, times + 1))
        if len(self.steps) != times or min(self.steps) < 1 or sorted(self.steps) != self.steps:
            raise InputError(f'--past-steps: expected {times} numbers of frames, growing, got '
                             f'{" ".join(map(str, self.steps))}')
        with parse_errors(f'poses {file}: unreadable', 'expected {"NAME": {"lidar2global": 4x4, '
                          '"time": SECONDS}}'):
            self.poses = dict(json.loads(file.read_text(encoding='utf-8-sig')))
        self.file, self.frames = file, []
        self.lidar2cam = exported.feed.get('lidar2cam')
        if self.lidar2cam is None:
            self.lidar2cam = np.array(exported.meta['calibration']['lidar2cam'], np.float32)

    def begin(self, name: str, images: Sequence[np.ndarray]) -> bytes:
        """The next frame; returns what its past consists of, for the hash of its results."""
        pose = self.poses.get(name)
        if pose is None:
            raise InputError(f'poses {self.file}: no frame {name}'
                             f'{did_you_mean(name, list(self.poses))}')
        matrix = _numbers(_field(pose, 'lidar2global', f'{self.file}: {name}'), (4, 4),
                          f'{self.file}: {name}.lidar2global')
        if not is_rigid(matrix):
            raise InputError(f'{self.file}: {name}.lidar2global: expected a rigid 4x4 transform')
        time = float(_numbers(_field(pose, 'time', f'{self.file}: {name}'), (),
                              f'{self.file}: {name}.time', 1e11))
        frame = dict(images=images, pose=matrix, time=time, state=None)
        self.frames = [*self.frames[-max(self.steps):], frame]
        self.chosen = [self.frames[max(len(self.frames) - 1 - step, 0)] for step in self.steps]
        self.motions = [np.linalg.inv(then['pose']) @ matrix for then in self.chosen]
        if not time >= self.chosen[0]['time']:
            raise InputError(f'poses {self.file}: {name} is {self.chosen[0]["time"] - time:g} s '
                             'before the frame before it; give frames in the order of time')
        return _hash(np.stack([*self.motions, np.full((4, 4), self.interval)]).tobytes(), *(
            np.ascontiguousarray(image) for then in self.chosen for image in then['images']
        )).encode()

    @property
    def interval(self) -> float:
        """Seconds since the newest past frame; a frame that is its own past counts as 1/12 s."""
        return (self.frames[-1]['time'] - self.chosen[0]['time']) or 1 / 12

    def feed(self) -> Dict[str, np.ndarray]:
        """The inputs of past frames, of the frame that began last."""
        *states, motion = self.exported.past
        for then in self.chosen:
            if then['state'] is None:  # it was not computed in this run
                self.end(self.exported(then['images']), then)
        feed = {name: np.stack([then['state'][name] for then in self.chosen]) for name in states}
        moved = np.stack(self.motions).astype(np.float32)
        feed[motion] = moved if motion == 'motion' else self.lidar2cam @ moved[:, None]
        return feed

    def end(self, outs: Dict[str, np.ndarray], frame: Optional[dict] = None) -> None:
        """Keep what later frames need of the outputs."""
        (frame or self.frames[-1])['state'] = {
            name: outs.pop(name.replace('past', 'next', 1)) for name in self.exported.past[:-1]}


# ------------------------------------------------------------------------------------------- boxes
def decode_boxes(outs: Dict[str, np.ndarray], settings: dict, grid: dict,
                 seconds: float = 1.0) -> List[dict]:
    """3D boxes from the raw outputs of CenterPointHead.

    Args:
        outs: ``task0.heatmap`` (classes, rows, columns) and so on, float32.
        settings: The description's ``decoding``.
        grid: The description's ``grid``.
        seconds: By what a network's displacements are divided to be velocities.

    Returns:
        list: Boxes in the axes of the network, the best first in each task: ``class``, ``score``,
        ``center`` (x, y, z), ``size`` (length, width, height), ``yaw`` and, if the network has it,
        ``velocity`` (x, y), in metres, radians and m/s.
    """
    found = []
    for t, task in enumerate(settings['tasks']):
        own = {name.removeprefix(f'task{t}.'): out for name, out in outs.items()
               if name.startswith(f'task{t}.')}
        boxes, scores, classes = best_cells(own, settings, task, grid)
        for n in suppress(boxes, scores, classes, task):
            box = dict(score=float(scores[n]), center=boxes[n, :3].tolist(),
                       size=boxes[n, 3:6].tolist(), yaw=float(boxes[n, 6]))
            if settings['velocity']:
                box['velocity'] = (boxes[n, 7:9] / seconds).tolist()
            found.append({'class': task['classes'][classes[n]], **box})
    return found


def best_cells(outs, settings, task, grid) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 9 or 7) boxes with z of the centre, (N,) scores and (N,) classes, the best first."""
    _, rows, cols = outs['heatmap'].shape
    logits = outs['heatmap'].ravel()
    best = np.argsort(-logits, kind='stable')[:task['max_num']]
    with np.errstate(over='ignore'):  # exp of a logit far below 0
        scores = 1 / (1 + np.exp(-logits[best]))
        at = {name: out.reshape(len(out), -1)[:, best % (rows * cols)].T
              for name, out in outs.items() if name != 'heatmap'}
        size = np.exp(at['dim']) if settings['norm_bbox'] else at['dim']
    cell = best % (rows * cols)
    xy = from_pixel(np.stack([cell // cols, cell % cols], 1) + at['reg'][:, ::-1], grid)
    z = at['height'] + (size[:, 2:] / 2 if settings['z'] == 'bottom' else 0)
    yaw = np.arctan2(at['rot'][:, :1], at['rot'][:, 1:])
    boxes = np.concatenate([xy, z, size, yaw, *([at['vel']] if 'vel' in at else [])], 1)
    wanted = scores > task['score_threshold']
    if task['post_center_range'] is not None:
        low, high = np.float32(task['post_center_range']).reshape(2, 3)
        wanted &= ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(1)
    return boxes[wanted], scores[wanted], (best // (rows * cols))[wanted]


def from_pixel(pixel: np.ndarray, grid: dict) -> np.ndarray:
    """(N, 2) row and column, in cells from the first edge, to x and y."""
    xy = np.empty_like(pixel)
    for values, axis in zip(pixel.T, (grid['rows'], grid['cols'])):
        low, high = grid[f'{axis[1]}_range']
        step = values * grid['resolution']
        xy[:, 'xy'.index(axis[1])] = high - step if axis[0] == '-' else low + step
    return xy


def suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, task: dict) -> List[int]:
    """Non-maximum suppression: indices of the boxes that are kept, the best first."""
    count = len(boxes[:task['pre_max_size']])
    kept = list(range(count))
    if task['nms_type'] == 'circle':
        kept = greedy(count, lambda n, others: np.square(
            boxes[others, :2] - boxes[n, :2]).sum(1) <= task['squared_radius'])
    elif task['nms_type'] == 'rotate':
        sizes = boxes[:, 3:5].copy()
        if task['scale_factors']:
            sizes *= np.float32(task['scale_factors'])[classes][:, None]
        corners = rectangle_corners(boxes[:, :2], sizes, boxes[:, 6])
        areas, reach = sizes.prod(1), np.hypot(*sizes.T) / 2

        def overlaps(n, others):
            far = np.hypot(*(boxes[others, :2] - boxes[n, :2]).T) > reach[n] + reach[others]
            shared = np.array([0 if skip else intersection_area(corners[n], corners[m])
                               for m, skip in zip(others, far)])
            return shared > task['nms_thr'] * (areas[n] + areas[others] - shared)

        kept = greedy(count, overlaps)
    return kept[:task['post_max_size']]


def greedy(count: int, too_near: Callable[[int, np.ndarray], np.ndarray]) -> List[int]:
    """Take the first of those that are left and remove those too near to it, until none is left."""
    left, kept = np.arange(count), []
    while len(left):
        kept.append(int(left[0]))
        left = left[1:][~too_near(left[0], left[1:]).astype(bool)]
    return kept


def rectangle_corners(center: np.ndarray, size: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """(N, 4, 2) corners counter-clockwise, float64, of (N, 2) centres, (N, 2) sizes, (N,) yaws."""
    half = size[:, None].astype(np.float64) / 2 * [[1, 1], [-1, 1], [-1, -1], [1, -1]]
    cos, sin = np.cos(yaw, dtype=np.float64), np.sin(yaw, dtype=np.float64)
    turn = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1)
    return half @ turn + center[:, None]


def intersection_area(first: np.ndarray, second: np.ndarray) -> float:
    """Of two convex polygons, (N, 2) corners counter-clockwise: one cut by the other's edges."""
    polygon, (x0, y0) = (first - first[0]).tolist(), first[0]
    edges = (second - (x0, y0)).tolist()
    for (ax, ay), (bx, by) in zip(edges, [*edges[1:], edges[0]]):
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        cut_off = []
        for n, ((x, y), side) in enumerate(zip(polygon, sides)):
            (next_x, next_y), next_side = polygon[n + 1 - len(polygon)], sides[n + 1 - len(sides)]
            if side >= 0:
                cut_off.append((x, y))
            if (side >= 0) != (next_side >= 0):
                share = side / (side - next_side)
                cut_off.append((x + (next_x - x) * share, y + (next_y - y) * share))
        polygon = cut_off
    return sum(x * polygon[n - 1][1] - y * polygon[n - 1][0]
               for n, (x, y) in enumerate(polygon)) / -2


# ----------------------------------------------------------------------------------------- drawing
def draw_map(segmentation: np.ndarray, arrays: Dict[str, np.ndarray],
             thresholds: Sequence[float]) -> np.ndarray:
    """The (K, R, C) probabilities seen from above, later classes on top; (H, W, 3) uint8 RGB."""
    rows, cols = arrays['cells_top_down']
    background, ground = arrays['background'], arrays['ground']
    cells = np.broadcast_to(ground, (*rows.shape, 3)).copy()
    for channel, limit, colour in zip(segmentation, thresholds, arrays['colours']):
        cells[channel[rows, cols] >= limit] = colour
    image = cv2.resize(cells, background.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    drawn = (background != ground).any(-1)
    image[drawn] = background[drawn]
    return image


def draw_boxes(image: np.ndarray, boxes: Sequence[dict], grid: dict) -> np.ndarray:
    """The boxes seen from above as ``background`` is, with a line from the centre to the front."""
    rows, cols = {'+x': ('-x', '-y'), '-x': ('+x', '+y'), '+y': ('-y', '+x'),
                  '-y': ('+y', '-x')}[grid['forward_axis']]
    scale = 16 * image.shape[1] / np.subtract(*grid[f'{cols[1]}_range'][::-1])

    def at(xy):  # (column, row) in 16ths of pixels
        ends = (grid[f'{axis[1]}_range'][axis[0] == '-'] for axis in (cols, rows))
        return np.stack([np.abs(xy[..., 'xy'.index(axis[1])] - end) * scale for axis, end in
                         zip((cols, rows), ends)], -1).round().astype(np.int32)

    image = image.copy()
    for box in boxes:
        center, size = np.array(box['center'])[None, :2], np.array(box['size'])[None, :2]
        corners = rectangle_corners(center, size, np.array([box['yaw']]))[0]
        front = np.stack([center[0], (corners[0] + corners[3]) / 2])
        cv2.polylines(image, [at(corners)], True, (0, 0, 0), 1, cv2.LINE_AA, 4)
        cv2.polylines(image, [at(front)], False, (0, 0, 0), 1, cv2.LINE_AA, 4)
    return image


def beside(images: Sequence[np.ndarray], bev: np.ndarray, rows: Sequence[Sequence[int]],
           width: int = 960) -> np.ndarray:
    """The network's images, in rows of their numbers, left of the map."""
    in_row = max(map(len, rows))
    size = width // in_row, round(images[0].shape[0] * width / in_row / images[0].shape[1])
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
    small.append(np.zeros_like(small[0]))
    left = np.concatenate([np.concatenate([small[n] for n in [*row, *[-1] * in_row][:in_row]], 1)
                           for row in rows])
    height = max(len(left), len(bev))
    return np.concatenate([np.pad(part, (((height - len(part)) // 2, height - len(part) - (
        height - len(part)) // 2), (0, part.shape[1] % 2), (0, 0))) for part in (left, bev)], 1)


# ----------------------------------------------------------------------------------------- results
@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the operating system while a file is written are the user's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f'{path}: cannot write: {error.strerror or error}; make room there, or '
                         'choose another folder, and run the same command again') from error


def no_link(path: str, flags: int) -> int:
    """Open a file, but no symbolic link: its target is another's."""
    return os.open(path, flags | getattr(os, 'O_NOFOLLOW', 0), 0o666)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that takes its name when it is complete."""
    temporary = path.with_name(f'.tmp.{path.name}')
    with writing(path):
        try:
            temporary.unlink(missing_ok=True)
            with open(temporary, 'xb') as file:  # never the target of a symbolic link
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


class Results:
    """A folder of results, and what each was computed from.

    ``run.json`` says what all results have in common, ``frames.txt`` what each was computed from:
    a line with the hash of its images and the file's name, appended when the file is complete.

    Args:
        folder: New, empty, or with results of the same ``origin``.
        origin: Input, model and settings.

    Raises:
        InputError: It holds results of another origin, or files of other programs.
    """

    def __init__(self, folder: Path, origin: Dict[str, object]) -> None:
        self.folder, self.origin = folder, json.loads(json.dumps(origin))
        self.note, self.list = folder / 'run.json', folder / 'frames.txt'
        self.hashes: Dict[str, str] = {}
        if self.note.is_file():
            self._check(_read_note(self.note))
            lines = self.list.read_bytes().split(b'\n') if self.list.is_file() else ()
            self.hashes = {os.fsdecode(file): digest.decode('ascii', 'replace')
                           for digest, _, file in (line.partition(b' ') for line in lines)}
        for name in () if self.note.is_file() else ('bev', 'boxes', 'maps', 'video.mp4'):
            if (folder / name).exists():
                raise InputError(f'{folder}: it has {name} but no run.json, so it holds no results '
                                 'of this program; choose another folder')

    def _check(self, there: Dict[str, object]) -> None:
        other = [f'{key} {_short(there.get(key))}, now {_short(self.origin.get(key))}'
                 for key in sorted({**there, **self.origin})
                 if there.get(key) != self.origin.get(key)]
        if other:
            raise InputError(f'{self.folder}: it holds other results: {"; ".join(other)}; choose '
                             'another folder, or delete it')

    def begin(self) -> None:
        """Claim the folder."""
        write_whole(self.note, json.dumps(self.origin, indent=1).encode())

    def has(self, file: str, digest: str) -> bool:
        """Whether a result is there and was computed from these images."""
        return self.hashes.get(file) == digest and (self.folder / file).is_file()

    def add(self, file: str, digest: str, content: bytes) -> None:
        """Write a result, then note what it was computed from."""
        write_whole(self.folder / file, content)
        with writing(self.list), open(self.list, 'ab', opener=no_link) as notes:
            notes.write(b'\n' + digest.encode() + b' ' + os.fsencode(file))
        self.hashes[file] = digest


def _read_note(file: Path) -> dict:
    with parse_errors(f'{file}: unreadable', 'choose another folder, or delete it'):
        return dict(json.loads(file.read_text()))


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= 300 else f'{text[:20]}... (hash {_hash(text.encode())[:8]})'


def _hash(*parts) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def origin_of(exported: Exported, source: Path, thresholds: Sequence[float], precision: str,
              interval: Optional[float] = None) -> Dict[str, object]:
    """What the results of a run have in common: whose they are, beside each frame's images.

    A folder may get more images; a file that is replaced is another input.
    """
    text, stat = str(source.resolve()), source.stat()
    if not source.is_dir():
        changed = datetime.fromtimestamp(stat.st_mtime_ns / 1e9, timezone.utc)
        text += f' ({stat.st_size} bytes of {changed.isoformat()})'
    origin = dict(input=text, model=exported.meta['sha256'], thresholds=list(thresholds),
                  arrays=exported.meta['arrays_sha256'])
    if exported.path.suffix == '.xml':
        origin['precision'] = precision
    if interval is not None:
        origin['interval'] = interval
    return dict(origin, **{name: values.tolist() for name, values in exported.feed.items()})


def progress(done: int, total: int, begin: float, last: bool = False) -> None:
    """A line on stderr: frames done, and frames a second."""
    speed = done / max(time.monotonic() - begin, 1e-9)
    if last or sys.stderr.isatty():
        of = f'/{total}' if total else ''
        print(f'\r{done}{of} frames, {speed:.1f} a second', end='\n' if last else '',
              file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> None:
    exported = Exported(args.model, args.threads, args.precision)
    if args.calibration:
        calibrate(exported, args.calibration)
    thresholds = args.threshold or exported.meta['thresholds']
    if len(thresholds) == 1:
        thresholds = thresholds * len(exported.meta['thresholds'])
    if len(thresholds) != len(exported.meta['thresholds']):
        raise InputError(f'--threshold: {len(thresholds)} values for the classes '
                         f'{", ".join(exported.meta["classes"])}; give one, or one for each')
    decoding = exported.meta.get('decoding')
    if 'segmentation' not in exported.names and not decoding:
        raise InputError(f'model {args.model}: it has no segmentation to draw, but '
                         f'{", ".join(exported.names)}; export it with --tasks segmentation, and '
                         'detectors without --tasks')
    if bool(exported.past) != bool(args.poses):
        raise InputError(f'model {args.model}: it reads past images; give --poses' if exported.past
                         else f'model {args.model}: it reads no past images; leave out --poses')
    past = Past(exported, args.poses, args.past_steps) if exported.past else None
    if args.interval is None and past is None and any(
            settings['velocity'] == 'displacement' for settings in (decoding or {}).values()):
        raise InputError(f'model {args.model}: it predicts displacements since the past image; '
                         'give --interval, the seconds since then')
    if args.interval is not None and not 0 < args.interval < 60:
        raise InputError(f'--interval: expected seconds > 0, got {args.interval}')
    total, frames = frames_of(args.input, list(exported.meta['preprocessing']['images']))
    results = Results(args.out_dir, origin_of(exported, args.input, thresholds, args.precision,
                                              args.interval))
    begin, done = time.monotonic(), 0
    with contextlib.closing(Video(args.out_dir / 'video.mp4', args.fps)) as video:
        for name, read in frames:
            images = prepare(exported, read(), name)
            bev = predict(exported, images, name, results, args.maps, thresholds, args.interval,
                          past)
            video.write(beside(images, bev, exported.meta['camera_rows']))
            done += 1
            progress(done, total, begin)
        if not done:
            raise InputError(f'input {args.input}: no frames')
        video.finish()
    progress(done, total, begin, last=True)
    print(f'{args.out_dir}/bev, {args.out_dir}/video.mp4')


class Video:
    """An mp4 that takes its name when it is finished.

    Args:
        path: Of the file; its folder exists when the first image is written.
        fps: Images a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps, self.writer, self.count = path, fps, None, 0
        self.partial = path.with_name(f'.tmp.{path.name}')

    def write(self, image: np.ndarray) -> None:
        """Append an (H, W, 3) RGB image."""
        if self.writer is None:
            with writing(self.path):
                self.partial.unlink(missing_ok=True)
            self.writer = cv2.VideoWriter(str(self.partial), cv2.VideoWriter_fourcc(*'mp4v'),
                                          self.fps, image.shape[1::-1])
            if not self.writer.isOpened():
                raise InputError(f'{self.path}: cannot write a video of {image.shape[1]}x'
                                 f'{image.shape[0]} there; choose another folder')
        self.writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.count += 1

    def finish(self) -> None:
        """Give the file its name.

        Raises:
            InputError: OpenCV cannot read all of it; a full disk is no error where it writes.
        """
        self.writer.release()
        video = cv2.VideoCapture(str(self.partial))
        if sum(1 for _ in iter(video.grab, False)) != self.count:
            raise InputError(f'{self.path}: cannot write all {self.count} images; make room there, '
                             'and run the same command again')
        with writing(self.path):
            with open(self.partial, 'rb') as file:
                os.fsync(file.fileno())
            os.replace(self.partial, self.path)

    def close(self) -> None:
        """Leave nothing behind that is not finished."""
        if self.writer is not None:
            self.writer.release()
            self.partial.unlink(missing_ok=True)


def predict(exported, images, name, results, keep_maps, thresholds, interval=None,
            past=None) -> np.ndarray:
    """The map's image; computed and written unless it is there."""
    before = [past.begin(name, images)] if past else []
    digest = _hash(*map(np.ascontiguousarray, images), *before)
    decoding = exported.meta.get('decoding')
    drawing, maps, objects = f'bev/{name}.png', f'maps/{name}.npz', f'boxes/{name}.json'
    wanted = [drawing, *([maps] if keep_maps else []), *([objects] if decoding else [])]
    if all(results.has(file, digest) for file in wanted):
        return load_image(results.folder / drawing)
    outs = exported(images, past and past.feed())
    if past:
        past.end(outs)
        interval = past.interval
    bev = exported.arrays['background']
    if 'segmentation' in outs:
        bev = draw_map(outs['segmentation'], exported.arrays, thresholds)
    boxes = [box for prefix, settings in (decoding or {}).items() for box in decode_boxes(
        {key.removeprefix(prefix): out for key, out in outs.items() if key.startswith(prefix)},
        settings, exported.meta['grid'], interval or 1.0)]
    bev = draw_boxes(bev, boxes, exported.meta['grid'])
    if not results.note.is_file():
        results.begin()
    if keep_maps:
        packed = io.BytesIO()
        np.savez_compressed(packed, **outs)
        results.add(maps, digest, packed.getvalue())
    if decoding:
        results.add(objects, digest, json.dumps(dict(boxes=boxes), indent=1).encode())
    done, encoded = cv2.imencode('.png', cv2.cvtColor(bev, cv2.COLOR_RGB2BGR))
    if not done:
        raise InputError(f'{results.folder / drawing}: cannot encode the map of {bev.shape}')
    results.add(drawing, digest, encoded.tobytes())
    return bev


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('model', type=Path, help='.onnx or .xml of tools/export_onnx.py')
    parser.add_argument('input', type=Path, help='image, video, or folder')
    parser.add_argument('out_dir', type=Path, help='folder of the results')
    parser.add_argument('--calibration', type=Path, metavar='FILE', help='JSON with lidar2cam, '
                        'lens, img_aug, or with the cameras as in an info file, for models that '
                        "take them (default: the export's)")
    parser.add_argument('--threshold', nargs='+', type=float, metavar='P',
                        help="of the classes, one or one for each (default: the model's)")
    parser.add_argument('--maps', action='store_true', help="keep the network's outputs, too")
    parser.add_argument('--fps', type=float, default=10, help='of the video (default: 10)')
    parser.add_argument('--interval', type=float, metavar='SECONDS', help='between a frame and its '
                        'newest past image, for detectors that predict displacements')
    parser.add_argument('--poses', type=Path, metavar='FILE', help='JSON with poses and times of '
                        'the frames, for networks that read past images')
    parser.add_argument('--past-steps', type=int, nargs='+', metavar='N', help='how many frames '
                        'ago each past time is (default: 1 2 ...)')
    parser.add_argument('--threads', type=int, default=0, help='of the CPU (default: all)')
    parser.add_argument('--precision', choices=('f32', 'bf16'), default='f32',
                        help='of OpenVINO on CPUs that have bfloat16 (default: f32)')
    try:
        run(parser.parse_args())
    except InputError as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted; run the same command again to go on', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    main()
