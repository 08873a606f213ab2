"""Regions: which cells of a map a term compares, and how much each of them counts."""
from abc import ABCMeta, abstractmethod
from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor

from ..errors import UserError
from .context import Context, Shared


class Region(Shared, metaclass=ABCMeta):
    """Weights of cells, computed from the context without gradient."""

    @abstractmethod
    def __call__(self, ctx: Context, size: Tuple[int, int]) -> Tensor:
        """Weights (B, R, rows, columns) >= 0 of a map of ``size`` that covers the grid.

        R is 1, or the number of regions that each have a mean of their own (one a camera).
        """


def multiply_regions(regions: Sequence[Region], ctx: Context,
                     size: Tuple[int, int]) -> Optional[Tensor]:
    """The product of regions, (B, R, rows, columns); None without regions.

    A region that several terms use with equal settings is computed once a step and size.
    """
    weight = None
    with torch.no_grad():
        for region in regions:
            values = ctx.once((region.key, tuple(size)),
                              lambda region=region: region(ctx, size))
            weight = values if weight is None else weight * values
    return weight


@MODELS.register_module()
class GTForeground(Region):
    """Cells of annotated objects (``gt_bev.seg`` of any class), and the others.

    On a map of another size a cell counts by the part of it that is foreground.

    Args:
        foreground (float): Weight of foreground.
        background (float): Weight of the rest.
    """

    def __init__(self, foreground: float = 1.0, background: float = 0.0):
        if min(foreground, background) < 0:
            raise UserError(f'GTForeground: expected weights >= 0, got {foreground}, {background}')
        self.foreground, self.background = foreground, background

    def __call__(self, ctx: Context, size: Tuple[int, int]) -> Tensor:
        """See :class:`Region`."""
        for sample in ctx.samples:
            if 'gt_bev' not in sample or 'seg' not in sample.gt_bev:
                raise UserError('GTForeground: a sample has no gt_bev.seg; put RasterizeBEV or '
                                'RasterizeMap before PackBEVInputs in the pipeline')
        seg = torch.stack([sample.gt_bev.seg.amax(0, keepdim=True) for sample in ctx.samples])
        part = F.interpolate(seg.float(), size, mode='area')
        return self.background + (self.foreground - self.background) * part
