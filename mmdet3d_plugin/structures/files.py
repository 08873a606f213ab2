"""Checks of the files of a frame: complete, and usable for training."""
import os
import struct
from typing import Optional, Tuple

import numpy as np

from ..errors import FrameError


def check_image(path: str) -> Optional[Tuple[int, int]]:
    """Check that a PNG or JPEG file is complete, without decoding it.

    The first and last bytes tell it for most files. Files with other bytes after the end of the
    image, which some cameras write, are searched for that end.

    Args:
        path: the file.

    Returns:
        tuple: (height, width) of a PNG; None for a JPEG.

    Raises:
        FrameError: the file is missing, empty, cut, or no image.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(24)
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(64, size), os.SEEK_END)
            tail = file.read()
    except OSError as error:
        raise FrameError(f'{path}: cannot read image: {error.strerror}; check that the data are '
                         'complete', 'image') from error
    if head.startswith(b'\x89PNG\r\n\x1a\n') and len(head) == 24 and (
            tail[-8:-4] == b'IEND' or _has_png_end(_read(path))):
        width, height = struct.unpack('>II', head[16:24])
        return height, width
    if head.startswith(b'\xff\xd8') and (
            tail.rstrip(b'\0').endswith(b'\xff\xd9') or _has_jpeg_end(_read(path))):
        return None
    raise FrameError(f'{path}: unreadable image: not a complete PNG or JPEG file ({size} bytes); '
                     'copy it again', 'image')


def _read(path: str) -> bytes:
    with open(path, 'rb') as file:
        return file.read()


def _has_png_end(data: bytes) -> bool:
    """Whether the chunks of a PNG file lead to its end: length, type, content, checksum each."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack('>I4s', data[at:at + 8])
        if kind == b'IEND':
            return True
        at += 12 + length
    return False


def _has_jpeg_end(data: bytes) -> bool:
    """Whether an end marker follows the first scan; thumbnails in the segments before it have one.

    In the entropy-coded data of a scan 0xFF is followed by 0x00 or by a marker.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xDA:
            return data.find(b'\xff\xd9', at) >= 0
        at += 2 + int.from_bytes(data[at + 2:at + 4], 'big')
    return False


def check_points(points: np.ndarray, path: str) -> None:
    """Check that a scan has returns and only plausible values.

    Args:
        points: (P, >=3) x, y, z first.
        path: its file, for the message.

    Raises:
        FrameError: a value is not finite (or beyond 1e12), a point is further than 100 km, or all
            points are at the origin (no return).
    """
    sizes = np.abs(points)
    good = sizes < 1e12  # False for NaN
    if not good.all():
        raise FrameError(f'{path}: {np.count_nonzero(~good)} values are not finite or beyond 1e12; '
                         'copy the scan again', 'scan')
    farthest = sizes[:, :3].max(initial=0)
    if farthest > 1e5:
        raise FrameError(f'{path}: a point is {farthest:.3g} m away; copy the scan again', 'scan')
    if farthest == 0:
        raise FrameError(f'{path}: a scan without any return; copy it again', 'scan')
