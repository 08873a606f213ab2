"""Files: written atomically and hashed; checkpoints loaded strictly and without running code."""
import contextlib
import functools
import hashlib
import inspect
import io
import os
import pickle
import re
import uuid
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterable, Iterator, Mapping, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from .errors import UserError
from .plain_pickle import NUMPY, Array, count_tuples, with_stack_for

_PLAIN = (str, bytes, int, float, bool, type(None), torch.Tensor)
_STEP = r'(iter|epoch)_(\d+)\.pth'
_FOLDER = 0x10  # attribute of a part, whose bytes torch then does not read
_FLOATING = ('weight', 'bias', 'running_mean', 'running_var')
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


def from_plain(value: Any, _done: Optional[dict] = None) -> Any:
    """Bring back what :func:`to_plain` and :func:`known_types` replaced; containers in place.

    Log histories and NumPy arrays are objects again; functions, of which only the name was read,
    are left out of mappings and sequences.
    """
    if isinstance(value, dict) and '__history__' in value:
        return HistoryBuffer(value['__history__'].tolist(), value['count'].tolist(),
                             value['max_length'])
    if isinstance(value, _History):
        return HistoryBuffer(value._log_history.tolist(), value._count_history.tolist(),
                             value.max_length)
    if isinstance(value, Array):
        return value.view(np.ndarray)
    done = {} if _done is None else _done  # containers that several others hold are changed once
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        done[id(value)] = value
        for key, item in list(value.items()):
            if item is _Function:
                del value[key]
            else:
                value[key] = from_plain(item, done)
    elif type(value) is list:
        done[id(value)] = value
        value[:] = [from_plain(item, done) for item in value if item is not _Function]
    elif type(value) is tuple:
        done[id(value)] = tuple(from_plain(item, done) for item in value if item is not _Function)
        return done[id(value)]
    return value


def read_checkpoint(path: Union[str, Path], map_location: str = 'cpu') -> dict:
    """Load a checkpoint file without running code from it.

    The CRC-32 of its parts is compared, which ``torch.load`` does not do; files in the format of
    torch before 1.6 have none.

    Args:
        path (str | Path): A file of this package, of mmengine's Runner, or a plain state dict.
        map_location (str): Device of the tensors. Defaults to 'cpu'.

    Returns:
        dict: The content; the weights are under ``state_dict`` in files of a Runner.

    Raises:
        UserError: The file is missing, cut short, damaged, no checkpoint, or needs code to load; a
            weight is NaN, infinite, complex or an integer. Where the file is of a training, the
            message names the last checkpoint before it that is whole.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'checkpoint {path}: no such file; train it first, or correct the path')
    try:
        return _read(path, map_location)
    except _DamagedError as error:
        earlier = _last_whole_before(path)
        way_out = (f'go on from {earlier}, the last whole one before it' if earlier else
                   'copy or train it again')
        raise UserError(f'checkpoint {path}: {error}; {way_out}') from error


class _DamagedError(ValueError):
    """The file is of the right kind, but its content is not what was once computed."""


def _read(path: Path, map_location: str) -> dict:
    try:
        _check_sums(path)
        with known_types():
            checkpoint = from_plain(with_stack_for(_tuples(path), functools.partial(
                torch.load, path, map_location=_numbered(map_location), weights_only=True)))
    except (RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _DamagedError(f'cut short or damaged ({path.stat().st_size} bytes)') from error
    except OSError as error:
        raise UserError(f'checkpoint {path}: cannot be read ({error.strerror or error})') from error
    except Exception as error:  # whatever an unpickler meets in bytes of another kind
        raise UserError(f'checkpoint {path}: it is no checkpoint, or holds objects that cannot '
                        f'be loaded safely ({_refusal(error)}); only weights and plain values '
                        'load; save its state_dict alone') from error
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    averages = checkpoint.get('ema_state_dict', {}) if isinstance(state, Mapping) else None
    if not isinstance(averages, Mapping):
        raise UserError(f'checkpoint {path}: expected a dict with weights, '
                        f'got {type(checkpoint).__name__}')
    for name, value in (*state.items(), *averages.items()):
        wrong = _wrong(name, value) if torch.is_tensor(value) else ''
        if wrong:
            raise _DamagedError(f'{name}: expected finite weights, got {wrong}')
    return checkpoint


def _check_sums(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED or member.external_attr & _FOLDER
                   for member in archive.infolist()):
                raise zipfile.BadZipFile('torch.save writes neither compressed parts nor folders')
            if archive.testzip():
                raise zipfile.BadZipFile('the CRC-32 of a part is another')


def _tuples(path: Path) -> int:
    """An upper bound of the tuples that a checkpoint's pickles make."""
    with open(path, 'rb') as file:
        if file.read(4) != b'PK\x03\x04':  # torch reads such a file as pickles
            file.seek(0)
            return count_tuples(file)
    with zipfile.ZipFile(path) as archive:
        parts = [part for part in archive.infolist()
                 if part.orig_filename.lower().endswith('data.pkl')]
        return sum(count_tuples(io.BytesIO(archive.read(part))) for part in parts)


def _numbered(device: Any) -> Any:
    """The current GPU by its number: it is the current one of this thread alone."""
    if str(device) == 'cuda' and torch.cuda.is_available():
        return f'cuda:{torch.cuda.current_device()}'
    return device


def _wrong(name: str, value: torch.Tensor) -> str:
    """What is wrong with a weight of any model; empty if nothing is."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        return f'a tensor of {value.dtype}, {value.layout}, on {value.device}'
    if value.nbytes > max(value.untyped_storage().nbytes(), 1 << 20):
        return f'{tuple(value.shape)} numbers in {value.untyped_storage().nbytes()} bytes'
    if not value.is_floating_point():
        return f'{value.dtype}' if str(name).endswith(_FLOATING) else ''
    if value.numel() and not torch.isfinite(torch.stack(value.aminmax())).all():
        return f'NaN or infinity in {(~torch.isfinite(value)).sum()} of {value.numel()}'
    return ''


def _last_whole_before(path: Path) -> Optional[Path]:
    """Of the folder's checkpoints of the same training, the last whole one; told by its step."""
    own = re.search(_STEP, path.name)
    others = {other: re.fullmatch(_STEP, other.name) for other in path.parent.glob('*.pth')
              if other.name != path.name} if own else {}
    steps = {other: int(found[2]) for other, found in others.items()
             if found and found[1] == own[1] and int(found[2]) <= int(own[2])}
    for other in sorted(steps, key=steps.get, reverse=True):
        with contextlib.suppress(UserError, _DamagedError):
            _read(other, 'cpu')
            return other
    return None


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
    put_weights(model, checkpoint, path)
    return checkpoint


def put_weights(model: nn.Module, checkpoint: Mapping, path: Union[str, Path]) -> None:
    """Load the weights of a checkpoint that was read before; see :func:`load_weights`."""
    state = weights_of(checkpoint)
    of_distiller = student_weights(state) is not state
    if hasattr(model, 'student') and not of_distiller:
        model = model.student
    elif not hasattr(model, 'student'):
        state = student_weights(state)
    load_state_strictly(model, state, f'checkpoint {path}: not of this model '
                        f'({type(model).__name__})', 'use the config that trained it')


def load_state_strictly(model: nn.Module, state: Mapping[str, torch.Tensor], problem: str,
                        hint: str) -> None:
    """Load a state dict that has exactly the model's entries.

    Args:
        model (nn.Module): The model; changed in place.
        state (Mapping): Entries by name.
        problem (str): Begin of the message where they differ: which file is not of which model.
        hint (str): End of the message: the next step of the user.

    Raises:
        UserError: An entry is missing, unexpected, of another shape, or of integers in place of
            floating-point numbers.
    """
    difference = state_difference(shapes_of(model), state) or kind_difference(model, state)
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


def kind_difference(model: nn.Module, state: Mapping[str, torch.Tensor]) -> str:
    """The first entry that is an integer where the model has a float, or the reverse, in words."""
    for name, own in model.state_dict().items():
        value = state.get(name)
        if torch.is_tensor(value) and value.is_floating_point() != own.is_floating_point():
            return f'{name} is of {value.dtype}, expected {own.dtype}'
    return ''


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
             'builtins.getattr': _method, **NUMPY}
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


def _method(owner: Any, name: str) -> Any:
    if owner not in (_History, _Function):
        raise pickle.UnpicklingError(f'it asks for {owner}.{name}')
    return _Function
