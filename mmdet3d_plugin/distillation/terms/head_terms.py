"""Terms that run a head of one role."""
from contextlib import contextmanager
from typing import Dict, Mapping

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from ...errors import UserError, build_from
from ...models.layers import freeze_bn_stats
from .term import Term


@MODELS.register_module()
class CrossHeadTerm(Term):
    """The student's features through another role's head, against that role's own prediction.

    BridgeTA's auxiliary part of the logit level: one head, two inputs. The gradient reaches the
    student through the head. A frozen head stays frozen; an assistant's is trained as well, and its
    running statistics do not see the student's features.

    Args:
        student (str): Tap of the student's features that the head reads.
        role (str): ``'teacher'`` or ``'assistant'``: whose head.
        criterion (dict): ``(logits of the student's features, the role's logits) -> scalar``.
        output (str): Which of the head's outputs is compared.
        weight (float): Of the term.
        freeze (bool): Do not train an assistant's head on the student's features.
    """

    def __init__(self, student: str, role: str, criterion: dict, output: str = 'segmentation',
                 weight: float = 1.0, freeze: bool = False, init_cfg=None):
        super().__init__(init_cfg)
        if role not in ('teacher', 'assistant'):
            raise UserError(f"CrossHeadTerm.role: expected 'teacher' or 'assistant', got {role!r}")
        self.student, self.role, self.output = student, role, output
        self.target = f'{role}.head.{output}'
        self.taps = {student, self.target}
        self.criterion = build_from(MODELS, criterion, 'term.criterion')
        self.weight, self.freeze = weight, freeze

    def forward(self, feats: Mapping[str, Tensor], ctx: dict) -> Dict[str, Tensor]:
        """See :class:`Term`."""
        head = ctx['roles'][self.role].head
        target = feats[self.target].detach().clone()
        with frozen_head(head, self.freeze):
            crossed = head((feats[self.student], ))[self.output]
        with torch.autocast(crossed.device.type, enabled=False):
            return dict(loss=self.weight * self.criterion(crossed.float(), target.float()))


@MODELS.register_module()
class TaskTerm(Term):
    """An assistant's own task loss; BridgeTA leaves it out.

    Args:
        output (str): Of the assistant's head.
        weight (float): Of the term.
    """

    def __init__(self, output: str = 'segmentation', weight: float = 1.0, init_cfg=None):
        super().__init__(init_cfg)
        self.output, self.weight = output, weight
        self.tap = f'assistant.head.{output}'
        self.taps = {self.tap}

    def forward(self, feats: Mapping[str, Tensor], ctx: dict) -> Dict[str, Tensor]:
        """See :class:`Term`."""
        losses = ctx['roles']['assistant'].head.loss({self.output: feats[self.tap]},
                                                     ctx['data_samples'])
        return dict(loss=self.weight * sum(losses.values()))


@contextmanager
def frozen_head(head: nn.Module, freeze: bool):
    """Run a head without updating its running statistics and, if asked, its parameters."""
    trained = [p for p in head.parameters() if freeze and p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with freeze_bn_stats(head):
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
