"""All public functions of ``data_converter`` have type hints."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / 'data_converter').rglob('*.py'))


def public_functions(body):
    """Functions of a module, and methods of its classes, without those that start with '_'."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and (
                not node.name.startswith('_') or node.name == '__init__'):
            yield node


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_have_type_hints(path):
    missing = []
    for function in public_functions(ast.parse(path.read_text()).body):
        args = function.args
        every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        missing += [f'{function.name}: {arg.arg}' for arg in every
                    if arg and arg.annotation is None and arg.arg not in ('self', 'cls')]
        missing += [f'{function.name}: return'] * (function.returns is None)
    assert not missing
