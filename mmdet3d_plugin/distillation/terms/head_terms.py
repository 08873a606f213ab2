"""Terms that run a head of one role."""
from typing import Dict, Mapping, Tuple, Union

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn
from torch.func import functional_call

from ...errors import UserError, build_from
from ...models.layers import freeze_bn_stats
from ..context import Context
from .term import Term


@MODELS.register_module()
class CrossHeadTerm(Term):
    """The student's features through another role's head, against that role's own prediction.

    BridgeTA's auxiliary part of the logit level: one head, two inputs. The gradient reaches the
    student through the head. A frozen head stays frozen; an assistant's is trained as well, and its
    running statistics do not see the student's features.

    Args:
        student (str): Tap of the student's features that the head reads.
        role (str): Whose head: ``'assistant'`` or a teacher's name, such as ``'teacher'``.
        criterion (dict): ``(logits of the student's features, the role's logits) -> scalar``.
        output (str): Which of the head's outputs is compared.
        weight (float | str | dict): See :class:`Term`.
        freeze (bool): Do not train an assistant's head on the student's features.
    """

    def __init__(self, student: str, role: str, criterion: dict, output: str = 'segmentation',
                 weight: Union[float, str, dict] = 1.0, freeze: bool = False, init_cfg=None):
        super().__init__(weight, init_cfg)
        if role == 'student':
            raise UserError("CrossHeadTerm.role: expected 'assistant' or a teacher, got 'student'")
        self.student, self.role, self.output = student, role, output
        self.target = f'{role}.head[{output}]'
        self.taps = {student, self.target}
        self.criterion = build_from(MODELS, criterion, 'term.criterion')
        self.freeze = freeze

    def forward(self, feats: Mapping[str, Tensor], ctx: Context) -> Dict[str, Tensor]:
        """See :class:`Term`."""
        head = ctx.roles[self.role].head
        target = feats[self.target].detach().clone()
        crossed = run_head(head, (feats[self.student], ), self.freeze)[self.output]
        with torch.autocast(crossed.device.type, enabled=False):
            return dict(loss=self.weigh(self.criterion(crossed.float(), target.float()), ctx))


@MODELS.register_module()
class TaskTerm(Term):
    """An assistant's own task loss; BridgeTA leaves it out.

    Args:
        output (str): Of the assistant's head.
        weight (float | str | dict): See :class:`Term`.
    """

    def __init__(self, output: str = 'segmentation',
                 weight: Union[float, str, dict] = 1.0, init_cfg=None):
        super().__init__(weight, init_cfg)
        self.output, self.tap = output, f'assistant.head[{output}]'
        self.taps = {self.tap}

    def forward(self, feats: Mapping[str, Tensor], ctx: Context) -> Dict[str, Tensor]:
        """See :class:`Term`."""
        head = ctx.roles['assistant'].head
        try:
            losses = head.loss({self.output: feats[self.tap]}, ctx.samples)
        except KeyError as error:
            raise UserError(f"TaskTerm: the assistant's head also learns {error}; leave the tasks "
                            f'other than {self.output!r} out of it') from error
        return dict(loss=self.weigh(sum(v for k, v in losses.items() if 'loss' in k), ctx))


def run_head(head: nn.Module, features: Tuple[Tensor, ...], freeze: bool) -> Dict[str, Tensor]:
    """Run a head without updating its running statistics and, if asked, without training it."""
    with freeze_bn_stats(head):
        if not freeze:
            return head(features)
        state = {name: parameter.detach() for name, parameter in head.named_parameters()}
        return functional_call(head, state, (features, ))
