"""Which image files are complete."""
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest

from mmdet3d_plugin.errors import FrameError
from mmdet3d_plugin.structures import check_image, read_image

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
THUMBNAIL = cv2.imencode('.jpg', IMAGE[:8, :8])[1].tobytes()


def encoded(kind):
    """A file's bytes; of 'exif' a JPEG with a complete JPEG in a segment before the scan."""
    data = cv2.imencode('.png' if kind == 'png' else '.jpg', IMAGE)[1].tobytes()
    if kind == 'exif':
        segment = b'Exif\0\0' + THUMBNAIL
        data = data[:2] + b'\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment + data[2:]
    return data


@pytest.mark.parametrize('kind', ['png', 'jpg', 'exif'])
@pytest.mark.parametrize('trailer', [b'', b'\0' * 100, b'made by a camera', b'x' * 5000,
                                     b'IEND' + b'y' * 90])
def test_bytes_after_the_image_do_not_matter(kind, trailer, tmp_path):
    path = tmp_path / 'image'
    path.write_bytes(encoded(kind) + trailer)
    assert check_image(str(path)) == (40, 60)


@pytest.mark.parametrize('kind', ['png', 'jpg', 'exif'])
@pytest.mark.parametrize('kept', [1, 10, 30, 0.3, 0.7, 0.95, -1])
def test_a_cut_image_is_found(kind, kept, tmp_path):
    data = encoded(kind)
    path = tmp_path / 'image'
    path.write_bytes(data[:int(kept * len(data)) if 0 < kept < 1 else kept])
    with pytest.raises(FrameError, match='not a complete PNG or JPEG file'):
        check_image(str(path))


def header(width, height):
    """A PNG file that is complete but for its pixels."""
    def chunk(kind, data):
        check = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + check

    colour = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', colour)
            + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b''))


@pytest.mark.parametrize('width, height', [(40000, 40000), (1 << 31, 1 << 31), (0, 5)])
def test_sizes_that_no_image_has(width, height, tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(header(width, height))
    with pytest.raises(FrameError, match=rf'its header says {width}x{height}, expected at most'):
        read_image(str(path))


def test_a_wrong_size_is_found_before_the_pixels_are_read(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(header(16000, 16000))  # 0.77 GB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameError, match='wrong image size 16000x16000, the info file says 60x40'):
        read_image(str(path), (40, 60))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize('kind', ['png', 'jpg', 'exif'])
def test_images_are_read(kind, tmp_path):
    path = tmp_path / 'image'
    path.write_bytes(encoded(kind))
    assert read_image(str(path), (40, 60)).shape == (40, 60, 3)
    assert kind != 'png' or (read_image(str(path)) == IMAGE).all()


def test_jpeg_files_that_are_to_be_turned(tmp_path):
    """The size of a turned image is that after turning, as OpenCV gives it."""
    tag = struct.pack('>HHIHH', 0x0112, 3, 1, 6, 0)  # orientation: 90 degrees clockwise
    segment = b'Exif\0\0MM\0*' + struct.pack('>IH', 8, 1) + tag + bytes(4)
    data = encoded('jpg')
    path = tmp_path / 'a.jpg'
    length = struct.pack('>H', len(segment) + 2)
    path.write_bytes(data[:2] + b'\xff\xe1' + length + segment + data[2:])
    assert read_image(str(path), (60, 40)).shape == (60, 40, 3)
    with pytest.raises(FrameError, match='wrong image size 40x60'):
        read_image(str(path), (40, 60))


def test_damaged_pixels_and_odd_paths(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(header(60, 40).replace(b'IDAT', b'IDOT'))
    with pytest.raises(FrameError, match='cannot be decoded'):
        read_image(str(path))
    with pytest.raises(FrameError, match='cannot read image'):
        read_image('a\0b.png')
    path.write_bytes(b'\xff\xd8' + b'\xff' * 100_000 + b'\xff\xd9')
    with pytest.raises(FrameError, match='not a complete PNG or JPEG file'):
        read_image(str(path))
