import hashlib

import numpy as np
import pytest

from mmdet3d_plugin.geometry import panorama as pano

# Captured by running the KD360 release: 640x1280 source, 2048x1024 panorama, 203 degrees.
SHA1_XS = 'afa9836788c880cad27725cc35bf4c39dcd2c79b'
SHA1_YS = '756a9cf49976614e34dda6b72227a531547c7928'
GOLDEN = {(511, 1023): (959, 319), (512, 1024): (960, 320), (511, 511): (603, 319),
          (511, 512): (676, 319), (511, 1535): (1243, 319), (511, 1536): (36, 319),
          (0, 0): (320, 36), (0, 1024): (960, 36), (1023, 1024): (960, 603), (1023, 0): (320, 603),
          (300, 1024): (960, 202), (700, 1024): (960, 424), (511, 0): (320, 319),
          (511, 2047): (319, 319), (511, 1300): (1113, 319), (640, 200): (424, 395),
          (640, 1800): (190, 398)}


def upright(native):
    """The release's pre-rotation, the slow way."""
    side = native.shape[1] // 2
    left, right = native[:side, :side], native[:side, side:]
    return np.concatenate([np.rot90(left, -1), np.rot90(right, 1)], 1)


def test_release_maps_equal_the_release_bit_for_bit():
    xs, ys = pano.release_indices(1024, 2048, 640)
    assert xs.dtype == ys.dtype == np.int32
    assert (int(xs.sum()), int(ys.sum())) == (1341130752, 670040064)
    assert hashlib.sha1(np.ascontiguousarray(xs)).hexdigest() == SHA1_XS
    assert hashlib.sha1(np.ascontiguousarray(ys)).hexdigest() == SHA1_YS
    for at, expected in GOLDEN.items():
        assert (xs[at], ys[at]) == expected


def test_release_picture_equals_rotating_first_and_gathering():
    native = np.random.RandomState(0).randint(0, 256, (640, 1280, 3)).astype(np.uint8)
    xs, ys = pano.release_indices(1024, 2048, 640)
    out = pano.remap(native, pano.dual_fisheye_maps(1024, 2048, 640, 'release'), nearest=True)
    np.testing.assert_array_equal(out, upright(native)[ys, xs])


def test_convention_default_maps_stay_within_a_pixel_of_the_release():
    xs, ys = pano.release_indices(1024, 2048, 640)
    front = xs >= 640
    rows, cols = np.moveaxis(pano._to_native(ys, np.where(front, xs - 640, xs), front, 640), -1, 0)
    ours = pano.dual_fisheye_pixels(pano.equirect_rays(1024, 2048), 640)
    distance = np.hypot(ours[..., 1] - cols, ours[..., 0] - rows)
    assert distance.max() < 1.2 and 0.2 < distance.mean() < 0.5


def test_convention_forward_left_and_up_in_the_upright_picture():
    def at(direction):
        row, col = pano.dual_fisheye_pixels(np.array(direction, float), 100)
        picture = np.arange(100 * 200).reshape(100, 200)
        index = picture[int(round(row)), int(round(col))]
        return [int(v[0]) for v in np.nonzero(upright(picture) == index)]

    assert at([1, 0.001, 0.001]) == [49, 149]        # forward: middle of the right square
    assert at([-1, 0.001, 0.001]) == [49, 50]         # backward: middle of the left square
    assert at([1, 1, 0.001]) == [49, 127]              # half left: left in the front lens
    assert at([-1, 1, 0.001])[1] == 72                 # ... and right in the rear lens
    assert at([1, 0.001, 1]) == [27, 149]              # up is up


def test_convention_equirect_columns_and_rows():
    rays = pano.equirect_rays(101, 201)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1)
    np.testing.assert_allclose(rays[50, 100], [1, 0, 0], atol=1e-12)      # centre: forward
    assert rays[50, 150, 1] < -0.99 and rays[50, 50, 1] > 0.99            # right half: right (-y)
    assert rays[0, 100, 2] > 0.99 and rays[100, 100, 2] < -0.99           # row 0: zenith
    cropped = pano.equirect_rays(2, 4, fov_up=0.3, fov_down=-0.5)
    np.testing.assert_allclose(np.arcsin(cropped[:, 0, 2]), [0.1, -0.3])  # centres of 0.4 rad rows


def test_panorama_of_a_painted_sphere_is_right_and_continuous_at_the_border():
    side = 200
    rows, cols = np.mgrid[:side, :2 * side]
    native = np.zeros((side, 2 * side, 3), np.float64)
    # paint every native pixel with the direction it looks at, by inverting the equidistant lens
    for front, colours in ((True, slice(side, None)), (False, slice(0, side))):
        r, c = rows[:, colours], cols[:, colours] - (side if front else 0)
        up_row, up_col = (side - 1 - c, r) if front else (c, side - 1 - r)
        dy = (up_col + 0.5) / (side / 2) - 1
        dz = 1 - (up_row + 0.5) / (side / 2)
        radius = np.hypot(dy, dz)
        theta = radius * np.deg2rad(203) / 2
        sign = 1 if front else -1
        lateral = np.sin(theta) / np.maximum(radius, 1e-9)
        ray = [sign * np.cos(theta), -sign * lateral * dy, lateral * dz]
        native[:, colours] = np.stack(ray, -1)
    picture = np.round((native * 0.5 + 0.5).clip(0, 1) * 255).astype(np.uint8)
    out = pano.remap(picture, pano.dual_fisheye_maps(128, 256, side))
    expected = (pano.equirect_rays(128, 256) * 0.5 + 0.5) * 255
    assert np.abs(out - expected).max() < 2.5
    assert np.abs(out[:, 0].astype(int) - out[:, -1]).max() <= 4


def test_maps_are_cached_and_bad_options_are_named():
    assert pano.dual_fisheye_maps(8, 16, 10) is pano.dual_fisheye_maps(8, 16, 10)
    with pytest.raises(ValueError, match="'bilinear' or 'release', got 'cubic'"):
        pano.dual_fisheye_maps(8, 16, 10, 'cubic')
    with pytest.raises(ValueError, match='full sphere'):
        pano.dual_fisheye_maps(8, 16, 10, 'release', 203.0, 0.5, -0.5)
