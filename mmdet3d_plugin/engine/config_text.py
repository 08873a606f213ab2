"""The text of configs: formatted once, and read as data, so that nothing in it runs."""
import ast
import math
from typing import Any

from mmengine.config import Config

from ..errors import UserError

_NAMES = dict(inf=math.inf, nan=math.nan)


class FormattedOnce(Config):
    """A config whose text is formatted again only after a change: it takes up to 1.3 s."""

    @classmethod
    def of(cls, cfg: Config) -> 'FormattedOnce':
        """The same config; the entries are shared."""
        formatted = cls.__new__(cls)
        formatted.__dict__.update(cfg.__dict__)
        return formatted

    @property
    def pretty_text(self) -> str:
        """The formatted text."""
        key = repr(self._cfg_dict)
        if self.__dict__.get('_formatted', ('', ))[0] != key:
            self.__dict__['_formatted'] = key, super().pretty_text
        return self.__dict__['_formatted'][1]


def read_config_text(text: str, source: str) -> Config:
    """Read a config that ``Config.dump`` wrote, such as the text under ``meta.cfg`` of checkpoints.

    Args:
        text (str): Assignments of literals, lists, tuples, dicts and ``dict(...)``.
        source (str): Where the text is from, for errors.

    Returns:
        Config: Its entries.

    Raises:
        UserError: It contains anything else, such as a call or an import.
    """
    try:
        found = {}
        for statement in ast.parse(text).body:
            name, = statement.targets if isinstance(statement, ast.Assign) else [None]
            if not isinstance(name, ast.Name):
                raise ValueError(f'line {statement.lineno} is no assignment')
            found[name.id] = _literal(statement.value)
        return Config(found)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f'{source}: its config is not the text that a Runner writes ({error}); '
                        'only literals and dict(...) are read') from None


def _literal(node: ast.AST) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = dict(List=list, Tuple=tuple, Set=set)[type(node).__name__]
        return kind(map(_literal, node.elts))
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values)
        return _merged((None if key is None else _literal(key), value) for key, value in pairs)
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
        pairs = [(None, inner) for inner in node.args]
        return _merged([*pairs, *((keyword.arg, keyword.value) for keyword in node.keywords)])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        if isinstance(value, (int, float)):
            return -value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    raise ValueError(f'line {node.lineno}: {ast.unparse(node)[:40]!r}')


def _merged(pairs) -> dict:
    """A dict of keys and nodes; the nodes of keys None are dicts themselves."""
    found = {}
    for key, node in pairs:
        value = _literal(node)
        if key is None and not isinstance(value, dict):
            raise ValueError(f'line {node.lineno}: {ast.unparse(node)[:40]!r} is no dict')
        found.update(value if key is None else {key: value})
    return found
