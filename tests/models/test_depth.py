"""Depth nets, their calibration, deformable convolution, refinement and depth loss."""
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet3d.registry import MODELS
from torch import nn

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import BEVGrid, CameraRig
from mmdet3d_plugin.geometry.rigid import rigid, yaw_matrix
from mmdet3d_plugin.models.depth.deform_conv import DeformConv2d
from mmdet3d_plugin.models.depth.depth_nets import (
    ASPP,
    BEVDetDepthNet,
    DepthRefinement,
    MegviiDepthNet,
    bevdepth_calibration,
    bevdet_calibration,
)
from mmdet3d_plugin.models.depth.losses import DepthLoss
from mmdet3d_plugin.models.view_transforms import LiftSplat

CAM2EGO = rigid([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], (1.7, 0.1, 1.5))
IMG_AUG = [[0.5, 0.25, 3.0], [-0.25, 0.5, -4.0], [0, 0, 1]]
FLIP_Y = np.diag([1.0, -1, 1, 1])


def rig(bev_aug=None, views=1, lens='pinhole', batch=1):
    camera = dict(name='c', lens=lens, height=16, width=32, img_aug=IMG_AUG,
                  cam2img=[[30.0, 0.5, 15], [0, 20, 8], [0, 0, 1]],
                  lidar2cam=np.linalg.inv(CAM2EGO))
    if lens == 'equirect':
        camera.update(fov_up=0.5, fov_down=-0.5)
    augs = None if bev_aug is None else [bev_aug] * batch
    return CameraRig.from_dicts([[camera] * views] * batch, augs)


def test_convention_calibration_of_bevdet():
    expected = [30, 0.5, 15, 0, 20, 8, 0, 0, 1, 0.5, 0.25, 0, -0.25, 0.5, 0, 0, 0, 1, 3, -4, 0,
                0, 0, 1, 1, 0, 0, 0, -1, 0, 1.7, -0.1, 1.5]
    values = bevdet_calibration(rig(FLIP_Y))
    assert values.shape == (1, 1, 33)
    torch.testing.assert_close(values[0, 0], torch.tensor(expected, dtype=torch.float32),
                               rtol=0, atol=1e-5)


def test_convention_calibration_of_bevdepth():
    expected = [30, 20, 15, 8, 0.5, 0.25, 3, -0.25, 0.5, -4, 1, 0, 0, -1, 1,
                0, 0, 1, 1.7, -1, 0, 0, 0.1, 0, -1, 0, 1.5]
    values = bevdepth_calibration(rig(FLIP_Y))
    assert values.shape == (1, 1, 27)
    torch.testing.assert_close(values[0, 0], torch.tensor(expected, dtype=torch.float32),
                               rtol=0, atol=1e-5)
    turned = bevdepth_calibration(rig(1.1 * yaw_matrix(0.3) + np.diag([0, 0, 0, -0.1]), batch=2))
    cos, sin = 1.1 * math.cos(0.3), 1.1 * math.sin(0.3)
    assert turned.shape == (2, 1, 27)
    np.testing.assert_allclose(turned[1, 0, 10:15], [cos, -sin, sin, cos, 1.1], atol=1e-5)
    np.testing.assert_allclose(turned[1, 0, 15:], values[0, 0, 15:], atol=1e-5)
    np.testing.assert_allclose(bevdepth_calibration(rig())[0, 0, 10:15], [1, 0, 0, 1, 1])


def test_calibrations_are_of_pinholes():
    with pytest.raises(UserError, match="calibration of pinholes.*lens 'equirect'"):
        bevdet_calibration(rig(lens='equirect'))


@pytest.mark.parametrize('modulated', [True, False])
def test_deformable_convolution_equals_mmcv(modulated):
    torch.manual_seed(0)
    if modulated:
        theirs = ModulatedDeformConv2dPack(8, 12, 3, padding=1)
        ours = DeformConv2d(8, 12)
    else:
        theirs = DeformConv2dPack(8, 12, 3, padding=1, groups=4, deform_groups=1)
        ours = DeformConv2d(8, 12, groups=4, bias=False, modulated=False)
    nn.init.normal_(theirs.conv_offset.weight, std=0.4)  # offsets of several cells, also outside
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 6, 9)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    grads = [torch.autograd.grad(conv(x).square().sum(), list(conv.parameters()))
             for conv in (ours, theirs)]
    for one, other in zip(*(sorted(g, key=lambda t: t.numel()) for g in grads)):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_deformable_convolution_starts_as_a_convolution():
    torch.manual_seed(0)
    conv, x = DeformConv2d(8, 8, groups=4, modulated=False), torch.randn(1, 8, 5, 7)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1, groups=4),
                               rtol=1e-5, atol=1e-5)
    half = DeformConv2d(8, 8)
    torch.testing.assert_close(half(x), F.conv2d(x, half.weight, padding=1) / 2,
                               rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('kind, counts', [
    (BEVDetDepthNet, dict(context=2, input_conv=2, gate=7, blocks=38, deform=9, depth=2)),
    (MegviiDepthNet, dict(reduce_conv=7, bn=5, context_mlp=4, depth_mlp=4, context_se=4,
                          depth_se=4, context_conv=2, depth_conv=36 + 36 + 3 + 2))])
def test_every_parameter_of_a_depth_net_learns(kind, counts):
    torch.manual_seed(0)
    net = kind(in_channels=6, channels=5, num_bins=7, mid_channels=8).eval()
    for module in net.modules():
        if isinstance(module, DeformConv2d):
            nn.init.normal_(module.conv_offset.weight, std=0.1)
    names = [name.split('.')[0] for name in net.state_dict()]
    assert {name: names.count(name) for name in names} == counts
    context, depth = net(torch.randn(2, 3, 6, 4, 8), rig(views=3))
    assert context.shape == (2, 3, 5, 4, 8) and depth.shape == (2, 3, 7, 4, 8)
    (context.square().sum() + depth.square().sum()).backward()
    silent = [name for name, p in net.named_parameters() if not p.grad.abs().sum()]
    assert silent == []


def test_the_depth_net_reads_the_calibration_of_its_rig_or_of_the_newest():
    torch.manual_seed(0)
    net = MegviiDepthNet(in_channels=6, channels=5, num_bins=7, mid_channels=8).eval()
    net.bn.running_var.fill_(400.0)
    features = torch.randn(1, 1, 6, 4, 8)
    one, other = rig(), rig(FLIP_Y)
    assert not torch.allclose(net(features, one)[1], net(features, other)[1])
    assert torch.equal(net(features, replace(other, calibration=one))[1], net(features, one)[1])


def test_aspp_pools_the_whole_image():
    torch.manual_seed(0)
    aspp = ASPP(4, 4, dropout=0.0).eval()
    x = torch.randn(1, 4, 5, 40)
    other = x.clone()
    other[..., -1] += 3
    assert not torch.allclose(aspp(x)[..., 0], aspp(other)[..., 0])  # 39 columns away
    aspp.pool.conv.weight.data.zero_()
    torch.testing.assert_close(aspp(x)[..., 0], aspp(other)[..., 0])


def test_refinement_convolves_depth_and_columns_of_one_row():
    torch.manual_seed(0)
    refine = DepthRefinement(4).eval()
    assert len(refine.state_dict()) == 20
    volume = torch.randn(2, 4, 6, 3, 5)
    other = volume.clone()
    other[:, :, :, 1] += 1
    changed = (refine(volume) != refine(other)).flatten(4).any(-1).any(0).any(0)
    assert refine(volume).shape == volume.shape
    assert changed.any(0).tolist() == [False, True, False]


def test_a_refinement_that_changes_nothing_pools_as_without():
    grid = BEVGrid((-8, 8), (-8, 8), 1.0)
    kwargs = dict(in_channels=6, channels=4, depth=(1, 7, 1), x_range=(-8, 8), y_range=(-8, 8),
                  resolution=1.0)
    plain = LiftSplat(grid, **kwargs)
    refined = LiftSplat(grid, refine=dict(type='Identity'), **kwargs)
    refined.load_state_dict(plain.state_dict())
    features, cameras = torch.randn(2, 1, 6, 4, 8), rig()
    bev = plain(features, cameras)
    assert (bev != 0).float().mean() > 0.02
    torch.testing.assert_close(refined(features, cameras), bev, rtol=1e-5, atol=1e-6)


MODELS.register_module('Identity', module=type('Identity', (nn.Module, ), dict(
    __init__=lambda self, channels: nn.Module.__init__(self), forward=lambda self, x: x)))


def test_bins_are_lifted_to_their_lower_edge_or_centre():
    kwargs = dict(grid=BEVGrid(), depth=(2.0, 4.0, 0.5))
    assert LiftSplat(**kwargs).depths.tolist() == [2, 2.5, 3, 3.5]
    assert LiftSplat(**kwargs, bins='center').depths.tolist() == [2.25, 2.75, 3.25, 3.75]
    with pytest.raises(UserError, match="bins: expected 'lower' or 'center', got 'upper'"):
        LiftSplat(**kwargs, bins='upper')


# Loss ---------------------------------------------------------------------------------------------


def loss_of(logits, scan, **kwargs):
    camera = dict(name='c', lens='pinhole', height=4, width=8, lidar2cam=np.eye(4),
                  cam2img=[[1.0, 0, 3.5], [0, 1, 1.5], [0, 0, 1]])
    inputs = dict(points=[scan] * len(logits), rig=CameraRig.from_dicts([[camera]]))
    loss = DepthLoss('model.x[1]', depth=(1.0, 4.0, 1.0), **kwargs)
    return loss({'model.x[1]': logits}, inputs, None)['loss']


SCAN = torch.tensor([[0.0, 0, 2.5], [-3.0, 0, 1.2], [0.0, 0, 50.0]])  # two cells have a depth


def test_the_loss_of_both_releases():
    """Equal logits of three bins: a softmax of 1/3, a sigmoid of 1/2."""
    logits = torch.zeros(2, 1, 3, 2, 4)
    one = -math.log(1 / 3) - 2 * math.log(2 / 3)
    assert float(loss_of(logits, SCAN, weight=3.0)) == pytest.approx(3 * one, rel=1e-6)
    all_bins = 2 * 2 * 3 * math.log(2) / logits.numel()
    assert float(loss_of(logits, SCAN, weight=100.0, activation='sigmoid', average='all')
                 ) == pytest.approx(100 * all_bins, rel=1e-6)


def test_the_gradient_raises_the_bin_of_the_point_and_nothing_else():
    logits = torch.zeros(1, 1, 3, 2, 4, requires_grad=True)
    loss_of(logits, SCAN).backward()
    assert logits.grad.abs().sum(2)[0, 0].nonzero().tolist() == [[1, 0], [1, 2]]
    assert (logits.grad < 0)[0, 0].nonzero().tolist() == [[0, 1, 0], [1, 1, 2]]


def test_a_scan_without_points_costs_nothing():
    logits = torch.randn(1, 1, 3, 2, 4, requires_grad=True)
    loss = loss_of(logits, torch.zeros(0, 3))
    loss.backward()
    assert loss.item() == 0.0 and logits.grad.abs().sum() == 0


def test_half_precision_logits_have_a_float32_loss():
    logits = torch.randn(1, 1, 3, 2, 4)
    with torch.autocast('cpu', torch.bfloat16):
        loss = loss_of(logits.bfloat16(), SCAN)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(loss_of(logits.bfloat16().float(), SCAN)), rel=1e-6)


@pytest.mark.parametrize('name, value', [('activation', 'relu'), ('average', 'none'),
                                         ('cell', 'nearest')])
def test_unknown_arguments(name, value):
    with pytest.raises(UserError, match=f"DepthLoss.{name}: expected '.*' or '.*', got '{value}'"):
        DepthLoss('model.x', **{name: value})


def test_the_predicted_depth_is_the_mean_of_the_distribution():
    from mmdet3d.structures import Det3DDataSample
    logits = torch.tensor([1.0, 2.0, 1.0]).log().view(1, 1, 3, 1, 1).expand(1, 1, 3, 2, 4).clone()
    logits[..., 0, 0] = torch.tensor([100.0, 0, 0])
    camera = dict(name='c', lens='pinhole', height=4, width=8, lidar2cam=np.eye(4),
                  cam2img=[[1.0, 0, 3.5], [0, 1, 1.5], [0, 0, 1]])
    inputs = dict(points=[SCAN], rig=CameraRig.from_dicts([[camera]]))
    samples = [Det3DDataSample()]
    loss = DepthLoss('model.x[1]', depth=(1.0, 4.0, 1.0), predict=True)
    assert loss.predicts and not DepthLoss('model.x').predicts
    loss.predict({'model.x[1]': logits}, inputs, samples)
    expected = torch.full((1, 2, 4), 2.5)
    expected[0, 0, 0] = 1.5
    torch.testing.assert_close(samples[0].pred_depth, expected)
    truth = torch.zeros(1, 2, 4)
    truth[0, 1, 0], truth[0, 1, 2] = 1.2, 2.5
    torch.testing.assert_close(samples[0].gt_depth, truth)
    with pytest.raises(UserError, match='predicted one by one; set camera_branch.keep=0'):
        loss.predict({'model.x[1]': logits}, inputs, samples * 2)
    alone = [Det3DDataSample()]
    loss.predict({'model.x[1]': logits}, dict(rig=inputs['rig']), alone)
    assert 'gt_depth' not in alone[0]
