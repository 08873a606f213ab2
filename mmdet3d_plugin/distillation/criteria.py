"""Criteria: how a student's tensor is compared with a teacher's."""
from typing import Optional

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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

    def forward(self, student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Compare.

        Args:
            student (Tensor): (N, C, H, W).
            teacher (Tensor): (N, C, H, W), detached by the term.
            weight (Tensor, optional): (N, 1, H, W) >= 0; multiplies the pointwise divergence and
                is normalised to mean 1.

        Returns:
            Tensor: Scalar, 0 for equal inputs.
        """
        log_student, log_teacher = ((x.float().flatten(2) / self.temperature).log_softmax(-1)
                                    for x in (student, teacher))
        divergence = F.kl_div(log_student, log_teacher, reduction='none', log_target=True)
        if weight is not None:
            weight = weight.flatten(2)
            divergence = divergence * weight / weight.mean(-1, keepdim=True).clamp_min(1e-6)
        return divergence.sum(-1).mean() * self.temperature**2


@MODELS.register_module()
class WindowAffinity(nn.Module):
    r"""Affinity distillation: cells that resemble each other for the teacher shall for the student.

    Each map is cut into windows of w x w cells; with cells normalised over the channels,
    :math:`A = X X^\top` holds the cosines of a window's cells and

    .. math:: L = \mathrm{mean}\, |A^S - A^T|

    over all windows and pairs. A is never held whole: rows are compared in chunks, which the
    backward pass computes again.

    Args:
        window (int): w; must divide rows and columns.
        chunk (int): Rows of A compared at once.
        by_batch (bool): Divide by the batch size once more, as in the authors' release.
    """

    def __init__(self, window: int = 100, chunk: int = 500, by_batch: bool = False):
        super().__init__()
        self.window, self.chunk, self.by_batch = window, chunk, by_batch

    def forward(self, student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """Compare.

        Args:
            student (Tensor): (N, C, H, W).
            teacher (Tensor): (N, C', H, W); C' may differ from C.
            weight (Tensor, optional): Not supported; affinity is between pairs of cells.

        Returns:
            Tensor: Scalar, 0 for equal inputs.

        Raises:
            ValueError: The window does not divide the maps, or a weight is given.
        """
        if weight is not None:
            raise ValueError('WindowAffinity compares pairs of cells and takes no regions')
        cells = [self._windows(x.float()) for x in (student, teacher)]
        total = 0
        for start in range(0, self.window**2, self.chunk):
            total = total + checkpoint(_row_distance, *cells, start, start + self.chunk,
                                       use_reentrant=False)
        loss = total / (len(cells[0]) * self.window**4)
        return loss / len(student) if self.by_batch else loss

    def _windows(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (windows, w * w, C), each cell of length 1."""
        channels, *size = maps.shape[1:]
        if any(length % self.window for length in size):
            raise ValueError(f'window: {self.window} does not divide the {tuple(size)} map')
        maps = F.normalize(maps, dim=1, eps=1e-6)
        maps = maps.unfold(2, self.window, self.window).unfold(3, self.window, self.window)
        return maps.permute(0, 2, 3, 4, 5, 1).reshape(-1, self.window**2, channels)


def _row_distance(student: Tensor, teacher: Tensor, start: int, stop: int) -> Tensor:
    """Sum of |A_S - A_T| over rows start to stop of every window."""
    affinity = [x[:, start:stop] @ x.transpose(1, 2) for x in (student, teacher)]
    return torch.sub(*affinity).abs().sum()
