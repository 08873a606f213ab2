"""Criteria: how a student's tensor is compared with a teacher's."""
from typing import Optional

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..errors import UserError

_REDUCTIONS = ('mean', 'batch', 'region')


def check_reduction(reduction: str) -> None:
    """Raise a UserError for an unknown reduction."""
    if reduction not in _REDUCTIONS:
        raise UserError(f'reduction: expected {", ".join(map(repr, _REDUCTIONS))}, '
                        f'got {reduction!r}')


def reduce_cells(values: Tensor, weight: Optional[Tensor] = None,
                 reduction: str = 'mean') -> Tensor:
    """Reduce weighted values of cells to a scalar.

    Args:
        values (Tensor): (N, H, W).
        weight (Tensor, optional): (N, R, H, W) >= 0, the weights of R regions; default one region
            with weights of 1.
        reduction (str): ``'mean'``: mean of the weighted values over cells and batch; ``'batch'``:
            their sum over the batch size; ``'region'``: for each region the sum of its weighted
            values over the sum of its weights, in the batch of this process; then the mean over
            the regions. Several regions add up in ``'mean'`` and ``'batch'``; an empty one gives 0.
    """
    if weight is None:
        return values.sum() / len(values) if reduction == 'batch' else values.mean()
    weighted = torch.einsum('nhw,nrhw->r', values, weight)
    if reduction == 'region':
        return (weighted / weight.sum((0, 2, 3)).clamp_min(1e-6)).mean()
    return weighted.sum() / (len(values) if reduction == 'batch' else values.numel())


@MODELS.register_module()
class ChannelWiseKL(nn.Module):
    r"""Channel-wise knowledge distillation, KD360-VoxelBEV Eq. (5)-(6).

    Each channel becomes a distribution over the map, :math:`\phi = \mathrm{softmax}_{HW}(x / T)`,
    and

    .. math:: L = \frac{T^2}{N C} \sum_{n,c} \mathrm{KL}(\phi(F^T_{n,c}) \,\|\, \phi(F^S_{n,c}))

    computed with log-softmax in fp32. The distributions ignore a constant added to a channel, so
    the loss teaches where things are, not how many.

    Args:
        temperature (float): T.
    """

    def __init__(self, temperature: float = 3.0):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f'temperature: expected > 0, got {temperature}')
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None,
                reduction: str = 'mean') -> Tensor:
        r"""Compare.

        Args:
            student (Tensor): (N, C, H, W).
            teacher (Tensor): (N, C, H, W), detached by the term.
            weight (Tensor, optional): (N, R, H, W) >= 0. Each region has distributions of its own,
                :math:`\phi \propto w \exp(x / T)`: cells of weight 0 do not count. The regions are
                averaged; an empty one gives 0.
            reduction (str): The divergence is of distributions over the map, so cells are always
                summed; ``'batch'`` sums the channels, the others average them.

        Returns:
            Tensor: Scalar, 0 for equal inputs.
        """
        logits = [x.float().flatten(2) / self.temperature for x in (student, teacher)]
        if weight is None:
            divergence = _kl(*logits)
        else:
            divergence = torch.stack([
                _kl(*logits, region) for region in weight.flatten(2).unbind(1)]).mean(0)
        factor = divergence.shape[1] if reduction == 'batch' else 1
        return factor * divergence.mean() * self.temperature**2


def _kl(student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    """Divergences of distributions over cells.

    Args:
        student, teacher (Tensor): (N, C, cells) logits.
        weight (Tensor, optional): (N, cells) >= 0, factors of the probabilities.

    Returns:
        Tensor: (N, C), 0 where all weights of a sample are 0.
    """
    if weight is not None:
        shift = weight[:, None].clamp_min(torch.finfo(weight.dtype).tiny).log()
        student, teacher = student + shift, teacher + shift
    divergence = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction='none',
                          log_target=True).sum(-1)
    return divergence if weight is None else divergence * (weight.amax(-1, keepdim=True) > 0)


@MODELS.register_module()
class SquaredDistance(nn.Module):
    """Squared distance, summed over channels, averaged over cells and batch (BridgeTA Eq. 8).

    Args:
        channels (str): ``'sum'`` or ``'mean'`` over channels.
    """

    def __init__(self, channels: str = 'sum'):
        super().__init__()
        if channels not in ('sum', 'mean'):
            raise ValueError(f"channels: expected 'sum' or 'mean', got {channels!r}")
        self.channels = channels

    def forward(self, student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None,
                reduction: str = 'mean') -> Tensor:
        """(N, C, H, W) each, weights and reduction of :func:`reduce_cells`, to a scalar."""
        square = squared_distance(student.float(), teacher.float(), self.channels)
        return reduce_cells(square, weight, reduction)


def squared_distance(one: Tensor, other: Tensor, channels: str = 'sum') -> Tensor:
    """(N, C, H, W) each to the (N, H, W) squared distances of cells; see `SquaredDistance`."""
    square = (one - other).square()
    return square.sum(1) if channels == 'sum' else square.mean(1)


@MODELS.register_module()
class PredictionKL(nn.Module):
    r"""KL divergence of the teacher's class probabilities to the student's, cell by cell.

    :math:`\mathrm{KL}(p^T \| p^S)`, summed over classes, averaged over cells and batch. Overlapping
    classes are independent Bernoulli variables, :math:`p = \sigma(z)`; the gradient is
    :math:`\sigma(z^S) - \sigma(z^T)`.

    Args:
        classes (str): ``'independent'``, or ``'exclusive'``: one softmax over the channels.
    """

    def __init__(self, classes: str = 'independent'):
        super().__init__()
        if classes not in ('independent', 'exclusive'):
            raise ValueError(f"classes: expected 'independent' or 'exclusive', got {classes!r}")
        self.classes = classes

    def forward(self, student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None,
                reduction: str = 'mean') -> Tensor:
        """(N, C, H, W) logits each, weights and reduction of :func:`reduce_cells`, to a scalar."""
        student, teacher = student.float(), teacher.float()
        if self.classes == 'exclusive':
            log_student, log_teacher = student.log_softmax(1), teacher.log_softmax(1)
        else:
            log_student, log_teacher = (torch.stack([F.logsigmoid(z), F.logsigmoid(-z)], 1)
                                        for z in (student, teacher))
        divergence = log_teacher.exp() * (log_teacher - log_student)
        return reduce_cells(divergence.flatten(1, -3).sum(1), weight, reduction)


@MODELS.register_module()
class WindowAffinity(nn.Module):
    r"""Affinity distillation: cells that resemble each other for the teacher shall for the student.

    Each map is cut into windows of w x w cells; with cells normalised over the channels,
    :math:`A = X X^\top` holds the cosines of a window's cells and

    .. math:: L = \mathrm{mean}\, |A^S - A^T|

    over all windows and pairs. A is never held: blocks of it give the loss and, in the same pass,
    its gradient :math:`\partial L / \partial X^S = 2\, \mathrm{sign}(A^S - A^T) X^S / n`.

    Args:
        window (int): w; must divide rows and columns.
        block (int): Cells on a side of the blocks of A.
        by_batch (bool): Divide by the batch size once more, as in the authors' release.
    """
    any_channels = True  # the two sides may differ in them

    def __init__(self, window: int = 100, block: int = 2000, by_batch: bool = False):
        super().__init__()
        self.window, self.block, self.by_batch = window, block, by_batch

    def forward(self, student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None,
                reduction: str = 'mean') -> Tensor:
        """Compare.

        Args:
            student (Tensor): (N, C, H, W).
            teacher (Tensor): (N, C', H, W), detached; C' may differ from C.
            weight (None): Not supported: affinity is between pairs of cells.
            reduction (str): ``'mean'``, or ``'batch'``: the sum of the samples' means over the
                batch size, which is the same.

        Returns:
            Tensor: Scalar, 0 for equal inputs.

        Raises:
            UserError: The window does not divide the maps, or a weight is given.
        """
        if weight is not None or reduction == 'region':
            raise UserError('WindowAffinity compares pairs of cells and takes no regions; leave '
                            "regions and reduction='region' out")
        cells = [self._windows(x) for x in (student, teacher)]
        loss = _AffinityDistance.apply(*cells, self.block)
        return loss / len(student) if self.by_batch else loss

    def _windows(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (windows, w * w, C), each cell of length 1."""
        channels, *size = maps.shape[1:]
        if any(length % self.window for length in size):
            raise UserError(f'window: {self.window} does not divide the {tuple(size)} map')
        maps = maps.unfold(2, self.window, self.window).unfold(3, self.window, self.window)
        cells = maps.permute(0, 2, 3, 4, 5, 1).reshape(-1, self.window**2, channels)
        return F.normalize(cells, dim=-1, eps=1e-6)


class _AffinityDistance(Function):
    """Mean |S S^T - T T^T| of (windows, n, C) and (windows, n, C'), differentiable in both."""

    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor, block: int) -> Tensor:
        sides = [(student, 1), (teacher, -1)]
        gradients = [torch.zeros_like(x) if needed else None
                     for (x, _), needed in zip(sides, ctx.needs_input_grad)]
        total = student.new_zeros((), dtype=torch.float64)
        for window, (s, t) in enumerate(zip(student, teacher)):
            parts = [slice(start, start + block) for start in range(0, len(s), block)]
            for index, rows in enumerate(parts):
                for cols in parts[index:]:  # A is symmetric
                    difference = torch.addmm(t[rows] @ t[cols].T, s[rows], s[cols].T, beta=-1)
                    twice = 1 if cols == rows else 2
                    total += twice * difference.abs().sum(dtype=torch.float64)
                    sign = difference.sign_()
                    for gradient, (x, factor) in zip(gradients, sides):
                        if gradient is None:
                            continue
                        gradient[window, rows] += factor * (sign @ x[window, cols])
                        if twice == 2:
                            gradient[window, cols] += factor * (sign.T @ x[window, rows])
        count = len(student) * student.shape[1]**2
        ctx.save_for_backward(*(g if g is None else g.mul_(2 / count) for g in gradients))
        return (total / count).to(student.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        return *(None if g is None else upstream * g for g in ctx.saved_tensors), None
