"""Faults of the machine end a tool with one line; defects keep their traceback."""
import errno
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mmdet3d_plugin.engine.environment import explain

SHARED_MEMORY = 'the shared memory /dev/shm is too small'


def raised(error, cause=None):
    try:
        raise error from cause
    except Exception as caught:
        return caught


@pytest.mark.parametrize('error, text', [
    (PermissionError(errno.EACCES, 'Permission denied', '/a/w'),
     '/a/w: Permission denied; change the rights of the folder, or choose another one (such as '
     '--work-dir, --out-dir or --out)'),
    (OSError(errno.EROFS, 'Read-only file system', '/a/w'), '/a/w: Read-only file system; change'),
    (OSError(errno.ENOSPC, 'No space left on device'),
     'a disk, or the shared memory /dev/shm: No space left on device; make room there'),
    (NotADirectoryError(errno.ENOTDIR, 'Not a directory', 'f/w'),
     'f/w: Not a directory; a file has the name of a folder'),
    (FileExistsError(errno.EEXIST, 'File exists', 'f'), 'f: File exists; a file has the name'),
    (PermissionError("Caught PermissionError in DataLoader worker process 0.\nOriginal ...\n"
                     "PermissionError: [Errno 13] Permission denied: '/c/x.bin'"),
     '/c/x.bin: Permission denied; change the rights'),
    (OSError(errno.EMFILE, 'Too many open files', '/x'), 'ulimit -n 65536'),
    (RuntimeError('unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on '
                  'device (28)'), SHARED_MEMORY),
    (RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that '
                  "dataloader's workers are out of shared memory."), SHARED_MEMORY),
    (RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. '), 'want of memory'),
    (torch.distributed.DistNetworkError('port: 29500, code: -98, name: EADDRINUSE'),
     'name a free one: PORT=29501'),
    (raised(KeyError('x'), PermissionError(13, 'Permission denied', '/b')), '/b: Permission'),
])
def test_faults_of_the_machine(error, text):
    line = explain(error)
    assert text in line and '\n' not in line and len(line) < 300


@pytest.mark.parametrize('error', [
    FileNotFoundError(errno.ENOENT, 'No such file or directory', 'x'), KeyError('x'),
    RuntimeError('out of resource: shared memory, Required: 1, Hardware limit: 0'),
    ValueError('[Errno 13] Permission denied'), raised(KeyError('x'), ValueError('y')),
])
def test_defects_are_left_alone(error):
    assert explain(error) is None


class Unsendable(Dataset):

    def __len__(self):
        return 2

    def __getitem__(self, index):
        def no_shared_memory():
            raise RuntimeError('unable to allocate shared memory(shm) for file </torch_1>')
        tensor = type('Batch', (), dict(__reduce__=lambda self: no_shared_memory()))()
        return tensor


def test_a_worker_without_shared_memory_ends_the_run_instead_of_blocking_it():
    with pytest.raises(RuntimeError) as error:
        next(iter(DataLoader(Unsendable(), batch_size=None, num_workers=1, timeout=60)))
    assert SHARED_MEMORY in explain(error.value)


def test_tools_say_which_folder_cannot_be_written(run_command, tmp_path):
    (tmp_path / 'file').write_text('')
    config = 'configs/kd360/kd360_student_r18_500it_toytown.py'
    done = run_command('tools/train.py', config, '--work-dir', tmp_path / 'file' / 'w')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f'error: {tmp_path}/file')
    assert 'Config:' not in done.stdout + done.stderr
    done = run_command('tools/print_config.py', config, '--save', tmp_path / 'file' / 'c.py')
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: {tmp_path}/file/c.py: cannot write')


def test_a_taken_port_is_one_line(run_command):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_command('tools/dist_train.sh', 'gone.py', 1, env=dict(PORT=port))
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: PORT={port} is no free port of this machine')
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform != 'linux' or os.getuid() != 0, reason='mounts a small /dev/shm')
@pytest.mark.slow
def test_training_with_a_small_shared_memory(toytown, tmp_path):
    command = (
        'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$0" tools/train.py '
        'configs/kd360/kd360_student_r18_500it_toytown.py --work-dir "$1/w" --cfg-options '
        'train_dataloader.dataset.data_root="$2" val_dataloader.dataset.data_root="$2" '
        'train_cfg.max_iters=4 train_dataloader.num_workers=1')
    done = subprocess.run(['unshare', '-m', 'bash', '-c', command, sys.executable, tmp_path,
                           toytown], capture_output=True, text=True, timeout=300,
                          env=dict(os.environ, PYTHONPATH=os.getcwd()))
    if 'unshare' in done.stderr or 'mount' in done.stderr:
        pytest.skip('no right to mount')
    assert done.returncode == 2
    assert SHARED_MEMORY in done.stderr.splitlines()[-1]
