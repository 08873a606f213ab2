"""Pillars equal to mmdet3d's, and to a loop over them."""
import numpy as np
import pytest
import torch
from mmdet3d.models.middle_encoders import PointPillarsScatter
from mmdet3d.models.voxel_encoders import PillarFeatureNet

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.geometry.voxels import voxelize
from mmdet3d_plugin.models import PillarBranch

RANGE = (-4.0, -8.0, -2.0, 4.0, 8.0, 2.0)
GRID = BEVGrid((-4, 4), (-8, 8), 1.0, rows='+y', cols='+x')


def clouds(count=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(n, 5, generator=generator) * torch.tensor([9.0, 18, 5, 1, 1])
            - torch.tensor([4.5, 9, 2.5, 0, 0]) for n in (count, count // 2)]


def branch(**kwargs):
    torch.manual_seed(0)
    built = PillarBranch(GRID, channels=6, pillar_size=(0.5, 0.5), point_range=RANGE, **kwargs)
    built.norm.running_mean.uniform_(-0.5, 0.5)
    built.norm.running_var.uniform_(0.5, 2)
    torch.nn.init.uniform_(built.norm.bias, -0.5, 0.5)
    return built.eval()


@pytest.mark.parametrize('training', [False, True])
def test_hard_pillars_equal_mmdet3d(training):
    ours = branch(max_points=4, max_pillars=(200, 150)).train(training)
    theirs = PillarFeatureNet(
        5, (6, ), voxel_size=(0.5, 0.5, 4.0), point_cloud_range=RANGE, legacy=False,
        norm_cfg=dict(type='BN1d', eps=1e-3, momentum=0.01)).train(training)
    theirs.load_state_dict({f'pfn_layers.0.{name}': value.clone()
                            for name, value in ours.state_dict().items()})
    voxels, coors, counts = [], [], []
    for sample, cloud in enumerate(clouds()):
        voxel, index, count = voxelize(cloud, (0.5, 0.5, 4.0), RANGE, 4, (200, 150)[not training])
        voxels.append(voxel)
        counts.append(count)
        coors.append(torch.cat([torch.full_like(index[:, :1], sample), index.flip(1)], 1))
    coors = torch.cat(coors)
    features = theirs(torch.cat(voxels), torch.cat(counts), coors)
    expected = PointPillarsScatter(6, (32, 16))(features, coors, 2)
    bev = ours(dict(points=clouds()))
    assert bev.shape == (2, 6, 32, 16)
    torch.testing.assert_close(bev, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.norm.running_var, theirs.pfn_layers[0].norm.running_var)


def test_dynamic_pillars_equal_a_loop():
    ours, scans = branch(), clouds(120)
    expected = torch.zeros(2, 6, 32, 16)
    for sample, cloud in enumerate(scans):
        places = {}
        for point in cloud.tolist():
            cell = [int(np.floor((p - low) / size)) for p, low, size in zip(
                point, RANGE, (0.5, 0.5, 4.0))]
            if 0 <= cell[0] < 16 and 0 <= cell[1] < 32 and cell[2] == 0:
                places.setdefault((cell[1], cell[0]), []).append(point)
        for (row, col), members in places.items():
            points = torch.tensor(members)
            centre = torch.tensor([-4 + (col + 0.5) / 2, -8 + (row + 0.5) / 2, 0])
            features = torch.cat([points, points[:, :3] - points[:, :3].mean(0),
                                  points[:, :3] - centre], 1)
            features = ours.norm(ours.linear(features)).relu()
            expected[sample, :, row, col] = features.amax(0)
    torch.testing.assert_close(ours(dict(points=scans)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('max_points', [None, 4])
def test_the_map_follows_the_orientation_of_the_grid(max_points):
    bev = branch(max_points=max_points)(dict(points=clouds()))
    turned = PillarBranch(BEVGrid((-4, 4), (-8, 8), 1.0, rows='-x', cols='-y'), channels=6,
                          pillar_size=(0.5, 0.5), point_range=RANGE, max_points=max_points).eval()
    turned.load_state_dict(branch().state_dict())
    assert torch.equal(turned(dict(points=clouds())), bev.transpose(2, 3).flip((2, 3)))


@pytest.mark.parametrize('max_points', [None, 4])
def test_clouds_without_points(max_points):
    model = branch(max_points=max_points)
    nothing = torch.zeros(0, 5)
    assert model(dict(points=[nothing, nothing])).abs().sum() == 0
    bev = model(dict(points=[nothing, clouds()[0]]))
    assert bev[0].abs().sum() == 0 and bev[1].abs().sum() > 0
    model.train()
    model(dict(points=[nothing, torch.zeros(1, 5)])).sum().backward()


def test_gradients_reach_linear_and_norm():
    for max_points in (None, 4):
        model = branch(max_points=max_points).train()
        model(dict(points=clouds())).square().sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_kind_of_a_virtual_point_is_binary():
    cloud = clouds(50)[0]
    cloud[:, 4] = torch.tensor([-1.0, 0, 1]).repeat(17)[:50]
    other = cloud.clone()
    other[:, 4] = (cloud[:, 4] < 0).float()
    marked, plain = branch(kind_column=4), branch()
    assert torch.equal(marked(dict(points=[cloud])), plain(dict(points=[other])))


def test_points_of_another_loader_are_named():
    with pytest.raises(UserError, match='in_channels is 5, but the points have 4 values'):
        branch()(dict(points=[torch.zeros(3, 4)]))
    with pytest.raises(UserError, match=r"needs inputs\['points'\]"):
        branch()({})
