"""What stops the set-up stops it with one line that names the next step."""
import shutil
import subprocess
import sys
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
