"""Megvii's BEVDepth and BEV-LGKD: every entry, both ways, and the whole networks."""
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.models.depth.losses import DepthLoss
from tests.helpers import bevdepth_release as megvii
from tests.helpers import rigs

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = 'projects/detection/convert_checkpoint.py'
spec = importlib.util.spec_from_file_location('convert_detection', ROOT / SCRIPT)
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)

SMALL = megvii.Sizes(backbone=18, base=8, fpn=8, mid=16, context=8, trunk=8, neck=8, head=8,
                     bins=(2.0, 14.0, 0.5), size=(64, 128), reach=12.8)
FULL = {'bevdepth-r18': (18, 663), 'bevdepth-mobilenetv2': ('mobilenetv2', 855),
        'bevdepth-r50': (50, 861), 'bevdepth-r101': (101, 1167), 'bevdepth-r50-da': (50, 881)}


def lightning(state):
    """As Lightning writes them."""
    return dict(epoch=23, global_step=1, state_dict={f'model.{k}': v for k, v in state.items()})


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in other)


def file_of(**sizes):
    z = megvii.Sizes(**sizes)
    return megvii.numbered(megvii.shapes(z), megvii.constants(z))


@pytest.fixture
def no_draws(monkeypatch):
    """Full-size models without the time of drawing their weights."""
    for draw in ('kaiming_uniform_', 'kaiming_normal_', 'uniform_', 'normal_'):
        monkeypatch.setattr(torch.nn.init, draw, lambda tensor, *args, **kwargs: tensor)


@pytest.mark.usefixtures('no_draws')
@pytest.mark.parametrize('model', FULL)
def test_every_entry_is_accounted_for_and_comes_back(model):
    backbone, entries = FULL[model]
    file = lightning(file_of(backbone=backbone, refine='da' in model))
    assert len(file['state_dict']) == entries
    ours, report = converter.convert(file, model)
    assert len(ours['state_dict']) == entries - 4
    assert f'{entries} entries, {entries - 4} converted\n  4 set aside: constant of' in report
    assert same(converter.revert(ours, model)[0]['state_dict'], file['state_dict'])
    del ours['set_aside'], ours['meta']  # as a model trained here: constants are made
    back = converter.revert(ours, model)[0]['state_dict']
    assert back.keys() == file['state_dict'].keys()
    for name, value in file['state_dict'].items():
        torch.testing.assert_close(back[name], value, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize('change, message', [
    (lambda s: s.pop('head.trunk.bn1.bias'), r'1 entries missing, .*head.trunk.bn1.bias'),
    (lambda s: s.update(extra=torch.zeros(1)), 'extra'),
    (lambda s: s.pop('backbone.voxel_num'), 'backbone.voxel_num is missing'),
    (lambda s: s.update({'backbone.voxel_num': torch.tensor([256, 256, 1])}),
     'backbone.voxel_num is that of another image size, grid or depth'),
    (lambda s: s.update({'backbone.frustum': s['backbone.frustum'] + 0.25}),
     'backbone.frustum is that of another'),
    (lambda s: s.update({'head.trunk.bn1.bias': torch.full((160, ), float('nan'))}),
     'head.trunk.bn1.bias holds NaN')])
@pytest.mark.usefixtures('no_draws')
def test_another_file_is_refused(change, message):
    file = file_of(backbone=18)
    change(file)
    with pytest.raises(UserError, match=message):
        converter.convert(file, 'bevdepth-r18')


@pytest.mark.usefixtures('no_draws')
def test_another_backbone_is_refused():
    with pytest.raises(UserError, match='entries missing'):
        converter.convert(file_of(backbone=18), 'bevdepth-mobilenetv2')


@pytest.mark.usefixtures('no_draws')
def test_both_models_of_lgkd():
    """A student of R18 on 0.4 m, a teacher of R50 with a neck of 640 channels."""
    student, teacher = file_of(backbone=18, cell=0.4), file_of(backbone=50, fpn=160, cell=0.4)
    file = {name.replace('backbone.', 'backbone_s.', 1) if name.startswith('backbone.')
            else name.replace('head.', 'head_s.', 1): value for name, value in student.items()}
    file |= teacher
    for part in ('backbone', 'backbone_s'):
        file[f'{part}.fine_depth_net.0.weight'] = torch.randn(3, 3)
    file = lightning(file)
    for model, part, other, count in (
            ('lgkd-student', student, '862 set aside: the teacher', 663),
            ('lgkd-teacher', teacher, '664 set aside: the student', 861)):
        ours, report = converter.convert(file, model)
        state = ours['state_dict']
        assert len(state) == count - 4 and other in report  # with the finer depth of the other
        assert 'the finer depth' in report and 'cells of 0.4 m' in report
        weight = 'depth_net.reduce_conv.0.weight'
        assert torch.equal(state[f'camera_branch.view_transform.{weight}'],
                           part[f'backbone.{weight}'])
        assert torch.equal(state['bev_encoder.backbone.conv1.weight'],
                           part['head.trunk.conv1.weight'])
        assert same(converter.revert(ours, model)[0]['state_dict'], file['state_dict'])


# The whole network --------------------------------------------------------------------------------

def small_release(z):
    """Ours with the settings of the release's config, and the converter's view of it."""
    release = converter.release_of('bevdepth-r18' + '-da' * z.refine, {})
    model, square = release.config.model, dict(x_range=(-z.reach, z.reach),
                                               y_range=(-z.reach, z.reach))
    release.config.image_size = z.size
    model.grid.update(square)
    branch = model.camera_branch
    branch.encoder.backbone.update(base_channels=z.base, init_cfg=None)
    branch.encoder.neck.update(in_channels=z.levels, out_channels=(z.fpn, ) * 4)
    branch.view_transform.update(square, in_channels=4 * z.fpn, channels=z.context, depth=z.bins)
    branch.view_transform.depth_net.mid_channels = z.mid
    into = z.context * z.frames
    model.bev_encoder.backbone.update(in_channels=into, base_channels=z.trunk)
    model.bev_encoder.neck.update(in_channels=(into, z.trunk, 2 * z.trunk, 4 * z.trunk),
                                  out_channels=(z.neck, ) * 4)
    model.head.update(in_channels=4 * z.neck, shared_channels=z.head)
    model.aux_losses.depth.depth = z.bins
    return release


def loaded(z, seed):
    """Our model with converted weights, and the release's."""
    state = megvii.release(z, seed)
    mean = torch.tensor([115.0, 115, 148, 92, 0, 0, 40, 0, 0, 20, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0,
                         0, 0, 0, 0, 0, 1])
    state['backbone.depth_net.bn.running_mean'] = mean
    state['backbone.depth_net.bn.running_var'] = (0.1 * mean.abs() + 0.7).square()
    release = small_release(z)
    model = converter.build(release).eval()
    model.load_state_dict(converter.convert_state(state, release, model)[0])
    return model, megvii.Release(state, z)


@pytest.mark.parametrize('refine', [False, True])
def test_whole_networks_compute_what_the_release_computes(refine):
    z = replace(SMALL, refine=refine)
    model, release = loaded(z, 3)
    mats = rigs.draw(4, z.size)
    rig, past = rigs.rigs(mats, z.size)
    torch.manual_seed(5)
    images = torch.randn(2, 2, 2, 3, *z.size)
    with torch.no_grad():
        expected = release(images, rigs.tensors(mats))
        got = model(dict(imgs=images, rig=rig, past_rigs=[past]))
        names = [[('a', 'b'), ('c', 'd')], [('e', 'f'), ('g', 'h')]]
        kept = model(dict(imgs=images, rig=rig, past_rigs=[past], img_paths=names))
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert value.shape[-2:] == (32, 32) and value.std() > 0.02
        assert (got[name] - value).norm() / value.norm() < 1e-4, name
        assert (kept[name] - value).norm() / value.norm() < 1e-4, name


def test_the_depth_loss_is_that_of_the_release():
    z = SMALL
    mats = rigs.draw(6, z.size)
    rig, _ = rigs.rigs(mats, z.size)
    torch.manual_seed(7)
    clouds, logits = [], 2 * torch.randn(2, 2, len(z.depths), 4, 8)
    for b in range(2):
        cloud = torch.randn(3000, 3) * torch.tensor([6.0, 6, 1.5]) + torch.tensor([0, 0, 1.0])
        clouds.append(one_each_pixel(cloud, b, mats))
    expected = megvii.depth_loss(logits.flatten(0, 1), clouds, rigs.tensors(mats), z, rigs.RAW)
    bda = rigs.tensors(mats)['bda']
    moved = [cloud @ bda[b, :3, :3].T for b, cloud in enumerate(clouds)]
    cfg = dict(small_release(z).config.model.aux_losses.depth)
    assert cfg.pop('type') == 'DepthLoss'
    loss = DepthLoss(**cfg)({cfg['tap']: logits}, dict(points=moved, rig=rig), None)['loss']
    assert expected > 1
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for change in (dict(cell='center'), dict(nearest='in_bins'), dict(border=None)):
        other = DepthLoss(**{**cfg, **change})(
            {cfg['tap']: logits}, dict(points=moved, rig=rig), None)['loss']
        assert abs(other - expected) > 1e-4 * expected, change


def one_each_pixel(cloud, sample, mats):
    """Points of which no two are in one pixel of any camera: the order does not matter."""
    for n in range(2):
        mat = {name: rigs.tensors(mats)[name][sample, 0, n] for name in ('sensor2ego', 'intrin',
                                                                         'ida')}
        local = torch.inverse(mat['sensor2ego'])
        xyz = cloud @ local[:3, :3].T + local[:3, 3]
        uv = (xyz @ mat['intrin'][:3, :3].T)[:, :2] / xyz[:, 2:]
        uv = (uv @ mat['ida'][:2, :2].T + mat['ida'][:2, 3]).trunc().long()
        pixels = [(u, v) if z > 0 else k for k, (u, v, z) in enumerate(
            zip(*uv.T.tolist(), xyz[:, 2].tolist()))]
        cloud = cloud[sorted({pixel: k for k, pixel in enumerate(pixels)}.values())]
    return cloud
