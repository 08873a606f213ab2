"""Criteria: how a student's tensor is compared with a teacher's."""
from typing import Optional

import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor, nn


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
