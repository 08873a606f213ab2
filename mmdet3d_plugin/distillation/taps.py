"""Taps: addresses of tensors inside the roles of a distillation."""
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Dict, Iterable, Mapping, Optional

from torch import Tensor, nn

from ..errors import UserError, did_you_mean

_SYNTAX = re.compile(r'(?P<role>\w+)\.(?P<module>[\w.]+)(\[(?P<index>-?\d+)\])?')


@dataclass(frozen=True)
class Tap:
    """The output of one module of one role.

    Attributes:
        address (str): ``role.path.of.module`` or ``role.path.of.module[index]`` where the module
            returns a tuple, such as ``teacher.fuser`` or ``student.bev_encoder[-1]``.
        role (str): ``'student'``, ``'teacher'`` or ``'assistant'``.
        module (str): Path of the module inside the role.
        index (int, optional): Which element of a tuple.
    """
    address: str
    role: str
    module: str
    index: Optional[int]

    @classmethod
    def parse(cls, address: str) -> 'Tap':
        """Parse an address.

        Raises:
            UserError: It is not of the form ``role.module`` or ``role.module[index]``.
        """
        match = _SYNTAX.fullmatch(address)
        if not match:
            raise UserError(f'tap {address!r}: expected role.module or role.module[index], such as '
                            "'student.bev_encoder[-1]'")
        index = match['index']
        return cls(address, match['role'], match['module'], None if index is None else int(index))

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


class TapRecorder(Dict[str, Tensor]):
    """Tapped tensors by address; reading one that was rewritten in place since is an error."""

    def __init__(self):
        super().__init__()
        self._versions = {}

    def record(self, tap: Tap, output) -> None:
        if tap.index is not None:
            output = output[tap.index]
        if not isinstance(output, Tensor):
            raise UserError(f'tap {tap.address!r}: the module returns {type(output).__name__}, not '
                            'a tensor; add an index, as in [-1], or tap a module inside it')
        self[tap.address] = output
        self._versions[tap.address] = output._version

    def __getitem__(self, address: str) -> Tensor:
        if address not in self:
            raise KeyError(f'tap {address!r} did not fire: its module was not run in this forward')
        tensor = super().__getitem__(address)
        if tensor._version != self._versions[address]:
            raise UserError(f'tap {address!r}: a later layer rewrote this tensor in place; tap the '
                            'module after that layer')
        return tensor


class _Heard(Exception):
    """Every tap has fired."""


@contextmanager
def record_taps(role: str, module: nn.Module, taps: Iterable[Tap], recorded: TapRecorder,
           stop: bool = False):
    """Record the role's taps during one forward; the hooks are removed afterwards.

    Args:
        role (str): Whose taps.
        module (nn.Module): The role.
        taps (iterable): Of all roles.
        recorded (TapRecorder): Takes the tensors.
        stop (bool): Leave the block when each tap has fired once: what the forward would compute
            after them is spared.
    """
    modules = dict(module.named_modules())
    silent = {tap for tap in taps if tap.role == role}

    def hear(tap, output):
        recorded.record(tap, output)
        silent.discard(tap)
        if stop and not silent:
            raise _Heard

    handles = [modules[tap.module].register_forward_hook(
        lambda _, __, output, tap=tap: hear(tap, output)) for tap in tuple(silent)]
    try:
        yield
    except _Heard:
        pass
    finally:
        for handle in handles:
            handle.remove()
