"""Deformable convolution in plain torch."""
import math
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeformConv2d(nn.Module):
    """Deformable convolution (Dai et al. 2017) of stride 1, ``modulated`` as its second version.

    Equal to mmcv's ``DCN`` and ``DCNv2`` with the same weights, whose names it keeps, on every
    device and in every runtime that has ``grid_sample``. Starts as the plain convolution (its
    modulated form as half of it).

    Args:
        in_channels, out_channels (int): C and C'.
        kernel_size (int): K, odd.
        groups (int): Of the convolution; the offsets are common to all.
        bias (bool): Whether the convolution has one.
        modulated (bool): Weight each sample by a sigmoid.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, groups: int = 1,
                 bias: bool = True, modulated: bool = True):
        super().__init__()
        self.groups, self.modulated, self.kernel_size = groups, modulated, kernel_size
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.conv_offset = nn.Conv2d(in_channels, (3 if modulated else 2) * kernel_size**2,
                                     kernel_size, padding=kernel_size // 2)
        bound = 1 / math.sqrt(in_channels * kernel_size**2)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        taps = self.kernel_size**2
        offset = self.conv_offset(x)
        samples = _sample(x, offset[:, :2 * taps].unflatten(1, (taps, 2)), self.kernel_size)
        if self.modulated:
            samples = samples * offset[:, None, 2 * taps:].sigmoid()
        batch, _, _, height, width = samples.shape
        columns = samples.reshape(batch, self.groups, -1, height * width)
        weight = self.weight.reshape(self.groups, len(self.weight) // self.groups, -1)
        out = (weight @ columns).reshape(batch, -1, height, width)
        return out if self.bias is None else out + self.bias[:, None, None]


def _sample(x: Tensor, offset: Tensor, kernel_size: int) -> Tensor:
    """Bilinear samples of the taps of every cell, zeros outside.

    Args:
        x (Tensor): (B, C, H, W).
        offset (Tensor): (B, K * K, 2, H, W), of (row, column).
        kernel_size (int): K.

    Returns:
        Tensor: (B, C, K * K, H, W).
    """
    height, width = x.shape[-2:]
    row, col = (base + moved for base, moved in zip(
        _positions(x, kernel_size), offset.unbind(2)))
    position = torch.stack([(2 * col + 1) / width - 1, (2 * row + 1) / height - 1], -1)
    sampled = F.grid_sample(x, position.flatten(1, 2), mode='bilinear', padding_mode='zeros',
                            align_corners=False)
    return sampled.unflatten(2, (kernel_size**2, height))


def _positions(x: Tensor, kernel_size: int) -> Tuple[Tensor, Tensor]:
    """Row (K * K, H, 1) and column (K * K, 1, W) of the taps without offset."""
    height, width = x.shape[-2:]
    reach = kernel_size // 2
    tap = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    row = torch.arange(height, device=x.device, dtype=x.dtype)
    col = torch.arange(width, device=x.device, dtype=x.dtype)
    rows = tap.repeat_interleave(kernel_size)[:, None] + row
    cols = tap.repeat(kernel_size)[:, None] + col
    return rows[:, :, None], cols[:, None]
