"""Sparse 3-D convolution: plain torch everywhere, spconv on a GPU that has it."""
import math
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _triple

Rules = List[Tuple[Tensor, Tensor]]
"""For each weight of a kernel, the rows of the input and those of the output that it joins."""


@dataclass(frozen=True)
class SparseMap:
    """Features at the active sites of a batch of grids.

    Attributes:
        features (Tensor): (V, C).
        index (Tensor): (V, 4) int64: sample, and the site along the three axes; each once.
        shape (tuple): Sites along the three axes.
        batch_size (int): B.
        rules (dict): Rules of submanifold convolutions of these sites, by kernel size.
    """
    features: Tensor
    index: Tensor
    shape: Tuple[int, int, int]
    batch_size: int
    rules: Dict[tuple, Rules] = field(default_factory=dict)

    def with_features(self, features: Tensor) -> 'SparseMap':
        """Other features at the same sites."""
        return replace(self, features=features)

    def dense(self) -> Tensor:
        """(B, C, *shape), zero where no site is active."""
        sample, *site = self.index.T
        out = self.features.new_zeros(self.batch_size, *self.shape, self.features.shape[1])
        return out.index_put((sample, *site), self.features).movedim(-1, 1)


class SparseConv3d(nn.Module):
    """Convolution without bias whose output is active where its kernel meets an active site.

    Equal to ``F.conv3d`` of the dense map at the active sites. The weight has the axes of the
    first spconv and of mmcv: (kernel, kernel, kernel, in, out).

    Args:
        in_channels, out_channels (int): Channels.
        kernel_size, stride, padding (int | tuple): Along the three axes.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size=3, stride=1, padding=0):
        super().__init__()
        self.kernel_size, self.stride, self.padding = map(_triple, (kernel_size, stride, padding))
        self.weight = nn.Parameter(torch.empty(*self.kernel_size, in_channels, out_channels))
        bound = 1 / math.sqrt(in_channels * math.prod(self.kernel_size))  # as nn.Conv3d
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, sites: SparseMap) -> SparseMap:
        """Convolve."""
        if use_spconv(sites.features):
            return _run_spconv(self, sites)
        rules, index, shape = strided_rules(sites, self.kernel_size, self.stride, self.padding)
        features = convolve(sites.features, self.weight, rules, len(index))
        return SparseMap(features, index, shape, sites.batch_size)


class SubMConv3d(SparseConv3d):
    """Submanifold convolution: the active sites stay as they are. Odd kernels, stride 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size=3):
        super().__init__(in_channels, out_channels, kernel_size,
                         padding=tuple(k // 2 for k in _triple(kernel_size)))

    def forward(self, sites: SparseMap) -> SparseMap:
        """Convolve."""
        if use_spconv(sites.features):
            return _run_spconv(self, sites)
        if self.kernel_size not in sites.rules:
            sites.rules[self.kernel_size] = submanifold_rules(sites, self.kernel_size)
        rules = sites.rules[self.kernel_size]
        return sites.with_features(
            convolve(sites.features, self.weight, rules, len(sites.index)))


def convolve(features: Tensor, weight: Tensor, rules: Rules, num_out: int) -> Tensor:
    """(V, C) features to (num_out, C') by a (k, k, k, C, C') weight and its rules."""
    with torch.autocast(features.device.type, enabled=False):
        joined = [rows for rule in rules for rows in rule]
        return _Convolve.apply(features.to(weight.dtype), weight.flatten(0, 2), num_out, *joined)


class _Convolve(Function):
    """Gather, multiply, add for each weight; nothing gathered is kept for the backward pass."""

    @staticmethod
    def forward(ctx, features, weight, num_out, *rows):
        ctx.save_for_backward(features, weight, *rows)
        out = features.new_zeros(num_out, weight.shape[-1])
        for w, source, target in zip(weight, rows[::2], rows[1::2]):
            if len(source):
                out.index_add_(0, target, features[source] @ w)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        features, weight, *rows = ctx.saved_tensors
        grad_features = torch.zeros_like(features) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for n, (source, target) in enumerate(zip(rows[::2], rows[1::2])):
            if not len(source):
                continue
            gathered = upstream[target]
            if grad_features is not None:
                grad_features.index_add_(0, source, gathered @ weight[n].T)
            if grad_weight is not None:
                grad_weight[n] = features[source].T @ gathered
        return grad_features, grad_weight, None, *(None for _ in rows)


# Rules: (output site) * stride - padding + (place in the kernel) = (input site) -------------------


@torch.no_grad()
def submanifold_rules(sites: SparseMap, kernel_size: Sequence[int]) -> Rules:
    """Rules of a convolution whose output has the sites of its input."""
    key, order = _keys(sites.index, sites.shape).sort()
    rows, rules = torch.arange(len(key), device=key.device), []
    offsets = _offsets(kernel_size, key.device)
    for offset in offsets - offsets[len(offsets) // 2]:
        if not offset.any():
            rules.append((rows, rows))
            continue
        source, inside = _shifted(sites.index, offset, sites.shape)
        place = torch.searchsorted(key, source).clamp_max(len(key) - 1)
        found = inside & (key[place] == source) if len(key) else inside
        rules.append((order[place[found]], rows[found]))
    return rules


@torch.no_grad()
def strided_rules(sites: SparseMap, kernel_size: Sequence[int], stride: Sequence[int],
                  padding: Sequence[int]) -> Tuple[Rules, Tensor, Tuple[int, int, int]]:
    """Rules of a convolution, the (V', 4) sites of its output in order, and its shape."""
    shape = tuple((n + 2 * p - k) // s + 1
                  for n, k, s, p in zip(sites.shape, kernel_size, stride, padding))
    device = sites.index.device
    step = torch.tensor(stride, device=device)
    found = []
    for offset in _offsets(kernel_size, device):
        place = sites.index[:, 1:] + torch.tensor(padding, device=device) - offset
        site = torch.div(place, step, rounding_mode='floor')
        inside = (site * step == place) & (site >= 0) & (site < site.new_tensor(shape))
        rows = inside.all(1).nonzero()[:, 0]
        target = torch.cat([sites.index[rows, :1], site[rows]], 1)
        found.append((rows, _keys(target, shape)))
    keys = torch.cat([key for _, key in found]).unique()
    index = []
    rest = keys
    for length in reversed(shape):
        index.append(rest % length)
        rest = rest // length
    index = torch.stack([rest, *reversed(index)], 1)
    return [(rows, torch.searchsorted(keys, key)) for rows, key in found], index, shape


def _keys(index: Tensor, shape: Sequence[int]) -> Tensor:
    """(V,) int64 in the order of the sites."""
    sample, *site = index.T
    for length, along in zip(shape, site):
        sample = sample * length + along
    return sample


def _shifted(index: Tensor, offset: Tensor, shape: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """Keys of the sites ``offset`` further, and whether they are in the grid."""
    site = index[:, 1:] + offset
    inside = ((site >= 0) & (site < site.new_tensor(shape))).all(1)
    return _keys(torch.cat([index[:, :1], site], 1), shape), inside


def _offsets(kernel_size: Sequence[int], device) -> Tensor:
    """(kernel, 3) places in a kernel, in the order of its weights."""
    return torch.cartesian_prod(*(torch.arange(k, device=device) for k in kernel_size))


# spconv -------------------------------------------------------------------------------------------


def use_spconv(features: Tensor) -> bool:
    """Whether spconv computes: on a GPU, where the package is installed."""
    return features.is_cuda and find_spec('spconv') is not None


def _run_spconv(conv: SparseConv3d, sites: SparseMap) -> SparseMap:
    """The same convolution by spconv 2, whose weights are (out, kernel, kernel, kernel, in)."""
    import spconv.pytorch as spconv

    submanifold = isinstance(conv, SubMConv3d)
    kind = spconv.SubMConv3d if submanifold else spconv.SparseConv3d
    in_channels, out_channels = conv.weight.shape[-2:]
    layer = kind(in_channels, out_channels, conv.kernel_size, conv.stride, conv.padding,
                 bias=False, indice_key=str(conv.kernel_size) if submanifold else None)
    tensor = spconv.SparseConvTensor(
        sites.features.to(conv.weight.dtype), sites.index.int().contiguous(), list(sites.shape),
        sites.batch_size, indice_dict=sites.rules)
    weight = conv.weight.movedim(-1, 0).contiguous()
    with torch.autocast(sites.features.device.type, enabled=False):
        out = torch.func.functional_call(layer.to(weight.device), {'weight': weight}, (tensor, ))
    if submanifold:
        return sites.with_features(out.features)
    return SparseMap(out.features, out.indices.long(), tuple(out.spatial_shape), sites.batch_size)
