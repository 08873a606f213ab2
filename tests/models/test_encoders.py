"""Image encoders: paddings, stochastic depth, and the panorama's seam."""
import pytest
import torch
from mmdet.models.layers import InvertedResidual
from mmdet3d.registry import MODELS

from mmdet3d_plugin.models.layers import SameConv2d, wrap_columns


def efficientnet(**kwargs):
    torch.manual_seed(0)
    network = MODELS.build(dict(type='EfficientNet', **kwargs)).eval()
    network.init_weights()
    return network


@pytest.mark.parametrize('arch, outs, blocks, last', [
    ('b0', (6, ), 16, 0.2 * 15 / 16), ('b0', (3, 4), 11, 0.2 * 10 / 11),
    ('b4', (3, 4), 22, 0.2 * 21 / 22)])
def test_stochastic_depth_grows_with_the_existing_blocks(arch, outs, blocks, last):
    parts = [m for m in efficientnet(arch=arch, out_indices=outs).modules()
             if isinstance(m, InvertedResidual)]
    assert len(parts) == blocks
    assert isinstance(parts[0].drop_path, torch.nn.Identity)
    assert parts[-1].drop_path.drop_prob == pytest.approx(last)


@pytest.mark.parametrize('arch, kernel, padding', [
    # 224 and 380 halved (upwards) five times; total (out - 1) s + k - in, the odd pixel last.
    ('b0', 5, [(1, 2), (1, 2)]), ('b4', 5, [(2, 2), (1, 2)])])
def test_fixed_padding_is_that_of_imagenet(arch, kernel, padding):
    network = efficientnet(arch=arch, fixed_padding=True)
    strided = [m for m in network.modules() if isinstance(m, SameConv2d) and m.stride[0] == 2
               and m.kernel_size[0] == kernel]
    assert [conv._padding(1024, -1) for conv in strided] == padding
    free = efficientnet(arch=arch)
    with torch.no_grad():
        images = torch.randn(1, 3, 64, 128)
        same = torch.equal(network(images)[0], free(images)[0])
    assert same == (arch == 'b0')


def test_same_convolution_keeps_ceil_of_size_over_stride():
    conv = SameConv2d(1, 1, 3, stride=2)
    assert conv(torch.zeros(1, 1, 7, 8)).shape == (1, 1, 4, 4)
    assert conv._padding(7, 0) == (1, 1) and conv._padding(8, 1) == (0, 1)


RESNET = dict(type='mmdet.ResNet', depth=18, base_channels=8, num_stages=3, strides=(1, 2, 2),
              dilations=(1, 1, 1), out_indices=(1, 2), norm_eval=False)
JOIN = dict(type='UpsampleConcat', in_channels=(16, 32), mid_channels=16, out_channels=8)


@pytest.mark.parametrize('backbone, neck, stride', [
    (RESNET, JOIN, 16),
    (dict(type='EfficientNet', arch='b0', drop_path_rate=0),
     dict(type='Projection', in_channels=1280, out_channels=8), 32)])
def test_a_wrapped_encoder_turns_with_the_panorama(backbone, neck, stride):
    cfg = dict(type='ImageEncoder', backbone=backbone, neck=neck)
    torch.manual_seed(0)
    wrapped, plain = MODELS.build(dict(cfg, wrap=True)), MODELS.build(cfg)
    plain.load_state_dict(wrapped.state_dict())
    images = torch.randn(1, 3, 64, 256)
    with torch.no_grad():  # in training mode: batch norm keeps the signal's scale
        features, turned = wrapped(images), wrapped(images.roll(2 * stride, -1))
        shift = 2 * stride * features.shape[-1] // 256
        torch.testing.assert_close(turned, features.roll(shift, -1), rtol=1e-3, atol=1e-4)
        assert plain(images).shape == features.shape
        assert not torch.allclose(plain(images), features, atol=1e-3)


def test_wrapping_refuses_a_convolution_that_pads_by_itself():
    with pytest.raises(ValueError, match='use type EfficientNet'):
        wrap_columns(MODELS.build(dict(type='mmdet.EfficientNet', arch='b0')))
