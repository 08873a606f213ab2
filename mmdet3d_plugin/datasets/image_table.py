"""Past images of a frame, from the table of all images that the converter writes."""
from collections.abc import Sequence
from functools import cached_property
from typing import Callable

import numpy as np

from ..errors import UserError, parse_errors


class ImageTable:
    """``nuscenes_images_{split}.npz``: path, time, pose and calibration of all images.

    Args:
        path (str): The file; ``data_converter.nuscenes.write_images`` says what is in it.

    Raises:
        UserError: It is missing, damaged, or of an older version.
    """

    def __init__(self, path: str):
        self.path = path
        hint = 'write it with tools/create_data.py nuscenes'
        with parse_errors(f'{path}: not a readable table of images', hint), \
                np.load(path, allow_pickle=False) as file:
            self.columns = {name: file[name] for name in file.files}
        if 'token' not in self.columns:
            raise UserError(f'{path}: it has no tokens of frames, as an older version wrote it; '
                            f'{hint} again')

    def check(self, tokens: Sequence) -> None:
        """Raise a UserError unless the table is that of these frames."""
        if [token.decode() for token in self.columns['token']] != list(tokens):
            raise UserError(f'{self.path}: the table of other frames than those of the info file; '
                            'write both with one run of tools/create_data.py nuscenes')

    def before(self, row: int, images: dict, lidar2global: np.ndarray,
               join: Callable[[str, str], str]) -> 'PastImages':
        """The images before those of a frame.

        Args:
            row (int): Of the frame in the info file.
            images (dict): The frame's cameras.
            lidar2global (np.ndarray): (4, 4) of the frame.
            join (callable): (camera, path in the table) to the path of the file.
        """
        return PastImages(self.columns, row, images, lidar2global, join)


class PastImages(Sequence):
    """``image_sweeps`` of a frame, newest first; an entry is made when it is asked for.

    Entries follow the images of the first camera; of the other cameras each has the image that is
    nearest in time.

    Attributes:
        times (np.ndarray): (entries,) seconds.
        is_key (np.ndarray): (entries,) bool, whether an entry is of a key frame.
    """

    def __init__(self, columns, row, images, lidar2global, join):
        self._columns, self._row, self._images = columns, row, images
        self._lidar2global, self._join = lidar2global, join
        first = next(iter(images))
        key, start = columns[f'{first}.key'][row], columns[f'{first}.first'][row]
        self._rows = np.arange(key - 1, start - 1, -1)
        self.times = columns[f'{first}.time'][self._rows]

    @cached_property
    def is_key(self) -> np.ndarray:
        return np.isin(self._rows, self._columns[f'{next(iter(self._images))}.key'])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, n: int) -> dict:
        time = self.times[n]
        return dict(timestamp=float(time), images={
            name: self._camera(name, camera, time) for name, camera in self._images.items()})

    def _camera(self, name, camera, time):
        column = {key: self._columns[f'{name}.{key}']
                  for key in ('path', 'time', 'ego2global', 'cam2ego', 'cam2img')}
        start = self._columns[f'{name}.first'][self._row]
        stop = self._columns[f'{name}.key'][self._row] + 1
        row = start + np.abs(column['time'][start:stop] - time).argmin()
        cam2global = column['ego2global'][row] @ column['cam2ego'][row]
        return {**{key: value for key, value in camera.items() if key != 'sample_data_token'},
                'img_path': self._join(name, column['path'][row].decode()),
                'timestamp': float(column['time'][row]), 'cam2img': column['cam2img'][row],
                'cam2ego': column['cam2ego'][row],
                'lidar2cam': np.linalg.inv(cam2global) @ self._lidar2global}
