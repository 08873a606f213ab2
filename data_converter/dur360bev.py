"""Dur360BEV (or toytown written in its layout) -> info files.

Frame of reference: the LiDAR, x forward, y left, z up. The data set has no extrinsic calibration,
so ``lidar2cam`` is the identity; ``metadata/calibration.json`` ({"lidar2cam": 4x4, camera axes x
forward, y left, z up}) replaces it where present. ``metadata/sequences.json`` ({"<id>":
"<sequence>"}) names sequences; without it the route (``initial`` or ``extended``) is the only one.
"""

import json
import math
import os
from collections import Counter
from functools import partial
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.errors import FrameError, UserError, did_you_mean, parse_errors
from mmdet3d_plugin.geometry import rigid
from mmdet3d_plugin.geometry.lidar_image import fov_of_beams
from mmdet3d_plugin.geometry.panorama import THETA_APERTURE_DEG
from mmdet3d_plugin.structures import INFO_VERSION

from . import common

CATEGORIES = dict(car=0, bus=1, truck=2, pedestrian=3)
FEATURES = 9
"""float32 values of a point: x y z intensity time reflectivity ring ambient range_mm."""

VERSIONS = dict(initial=('0000', 'dataset_indices'), extended=('1000', 'dataset_ext_indices'),
                mini=('1000', 'dataset_ext_mini_indices'), complete=('', 'dataset_comp_indices'))
"""Version -> prefix of its frame ids, name of its split file."""

SPLIT_KEYS = ('train_indices', 'test_indices')
SENSORS = dict(image='.png', labels='.txt', ouster_points='.bin', oxts='.txt')
EARTH_RADIUS = 6378137.0


def convert(root_path: str, out_dir: Optional[str] = None, version: str = 'extended',
            workers: int = 1, check: bool = False, rasterizer: Optional[str] = None,
            only: Sequence[str] = (), overwrite: bool = False) -> dict:
    """Write ``dur360bev_infos_{train,val}.pkl``, and the split as JSON to ``dur360bev_split/``.

    A stopped conversion continues where it was; the files appear complete or not at all. Bad frames
    of the training split are left out and counted, one of the other split is an error.

    Args:
        root_path: folder with image/, labels/, ouster_points/, oxts/, metadata/.
        out_dir: where the info files go, default the root path.
        version: 'initial', 'extended', 'mini' or 'complete'.
        workers: processes.
        check: decode every image and scan, and read the info files back.
        rasterizer: method of RasterizeBEV: report the BEV cells of each class that it draws.
        only: splits to write, 'train' or 'val'; () = both.
        overwrite: replace info files of another version.

    Returns:
        dict: file and report of each split.

    Raises:
        UserError: naming the file (and line) that is missing, cut or malformed.
    """
    out_dir = out_dir or root_path
    os.makedirs(out_dir, exist_ok=True)
    summary, lists = {}, splits(root_path, version)
    common.check_splits(only, lists)
    with common.published(out_dir) as pending:
        write_split(root_path, version, os.path.join(out_dir, 'dur360bev_split'), pending)
        for split in only or lists:
            path = os.path.join(out_dir, f'dur360bev_infos_{split}.pkl')
            base = metainfo(root_path, version, split)
            common.check_replaced(path, base, overwrite)
            data_list = frames(root_path, split, version, workers, f'{path}.journal', check,
                               rasterizer)
            meta = dict(base, skipped=data_list.skipped,
                        **common.bev_metainfo(data_list, CATEGORIES, rasterizer))
            infos = dict(metainfo=meta, data_list=data_list)
            counts = report(infos)
            common.write_infos(infos, pending(path), check)
            summary[split] = f'{path}: {counts}'
    return summary


def splits(root: str, version: str = 'extended') -> Dict[str, List[str]]:
    """Frame ids of every split.

    The indices of the split file refer to the sorted list of the version's frames; see
    :func:`split_indices`.

    Returns:
        dict: 'train' and 'val' -> list of frame ids.

    Raises:
        UserError: unknown version, no frames, missing or wrong split file, index out of range
            or listed twice.
    """
    ids, arrays = frame_ids(root, version), split_indices(root, version)
    path = os.path.join(root, 'metadata', f'{VERSIONS[version][1]}.pkl')
    for key, index in arrays.items():
        if index.size and not 0 <= index.min() <= index.max() < len(ids):
            raise UserError(f'{path}: {key} has indices {index.min()}..{index.max()}, but {root} '
                            f'has {len(ids)} frames of version {version!r}; is the download '
                            'complete?')
    out = dict(zip(('train', 'val'), ([ids[i] for i in index] for index in arrays.values())))
    twice = [i for i, count in Counter(out['train'] + out['val']).items() if count > 1]
    if twice:
        raise UserError(f'{path}: {len(twice)} frames are listed twice, such as {twice[0]}; train '
                        'and test must not share frames; download the split file again')
    return out


def split_indices(root: str, version: str) -> Dict[str, np.ndarray]:
    """``train_indices`` and ``test_indices`` of a version, (N,) int64 each.

    Without split files of their own, ``mini`` is every tenth frame of ``extended``, and
    ``complete`` is ``initial`` and after it ``extended``.

    Raises:
        UserError: missing or wrong split file.
    """
    path = os.path.join(root, 'metadata', f'{VERSIONS[version][1]}.pkl')
    own = any(os.path.isfile(path[:-4] + end) for end in ('.pkl', '.json'))
    if version == 'mini' and not own:
        return {key: index[::10] for key, index in split_indices(root, 'extended').items()}
    if version == 'complete' and not own:
        first, then = (split_indices(root, name) for name in ('initial', 'extended'))
        before = sum(i.startswith(VERSIONS['initial'][0]) for i in _all_ids(root))
        return {key: np.concatenate([first[key], then[key] + before]) for key in first}
    arrays = common.read_split(path)
    for key in SPLIT_KEYS:
        if key not in arrays:
            raise UserError(f'{path}: no {key!r}, only {sorted(arrays)}; download it again')
    return {key: arrays[key] for key in SPLIT_KEYS}


def write_split(root: str, version: str, folder: str,
                pending: Callable[[str], str] = str) -> None:
    """Write the indices as JSON; in ``metadata/`` the file replaces the pickle of its name."""
    indices = {key: index.tolist() for key, index in split_indices(root, version).items()}
    with atomic_write(pending(os.path.join(folder, f'{VERSIONS[version][1]}.json'))) as file:
        file.write(json.dumps(indices).encode())


def frame_ids(root: str, version: str) -> List[str]:
    """Sorted ids of all frames of a version.

    Raises:
        UserError: unknown version, missing folder, or no frames.
    """
    if version not in VERSIONS:
        raise UserError(f'unknown version {version!r} of Dur360BEV'
                        f'{did_you_mean(version, VERSIONS)}')
    prefix = VERSIONS[version][0]
    ids = [i for i in _all_ids(root) if i.startswith(prefix)]
    if not ids:
        name = prefix + '*' * (10 - len(prefix))
        raise UserError(f'{os.path.join(root, "image", "data")}: no images named {name}.png of '
                        f'version {version!r}; check the root path and the version'
                        + common.other_format(os.path.join(root, 'image', 'data'), '.png'))
    return ids


def frames(root: str, split: str, version: str = 'extended', workers: int = 1,
           journal: Optional[str] = None, check: bool = False,
           rasterizer: Optional[str] = None) -> common.Frames:
    """Info frames of a split.

    Args:
        root: data root.
        split: 'train' or 'val'.
        version: version of the data set.
        workers: processes.
        journal: file that remembers finished frames, default a temporary one.
        check: decode every image and scan.
        rasterizer: count the BEV cells that it draws.

    Raises:
        UserError: unknown split; a file of the set, or of a frame outside the training split, is
            missing, cut or malformed; many frames of the training split are.
    """
    ids_of = splits(root, version)
    if split not in ids_of:
        raise UserError(f'unknown split {split!r} of Dur360BEV{did_you_mean(split, ids_of)}')
    ids = frame_ids(root, version)
    times = dict(zip(_all_ids(root), timestamps(root)))
    scenes = _scenes(root, ids)
    origin, size = _origin(root, ids)
    rows, cols = scan_layout(root)[:2]
    token = {i: f'{scenes[i]}_{i}' for i in ids}
    extrinsic = calibration(root)

    def finalize(n, frame):
        i = frame['frame_id']
        frame.update(sample_idx=n, token=token[i], scene_token=scenes[i], timestamp=times[i])
        frame['images']['CAM_PANO']['lidar2cam'] = extrinsic

    return common.convert_frames(
        partial(_frame, root, size, rows * cols, origin), ids_of[split], journal,
        lambda i: common.stamp(*_files(root, i)), workers, split,
        partial(_files_of, root) if check else None, strict=split != 'train', finalize=finalize,
        rasterizer=rasterizer)


def _origin(root, ids) -> tuple:
    """Position and image size of the version's first frame that has both."""
    for i in ids:
        image, _, _, oxts = _files(root, i)
        try:
            return read_oxts(oxts), common.image_size(image)
        except UserError as error:
            last = error
    raise last


def metainfo(root: str, version: str, split: str) -> dict:
    """Metainfo of the info file."""
    rows, cols, shift, (fov_up, fov_down) = scan_layout(root)
    return dict(
        dataset='dur360bev', version=version, info_version=INFO_VERSION, split=split,
        categories=dict(CATEGORIES), lidar_frame='x forward, y left, z up',
        lidar_image=dict(projection='staggered', height=rows, width=cols, pixel_shift_by_row=shift,
                         fov_up=fov_up, fov_down=fov_down))


def report(infos: dict) -> dict:
    """Counts of a conversion, to check it."""
    counts, labels, _ = common.summarize(infos)
    objects = {name: labels[index] for name, index in CATEGORIES.items()}
    return dict(counts, objects=dict(objects, ignored=labels[-1]))


def scan_layout(root: str) -> Tuple[int, int, List[int], Tuple[float, float]]:
    """Rows, columns, shift per row and (fov_up, fov_down) in radians from ``metadata/os1.json``.

    Without ``beam_altitude_angles`` the field of view is +-22.5 degrees.

    Raises:
        UserError: the file is missing or incomplete.
    """
    path = os.path.join(root, 'metadata', 'os1.json')
    meta = common.read_json(path)
    with parse_errors(f'{path}: expected data_format with pixels_per_column, columns_per_frame and '
                      'pixel_shift_by_row', 'download it again'):
        layout = meta['data_format']
        rows, cols = int(layout['pixels_per_column']), int(layout['columns_per_frame'])
        shift = [int(s) for s in layout['pixel_shift_by_row']]
        angles = [float(angle) for angle in meta.get('beam_altitude_angles') or []]
        if not 2 <= min(rows, cols) <= max(rows, cols) < 1 << 16 or not np.isfinite(angles).all():
            raise ValueError('a size below 2 or beyond 65535, or an angle that is not finite')
    for name, value in (('pixel_shift_by_row', shift), ('beam_altitude_angles', angles)):
        if len(value) != rows and (value or name == 'pixel_shift_by_row'):
            raise UserError(f'{path}: {name} has {len(value)} entries, expected '
                            f'pixels_per_column = {rows}')
    half = math.radians(22.5)
    return rows, cols, shift, fov_of_beams(angles) if angles else (half, -half)


def calibration(root: str) -> List[List[float]]:
    """``lidar2cam`` as 4x4 row lists: from ``metadata/calibration.json``, else the identity."""
    path = os.path.join(root, 'metadata', 'calibration.json')
    if not os.path.isfile(path):
        return np.eye(4).tolist()
    try:
        matrix = np.array(common.read_json(path).get('lidar2cam'), np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(())
    if matrix.shape != (4, 4) or not rigid.is_rigid(matrix):
        raise UserError(f'{path}: lidar2cam: expected a rigid transform, 4 rows of 4 numbers, got '
                        f'shape {matrix.shape}; correct it, or remove the file')
    return matrix.tolist()


def timestamps(root: str) -> List[float]:
    """Seconds of every frame of the root, in the order of the sorted images.

    Raises:
        UserError: the four files differ in length, or from the number of images.
    """
    for name in SENSORS:
        if not os.path.isdir(os.path.join(root, name, 'data')):
            raise UserError(f'{root}/{name}/data: no such folder; the conversion needs images, '
                            'labels, scans and poses, also for models that do not read scans; '
                            'download it')
    paths = {name: os.path.join(root, name, 'timestamps.txt') for name in SENSORS}
    lines = {name: common.read_lines(path) for name, path in paths.items()}
    lengths = {name: len(text) for name, text in lines.items()}
    if len(set(lengths.values())) > 1:
        counts = ', '.join(f'{name}/timestamps.txt {n}' for name, n in lengths.items())
        raise UserError(f'{root}: timestamps of unequal length: {counts} lines; copy the data '
                        'again')
    images = len(_all_ids(root))
    if lengths['image'] != images:
        raise UserError(f'{paths["image"]}: {lengths["image"]} lines, but image/data holds '
                        f'{images} images; is the download complete?')
    path = paths['ouster_points']
    # The authors' script that merges folders writes backslash and n before the first added line.
    return [common.parse_time(text.removeprefix('\\n'), f'{path}:{n}')
            for n, text in enumerate(lines['ouster_points'], 1)]


def read_labels(path: str) -> List[dict]:
    """Instances of a label file: lines of ``class height width length x y z yaw``.

    Classes outside ``CATEGORIES`` get the label -1.

    Raises:
        UserError: with file and line number.
    """
    instances = []
    for n, line in enumerate(common.read_lines(path), 1):
        tokens = line.split()
        if not tokens:
            continue
        if len(tokens) != 8:
            raise UserError(f'{path}:{n}: expected 8 tokens (class height width length x y z yaw), '
                            f'got {len(tokens)}: {line!r}')
        try:
            h, w, l, x, y, z, yaw = map(float, tokens[1:])  # noqa: E741
        except ValueError as error:
            raise UserError(f'{path}:{n}: {error}: {line!r}') from error
        if not np.isfinite([h, w, l, x, y, z, yaw]).all() or min(h, w, l) <= 0:
            raise UserError(f'{path}:{n}: expected finite numbers and sizes > 0: {line!r}')
        label = CATEGORIES.get(tokens[0].lower(), -1)
        instances.append(dict(bbox_3d=[x, y, z, l, w, h, yaw], bbox_label_3d=label,
                              bbox_label=label, source_index=n - 1))
    return instances


def read_oxts(path: str) -> Tuple[float, ...]:
    """lat, lon (degrees), alt (m), roll, pitch, yaw (rad, yaw counter-clockwise from east)."""
    lines = common.read_lines(path)
    try:
        values = tuple(map(float, lines[0].split()[:6]))
    except (IndexError, ValueError):
        values = ()
    if len(values) != 6 or not np.isfinite(values).all():
        raise UserError(f'{path}:1: expected 6 finite numbers (lat lon alt roll pitch yaw)')
    return values


def ego2global(oxts: Sequence[float], origin: Sequence[float]) -> List[List[float]]:
    """4x4 pose in the local east-north-up frame whose origin is the position of ``origin``."""
    (lat, lon, alt, roll, pitch, yaw), (lat0, lon0, alt0) = oxts, origin[:3]
    east = math.radians(lon - lon0) * EARTH_RADIUS * math.cos(math.radians(lat0))
    north = math.radians(lat - lat0) * EARTH_RADIUS
    rotation = Rotation.from_euler('ZYX', [yaw, pitch, roll]).as_matrix()
    return rigid.rigid(rotation, [east, north, alt - alt0]).tolist()


def _frame(root, expected_size, points, origin, frame_id) -> dict:
    image, labels, scan, oxts = _files(root, frame_id)
    size = common.image_size(image)
    if size != expected_size or 2 * size[0] < size[1]:
        expected = f'{expected_size[1]}x{expected_size[0]} like the first frame' if (
            size != expected_size) else \
            'a dual fisheye at least half as high as wide'
        raise FrameError(f'{image}: wrong image size {size[1]}x{size[0]}, expected {expected}; '
                         'copy it again', 'image')
    expected = points * FEATURES * 4
    size_bytes = os.path.getsize(scan) if os.path.isfile(scan) else None
    if size_bytes is None:
        raise FrameError(f'{scan}: missing LiDAR scan of frame {frame_id}; copy it again', 'scan')
    if size_bytes != expected:
        raise FrameError(f'{scan}: {size_bytes} bytes, expected {expected} ({points} points of '
                         f'{FEATURES} float32); the file is cut or metadata/os1.json is of another '
                         'sensor', 'scan')
    camera = dict(img_path=_relative('image', frame_id), height=size[0], width=size[1],
                  lens='equirect', source_lens='dual_fisheye', aperture_deg=THETA_APERTURE_DEG)
    with common.part_of_frame('pose'):
        pose = ego2global(read_oxts(oxts), origin)
    with common.part_of_frame('labels'):
        instances = read_labels(labels)
    return dict(frame_id=frame_id, ego2global=pose, images=dict(CAM_PANO=camera),
                lidar_points=dict(lidar_path=_relative('ouster_points', frame_id),
                                  num_pts_feats=FEATURES),
                instances=instances)


def _relative(sensor, frame_id) -> str:
    return f'{sensor}/data/{frame_id}{SENSORS[sensor]}'


def _files(root, frame_id) -> tuple:
    """Paths of image, labels, scan and oxts of a frame."""
    return tuple(os.path.join(root, _relative(sensor, frame_id)) for sensor in SENSORS)


def _files_of(root, frame) -> list:
    """Paths of image and scan of a frame."""
    return [os.path.join(root, _relative(sensor, frame['frame_id']))
            for sensor in ('image', 'ouster_points')]


def _all_ids(root) -> list:
    folder = os.path.join(root, 'image', 'data')
    if not os.path.isdir(folder):
        raise UserError(f'{folder}: no such folder; --root-path must hold image/, labels/, '
                        'ouster_points/, oxts/ and metadata/')
    return sorted(name[:-4] for name in os.listdir(folder)
                  if len(name) == 14 and name.endswith('.png'))


def _scenes(root, ids) -> dict:
    path = os.path.join(root, 'metadata', 'sequences.json')
    if not os.path.isfile(path):
        return {i: 'initial' if i.startswith('0000') else 'extended' for i in ids}
    names = common.read_json(path)
    missing = [i for i in ids if i not in names]
    if missing:
        raise UserError(f'{path}: no sequence for frame {missing[0]} ({len(missing)} in all)')
    return {i: str(names[i]) for i in ids}
