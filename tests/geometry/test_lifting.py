import numpy as np
import pytest
import torch

from mmdet3d_plugin.geometry import BEVGrid, CameraRig
from mmdet3d_plugin.geometry.lifting import build_lift_maps, frustum, lift_pool, volume_pool
from mmdet3d_plugin.geometry.rigid import rigid, yaw_matrix

GRID = BEVGrid((-8, 8), (-8, 8), 1.0, rows='+x', cols='+y').with_levels((-4, 4), 2)
AHEAD = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]  # x forward, y left, z up -> x right, y down, z forward


def rig(batch=1, views=2, size=(16, 24), **aug):
    def camera(sample, view):
        return dict(name=f'{view}', lens='pinhole', height=size[0], width=size[1],
                    cam2img=[[10., 0, 11.5], [0, 10, 7.5], [0, 0, 1]],
                    lidar2cam=rigid(AHEAD) @ yaw_matrix(1.0 * view + 0.1 * sample), **aug)
    return CameraRig.from_dicts([[camera(s, v) for v in range(views)] for s in range(batch)])


def naive(context, depth, grid, cameras, depths, **style):
    """The outer product, summed cell by cell."""
    batch, views, channels, h, w = context.shape
    position, metres = frustum(cameras.size, (h, w), depths, style.get('pixel', 'center'))
    points = cameras.unproject(position.expand(batch, views, -1, -1),
                               metres.expand(batch, views, -1))
    index, inside = grid.to_index(points, style.get('rounding', 'floor'))
    lifted = (depth[:, :, :, None] * context[:, :, None]).movedim(3, -1).flatten(2, 4)
    out = context.new_zeros(batch, channels, grid.num_levels, *grid.shape)
    for sample in range(batch):
        level, row, col = index[sample][inside[sample]].unbind(-1)
        out[sample] = out[sample].permute(1, 2, 3, 0).contiguous().index_put(
            (level, row, col), lifted[sample][inside[sample]], accumulate=True).permute(3, 0, 1, 2)
    return out.flatten(1, 2)


@pytest.mark.parametrize('style', [{}, dict(rounding='trunc', pixel='corner')])
@pytest.mark.parametrize('batch', [1, 3])
def test_equals_the_outer_product_forward_and_backward(batch, style):
    torch.manual_seed(0)
    depths = torch.arange(1.0, 12.0, 0.5)
    context = torch.randn(batch, 2, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    depth = torch.rand(batch, 2, 22, 4, 6, dtype=torch.float64, requires_grad=True)
    cameras = rig(batch, img_aug=[[0.9, 0.1, 2.0], [-0.1, 0.9, 1.0], [0, 0, 1]])
    maps = build_lift_maps(GRID, cameras, (4, 6), depths, **style)
    assert len(maps) == batch
    out = lift_pool(context, depth, maps, (2, 16, 16))
    expected = naive(context, depth, GRID, cameras, depths, **style)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert 0.05 < (out != 0).double().mean() < 0.5
    target = torch.randn_like(out)
    grads, expected = (torch.autograd.grad((x * target).sum(), (context, depth))
                       for x in (out, expected))
    for a, b in zip(grads, expected):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_volume_is_pooled_like_the_product_that_makes_it():
    torch.manual_seed(0)
    depths, cameras = torch.arange(1.0, 12.0, 0.5), rig(2)
    context = torch.randn(2, 2, 5, 4, 6, dtype=torch.float64)
    depth = torch.rand(2, 2, 22, 4, 6, dtype=torch.float64)
    volume = (context[:, :, :, None] * depth[:, :, None]).requires_grad_()
    maps = build_lift_maps(GRID, cameras, (4, 6), depths)
    out = volume_pool(volume, maps, (2, 16, 16))
    torch.testing.assert_close(out, lift_pool(context, depth, maps, (2, 16, 16)), rtol=0,
                               atol=1e-12)
    out.sum().backward()
    inside = volume.grad[0].movedim(1, -1).flatten(0, -2)[:, 0].nonzero().flatten()
    assert torch.equal(inside, maps[0].pair.sort().values) and set(volume.grad.unique().tolist()
                                                                   ) == {0.0, 1.0}
    assert volume_pool(volume.bfloat16(), maps, (2, 16, 16)).dtype == torch.float32


def test_one_feature_lands_where_its_ray_is():
    cameras = rig(views=1)
    depth, context = torch.zeros(1, 1, 3, 16, 24), torch.zeros(1, 1, 1, 16, 24)
    depth[0, 0, 1, 7, 2], context[0, 0, 0, 7, 2] = 0.5, 4.0  # 5 m ahead: (11.5 - 2) / 10 * 5 left
    maps = build_lift_maps(GRID, cameras, (16, 24), torch.tensor([2.0, 5.2, 7.0]))
    out = lift_pool(context, depth, maps, (2, 16, 16))
    assert out.nonzero().tolist() == [[0, 1, 13, 12]]  # x 5.2, y 4.94; above the optical axis
    assert out.sum() == 2.0


def test_convention_features_sit_at_the_centres_of_pixels_or_in_the_corners():
    for pixel, cols in (('center', [1.5, 5.5, 9.5]), ('corner', [0.0, 5.5, 11.0])):
        position, depth = frustum((8, 12), (2, 3), torch.tensor([1.0, 2.0]), pixel)
        assert position[:3, 0].tolist() == cols and depth.tolist() == [1.0] * 6 + [2.0] * 6
    with pytest.raises(ValueError, match="'centre'"):
        frustum((8, 12), (2, 3), torch.ones(1), 'centre')


def test_truncation_takes_in_one_cell_more_at_the_low_edges():
    points = torch.tensor([[-8.9, -8.9, -7.9], [-9.1, 0, 0], [0, 0, -8.1], [8.1, 0, 0]])
    index, inside = GRID.to_index(points, 'trunc')
    assert inside.tolist() == [True, False, False, False] and index[0].tolist() == [0, 0, 0]
    assert not GRID.to_index(points)[1].any()


def test_no_pair_in_the_grid_gives_zeros_and_gradients():
    far = BEVGrid((90, 91), (90, 91), 1.0).with_levels((-1, 1), 1)
    context = torch.ones(1, 2, 3, 4, 6, requires_grad=True)
    depth = torch.ones(1, 2, 2, 4, 6, requires_grad=True)
    maps = build_lift_maps(far, rig(), (4, 6), torch.tensor([1.0, 2.0]))
    out = lift_pool(context, depth, maps, (1, 1, 1))
    out.sum().backward()
    assert out.tolist() == [[[[0.0]]] * 3] and context.grad.eq(0).all() and depth.grad.eq(0).all()


_MEMORY = '''
import torch
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.geometry.lifting import build_lift_maps, lift_pool
from tests.geometry.test_lifting import rig
from tests.helpers.memory import peak_mib as peak
torch.set_num_threads(1)
grid = BEVGrid((-51.2, 51.2), (-51.2, 51.2), 0.4, rows='+x', cols='+y').with_levels((-10, 10), 1)
context = torch.rand(1, 6, 80, 32, 88, requires_grad=True)
depth = torch.rand(1, 6, 118, 32, 88, requires_grad=True)
cameras = rig(views=6, size=(256, 704), img_aug=[[20., 0, 100], [0, 20, 0], [0, 0, 1]])
small = build_lift_maps(grid, rig(views=1), (2, 2), torch.ones(1))
lift_pool(torch.rand(1, 1, 2, 2, 2), torch.rand(1, 1, 1, 2, 2), small, (1, 256, 256))
before = peak()
maps = build_lift_maps(grid, cameras, (32, 88), torch.arange(1, 60, 0.5))
assert len(maps[0].pair) > 900_000, len(maps[0].pair)
lift_pool(context, depth, maps, (1, 256, 256)).square().sum().backward()
print(peak() - before)
'''


def test_the_outer_product_is_never_held(run_command):
    # Six views of 32 x 88 features, 118 depths, 80 channels: it alone takes 608 MiB.
    done = run_command('-c', _MEMORY)
    assert float(done.stdout.split()[-1]) < 300, done.stderr


def test_depths_are_in_the_sense_of_the_lens():
    cameras = rig(views=1, size=(16, 24))
    points = cameras.unproject(torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[4.0]]]))
    np.testing.assert_allclose(points[0, 0, 0].numpy(), [4, 4.6, 3], atol=1e-6)
