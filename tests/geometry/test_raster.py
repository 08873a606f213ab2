import hashlib

import cv2
import numpy as np
import pytest

from mmdet3d_plugin.geometry import BEVGrid, rigid
from mmdet3d_plugin.geometry.raster import _fill_polygon, rasterize

GRID = BEVGrid()
CAR = [10, 5, -1, 4.5, 1.8, 1.5, 0]

# Captured by running the KD360 release: boxes -> seg cells, row span, column span, sum of
# centerness, peak, number of centerness > 0.5, sums and largest absolute values of the offset
RELEASE = {
    'ahead': ([CAR], 40, (75, 84), (88, 91), 56.485733, (80, 90), 37, (20, 20), (5, 2)),
    'turned': ([CAR[:6] + [1.5707963]], 40, (78, 81), (85, 94), 56.485733, (80, 90), 37, (20, 20),
               (2, 5)),
    'skewed': ([[10.3, -7.6, -1, 4.5, 1.8, 1.5, 0.5]], 44, (74, 83), (111, 118), 56.485733,
               (79, 115), 37, (22, 22), (5, 4)),
    'behind': ([[-20.26, 14.74, -1, 4.2, 1.9, 1.5, -2.3]], 46, (135, 144), (65, 74), 56.485733,
               (141, 71), 37, (69, 69), (6, 6)),
    'corner': ([[49.9, 49.9, -1, 4.2, 1.9, 1.5, 0.3]], 14, (0, 4), (0, 3), 18.130936, (0, 0), 13,
               (-29, -14), (4, 3)),
    'outside': ([[53, 0, -1, 9, 2.5, 3, 0]], 24, (0, 3), (97, 102), 1.830323, (0, 100), 0,
                (-180, 12), (9, 3)),
    'overlap': ([[0, 0, -1, 4.5, 1.8, 1.5, 0], [1, 0.3, -1, 4.5, 1.8, 1.5, 0.4]], 58, (93, 104),
                (95, 102), 72.929756, None, 52, (42, 42), (8, 4)),
}


@pytest.mark.parametrize('case', RELEASE)
def test_convention_release_method_equals_the_release(case):
    boxes, cells, rows, cols, total, peak, above, sums, largest = RELEASE[case]
    out = rasterize(np.array(boxes, np.float32), [0] * len(boxes), GRID, 1, 'release')
    seg, centre, offset = out['seg'][0], out['centerness'][0], out['offset']
    r, c = np.nonzero(seg)
    assert (len(r), (r.min(), r.max()), (c.min(), c.max())) == (cells, rows, cols)
    assert centre.sum(dtype=np.float64) == pytest.approx(total, abs=2e-5)
    assert (centre > 0.5).sum() == above
    if peak:
        assert np.unravel_index(centre.argmax(), centre.shape) == peak
    else:
        assert centre[98, 99] == centre[100, 100] == 1
    assert tuple(offset.sum((1, 2))) == sums
    assert tuple(np.abs(offset).max((1, 2))) == largest
    assert not offset[:, seg == 0].any()


def test_release_fill_is_independent_of_the_installed_opencv():
    # digest of cv2.fillPoly's masks under OpenCV 4.10.0
    rng, digest = np.random.default_rng(3), hashlib.md5()
    for _ in range(4000):
        centre, (a, b), t = rng.uniform(-10, 210, 2), rng.uniform(0.5, 9, 2), rng.uniform(-4, 4)
        corners = np.array([[-a, -b], [a, -b], [a, b], [-a, b]])
        turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        polygon = (centre + corners @ turn.T).astype(np.int32)
        digest.update(_fill_polygon(polygon, (200, 200)).tobytes())
    assert digest.hexdigest() == '33e7cfdc52592f0ddbe651717922bff4'


def lift_splat(boxes, low=-50.0, resolution=0.5, cells=200):
    """The protocol on upright boxes, corner by corner; rows +x, columns +y."""
    image = np.zeros((cells, cells))
    edge, size = np.float32([low + resolution / 2] * 2), np.float32([resolution] * 2)
    for x, y, _, length, width, _, yaw in np.asarray(boxes, np.float64):
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        corners = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]]) * [length / 2, width / 2]
        corners = corners @ turn.T + [x, y]
        polygon = np.round((corners - edge + size / 2) / size).astype(np.int32)
        cv2.fillPoly(image, [np.ascontiguousarray(polygon[:, ::-1])], 1.0)
    return image


def many_boxes(count=800):
    rng = np.random.default_rng(5)
    low, high = np.transpose([(-53, 53), (-53, 53), (0, 0), (0.6, 12), (0.6, 3), (1, 2), (-4, 4)])
    return rng.uniform(low, high, (count, 7))


@pytest.mark.parametrize('rows, cols, turned', [
    ('+x', '+y', lambda image: image), ('-x', '-y', lambda image: image[::-1, ::-1]),
    ('+y', '+x', lambda image: image.T), ('-y', '+x', lambda image: image.T[::-1])])
def test_convention_lift_splat_is_that_protocol_bit_for_bit(rows, cols, turned):
    boxes, grid = many_boxes(), BEVGrid(rows=rows, cols=cols)
    for some in (*np.split(boxes, 200), boxes):
        seg = rasterize(some, [0] * len(some), grid, 1, 'lift_splat')['seg'][0]
        np.testing.assert_array_equal(seg, turned(lift_splat(some)))


def test_lift_splat_rounds_corners_and_draws_the_outline():
    """x from 7.7 to 12.3 are the edges 115 to 125, y from 4.1 to 5.9 the edges 108 to 112."""
    out = rasterize([[10, 5, -1, 4.6, 1.8, 1.5, 0]], [0], BEVGrid(rows='+x', cols='+y'), 1,
                    'lift_splat')
    rows, cols = np.nonzero(out['seg'][0])
    assert (rows.min(), rows.max(), cols.min(), cols.max(), len(rows)) == (115, 125, 108, 112, 55)
    assert rasterize([[10, 5, -1, 4.6, 1.8, 1.5, 0]], [0], GRID, 1)['seg'].sum() == 40
    assert tuple(out['offset'][:, 115, 108]) == (4.5, 1.5)
    assert (out['instances'][0][rows, cols] == 1).all()


def test_lift_splat_covers_more_than_the_boxes():
    """A box of 4.5 x 1.8 m is 32.4 cells of 0.5 m."""
    boxes = many_boxes(300)
    boxes[:, 3:5] = 4.5, 1.8
    boxes[:, :2] *= 0.9
    cells = [sum(rasterize([box], [0], GRID, 1, method)['seg'].sum() for box in boxes) / 300
             for method in ('exact', 'lift_splat')]
    assert cells[0] == pytest.approx(32.4, rel=0.02) and 43 < cells[1] < 47


def test_lift_splat_boxes_stand_upright_in_the_world():
    """A box of 4 m height leans by 0.1 rad: its bottom is 0.2 m, and its top -0.2 m, beside it."""
    up = [0.0, np.sin(0.1), np.cos(0.1)]
    grid = BEVGrid(rows='+x', cols='+y')
    out = rasterize([[10, 5, 0, 4.6, 1.4, 4.0, 0]], [0], grid, 1, 'lift_splat', up=up)
    beside = rasterize([[10, 5 - 2 * np.sin(0.1), 0, 4.6, 1.4 * np.cos(0.1), 4.0, 0]], [0], grid, 1,
                       'lift_splat')
    np.testing.assert_array_equal(out['seg'], beside['seg'])
    assert (out['seg'] != rasterize([[10, 5, 0, 4.6, 1.4, 4, 0]], [0], grid, 1, 'lift_splat')[
        'seg']).any()


@pytest.mark.parametrize('method', ['exact', 'release', 'lift_splat'])
def test_no_boxes_give_zero_maps(method):
    out = rasterize(np.zeros((0, 7)), [], GRID, 2, method)
    shapes = dict(seg=(2, 200, 200), centerness=(1, 200, 200), offset=(2, 200, 200),
                  instances=(2, 200, 200))
    assert {name: v.shape for name, v in out.items()} == shapes
    assert not any(v.any() for v in out.values())
    assert out.pop('instances').dtype == np.int32
    assert all(v.dtype == np.float32 for v in out.values())


def test_convention_exact_cell_centres_in_the_box():
    out = rasterize([[10, 5, -1, 4.0, 2.0, 1.5, 0]], [0], GRID, 1)
    rows, cols = np.nonzero(out['seg'][0])
    # x in [8, 12] is rows 76..83, y in [4, 6] columns 88..91
    assert (rows.min(), rows.max(), cols.min(), cols.max(), len(rows)) == (76, 83, 88, 91, 32)
    assert tuple(out['offset'][:, 76, 88]) == (3.5, 1.5)
    assert tuple(out['offset'][:, 83, 91]) == (-3.5, -1.5)
    assert out['offset'].sum() == 0


def test_exact_area_is_unbiased_over_positions_and_headings():
    rng = np.random.default_rng(0)
    areas = [rasterize([[*rng.uniform(-40, 40, 2), 0, 4.5, 1.8, 1.5, rng.uniform(-4, 4)]], [0],
                       GRID, 1)['seg'].sum() * 0.25 for _ in range(300)]
    assert np.mean(areas) == pytest.approx(4.5 * 1.8, rel=0.01)


def test_exact_offset_leads_every_cell_to_the_true_centre():
    box = [-20.26, 14.74, -1, 4.2, 1.9, 1.5, -2.3]
    out = rasterize([box], [0], GRID, 1)
    at = np.argwhere(out['seg'][0] > 0)
    target = GRID.from_pixel(at + 0.5 + out['offset'][:, at[:, 0], at[:, 1]].T)
    np.testing.assert_allclose(target, np.tile(box[:2], (len(at), 1)), atol=1e-5)


def test_convention_overlaps_point_to_the_nearest_centre():
    boxes = np.array([[0, 0, 0, 6, 6, 1, 0], [3, 0, 0, 6, 6, 1, 0.]])
    for order in ([0, 1], [1, 0]):
        out = rasterize(boxes[order], [0, 0], GRID, 1)
        cells = np.argwhere(out['seg'][0] > 0)
        centre = GRID.from_pixel(cells + 0.5 + out['offset'][:, cells[:, 0], cells[:, 1]].T)
        xy = GRID.from_pixel(cells + 0.5)
        expected = np.where(np.abs(xy[:, 0] - 3) < np.abs(xy[:, 0]), 3, 0)
        decided = np.abs(xy[:, 0] - 1.5) > 0.3
        np.testing.assert_allclose(centre[decided, 0], expected[decided], atol=1e-5)


@pytest.mark.parametrize('rows, cols', [('+x', '+y'), ('+y', '+x'), ('-y', '+x')])
def test_orientation_belongs_to_the_grid(rows, cols):
    other = BEVGrid((-30, 50), (-40, 20), 0.5, rows=rows, cols=cols)
    plain = BEVGrid((-30, 50), (-40, 20), 0.5)
    boxes = [[10.3, -7.6, -1, 4.5, 1.8, 1.5, 0.5], [30.1, 12.2, 0, 8, 2.5, 3, -2]]
    ours, reference = rasterize(boxes, [0, 1], other, 2), rasterize(boxes, [0, 1], plain, 2)
    centres = other.centers_2d().numpy().reshape(-1, 2)
    index = tuple(np.floor(plain.to_pixel(centres)).astype(int).T)
    for name in ('seg', 'centerness'):
        np.testing.assert_allclose(ours[name].reshape(-1, len(centres)),
                                   reference[name][(slice(None), *index)], atol=1e-6)


def test_channels_select_the_plane_and_negative_ones_are_ignored():
    boxes = np.array([CAR, [-10, 5, -1, 4.5, 1.8, 1.5, 0], [-10, -5, 0, 4, 2, 1, 0]])
    out = rasterize(boxes, [1, 0, -1], GRID, 2)
    assert out['seg'][1, 80, 90] == 1 and out['seg'][0, 120, 90] == 1
    assert out['seg'][0, 80, 90] == out['seg'][1, 120, 90] == 0
    assert not out['seg'][:, 120, 110].any() and not out['centerness'][0, 120, 110]


@pytest.mark.parametrize('method', ['exact', 'release'])
def test_instances_are_numbered_by_their_box(method):
    boxes = np.array([[-10, -5, 0, 4, 2, 1, 0], CAR, [-10, 5, -1, 4.5, 1.8, 1.5, 0], CAR])
    out = rasterize(boxes, [-1, 1, 0, 0], GRID, 2, method)
    assert out['instances'][:, 80, 90].tolist() == [4, 2]       # one place, two channels
    assert out['instances'][:, 120, 90].tolist() == [3, 0]
    np.testing.assert_array_equal(out['instances'] > 0, out['seg'] > 0)


def test_convention_instances_at_overlaps():
    boxes = np.array([[0, 0, 0, 6, 6, 1, 0], [3, 0, 0, 6, 6, 1, 0.]])
    exact, release = (rasterize(boxes, [0, 0], GRID, 1, m) for m in ('exact', 'release'))
    ahead, behind = GRID.to_pixel(np.array([[2., 0], [0.7, 0]])).astype(int)
    assert exact['instances'][0][tuple(ahead)] == 2 and exact['instances'][0][tuple(behind)] == 1
    assert release['instances'][0][tuple(behind)] == 2           # the last one drawn


def test_centerness_peaks_at_the_centre_with_sigma_three_cells():
    centre = rasterize([[10.25, 5.25, 0, 4, 2, 1, 0]], [0], GRID, 1)['centerness'][0]
    assert centre[79, 89] == 1                                # exactly a cell centre
    assert centre[79, 92] == pytest.approx(np.exp(-0.5))
    assert centre[79, 89 + 11] > 1e-3 and centre[79, 89 + 12] == 0


def test_maps_of_many_boxes_are_those_of_each_joined():
    """Overlaps: of equal distances the first box, of centerness the maximum, off-grid boxes too."""
    rng = np.random.default_rng(0)
    boxes = np.stack([*rng.uniform(-60, 60, (2, 60)), np.zeros(60), *rng.uniform(1, 9, (3, 60)),
                      rng.uniform(-4, 4, 60)], 1)
    boxes[1] = boxes[0]
    grid, channels = BEVGrid(resolution=1.0), rng.integers(0, 2, 60)
    joined = rasterize(boxes, channels, grid, 2)
    single = [rasterize(boxes[n:n + 1], channels[n:n + 1], grid, 2) for n in range(60)]
    seg, centerness, offset = (np.stack([maps[key] for maps in single])
                               for key in ('seg', 'centerness', 'offset'))
    np.testing.assert_array_equal(joined['seg'], seg.max(0))
    np.testing.assert_array_equal(joined['centerness'], centerness.max(0))
    far = np.where(seg > 0, np.linalg.norm(offset, axis=1, keepdims=True), np.inf)
    winner = far.min(1).argmin(0)
    np.testing.assert_array_equal(joined['offset'], np.take_along_axis(
        offset, winner[None, None], 0)[0])
    np.testing.assert_array_equal(joined['instances'], (far.argmin(0) + 1) * (seg.max(0) > 0))


def test_bad_options_say_what_to_do():
    with pytest.raises(ValueError, match="'lift_splat', 'exact' or 'release', got 'fast'"):
        rasterize([CAR], [0], GRID, 1, 'fast')
    with pytest.raises(ValueError, match="use method='exact'"):
        rasterize([CAR], [0], BEVGrid(rows='+y', cols='+x'), 1, 'release')


def test_points_in_boxes_agree_with_the_raster():
    boxes = np.array([[10.3, -7.6, -1, 4.5, 1.8, 1.5, 0.5], [30.1, 12.2, -1, 8, 2.5, 3, -2]])
    centres = GRID.centers_2d().numpy().reshape(-1, 2)
    points = np.concatenate([centres, np.full((len(centres), 1), -1.0)], 1)
    inside = rigid.points_in_boxes(points, boxes).any(0).reshape(GRID.shape)
    np.testing.assert_array_equal(inside, rasterize(boxes, [0, 0], GRID, 1)['seg'][0] > 0)
