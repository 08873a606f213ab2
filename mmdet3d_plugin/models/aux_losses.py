"""Auxiliary losses of a model: on tensors inside it, in training only."""
from abc import ABCMeta, abstractmethod
from contextlib import contextmanager
from typing import Dict, Iterator, Mapping, Optional, Sequence, Set

from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..errors import UserError, build_from
from .parts import build_parts, merge_losses
from .taps import Tap, TapRecorder, record_taps

_ROLE = 'model'


class AuxLoss(BaseModule, metaclass=ABCMeta):
    """A loss on tapped tensors of the model that trains.

    Attributes:
        taps (set[str]): Addresses of the tensors, whose role is ``model``: ``'model.fuser'``.
        predicts (bool): Whether :meth:`predict` is called.
    """
    taps: Set[str]
    predicts = False

    @abstractmethod
    def forward(self, taps: Mapping[str, Tensor], inputs: dict,
                samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """Compute.

        Args:
            taps (Mapping): Tapped tensors by address.
            inputs (dict): The batch, as the model reads it.
            samples (list): With ground truth.

        Returns:
            dict: Scalars; those whose name contains ``loss`` are minimised, the rest is logged.
        """

    def predict(self, taps: Mapping[str, Tensor], inputs: dict,
                samples: Sequence[Det3DDataSample]) -> None:
        """Fill further fields of predicted samples, in place; where ``predicts``."""


class AuxLosses(nn.ModuleDict):
    """The auxiliary losses of a model by name; ``<loss>_<name>`` in the log.

    Args:
        losses (dict[str, dict]): Of type :class:`AuxLoss`; one set to None is off.
        model (nn.Module): Whose modules are tapped.

    Raises:
        UserError: A tap does not exist, or its role is not ``model``.
    """

    def __init__(self, losses: Mapping[str, Optional[dict]], model: nn.Module):
        super().__init__(build_parts(losses, 'model.aux_losses', grid=model.grid))
        self._taps = tuple(map(Tap.parse, sorted({t for loss in self.values() for t in loss.taps})))
        for tap in self._taps:
            tap.check({_ROLE: model})

    @property
    def predicts(self) -> bool:
        """Whether one of the losses fills fields of predicted samples."""
        return any(loss.predicts for loss in self.values())

    def predict(self, taps: TapRecorder, inputs: dict,
                samples: Sequence[Det3DDataSample]) -> None:
        """Let losses that do fill fields of predicted samples."""
        for loss in self.values():
            if loss.predicts:
                loss.predict(taps, inputs, samples)

    @contextmanager
    def record(self, model: nn.Module) -> Iterator[TapRecorder]:
        """Record the taps during one forward of the model."""
        recorder = TapRecorder()
        with record_taps(_ROLE, model, self._taps, recorder):
            yield recorder

    def forward(self, taps: TapRecorder, inputs: dict,
                samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """All losses of a recorded forward."""
        losses: Dict[str, Tensor] = {}
        for name, loss in self.items():
            own = {f'{key}_{name}': value for key, value in loss(taps, inputs, samples).items()}
            losses = merge_losses(losses, own, f'model.aux_losses.{name}')
        return losses


@MODELS.register_module()
class AuxHeadLoss(AuxLoss):
    """A head in training only, such as one on a deep map of the BEV encoder (deep supervision).

    Args:
        tap (str): The map that the head reads, such as ``'model.bev_encoder[-2]'``.
        head (dict): A :class:`BEVHead`. Its outputs must have the size of the ground truth.
        weight (float): Of its losses.
        grid (BEVGrid): The model's grid (passed by the model).
    """

    def __init__(self, tap: str, head: dict, weight: float = 1.0, grid=None, init_cfg=None):
        super().__init__(init_cfg)
        if not tap.startswith(f'{_ROLE}.'):
            raise UserError(f"tap {tap!r}: expected an address inside the model, '{_ROLE}.…'")
        self.tap, self.taps, self.weight = tap, {tap}, weight
        self.head = build_from(MODELS, head, 'aux_losses.head', grid=grid)

    def forward(self, taps: Mapping[str, Tensor], inputs: dict,
                samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """See :class:`AuxLoss`."""
        losses = self.head.loss(self.head((taps[self.tap], )), samples)
        return {key: self.weight * value if 'loss' in key else value
                for key, value in losses.items()}
