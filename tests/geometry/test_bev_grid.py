import numpy as np
import pytest
import torch

from mmdet3d_plugin.geometry import BEVGrid

KD360 = BEVGrid((-50, 50), (-50, 50), 0.5, rows='-x', cols='-y')


@pytest.mark.parametrize('rows, cols, pixel', [
    ('-x', '-y', (79.6, 90.2)),
    ('+x', '+y', (120.4, 109.8)),
    ('+y', '+x', (109.8, 120.4)),
    ('-y', '+x', (90.2, 120.4)),
])
def test_convention_orientation(rows, cols, pixel):
    grid = BEVGrid((-50, 50), (-50, 50), 0.5, rows=rows, cols=cols)
    assert grid.to_pixel(np.array([10.2, 4.9])) == pytest.approx(pixel)


def test_convention_cells_span_integers_and_centres_are_halves():
    assert KD360.to_pixel(np.array([50.0, 50.0])).tolist() == [0.0, 0.0]
    assert KD360.centers_2d()[0, 0].tolist() == [49.75, 49.75]
    assert KD360.to_pixel(KD360.centers_2d())[7, 150].tolist() == [7.5, 150.5]


def test_pixel_round_trip_for_every_orientation():
    xy = torch.randn(50, 2, dtype=torch.float64) * 30
    for rows, cols in (('-x', '-y'), ('+x', '-y'), ('-y', '-x'), ('+y', '+x')):
        grid = BEVGrid((-20, 44), (-32, 32), 0.25, rows=rows, cols=cols)
        torch.testing.assert_close(grid.from_pixel(grid.to_pixel(xy)), xy)


def test_shape_of_a_non_square_grid_follows_the_orientation():
    assert BEVGrid((0, 30), (-10, 10), 0.5, rows='-x', cols='-y').shape == (60, 40)
    assert BEVGrid((0, 30), (-10, 10), 0.5, rows='+y', cols='+x').shape == (40, 60)


def test_golden_voxelisation_of_the_release():
    # The release's index order is (z forward, y up, x left) before it flips rows and columns.
    grid = KD360.with_levels((-2, 2), 8, '+z')
    points = torch.tensor([[0, 0, 0], [10.2, 5.3, -1.2], [50, -50, 2], [-50, 50, -2], [50.01, 0, 0],
                           [3, -4, 1.99], [3, -4, 2.01]])
    index, inside = grid.to_index(points)
    assert inside.tolist() == [True, True, True, True, False, True, False]
    released = torch.tensor([[100, 4, 100], [120, 1, 110], [199, 7, 0], [0, 0, 199], [106, 7, 92]])
    expected = torch.stack([released[:, 1], 199 - released[:, 0], 199 - released[:, 2]], -1)
    assert index[inside].tolist() == expected.tolist()


def test_convention_borders_belong_to_the_cell_further_along_the_positive_axis():
    for axis, row in (('-x', 79), ('+x', 120)):
        grid = BEVGrid((-50, 50), (-50, 50), 0.5, rows=axis, cols='-y')
        index, _ = grid.to_index(torch.tensor([[10.0, 0.1]]))
        assert index[0, 0] == row


def test_parity_truncation_pulls_the_cell_below_the_range_inside():
    point = torch.tensor([[-50.2, 0.1]])
    assert not KD360.to_index(point)[1].item()
    index, inside = KD360.to_index(point, rounding='trunc')
    assert inside.item() and index[0, 0] == 199


def test_level_order():
    down = KD360.with_levels((-6, 4), 8, '-z').centers()
    assert down[:, 0, 0, 2].tolist() == [3.375, 2.125, 0.875, -0.375, -1.625, -2.875, -4.125,
                                         -5.375]
    up = KD360.with_levels((-2, 2), 8, '+z').centers()
    assert up[:, 0, 0, 2].tolist() == [-1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75]


def test_window_is_the_centred_square():
    assert KD360.window(50) == (slice(50, 150), slice(50, 150))
    assert KD360.window(20) == (slice(80, 120), slice(80, 120))
    ahead = BEVGrid((-10, 40), (-25, 25), 0.5, rows='-x', cols='-y')
    assert ahead.window(20) == (slice(60, 100), slice(30, 70))


@pytest.mark.parametrize('kwargs, message', [
    (dict(resolution=0.3), 'not a positive whole number'),
    (dict(x_range=(5, -5)), 'not a positive whole number'),
    (dict(rows='x'), 'BEVGrid.rows'),
    (dict(rows='-y'), 'follow one axis'),
    (dict(z_range=(-2, 2)), 'belong together'),
])
def test_bad_grids_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        BEVGrid(**kwargs)


def test_window_off_the_cell_borders_is_refused():
    with pytest.raises(ValueError, match='choose a side'):
        KD360.window(20.3)
    with pytest.raises(ValueError, match='choose a side'):
        KD360.window(101)


def test_a_cell_count_is_rounded_not_truncated():
    assert BEVGrid((0, 0.3), (0, 0.3), 0.1, rows='+x', cols='+y').shape == (3, 3)
