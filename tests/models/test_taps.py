"""Taps: addresses, runs, and that every module fires alike whatever the settings."""
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.models.taps import Tap, TapRecorder, record_taps
from tests.factories import CAMERA, LIDAR, batch, build

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('address, expected', [
    ('student.fuser', ('student', 'fuser', None, None)),
    ('lidar.bev_encoder.stages.0', ('lidar', 'bev_encoder.stages.0', None, None)),
    ('student.bev_encoder[-1]', ('student', 'bev_encoder', -1, None)),
    ('student.head[heatmap]', ('student', 'head', 'heatmap', None)),
    ('student.head[seg.segmentation]', ('student', 'head', 'seg.segmentation', None)),
    ('student.camera_branch.encoder@1', ('student', 'camera_branch.encoder', None, 1)),
    ('student.encoder@0[2]', ('student', 'encoder', 2, 0))])
def test_addresses(address, expected):
    tap = Tap.parse(address)
    assert (tap.role, tap.module, tap.key, tap.run) == expected


@pytest.mark.parametrize('address', ['student', 'student.', 'student.a[', 'student.a[1.5]',
                                     'student.a@x', 'student.a[0]@1', '.a'])
def test_other_addresses_are_refused(address):
    with pytest.raises(UserError, match='expected role.module'):
        Tap.parse(address)


class Twice(nn.Module):
    """Runs one layer twice and returns a dict."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        first = self.layer(x)
        return dict(first=first, second=self.layer(first))


def record(module, *addresses, stop=False):
    taps, recorder = [Tap.parse(address) for address in addresses], TapRecorder()
    with record_taps('student', nn.ModuleDict(dict(net=module)), taps, recorder, stop):
        return module(torch.ones(1, 2)), recorder


def test_a_module_that_runs_twice_needs_the_run():
    with pytest.raises(UserError, match="runs more than once.*'student.net.layer@0' for the first"):
        record(Twice(), 'student.net.layer')
    out, found = record(Twice(), 'student.net.layer@0', 'student.net.layer@1', 'student.net[first]')
    assert found['student.net.layer@0'] is out['first'] is found['student.net[first]']
    assert found['student.net.layer@1'] is out['second']


def test_a_run_that_does_not_happen():
    _, found = record(Twice(), 'student.net.layer@2')
    with pytest.raises(UserError, match='not as often as the tap says'):
        found['student.net.layer@2']


@pytest.mark.parametrize('address, message', [
    ('student.net', 'returns dict with the keys first, second, not a tensor; add an index'),
    ('student.net[third]', r'returns dict with the keys first, second, which has no \[third\]'),
    ('student.net.layer@0[0]', None)])
def test_what_is_no_tensor(address, message):
    if message is None:  # an element of a tensor is one
        assert record(Twice(), address)[1][address].shape == (2, )
    else:
        with pytest.raises(UserError, match=message):
            record(Twice(), address)


def test_the_forward_stops_when_every_tap_has_fired():
    ran = []
    module = Twice()
    module.layer.register_forward_hook(lambda *_: ran.append(1))
    taps, recorder = [Tap.parse('student.net.layer@0')], TapRecorder()
    with record_taps('student', nn.ModuleDict(dict(net=module)), taps, recorder, stop=True):
        module(torch.ones(1, 2))
    assert len(ran) == 1 and len(module.layer._forward_hooks) == 1  # the one of this test


# Every module of every tiny model -----------------------------------------------------------------

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterDict)
TRAINING = ('data_preprocessor', 'losses', 'loss_', 'weights', 'criterion', 'aux_losses',
            'drop_path')


def outputs(model, inputs, mode='tensor'):
    """Output of each module that has a forward, by name."""
    found = {}
    handles = [module.register_forward_hook(
        lambda _, __, out, name=name: found.__setitem__(name, out))
        for name, module in model.named_modules() if not isinstance(module, CONTAINERS)]
    torch.manual_seed(3)
    model(inputs)
    for handle in handles:
        handle.remove()
    return found


def named(model):
    return {name for name, module in model.named_modules()
            if name and not isinstance(module, CONTAINERS)
            and not any(word in name for word in TRAINING)}


def with_order(branch, order):
    return branch and {**branch, 'view_transform': {**branch['view_transform'], 'order': order}}


@pytest.mark.parametrize('flips', [None, dict(image=0.5, rows=0.5, cols=0.5),
                                   dict(rows=1.0, cols=0.5, undo_late=True)])
@pytest.mark.parametrize('camera, lidar', [(CAMERA, None), (None, LIDAR), (CAMERA, LIDAR)])
def test_every_module_fires_alike_in_both_orders(camera, lidar, flips):
    if flips and 'undo_late' in flips and lidar:
        pytest.skip('a LiDAR branch takes no undo_late')
    found = []
    for order in ('sample_first', 'conv_first'):
        model = build(with_order(camera, order), with_order(lidar, order), flips=flips).train()
        found.append(outputs(model, model.data_preprocessor(batch(), True)['inputs']))
        assert named(model) <= set(found[-1])
    first, second = found
    for name, out in first.items():
        if isinstance(out, torch.Tensor):
            torch.testing.assert_close(second[name], out, atol=2e-4, rtol=1e-3, msg=name)


TINY = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').glob('*/*toytown*.py')
              if 'distill' not in path.name)


@pytest.mark.parametrize('order', ['sample_first', 'conv_first'])
@pytest.mark.parametrize('name', TINY)
def test_every_module_of_every_tiny_model_fires(name, order, world_of, monkeypatch):
    from mmdet3d.registry import DATASETS
    from mmengine.dataset import pseudo_collate
    config = Config.fromfile(ROOT / name)
    for branch in filter(None, (config.model.get('camera_branch'),
                                config.model.get('lidar_branch'))):
        if branch.get('view_transform', {}).get('type') == 'VoxelPulling':
            branch.view_transform.order = order
    config.train_dataloader.dataset.data_root = str(world_of(config))
    dataset = DATASETS.build(config.train_dataloader.dataset)
    model = MODELS.build(config.model)
    inputs = model.data_preprocessor(pseudo_collate([dataset[0]]), True)['inputs']
    model.eval()
    assert named(model) - set(outputs(model, inputs)) == set()
