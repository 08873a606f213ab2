"""Teacher -> assistant -> student along two paths, by Young's inequality (BridgeTA)."""
from typing import Dict, Mapping, Tuple, Union

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from ...errors import UserError
from ..context import Context
from ..criteria import squared_distance
from .term import Term


@MODELS.register_module()
class DualPathTerm(Term):
    r"""An upper bound of the distance of student and teacher through an assistant.

    With the squared distances :math:`A = \|R^S - R^{TA}\|^2` and
    :math:`B = \|R^{TA} - R^T\|^2` (BridgeTA Eq. 8: summed over channels, averaged over cells and
    batch),

    .. math:: L = (1 + \varepsilon) A + (1 + 1/\varepsilon) B \ge \|R^S - R^T\|^2

    which is smallest, :math:`(\sqrt A + \sqrt B)^2`, at :math:`\varepsilon^* = \sqrt{B / A}`. The
    gradient is the same whether it flows through :math:`\varepsilon^*` or not, since the bound is
    stationary there; it does not, and :math:`\varepsilon^*` is kept within limits.

    Logged are ``epsilon`` and ``distance``, :math:`\|R^S - R^T\|` (Fig. 5).

    Args:
        student, assistant, teacher (str): Taps of one shape.
        weight (float | str | dict): :math:`\lambda`; see :class:`Term`.
        epsilon (str | float): ``'optimal'``, or a constant.
        scope (str): One epsilon for the ``'batch'``, or one for each ``'sample'``, which does not
            depend on how the batch is split.
        channels (str): ``'sum'`` over channels as in Eq. 8, or ``'mean'``.
        detach_assistant (bool): The assistant is a fixed target of the student; by default
            it learns from both distances.
        limits (tuple): Least and largest epsilon.
    """

    def __init__(self, student: str, assistant: str, teacher: str,
                 weight: Union[float, str, dict] = 1.0,
                 epsilon: Union[str, float] = 'optimal', scope: str = 'batch',
                 channels: str = 'sum', detach_assistant: bool = False,
                 limits: Tuple[float, float] = (1e-3, 1e3), init_cfg=None):
        super().__init__(weight, init_cfg)
        for name, value, known in (('scope', scope, ('batch', 'sample')),
                                   ('channels', channels, ('sum', 'mean'))):
            if value not in known:
                raise UserError(f'DualPathTerm.{name}: expected {" or ".join(map(repr, known))}, '
                                f'got {value!r}')
        if epsilon != 'optimal' and (isinstance(epsilon, str) or not epsilon > 0):
            raise UserError("DualPathTerm.epsilon: expected 'optimal' or a positive number, got "
                            f'{epsilon!r}')
        self.student, self.assistant, self.teacher = student, assistant, teacher
        self.taps = {student, assistant, teacher}
        self.epsilon, self.scope = epsilon, scope
        self.channels, self.detach_assistant = channels, detach_assistant
        self.limits = tuple(map(float, limits))

    def forward(self, feats: Mapping[str, Tensor], ctx: Context) -> Dict[str, Tensor]:
        """See :class:`Term`."""
        student, assistant, teacher = (
            feats[tap] for tap in (self.student, self.assistant, self.teacher))
        if not student.shape == assistant.shape == teacher.shape:
            raise UserError(
                f'{self.student} is {tuple(student.shape)}, {self.assistant} is '
                f'{tuple(assistant.shape)} and {self.teacher} is {tuple(teacher.shape)}; the three '
                'need the same channels and grid')
        with torch.autocast(student.device.type, enabled=False):
            student, assistant, teacher = (
                x.float() for x in (student, assistant, teacher.detach()))
            to_student = self._distance(
                student, assistant.detach() if self.detach_assistant else assistant)
            to_teacher = self._distance(assistant, teacher)
            with torch.no_grad():
                epsilon = self._epsilon(to_student, to_teacher)
                direct = self._distance(student, teacher).mean().sqrt()
            loss = (1 + epsilon) * to_student + (1 + 1 / epsilon) * to_teacher
            return dict(loss=self.weigh(loss.mean(), ctx), epsilon=epsilon.mean(), distance=direct)

    def _distance(self, one: Tensor, other: Tensor) -> Tensor:
        """() or (N,) squared distances."""
        square = squared_distance(one, other, self.channels)
        return square.mean() if self.scope == 'batch' else square.flatten(1).mean(1)

    def _epsilon(self, to_student: Tensor, to_teacher: Tensor) -> Tensor:
        if self.epsilon != 'optimal':
            return torch.full_like(to_student, self.epsilon)
        tiny = torch.finfo(to_student.dtype).tiny
        return ((to_teacher + tiny) / (to_student + tiny)).sqrt().clamp(*self.limits)
