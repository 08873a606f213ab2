"""The distiller: to the Runner an ordinary model."""
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Union

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from torch import nn

from ..checkpoints import load_state_strictly
from ..errors import UserError, build_from, did_you_mean
from ..models.parts import build_parts, merge_losses
from ..models.taps import Tap, TapRecorder, record_taps
from .context import Context
from .teacher import FrozenTeacher, read_model

_OWN_ROLES = ('student', 'assistant')
_TEACHER_KEYS = ('config', 'checkpoint', 'bf16', 'inputs')


@MODELS.register_module()
class Distiller(BaseModel):
    """A student that learns from frozen teachers.

    ``loss``: the teachers run in mode ``tensor`` without gradient, each as far as its last tap, the
    student in mode ``loss``, the assistant on their taps, then every term. ``predict`` and
    ``tensor`` are the student's, and need neither the teachers' files nor the LiDAR.

    Args:
        student (dict | str): The student's model config, or a config file that has one.
        teacher (dict, optional): ``config``, ``checkpoint``, ``bf16`` and ``inputs`` of
            :class:`FrozenTeacher`; read when training starts. Its role is ``teacher``.
        teachers (dict[str, dict], optional): Several teachers; their names are their roles.
        assistant (dict, optional): Train-only module fed by taps.
        terms (dict[str, dict], optional): Distillation terms by name; one set to None is off.
        init_from_teacher (list | dict, optional): Modules that start with a teacher's weights, such
            as ``['student.head', 'assistant']``: those of the same path in the teacher; of a role
            all parts. A dict names the source: ``{'student.head': 'lidar.head'}``.
        data_preprocessor (dict, optional): The student's unless given. A teacher with other
            statistics gets its inputs renormalised.

    Raises:
        UserError: A tap of the student or the assistant does not exist. The teachers' taps are
            checked when they are built.
    """

    def __init__(self, student, teacher: Optional[dict] = None,
                 teachers: Optional[Mapping[str, dict]] = None, assistant: Optional[dict] = None,
                 terms: Optional[Dict[str, Optional[dict]]] = None,
                 init_from_teacher: Union[Sequence[str], Mapping[str, str], None] = None,
                 data_preprocessor: Optional[dict] = None, init_cfg=None):
        if isinstance(student, str):
            student = read_model(student, 'student', 'name the config of the student')
        data_preprocessor = data_preprocessor or student.get('data_preprocessor')
        super().__init__(
            build_from(MODELS, data_preprocessor, 'model.data_preprocessor'), init_cfg)
        self.student = build_from(MODELS, student, 'model.student')
        self.assistant = build_from(MODELS, assistant, 'model.assistant',
                                    grid=getattr(self.student, 'grid', None))
        self.terms = build_parts(terms, 'model.terms')
        self.teachers = _teachers(teacher, teachers)
        self.init_from_teacher = self._sources(init_from_teacher)
        owners = [*self.terms.values(), *([self.assistant] if self.assistant else [])]
        self._taps = tuple(
            Tap.parse(address) for address in sorted({a for owner in owners for a in owner.taps}))
        self._check_taps(set(_OWN_ROLES))

    def taps(self) -> Tuple[Tap, ...]:
        """Every tap of the terms and of the assistant."""
        return self._taps

    @property
    def teacher(self) -> Optional[FrozenTeacher]:
        """The teacher of role ``teacher``, if there is one."""
        return self.teachers.get('teacher')

    def build_teachers(self) -> None:
        """Build the teachers without weights and check that they fit: taps, grid, normalisation.

        Raises:
            UserError: A tap does not exist, or teacher and student have different BEV grids or
                inputs that cannot be renormalised.
        """
        for name, teacher in self.teachers.items():
            self._check_grid(name, teacher.build())
            teacher.match_normalisation(self.data_preprocessor)
        self._check_taps(set(self.teachers))

    def load_teachers(self) -> None:
        """Build the teachers, check that they fit, and load their weights.

        Raises:
            UserError: See :meth:`build_teachers`; or a checkpoint is missing or foreign.
        """
        self.build_teachers()
        for teacher in self.teachers.values():
            teacher.load()

    def init_weights(self) -> None:
        """Called by the Runner when training starts, and only then: loads the teachers."""
        super().init_weights()
        self.load_teachers()
        roles = self._roles()
        for target, source in self.init_from_teacher.items():
            for tap in (target, source):
                tap.check(roles)
            _copy_matching(roles[source.role].get_submodule(source.module),
                           roles[target.role].get_submodule(target.module), target.address)

    def forward(self, inputs: dict, data_samples=None, mode: str = 'tensor'):
        """See the class."""
        if mode != 'loss':
            return self.student(inputs, data_samples, mode)
        recorder = TapRecorder()
        for teacher in self.teachers.values():
            if any(tap.role == teacher.role for tap in self._taps):
                teacher.run(inputs, data_samples, self._taps, recorder, self._device())
        with record_taps('student', self.student, self._taps, recorder):
            losses = self.student(inputs, data_samples, mode='loss')
        self._run_assistant(recorder)
        ctx = Context(inputs, data_samples, self._roles(), recorder,
                      getattr(self.student, 'grid', None), _iteration())
        for name, term in self.terms.items():
            own = {f'{key}_{name}': value for key, value in term(recorder, ctx).items()}
            losses = merge_losses(losses, own, f'model.terms.{name}')
        return losses

    @torch.no_grad()
    def predict_roles(self, data: dict) -> Dict[str, List[Det3DDataSample]]:
        """What each role predicts for a batch; the assistant if it has a head.

        Args:
            data (dict): Unprocessed batch with what the teachers read.

        Returns:
            dict: The samples with predictions, by role: teachers, assistant, student.
        """
        processed = self.data_preprocessor(data)
        inputs, samples = processed['inputs'], processed['data_samples']
        recorder, models = TapRecorder(), self._roles()
        outs = {name: teacher.run(inputs, None, self._taps, recorder, self._device(), complete=True)
                for name, teacher in self.teachers.items()}
        with record_taps('student', self.student, self._taps, recorder):
            student = self.student(inputs, mode='tensor')
        outs.update(assistant=self._run_assistant(recorder), student=student)
        return {role: models[role].head.predict(out, [sample.new() for sample in samples])
                for role, out in outs.items() if out is not None}

    def _run_assistant(self, recorder: TapRecorder) -> Optional[Dict[str, Any]]:
        if self.assistant is None:
            return None
        with record_taps('assistant', self.assistant, self._taps, recorder):
            return self.assistant(recorder)

    def _device(self) -> torch.device:
        return next(self.student.parameters()).device

    def _check_grid(self, name: str, teacher: nn.Module) -> None:
        grids = [getattr(model, 'grid', None) for model in (teacher, self.student)]
        if all(grids) and not grids[0].same_bev(grids[1]):
            raise UserError(f'model.{name} works on {grids[0]}, but model.student on {grids[1]}; '
                            'distillation compares cell by cell, so both need the same grid')

    def _roles(self) -> Dict[str, nn.Module]:
        roles = dict(student=self.student, assistant=self.assistant,
                     **{name: teacher.model for name, teacher in self.teachers.items()})
        return {name: role for name, role in roles.items() if role is not None}

    def _check_taps(self, names: Set[str]) -> None:
        """Check the taps of these roles, and that every other tap is of a role that may exist."""
        roles = self._roles()
        for tap in self._taps:
            if tap.role not in (*_OWN_ROLES, *self.teachers):
                known = (*_OWN_ROLES, *self.teachers)
                hint = '' if self.teachers else '; model.teacher is not set'
                raise UserError(f'tap {tap.address!r}: there is no role {tap.role!r}'
                                f'{did_you_mean(tap.role, known)}{hint}')
            if tap.role in names:
                tap.check(roles)

    def _parts(self, address: str) -> List[str]:
        """The address of a module as it is, that of a role as those of its parts."""
        if address not in _OWN_ROLES:
            return [address]
        role = self._roles().get(address, nn.Module())  # an assistant that is switched off
        return [f'{address}.{name}' for name, _ in role.named_children()]

    def _sources(self, modules) -> Dict[Tap, Tap]:
        """Modules that start with a teacher's weights, and the teacher's modules."""
        if not isinstance(modules, Mapping):
            only = next(iter(self.teachers), 'teacher')
            if modules and len(self.teachers) != 1:
                raise UserError('init_from_teacher: a list needs exactly one teacher, there are '
                                f'{len(self.teachers)}; name the sources: '
                                "{'student.head': 'TEACHER.head'}")
            modules = {address: f'{only}.{address.partition(".")[2]}'
                       for name in modules or () for address in self._parts(name)}
        pairs = {Tap.parse(target): Tap.parse(source) for target, source in modules.items()}
        for target, source in pairs.items():
            if target.role not in _OWN_ROLES or source.role not in self.teachers or any(
                    tap.key is not None or tap.run is not None for tap in (target, source)):
                raise UserError(f'init_from_teacher: {target.address} from {source.address}: '
                                'expected a module of student or assistant, and one of a teacher, '
                                'both without index or run '
                                f'({", ".join(self.teachers) or "there is none"})')
        return pairs


def _teachers(teacher: Optional[dict],
              teachers: Optional[Mapping[str, dict]]) -> Dict[str, FrozenTeacher]:
    if teacher and teachers:
        raise UserError('model: give teacher or teachers, not both')
    named = dict(teacher=teacher) if teacher else dict(teachers or {})
    for name in named:
        if name in _OWN_ROLES:
            raise UserError(f'model.teachers: {name!r} is the name of another role; choose another')
    path = {name: 'teacher' if teacher else f'teachers.{name}' for name in named}
    return {name: FrozenTeacher(**_checked(cfg, f'model.{path[name]}'), role=name, path=path[name])
            for name, cfg in named.items() if cfg is not None}


def _checked(cfg: Mapping, path: str) -> Mapping:
    """The config of a teacher, whose keys are arguments of :class:`FrozenTeacher`."""
    for key in cfg:
        if key not in _TEACHER_KEYS:
            raise UserError(f'{path}.{key}: a teacher has no such argument'
                            f'{did_you_mean(key, _TEACHER_KEYS)}', path)
    if 'config' not in cfg:
        raise UserError(f'{path}.config: missing; name the config that trained the teacher', path)
    return cfg


def _iteration() -> int:
    """Training iterations done, as the Runner counts them."""
    return MessageHub.get_current_instance().get_info('iter') or 0


def _copy_matching(source: nn.Module, target: nn.Module, name: str) -> None:
    """Copy the source's entries of the target's names; all of the target's must exist."""
    names = target.state_dict().keys()
    state = {key: value for key, value in source.state_dict().items() if key in names}
    load_state_strictly(target, state, f'init_from_teacher: {name} is not as the module of the '
                        'teacher', 'give both parts the same config')
