"""Depth of scans in the cells of feature maps."""
import math

import numpy as np
import pytest
import torch

from mmdet3d_plugin.geometry import CameraRig
from mmdet3d_plugin.geometry.depth import depth_bins, depth_maps, num_bins
from mmdet3d_plugin.geometry.rigid import yaw_matrix

INTRINSICS = [[10.0, 0, 15.5], [0, 10, 7.5], [0, 0, 1]]


def rig(batch=1, **aug):
    """Pinholes at the origin that look along z; the second one is turned by 180 degrees."""
    back = np.diag([-1.0, 1, -1, 1])
    return CameraRig.from_dicts([[
        dict(name=str(n), lens='pinhole', height=16, width=32, cam2img=INTRINSICS,
             lidar2cam=pose, **aug) for n, pose in enumerate((np.eye(4), back))]] * batch)


def points_at(*pixels):
    """Points at (column, row, depth) of the first camera."""
    return torch.tensor([[(u - 15.5) * z / 10, (v - 7.5) * z / 10, z] for u, v, z in pixels])


def test_the_nearest_point_of_a_cell_counts():
    scan = points_at((3.4, 3.4, 9.0), (0.1, 0.2, 4.0), (2, 2, 5.0), (4, 0, 7.0), (31, 15, 2.5))
    maps = depth_maps([scan], rig(), (4, 8))
    assert maps.shape == (1, 2, 4, 8) and maps.dtype == torch.float32
    expected = torch.zeros(4, 8)
    expected[0, 0], expected[0, 1], expected[3, 7] = 4.0, 7.0, 2.5
    assert torch.equal(maps[0, 0], expected)
    assert torch.equal(maps[0, 1], torch.zeros(4, 8))


@pytest.mark.parametrize('cell, pixel, expected', [
    ('center', 3.49, 0), ('center', 3.51, 1), ('floor', 3.99, 0), ('floor', 4.0, 1),
    ('floor', -0.9, 0), ('floor', 31.9, 7), ('round', -1.9, 0), ('round', 1.9, 0),
    ('round', 2.1, 1), ('round', 6.1, 2)])
def test_the_cell_of_a_pixel(cell, pixel, expected):
    maps = depth_maps([points_at((pixel, 1, 3.0))], rig(), (4, 8), cell)
    assert maps[0, 0].nonzero().tolist() == [[0, expected]]


def test_rounded_positions_beyond_the_last_cell_are_left_out():
    assert depth_maps([points_at((31, 1, 3.0))], rig(), (4, 8), 'round').sum() == 0
    with pytest.raises(ValueError, match="cell: expected one of 'center', 'floor', 'round'"):
        depth_maps([points_at((1, 1, 1))], rig(), (4, 8), 'nearest')


def test_points_near_the_border_of_the_raw_image_may_be_left_out():
    """An image of 32 x 16 whose left half shows nothing: it is shifted by 16 columns."""
    shifted = rig(img_aug=np.array([[1.0, 0, 16], [0, 1, 0], [0, 0, 1]]))
    scan = points_at((-3, 1.5, 3.0), (0.5, 5, 4.0), (1.5, 9, 5.0), (9, 0.9, 6.0), (9, 13.2, 7.0),
                     (9, 15.1, 8.0))
    found = [depth_maps([scan], shifted, (4, 8), border=border)[0, 0] for border in (None, 1.0)]
    assert sorted(found[0].unique().tolist()) == pytest.approx([0, 3, 4, 5, 6, 7])
    assert sorted(found[1].unique().tolist()) == pytest.approx([0, 5, 7])


def test_points_outside_the_range_do_not_hide_others():
    scan = points_at((1, 1, 0.5), (1, 1, 4.0), (9, 1, 60.0))
    maps = depth_maps([scan], rig(), (4, 8), depth_range=(1.0, 60.0))
    assert maps[0, 0, 0].tolist() == [4, 0, 0, 0, 0, 0, 0, 0]


def test_each_sample_has_its_geometry_and_an_empty_scan_is_zero():
    scan = points_at((1, 1, 4.0))
    flipped = [[16 / 32, 0, 0], [0, 1, 0], [0, 0, 1]]
    two = CameraRig.from_dicts([[
        dict(name='0', lens='pinhole', height=16, width=32, cam2img=INTRINSICS,
             lidar2cam=np.eye(4), img_aug=aug)] for aug in (np.eye(3), flipped)])
    maps = depth_maps([scan, points_at((9, 1, 4.0))], two, (4, 8))
    assert [m.nonzero().tolist() for m in maps] == [[[0, 0, 0]], [[0, 0, 1]]]
    assert depth_maps([torch.zeros(0, 4)], rig(), (4, 8)).sum() == 0


def test_the_map_follows_the_bev_augmentation():
    generator = torch.Generator().manual_seed(0)
    scan = torch.randn(200, 3, generator=generator) * 4
    aug = yaw_matrix(0.4) @ np.diag([1.1, 1.1, 1.1, 1])
    moved = (torch.cat([scan, torch.ones(200, 1)], 1) @ torch.tensor(aug, dtype=torch.float32).T)
    plain, cameras = rig(), [[dict(name=str(n), lens='pinhole', height=16, width=32,
                                   cam2img=INTRINSICS, lidar2cam=pose)
                              for n, pose in enumerate((np.eye(4), np.diag([-1.0, 1, -1, 1])))]]
    turned = CameraRig.from_dicts(cameras, [aug])
    torch.testing.assert_close(depth_maps([moved[:, :3]], turned, (4, 8)),
                               depth_maps([scan], plain, (4, 8)), rtol=1e-5, atol=1e-5)


def test_bins_of_both_releases():
    depth = torch.tensor([2.0, 2.49, 57.99, 58.0, 1.9, 0.0])
    index, inside = depth_bins(depth, (2.0, 58.0, 0.5))
    assert index[:3].tolist() == [0, 0, 111]
    assert inside.tolist() == [True, True, True, False, False, False]
    index, inside = depth_bins(torch.tensor([1.0, 1.99, 59.5, 60.0, 0.99]), (1.0, 60.0, 1.0))
    assert index[:3].tolist() == [0, 0, 58] and inside.tolist() == [True] * 3 + [False] * 2
    assert num_bins((2.0, 58.0, 0.5)) == 112 and num_bins((1.0, 60.0, 1.0)) == 59
    assert math.isclose(float(torch.arange(2.0, 58.0, 0.5)[-1]), 57.5)
