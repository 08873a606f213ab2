"""What stops the set-up stops it with one line that names the next step."""
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup_env(tmp_path):
    """Runs a copy of the script in an empty checkout, with stand-ins for some commands."""
    for name in ('tools/setup_env.sh', 'requirements.txt', 'setup.py', 'mmdet3d_plugin/version.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def run(*arguments, python=sys.executable, **commands):
        for name, text in commands.items():
            (tmp_path / 'bin').mkdir(exist_ok=True)
            (tmp_path / 'bin' / name).write_text(f'#!/bin/sh\n{text}\n')
            (tmp_path / 'bin' / name).chmod(0o755)
        return subprocess.run(
            ['bash', 'tools/setup_env.sh', *arguments], cwd=tmp_path, capture_output=True,
            text=True, timeout=60,
            env=dict(PATH=f'{tmp_path / "bin"}:/usr/bin:/bin', HOME=str(tmp_path), PYTHON=python))

    return run


@pytest.fixture
def function(tmp_path):
    """Runs a function of the script with a C++ compiler that is a shell script."""
    def run(name, *arguments, compiler='exit 1', **variables):
        (tmp_path / 'c++').write_text(f'#!/bin/sh\n{compiler}\n')
        (tmp_path / 'c++').chmod(0o755)
        script = (f'set -euo pipefail; eval "$(sed -n "/^{name}()/,/^}}/p" tools/setup_env.sh)"; '
                  f'{name} "$@"')
        return subprocess.run(
            ['bash', '-c', script, 'bash', *arguments], cwd=ROOT, capture_output=True, text=True,
            env=dict(PATH='/usr/bin:/bin', PY=sys.executable, CXX=str(tmp_path / 'c++'),
                     BUILD=str(tmp_path / 'build'), **variables))

    return run


def test_operators_are_built_with_the_flags_of_python(function):
    flags = function('compiler_flags').stdout.split()
    assert flags[-1] == '-g0' and {'-O2', '-O3'} & set(flags)
    assert flags[:-1] == sysconfig.get_config_var('CFLAGS').split()
    assert function('compiler_flags', CFLAGS='-Os -march=native').stdout == '-Os -march=native -g0'


GCC = """[ "$1" = --version ] && echo Copyright Free Software Foundation && exit
echo "$@" >>"$(dirname "$0")/calls"
while [ "$1" != -o ]; do shift; done; echo header >"$2\""""


def test_the_precompiled_header_has_the_flags_of_the_build(function, tmp_path):
    header = tmp_path / 'build' / 'pch' / 'torch.h'
    for _ in range(2):
        done = function('precompiled_header', '-O3 -g0', compiler=GCC)
        assert done.returncode == 0 and done.stdout == f'-include {header}'
    [call] = (tmp_path / 'calls').read_text().splitlines()  # the second time it is there
    assert call.startswith('-O3 -g0 -fPIC -I') and '-x c++-header' in call
    assert header.read_text() == '#include <torch/types.h>\n'
    assert (header.parent / 'torch.h.gch').read_text() == 'header\n'


@pytest.mark.parametrize('compiler', [
    'echo clang version 17',
    '[ "$1" = --version ] && echo Copyright Free Software Foundation',
])
def test_without_a_precompiled_header_the_build_goes_on(compiler, function):
    done = function('precompiled_header', '-O3 -g0', compiler=compiler)
    assert (done.returncode, done.stdout) == (0, '')


def test_the_script_parses():
    for script in sorted((ROOT / 'tools').glob('*.sh')):
        assert subprocess.run(['bash', '-n', script]).returncode == 0


@pytest.mark.parametrize('case, expected', [
    (dict(python='/bin/false'), 'PYTHON=/bin/false is no Python 3.10, 3.11 or 3.12'),
    (dict(df='echo Filesystem; echo "/dev/x 9000 8700 300 97% /"'),
     'has 300 MB free, 6000 MB are needed; free some and run again'),
])
def test_errors_are_one_line(case, expected, setup_env, tmp_path):
    done = setup_env(**case)
    assert done.returncode == 1 and done.stdout == ''
    [line] = done.stderr.strip().splitlines()
    assert line.startswith('error: ') and expected in line
    assert not (tmp_path / '.venv').exists()


def test_active_needs_an_environment(setup_env):
    done = setup_env('--active')
    assert done.returncode == 1
    assert done.stderr.startswith('error: --active: no active virtual environment')


def test_help(setup_env):
    done = setup_env('--help')
    assert done.returncode == 2
    assert 'bash tools/setup_env.sh --active' in done.stderr
