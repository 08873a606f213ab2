"""Who may import whom, read from the source with ``ast``."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmdet3d_plugin'
BASE = {'errors', 'version', 'checkpoints', 'locking', 'plain_pickle'}  # files that everybody uses
MAY_IMPORT = {
    'errors': set(),
    'version': set(),
    'checkpoints': {'errors', 'plain_pickle'},
    'locking': {'errors', 'checkpoints'},
    'plain_pickle': set(),
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


RUNS_CODE = {
    'eval', 'exec', 'compile', '__import__', 'torch.load', 'torch.jit.load', 'torch.hub.load',
    'torch.hub.load_state_dict_from_url', 'torch.package.PackageImporter',
    'torch.utils.model_zoo.load_url', 'pickle.load', 'pickle.loads', 'pickle.Unpickler',
    'pickle._Unpickler', 'pickle._load', 'pickle._loads', 'pandas.read_pickle', 'numpy.loads',
    'mmengine.load', 'mmengine.fileio.load', 'mmengine.config.Config.fromstring',
    'mmengine.Config.fromstring', 'yaml.load', 'yaml.load_all', 'yaml.full_load',
    'yaml.unsafe_load', 'runpy.run_path', 'importlib.util.spec_from_file_location',
    *('dill', 'cloudpickle', 'joblib', 'shelve', 'marshal', 'jsonpickle')}
"""What runs code that a file holds; config files, which are code, are read by Config.fromfile."""
READERS = {'mmdet3d_plugin/checkpoints.py': {'torch.load'},
           'mmdet3d_plugin/plain_pickle.py': {'pickle.Unpickler'}}
"""The reader of checkpoints and that of all other pickles."""
SOURCES = [path for folder in ('mmdet3d_plugin', 'tools', 'data_converter', 'projects', 'configs')
           for path in sorted((ROOT / folder).rglob('*.py'))]


def readers_that_run_code(source):
    """Names of ``RUNS_CODE`` that Python source mentions, under whatever alias."""
    tree, names = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                names[name.asname or name.name.split('.')[0]] = (
                    name.name if name.asname else name.name.split('.')[0])
                yield from {name.name} & RUNS_CODE
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {name.asname or name.name: f'{node.module}.{name.name}'
                      for name in node.names}

    def full(node):
        if isinstance(node, ast.Attribute):
            return f'{full(node.value)}.{node.attr}'
        return names.get(node.id, node.id) if isinstance(node, ast.Name) else ''

    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            yield from {full(node), full(node).split('.')[0]} & RUNS_CODE
        elif isinstance(node, ast.keyword) and node.arg in ('allow_pickle', 'weights_only'):
            safe = node.arg == 'weights_only'
            if getattr(node.value, 'value', None) is not safe:
                yield f'{node.arg}={ast.unparse(node.value)}'


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_read_without_running_code_from_them(path):
    found = set(readers_that_run_code(path.read_text()))
    assert found == READERS.get(str(path.relative_to(ROOT)), set()), (
        'read checkpoints with checkpoints.read_checkpoint, pickles with structures.load_plain, '
        'texts of configs with engine.config_text.read_config_text')


@pytest.mark.parametrize('source, found', [
    ('import torch\ndef f(p):\n    return torch.load(p, weights_only=True)', {'torch.load'}),
    ('import torch as t\nread = t.load', {'torch.load'}),
    ('from pickle import loads as read\nread(b"")', {'pickle.loads'}),
    ('import pickle\nclass A(pickle.Unpickler): pass', {'pickle.Unpickler'}),
    ('import numpy as np\nnp.load(p, allow_pickle=True)', {'allow_pickle=True'}),
    ('import numpy as np\nnp.load(p, allow_pickle=x)', {'allow_pickle=x'}),
    ('from mmengine import Config\nConfig.fromstring(t, ".py")', {'mmengine.Config.fromstring'}),
    ('from mmengine.config import Config as C\nC.fromstring(t, ".py")',
     {'mmengine.config.Config.fromstring'}),
    ('import mmengine.fileio\nmmengine.fileio.load("x.pkl")', {'mmengine.fileio.load'}),
    ('import yaml\nyaml.load(t)', {'yaml.load'}), ('eval(t)', {'eval'}), ('exec(t)', {'exec'}),
    ('import importlib.util\nimportlib.util.spec_from_file_location("x", p)',
     {'importlib.util.spec_from_file_location'}),
    ('import joblib\njoblib.load(p)', {'joblib'}), ('from dill import load\nload(p)', {'dill'}),
    ('import json, pickle, re, yaml\nmodel.eval()\nre.compile("x")\njson.loads(t)\n'
     'pickle.dumps(t)\nyaml.safe_load(t)\nnp.load(p)', set())])
def test_the_rules_see_a_reader_that_runs_code(source, found):
    assert set(readers_that_run_code(source)) == found


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
