"""Taps: addresses of tensors inside the roles of a distillation, or inside a model."""
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Union

from torch import Tensor, nn

from ..errors import UserError, did_you_mean

_SYNTAX = re.compile(r'(?P<role>\w+)\.(?P<module>\w+(\.\w+)*)(@(?P<run>\d+))?'
                     r'(\[(?P<key>-?\d+|[A-Za-z_][\w.]*)\])?')


@dataclass(frozen=True)
class Tap:
    """The output of one module of one role.

    Attributes:
        address (str): ``role.path.of.module``, where the module returns a tuple or a dict followed
            by ``[index]`` or ``[key]``, and where it runs more than once in a forward preceded by
            ``@run``: ``teacher.fuser``, ``student.bev_encoder[-1]``, ``student.head[heatmap]``,
            ``student.camera_branch.encoder@1``.
        role (str): Such as ``'student'``, ``'teacher'`` or ``'assistant'``.
        module (str): Path of the module inside the role.
        key (int | str, optional): Which element of a tuple or of a dict.
        run (int, optional): Which of the module's runs in a forward, from 0; None: the only one.
    """
    address: str
    role: str
    module: str
    key: Optional[Union[int, str]] = None
    run: Optional[int] = None

    @classmethod
    def parse(cls, address: str) -> 'Tap':
        """Parse an address.

        Example:
            >>> Tap.parse('student.bev_encoder[-1]').key
            -1
            >>> Tap.parse('teacher.camera_branch.encoder@0').run
            0

        Raises:
            UserError: It is not of the form that :class:`Tap` describes.
        """
        match = _SYNTAX.fullmatch(address)
        if not match:
            raise UserError(f'tap {address!r}: expected role.module, role.module[index] or '
                            "role.module[key], such as 'student.bev_encoder[-1]'")
        key, run = match['key'], match['run']
        if key is not None and key.lstrip('-').isdigit():
            key = int(key)
        return cls(address, match['role'], match['module'], key, None if run is None else int(run))

    def of_run(self, run: int) -> str:
        """The address of the same tensor in one of the module's runs."""
        key = '' if self.key is None else f'[{self.key}]'
        return f'{self.role}.{self.module}@{run}{key}'

    def check(self, roles: Mapping[str, nn.Module]) -> None:
        """Resolve the address without running anything.

        Raises:
            UserError: Unknown role or module; the message lists close matches.
        """
        if self.role not in roles:
            raise UserError(f'tap {self.address!r}: there is no role {self.role!r}'
                            f'{did_you_mean(self.role, roles)}')
        known = dict(roles[self.role].named_modules())
        if self.module not in known:
            raise UserError(f'tap {self.address!r}: the {self.role} has no module {self.module!r}'
                            f'{did_you_mean(self.module, filter(None, known))}')

    def select(self, output: Any) -> Tensor:
        """The tapped tensor of a module's output.

        Raises:
            UserError: The output has no such element, or it is no tensor.
        """
        if self.key is not None:
            try:
                output = output[self.key]
            except (IndexError, KeyError, TypeError) as error:
                raise UserError(f'tap {self.address!r}: the module returns {_describe(output)}, '
                                f'which has no [{self.key}]') from error
        if not isinstance(output, Tensor):
            raise UserError(f'tap {self.address!r}: the module returns {_describe(output)}, not a '
                            'tensor; add an index or a key, as in [-1], or tap a module inside it')
        return output


def _describe(output: Any) -> str:
    if isinstance(output, Mapping):
        return f'{type(output).__name__} with the keys {", ".join(map(str, output))}'
    if isinstance(output, (tuple, list)):
        return f'{type(output).__name__} of {len(output)}'
    return type(output).__name__


class TapRecorder(Dict[str, Tensor]):
    """Tapped tensors by address; reading one that was rewritten in place since is an error."""

    def __init__(self):
        super().__init__()
        self._versions: Dict[str, int] = {}

    def record(self, tap: Tap, output: Any) -> None:
        """Keep the tapped tensor of a module's output."""
        tensor = tap.select(output)
        self[tap.address] = tensor
        self._versions[tap.address] = tensor._version

    def __getitem__(self, address: str) -> Tensor:
        if address not in self:
            raise UserError(f'tap {address!r} did not fire: its module did not run in this forward'
                            ', or not as often as the tap says')
        tensor = super().__getitem__(address)
        if tensor._version != self._versions[address]:
            raise UserError(f'tap {address!r}: a later layer rewrote this tensor in place; tap the '
                            'module after that layer')
        return tensor


class _StopForward(Exception):
    """Every tap has fired."""


@contextmanager
def record_taps(role: str, module: nn.Module, taps: Iterable[Tap], recorder: TapRecorder,
                stop: bool = False) -> Iterator[None]:
    """Record the role's taps during one forward; the hooks are removed afterwards.

    Args:
        role (str): Whose taps.
        module (nn.Module): The role.
        taps (iterable): Of all roles.
        recorder (TapRecorder): Takes the tensors.
        stop (bool): Leave the block when each tap has fired: the rest of the forward is not
            computed, and a module that would run once more is not noticed.

    Raises:
        UserError: A module ran more than once, and the tap does not say which run it means.
    """
    own = list(dict.fromkeys(tap for tap in taps if tap.role == role))
    pending, runs = set(own), dict.fromkeys(own, 0)

    def on_output(tap, output):
        run, runs[tap] = runs[tap], runs[tap] + 1
        if tap.run is None and run > 0:
            raise UserError(f'tap {tap.address!r}: its module runs more than once in a forward; '
                            f"say which run is meant, '{tap.of_run(0)}' for the first")
        if run == (tap.run or 0):
            recorder.record(tap, output)
            pending.discard(tap)
        if stop and not pending:
            raise _StopForward

    handles = [module.get_submodule(tap.module).register_forward_hook(
        lambda _, __, output, tap=tap: on_output(tap, output)) for tap in own]
    try:
        yield
    except _StopForward:
        pass
    finally:
        for handle in handles:
            handle.remove()
