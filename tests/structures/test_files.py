"""Which image files are complete."""
import cv2
import numpy as np
import pytest

from mmdet3d_plugin.errors import FrameError
from mmdet3d_plugin.structures import check_image

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
    assert check_image(str(path)) == ((40, 60) if kind == 'png' else None)


@pytest.mark.parametrize('kind', ['png', 'jpg', 'exif'])
@pytest.mark.parametrize('kept', [1, 10, 30, 0.3, 0.7, 0.95, -1])
def test_a_cut_image_is_found(kind, kept, tmp_path):
    data = encoded(kind)
    path = tmp_path / 'image'
    path.write_bytes(data[:int(kept * len(data)) if 0 < kept < 1 else kept])
    with pytest.raises(FrameError, match='not a complete PNG or JPEG file'):
        check_image(str(path))
