"""Areas and lines of a map on the BEV grid, by cell centres."""
import itertools
import math

import numpy as np
import pytest
import shapely

from mmdet3d_plugin.geometry import BEVGrid, rigid
from mmdet3d_plugin.geometry.map_raster import MapLayer, rasterize_map

GRID = BEVGrid((-12, 12), (-9, 9), 0.75, rows='+x', cols='+y')
ORIENTATIONS = [(f'{s}{a}', f'{t}{b}') for a, b in ('xy', 'yx')
                for s, t in itertools.product('+-', '+-')]


def layer(*shapes, **kwargs):
    out = np.empty(len(shapes), object)
    out[:] = shapes
    return MapLayer(out, **kwargs)


def blobs(rng, count, holes=True):
    """Star-shaped polygons, some with a hole, in both orientations, around (700, 400)."""
    shapes = []
    for _ in range(count):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))[::rng.choice([-1, 1])]
        star = np.stack([np.cos(angle), np.sin(angle)], -1) * rng.uniform(2, 8, (9, 1))
        ring = star + rng.uniform(-14, 14, 2) + (700, 400)
        hole = [(ring - ring.mean(0)) * 0.3 + ring.mean(0)] if holes else []
        shape = shapely.Polygon(ring, hole)
        shapes.append(shape if shape.is_valid else shapely.Polygon(ring).convex_hull)
    return shapes


def lines(rng, count):
    return [shapely.LineString(rng.uniform(-16, 16, (4, 2)) + (700, 400)) for _ in range(count)]


def pose(rng):
    return rigid.rigid(rigid.yaw_matrix(rng.uniform(-np.pi, np.pi))[:3, :3],
                       (*rng.uniform(-3, 3, 2) + (700, 400), 1.8))


def motion(rng, scale=1.1):
    """Turn, mirror or not, scale and shift."""
    turn = rigid.yaw_matrix(rng.uniform(-np.pi, np.pi)) @ np.diag([1, rng.choice([-1, 1]), 1, 1])
    turn[:3, 3] = rng.normal(0, 0.5, 3)
    turn[:3] *= scale
    return turn


def centres_on_map(grid, frame2map, bev_aug):
    centres = grid.centers_2d().numpy()
    points = np.concatenate([centres, np.zeros_like(centres[..., :1])], -1)
    return rigid.apply(frame2map @ np.linalg.inv(bev_aug), points)[..., :2]


@pytest.mark.parametrize('seed', range(8))
def test_cells_are_those_whose_centres_are_inside(seed):
    """Against a look-up of every centre, in every orientation, under every augmentation."""
    rng = np.random.default_rng(seed)
    areas, dividers = blobs(rng, 6), lines(rng, 4)
    frame2map, bev_aug = pose(rng), motion(rng, rng.uniform(0.9, 1.1))
    rows, cols = ORIENTATIONS[seed]
    grid = BEVGrid(GRID.x_range, GRID.y_range, GRID.resolution, rows=rows, cols=cols)
    masks = rasterize_map([[layer(*areas)], [layer(*dividers, lines=True)]], frame2map, grid,
                          line_width=1.2, bev_aug=bev_aug)
    places = shapely.points(centres_on_map(grid, frame2map, bev_aug))
    inside = shapely.contains(shapely.union_all(areas), places)
    near = shapely.distance(shapely.union_all(dividers), places) <= 0.6
    assert masks.dtype == np.float32 and masks.shape == (2, *grid.shape)
    np.testing.assert_array_equal(masks, [inside, near])
    assert 50 < inside.sum() < inside.size - 50 and near.sum() > 30


@pytest.mark.parametrize('method, cells', [('exact', 40), ('devkit', 41)])
def test_convention_size_of_a_square(method, cells):
    grid = BEVGrid((-50, 50), (-50, 50), 0.5, rows='+x', cols='+y')
    square = layer(shapely.box(-10, -10, 10, 10))
    mask = rasterize_map([[square]], np.eye(4), grid, method)[0]
    assert mask.sum() == cells ** 2
    assert mask[80:80 + cells, 80:80 + cells].all()


@pytest.mark.parametrize('method, width, cells', [
    ('exact', 1.0, slice(99, 101)), ('exact', 0.5, slice(99, 101)), ('exact', 0.49, slice(0)),
    ('devkit', 1.0, slice(99, 102))])
def test_convention_width_of_a_line(method, width, cells):
    """A line along x through the origin, in cells of 0.5 m; OpenCV's 2 cells are 3."""
    line = layer(shapely.LineString([(-60, 0), (60, 0)]), lines=True)
    expected = np.zeros((200, 200))
    expected[:, cells] = 1
    for axes, wanted in (('xy', expected), ('yx', expected.T)):
        grid = BEVGrid((-50, 50), (-50, 50), 0.5, rows=f'+{axes[0]}', cols=f'+{axes[1]}')
        mask = rasterize_map([[line]], np.eye(4), grid, method, line_width=width)[0]
        np.testing.assert_array_equal(mask, wanted)


@pytest.mark.parametrize('method', ['exact', 'devkit'])
@pytest.mark.parametrize('rows, cols', ORIENTATIONS)
def test_convention_orientation(rows, cols, method):
    """A patch ahead on the left is where the grid says."""
    grid = BEVGrid((-12, 12), (-9, 9), 0.75, rows=rows, cols=cols)
    mask = rasterize_map([[layer(shapely.box(6, 3, 9, 6))]], np.eye(4), grid, method)[0]
    centre = grid.to_pixel(np.array([7.5, 4.5])).astype(int)
    assert mask[tuple(centre)] == 1
    found = np.argwhere(mask).mean(0) + 0.5
    shift = 0 if method == 'exact' else 0.5  # the devkit's squares are a cell larger
    np.testing.assert_allclose(np.abs(found - grid.to_pixel(np.array([7.5, 4.5]))), shift)


def test_pose_and_augmentation_are_one():
    """Turning the car's frame by the augmentation, or the pose back by it, is the same."""
    rng = np.random.default_rng(3)
    classes = [[layer(*blobs(rng, 6)), layer(*lines(rng, 3), lines=True)]]
    frame2map, turn = pose(rng), rigid.yaw_matrix(0.7)
    plain = rasterize_map(classes, frame2map, GRID)
    turned = rasterize_map(classes, frame2map @ turn, GRID, bev_aug=turn)
    np.testing.assert_array_equal(turned, plain)
    for flip, axis in ((np.diag([-1., 1, 1, 1]), 1), (np.diag([1., -1, 1, 1]), 2)):
        flipped = rasterize_map(classes, frame2map, GRID, bev_aug=flip)
        np.testing.assert_array_equal(flipped, np.flip(plain, axis))
    square = BEVGrid((-9, 9), (-9, 9), 0.75, rows='+x', cols='+y')
    quarter = rasterize_map(classes, frame2map, square, bev_aug=rigid.yaw_matrix(np.pi / 2))
    np.testing.assert_array_equal(
        quarter, np.rot90(rasterize_map(classes, frame2map, square), 1, (1, 2)))


@pytest.mark.parametrize('method', ['exact', 'devkit'])
def test_scale(method):
    """With the scale, twice as large is what coarser cells would see; without it, as without."""
    rng = np.random.default_rng(4)
    classes, frame2map = [[layer(*blobs(rng, 6))]], pose(rng)
    larger = np.diag([2.0, 2, 2, 1])
    grid = BEVGrid((-12, 12), (-12, 12), 0.5, rows='+x', cols='+y')
    half = BEVGrid((-6, 6), (-6, 6), 0.25, rows='+x', cols='+y')
    scaled = rasterize_map(classes, frame2map, grid, method, bev_aug=larger)
    np.testing.assert_array_equal(scaled, rasterize_map(classes, frame2map, half, method))
    ignored = rasterize_map(classes, frame2map, grid, method, bev_aug=larger, scale_aware=False)
    np.testing.assert_array_equal(ignored, rasterize_map(classes, frame2map, grid, method))
    assert (scaled != ignored).any()


def test_tilt_and_height_do_not_count():
    rng = np.random.default_rng(5)
    classes, frame2map = [[layer(*blobs(rng, 6))]], pose(rng)
    angle = 0.02
    tilt = rigid.rigid([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)],
                        [0, math.sin(angle), math.cos(angle)]], (0, 0, 3))
    np.testing.assert_array_equal(rasterize_map(classes, frame2map @ tilt, GRID),
                                  rasterize_map(classes, frame2map, GRID))


def test_invalid_and_empty_shapes():
    """A bow tie is two triangles, for the devkit nothing unless it is drivable area."""
    bow = shapely.Polygon([(-6, -6), (6, 6), (6, -6), (-6, 6)])
    shapes = bow, shapely.Polygon()
    masks = rasterize_map([[layer(*shapes)], [layer()]], np.eye(4), GRID)
    x, y = np.moveaxis(GRID.centers_2d().numpy(), -1, 0)
    inside = (np.abs(y) < np.abs(x)) & (np.abs(x) < 6)
    strictly = (np.abs(y) != np.abs(x)) & (np.abs(x) != 6)
    np.testing.assert_array_equal(masks[0][strictly], inside[strictly])
    assert inside.any() and not masks[1].any()
    lobes = shapely.box(-6, -6, 0, 6), shapely.box(0, -6, 6, 6)
    joined = rasterize_map([[layer(bow, *lobes)]], np.eye(4), GRID)[0]
    np.testing.assert_array_equal(joined[strictly], ((np.abs(x) < 6) & (np.abs(y) < 6))[strictly])
    drawn = rasterize_map([[layer(*shapes)], [layer(*shapes, keep_invalid=True)]], np.eye(4), GRID,
                          'devkit')
    assert not drawn[0].any() and drawn[1].any()


def test_a_shape_that_only_touches_the_patch_is_not_drawn():
    grid = BEVGrid((-4, 4), (-4, 4), 1.0, rows='+x', cols='+y')
    touching = layer(shapely.box(4, -2, 6, 2), shapely.box(4, 4, 5, 5))
    crossing = layer(shapely.Polygon([(4, -3), (2, -1), (4, -1), (4, 1), (6, 1), (6, -3)]))
    lines = layer(shapely.LineString([(4, 4), (6, 6)]), lines=True)
    for method in ('exact', 'devkit'):
        masks = rasterize_map([[touching, lines], [crossing]], np.eye(4), grid, method)
        assert not masks[0].any() and masks[1].any()


def test_unknown_method():
    with pytest.raises(ValueError, match="'exact' or 'devkit', got 'cv2'"):
        rasterize_map([], np.eye(4), GRID, 'cv2')
