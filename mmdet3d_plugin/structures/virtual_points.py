"""Virtual points of MVP: points that 2D instance masks add to a LiDAR scan.

A scan ``.../LIDAR_TOP/NAME`` has them in ``.../LIDAR_TOP_VIRTUAL/NAME.npz``, with two arrays of
float32 in the axes of the scan:

* ``real_points`` (N1, 15): the scan's points in a mask: x, y, z, intensity, a score for each of
  ten classes (:data:`CLASSES`, one-hot), the score of the detection
* ``virtual_points`` (N2, 14): points that were added in masks: as above without intensity

The files of the authors of MVP, ``NAME.pkl.npy`` beside these, have a pickled dict of the same two
arrays. They are read without running code; :func:`.virtual_points.convert` of the data converters
writes them as ``.npz``.
"""
from pathlib import Path
from typing import Dict, Optional, Union

import numpy as np

from ..errors import FrameError
from ..plain_pickle import load_objects

CLASSES = ('car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle',
           'bicycle', 'pedestrian', 'traffic_cone')
COLUMNS = dict(real_points=5 + len(CLASSES), virtual_points=4 + len(CLASSES))


def virtual_path(scan: Union[str, Path], extension: str = '.npz') -> Path:
    """Where the virtual points of a scan are."""
    scan = Path(scan)
    return scan.parent.with_name(f'{scan.parent.name}_VIRTUAL') / f'{scan.name}{extension}'


def read_virtual_points(scan: Union[str, Path]) -> Optional[Dict[str, np.ndarray]]:
    """The virtual points of a scan by name, float32; None if it has no file.

    Raises:
        FrameError: The file is damaged, or has anything else.
    """
    for extension in ('.npz', '.pkl.npy'):
        path = virtual_path(scan, extension)
        if path.is_file():
            return read_virtual_file(path)
    return None


def read_virtual_file(path: Union[str, Path]) -> Dict[str, np.ndarray]:
    """The content of a ``.npz`` or ``.pkl.npy`` file, float32.

    Raises:
        FrameError: The file is missing, damaged, or has anything else.
    """
    path = Path(path)
    try:
        if path.suffix == '.npz':
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in COLUMNS}
        else:
            with open(path, 'rb') as file:
                [content] = load_objects(file)
            found = {name: content[name] for name in COLUMNS}
        return {name: _checked(values, name) for name, values in found.items()}
    except Exception as error:  # of many kinds in a damaged file
        raise FrameError(f'{path}: no virtual points ({type(error).__name__}: {error!s:.120}); '
                         'copy or convert it again', 'virtual points') from error


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    shape = getattr(values, 'shape', ())
    if shape[1:] != (COLUMNS[name], ) or values.dtype.kind != 'f':
        raise ValueError(f'{name}: expected (N, {COLUMNS[name]}) numbers, got {shape}')
    values = np.ascontiguousarray(values, np.float32).view(np.ndarray)
    if not np.isfinite(values).all():
        raise ValueError(f'{name}: values that are not finite')
    return values
