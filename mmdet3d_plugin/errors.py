"""Errors that a user can cause, and the builder that says where in the config they are."""
import contextlib
import difflib
import inspect
import re
from contextvars import ContextVar
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, Set, Union

from mmengine.registry import Registry

_BUILDING: ContextVar[Optional[str]] = ContextVar('path of the part being built', default=None)


class UserError(ValueError):
    """Something the user can repair: a config, a path, a file.

    The tools print it as one line and exit with code 2, without a traceback.

    Args:
        message (str): What is wrong, where, what was expected, and the next step.
        path (str, optional): Config path of the part, such as ``model.head``, when the message
            already names it. Defaults to None.
    """

    def __init__(self, message: str, path: Optional[str] = None) -> None:
        super().__init__(' '.join(message.splitlines()))
        self.path = path


class FrameError(UserError):
    """A file of one frame is missing or damaged; the other frames may be fine.

    Training and the conversion of training frames go on without the frame, and count it;
    everything else stops.

    Args:
        message (str): As in :class:`UserError`, with the file's path.
        kind (str): What is bad, such as ``'scan'``: bad frames are counted by it.
    """

    def __init__(self, message: str, kind: str = 'frame') -> None:
        super().__init__(message)
        self.kind = kind


@contextlib.contextmanager
def parse_errors(problem: str, hint: str = '') -> Iterator[None]:
    """Turn what a parser raises into one line: its file is missing, damaged, or made to do harm.

    Parsers raise errors of many kinds besides ``ValueError``, such as ``RecursionError``,
    ``MemoryError``, ``EOFError``, ``OverflowError`` and ``BadZipFile``. The block holds the call of
    the parser and the access to what it read, nothing else.

    Args:
        problem (str): Which file, and what it is not: ``'x.json: no calibration'``.
        hint (str): The next step.

    Raises:
        UserError: In place of every other exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'{problem}: {_cause(error)}{hint and f"; {hint}"}') from error


def _cause(error: Exception) -> str:
    """What a parser met, in one short line."""
    if isinstance(error, RecursionError):
        return 'it is nested too deeply'
    if isinstance(error, MemoryError):
        return 'it needs more memory than there is'
    if isinstance(error, KeyError):
        return f'no {error!s:.100}'
    text = getattr(error, 'strerror', None) or ' '.join(str(error).split())[:200]
    return text or {EOFError: 'it is cut short'}.get(type(error), type(error).__name__)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word.

    Args:
        word (str): What the user wrote.
        known (Iterable[str]): The words that would have been right.

    Returns:
        str: ``'; did you mean 'x' or 'y'?'``, or the whole list where nothing is close.
    """
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if close:
        return f'; did you mean {" or ".join(map(repr, close))}?'
    return f'; known: {", ".join(known)}' if known else ''


def is_config(value: Any, path: str) -> bool:
    """Whether a part of a config is a dict to build it from; False: it was built before.

    Args:
        value (object): The part.
        path (str): Where it stands in the config.

    Raises:
        UserError: It is a text or a number.
    """
    if isinstance(value, (str, bytes, int, float)):
        hint = ("; a dict on the command line is written as {'type':'X','key':1}, in quotes for "
                'the shell; or write it into a config file'
                if isinstance(value, str) and value.lstrip('[(').startswith('dict(') else '')
        raise UserError(f'{path}: expected a dict, got {value!r:.80}{hint}', path)
    return isinstance(value, Mapping)


def build_from(registry: Registry, cfg: Union[Mapping, Any], path: str, **context) -> Any:
    """Build a part from its config; every error names the part's place in the config.

    Args:
        registry (Registry): The registry, e.g. ``mmdet3d.registry.MODELS``.
        cfg (dict | object | None): The config with its ``type``. Anything that is not a dict
            (an object that was built before, or None) is returned as it is.
        path (str): Where the config stands, e.g. ``model.view_transform``. A part that builds its
            own parts names them from itself on (``head.loss``): the way to it is known here.
        **context: Arguments from the parent, added unless the config sets them itself.

    Returns:
        object: The built part.

    Raises:
        UserError: The type is missing or unknown, an argument is unknown or missing, or the
            part refused a value. The message starts with ``path``.
    """
    path = _full_path(path)
    if not is_config(cfg, path):
        return cfg
    cfg = {**context, **cfg}
    part = check_from(registry, cfg, path)
    missing = [name for name in _required(part) if name not in cfg]
    if missing:
        raise UserError(f'{path} ({part.__name__}): missing argument '
                        f'{", ".join(map(repr, missing))}; add it to {path}', path)
    token = _BUILDING.set(path)
    try:
        return registry.build(cfg)
    except UserError as error:
        if error.path:
            raise
        raise UserError(f'{path}: {error}', path) from error
    except ValueError as error:
        raise UserError(f'{path} ({part.__name__}): {error}', path) from error
    except TypeError as error:  # an argument that went through **kwargs
        match = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if not match or match.group(1) not in cfg:
            raise
        raise _unknown_argument(part, match.group(1), path) from error
    finally:
        _BUILDING.reset(token)


def _full_path(path: str) -> str:
    """The path from the config's root, of a path from the part that is being built now."""
    outer = _BUILDING.get()
    if outer is None:
        return path
    words, owner = path.split('.'), outer.rsplit('.', 1)[-1]
    own = words[words.index(owner) + 1:] if owner in words else words[1:]
    return '.'.join([outer, *own])


def check_from(registry: Registry, cfg: Mapping, path: str, strict: bool = False) -> Callable:
    """Check a config's type and the names of its arguments without building it.

    Args:
        registry (Registry): The registry that will build it.
        cfg (dict): The config with its ``type``.
        path (str): Where the config stands, e.g. ``train_dataloader.dataset``.
        strict (bool): Take for granted that ``**kwargs`` of a class go to its parents and nowhere
            else. Defaults to False: a class with ``**kwargs`` takes any name.

    Returns:
        Callable: The class (or function) that the config names.

    Raises:
        UserError: The type is missing or unknown, or an argument is unknown.
    """
    if 'type' not in cfg:
        keys = ', '.join(map(str, cfg)) or 'nothing'
        raise UserError(f"{path}: the config has no 'type' (it has {keys}); "
                        f'name a class of the registry {registry.name!r}', path)
    part = _resolve(registry, cfg['type'], path)
    signatures = _signatures(part)
    last = signatures[-1 if strict else 0]
    if not _takes_any(last):
        known = _names(signatures)
        for name in cfg:
            if name not in known and name not in ('type', '_scope_'):
                raise _unknown_argument(part, name, path)
    return part


def _resolve(registry: Registry, name: Any, path: str) -> Callable:
    """The class of a type name, found by the rules of mmengine's scopes."""
    if not isinstance(name, str):
        if not callable(name):
            raise UserError(f'{path}.type: expected a name of the registry {registry.name!r}, got '
                            f'{name!r:.80}', path)
        return name
    with registry.switch_scope_and_registry(None) as scoped:
        part = scoped.get(name)
    if part is None:
        raise UserError(f'{path}.type: {name!r} is not in the registry {registry.name!r}'
                        f'{_close_types(registry, name)}', path)
    return part


def _close_types(registry: Registry, name: str) -> str:
    """Close matches of a type name in the registry and its relatives, with their scope."""
    names: List[str] = list(registry.module_dict)
    if registry.parent is not None:
        names += registry.parent.module_dict
        names += [f'{scope}.{key}' for scope, child in registry.parent.children.items()
                  if child is not registry for key in child.module_dict]
    close = difflib.get_close_matches(name, sorted(set(names)), n=3, cutoff=0.6)
    if close:
        return f'; did you mean {" or ".join(map(repr, close))}?'
    return "; check the spelling, and that custom_imports=['mmdet3d_plugin'] is in the config"


def _unknown_argument(part: Callable, name: str, path: str) -> UserError:
    return UserError(f'{path}.{name}: {part.__name__} has no such argument'
                     f'{did_you_mean(name, _names(_signatures(part)))}', path)


def _signatures(part: Callable) -> List[inspect.Signature]:
    """The signatures that an argument may reach: a class passes **kwargs on to its parents."""
    if not inspect.isclass(part):
        return [inspect.signature(part)]
    found = []
    for init in (cls.__dict__['__init__'] for cls in part.__mro__ if '__init__' in cls.__dict__):
        found.append(inspect.signature(init))
        if not _takes_any(found[-1]):
            break
    return found


def _takes_any(signature: inspect.Signature) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


def _names(signatures: List[inspect.Signature]) -> Set[str]:
    return {p.name for signature in signatures for p in signature.parameters.values()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {'self'}


def _required(part: Callable) -> List[str]:
    return [p.name for p in _signatures(part)[0].parameters.values()
            if p.name != 'self' and p.default is p.empty
            and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
