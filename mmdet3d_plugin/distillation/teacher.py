"""Frozen teachers: loaded strictly when training starts, never part of the student's state."""
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Tuple, Union

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from torch import Tensor, nn

from ..checkpoints import load_state_strictly, read_checkpoint, student_weights, weights_of
from ..errors import UserError, build_from
from ..models.taps import Tap, TapRecorder, record_taps

_ROOT = Path(__file__).resolve().parents[2]
_STATISTICS = dict(imgs=('mean', 'std'), lidar_img=('lidar_mean', 'lidar_std'))


class FrozenTeacher:
    """A model behind a plain object, so that no parameter list, checkpoint, optimiser, EMA copy or
    distributed wrapper ever sees it.

    Args:
        config (str): Config file of the teacher; relative to the working directory or the project.
        checkpoint (str, optional): Its weights, or the work dir of its training, whose best
            checkpoint is taken. Needed to train, not to build.
        bf16 (bool): Run it in bfloat16 where that is safe, whatever the student's precision.
        inputs (dict, optional): Entries of the batch that it reads in place of the student's, by
            the name that it knows: ``dict(points='points_sweeps')``. The pipeline must load them.
        role (str): Its name in taps.
        path (str): Where its config stands in the model's, for messages.
    """

    def __init__(self, config: str, checkpoint: Optional[str] = None, bf16: bool = False,
                 inputs: Optional[Mapping[str, str]] = None, role: str = 'teacher',
                 path: str = 'teacher'):
        self.config, self.checkpoint, self.bf16 = config, checkpoint, bf16
        self.inputs, self.role, self.path = dict(inputs or {}), role, path
        self.model: Optional[BaseModel] = None
        self._normalisation: Dict[str, Tuple[Tensor, Tensor]] = {}
        self._checked_runs = False

    def config_file(self) -> Path:
        """Where the config is, from the current folder or from the repository's root.

        Raises:
            UserError: The config file does not exist.
        """
        return _find(self.config, f'{self.path}.config', 'name the config that trained the teacher')

    def build(self) -> BaseModel:
        """Build without weights, frozen: eval mode and no gradient.

        Raises:
            UserError: The config file does not exist.
        """
        model = build_from(MODELS, read_model(self.config_file(), f'{self.path}.config'), self.role)
        self.model = model.eval().requires_grad_(False)
        return self.model

    def load(self) -> None:
        """Load the weights strictly.

        Raises:
            UserError: The checkpoint is missing, unreadable, or of another model.
        """
        hint = f'train the teacher first: python tools/train.py {self.config}'
        if not self.checkpoint:
            raise UserError(
                f'{self.path}.checkpoint is not set; {hint}, then pass its best checkpoint with '
                f'--cfg-options model.{self.path}.checkpoint=PATH')
        path = _find(_best_in(self.checkpoint), f'{self.path}.checkpoint', hint)
        state = weights_of(read_checkpoint(path))
        if not hasattr(self.model, 'student'):
            state = student_weights(state)  # a distilled student may teach
        load_state_strictly(
            self.model, state,
            f'{self.path}.checkpoint: {path} is not a checkpoint of {self.config}', hint)

    def match_normalisation(self, preprocessor: nn.Module) -> None:
        """Renormalise inputs of the student's preprocessor where the teacher has other statistics.

        Raises:
            UserError: They differ in the number or order of channels, or in whether they normalise.
        """
        own, self._normalisation = self.model.data_preprocessor, {}
        for name in ('_enable_normalize', '_channel_conversion'):
            if getattr(own, name, None) != getattr(preprocessor, name, None):
                raise UserError(f"{self.path}: its data_preprocessor and the student's differ in "
                                f'{name.strip("_")}; give both the same')
        for key, (mean, std) in _STATISTICS.items():
            values = [getattr(p, n, None) for p in (preprocessor, own) for n in (mean, std)]
            if any(value is None for value in values):
                continue
            from_mean, from_std, to_mean, to_std = (value.cpu() for value in values)
            if from_mean.shape != to_mean.shape:
                raise UserError(
                    f'model.data_preprocessor: {mean} has {len(from_mean)} channels, but '
                    f'{len(to_mean)} in the {self.role}; give both the same data_preprocessor')
            if not (torch.equal(from_mean, to_mean) and torch.equal(from_std, to_std)):
                self._normalisation[key] = from_std / to_std, (from_mean - to_mean) / to_std

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any], samples: Optional[Sequence], taps: Iterable[Tap],
            recorder: TapRecorder, device: torch.device, complete: bool = False) -> Any:
        """Run on a batch and record the teacher's taps.

        The forward stops at the last tap, but for the first batch, in which a module that runs
        twice must be noticed.

        Args:
            inputs (dict): As the student's preprocessor made them.
            samples (list, optional): Of the batch.
            taps (iterable): Of all roles.
            recorder (TapRecorder): Takes the tensors.
            device (torch.device): Of the student.
            complete (bool): Run to the end.

        Returns:
            dict | None: The raw outputs of a complete run.
        """
        if self.model is None:
            raise UserError('the teacher is not loaded; call init_weights() before mode="loss", as '
                            'the Runner does when training starts')
        stop, self._checked_runs = self._checked_runs and not complete, True
        precision = (torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext())
        with precision, record_taps(self.role, self.to(device), taps, recorder, stop):
            return self.model(self._own_inputs(inputs), samples, mode='tensor')

    def _own_inputs(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        for name in self.inputs.values():
            if name not in inputs:
                raise UserError(f'{self.path}.inputs: the batch has no {name!r}, only '
                                f'{sorted(inputs)}; load it in the pipeline and pack it')
        own = {**inputs, **{name: inputs[source] for name, source in self.inputs.items()}}
        for key, (scale, shift) in self._normalisation.items():
            if own.get(key) is not None:
                own[key] = own[key] * scale.to(own[key]) + shift.to(own[key])
        return own

    def to(self, device) -> BaseModel:
        """The model on the device of the student."""
        if next(self.model.parameters()).device != device:
            self.model.to(device)
        return self.model

    def __deepcopy__(self, memo) -> 'FrozenTeacher':
        return self


def read_model(config: Union[str, Path], what: str, hint: str = 'correct it') -> ConfigDict:
    """The model of a config file, looked up like a teacher's.

    Raises:
        UserError: There is no such file, it is no config, or it has no model.
    """
    path = _find(str(config), what, hint)
    try:
        model = Config.fromfile(path).get('model')
    except Exception as error:  # a config is code
        raise UserError(f'{what}: {path} is no config: {type(error).__name__}: {error}') from error
    if not model:
        raise UserError(f'{what}: {path} has no model; {hint}')
    return model


def _best_in(name: str) -> str:
    """The best checkpoint of a work dir, of several that of the last step; other paths as is."""
    for folder in (Path(name), _ROOT / name):
        best = sorted(folder.glob('best_*.pth'), key=lambda path: (_step_of(path), path.name))
        if best:
            return str(best[-1])
    return name


def _step_of(path: Path) -> int:
    """The iteration or epoch in a checkpoint's name; -1 without one."""
    found = re.search(r'_(\d+)\.pth$', path.name)
    return int(found[1]) if found else -1


def _find(name: str, what: str, hint: str) -> Path:
    for path in (Path(name), _ROOT / name):
        if path.is_file():
            return path
    raise UserError(f'{what}: {name} does not exist; {hint}')
