"""Options of the command line: what their text means, and how they reach what config files fill."""
import ast
import copy
import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Container, Dict, Iterator, List, Mapping, Set, Tuple

from mmengine.config import Config
from mmengine.config import config as mmengine_config

from ..errors import UserError

_NUMBER = re.compile(r'[+-]?(0|[1-9]\d*)')
_WORDS = {'None': None, 'True': True, 'true': True, 'TRUE': True, 'False': False, 'false': False,
          'FALSE': False}
MISSING = '(none)'
"""What :func:`differences` has for an entry that is not there."""
_OVERRIDES: ContextVar[Mapping[str, Mapping[str, Any]]] = ContextVar('overrides')


class OptionText(str):
    """An option's value as it was typed; :func:`value_of` reads it where its entry is known."""


def value_of(key: str, text: str, old: Any = None) -> Any:
    """What the text of an option means.

    * In quotes of its own, it is the text inside.
    * Where the config has a text so far, it is a text as typed, spaces, commas and leading zeros
      included, but for ``None``, ``True``, ``False`` and lists in brackets.
    * Elsewhere it is a number, ``None``, ``True``, ``False``, a list ``[a,b]`` or ``a,b``, a tuple
      ``(a,b)``, a dict as Python writes it, or, if nothing else, a text.

    Args:
        key (str): The entry, for errors.
        text (str): As typed, without the quotes that the shell takes.
        old (object, optional): The entry's value so far.

    Raises:
        UserError: Brackets do not match, or a text with commas could also be a list.
    """
    if _quoted(text):
        return text[1:-1]
    if text in _WORDS:
        return _WORDS[text]
    if isinstance(old, str) and not (_bracketed(text) and ',' in text):
        return text
    if text.startswith('{'):
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError):
            raise UserError(f'--cfg-options {key}={text}: expected a dict as Python writes it, '
                            "such as {'type':'AdamW'}, in quotes for the shell") from None
    if _bracketed(text):
        return _items(key, text[1:-1], tuple if text[0] == '(' else list)
    parts = _split(key, text)
    if len(parts) == 1:
        return _number(text)
    values = _items(key, text, list)
    if not isinstance(old, (list, tuple)) and any(isinstance(value, str) for value in values):
        raise UserError(f'--cfg-options {key}={text}: a list or a text with a comma? Write '
                        f'{key}="[{text}]" for the list or {key}="\'{text}\'" for the text')
    return values


def _quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in '\'"' and text[0] not in text[1:-1]


def _bracketed(text: str) -> bool:
    return len(text) > 1 and text[0] + text[-1] in ('[]', '()')


def _items(key: str, text: str, kind: type) -> Any:
    return kind(value_of(key, part.strip(), [] if _bracketed(part.strip()) else None)
                for part in _split(key, text) if part.strip())


def _split(key: str, text: str) -> List[str]:
    """At the commas outside of brackets and quotes."""
    parts, depth, quote = [''], 0, ''
    for char in text:
        if quote or char in '\'"' and not parts[-1].strip():
            quote = '' if char == quote else quote or char
        depth += (not quote) * ((char in '([{') - (char in ')]}'))
        if char == ',' and not depth and not quote:
            parts.append('')
        else:
            parts[-1] += char
        if depth < 0:
            break
    if depth or quote:
        raise UserError(f'--cfg-options {key}={text}: brackets or quotes do not match; to pass the '
                        f'text as it is, write {key}="\'...\'"')
    return parts


def _number(text: str) -> Any:
    """An int or a float where the text is one as Python writes them, else the text."""
    if _NUMBER.fullmatch(text):
        return int(text)
    whole = text.lstrip('+-').split('.')[0].split('e')[0]
    if '_' in text or whole.startswith('0') and whole != '0':
        return str(text)
    try:
        return float(text)
    except ValueError:
        return str(text)


def entry(cfg: Any, key: str) -> Any:
    """The entry of a config under a key such as ``param_scheduler.0.eta_max``; None if none."""
    for word in key.split('.'):
        try:
            cfg = cfg[int(word) if isinstance(cfg, (list, tuple)) else word]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return cfg


def entries(cfg: Any, path: str = '') -> Dict[str, Any]:
    """All entries of a config that are no containers, by their keys; empty containers too."""
    items = (cfg.items() if isinstance(cfg, (Mapping, Config)) else
             enumerate(cfg) if isinstance(cfg, (list, tuple)) else None)
    if items is None or not cfg and path:
        return {path: cfg}
    found = {}
    for key, value in items:
        found.update(entries(value, f'{path}.{key}' if path else str(key)))
    return found


def evaluate(path: str, options: Mapping[str, Any]) -> Tuple[Config, Set[str]]:
    """Read a config file and its bases, with other values of variables that they assign.

    What the files compute from a variable follows it: ``batch_size`` the loaders, ``data_root`` the
    datasets, also in files that inherit it.

    Args:
        path (str): The config file.
        options (dict): ``{'lr': 0.1, 'teacher.checkpoint': 'a.pth'}``.

    Returns:
        tuple: The config, without its ``custom_imports`` done, and the names of variables that the
        files read.
    """
    with _overriding(options) as read:
        return Config.fromfile(path, import_custom_modules=False), read


@contextmanager
def _overriding(options: Mapping[str, Any]) -> Iterator[Set[str]]:
    changes: Dict[str, Dict[str, Any]] = {}
    read: Set[str] = set()
    for key, value in options.items():
        name, _, rest = key.partition('.')
        changes.setdefault(name, {})[rest] = value
    token = _OVERRIDES.set(changes)
    original = mmengine_config.RemoveAssignFromAST

    class Parsed(original):  # mmengine passes each file's tree through it
        def visit(self, tree: ast.Module) -> ast.Module:
            tree = original(self.key).visit(tree)
            read.update(_names_read(tree, self.key))
            tree = _Inserting(set(changes)).visit(tree)
            tree.body[:0] = ast.parse(f'from {__name__} import overridden as __overridden').body
            return ast.fix_missing_locations(tree)

    mmengine_config.RemoveAssignFromAST = Parsed
    try:
        yield read
    finally:
        mmengine_config.RemoveAssignFromAST = original
        _OVERRIDES.reset(token)


def _names_read(tree: ast.Module, base: str) -> Set[str]:
    """Names that a config file reads, and those of its bases."""
    nodes = list(ast.walk(tree))
    own = {node.id for node in nodes
           if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return own | {node.attr for node in nodes if isinstance(node, ast.Attribute)
                  and isinstance(node.value, ast.Name) and node.value.id == base}


class _Inserting(ast.NodeTransformer):
    """Puts ``name = __overridden('name', name)`` after each assignment of a variable."""

    def __init__(self, names: Set[str]):
        self.names = names

    def visit_Assign(self, node: ast.stmt) -> List[ast.stmt]:
        assigned = {child.id for child in ast.walk(node)
                    if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)}
        return [node, *(ast.parse(f'{name} = __overridden({name!r}, {name})').body[0]
                        for name in sorted(assigned & self.names))]

    visit_AugAssign = visit_AnnAssign = visit_Assign

    def visit_FunctionDef(self, node: ast.stmt) -> ast.stmt:
        return node  # its names are its own

    visit_ClassDef = visit_FunctionDef


def overridden(name: str, value: Any) -> Any:
    """A variable of a config file, as the options want it."""
    changes = dict(_OVERRIDES.get()[name])
    if '' in changes and not (isinstance(changes[''], Mapping) and isinstance(value, Mapping)):
        value = changes.pop('')
    value = copy.deepcopy(value)
    if not changes:
        return value
    holder = Config({name: value})
    holder.merge_from_dict({f'{name}.{rest}' if rest else name: copy.deepcopy(change)
                            for rest, change in changes.items()})
    return holder[name]


def reaches(cfg: Config, plain: Config, name: str) -> bool:
    """Whether a variable's other value reached an entry of the config; also if it is no other.

    Args:
        cfg, plain (Config): With and without it.
        name (str): The variable.
    """
    changed = set(differences(plain, cfg))
    own = {key for key in changed if key.split('.')[0] == name}
    return not own or bool(changed - own)


def entries_like(cfg: Config, name: str, heads: Container[str]) -> List[str]:
    """The entries under ``heads`` that are called like a variable, or else have its value."""
    found = {key: value for key, value in entries(cfg).items() if key.split('.')[0] in heads}
    named = [key for key in found if name in key.split('.')[1:]]
    return named or [key for key, value in found.items()
                     if type(value) is type(cfg[name]) and value == cfg[name]]


def differences(one: Any, other: Any) -> Dict[str, Tuple[Any, Any]]:
    """The entries in which two configs differ, both values; ``MISSING`` for none."""
    one, other = entries(one), entries(other)
    keys = [*one, *(key for key in other if key not in one)]
    pairs = {key: (one.get(key, MISSING), other.get(key, MISSING)) for key in keys}
    return {key: pair for key, pair in pairs.items()
            if pair[0] is not pair[1] and pair[0] != pair[1]}
