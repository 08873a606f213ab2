"""Small building blocks shared by encoders, necks and heads."""
from functools import partial
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks import Conv2dAdaptivePadding
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.utils import _pair


def conv_in_relu(in_channels: int, out_channels: int) -> ConvModule:
    """3x3 convolution without bias, instance norm without parameters, ReLU."""
    return ConvModule(in_channels, out_channels, 3, padding=1, bias=False,
                      norm_cfg=dict(type='IN', affine=False))


@MODELS.register_module()
class SameConv2d(nn.Conv2d):
    """Convolution whose output has ceil(size / stride) cells, the odd padding pixel last.

    Attributes:
        nominal_size (int, optional): Side for which the padding is computed; None: the input's.
        wrap (bool): Columns continue across the left and right border.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1,
                 groups=1, bias=True):
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)
        self.nominal_size: Optional[int] = None
        self.wrap = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        rows, cols = (self._padding(x.shape[axis], axis) for axis in (-2, -1))
        even = not self.wrap and rows[0] == rows[1] and cols[0] == cols[1]
        if even:  # without a copy
            return F.conv2d(x, self.weight, self.bias, self.stride, (rows[0], cols[0]),
                            self.dilation, self.groups)
        return super().forward(pad(x, cols, rows, self.wrap))

    def _padding(self, size: int, axis: int) -> Tuple[int, int]:
        size = self.nominal_size or size
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        return total // 2, total - total // 2


def pad(x: Tensor, cols: Tuple[int, int], rows: Tuple[int, int] = (0, 0),
        wrap: bool = True) -> Tensor:
    """Pad (before, after) columns, circularly if ``wrap``, and rows with zeros."""
    if not any((*cols, *rows)):
        return x
    if not wrap:
        return F.pad(x, (*cols, *rows))
    if any(cols):  # F.pad(mode='circular') has no counterpart in most runtimes
        x = torch.cat([x[..., x.shape[-1] - cols[0]:], x, x[..., :cols[1]]], -1)
    return F.pad(x, (0, 0, *rows)) if any(rows) else x


def wrap_columns(network: nn.Module) -> None:
    """Let an image network treat its input as a panorama: columns continue across the border.

    Every padding along the width becomes circular, in convolutions, pooling and the layers with an
    attribute ``wrap``. Rolling the columns by a multiple of the network's stride then rolls those
    of its features and changes nothing else.

    Args:
        network (nn.Module): Changed in place; parameters and their names stay.

    Raises:
        ValueError: It holds a convolution that chooses its padding itself.
    """
    for layer in network.modules():
        if hasattr(layer, 'wrap'):
            layer.wrap = True
        elif isinstance(layer, Conv2dAdaptivePadding):
            raise ValueError('wrap: mmdet.EfficientNet pads by itself; use type EfficientNet')
        elif isinstance(layer, (nn.Conv2d, nn.MaxPool2d)) and _pair(layer.padding)[1]:
            rows, cols = _pair(layer.padding)
            layer.padding = (rows, 0)
            layer.register_forward_pre_hook(partial(_pad_input, cols=(cols, cols)))


def _pad_input(layer: nn.Module, args: tuple, cols: Tuple[int, int]) -> tuple:
    return (pad(args[0], cols), *args[1:])


class freeze_bn_stats:  # noqa: N801 (used like a function)
    """Run a network in training mode without updating its running statistics.

    It may be entered more than once, as by two backward passes over a checkpointed part.
    """

    def __init__(self, network: nn.Module):
        self.norms = [m for m in network.modules()
                      if isinstance(m, _NormBase) and m.track_running_stats]

    def __enter__(self) -> None:
        self.saved = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *error) -> None:
        for norm, (momentum, count) in zip(self.norms, self.saved):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
