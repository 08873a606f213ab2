"""Samplers: points of objects at which a term compares features, in place of all cells."""
from abc import ABCMeta, abstractmethod
from typing import Tuple

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .context import Context, Shared


class Sampler(Shared, metaclass=ABCMeta):
    """P points of each of K objects; samples with fewer objects are padded."""

    @abstractmethod
    def points(self, ctx: Context) -> Tuple[Tensor, Tensor]:
        """Places (B, K, P, 2) x, y in metres, and which of them count, (B, K, P) bool."""

    def __call__(self, ctx: Context, feature: Tensor) -> Tensor:
        """Features (B, K, P, C) of a map (B, C, rows, columns) that covers the grid, bilinear."""
        xy, _ = ctx.once(self.key, lambda: self.points(ctx))
        row, col = ctx.grid.to_pixel(xy.to(feature)).unbind(-1)
        rows, cols = ctx.grid.shape
        position = torch.stack([2 * col / cols, 2 * row / rows], -1) - 1
        sampled = F.grid_sample(feature, position, align_corners=False)
        return sampled.permute(0, 2, 3, 1)

    def mask(self, ctx: Context) -> Tensor:
        """Which points count, (B, K, P) bool."""
        return ctx.once(self.key, lambda: self.points(ctx))[1]


@MODELS.register_module()
class BoxPoints(Sampler):
    """Nine points of each annotated box: centre, corners and middles of the sides.

    Points outside the grid do not count.

    Args:
        scale (float): Of the boxes, about their centres.
    """

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def points(self, ctx: Context) -> Tuple[Tensor, Tensor]:
        """See :class:`Sampler`."""
        counts = [len(boxes) for boxes in ctx.boxes]
        boxes = pad_sequence(ctx.boxes, batch_first=True) if max(counts) else (
            ctx.boxes[0].new_zeros(len(counts), 1, 7))
        steps = torch.tensor([-0.5, 0.0, 0.5], device=boxes.device)
        offset = torch.cartesian_prod(steps, steps) * self.scale * boxes[:, :, None, 3:5]
        cos, sin = boxes[..., None, 6].cos(), boxes[..., None, 6].sin()
        along, across = offset.unbind(-1)
        rotated = torch.stack([cos * along - sin * across, sin * along + cos * across], -1)
        xy = boxes[:, :, None, :2] + rotated
        numbers = torch.arange(boxes.shape[1], device=boxes.device)
        exists = numbers < torch.tensor(counts, device=boxes.device)[:, None]
        return xy, exists[..., None] & ctx.grid.to_index(xy)[1]
