"""The plain term: one student tensor against one teacher tensor."""
from typing import Dict, Mapping, Optional, Sequence, Tuple, Union

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from ...errors import UserError, build_from
from ..adapters import build_adapter
from ..context import Context
from ..criteria import check_reduction, reduce_cells, squared_distance
from ..regions import multiply_regions
from .term import Term


@MODELS.register_module()
class FeatureTerm(Term):
    r"""``weight * criterion(adapter(student), teacher)`` in fp32, with the teacher detached.

    Args:
        student (str): Tap that learns; ``assistant.*`` for the auxiliary pair.
        teacher (str): Tap that teaches.
        criterion (dict): ``(student, teacher, weight, reduction) -> scalar``.
        adapter (dict | list, optional): Aligns the student's channels and size.
        teacher_adapter (dict | list, optional): The same on the teacher's side; it is trained, the
            teacher is not.
        sampler (dict, optional): Compare at points of objects. Default: at all cells.
        regions (list, optional): Weights of the cells, which multiply. Default: all count alike.
        reduction (str): ``'mean'`` over cells, ``'batch'`` (sum / batch size) or ``'region'``
            (sum / sum of the regions' weights).
        weight (float | str | dict): See :class:`Term`.
        log_distance (bool): Log ``distance``, :math:`\|F^S - F^T\|`, too: the root of the squared
            distance, summed over channels, averaged over cells and batch, as `DualPathTerm` does.
    """

    def __init__(self, student: str, teacher: str, criterion: dict,
                 adapter: Union[dict, Sequence[dict], None] = None,
                 teacher_adapter: Union[dict, Sequence[dict], None] = None,
                 sampler: Optional[dict] = None, regions: Sequence[dict] = (),
                 reduction: str = 'mean', weight: Union[float, str, dict] = 1.0,
                 log_distance: bool = False, init_cfg=None):
        super().__init__(weight, init_cfg)
        check_reduction(reduction)
        self.student, self.teacher = student, teacher
        self.taps = {student, teacher}
        self.criterion = build_from(MODELS, criterion, 'term.criterion')
        self.adapter = build_adapter(adapter, 'term.adapter')
        self.teacher_adapter = build_adapter(teacher_adapter, 'term.teacher_adapter')
        self.sampler = build_from(MODELS, sampler, 'term.sampler')
        self.regions = [build_from(MODELS, region, f'term.regions[{n}]')
                        for n, region in enumerate(regions or ())]
        self.reduction, self.log_distance = reduction, log_distance

    def forward(self, feats: Mapping[str, Tensor], ctx: Context) -> Dict[str, Tensor]:
        """See :class:`Term`."""
        student, teacher = feats[self.student], feats[self.teacher].detach()
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = self._adapt(student.float(), teacher.float())
            weight = multiply_regions(self.regions, ctx, student.shape[-2:])
            if self.sampler is not None:
                student, teacher, weight = self._sample(student, teacher, weight, ctx)
            loss = self.criterion(student, teacher, weight, self.reduction)
            logs = dict(loss=self.weigh(loss, ctx))
            if self.log_distance:
                square = squared_distance(student.detach(), teacher.detach())
                logs['distance'] = reduce_cells(square, weight, 'region').sqrt()
            return logs

    def _adapt(self, student: Tensor, teacher: Tensor) -> Tuple[Tensor, Tensor]:
        own, target = student.detach(), teacher
        if self.teacher_adapter is not None:
            teacher = target = self.teacher_adapter(teacher, own)
        if self.adapter is not None:
            student = self.adapter(student, target.detach())
        any_channels = getattr(self.criterion, 'any_channels', False) and not self.log_distance
        one, other = ((len(x), *x.shape[2:]) if any_channels else x.shape
                      for x in (student, teacher))
        if one != other:
            raise UserError(
                f'{self.student} is {tuple(student.shape)}, but {self.teacher} is '
                f'{tuple(teacher.shape)}; add an adapter to the term, or tap the same level')
        return student, teacher

    def _sample(self, student, teacher, weight, ctx):
        """Features as maps (B, C, K, P) of K objects and P points, with their weights."""
        student, teacher = (self.sampler(ctx, x).permute(0, 3, 1, 2) for x in (student, teacher))
        mask = self.sampler.mask(ctx)[:, None].to(student)
        if self.reduction == 'mean':  # over the points that exist
            mask = mask * (mask.numel() / mask.sum().clamp_min(1))
        if weight is None:
            return student, teacher, mask
        return student, teacher, mask * self.sampler(ctx, weight).permute(0, 3, 1, 2)
