import pytest
import torch
from mmcv.ops import Voxelization

from mmdet3d_plugin.geometry.voxels import voxelize

RANGE = (-4.0, -6.0, -2.0, 4.0, 6.0, 2.0)


def test_points_by_hand():
    points = torch.tensor([[0.1, 0.1, 0.1, 7], [-3.9, -5.9, -1.9, 8], [0.9, 0.2, 0.3, 9],
                           [4.0, 0, 0, 1], [0.2, 0.8, 0.7, 2], [3.9, 5.9, 1.9, 3]])
    voxels, index, count = voxelize(points, (1, 1, 1), RANGE, 2, 2)
    assert index.tolist() == [[4, 6, 2], [0, 0, 0]] and count.tolist() == [2, 1]
    assert voxels[0, :, 3].tolist() == [7, 9] and voxels[1, :, 3].tolist() == [8, 0]


@pytest.mark.parametrize('max_points, max_voxels', [(10, 90_000), (3, 90_000), (10, 500), (1, 7)])
def test_bit_equal_to_mmcv(max_points, max_voxels):
    torch.manual_seed(0)
    points = torch.randn(20_000, 5) * torch.tensor([2.0, 3, 1, 1, 1])
    points[:2000, :3] = points[:2000, :3].round(decimals=1)  # on the borders of voxels
    size = (0.1, 0.1, 0.2)
    voxels, index, count = voxelize(points, size, RANGE, max_points, max_voxels)
    theirs = Voxelization(size, RANGE, max_points, max_voxels)(points)
    assert torch.equal(voxels, theirs[0]) and torch.equal(count, theirs[2].long())
    assert torch.equal(index, theirs[1].flip(1).long())  # mmcv's order is z, y, x
    assert len(voxels) == min(max_voxels, len(voxels)) and count.max() <= max_points


def test_a_cloud_outside_or_empty():
    for points in (torch.full((3, 4), 100.0), torch.zeros(0, 4)):
        voxels, index, count = voxelize(points, (1, 1, 1), RANGE, 5, 10)
        assert voxels.shape == (0, 5, 4) and index.shape == (0, 3) and count.shape == (0, )
