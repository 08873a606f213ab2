"""Task losses of BEV segmentation, centerness and offset."""
from typing import Dict, Optional

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.dist import all_reduce
from torch import Tensor, nn

_EPS = 1e-6


@MODELS.register_module()
class BEVFocalLoss(nn.Module):
    r"""Focal loss without class balance: mean of :math:`(1 - p_t)^\gamma \mathrm{BCE}`.

    mmdet's ``FocalLoss`` weighs the classes by alpha and 1 - alpha, which has no neutral setting;
    KD360-VoxelBEV's does not weigh them.

    Args:
        gamma (float): Focusing exponent.
    """

    def __init__(self, gamma: float = 2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor, fg_mask: Optional[Tensor] = None) -> Tensor:
        """(B, K, rows, columns) logits and {0, 1} targets to a scalar; ``fg_mask`` is unused."""
        bce = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
        return ((1 - (-bce).exp()) ** self.gamma * bce).mean()


@MODELS.register_module()
class BalancedMSELoss(nn.Module):
    """Mean of the squared errors near object centres and away from them, weighed equally.

    Near means a target above 0.5, away below 0.5; cells at exactly 0.5 do not count.
    """

    def forward(self, pred: Tensor, target: Tensor, fg_mask: Optional[Tensor] = None) -> Tensor:
        """(B, 1, rows, columns) probabilities and targets in [0, 1] to a scalar."""
        error = (pred - target).square()
        return sum(_masked_mean(error, mask) for mask in (target > 0.5, target < 0.5)) / 2


@MODELS.register_module()
class OffsetL1Loss(nn.Module):
    """L1 distance of the offset vectors.

    Args:
        masked (bool): Average over the cells of objects only. False reproduces the authors'
            release: the mean over all cells, switched off in batches without any object.
    """

    def __init__(self, masked: bool = True):
        super().__init__()
        self.masked = masked

    def forward(self, pred: Tensor, target: Tensor, fg_mask: Tensor) -> Tensor:
        """(B, 2, rows, columns) offsets and (B, rows, columns) bool object mask to a scalar."""
        distance = (pred - target).abs().sum(1)
        if self.masked:
            return _masked_mean(distance, fg_mask)
        count = fg_mask.sum()
        return distance.mean() * count / (_EPS + count)


class UncertaintyWeights(nn.Module):
    r"""Learned task weights: :math:`f e^{-s} L + s / 2` with one learned s per task.

    Args:
        loss_weights (dict): The constant f of each task; KD360-VoxelBEV uses 10, 1/2 and 1/2.
        learn (bool): Learn s; False keeps s = 0.
    """

    def __init__(self, loss_weights: Dict[str, float], learn: bool = True):
        super().__init__()
        self.loss_weights = dict(loss_weights)
        self.log_variance = nn.ParameterDict(
            {task: nn.Parameter(torch.zeros(())) for task in loss_weights if learn})

    def forward(self, losses: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Weigh each task's scalar."""
        return {task: self._weigh(task, loss) for task, loss in losses.items()}

    def _weigh(self, task: str, loss: Tensor) -> Tensor:
        if task not in self.log_variance:
            return self.loss_weights[task] * loss
        log_variance = self.log_variance[task]
        return self.loss_weights[task] * (-log_variance).exp() * loss + log_variance / 2


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean under a mask over the batches of all processes: each divides by their mean count."""
    count = mask.sum().to(values.dtype)
    all_reduce(count, op='mean')
    return (values * mask).sum() / (_EPS + count)
