"""Sparse 3-D convolution: plain torch everywhere, spconv on a GPU that has it."""
import itertools
import math
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Dict, List, Sequence, Tuple

import torch
import torch.nn.functional as F
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
            if source is target:  # the middle of a submanifold convolution: each site itself
                out.addmm_(features, w)
            elif len(source):
                out.index_add_(0, target, features.index_select(0, source) @ w)
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
            gathered = upstream.index_select(0, target)
            if grad_features is not None:
                grad_features.index_add_(0, source, gathered @ weight[n].T)
            if grad_weight is not None:
                grad_weight[n] = features.index_select(0, source).T @ gathered
        return grad_features, grad_weight, None, *(None for _ in rows)


# Rules: (output site) * stride - padding + (place in the kernel) = (input site) -------------------


@torch.no_grad()
def submanifold_rules(sites: SparseMap, kernel_size: Sequence[int]) -> Rules:
    """Rules of a convolution whose output has the sites of its input.

    Sites are numbered with a margin as wide as the kernel's reach, so that a place in the kernel is
    a constant step from number to number. The search for one step finds the steps after it along
    the last axis, too: a site's neighbours there are next in order. Places at equal
    distances before and after the middle have inverse rules.
    """
    reach = [length // 2 for length in kernel_size]
    shape = [length + 2 * margin for length, margin in zip(sites.shape, reach)]
    offset = sites.index.new_tensor([0, *reach])
    key, order = _keys(sites.index + offset, shape).sort()
    padded = F.pad(key, (0, 1), value=torch.iinfo(key.dtype).max)
    before = []
    for i, j in itertools.product(*map(range, kernel_size[:2])):
        step = (i - reach[0]) * shape[1] + j - reach[1]
        if step > 0:
            break
        source = key + step * shape[2] - reach[2]
        place = torch.searchsorted(key, source)
        for _ in range(kernel_size[2] if step else reach[2]):
            hit = padded[place] == source
            rows = hit.nonzero()[:, 0]
            before.append((order[place[rows]], order[rows]))
            place, source = place + hit, source + 1
    rows = torch.arange(len(key), device=key.device)
    after = [(source, target) for target, source in reversed(before)]
    return [*before, (rows, rows), *after]


@torch.no_grad()
def strided_rules(sites: SparseMap, kernel_size: Sequence[int], stride: Sequence[int],
                  padding: Sequence[int]) -> Tuple[Rules, Tensor, Tuple[int, int, int]]:
    """Rules of a convolution, the (V', 4) sites of its output in order, and its shape."""
    shape = tuple((n + 2 * p - k) // s + 1
                  for n, k, s, p in zip(sites.shape, kernel_size, stride, padding))
    sample, *site = sites.index.T
    axes, weight = [], 1  # at each place along an axis: what the site adds to the key, and if it is
    for along, length, k, s, p in reversed([*zip(site, shape, kernel_size, stride, padding)]):
        places = [along + p - offset for offset in range(k)]
        axes.insert(0, [(place // s * weight,
                         (place % s == 0) & (place >= 0) & (place < s * length))
                        for place in places])
        weight *= length
    first, found = sample * weight, []
    for (x, on_x), (y, on_y), (z, on_z) in itertools.product(*axes):
        rows = (on_x & on_y & on_z).nonzero()[:, 0]
        found.append((rows, first[rows] + x[rows] + y[rows] + z[rows]))
    keys, place = torch.cat([key for _, key in found]).unique(return_inverse=True)
    index = []
    rest = keys
    for length in reversed(shape):
        index.append(rest % length)
        rest = rest // length
    index = torch.stack([rest, *reversed(index)], 1)
    places = place.split([len(rows) for rows, _ in found])
    return [(rows, target) for (rows, _), target in zip(found, places)], index, shape


def _keys(index: Tensor, shape: Sequence[int]) -> Tensor:
    """(V,) int64 in the order of the sites."""
    sample, *site = index.T
    for length, along in zip(shape, site):
        sample = sample * length + along
    return sample


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
