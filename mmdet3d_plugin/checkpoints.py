"""Files: written atomically and hashed; checkpoints loaded strictly and without running code."""
import contextlib
import hashlib
import inspect
import os
import pickle
import re
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterable, Iterator, Mapping, Tuple, Union

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from .errors import UserError

_PLAIN = (str, bytes, int, float, bool, type(None), torch.Tensor)
RENAMED_ENTRIES = (
    (r'(camera|lidar)_branch\.compressor\.', r'\1_branch.view_transform.compressor.'),
    (r'_branch\.encoder\.adapter\.', '_branch.encoder.input_proj.'))
"""Pattern and replacement of entries that had other names in earlier checkpoints."""


@contextlib.contextmanager
def atomic_write(path: Union[str, Path],
                 again: str = 'run the same command again') -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    The bytes go to ``.<name>.<random>.tmp`` in the same folder, reach the disk (fsync) and are
    then renamed. A process killed at any moment leaves the old file or the new one, never a part;
    :func:`remove_temporary` removes what it left. Of several processes the last one to end wins.

    Args:
        path (str | Path): The file; its folder is made if need be.
        again (str): What to do after the cause of an error is removed.

    Yields:
        BinaryIO: The open temporary file.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:16]}.tmp')
    with disk_errors(path, again):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, 'xb') as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_temporary(folder: Union[str, Path]) -> None:
    """Remove what killed processes left of :func:`atomic_write`; nobody may write there now."""
    for path in Path(folder).glob('.*.tmp'):
        if re.search(r'\.[0-9a-f]{16}\.tmp$', path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: Union[str, Path],
                again: str = 'run the same command again') -> Iterator[None]:
    """Turn errors of the operating system while writing a file into a :class:`UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{path}: cannot write: {error.strerror or error}; make room there, or '
                        f'choose another folder, and {again}') from error


def file_sha256(path: Union[str, Path]) -> str:
    """Hash of a file's content, as hex digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def source_sha256(*folders: Union[str, Path], files: Iterable[Union[str, Path]] = ()) -> str:
    """Hash of Python source: what it computed and left on disk is stale when it changes.

    Args:
        *folders: whose ``.py`` files are read, without subfolders.
        files: more files.
    """
    paths = {Path(path) for path in files}.union(*(Path(f).glob('*.py') for f in folders))
    return hashlib.sha256(''.join(map(file_sha256, sorted(paths))).encode()).hexdigest()


def save_checkpoint(checkpoint: Mapping, path: Union[str, Path]) -> None:
    """Write a checkpoint atomically, as plain types only (see :func:`to_plain`)."""
    with atomic_write(path) as file:
        torch.save(to_plain(checkpoint), file)


def to_plain(value: Any) -> Any:
    """The same content in types that ``torch.load(weights_only=True)`` accepts.

    Arrays become tensors, NumPy scalars Python numbers, log histories tagged dicts (see
    :func:`from_plain`), mappings and sequences their built-in kind. Functions are left out of
    mappings (schedulers keep some, which their constructors set anyway); what is left becomes text.
    """
    if isinstance(value, torch.nn.Parameter):
        return value.detach()
    if isinstance(value, _PLAIN) and type(value).__module__ in ('builtins', 'torch'):
        return value
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(__history__=to_plain(log), count=to_plain(count), max_length=value.max_length)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biufc':
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Mapping):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        plain = kind((to_plain(key), to_plain(item)) for key, item in value.items()
                     if not inspect.isroutine(item))
        if hasattr(value, '_metadata'):  # of a state dict: the modules' version numbers
            plain._metadata = to_plain(value._metadata)
        return plain
    if isinstance(value, (list, tuple, set, frozenset)) or hasattr(value, '__iter__'):
        return (tuple if isinstance(value, tuple) else list)(to_plain(item) for item in value)
    return str(value)


def from_plain(value: Any) -> Any:
    """Bring back what :func:`to_plain` and :func:`known_types` replaced; containers in place.

    Log histories and NumPy arrays are objects again; functions, of which only the name was read,
    are left out of mappings and sequences.
    """
    if isinstance(value, dict) and '__history__' in value:
        return HistoryBuffer(value['__history__'].tolist(), value['count'].tolist(),
                             value['max_length'])
    if isinstance(value, _History):
        log, count = value._log_history.content, value._count_history.content
        return HistoryBuffer(log.tolist(), count.tolist(), value.max_length)
    if isinstance(value, _Array):
        return value.content
    if isinstance(value, dict):
        for key, item in list(value.items()):
            if item is _Function:
                del value[key]
            else:
                value[key] = from_plain(item)
    elif type(value) in (list, tuple):
        return type(value)(from_plain(item) for item in value if item is not _Function)
    return value


def read_checkpoint(path: Union[str, Path], map_location: str = 'cpu') -> dict:
    """Load a checkpoint file without running code from it.

    Args:
        path (str | Path): A file of this package, of mmengine's Runner, or a plain state dict.
        map_location (str): Device of the tensors. Defaults to 'cpu'.

    Returns:
        dict: The content; the weights are under ``state_dict`` in files of a Runner.

    Raises:
        UserError: The file is missing, cut short, no checkpoint, or needs code to load.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'checkpoint {path}: no such file; train it first, or correct the path')
    try:
        with known_types():
            checkpoint = from_plain(torch.load(path, map_location=map_location, weights_only=True))
    except (RuntimeError, EOFError) as error:
        raise UserError(f'checkpoint {path}: cut short or damaged '
                        f'({path.stat().st_size} bytes); copy or train it again') from error
    except OSError as error:
        raise UserError(f'checkpoint {path}: cannot be read ({error.strerror or error})') from error
    except Exception as error:  # whatever an unpickler meets in bytes of another kind
        raise UserError(f'checkpoint {path}: it is no checkpoint, or holds objects that cannot '
                        f'be loaded safely ({_refusal(error)}); only weights and plain values '
                        'load; save its state_dict alone') from error
    if not isinstance(checkpoint, Mapping):
        raise UserError(f'checkpoint {path}: expected a dict with weights, '
                        f'got {type(checkpoint).__name__}')
    return checkpoint


def weights_of(checkpoint: Mapping) -> Dict[str, torch.Tensor]:
    """The state dict of a checkpoint, with the names that entries have today."""
    state = dict(checkpoint.get('state_dict', checkpoint))
    for pattern, name in RENAMED_ENTRIES:
        state = {re.sub(pattern, name, key): value for key, value in state.items()}
    return state


def student_weights(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The student's entries of a distiller's weights, without ``student.``; others unchanged."""
    inner = {key.removeprefix('student.'): value for key, value in state.items()
             if key.startswith('student.')}
    return inner or state


def load_weights(model: nn.Module, path: Union[str, Path]) -> dict:
    """Load a checkpoint's weights strictly.

    A distiller's checkpoint also fits its student's own model, and a student's the distiller.

    Args:
        model (nn.Module): The model; changed in place.
        path (str | Path): The checkpoint file.

    Returns:
        dict: The checkpoint.

    Raises:
        UserError: The file does not load safely, or its weights are not this model's.
    """
    checkpoint = read_checkpoint(path)
    state = weights_of(checkpoint)
    of_distiller = student_weights(state) is not state
    if hasattr(model, 'student') and not of_distiller:
        model = model.student
    elif not hasattr(model, 'student'):
        state = student_weights(state)
    load_state_strictly(model, state, f'checkpoint {path}: not of this model '
                        f'({type(model).__name__})', 'use the config that trained it')
    return checkpoint


def load_state_strictly(model: nn.Module, state: Mapping[str, torch.Tensor], problem: str,
                        hint: str) -> None:
    """Load a state dict that has exactly the model's entries.

    Args:
        model (nn.Module): The model; changed in place.
        state (Mapping): Entries by name.
        problem (str): Begin of the message where they differ: which file is not of which model.
        hint (str): End of the message: the next step of the user.

    Raises:
        UserError: An entry is missing, unexpected, or of another shape.
    """
    difference = state_difference(shapes_of(model), state)
    if difference:
        raise UserError(f'{problem}: {difference}; {hint}')
    model.load_state_dict(state)


def shapes_of(model: nn.Module) -> Dict[str, Tuple[int, ...]]:
    """Shapes of a model's entries by name."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def state_difference(expected: Mapping[str, Tuple[int, ...]],
                     state: Mapping[str, torch.Tensor]) -> str:
    """How a state dict differs from the expected shapes, in one line; empty if it does not.

    Args:
        expected (Mapping): Shape of each entry.
        state (Mapping): Entries by name.
    """
    shapes = {name: getattr(value, 'shape', None) for name, value in state.items()}
    missing = [f'{name} is missing' for name in expected if name not in state]
    unexpected = [f'{name} is unexpected' for name in state if name not in expected]
    resized = [f'{name} is {shapes[name] and tuple(shapes[name])}, expected {shape}'
               for name, shape in expected.items() if shapes.get(name, shape) != shape]
    wrong = missing + unexpected + resized
    return (f'{len(missing)} entries missing, {len(unexpected)} unexpected, {len(resized)} of '
            f'another shape ({"; ".join(wrong[:3])})') if wrong else ''


def _refusal(error: Exception) -> str:
    """What torch's unpickler refused, by name, without its advice and its escape sequences."""
    text = re.sub(r'\x1b\[[\d;]*m', '', str(error))
    name = re.search(r'GLOBAL ([\w.]+)', text)
    if name:
        return f'it refers to {name[1]}'
    text = re.sub(r' or \w+ allowlisted via `add_safe_globals`', '', text)
    text = text.rpartition('WeightsUnpickler error: ')[2].strip() or type(error).__name__
    return text.splitlines()[0].rstrip('. ')


def known_types() -> contextlib.AbstractContextManager:
    """Let ``torch.load(weights_only=True)`` accept what mmengine's own Runner writes.

    A closed list for the time of the ``with`` block: log histories, arrays and numbers of NumPy,
    configs, and methods of log histories and of registered parameter schedulers. Each name stands
    for a class or function of this module; :func:`from_plain` makes the content of it. So no
    function that a file names is ever called, and no memory is read as an array of objects.
    """
    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        return contextlib.nullcontext()  # torch < 2.6 takes no stand-ins, and refuses such files
    names = {_qualified(HistoryBuffer): _History, _qualified(ConfigDict): dict,
             'numpy.ndarray': _Array, 'numpy.dtype': _DType, 'builtins.getattr': _method}
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        names |= {f'{module}._reconstruct': _array, f'{module}.scalar': _scalar}
    for registry in (PARAM_SCHEDULERS, *PARAM_SCHEDULERS.children.values()):
        names |= dict.fromkeys(map(_qualified, registry.module_dict.values()), _Function)
    return torch.serialization.safe_globals([(value, name) for name, value in names.items()])


def _qualified(cls: Any) -> str:
    return f'{cls.__module__}.{cls.__qualname__}'


class _Function:
    """Stands for a class of functions and for each of its functions; cannot be called."""

    def __new__(cls, *args):
        raise pickle.UnpicklingError(f'it makes an object of a class of functions from {args}')


class _History:
    """The attributes of a log history."""


class _DType:
    """A dtype of numbers or text; of its state only the byte order counts."""

    def __init__(self, code: str, *_) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in 'biufcSU':
            raise pickle.UnpicklingError(f'it refers to numpy.dtype({code!r})')

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array of numbers or text; calling ``numpy.ndarray`` is refused."""

    def __new__(cls, *args):
        if args:
            raise pickle.UnpicklingError('it calls numpy.ndarray')
        return super().__new__(cls)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.content = np.ndarray(shape, dtype.dtype, data, order='F' if fortran else 'C').copy()


def _array(_kind: Any, _shape: Any, _code: Any) -> _Array:
    return _Array()


def _scalar(dtype: _DType, data: bytes) -> np.generic:
    return np.ndarray((), dtype.dtype, data)[()]


def _method(owner: Any, name: str) -> Any:
    if owner not in (_History, _Function):
        raise pickle.UnpicklingError(f'it asks for {owner}.{name}')
    return _Function
