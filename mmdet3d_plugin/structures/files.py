"""Checks of the files of a frame: complete, and usable for training."""
import os
import re
import struct
from typing import BinaryIO, Optional, Tuple

import cv2
import numpy as np

from ..errors import FrameError

PIXELS = 1 << 28
"""Of an image; a third of a gigabyte and more when it is decoded."""


def read_image(path: str, size: Optional[Tuple[int, int]] = None) -> np.ndarray:
    """Read a complete PNG or JPEG file as (H, W, 3) uint8 BGR; its header is read before.

    Args:
        path: the file.
        size: (height, width) that it must have. Defaults to None: any.

    Raises:
        FrameError: it is missing, damaged, of another size, or of more than ``PIXELS`` pixels.
    """
    found = check_image(path)  # OpenCV paints the lost part of a cut JPEG grey
    image = None
    if size is None or sorted(found) == sorted(size):  # some JPEG files are to be turned
        try:
            image = cv2.imread(path, cv2.IMREAD_COLOR)
        except cv2.error:
            pass
        if image is None:
            raise FrameError(f'{path}: unreadable image: it cannot be decoded; copy it again',
                             'image')
        found = image.shape[:2]
    if size is not None and tuple(found) != tuple(size):
        raise FrameError(f'{path}: wrong image size {found[1]}x{found[0]}, the info file says '
                         f'{size[1]}x{size[0]}; convert the data set again', 'image')
    return image


def check_image(path: str) -> Tuple[int, int]:
    """Check that a PNG or JPEG file is complete, without decoding it.

    The first and last bytes tell it for most files. Files with other bytes after the end of the
    image, which some cameras write, are searched for that end.

    Args:
        path: the file.

    Returns:
        tuple: (height, width) of the header.

    Raises:
        FrameError: the file is missing, empty, cut, no image, or one of more than ``PIXELS``
            pixels.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(24)
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(64, size), os.SEEK_END)
            tail = file.read()
            jpeg_size = _jpeg_size(file) if head.startswith(b'\xff\xd8') else None
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', error)
        raise FrameError(f'{path}: cannot read image: {reason}; check that the data are '
                         'complete', 'image') from error
    if head.startswith(b'\x89PNG\r\n\x1a\n') and len(head) == 24 and (
            tail[-8:-4] == b'IEND' or _has_png_end(_read(path))):
        return _plausible(path, *struct.unpack('>II', head[16:24]))
    if jpeg_size and (
            tail.rstrip(b'\0').endswith(b'\xff\xd9') or _has_jpeg_end(_read(path))):
        return _plausible(path, *jpeg_size)
    raise FrameError(f'{path}: unreadable image: not a complete PNG or JPEG file ({size} bytes); '
                     'copy it again', 'image')


def _plausible(path: str, width: int, height: int) -> Tuple[int, int]:
    if not 0 < width * height <= PIXELS:
        raise FrameError(f'{path}: unreadable image: its header says {width}x{height}, expected at '
                         f'most {PIXELS} pixels; copy it again', 'image')
    return height, width


def _jpeg_size(file: BinaryIO) -> Optional[Tuple[int, int]]:
    """(width, height) of the frame header, which follows other segments; None without one."""
    at = 2
    for _ in range(1000):
        file.seek(at)
        segment = file.read(9)
        if len(segment) < 9 or segment[0] != 0xFF or segment[1] == 0xDA:
            return None
        if 0xC0 <= segment[1] <= 0xCF and segment[1] not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack('>HH', segment[5:])
            return width, height
        at += 1 if segment[1] == 0xFF else 2 + int.from_bytes(segment[2:4], 'big')
    return None


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


def file_name(text: str) -> str:
    """A file name of a frame's token: no separator, no control character, at most 100 characters.

    Example:
        >>> file_name('../a/b'), file_name(''), file_name('0001')
        ('_a_b', 'frame', '0001')
    """
    return re.sub(r'[/\\\0-\x1f]', '_', str(text)).lstrip('.')[:100] or 'frame'


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
