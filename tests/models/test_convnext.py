"""ConvNeXt: OpenMMLab's names, and the maths of torchvision's network."""
import re

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from torch.nn import functional

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.models.backbones.convnext import ARCHS, ConvNeXt


def network(arch='base', **kwargs):
    """With weights at which every part counts."""
    torch.manual_seed(0)
    made = ConvNeXt(arch, layer_scale_init_value=1.0, **kwargs).eval()
    for name, value in made.named_parameters():
        if name.endswith('gamma') or 'norm' in name:
            torch.nn.init.uniform_(value, 0.3, 1.5)
    return made


def by_hand(state, x, depths):
    """The four stages and their norms, of functions alone."""
    def norm(x, name):
        x = functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], state[f'{name}.weight'],
                                  state[f'{name}.bias'], 1e-6)
        return x.permute(0, 3, 1, 2)

    def conv(x, name, **kwargs):
        return functional.conv2d(x, state[f'{name}.weight'], state[f'{name}.bias'], **kwargs)

    def linear(x, name):
        return functional.linear(x, state[f'{name}.weight'], state[f'{name}.bias'])

    outs = []
    for n, depth in enumerate(depths):
        down = f'downsample_layers.{n}'
        x = conv(norm(x, f'{down}.0'), f'{down}.1', stride=2) if n else norm(
            conv(x, f'{down}.0', stride=4), f'{down}.1')
        for block in range(depth):
            name = f'stages.{n}.{block}'
            y = conv(x, f'{name}.depthwise_conv', padding=3, groups=x.shape[1])
            y = linear(norm(y, f'{name}.norm').permute(0, 2, 3, 1), f'{name}.pointwise_conv1')
            y = linear(functional.gelu(y), f'{name}.pointwise_conv2') * state[f'{name}.gamma']
            x = x + y.permute(0, 3, 1, 2)
        outs.append(norm(x, f'norm{n}'))
    return outs


def test_the_maps_are_those_of_the_maths():
    made = network('tiny')
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found, expected = made(x), by_hand(made.state_dict(), x, ARCHS['tiny'][0])
    assert [out.shape[1:] for out in found] == [(96, 16, 24), (192, 8, 12), (384, 4, 6),
                                                (768, 2, 3)]
    for out, other in zip(found, expected):
        torch.testing.assert_close(out, other, rtol=1e-5, atol=1e-5)


def theirs_of(state, model):
    """torchvision's names for OpenMMLab's; ``gamma`` is a map there."""
    names = dict(depthwise_conv='block.0', norm='block.2', pointwise_conv1='block.3',
                 pointwise_conv2='block.5')
    renamed = {}
    for name, value in state.items():
        parts = name.split('.')
        if parts[0] == 'downsample_layers':
            renamed[f'features.{2 * int(parts[1])}.{".".join(parts[2:])}'] = value
        elif parts[0] == 'stages':
            stage, block = f'features.{2 * int(parts[1]) + 1}', parts[2]
            if parts[3] == 'gamma':
                renamed[f'{stage}.{block}.layer_scale'] = value[:, None, None]
            else:
                renamed[f'{stage}.{block}.{names[parts[3]]}.{parts[4]}'] = value
    return renamed


def test_equal_to_torchvision():
    models = pytest.importorskip('torchvision.models')
    theirs, made = models.convnext_base().eval(), network('base')
    renamed = theirs_of(made.state_dict(), theirs)
    missing, unknown = theirs.load_state_dict(renamed, strict=False)
    assert not unknown and {name.split('.')[0] for name in missing} == {'classifier'}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        last = theirs.features(x)
        expected = made.norm3(last)
        torch.testing.assert_close(made(x)[3], expected, rtol=1e-5, atol=1e-5)


def test_names_and_numbers_are_those_of_openmmlabs_checkpoint():
    made = ConvNeXt('base')
    state = made.state_dict()
    # ImageNet's 88 591 464 have a classifier of 1 025 000; norms of three more outputs
    assert sum(value.numel() for value in state.values()) == (
        88_591_464 - 1_025_000 + 2 * (128 + 256 + 512))
    blocks = {re.sub(r'\d+', 'N', name) for name in state}
    assert blocks == {
        f'{part}.{kind}' for part in
        ('downsample_layers.N.N', 'stages.N.N.depthwise_conv', 'stages.N.N.norm',
         'stages.N.N.pointwise_convN', 'normN') for kind in ('weight', 'bias')} | {
        'stages.N.N.gamma'}
    assert state['stages.2.26.pointwise_conv1.weight'].shape == (2048, 512)
    assert (state['stages.3.0.gamma'] == 1e-6).all()


def test_depth_is_stochastic_stages_freeze_and_outputs_are_chosen():
    made = ConvNeXt('tiny', drop_path_rate=0.34, out_indices=(1, 2), frozen_stages=1)
    drops = [getattr(block.drop_path, 'drop_prob', 0.0) for stage in made.stages
             for block in stage]
    assert drops == pytest.approx([0.02 * n for n in range(18)])
    made.train()
    assert not made.stages[0].training and made.stages[1].training
    frozen = {name for name, value in made.named_parameters() if not value.requires_grad}
    assert {name.rsplit('.', 1)[0][:19] for name in frozen if 'down' in name} == {
        'downsample_layers.0'} and all('.0.' in name for name in frozen)
    outs = made(torch.randn(2, 3, 32, 32))
    assert [out.shape[1:] for out in outs] == [(192, 4, 4), (384, 2, 2)]
    with pytest.raises(UserError, match="arch: 'bas' is none; did you mean 'base'"):
        ConvNeXt('bas')
    with pytest.raises(UserError, match='out_indices: expected some of 0 to 3'):
        ConvNeXt(out_indices=(4, ))
    with pytest.raises(UserError, match='gap_before_final_norm: a backbone gives maps'):
        ConvNeXt(gap_before_final_norm=True)


def test_the_config_reads_its_imagenet_weights(tmp_path):
    config = Config.fromfile('configs/detection/bevdepth_student_convnextb_24e_nuscenes.py')
    backbone = config.model.camera_branch.encoder.backbone
    state = ConvNeXt('base', out_indices=(3, )).state_dict()
    torch.save(dict(state_dict={f'backbone.{name}': value + 1 for name, value in state.items()}),
               tmp_path / 'in1k.pth')
    backbone.init_cfg.checkpoint = str(tmp_path / 'in1k.pth')
    made = MODELS.build(backbone)
    made.init_weights()
    for name, value in state.items():
        assert torch.equal(made.state_dict()[name], value + 1)
    assert config.model.camera_branch.encoder.neck.in_channels == (128, 256, 512, 1024)
