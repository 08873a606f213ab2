"""The plain term: one student tensor against one teacher tensor."""
from typing import Dict, Mapping, Optional, Union

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError, build_from
from ..criteria import squared_distance
from .term import Term


@MODELS.register_module()
class FeatureTerm(Term):
    r"""``weight * criterion(adapter(student), teacher)`` in fp32, with the teacher detached.

    Args:
        student (str): Tap that learns; ``assistant.*`` for the auxiliary pair.
        teacher (str): Tap that teaches.
        criterion (dict): ``(student, teacher) -> scalar``.
        adapter (dict, optional): Aligns the student's channels and size.
        weight (float | str): :math:`\gamma`; or ``'learned'`` for
            :math:`\frac12 e^{-\kappa} L + \frac12 \kappa` with a learned :math:`\kappa`.
        log_distance (bool): Log ``distance``, :math:`\|F^S - F^T\|`, too: the root of the squared
            distance, summed over channels, averaged over cells and batch, as `DualPathTerm` does.
    """

    def __init__(self, student: str, teacher: str, criterion: dict,
                 adapter: Optional[dict] = None, weight: Union[float, str] = 1.0,
                 log_distance: bool = False, init_cfg=None):
        super().__init__(init_cfg)
        self.student, self.teacher = student, teacher
        self.taps = {student, teacher}
        self.criterion = build_from(MODELS, criterion, 'term.criterion')
        self.adapter = build_from(MODELS, adapter, 'term.adapter')
        if isinstance(weight, str) and weight != 'learned':
            raise ValueError(f"weight: expected a number or 'learned', got {weight!r}")
        self.weight, self.log_distance = weight, log_distance
        self.log_variance = nn.Parameter(torch.zeros(())) if weight == 'learned' else None

    def forward(self, feats: Mapping[str, Tensor], ctx: dict) -> Dict[str, Tensor]:
        """See :class:`Term`."""
        student, teacher = feats[self.student], feats[self.teacher].detach()
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = student.float(), teacher.float()
            if self.adapter is not None:
                student = self.adapter(student, teacher.shape[-2:])
            if student.shape != teacher.shape:
                raise UserError(
                    f'{self.student} is {tuple(student.shape)}, but {self.teacher} is '
                    f'{tuple(teacher.shape)}; add an adapter to the term, or tap the same level')
            loss = self.criterion(student, teacher)
            if self.log_variance is None:
                logs = dict(loss=self.weight * loss)
            else:
                logs = dict(loss=((-self.log_variance).exp() * loss + self.log_variance) / 2)
            if self.log_distance:
                logs['distance'] = squared_distance(student.detach(), teacher).mean().sqrt()
            return logs
