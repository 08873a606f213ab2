"""Named parts of a model, and the losses that they return."""
from typing import Dict, Mapping, Optional

from mmdet3d.registry import MODELS
from torch import Tensor, nn

from ..errors import UserError, build_from


def build_parts(cfgs: Optional[Mapping[str, Optional[dict]]], path: str,
                **context) -> nn.ModuleDict:
    """Build parts by name; one set to None is off.

    Args:
        cfgs (dict[str, dict], optional): Configs by name.
        path (str): Where they stand in the config.
        **context: See :func:`build_from`.

    Raises:
        UserError: A name cannot be the name of a part. With ``loss`` in it, what the part logs
            would be minimised, since mmengine adds up every value with ``loss`` in its name.
    """
    parts = {name: cfg for name, cfg in (cfgs or {}).items() if cfg is not None}
    for name in parts:
        if not name.isidentifier() or 'loss' in name or hasattr(nn.ModuleDict, name):
            raise UserError(f'{path}: {name!r} cannot be a name here; choose one of letters, '
                            "digits and underscores, without 'loss', that is no method of a dict")
    return nn.ModuleDict({name: build_from(MODELS, cfg, f'{path}.{name}', **context)
                          for name, cfg in parts.items()})


def merge_losses(losses: Dict[str, Tensor], more: Mapping[str, Tensor],
                 owner: str) -> Dict[str, Tensor]:
    """Both dicts in one.

    Raises:
        UserError: They have a key in common, so that one loss would replace the other.
    """
    for key in more:
        if key in losses:
            raise UserError(f'{owner}: the model has a loss {key!r} already, which this one would '
                            f'replace; rename {owner}')
    return {**losses, **more}
