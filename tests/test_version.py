"""The dependency window: one place, checked at import, the same in setup.py."""
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

from mmdet3d_plugin import check_dependencies
from mmdet3d_plugin.version import DEPENDENCIES, __version__

ROOT = Path(__file__).resolve().parents[1]


def test_outside_the_window_names_what_to_install():
    check_dependencies()
    with pytest.raises(ImportError) as error:
        check_dependencies({'numpy': ('0.1', '1.0'), 'no-such-thing': ('1', '2'),
                            'torch': DEPENDENCIES['torch']})
    message = str(error.value)
    assert re.search(r"'numpy>=0\.1,<1\.0' \(found: \d+\.\d+", message)
    assert "'no-such-thing>=1,<2' (found: nothing)" in message
    assert 'torch' not in message and 'bash tools/setup_env.sh' in message


def test_the_tested_versions_are_inside():
    pins = dict(re.findall(r'^([\w-]+)==(\S+)$', (ROOT / 'requirements.txt').read_text(), re.M))
    for name, (lowest, beyond) in DEPENDENCIES.items():
        version = pins.get(name) or metadata.version(name)
        assert Version(lowest) <= Version(version) < Version(beyond), name


@pytest.mark.parametrize('name, inside, beyond', [
    ('numpy', '2.5.5', '3.0.0'), ('torch', '2.11.0', '3.0.0'), ('scipy', '1.18.1', '2.0.0')])
def test_the_other_versions_that_were_run_are_inside(name, inside, beyond):
    lowest, first_beyond = map(Version, DEPENDENCIES[name])
    assert lowest <= Version(inside) < first_beyond <= Version(beyond)


def test_setup_py_has_the_same_window():
    done = subprocess.run([sys.executable, 'setup.py', '--version'], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == __version__
    text = (ROOT / 'setup.py').read_text()
    assert "VERSION['DEPENDENCIES']" in text and not re.search(r"'torch[><=]", text)
