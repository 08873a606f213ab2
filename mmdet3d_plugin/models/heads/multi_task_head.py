"""Several tasks on the same BEV features."""
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from ...errors import UserError
from ..parts import build_parts
from .bev_head import BEVHead, HeadOutput


@MODELS.register_module()
class MultiTaskHead(BEVHead):
    """Heads by name. Their outputs and losses carry the name in front: ``<name>.<output>``.

    Args:
        heads (dict[str, dict]): The heads; one set to None is off.
        loss_weights (dict, optional): Factors of the heads' losses, 1 by default.
        grid (BEVGrid, optional): The model's grid (passed by the model).

    Raises:
        UserError: Two heads fill the same field of a data sample, or a weight is of no head.
    """

    def __init__(self, heads: Mapping[str, Optional[dict]],
                 loss_weights: Optional[Mapping[str, float]] = None, grid=None, init_cfg=None):
        super().__init__(grid, init_cfg)
        self.heads = build_parts(heads, 'model.head.heads', grid=self.grid)
        self.loss_weights = dict(loss_weights or {})
        for name in self.loss_weights.keys() - self.heads.keys():
            raise UserError(f'loss_weights: there is no head {name!r}; the heads are '
                            f'{", ".join(self.heads)}')
        filled: List[str] = [field for head in self.heads.values() for field in head.pred_fields]
        if len(filled) != len(set(filled)):
            raise UserError(f'heads: two heads fill the same field of a data sample ({filled}); '
                            'leave one of them out')
        self.gt_fields = tuple(field for head in self.heads.values() for field in head.gt_fields)
        self.pred_fields = tuple(filled)
        self.class_names = next((h.class_names for h in self.heads.values() if h.class_names), ())

    def forward(self, features: Tuple[Tensor, ...]) -> Dict[str, Tensor]:
        """See :class:`BEVHead`."""
        return {f'{name}.{key}': out for name, head in self.heads.items()
                for key, out in head(features).items()}

    def loss(self, outs: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """See :class:`BEVHead`."""
        losses = {}
        for name, head in self.heads.items():
            factor = self.loss_weights.get(name, 1.0)
            losses.update({f'{name}.{key}': factor * value if 'loss' in key else value
                           for key, value in head.loss(_of(name, outs), samples).items()})
        return losses

    def fill(self, decoded: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Sequence[Det3DDataSample]:
        """See :class:`BEVHead`."""
        for name, head in self.heads.items():
            samples = head.fill(_of(name, decoded), samples)
        return samples

    def decode(self, outs: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """See :class:`BEVHead`."""
        return {f'{name}.{key}': out for name, head in self.heads.items()
                for key, out in head.decode(_of(name, outs)).items()}

    def outputs(self) -> Dict[str, HeadOutput]:
        """See :class:`BEVHead`."""
        return {f'{name}.{key}': output for name, head in self.heads.items()
                for key, output in head.outputs().items()}

    def decoding(self) -> Dict[str, dict]:
        """See :class:`BEVHead`."""
        return {f'{name}.{prefix}': settings for name, head in self.heads.items()
                for prefix, settings in head.decoding().items()}

    def keep_outputs(self, names: Optional[Sequence[str]] = None) -> Tuple[str, ...]:
        """See :class:`BEVHead`; a head without any of the names is removed."""
        self.check_outputs(names)
        kept: List[str] = []
        for name, head in list(self.heads.items()):
            own = None if names is None else [n.removeprefix(f'{name}.') for n in names
                                              if n.startswith(f'{name}.')]
            if own == []:
                del self.heads[name]
                continue
            kept += [f'{name}.{key}' for key in head.keep_outputs(own)]
        return tuple(kept)


def _of(name: str, outs: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    return {key.removeprefix(f'{name}.'): out for key, out in outs.items()
            if key.startswith(f'{name}.')}
