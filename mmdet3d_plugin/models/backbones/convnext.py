"""ConvNeXt as a backbone."""
from typing import List, Optional, Sequence, Tuple

import torch
from mmcv.cnn.bricks import DropPath
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ...errors import UserError, did_you_mean

ARCHS = {  # blocks and channels of the four stages
    'tiny': ((3, 3, 9, 3), (96, 192, 384, 768)),
    'small': ((3, 3, 27, 3), (96, 192, 384, 768)),
    'base': ((3, 3, 27, 3), (128, 256, 512, 1024)),
    'large': ((3, 3, 27, 3), (192, 384, 768, 1536)),
}


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each pixel of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        x = functional.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias,
                                  self.eps)
        return x.movedim(-1, 1)


class ConvNeXtBlock(BaseModule):
    """A 7x7 convolution of each channel, and an MLP of each pixel; added to the input.

    Args:
        channels (int): Of input and output.
        drop_path (float): Probability that a sample's sum is left out, in training.
        layer_scale (float): Of the sum at the beginning, learned for each channel.
    """

    def __init__(self, channels: int, drop_path: float = 0.0, layer_scale: float = 1e-6):
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm2d(channels, eps=1e-6)
        self.pointwise_conv1 = nn.Linear(channels, 4 * channels)
        self.pointwise_conv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels, ), layer_scale))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        y = self.norm(self.depthwise_conv(x)).movedim(1, -1)
        y = self.pointwise_conv2(functional.gelu(self.pointwise_conv1(y))) * self.gamma
        return x + self.drop_path(y.movedim(-1, 1))


@MODELS.register_module()
class ConvNeXt(BaseModule):
    """ConvNeXt with the names of OpenMMLab's checkpoints.

    Args:
        arch (str): ``'tiny'``, ``'small'``, ``'base'`` or ``'large'``.
        out_indices (tuple): Stages that are returned, at strides 4, 8, 16 and 32.
        drop_path_rate (float): Of the last block; it grows evenly from 0.
        layer_scale_init_value (float): See :class:`ConvNeXtBlock`.
        frozen_stages (int): So many stages, with what is before them, are not trained.
        gap_before_final_norm (bool): False, the only way of a backbone: each output has a layer
            norm of its own, over the channels of each pixel.
    """

    def __init__(self, arch: str = 'base', out_indices: Sequence[int] = (0, 1, 2, 3),
                 drop_path_rate: float = 0.0, layer_scale_init_value: float = 1e-6,
                 frozen_stages: int = 0, gap_before_final_norm: bool = False,
                 init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        if arch not in ARCHS:
            raise UserError(f'ConvNeXt.arch: {arch!r} is none{did_you_mean(arch, ARCHS)}')
        if not set(out_indices) <= set(range(4)) or not out_indices:
            raise UserError(f'ConvNeXt.out_indices: expected some of 0 to 3, got {out_indices}')
        if gap_before_final_norm:
            raise UserError('ConvNeXt.gap_before_final_norm: a backbone gives maps; set it to '
                            'False')
        depths, channels = ARCHS[arch]
        self.out_indices, self.frozen_stages = tuple(out_indices), frozen_stages
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.downsample_layers = nn.ModuleList([nn.Sequential(
            nn.Conv2d(3, channels[0], 4, 4), LayerNorm2d(channels[0], eps=1e-6))])
        self.stages = nn.ModuleList()
        for n, (depth, width) in enumerate(zip(depths, channels)):
            if n:
                self.downsample_layers.append(nn.Sequential(
                    LayerNorm2d(channels[n - 1], eps=1e-6),
                    nn.Conv2d(channels[n - 1], width, 2, 2)))
            self.stages.append(nn.Sequential(*(
                ConvNeXtBlock(width, next(rates), layer_scale_init_value)
                for _ in range(depth))))
        for n in self.out_indices:
            self.add_module(f'norm{n}', LayerNorm2d(channels[n], eps=1e-6))
        self._freeze()

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) to the maps of ``out_indices``."""
        outs: List[Tensor] = []
        for n, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages)):
            x = stage(downsample(x))
            if n in self.out_indices:
                outs.append(getattr(self, f'norm{n}')(x))
            if n == max(self.out_indices):
                break
        return tuple(outs)

    def train(self, mode: bool = True) -> 'ConvNeXt':
        """As of every module, but frozen stages stay as they are."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        for part in (*self.downsample_layers[:self.frozen_stages],
                     *self.stages[:self.frozen_stages]):
            part.eval().requires_grad_(False)
