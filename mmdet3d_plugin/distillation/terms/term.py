"""Terms: one distillation loss each, completely described by its config."""
from abc import ABCMeta, abstractmethod
from typing import Dict, Mapping, Optional, Set, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import UserError
from ..context import Context
from ..schedule import WeightSchedule


def _schedule(cfg: Mapping) -> WeightSchedule:
    try:
        return WeightSchedule(**cfg)
    except TypeError as error:
        raise UserError(f'weight: {error}; a schedule is dict(value=..., start=..., ramp=..., '
                        f'stop=..., decay=...), got {dict(cfg)}') from error


class Term(BaseModule, metaclass=ABCMeta):
    r"""A distillation loss: which taps, how aligned, how compared, how weighed.

    Args:
        weight (float | str | dict): A constant; ``'learned'`` for
            :math:`\frac12 e^{-\kappa} L + \frac12 \kappa` with a learned :math:`\kappa`; or the
            arguments of :class:`WeightSchedule`.

    Attributes:
        taps (set[str]): Addresses of the tensors that :meth:`forward` reads.
    """
    taps: Set[str]

    def __init__(self, weight: Union[float, str, dict] = 1.0, init_cfg=None):
        super().__init__(init_cfg)
        if isinstance(weight, str) and weight != 'learned':
            raise UserError("weight: expected a number, 'learned', or a schedule "
                            f'dict(value=..., start=..., ramp=..., stop=..., decay=...); got '
                            f'{weight!r}')
        self.weight = _schedule(weight) if isinstance(weight, Mapping) else weight
        learned = weight == 'learned'
        self.log_variance: Optional[nn.Parameter] = (
            nn.Parameter(torch.zeros(())) if learned else None)

    @abstractmethod
    def forward(self, feats: Mapping[str, Tensor], ctx: Context) -> Dict[str, Tensor]:
        """Compute.

        Args:
            feats (Mapping): Tapped tensors by address; the teacher's carry no gradient.
            ctx (Context): The batch, its ground truth and the models.

        Returns:
            dict: Scalars; those whose name contains ``loss`` are minimised, the rest is logged.
        """

    def weigh(self, loss: Tensor, ctx: Context) -> Tensor:
        """The loss times the weight of this iteration."""
        if self.log_variance is not None:
            return ((-self.log_variance).exp() * loss + self.log_variance) / 2
        return (self.weight(ctx.iteration) if callable(self.weight) else self.weight) * loss
