"""BEVDet's bevdepth4d-r50: every entry, both ways, and the whole network."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.models.depth.losses import DepthLoss
from tests.helpers import bevdepth4d_release as bevdet
from tests.helpers import rigs
from tests.projects.test_bevdepth_checkpoints import converter, no_draws, same  # noqa: F401

MODEL = 'bevdepth4d-r50'
SMALL = bevdet.Sizes(depth=18, base=8, neck=16, channels=8, mid=16, stages=(8, 16, 24), joined=16,
                     out=16, head=8, bins=(1.0, 14.0, 1.0), size=(64, 128), reach=12.8)


@pytest.mark.usefixtures('no_draws')
@pytest.mark.parametrize('norm, adapters, entries, config', [
    (False, False, 806, 'bevdepth4d_student_r50_24e_nuscenes.py'),
    (True, True, 835, 'bevdepth4d_student_r50_24e_nuscenes_norm.py')])
def test_every_entry_is_accounted_for_and_comes_back(norm, adapters, entries, config):
    z = replace(bevdet.Sizes(), norm=norm)
    file = bevdet.file(z)
    if adapters:
        file |= bevdet.numbered(bevdet.adapter_shapes(), {})
    assert len(file) == entries
    ours, report = converter.convert(dict(meta={}, state_dict=file), MODEL)
    assert len(ours['state_dict']) == (807 if norm else 802) and config in report
    assert ('24 set aside: adapters of a distillation' in report) == adapters
    assert same(converter.revert(ours, MODEL)[0]['state_dict'], file)
    dim, rot = (f'pts_bbox_head.task_heads.2.{name}.1.bias' for name in ('dim', 'rot'))
    file[dim], file[rot] = torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5])
    state = converter.convert(file, MODEL)[0]['state_dict']
    assert state['head.task_heads.2.dim.1.bias'].tolist() == [2, 1, 3]
    assert state['head.task_heads.2.rot.1.bias'].tolist() == [-5, -4]


@pytest.mark.usefixtures('no_draws')
@pytest.mark.parametrize('change, message', [
    (lambda s: s.pop('img_neck.fpn_convs.0.conv.bias'), 'img_neck.fpn_convs.0.conv.bias'),
    (lambda s: s.update({'channel_wise_adaptation': torch.zeros(1)}), 'channel_wise_adaptation'),
    (lambda s: s.update({'img_view_transformer.bx': torch.zeros(3)}),
     'img_view_transformer.bx is that of another image size, grid or depth')])
def test_another_file_is_refused(change, message):
    file = bevdet.file()
    change(file)
    with pytest.raises(UserError, match=message):
        converter.convert(file, MODEL)


# The whole network --------------------------------------------------------------------------------

def small_release(z):
    """Ours with the settings of the release's config, and the converter's view of it."""
    known = {'img_bev_encoder_neck.up2.5.weight': None} if z.norm else {}
    release = converter.release_of(MODEL, known)
    model, square = release.config.model, dict(x_range=(-z.reach, z.reach),
                                               y_range=(-z.reach, z.reach))
    release.config.image_size = z.size
    model.grid.update(square)
    branch = model.camera_branch
    branch.encoder.backbone.update(depth=z.depth, base_channels=z.base, init_cfg=None)
    branch.encoder.neck.update(in_channels=z.levels, out_channels=z.neck)
    branch.view_transform.update(square, in_channels=z.neck, channels=z.channels, depth=z.bins)
    branch.view_transform.depth_net.mid_channels = z.mid
    branch.pre_process.update(in_channels=z.channels, channels=(z.channels, ))
    model.bev_encoder.backbone.update(in_channels=2 * z.channels, channels=z.stages)
    model.bev_encoder.neck.update(in_channels=(z.stages[-1], z.stages[0]), mid_channels=z.joined,
                                  out_channels=z.out)
    model.head.update(in_channels=z.out, shared_channels=z.head)
    model.aux_losses.depth.depth = z.bins
    return release


def in_their_form(mats):
    """rots, trans, intrins, post_rots, post_trans, the current cameras before the adjacent."""
    poses = mats['bda'][:, None, None] @ mats['sensor2ego']
    post = np.tile(np.eye(3), (*poses.shape[:3], 1, 1))
    post[..., :2, :2] = mats['ida'][..., :2, :2]
    shift = np.concatenate([mats['ida'][..., :2, 3], np.zeros((*poses.shape[:3], 1))], -1)
    found = dict(rots=poses[..., :3, :3], trans=poses[..., :3, 3],
                 intrins=mats['intrin'][..., :3, :3], post_rots=post, post_trans=shift)
    return rigs.tensors({name: value.reshape(len(value), -1, *value.shape[3:])
                         for name, value in found.items()})


def loaded(z, seed):
    """Our model with converted weights, and the release's."""
    state = bevdet.release(z, seed)
    mean = torch.zeros(33)
    mean[[0, 2, 4, 5, 8, 9, 13, 17, 18, 19]] = torch.tensor([115.0, 148, 115, 92, 1, 0.2, 0.4, 1,
                                                             40, 20])
    state['img_view_transformer.se.fc.0.running_mean'] = mean
    state['img_view_transformer.se.fc.0.running_var'] = (0.1 * mean.abs() + 0.7).square()
    release = small_release(z)
    model = converter.build(release).eval()
    model.load_state_dict(converter.convert_state(state, release, model)[0])
    return model, bevdet.Release(state, z)


@pytest.mark.parametrize('norm, depth', [(False, 18), (True, 50)])
def test_whole_networks_compute_what_the_release_computes(norm, depth):
    z = replace(SMALL, norm=norm, depth=depth)
    model, release = loaded(z, 3)
    mats = rigs.draw(4, z.size)
    rig, past = rigs.rigs(mats, z.size)
    torch.manual_seed(5)
    images = torch.randn(2, 2, 2, 3, *z.size)
    with torch.no_grad():
        expected = release(images.transpose(1, 2).flatten(1, 2), in_their_form(mats))
        got = model(dict(imgs=images, rig=rig, past_rigs=[past]))
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert value.shape[-2:] == (32, 32) and value.std() > 0.02
        if name.endswith('.dim'):  # width, length, height
            value = value[:, [1, 0, 2]]
        elif name.endswith('.rot'):  # of another yaw
            value = -value[:, [1, 0]]
        assert (got[name] - value).norm() / value.norm() < 1e-4, name


@pytest.mark.parametrize('setting, value', [('pixel', 'center'), ('rounding', 'floor'),
                                            ('depths', 0.5), ('warp_pixel', 'center')])
def test_each_switch_of_the_release_changes_the_result(setting, value):
    model, release = loaded(SMALL, 3)
    mats = rigs.draw(4, SMALL.size)
    rig, past = rigs.rigs(mats, SMALL.size)
    torch.manual_seed(5)
    images = torch.randn(2, 2, 2, 3, *SMALL.size)
    part = model.camera_branch
    if setting != 'warp_pixel':
        part = part.view_transform
    setattr(part, setting, part.depths + value if setting == 'depths' else value)
    with torch.no_grad():
        expected = release(images.transpose(1, 2).flatten(1, 2), in_their_form(mats))
        got = model(dict(imgs=images, rig=rig, past_rigs=[past]))
    expected, got = expected['task0.heatmap'], got['task0.heatmap']
    assert (got - expected).norm() / expected.norm() > 1e-3


def test_the_depth_loss_is_that_of_the_release():
    z = SMALL
    mats = rigs.draw(6, z.size)
    rig, _ = rigs.rigs(mats, z.size)
    torch.manual_seed(7)
    logits = 2 * torch.randn(2, 2, len(z.depths), 4, 8)
    clouds = [torch.randn(3000, 3) * torch.tensor([6.0, 6, 1.5]) + torch.tensor([0, 0, 1.0])
              for _ in range(2)]
    theirs = in_their_form(mats)
    lidar2img = torch.tensor(mats['intrin'] @ np.linalg.inv(mats['sensor2ego']))[:, 0].float()
    expected = bevdet.depth_loss(logits, clouds, lidar2img, theirs['post_rots'][:, :2],
                                 theirs['post_trans'][:, :2], z)
    bda = rigs.tensors(mats)['bda']
    moved = [cloud @ bda[b, :3, :3].T for b, cloud in enumerate(clouds)]
    cfg = dict(small_release(z).config.model.aux_losses.depth)
    assert cfg.pop('type') == 'DepthLoss'
    loss = DepthLoss(**cfg)({cfg['tap']: logits}, dict(points=moved, rig=rig), None)['loss']
    assert expected > 1
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
