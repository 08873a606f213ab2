import numpy as np
import pytest

from mmdet3d_plugin.geometry import lidar_image as li

# Captured by running the KD360 release on the frames of `synthetic`:
# frame -> channel -> mean, [0, 0], [100, 500], [241, 2047] of the 242x2048 image
GOLDEN = {
    0: dict(range=(.499846, .974250, .510940, .948925), ambient=(.520993, .721046, .261277, 0),
            intensity=(.508780, .496802, .649061, .802829),
            reflectivity=(.404083, 0, .330644, .705419)),
    3: dict(range=(.500374, .406045, .225816, .564688),
            ambient=(.519700, .619784, .412996, .781163),
            intensity=(.508135, .282772, .401025, .980615),
            reflectivity=(.403338, .591236, .516168, .437617)),
    8: dict(range=(.499457, .991608, .784483, .119376),
            ambient=(.524170, .658434, .559104, .562241),
            intensity=(.507894, .547021, .452594, .232904),
            reflectivity=(.405237, .674014, .476472, .244875)),
}
EXPOSURE = {0: (237.1598, 1492.9081), 3: (236.6199, 1493.3252), 8: (235.0648, 1494.3004)}
DARK = {0: (18.5856, 60.4993, 80.6848, 154.6630), 8: (22.4133, 62.8052, 83.4961, 153.1301)}
SHIFT = np.resize([64, 21, -21, -64], 128)


def synthetic(frame):
    rng, n = np.random.RandomState(frame), 128 * 2048
    intensity = rng.gamma(2, 100, n)
    reflectivity = rng.randint(0, 255, n)
    ambient = rng.gamma(3, 300, n) + 20 * (np.arange(n) // 2048 % 7)
    distance = rng.randint(0, 120000, n)
    raw = dict(intensity=intensity, reflectivity=reflectivity, ambient=ambient, range=distance)
    raw = {k: li.destagger(v.astype(np.float32).reshape(128, 2048), SHIFT) for k, v in raw.items()}
    raw['range'] = raw['range'] / 1000
    return raw


def check(images, expected):
    for name, (mean, first, middle, last) in expected.items():
        image = li.resize(images[name], 242, 2048)
        got = (image.mean(dtype=np.float64), image[0, 0], image[100, 500], image[241, 2047])
        np.testing.assert_allclose(got, (mean, first, middle, last), atol=2e-6, err_msg=name)


def test_stateful_processor_equals_the_release():
    process = li.LiDARImageProcessor(stateful=True)
    for frame in range(9):
        images = {name: process(name, raw) for name, raw in synthetic(frame).items()}
        if frame in GOLDEN:
            check(images, GOLDEN[frame])
            np.testing.assert_allclose(process.exposure['ambient'].smooth, EXPOSURE[frame],
                                       atol=1e-4)
        if frame in DARK:
            np.testing.assert_allclose(process.beams.dark[[1, 2, 3, 127]], DARK[frame], atol=1e-4)


def test_default_processor_is_a_function_of_the_frame_alone():
    process = li.LiDARImageProcessor()
    first = {name: process(name, raw) for name, raw in synthetic(0).items()}
    check(first, GOLDEN[0])                                   # the release's first call
    process('ambient', synthetic(3)['ambient'])
    again = process('ambient', synthetic(0)['ambient'])
    np.testing.assert_array_equal(again, first['ambient'])


def test_convention_destagger_direction():
    scan = np.tile(np.arange(2048), (2, 1))
    out = li.destagger(scan, [64, -64])
    assert out[0, 0] == 1984 and out[1, 0] == 64
    np.testing.assert_array_equal(li.stagger(out, [64, -64]), scan)
    with pytest.raises(ValueError, match='3 entries, the scan 2 rows'):
        li.destagger(scan, [1, 2, 3])


@pytest.mark.parametrize('stateful', [False, True])
@pytest.mark.parametrize('value', [0, 7])
def test_empty_and_uniform_frames_stay_finite(stateful, value):
    process = li.LiDARImageProcessor(stateful)
    for name in process.channels:
        out = process(name, np.full((8, 64), value, np.float32))
        assert out.shape == (8, 64) and np.isfinite(out).all() and 0 <= out.min() <= out.max() <= 1
        assert value or not out.any()


def test_stateful_exposure_survives_an_empty_first_frame():
    process = li.LiDARImageProcessor(stateful=True)
    assert not process('intensity', np.zeros((8, 64), np.float32)).any()
    ramp = np.arange(512, dtype=np.float32).reshape(8, 64)
    np.testing.assert_array_equal(process('intensity', ramp),
                                  li.LiDARImageProcessor()('intensity', ramp))


def test_convention_exposure_maps_the_90th_percentile_to_0_8():
    ramp = np.arange(1, 4001, dtype=np.float32).reshape(40, 100)
    low, high = li.exposure_limits(ramp)
    out = li.AutoExposure()(ramp)
    mapped = np.interp([low, high], ramp.ravel(), out.ravel())
    np.testing.assert_allclose(mapped, [0, 0.8], atol=1e-3)


def test_range_by_frame_maximum_or_by_a_fixed_range():
    image = np.array([[0, 10, 40.]])
    np.testing.assert_allclose(li.normalise_range(image), [[0, .25, 1]])
    np.testing.assert_allclose(li.normalise_range(image, 20.), [[0, .5, 1]])


def test_unknown_channel_is_named():
    with pytest.raises(ValueError, match="unknown LiDAR image channel 'colour'"):
        li.LiDARImageProcessor()('colour', np.zeros((2, 2)))


def test_convention_spherical_image():
    fov = np.deg2rad(10), np.deg2rad(-10)
    points = np.array([[10, 0, 0.1], [20, 0, 0.1], [0, -5, 0.1], [0, 5, -0.1], [-5, 0.1, 0],
                       [0, 0, 0.]])
    image = li.spherical_image(points, np.arange(1, 7)[:, None], 2, 8, *fov)[0]
    expected = np.zeros((2, 8))
    expected[0, 4] = 1      # forward is right of the centre line; the nearer of two points wins
    expected[0, 6] = 3      # right
    expected[1, 2] = 4      # left, below the horizon
    expected[1, 0] = 5      # just left of backward: first column
    np.testing.assert_array_equal(image, expected)


def test_the_nearest_point_of_a_pixel_wins_and_of_equals_the_first():
    points = np.random.default_rng(0).normal(0, 9, (2000, 3)).astype(np.float32)
    points[500:800] = points[1000:1300]
    points[20:30] = 0
    best = {}
    for n, (x, y, z) in enumerate(points.astype(np.float64)):
        distance = np.sqrt(x * x + y * y + z * z)
        row = int(np.floor((0.5 - np.arctan2(z, np.hypot(x, y))) / 1.0 * 10))
        col = int(np.floor((1 - np.arctan2(y, x) / np.pi) / 2 * 20)) % 20
        nearest = best.get((row, col), (np.inf, 0))[0]
        if distance > 0 and 0 <= row < 10 and distance < nearest - 1e-9:
            best[row, col] = distance, n
    rows, cols, index = li.spherical_indices(points, 10, 20, 0.5, -0.5)
    assert {(r, c): n for r, c, n in zip(rows, cols, index)} == {
        pixel: n for pixel, (_, n) in best.items()}
    assert len(rows) == len(best) > 150


def test_convention_ring_zero_is_the_lowest_row():
    points = np.array([[10, -.1, -3], [10, -.1, 3.]])
    image = li.spherical_image(points, np.array([[1.], [2.]]), 4, 8, 1, -1, ring=[0, 3])[0]
    assert image[3, 4] == 1 and image[0, 4] == 2


def test_fov_of_beams_gives_the_edges():
    up, down = li.fov_of_beams([1.5, 0.5, -0.5, -1.5])
    np.testing.assert_allclose(np.rad2deg([up, down]), [2, -2])


def test_single_gaps_are_closed_around_the_border_but_not_past_the_top():
    image = np.array([[[0, 2, 0, 4, 4], [3, 3, 0, 0, 3], [5, 6, 7, 8, 0.]]])
    np.testing.assert_array_equal(li.close_gaps(image)[0],
                                  [[3, 2, 3, 4, 4], [3, 3, 0, 0, 3], [5, 6, 7, 8, 6.5]])
    np.testing.assert_array_equal(li.close_gaps(image, rows=True)[0],
                                  [[0, 2, 0, 4, 4], [3, 3, 0, 6, 3], [5, 6, 7, 8, 0]])


def test_undistort_takes_a_still_world_out_of_a_moving_scan():
    """A car that goes 2 m a revolution, and one that turns by 0.2 rad, among fixed points."""
    rng = np.random.default_rng(0)
    world = np.c_[rng.uniform(-30, 30, (200, 2)), rng.uniform(-2, 2, 200)]
    world = world[np.hypot(world[:, 0], world[:, 1]) > 5]
    share = np.zeros(len(world))
    for _ in range(50):  # the point is seen when the beam meets it
        ahead = world - np.c_[-2 * share, 0 * share, 0 * share]    # car at -2 s metres
        share = np.arctan2(ahead[:, 1], ahead[:, 0]) / (2 * np.pi)
    scan = np.c_[ahead, rng.uniform(0, 1, len(world))]
    back = li.undistort(scan, [0, 0, 0, -2, 0, 0])
    np.testing.assert_allclose(back[:, :3], world, atol=1e-9)
    np.testing.assert_array_equal(back[:, 3], scan[:, 3])

    turned = li.undistort(np.array([[0, 8, 1], [8, 0, 1], [0, -8, 1]], np.float32),
                          [0, 0, 0.2, 0, 0, 0])
    expected = [[-8 * np.sin(.05), 8 * np.cos(.05), 1], [8, 0, 1],
                [-8 * np.sin(.05), -8 * np.cos(.05), 1]]
    np.testing.assert_allclose(turned, expected, atol=1e-6)
    assert turned.dtype == np.float32
