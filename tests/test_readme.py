"""What the documents quote exists: configs, tools, files, and the flags of commands."""
import ast
import re

import pytest

from mmdet3d_plugin.engine import load_config
from tests.helpers.quoted import (
    DOCUMENTS,
    ROOT,
    in_markdown,
    in_python,
    name_of,
    quoted_commands,
)

COMMANDS = quoted_commands()
QUOTED = re.compile(r'(?<![\w./-])((?:configs|tools|tests|docs|projects|mmdet3d_plugin|'
                    r'data_converter)/[\w./*{},-]+)')


def flags_of(script):
    """Every ``--flag`` that a tool's source mentions as a string."""
    text = script.read_text()
    if script.suffix == '.sh':
        follow = re.search(r'(\w+\.py)', text)
        found = set(re.findall(r'--[a-z][\w-]*', text))
        target = script.with_name(follow.group(1)) if follow else None
        return found | (flags_of(target) if target and target.exists() else set())
    found = {node.value for node in ast.walk(ast.parse(text))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)
             and re.fullmatch(r'--[a-z][\w-]*', node.value)}
    if 'add_config_arguments' in text:
        found.add('--cfg-options')
    for name in re.findall(r'(?:from|import) ((?:data_converter|mmdet3d_plugin)[\w.]*)', text):
        for path in (ROOT / (name.replace('.', '/') + '.py'), ROOT / name.replace('.', '/')):
            for file in ([path] if path.is_file() else sorted(path.rglob('*.py'))):
                found |= set(re.findall(r"['\"](--[a-z][\w-]*)['\"]", file.read_text()))
    return found


@pytest.mark.parametrize('document', DOCUMENTS, ids=name_of)
def test_quoted_paths_exist(document):
    for quoted in QUOTED.findall(document.read_text()):
        quoted = quoted.rstrip('.,-')
        if '*' in quoted or '{' in quoted:
            continue
        assert (ROOT / quoted).exists(), f'{name_of(document)} quotes {quoted}, which is not there'


@pytest.mark.parametrize('document', DOCUMENTS, ids=name_of)
def test_quoted_links_exist(document):
    for target in re.findall(r'\]\((?!https?://|#|mailto:)([^)#\s]+)', document.read_text()):
        assert (document.parent / target).exists(), f'{name_of(document)} links to {target}'


@pytest.mark.parametrize('name', COMMANDS)
def test_quoted_flags_exist(name):
    for command in COMMANDS[name]:
        scripts = re.findall(r'(?<![\w/])tools/\w+\.(?:py|sh)', command)
        known = flags_of(ROOT / scripts[0]) if scripts else set()
        for flag in re.findall(r'(?<![\w-])--[a-z][\w-]*', command) if scripts else ():
            assert flag in known, f'{name}: {scripts[0]} has no flag {flag}'


def test_flags_are_read_from_the_tools():
    assert {'--resume', '--amp', '--cfg-options', '--work-dir'} <= flags_of(
        ROOT / 'tools' / 'train.py')
    assert '--resume' in flags_of(ROOT / 'tools' / 'dist_train.sh')
    assert '--no-such-flag' not in flags_of(ROOT / 'tools' / 'train.py')


def test_commands_are_found_where_they_stand():
    text = ('```bash\n# c\nX=1 python tools/train.py a \\\n    --amp  # d\n```\n'
            'Run `python tools/b.py [--x]`, not `data/c`.')
    assert list(in_markdown(text)) == ['X=1 python tools/train.py a --amp',
                                       'python tools/b.py [--x]']
    text = ('"""T.\n\n    python tools/a.py B [--c]\n        [--d]\n"""\n'
            '#   python tools/e.py \\\n#       --f\n    x = "python tools/g.py"\n')
    assert list(in_python(text)) == ['python tools/a.py B [--c]', 'python tools/e.py --f']
    assert len(COMMANDS) > 20 and sum(map(len, COMMANDS.values())) > 80


def test_learning_rates_are_those_of_the_batch_size():
    """A command whose batch is not that of the config's rate scales the rate."""
    checked = 0
    for name, commands in COMMANDS.items():
        for command in commands:
            found = re.search(r'tools/(dist_)?train\.\w+ (configs/\S+\.py)(?: (\d+))?', command)
            if not found:
                continue
            cfg = load_config(ROOT / found[2])
            batch = (int(found[3] or 1) * cfg.train_dataloader.batch_size *
                     cfg.optim_wrapper.get('accumulative_counts', 1))
            scaled = '--auto-scale-lr' in command.split()
            assert scaled == (batch != cfg.auto_scale_lr.base_batch_size), f'{name}: {command}'
            checked += 1
    assert checked > 8


def test_folders_of_the_documents_are_those_of_the_configs():
    """What a quoted command writes to data/, a config reads, or the same page says how."""
    configs = {load_config(path).get('data_root') for path in (ROOT / 'configs').glob('*/*.py')}
    roots = {str(root).rstrip('/') for root in configs}
    assert {'data/toytown', 'data/toytown_nuscenes', 'data/dur360bev'} <= roots
    for name, commands in COMMANDS.items():
        for folder in re.findall(r'(?<![\w/])data/[a-z]\w*', ' '.join(commands)):
            explained = f'data_root={folder}' in (ROOT / name).read_text()
            assert folder in roots or explained, f'{name}: no config reads {folder}'


def test_quoted_tests_exist():
    known = {name for path in (ROOT / 'tests').rglob('test_*.py')
             for name in re.findall(r'^def (test_\w+)', path.read_text(), flags=re.M)}
    for document in DOCUMENTS:
        quoted = set(re.findall(r'`(test_\w+)`', document.read_text()))
        assert quoted <= known, f'{name_of(document)} names {sorted(quoted - known)}'
