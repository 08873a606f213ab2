"""Terms: one distillation loss each, and the whole of it."""
from abc import ABCMeta, abstractmethod
from typing import Dict, Mapping, Set

from mmengine.model import BaseModule
from torch import Tensor


class Term(BaseModule, metaclass=ABCMeta):
    """A distillation loss: which taps, how aligned, how compared, how weighed.

    Attributes:
        taps (set[str]): Addresses of the tensors that :meth:`forward` reads.
    """
    taps: Set[str]

    @abstractmethod
    def forward(self, feats: Mapping[str, Tensor], ctx: dict) -> Dict[str, Tensor]:
        """Compute.

        Args:
            feats (Mapping): Tapped tensors by address; the teacher's carry no gradient.
            ctx (dict): ``inputs`` and ``data_samples`` of the batch, and ``roles``, the models.

        Returns:
            dict: Scalars; those whose name contains ``loss`` are minimised, the rest is logged.
        """
