"""Two CPU processes (gloo) train like one with twice the batch.

The toy model has no batch normalisation here: statistics of half a batch are others than those of
the whole. Models with one are equal in this sense only if it is frozen or synchronised.
"""
import os
import signal
import time

import pytest
import torch

CONFIG = 'tests/toy/toy_config.py'
OPTIONS = ['model.norm=False', 'model.dropout=0', 'train_dataloader.drop_last=True',
           'train_cfg.max_epochs=2']


def losses(path):
    return torch.tensor([float(line.split()[1]) for line in path.read_text().splitlines()],
                        dtype=torch.float64)


def test_two_processes_of_batch_2_have_the_losses_of_batch_4(tmp_path, run_command):
    one, two = tmp_path / 'one', tmp_path / 'two'
    done = run_command('tools/train.py', CONFIG, '--work-dir', one, '--cfg-options', *OPTIONS,
                       'train_dataloader.batch_size=4')
    assert done.returncode == 0, done.stderr
    done = run_command('tools/dist_train.sh', CONFIG, 2, '--work-dir', two, '--cfg-options',
                       *OPTIONS, 'train_dataloader.batch_size=2')
    assert done.returncode == 0, done.stderr

    first, second = losses(two / 'losses_0.txt'), losses(two / 'losses_1.txt')
    assert first.shape == (6, )  # 12 samples, 4 a step, 2 epochs
    assert not torch.allclose(first, second)  # the processes saw different samples
    torch.testing.assert_close((first + second) / 2, losses(one / 'losses_0.txt'),
                               rtol=1e-5, atol=0)
    weights = [torch.load(folder / 'epoch_2.pth', weights_only=True)['state_dict']
               for folder in (one, two)]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)

    done = run_command('tools/dist_test.sh', CONFIG, two / 'epoch_2.pth', 2,
                       '--work-dir', tmp_path / 'test', '--cfg-options', *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert 'toy/count: 12' in done.stdout + done.stderr


@pytest.mark.slow
def test_the_student_too_with_frozen_normalisation(tmp_path, run_command, toytown):
    config, folders = 'tests/toy/student_even_config.py', (tmp_path / 'one', tmp_path / 'two')
    options = ['--cfg-options', *(f'{split}_dataloader.dataset.data_root={toytown}'
                                  for split in ('train', 'val'))]
    done = run_command('tools/train.py', config, '--work-dir', folders[0], *options,
                       'train_dataloader.batch_size=4')
    assert done.returncode == 0, done.stderr
    done = run_command('tools/dist_train.sh', config, 2, '--work-dir', folders[1], *options)
    assert done.returncode == 0, done.stderr
    first, second = (losses(folders[1] / f'losses_{rank}.txt') for rank in range(2))
    torch.testing.assert_close((first + second) / 2, losses(folders[0] / 'losses_0.txt'),
                               rtol=1e-5, atol=0)


def test_usage_errors(run_command):
    for arguments in ((), (CONFIG, ), (CONFIG, 'two')):
        done = run_command('tools/dist_train.sh', *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith('usage: bash tools/dist_train.sh CONFIG NUMBER')


def test_interrupted_processes_end_without_a_traceback(tmp_path, run_command):
    process = run_command('tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path, '--cfg-options',
                          'custom_hooks.0.sleep=0.3', wait=False, group=True)
    deadline = time.time() + 100
    while time.time() < deadline and process.poll() is None:
        if (tmp_path / 'last_checkpoint').is_file():
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert 'Traceback' not in error and 'interrupted; the same command with --resume' in error
    torch.load((tmp_path / 'last_checkpoint').read_text(), weights_only=True)
