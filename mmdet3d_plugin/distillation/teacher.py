"""The frozen teacher: loaded strictly when training starts, never part of the student's state."""
from pathlib import Path
from typing import Optional

from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModel

from ..checkpoints import read_checkpoint
from ..errors import UserError, build_from

_ROOT = Path(__file__).resolve().parents[2]


class FrozenTeacher:
    """A model behind a plain object, so that no parameter list, checkpoint, optimiser, EMA copy or
    distributed wrapper ever sees it.

    Args:
        config (str): Config file of the teacher; relative to the working directory or the project.
        checkpoint (str, optional): Its weights, or the work dir of its training, whose best
            checkpoint is taken. Needed to train, not to build.
        bf16 (bool): Run it in bfloat16 where that is safe, whatever the student's precision.
    """

    def __init__(self, config: str, checkpoint: Optional[str] = None, bf16: bool = False):
        self.config, self.checkpoint, self.bf16 = config, checkpoint, bf16
        self.model: Optional[BaseModel] = None

    def config_file(self) -> Path:
        """Where the config is, from the current folder or from the repository's root.

        Raises:
            UserError: The config file does not exist.
        """
        return _find(self.config, 'teacher.config', 'name the config that trained the teacher')

    def build(self) -> BaseModel:
        """Build without weights, frozen: eval mode and no gradient.

        Raises:
            UserError: The config file does not exist.
        """
        model = build_from(MODELS, Config.fromfile(self.config_file()).model, 'teacher')
        self.model = model.eval().requires_grad_(False)
        return self.model

    def load(self) -> None:
        """Load the weights strictly.

        Raises:
            UserError: The checkpoint is missing, unreadable, or of another model.
        """
        hint = f'train the teacher first: python tools/train.py {self.config}'
        if not self.checkpoint:
            raise UserError(f'teacher.checkpoint is not set; {hint}, then pass its best checkpoint '
                            'with --cfg-options model.teacher.checkpoint=PATH')
        path = _find(_best_in(self.checkpoint), 'teacher.checkpoint', hint)
        loaded = read_checkpoint(path)
        state = loaded.get('state_dict', loaded)
        expected = self.model.state_dict()
        missing, foreign = sorted(expected.keys() - state), sorted(state.keys() - expected.keys())
        wrong = [key for key in expected.keys() & state.keys()
                 if expected[key].shape != getattr(state[key], 'shape', None)]
        if missing or foreign or wrong:
            examples = ', '.join((missing + foreign + wrong)[:3])
            raise UserError(
                f'teacher.checkpoint: {path} is not a checkpoint of {self.config}: {len(missing)} '
                f'entries missing, {len(foreign)} foreign, {len(wrong)} of another shape '
                f'({examples}); {hint}')
        self.model.load_state_dict(state)

    def to(self, device) -> BaseModel:
        """The model on the device of the student."""
        if next(self.model.parameters()).device != device:
            self.model.to(device)
        return self.model

    def __deepcopy__(self, memo) -> 'FrozenTeacher':
        return self


def _best_in(name: str) -> str:
    """The best checkpoint of a work dir; any other path as it is."""
    for folder in (Path(name), _ROOT / name):
        best = sorted(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
        if best:
            return str(best[-1])
    return name


def _find(name: str, what: str, hint: str) -> Path:
    for path in (Path(name), _ROOT / name):
        if path.is_file():
            return path
    raise UserError(f'{what}: {name} does not exist; {hint}')
