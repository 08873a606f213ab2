"""What the loaders of a frame make, kept in files."""
import hashlib
import inspect
import io
import json
import os
import pickle
import uuid
import zlib
from pathlib import Path
from typing import Optional, Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARPoints

from ... import geometry, structures
from ...checkpoints import source_sha256
from ...errors import UserError, build_from, did_you_mean
from ...plain_pickle import load_plain

FILES = dict(images=lambda images: [image['img_path'] for image in images.values()
                                    if 'img_path' in image],
             image_sweeps=lambda sweeps: [image['img_path'] for sweep in sweeps
                                          for image in sweep['images'].values()],
             lidar_points=lambda points: [points['lidar_path']], lidar_image=lambda layout: [])
"""Entries of a frame that transforms may read, and the files that each names."""


@TRANSFORMS.register_module()
class Cached(BaseTransform):
    """Transforms whose results are read from a file once they are there.

    It takes the place of the transforms that it wraps::

        load_camera = dict(
            type='Cached', cache_dir='work_dirs/cache',
            transforms=[dict(type='LoadDualFisheyePanorama', size=(1024, 2048))])

    An entry holds a frame's results bit for bit. It is made anew when a setting of the transforms,
    the frame's calibration, the path, size or time of a source file, the code of the transforms or
    the version of OpenCV is another, and when the file is damaged. Entries appear whole or not at
    all, so any number of workers and runs may share a folder. Nothing is ever removed but by
    replacement: delete the folder when it is no longer wanted.

    Args:
        transforms (list): Configs of loaders: transforms that state what they read and add.
        cache_dir (str): The folder; it is made if need be.
        keys (tuple, optional): Results to keep, the others are dropped; default all.

    Raises:
        UserError: A transform does not state what it reads, needs the results of one that is not
            wrapped, or makes something else than plain values, arrays and ``LiDARPoints``; or the
            folder cannot be written.
    """

    def __init__(self, transforms: Sequence[dict], cache_dir: str,
                 keys: Optional[Sequence[str]] = None):
        self.transforms = [build_from(TRANSFORMS, cfg, f'Cached.transforms[{n}]')
                           for n, cfg in enumerate(transforms)]
        self.requires, made = set(), set()
        for transform in self.transforms:
            name, requires = type(transform).__name__, getattr(transform, 'requires', None)
            if requires is None:
                raise UserError(f'Cached: {name} is no function of the files of a frame alone; put '
                                'it behind Cached')
            self.requires |= set(requires) - made
            for key in self.requires - set(FILES):
                raise UserError(f'Cached: {name} needs {key!r}; wrap the transform that makes it, '
                                'too')
            made |= set(transform.provides)
        for key in set(keys or ()) - made:
            raise UserError(f'Cached.keys: the transforms do not make {key!r}'
                            f'{did_you_mean(key, made)}')
        self.keys, self.folder = tuple(keys or sorted(made)), Path(cache_dir)
        self.settings = _canonical([list(transforms), self.keys])
        self.code = code_checksum(*map(type, self.transforms))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f'Cached.cache_dir {cache_dir}: {error.strerror}; choose a folder that '
                            'can be written') from error

    def prepare(self, results: dict) -> None:
        """Prepare the wrapped transforms."""
        for transform in self.transforms:
            if hasattr(transform, 'prepare'):
                transform.prepare(results)

    def transform(self, results: dict) -> dict:
        """Read the frame's entry, or make it."""
        inputs = {key: results[key] for key in sorted(self.requires) if key in results}
        name = hashlib.sha256((self.settings + _canonical(inputs)).encode()).hexdigest()[:32]
        path = self.folder / name[:2] / f'{name}.pkl'
        sources = [_identity(file) for key, value in inputs.items() for file in FILES[key](value)]
        stamp = [self.code, *sources]
        values = read_entry(path, stamp)
        if values is None:
            made = dict(results)
            for transform in self.transforms:
                made = transform(made)
            values = {key: made[key] for key in self.keys if key in made}
            write_entry(path, stamp, values)
        return {**results, **values}


def read_entry(path: Path, stamp: list) -> Optional[dict]:
    """What an entry holds, or None if there is none that is sound and bears the stamp."""
    try:
        content = memoryview(path.read_bytes())
        if zlib.crc32(content[4:]) != int.from_bytes(content[:4], 'little'):
            return None
        found, values, points = load_plain(io.BytesIO(content[4:]))
        if found != stamp:
            return None
        return {**values, **{key: LiDARPoints(torch.from_numpy(array), points_dim=array.shape[1])
                             for key, array in points.items()}}
    except Exception:  # whatever an unpickler meets in bytes of another kind
        return None


def write_entry(path: Path, stamp: list, values: dict) -> None:
    """Write an entry: CRC-32 (4 bytes), then stamp, values, and the arrays of LiDAR points.

    It appears under its name when it is complete. It is not forced to the disk: an entry that a
    power failure cuts is made anew.
    """
    points = {key: value for key, value in values.items() if isinstance(value, LiDARPoints)}
    content = pickle.dumps((stamp, {key: values[key] for key in values if key not in points},
                            {key: value.tensor.numpy() for key, value in points.items()}), 5)
    try:
        load_plain(io.BytesIO(content))
    except pickle.UnpicklingError as error:
        raise UserError(f'Cached: of {", ".join(values)}, one is no plain value, NumPy array or '
                        f'LiDARPoints ({error}); leave it out of keys') from error
    temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.tmp')
    try:
        path.parent.mkdir(exist_ok=True)
        with open(temporary, 'wb') as file:
            file.write(zlib.crc32(content).to_bytes(4, 'little'))
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f'{path}: cannot write the cache: {error.strerror}; make room, or leave '
                        'Cached out') from error


def code_checksum(*classes: type) -> str:
    """Checksum of OpenCV's version and of the code that makes an entry.

    Args:
        *classes: transforms, whose own modules may be outside of this package.
    """
    modules = {inspect.getsourcefile(base) for cls in classes for base in cls.__mro__[:-1]}
    folders = (Path(module.__file__).parent for module in (geometry, structures))
    return f'{cv2.__version__} {source_sha256(Path(__file__).parent, *folders, files=modules)}'


def _identity(path):
    """Path, size and time of a file; None in place of the last two where it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.abspath(path), None, None
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def _canonical(value) -> str:
    return json.dumps(value, sort_keys=True, default=lambda array: np.asarray(array).tolist())
