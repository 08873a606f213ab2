"""Fixtures of all tests."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.visualization import Visualizer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _fresh_singletons():
    """Mmdet3d's scope for each test; mmengine's process-wide objects do not leak to the next."""
    init_default_scope('mmdet3d')
    yield
    for manager in (MMLogger, MessageHub, DefaultScope, Visualizer):
        manager._instance_dict.clear()


@pytest.fixture(autouse=True, scope='session')
def _few_threads():
    """Small tensors are faster, and sums repeatable, on one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Folder with ``nuscenes_demo/`` and ``kitti_demo/``, named by ``BEV_REAL_DATA``."""
    folder = os.environ.get('BEV_REAL_DATA')
    if not folder:
        pytest.skip('real data: set BEV_REAL_DATA to a folder with nuscenes_demo/ and kitti_demo/')
    if not (Path(folder) / 'nuscenes_demo').is_dir():
        pytest.skip(f'real data: {folder} has no folder nuscenes_demo')
    return Path(folder)


@pytest.fixture(scope='session')
def make_once(tmp_path_factory):
    """``make_once(name, make)``: a folder that ``make(folder)`` fills for all of xdist's workers.

    The folder is not to be changed by tests.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'shared'

    def folder(name, make):
        shared.mkdir(exist_ok=True)
        with FileLock(shared / f'{name}.lock'):
            if not (shared / f'{name}.made').exists():
                make(shared / name)
                (shared / f'{name}.made').touch()
        return shared / name

    return folder


@pytest.fixture(scope='session')
def create_data(run_command):
    """Run ``tools/create_data.py`` for lists of arguments, one after the other."""
    def run(*calls):
        for arguments in calls:
            done = run_command('tools/create_data.py', *arguments, timeout=600)
            assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope='session')
def toytown(make_once, create_data) -> Path:
    """A data root with twelve small frames of the synthetic world, converted (8 train, 4 val)."""
    return make_once('toytown', lambda root: create_data(
        ('toytown', '--out-dir', root, '--frames', 12, '--seed', 1, '--image-size', 160, 320,
         '--scan-size', 32, 256, '--sequences', 3),
        ('dur360bev', '--root-path', root)))


@pytest.fixture(scope='session')
def toytown_nuscenes(make_once, create_data) -> Path:
    """Eight small frames of the synthetic world in nuScenes' layout, converted (4 train, 4 val)."""
    return make_once('toytown_nuscenes', lambda root: create_data(
        ('toytown', '--layout', 'nuscenes', '--out-dir', root, '--frames', 8, '--sequences', 2,
         '--seed', 1, '--image-size', 108, 192, '--scan-size', 32, 256, '--supersample', 1,
         '--sweeps', 2, 0, '--virtual-points'),
        ('nuscenes', '--root-path', root, '--version', 'v1.0-mini')))


@pytest.fixture(scope='session')
def world_of(request):
    """The synthetic world that a tiny config is for: ``world_of(config)``."""
    def find(config):
        root = Path(config.train_dataloader.dataset.data_root).name
        return request.getfixturevalue(root)
    return find


@pytest.fixture(scope='session')
def run_command():
    """Run a command in the repository root: ``run_command('tools/test.py', ...)``.

    A first argument that ends with ``.py`` runs with this Python, one with ``.sh`` with bash.
    Returns the finished process with ``stdout`` and ``stderr`` as text.
    """

    def run(script, *args, timeout=400, env=None, wait=True, group=False):
        program = 'bash' if str(script).endswith('.sh') else sys.executable
        paths = [str(ROOT), str(ROOT / 'tests' / 'toy'), os.environ.get('PYTHONPATH', '')]
        environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join(paths),
                           PYTHON=sys.executable, **(env or {}))
        command = [program, str(script), *map(str, args)]
        pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                    env=environment, start_new_session=group)
        if not wait:
            return subprocess.Popen(  # Ctrl-C reaches it, also of tests in the background
                command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **pipe)
        return subprocess.run(command, timeout=timeout, **pipe)

    return run
