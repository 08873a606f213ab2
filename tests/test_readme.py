"""What the documents quote exists: configs, tools, files, and the flags of commands."""
import ast
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(p for p in ROOT.rglob('*.md')
                   if not {'.venv', 'work_dirs', 'data', 'node_modules'} & set(
                       p.relative_to(ROOT).parts))
QUOTED = re.compile(r'(?<![\w./-])((?:configs|tools|tests|docs|projects|mmdet3d_plugin|'
                    r'data_converter)/[\w./*{},-]+)')


def ids(path):
    return str(path.relative_to(ROOT))


def commands(text):
    """Commands of the fenced shell blocks, continued lines joined, comments dropped."""
    for block in re.findall(r'```(?:bash|shell|sh|console)\n(.*?)```', text, flags=re.S):
        for line in block.replace('\\\n', ' ').splitlines():
            line = line.strip().removeprefix('$ ')
            if line and not line.startswith('#'):
                yield shlex.split(line, comments=True)


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


@pytest.mark.parametrize('document', DOCUMENTS, ids=ids)
def test_quoted_paths_exist(document):
    for quoted in QUOTED.findall(document.read_text()):
        quoted = quoted.rstrip('.,-')
        if '*' in quoted or '{' in quoted:
            continue
        assert (ROOT / quoted).exists(), f'{ids(document)} quotes {quoted}, which does not exist'


@pytest.mark.parametrize('document', DOCUMENTS, ids=ids)
def test_quoted_links_exist(document):
    for target in re.findall(r'\]\((?!https?://|#|mailto:)([^)#\s]+)', document.read_text()):
        assert (document.parent / target).exists(), f'{ids(document)} links to {target}'


@pytest.mark.parametrize('document', DOCUMENTS, ids=ids)
def test_quoted_flags_exist(document):
    for words in commands(document.read_text()):
        scripts = [word for word in words if re.fullmatch(r'(?:\./)?tools/\w+\.(?:py|sh)', word)]
        if not scripts:
            continue
        known = flags_of(ROOT / scripts[0])
        for word in words[words.index(scripts[0]) + 1:]:
            flag = word.split('=')[0]
            if flag.startswith('--'):
                assert flag in known, f'{ids(document)}: {scripts[0]} has no flag {flag}'


def test_flags_are_read_from_the_tools():
    assert {'--resume', '--amp', '--cfg-options', '--work-dir'} <= flags_of(
        ROOT / 'tools' / 'train.py')
    assert '--resume' in flags_of(ROOT / 'tools' / 'dist_train.sh')
    assert '--no-such-flag' not in flags_of(ROOT / 'tools' / 'train.py')
    assert list(commands('```bash\n# c\npython tools/train.py a \\\n  --amp\n```')) == [
        ['python', 'tools/train.py', 'a', '--amp']]


def test_quoted_tests_exist():
    known = {name for path in (ROOT / 'tests').rglob('test_*.py')
             for name in re.findall(r'^def (test_\w+)', path.read_text(), flags=re.M)}
    for document in DOCUMENTS:
        quoted = set(re.findall(r'`(test_\w+)`', document.read_text()))
        assert quoted <= known, f'{ids(document)} names {sorted(quoted - known)}'
