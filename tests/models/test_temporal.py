"""Camera branches that read past images."""
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import BEVGrid, CameraRig
from mmdet3d_plugin.geometry.rigid import rigid, yaw_matrix

GRID = BEVGrid((-16, 16), (-16, 16), 1.0, rows='+y', cols='+x')
AHEAD = rigid([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
CALIBRATION = [AHEAD @ yaw_matrix(yaw) @ rigid(translation=(-1, 0, 0.5)) for yaw in (0, 2.0)]


def branch(**kwargs):
    torch.manual_seed(0)
    resnet = dict(type='mmdet.ResNet', depth=18, base_channels=8, num_stages=2, strides=(1, 2),
                  dilations=(1, 1), out_indices=(0, 1), norm_eval=False)
    view = dict(type='LiftSplat', in_channels=8, channels=4, depth=(1, 16, 1), resolution=1.0,
                x_range=(-16, 16), y_range=(-16, 16), z_range=(-4, 4),
                depth_net=dict(type='BEVDetDepthNet', mid_channels=8))
    cfg = dict(type='TemporalCameraBranch', encoder=dict(
        type='ImageEncoder', backbone=resnet,
        neck=dict(type='SingleLevelFPN', in_channels=(8, 16), out_channels=8)),
        view_transform=view, grid=GRID, **kwargs)
    return MODELS.build(cfg).eval()


def rig(now2then=None):
    """The cameras; with extrinsics from the newest frame where the car was elsewhere then."""
    now2then = np.eye(4) if now2then is None else now2then
    return CameraRig.from_dicts([[
        dict(name=str(n), lens='pinhole', height=32, width=64, lidar2cam=pose @ now2then,
             cam2img=[[40, 0, 31.5], [0, 40, 15.5], [0, 0, 1]])
        for n, pose in enumerate(CALIBRATION)]])


def inputs(past=None, seed=0, times=2):
    torch.manual_seed(seed)
    return dict(imgs=torch.randn(1, times, 2, 3, 32, 64), rig=rig(),
                past_rigs=[rig(past)] * (times - 1))


PRE = dict(type='BEVDetResNet', in_channels=4, channels=(4, ), strides=(1, ))


def test_channels_are_those_of_the_times_newest_first():
    model, batch = branch(), inputs()
    bev = model(batch)
    assert bev.shape == (1, 8, 32, 32)
    newest = dict(batch, imgs=batch['imgs'][:, [0, 0]])
    torch.testing.assert_close(model(newest), torch.cat([bev[:, :4]] * 2, 1))
    older = dict(batch, imgs=batch['imgs'][:, [1, 1]])
    torch.testing.assert_close(model(older)[:, 4:], bev[:, 4:])


@pytest.mark.parametrize('pre_process', [None, PRE])
def test_both_ways_of_alignment_agree_where_the_car_moved_whole_cells(pre_process):
    """3 m ahead and 2 m to the side; without the cells at the border, which a map lacks."""
    batch = inputs(rigid(translation=(3, -2, 0)))
    lift, warp = (branch(align=align, pre_process=pre_process) for align in ('lift', 'warp'))
    warp.load_state_dict(lift.state_dict())
    one, other = lift(batch), warp(batch)
    torch.testing.assert_close(one[:, :4], other[:, :4])
    inner = (slice(None), slice(4, None), slice(8, 24), slice(8, 24))
    assert one[inner].abs().mean() > 1e-3
    torch.testing.assert_close(one[inner], other[inner], rtol=1e-3, atol=1e-4)


def test_past_images_have_no_gradient_but_their_statistics_count():
    model, batch = branch(), inputs()
    model.train()
    batch['imgs'].requires_grad_()
    model(batch).square().sum().backward()
    assert batch['imgs'].grad[:, 0].abs().sum() > 0 and batch['imgs'].grad[:, 1].abs().sum() == 0
    assert model.encoder.backbone.bn1.num_batches_tracked == 2


def test_all_times_read_the_calibration_of_the_newest(monkeypatch):
    model, batch, seen = branch(), inputs(rigid(translation=(3, 0, 0))), []
    model.view_transform.depth_net.register_forward_hook(
        lambda net, args, out: seen.append((args[1].calibration or args[1]).fingerprint))
    model(batch)
    assert seen == [batch['rig'].fingerprint] * 2


# A sequence ---------------------------------------------------------------------------------------


def sequence(frames=4, speed=1.3):
    """Frames whose past images are the newest ones of the frame before."""
    torch.manual_seed(1)
    images = torch.randn(frames, 2, 3, 32, 64)
    motion = yaw_matrix(0.05) @ rigid(translation=(speed, 0.1, 0))
    for n in range(frames):
        before = max(n - 1, 0)
        names = [tuple(f'{name}{k}' for name in 'ab') for k in (n, before)]
        yield dict(imgs=torch.stack([images[n], images[before]])[None], rig=rig(),
                   past_rigs=[rig(motion if n else None)], img_paths=[names])


@pytest.mark.parametrize('align', ['lift', 'warp'])
def test_a_sequence_keeps_what_was_predicted_with_equal_results(align):
    kept, plain = (branch(align=align, pre_process=PRE, keep=keep) for keep in (2, 0))
    runs = []
    kept.encoder.register_forward_hook(lambda *args: runs.append(len(args[1][0])))
    for batch in sequence():
        torch.testing.assert_close(kept(batch), plain(batch), rtol=1e-5, atol=1e-5)
    assert runs == [2] * 4  # two images a frame, at the first one too: its past is itself


def test_no_more_is_kept_than_asked_for():
    model = branch(keep=2)
    for batch in sequence():
        model(batch)
        assert len(model._kept) <= 2
    assert [key[:2] for key in model._kept] == [('a2', 'b2'), ('a3', 'b3')]


def test_nothing_is_reused_where_the_calibration_differs():
    model, plain = branch(), branch(keep=0)
    for n, batch in enumerate(sequence()):
        moved = replace(batch['rig'], lidar2cam=batch['rig'].lidar2cam + 0.01 * n)
        batch = dict(batch, rig=moved)
        torch.testing.assert_close(model(batch), plain(batch), rtol=1e-5, atol=1e-5)


def test_samples_of_a_batch_are_kept_apart():
    model, plain = branch(), branch(keep=0)
    frames = list(sequence())
    batch = dict(imgs=torch.cat([f['imgs'] for f in frames[1:3]]), rig=rig(),
                 past_rigs=frames[1]['past_rigs'],
                 img_paths=[f['img_paths'][0] for f in frames[1:3]])
    torch.testing.assert_close(model(batch), plain(batch), rtol=1e-5, atol=1e-5)


def test_what_is_kept_is_dropped_when_the_weights_may_have_changed():
    model, (batch, *_) = branch(), sequence()
    model(batch)
    assert len(model._kept) == 1
    assert not copy.deepcopy(model)._kept
    model.load_state_dict(model.state_dict())
    assert not model._kept
    model(batch)
    model.train().eval()
    assert not model._kept
    model.train()(batch)
    assert not model._kept


# Errors -------------------------------------------------------------------------------------------


def test_errors():
    with pytest.raises(UserError, match="align: expected 'lift' or 'warp', got 'none'"):
        branch(align='none')
    with pytest.raises(UserError, match='num_past: expected >= 1, got 0; for images of one time'):
        branch(num_past=0)
    batch = inputs(times=3)
    with pytest.raises(UserError, match='num_past is 1, but the batch has 2 past images'):
        branch()(batch)
    with pytest.raises(UserError, match='num_past is 1, but the batch has 0 past images'):
        branch()(dict(batch, imgs=batch['imgs'][:, 0]))
    with pytest.raises(UserError, match=r"the model needs inputs\['imgs'\]"):
        branch()({})


def test_the_rigs_of_past_images_stay_as_they_are():
    batch = inputs()
    before = replace(batch['past_rigs'][0])
    branch()(batch)
    assert batch['past_rigs'][0] == before and before.calibration is None
