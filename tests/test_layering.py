"""Who may import whom, read from the source with ``ast``."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmdet3d_plugin'
BASE = {'errors', 'version', 'checkpoints'}  # single files that everybody may use
MAY_IMPORT = {
    'errors': set(),
    'version': set(),
    'checkpoints': {'errors'},
    'conversion': set(),
    'geometry': set(),
    'structures': {'geometry'},
    'datasets': {'structures', 'geometry'},
    'evaluation': {'structures', 'geometry'},
    'visualization': {'structures', 'geometry'},
    'models': {'structures', 'geometry'},
    'distillation': {'models', 'structures', 'geometry'},
    'engine': {'distillation', 'models', 'structures', 'geometry'},
    'deployment': {'models', 'visualization', 'structures', 'geometry'},
    'apis': {'engine', 'datasets', 'distillation', 'models', 'visualization', 'structures',
             'geometry'},
    'benchmark': {'apis', 'deployment', 'engine', 'datasets', 'distillation', 'models',
                  'visualization', 'structures', 'geometry'},
    'experiments': {'benchmark', 'engine', 'visualization', 'structures'},
}
TOOLS = sorted((ROOT / 'tools').glob('*.py'))
DEVKITS = {'nuscenes', 'open3d', 'trimesh', 'embreex', 'shapely', 'matplotlib', 'onnx',
           'onnxruntime', 'onnxscript', 'openvino'}


def imports(path, top_level_only=False):
    """Full names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    package = path.relative_to(ROOT).parent.parts
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[:len(package) - node.level + 1]) if node.level else []
            module = base + (node.module.split('.') if node.module else [])
            yield '.'.join(module)
            yield from ('.'.join([*module, name.name]) for name in node.names)


def layer_of(path):
    """The layer of a file: its folder below the package, or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


FILES = [path for path in sorted(PACKAGE.rglob('*.py')) if path != PACKAGE / '__init__.py']


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    part = layer_of(path)
    allowed = MAY_IMPORT[part] | {part} | (BASE if part not in BASE else MAY_IMPORT[part])
    for name in imports(path):
        words = name.split('.')
        assert words[0] not in ('data_converter', 'tools', 'projects', 'tests'), (
            f'{path}: imports {name}, which stands above the package')
        if words[0] == 'mmdet3d_plugin' and len(words) > 1 and (
                (PACKAGE / words[1]).is_dir() or (PACKAGE / f'{words[1]}.py').exists()):
            assert words[1] in allowed, f'{path}: {part} must not import {words[1]}'


@pytest.mark.parametrize('path', [path for path in FILES if layer_of(path) == 'geometry'],
                         ids=lambda path: path.name)
def test_geometry_knows_torch_and_numpy_only(path):
    for name in imports(path, top_level_only=True):
        known = ('torch', 'numpy', 'mmdet3d_plugin', 'math', 'typing', 'dataclasses', 'functools',
                 'itertools', 'collections', 'enum', 'abc', '__future__')
        assert name.split('.')[0] in known, f'{path}: imports {name}'


@pytest.mark.parametrize(
    'path', FILES + sorted((ROOT / 'data_converter').rglob('*.py')),
    ids=lambda path: str(path.relative_to(ROOT)))
def test_devkits_are_imported_inside_functions(path):
    found = {name.split('.')[0] for name in imports(path, top_level_only=True)} & DEVKITS
    assert not found, f'{path}: import {found} inside the function that needs it'


def test_converters_use_structures_and_geometry_only():
    for path in sorted((ROOT / 'data_converter').rglob('*.py')):
        for name in imports(path):
            words = name.split('.')
            if words[0] == 'mmdet3d_plugin' and len(words) > 1:
                assert words[1] in {'structures', 'geometry'} | BASE, f'{path}: imports {name}'


@pytest.mark.parametrize('path', TOOLS, ids=lambda path: path.name)
def test_tools_are_thin(path):
    """They parse arguments and call the package; infer_onnx.py runs where the package is not."""
    text = path.read_text()
    assert path.name == 'infer_onnx.py' or len(text.splitlines()) <= 150
    assert 'sys.path' not in text
    others = {'tools', *(tool.stem for tool in TOOLS)}
    assert not others & {name.split('.')[0] for name in imports(path)}


def test_the_rules_see_a_wrong_import(tmp_path):
    """The reader finds absolute and relative imports, at the top and in functions."""
    path = ROOT / 'mmdet3d_plugin' / 'models' / 'heads' / 'x.py'

    class Source:
        relative_to = path.relative_to
        read_text = staticmethod(lambda: 'from ...distillation import taps\n'
                                         'def f():\n    import mmdet3d_plugin.engine.runner\n')

    found = set(imports(Source()))
    assert 'mmdet3d_plugin.distillation' in found
    assert 'mmdet3d_plugin.distillation.taps' in found
    assert 'mmdet3d_plugin.engine.runner' in found
