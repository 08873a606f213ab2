import math

import numpy as np
import pytest
import torch

from mmdet3d_plugin.geometry import (
    BEVGrid,
    CameraRig,
    build_pull_map,
    occupancy,
    occupied_voxels,
    pull_dense,
    pull_occupied,
    sample_features,
)

GRID = BEVGrid((-8, 8), (-8, 8), 1.0)


def rig(views=1, fov=90.0, height=64, width=128, yaw=0.0):
    lidar2cam = np.eye(4)
    lidar2cam[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    camera = dict(name='p', lens='equirect', lidar2cam=lidar2cam, height=height, width=width,
                  fov_up=math.radians(fov), fov_down=-math.radians(fov))
    return CameraRig.from_dicts([[camera] * views])


def test_golden_sampling_at_occupied_voxels():
    grid = BEVGrid().with_levels((-2, 2), 8, '+z')
    features = (torch.arange(2 * 31 * 256) / 1000).reshape(1, 1, 2, 31, 256)
    points = torch.tensor([[0, 0, 0], [10.2, 5.3, -1.2], [50, -50, 2], [-50, 50, -2], [50.01, 0, 0],
                           [3, -4, 1.99], [3, -4, 2.01]])
    occupied = occupied_voxels(points, grid)
    assert len(occupied) == 5
    pull = build_pull_map(grid, rig(fov=22.5, height=242, width=2048), bounds=False)
    out = pull_occupied(features, pull, [occupied], (8, 200, 200)).reshape(2, 8, 200, 200)
    golden = {(0, 7, 199): (3.74822, 11.68422), (79, 1, 89): (5.04069, 12.97669),
              (93, 7, 107): (0.57662, 8.51262), (199, 0, 0): (4.12278, 12.05878)}
    for (row, level, col), expected in golden.items():
        assert out[:, level, row, col].tolist() == pytest.approx(expected, abs=2e-4)
    assert out.abs().sum(0).gt(0).sum() == 4  # the origin's voxel lies 45 degrees off: zero


def test_dense_pull_equals_the_five_dimensional_sampler_and_its_permutation():
    grid = GRID.with_levels((-4, 4), 4, '-z')
    features = torch.randn(2, 1, 5, 8, 16, requires_grad=True)
    pull = build_pull_map(grid, rig(), bounds=False)
    ours = pull_dense(features, pull, (4, 16, 16))
    # The plain order: a volume of depth 1, sampled at (u, v, 0) in (row, level, column) order,
    # then folded with channel index c * levels + level.
    position = pull.position.reshape(1, 4, 16, 16, 2).permute(0, 2, 1, 3, 4)
    position = torch.cat([position, torch.zeros_like(position[..., :1])], -1)
    volume = torch.nn.functional.grid_sample(
        features[:, 0, :, None], position.expand(2, -1, -1, -1, -1), align_corners=False)
    plain = volume.permute(0, 1, 3, 2, 4).flatten(1, 2)
    torch.testing.assert_close(ours, plain)
    weight = torch.randn_like(plain)
    torch.testing.assert_close(*(torch.autograd.grad((x * weight).sum(), features)[0]
                                 for x in (ours, plain)))


def test_occupied_pull_equals_the_dense_one_there_and_is_zero_elsewhere():
    grid = GRID.with_levels((-4, 4), 4, '+z')
    features = torch.randn(2, 1, 3, 8, 16)
    pull = build_pull_map(grid, rig())
    clouds = [torch.randn(200, 3) * 4, torch.zeros(0, 3)]
    occupied = [occupied_voxels(cloud, grid) for cloud in clouds]
    sparse = pull_occupied(features, pull, occupied, (4, 16, 16)).reshape(2, 3, -1)
    dense = pull_dense(features, pull, (4, 16, 16)).reshape(2, 3, -1)
    torch.testing.assert_close(sparse[0][:, occupied[0]], dense[0][:, occupied[0]])
    assert sparse[0].abs().sum(0).gt(0).sum() == len(occupied[0]) and not sparse[1].any()


@pytest.mark.parametrize('views, fov', [(1, 90), (2, 90), (2, 30)])
def test_masking_equals_sampling_the_occupied_voxels_alone(views, fov):
    grid = GRID.with_levels((-4, 4), 4, '+z')
    features = torch.randn(2, views, 3, 8, 16, dtype=torch.double, requires_grad=True)
    pull = build_pull_map(grid, rig(views, fov))
    assert (pull.seen is None) == (fov == 90)
    clouds = [torch.randn(200, 3) * 4, torch.full((5, 3), 99.0)]
    masks = torch.stack([occupancy(cloud, grid) for cloud in clouds])
    assert masks.sum(1).tolist() == [len(occupied_voxels(clouds[0], grid)), 0]
    sparse = pull_occupied(features, pull, [mask.nonzero()[:, 0] for mask in masks], (4, 16, 16))
    masked = pull_dense(features, pull.only(masks), (4, 16, 16))
    torch.testing.assert_close(masked, sparse)
    grad = torch.randn_like(sparse)
    torch.testing.assert_close(*(torch.autograd.grad(out, features, grad)[0]
                                 for out in (masked, sparse)))


def test_wrapped_sampling_commutes_with_turning_the_panorama():
    features = torch.randn(1, 2, 6, 12)
    position = torch.rand(1, 1, 40, 2) * 2 - 1
    turned = position.clone()
    turned[..., 0] = (position[..., 0] + 2 * 5 / 12 + 1) % 2 - 1  # five columns to the right
    torch.testing.assert_close(
        sample_features(features.roll(5, -1), turned, wrap=True, padding_mode='border'),
        sample_features(features, position, wrap=True, padding_mode='border'))


def test_without_wrap_the_seam_fades_as_in_the_release():
    ones = torch.ones(1, 1, 4, 8)
    seam = torch.tensor([[[[-1.0, 0.0], [0.0, 0.0]]]])
    assert sample_features(ones, seam).flatten().tolist() == [0.5, 1.0]
    assert sample_features(ones, seam, wrap=True).flatten().tolist() == [1.0, 1.0]


def test_views_are_averaged_where_they_see():
    grid = GRID.with_levels((-1, 1), 1)
    cam2img = np.array([[32, 0, 31.5], [0, 32, 31.5], [0, 0, 1]])
    ahead = np.array([[0., -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    left = ahead @ np.array([[0., 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    two = CameraRig.from_dicts([[
        dict(name=name, lens='pinhole', lidar2cam=matrix, cam2img=cam2img, height=64, width=64)
        for name, matrix in (('ahead', ahead), ('left', left))]])
    features = torch.stack([torch.full((1, 4, 4), 2.0), torch.full((1, 4, 4), 6.0)])[None]
    out = pull_dense(features, build_pull_map(grid, two), (1, 16, 16), padding_mode='border')[0, 0]
    assert out[1, 8] == 2 and out[8, 1] == 6 and out[14, 8] == 0  # ahead, left, behind
    diagonal = out[1, 1]  # x = y = 6.5: on the border of both images
    assert diagonal in (2, 4, 6)
