import pytest
import torch
import torch.nn.functional as F

from mmdet3d_plugin.models.lidar import sparse_conv
from mmdet3d_plugin.models.lidar.sparse_conv import SparseConv3d, SparseMap, SubMConv3d

SHAPE = (9, 8, 7)


def sites(channels=4, share=0.1, dtype=torch.float64):
    torch.manual_seed(0)
    index = (torch.rand(2, *SHAPE) < share).nonzero()
    index = index[torch.randperm(len(index))]
    return SparseMap(torch.randn(len(index), channels, dtype=dtype, requires_grad=True), index,
                     SHAPE, 2)


def dense_conv(conv, x):
    return F.conv3d(x, conv.weight.permute(4, 3, 0, 1, 2), stride=conv.stride,
                    padding=conv.padding)


CONVS = {
    'submanifold': lambda: SubMConv3d(4, 3),
    'submanifold_1_3_5': lambda: SubMConv3d(4, 3, (1, 3, 5)),
    'stride_2': lambda: SparseConv3d(4, 3, 3, 2, 1),
    'stride_2_uneven': lambda: SparseConv3d(4, 3, 3, 2, (1, 1, 0)),
    'squeeze': lambda: SparseConv3d(4, 3, (1, 1, 3), (1, 1, 2), 0),
    'stride_1': lambda: SparseConv3d(4, 3, 3, 1, 1),
}


@pytest.mark.parametrize('name', CONVS)
def test_equals_dense_convolution_forward_and_backward(name):
    x = sites()
    conv = CONVS[name]().double()
    out = conv(x)
    expected = dense_conv(conv, x.dense())
    where = out.index.T.tolist()
    assert out.dense().shape == expected.shape
    at_sites = expected.movedim(1, -1)[tuple(where)]
    torch.testing.assert_close(out.features, at_sites, rtol=0, atol=1e-12)
    target = torch.randn_like(out.features)
    grads = [torch.autograd.grad((y * target).sum(), (x.features, conv.weight))
             for y in (out.features, at_sites)]
    for ours, dense in zip(*grads):
        torch.testing.assert_close(ours, dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize('name', CONVS)
def test_active_sites(name):
    x = sites()
    conv = CONVS[name]()
    active = (x.dense().abs().sum(1, keepdim=True) > 0).float()
    reached = F.conv3d(active, torch.ones(1, 1, *conv.kernel_size), stride=conv.stride,
                       padding=conv.padding)[:, 0] > 0
    out = conv.double()(x)
    if name.startswith('submanifold'):
        assert out.index is x.index
    else:
        assert torch.equal(out.index, reached.nonzero())


def test_no_active_site():
    empty = SparseMap(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.int64), SHAPE, 2)
    out = SparseConv3d(4, 3, 3, 2, 1)(SubMConv3d(4, 4)(empty))
    assert out.dense().shape == (2, 3, 5, 4, 4) and out.dense().eq(0).all()


def test_gradient_numerically():
    x, conv = sites(2, 0.02), SparseConv3d(2, 2, 3, 2, 1).double()
    rules, index, _ = sparse_conv.strided_rules(x, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    assert torch.autograd.gradcheck(
        lambda f, w: sparse_conv.convolve(f, w, rules, len(index)), (x.features, conv.weight))


@pytest.mark.parametrize('name', ['submanifold', 'stride_2', 'squeeze'])
def test_spconv_computes_the_same(name, monkeypatch):
    pytest.importorskip('spconv', reason='spconv is optional: pip install spconv')
    x, conv = sites(dtype=torch.float32), CONVS[name]()
    expected = conv(x)
    monkeypatch.setattr(sparse_conv, 'use_spconv', lambda features: True)
    with torch.no_grad():
        out = conv(SparseMap(x.features, x.index, SHAPE, 2))
    torch.testing.assert_close(out.dense(), expected.dense(), rtol=0, atol=1e-5)
