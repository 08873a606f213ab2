import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmdet3d_plugin.geometry import (
    BEVGrid,
    CameraRig,
    build_pull_map,
    build_reordered_maps,
    pull_dense,
    pull_fused,
    pull_occupied,
    pull_occupied_fused,
)
from mmdet3d_plugin.geometry.reordered import CSRMatrix

SHAPE, SIZE = (4, 14, 16), (6, 12)
GRID = BEVGrid((-7, 7), (-8, 8), 1.0).with_levels((-4, 4), 4, '-z')


def rig(samples=1, views=1, fov=90.0):
    def camera(yaw):
        lidar2cam = np.eye(4)
        lidar2cam[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
        return dict(name='p', lens='equirect', lidar2cam=lidar2cam, height=48, width=96,
                    fov_up=math.radians(fov), fov_down=-math.radians(fov))

    return CameraRig.from_dicts([[camera(0.3 + n + 0.1 * view) for view in range(views)]
                                 for n in range(samples)])


@pytest.mark.parametrize('wrap', [True, False])
@pytest.mark.parametrize('border', ['clamp', 'fade'])
@pytest.mark.parametrize('views, fov, kernel_size', [(1, 90, 3), (2, 30, 3), (1, 30, 5)])
def test_equals_pulling_first_forward_and_backward(wrap, border, views, fov, kernel_size):
    pull = build_pull_map(GRID, rig(2, views, fov), bounds=border == 'clamp')
    style = dict(wrap=wrap, padding_mode='border' if border == 'clamp' else 'zeros')
    features = torch.randn(2, views, 5, *SIZE, dtype=torch.double, requires_grad=True)
    weight = torch.randn(7, 5 * 4, kernel_size, kernel_size, dtype=torch.double,
                         requires_grad=True)
    plain = F.conv2d(pull_dense(features, pull, SHAPE, **style), weight, padding=kernel_size // 2)
    maps = build_reordered_maps(pull, SHAPE, SIZE, kernel_size, **style)
    fused = pull_fused(features, weight, maps, SHAPE)
    torch.testing.assert_close(fused, plain, atol=2e-4, rtol=0)
    grad = torch.randn_like(plain)
    for ours, theirs in zip(*(torch.autograd.grad(out, (features, weight), grad)
                              for out in (fused, plain))):
        torch.testing.assert_close(ours, theirs, atol=5e-4, rtol=0)


@pytest.mark.parametrize('views, fov, kernel_size', [(1, 90, 3), (2, 30, 3), (1, 30, 5)])
def test_occupied_voxels_equal_pulling_first_forward_and_backward(views, fov, kernel_size):
    pull = build_pull_map(GRID, rig(2, views, fov))
    occupied = [torch.arange(4 * 14 * 16)[::7], torch.tensor([0, 15, 208, 895]),
                torch.zeros(0, dtype=torch.long)][:2 + (views == 1)]
    pull = pull if len(occupied) == 2 else build_pull_map(GRID, rig(1, views, fov))
    features = torch.randn(len(occupied), views, 5, *SIZE, dtype=torch.double, requires_grad=True)
    weight = torch.randn(7, 20, kernel_size, kernel_size, dtype=torch.double, requires_grad=True)
    plain = F.conv2d(pull_occupied(features, pull, occupied, SHAPE), weight,
                     padding=kernel_size // 2)
    fused = pull_occupied_fused(features, weight, pull, occupied, SHAPE)
    torch.testing.assert_close(fused, plain)
    grad = torch.randn_like(plain)
    for ours, theirs in zip(*(torch.autograd.grad(out, (features, weight), grad)
                              for out in (fused, plain))):
        torch.testing.assert_close(ours, theirs)


def test_each_sample_may_have_its_own_kernel():
    pull = build_pull_map(GRID, rig())
    maps = build_reordered_maps(pull, SHAPE, SIZE)
    features, weights = torch.randn(2, 1, 3, *SIZE), torch.randn(2, 7, 12, 3, 3)
    both = pull_fused(features, weights, maps, SHAPE)
    for n in range(2):
        alone = pull_fused(features[n:n + 1], weights[n], maps, SHAPE)
        torch.testing.assert_close(both[n:n + 1], alone)


def test_weights_of_each_voxel_sum_to_one():
    rows = build_reordered_maps(build_pull_map(GRID, rig(views=2)), SHAPE, SIZE, kernel_size=1,
                               wrap=True, padding_mode='border')[0]
    total = rows(torch.ones(rows.num_rows, 1)).view(SHAPE[1:])
    torch.testing.assert_close(total, torch.full(SHAPE[1:], 4.0))  # of four levels


def test_row_sum_and_its_transposed():
    #  cell 0 = 2 * row 1 + 3 * row 3; cell 1 empty; cell 2 = -row 1
    rows = CSRMatrix(torch.tensor([1, 3, 1], dtype=torch.int32), torch.tensor([2.0, 3.0, -1.0]),
                  torch.tensor([0, 2, 2, 3], dtype=torch.int32), 4)
    table = torch.arange(8.0).view(4, 2).requires_grad_()
    assert rows(table).tolist() == [[22.0, 27.0], [0.0, 0.0], [-2.0, -3.0]]
    rows(table).backward(torch.tensor([[1.0, 10], [100, 1000], [5, 7]]))
    assert table.grad.tolist() == [[0, 0], [-3.0, 13.0], [0, 0], [3.0, 30.0]]
    assert rows.transposed.num_rows == 3
    assert rows.transposed.transposed.weight.tolist() == [2, 3, -1]


def test_two_runs_are_bit_equal():
    maps = build_reordered_maps(build_pull_map(GRID, rig()), SHAPE, SIZE)
    features = torch.randn(1, 1, 5, *SIZE, requires_grad=True)
    weight = torch.randn(7, 20, 3, 3)
    first, second = (torch.autograd.grad(pull_fused(features, weight, maps, SHAPE).square()
                                         .sum(), features)[0] for _ in range(2))
    assert first.equal(second)
