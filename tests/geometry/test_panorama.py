import hashlib

import cv2
import numpy as np
import pytest
import torch

from mmdet3d_plugin.geometry import CameraRig, rigid
from mmdet3d_plugin.geometry import panorama as pano
from mmdet3d_plugin.geometry.cameras import lens_of
from tests.helpers.kitti360 import MEI, fisheye

# Captured by running the KD360 release: 640x1280 source, 2048x1024 panorama, 203 degrees.
SHA1_XS = '2eb87268163d2a078410df9c69b1cdcd304b5c48'  # without the first and last row
SHA1_YS = 'e783bf864da14f0c12fb4e119d31bd8ebec54218'
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
    assert hashlib.sha1(np.ascontiguousarray(xs[1:-1])).hexdigest() == SHA1_XS
    assert hashlib.sha1(np.ascontiguousarray(ys[1:-1])).hexdigest() == SHA1_YS
    sums = [[int(index[row].sum()) for row in (0, -1)] for index in (xs, ys)]
    # the zenith is half way between two columns, and NumPy 2 rounds sines otherwise
    pole = 1310720 if np.__version__ < '2' else 1310517
    assert sums == [[pole, pole], [73728, 1234944]]
    for at, expected in GOLDEN.items():
        assert (xs[at], ys[at]) == expected


def test_release_image_equals_rotating_first_and_gathering():
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


def test_convention_forward_left_and_up_in_the_upright_image():
    def at(direction):
        row, col = pano.dual_fisheye_pixels(np.array(direction, float), 100)
        image = np.arange(100 * 200).reshape(100, 200)
        index = image[int(round(row)), int(round(col))]
        return [int(v[0]) for v in np.nonzero(upright(image) == index)]

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
    image = np.round((native * 0.5 + 0.5).clip(0, 1) * 255).astype(np.uint8)
    out = pano.remap(image, pano.dual_fisheye_maps(128, 256, side))
    expected = (pano.equirect_rays(128, 256) * 0.5 + 0.5) * 255
    assert np.abs(out - expected).max() < 2.5
    assert np.abs(out[:, 0].astype(int) - out[:, -1]).max() <= 4


def test_fixed_point_maps_cost_no_accuracy():
    """As OpenCV 4 with float maps to the bit; half of 1/32 px an axis from exact interpolation."""
    image = np.random.default_rng(0).integers(0, 256, (640, 1280, 3), np.uint8)
    rows, cols = np.moveaxis(pano.dual_fisheye_pixels(pano.equirect_rays(256, 512), 640), -1, 0)
    out = pano.remap(image, pano.fixed_point_maps(rows, cols))
    if cv2.__version__ < '5':  # OpenCV 5 interpolates exactly where the maps are floats
        np.testing.assert_array_equal(out, cv2.remap(
            image, cols.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR))
    row, col = np.floor(rows).astype(int), np.floor(cols).astype(int)
    down, right = (rows - row)[..., None], (cols - col)[..., None]
    above, below = (image[r, col] * (1 - right) + image[r, col + 1] * right
                    for r in (row, row + 1))
    assert np.abs(out - (above * (1 - down) + below * down)).max() < 2 * 255 / 64 + 0.5


def test_maps_are_cached_and_bad_options_are_named():
    assert pano.dual_fisheye_maps(8, 16, 10) is pano.dual_fisheye_maps(8, 16, 10)
    with pytest.raises(ValueError, match="'bilinear' or 'release', got 'cubic'"):
        pano.dual_fisheye_maps(8, 16, 10, 'cubic')
    with pytest.raises(ValueError, match='full sphere'):
        pano.dual_fisheye_maps(8, 16, 10, 'release', 203.0, 0.5, -0.5)


def pinhole(yaw_deg, height=120, width=160, focal=70.0, at=(0, 0, 0)):
    """A camera that looks to a yaw (left positive), 97 x 81 degrees."""
    axes = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    lidar2cam = axes @ rigid.yaw_matrix(-np.deg2rad(yaw_deg))
    lidar2cam = lidar2cam @ rigid.rigid(translation=-np.array(at))
    cam2img = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return dict(lens='pinhole', cam2img=cam2img, lidar2cam=lidar2cam, height=height, width=width)


def paint(camera):
    """The image of a sphere at infinity coloured by direction."""
    rows, cols = np.mgrid[:camera['height'], :camera['width']]
    rays = np.stack([cols, rows, np.ones_like(rows)], -1) @ np.linalg.inv(camera['cam2img']).T
    rays = rays @ camera['lidar2cam'][:3, :3]
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return np.round((rays * 0.5 + 0.5) * 255).astype(np.uint8)


def test_stitched_pinholes_show_the_painted_sphere():
    cameras = [pinhole(yaw) for yaw in (0, 90, 180, -90)]
    layers, coverage = pano.stitch_maps(cameras, 64, 256, 0.4, -0.4, radius=np.inf, feather_px=20)
    assert coverage.all()
    out = pano.stitch([paint(c) for c in cameras], layers)
    expected = (pano.equirect_rays(64, 256, 0.4, -0.4) * 0.5 + 0.5) * 255
    assert np.abs(out - expected).max() < 2.5


def test_stitching_leaves_gaps_black_and_shares_add_up_to_one():
    cameras = [pinhole(0), pinhole(60), dict(pinhole(170), height=100)]
    layers, coverage = pano.stitch_maps(cameras, 32, 128, 0.5, -0.5, feather_px=30)
    assert not coverage[:, 90:110].any() and coverage[16, 64]
    grey = [np.full((c['height'], 160, 3), 201, np.uint8) for c in cameras]
    out = pano.stitch(grey, layers)
    assert (out[coverage] == 201).all() and not out[~coverage].any()


def test_pixels_are_looked_for_only_where_a_image_may_be(monkeypatch):
    """The blocks that are left out change nothing."""
    cameras = [pinhole(20, at=(0.5, 0, 0)), pinhole(70), pinhole(-110, focal=150.0)]
    for camera in cameras[1:]:  # tilted: corners point up and down
        camera['lidar2cam'] = rigid.yaw_matrix(0.7) @ camera['lidar2cam']

    noise = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), np.uint8)

    def stitched():
        layers, coverage = pano.stitch_maps(cameras, 60, 250, 1.5, -1.5, ground_z=-1.5)
        return coverage, layers[1][0], pano.stitch(list(noise), layers).astype(int)

    coverage, overlap, image = stitched()
    monkeypatch.setattr(pano, '_near_view',
                        lambda camera, points, inverse_depth: np.ones(points.shape[:2], bool))
    expected = stitched()
    assert 0.2 < coverage.mean() < 0.9 and overlap.size > 100
    np.testing.assert_array_equal(coverage, expected[0])
    np.testing.assert_array_equal(overlap, expected[1])
    assert np.abs(image - expected[2]).max() <= 8  # where a rounding tips: 1/32 px


def test_a_feather_fades_and_a_hard_cut_switches_in_the_middle():
    cameras = [pinhole(35), pinhole(-35)]
    black_white = [np.zeros((120, 160, 3), np.uint8), np.full((120, 160, 3), 200, np.uint8)]

    def row(**kwargs):
        maps = pano.stitch_maps(cameras, 1, 720, 0.01, -0.01, radius=np.inf, **kwargs)
        return pano.stitch(black_white, maps[0])[0, 300:420, 0].astype(int)

    assert row(feather_px=0).tolist() == [0] * 60 + [200] * 60
    soft = row(feather_px=1000)
    assert (np.diff(soft) >= 0).all() and 0 < np.diff(soft).max() < 10
    assert soft[0] == 0 and soft[60] == pytest.approx(100, abs=4) and soft[-1] == 200


def test_road_hypothesis_removes_parallax_on_the_ground():
    """A spot on the road, seen by two cameras apart, is one spot."""
    cameras = [pinhole(yaw, at=(0, side, 0)) for yaw, side in ((20, .8), (-20, -.8))]
    spot = np.array([6.0, 0.0, -1.5])
    images = []
    for camera in cameras:
        u, v, z = camera['cam2img'] @ rigid.apply(camera['lidar2cam'], spot[None])[0]
        rows, cols = np.mgrid[:120, :160]
        blob = np.exp(-((cols - u / z) ** 2 + (rows - v / z) ** 2) / 8)
        images.append(np.repeat((blob * 255).astype(np.uint8)[..., None], 3, 2))

    def spread(**kwargs):
        maps = pano.stitch_maps(cameras, 128, 512, .7, -.7, feather_px=20, **kwargs)
        rows, cols = np.nonzero(pano.stitch(images, maps[0])[..., 0] > 60)
        return np.ptp(cols), cols.mean(), rows.mean()

    width, col, row = spread(ground_z=-1.5, radius=100.0)
    assert width < 12 and col == pytest.approx(255.5, abs=0.6)
    assert row == pytest.approx((.7 + np.arctan2(1.5, 6)) / 1.4 * 128 - 0.5, abs=0.7)
    assert spread(radius=100.0)[0] > 20


# Two MEI fisheyes back to back: KITTI-360's published calibration ------------------------------

BETWEEN = (-0.06, 0.0, 0.235)


@pytest.mark.parametrize('theta_max, radius, uncovered, twice', [
    (92.5, np.inf, 0, .097), (92.5, 50, 0, .081), (92.5, 20, .0007, .054), (92.5, 10, .015, .011),
    (95, 10, 0, .096)])
def test_golden_coverage_of_the_fisheye_pair(theta_max, radius, uncovered, twice):
    layers, coverage = pano.stitch_maps([fisheye(k, theta_max) for k in (2, 3)], 256, 512,
                                        center=BETWEEN, radius=radius)
    assert 1 - coverage.mean() == pytest.approx(uncovered, abs=uncovered / 5)
    assert sum(len(layer[0]) for layer in layers[1:]) / coverage.size == pytest.approx(
        twice, abs=.004)


@pytest.mark.parametrize('feather_px', [0, 30])
def test_stitched_fisheyes_show_the_painted_sphere(feather_px):
    cameras = [fisheye(k) for k in (2, 3)]
    images = []
    for camera in cameras:
        rows, cols = np.mgrid[:1400:4, :1400:4]
        pixels = torch.tensor(np.stack([cols, rows], -1), dtype=torch.float64)
        rays = lens_of(camera).unproject(pixels, torch.ones(pixels.shape[:2]), (0, 0)).numpy()
        rays = rays @ camera['lidar2cam'][:3, :3]
        camera.update(height=350, width=350, mei={
            name: value / 4 if name[0] in 'guv' else value for name, value in MEI[
                int(camera['name'][-1])].items()})
        images.append(np.round((rays * 0.5 + 0.5) * 255).astype(np.uint8))
    maps = pano.stitch_maps(cameras, 128, 256, center=BETWEEN, radius=np.inf,
                            feather_px=feather_px)
    out = pano.stitch(images, maps[0])
    expected = (pano.equirect_rays(128, 256) * 0.5 + 0.5) * 255
    assert maps[1].all() and np.abs(out - expected).max() < 2.5
    assert len(maps[0]) == (1 if feather_px == 0 else 2)


def test_convention_upright_fisheyes_are_what_the_panorama_is_made_of():
    """A direction's pixel in the upright view holds the native pixel that the panorama takes."""
    side = 64
    native = np.stack(np.mgrid[:side, :2 * side], -1).astype(np.float64)
    views = pano.dual_fisheye_views(native)
    rig = CameraRig.from_dicts([pano.dual_fisheye_cameras(np.eye(4), side)])
    rays = np.random.default_rng(0).normal(size=(200, 3))
    pixel, _, valid = rig.project(torch.from_numpy(rays).float())
    at = pano.dual_fisheye_pixels(rays, side)
    for n, view in enumerate((rays[:, 0] < 0).astype(int)):
        col, row = pixel[0, view, n].double().numpy()
        assert valid[0, view, n]
        (r, c), (down, right) = map(int, (row, col)), (row % 1, col % 1)
        image = views[view]
        above, below = (image[i, c] * (1 - right) + image[i, c + 1] * right for i in (r, r + 1))
        np.testing.assert_allclose(above * (1 - down) + below * down, at[n], atol=1e-4)


def test_both_fisheyes_see_the_sides_and_one_sees_ahead():
    rig = CameraRig.from_dicts([pano.dual_fisheye_cameras(np.eye(4), 64)])
    valid = rig.project(torch.tensor([[5.0, 0, 0], [-5, 0, 0], [0, 5, 0], [0, -5, 1]]))[2]
    assert valid[0].tolist() == [[True, False, True, True], [False, True, True, True]]
    lifted = np.eye(4)
    lifted[2, 3] = -1.5  # the camera is 1.5 m above the LiDAR
    rig = CameraRig.from_dicts([pano.dual_fisheye_cameras(lifted, 64)])
    pixel = rig.project(torch.tensor([[4.0, 0, 1.5]]))[0]
    assert pixel[0, 0, 0].tolist() == pytest.approx([31.5, 31.5])
