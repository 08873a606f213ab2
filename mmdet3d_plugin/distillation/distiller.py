"""The distiller: to the Runner an ordinary model."""
from contextlib import nullcontext
from typing import Dict, List, Mapping, Optional, Set

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from torch import nn

from ..errors import UserError, build_from
from .taps import Tap, TapRecorder, record_taps
from .teacher import FrozenTeacher


@MODELS.register_module()
class Distiller(BaseModel):
    """A student that learns from a frozen teacher.

    ``loss``: the teacher runs in mode ``tensor`` without gradient, as far as its last tap, the
    student in mode ``loss``, the assistant on their taps, then every term. ``predict`` and
    ``tensor`` are the student's, and need neither the teacher's files nor the LiDAR.

    Args:
        student (dict | str): The student's model config, or a config file that has one.
        teacher (dict, optional): ``config``, ``checkpoint`` and ``bf16`` of :class:`FrozenTeacher`;
            read when training starts.
        assistant (dict, optional): Train-only module fed by taps.
        terms (dict[str, dict], optional): Distillation terms by name; one set to None is off.
        init_assistant (bool): Start the assistant's parts from the teacher's of the same name.
        data_preprocessor (dict, optional): The student's unless given.

    Raises:
        UserError: A tap of the student or the assistant does not exist. The teacher's taps are
            checked when it is built.
    """

    def __init__(self, student, teacher: Optional[dict] = None, assistant: Optional[dict] = None,
                 terms: Optional[Dict[str, Optional[dict]]] = None, init_assistant: bool = False,
                 data_preprocessor: Optional[dict] = None, init_cfg=None):
        if isinstance(student, str):
            student = Config.fromfile(student).model
        data_preprocessor = data_preprocessor or student.get('data_preprocessor')
        super().__init__(
            build_from(MODELS, data_preprocessor, 'model.data_preprocessor'), init_cfg)
        self.student = build_from(MODELS, student, 'model.student')
        self.assistant = build_from(MODELS, assistant, 'model.assistant')
        self.terms = nn.ModuleDict({
            name: build_from(MODELS, term, f'model.terms.{name}')
            for name, term in (terms or {}).items() if term is not None})
        self.teacher = FrozenTeacher(**teacher) if teacher else None
        self.init_assistant = init_assistant
        if teacher is None and any(tap.role == 'teacher' for tap in self.taps()):
            raise UserError("model.terms: a tap starts with 'teacher', but model.teacher is not "
                            'set')
        self._check_taps({name: role for name, role in self._roles().items() if name != 'teacher'})

    def taps(self) -> Set[Tap]:
        """Every tap of the terms and of the assistant."""
        owners = [*self.terms.values(), *([self.assistant] if self.assistant else [])]
        return {Tap.parse(address) for owner in owners for address in owner.taps}

    def build_teacher(self) -> None:
        """Build the teacher without weights and check that it fits: taps, grid, normalisation.

        Raises:
            UserError: A tap does not exist, or teacher and student have different BEV grids or
                normalise their inputs differently.
        """
        teacher = self.teacher.build()
        self._check_taps(self._roles())
        grids = [getattr(model, 'grid', None) for model in (teacher, self.student)]
        if all(grids) and not grids[0].same_bev(grids[1]):
            raise UserError(f'model.teacher works on {grids[0]}, but model.student on {grids[1]}; '
                            'distillation compares cell by cell, so both need the same grid')
        self._check_normalisation(teacher)

    def load_teacher(self) -> None:
        """Build the teacher, check that it fits, and load its weights.

        Raises:
            UserError: See :meth:`build_teacher`; or its checkpoint is missing or foreign.
        """
        self.build_teacher()
        self.teacher.load()

    def init_weights(self) -> None:
        """Called by the Runner when training starts, and only then: loads the teacher."""
        super().init_weights()
        if self.teacher is None:
            return
        self.load_teacher()
        if self.init_assistant and self.assistant is not None:
            for name, part in self.assistant.named_children():
                _copy_matching(getattr(self.teacher.model, name), part, f'assistant.{name}')

    def forward(self, inputs: dict, data_samples=None, mode: str = 'tensor'):
        """See the class."""
        if mode != 'loss':
            return self.student(inputs, data_samples, mode)
        recorded, taps = TapRecorder(), self.taps()
        if self.teacher is not None:
            self._run_teacher(inputs, data_samples, taps, recorded)
        with record_taps('student', self.student, taps, recorded):
            losses = self.student(inputs, data_samples, mode='loss')
        if self.assistant is not None:
            with record_taps('assistant', self.assistant, taps, recorded):
                self.assistant(recorded)
        ctx = dict(inputs=inputs, data_samples=data_samples, roles=self._roles())
        for name, term in self.terms.items():
            losses.update({f'{key}_{name}': value for key, value in term(recorded, ctx).items()})
        return losses

    @torch.no_grad()
    def predict_roles(self, data: dict) -> Dict[str, List[PixelData]]:
        """What each role makes of a batch; the assistant if it has a head.

        Args:
            data (dict): Unprocessed batch with what the teacher reads.

        Returns:
            dict: One prediction a sample, by role.
        """
        inputs = self.data_preprocessor(data)['inputs']
        recorded, taps, models = TapRecorder(), self.taps(), self._roles()
        outs = dict(teacher=self._run_teacher(inputs, None, taps, recorded, whole=True))
        with record_taps('student', self.student, taps, recorded):
            outs['student'] = self.student(inputs, mode='tensor')
        outs['assistant'] = self.assistant(recorded) if self.assistant is not None else None
        return {role: models[role].head.predict(outs[role])
                for role in ('teacher', 'assistant', 'student') if outs[role] is not None}

    def _run_teacher(self, inputs, data_samples, taps, recorded, whole=False):
        if self.teacher.model is None:
            raise UserError('the teacher is not loaded; call init_weights() before mode="loss", as '
                            'the Runner does when training starts')
        device = next(self.student.parameters()).device
        teacher = self.teacher.to(device)
        precision = (torch.autocast(device.type, torch.bfloat16) if self.teacher.bf16 else
                     nullcontext())
        with torch.no_grad(), precision, record_taps('teacher', teacher, taps, recorded, not whole):
            return teacher(inputs, data_samples, mode='tensor')

    def _check_normalisation(self, teacher: BaseModel) -> None:
        """The teacher reads batches of this preprocessor: its own must have the same statistics."""
        own, its = (dict(model.data_preprocessor.named_buffers()) for model in (self, teacher))
        wrong = [name for name in sorted(own.keys() & its.keys())
                 if own[name].shape != its[name].shape
                 or not torch.equal(own[name].cpu(), its[name].cpu())]
        if wrong:
            raise UserError(
                f'model.data_preprocessor: {", ".join(wrong)} differ from those that the teacher '
                'was trained with; give teacher and student the same data_preprocessor')

    def _roles(self) -> Mapping[str, nn.Module]:
        roles = dict(student=self.student, assistant=self.assistant,
                     teacher=self.teacher.model if self.teacher else None)
        return {name: role for name, role in roles.items() if role is not None}

    def _check_taps(self, roles: Mapping[str, nn.Module]) -> None:
        for tap in sorted(self.taps(), key=lambda tap: tap.address):
            if tap.role in roles or tap.role not in ('student', 'teacher', 'assistant'):
                tap.check(roles)


def _copy_matching(source: nn.Module, target: nn.Module, name: str) -> None:
    """Copy the source's entries of the target's names; all of the target's must exist."""
    state = source.state_dict()
    wrong = [key for key, value in target.state_dict().items()
             if key not in state or state[key].shape != value.shape]
    if wrong:
        raise UserError(f'init_assistant: {name} has {", ".join(wrong[:3])}, which the teacher has '
                        'not in this shape; give both parts the same config')
    target.load_state_dict({key: state[key] for key in target.state_dict()})
