"""Adapters: bring a tensor of one side to the shape of the other side's."""
from abc import ABCMeta, abstractmethod
from typing import Optional, Sequence, Union

import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..errors import build_from


class Adapter(BaseModule, metaclass=ABCMeta):
    """Aligns channels and size of two feature maps; trained with the student."""

    @abstractmethod
    def forward(self, feature: Tensor, target: Tensor) -> Tensor:
        """Adapt.

        Args:
            feature (Tensor): (N, C, h, w), of the adapter's own side.
            target (Tensor): (N, C', H, W), of the other side, without gradient.

        Returns:
            Tensor: (N, C', H, W).
        """


class AdapterList(nn.ModuleList):
    """Adapters one after the other, each towards the same target."""

    def forward(self, feature: Tensor, target: Tensor) -> Tensor:
        """See :class:`Adapter`."""
        for adapter in self:
            feature = adapter(feature, target)
        return feature


def build_adapter(cfg: Union[dict, Sequence[dict], None], path: str) -> Optional[nn.Module]:
    """An adapter of a config, of a list of configs, or None."""
    if not isinstance(cfg, (list, tuple)):
        return build_from(MODELS, cfg, path)
    return AdapterList(build_from(MODELS, one, f'{path}[{n}]') for n, one in enumerate(cfg))


@MODELS.register_module()
class ConvAdapter(Adapter):
    """1x1 convolution, and bilinear resizing where the other side's map has another size.

    Args:
        in_channels (int): Channels of the own side.
        out_channels (int): Channels of the other side.
    """

    def __init__(self, in_channels: int, out_channels: int, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, feature: Tensor, target: Tensor) -> Tensor:
        """See :class:`Adapter`."""
        adapted, size = self.conv(feature), target.shape[-2:]
        if adapted.shape[-2:] != size:
            adapted = F.interpolate(adapted, size, mode='bilinear', align_corners=False)
        return adapted
