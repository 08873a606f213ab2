"""A run killed with SIGKILL ends like the uninterrupted one."""
import signal
import time

import pytest
import torch

from mmdet3d_plugin.engine import latest_checkpoint
from mmdet3d_plugin.errors import UserError

SAVED_INSIDE_EPOCHS = ('default_hooks.checkpoint.by_epoch=False',
                       'default_hooks.checkpoint.interval=4')
SETUPS = {
    'saved_inside_epochs': ('tests/toy/toy_config.py', *SAVED_INSIDE_EPOCHS),
    'iterations_with_workers_and_ema': ('tests/toy/toy_config_iter.py', ),
    'student_on_toytown': ('tests/toy/student_config.py', ),
}
STEPS = dict(student_on_toytown=6)


def weights(folder):
    name = (folder / 'last_checkpoint').read_text()
    checkpoint = torch.load(name, weights_only=True)
    return checkpoint['meta']['iter'], checkpoint['state_dict'], checkpoint['optimizer']


def losses(folder):
    """The last loss that was written for each step."""
    return dict(line.split() for line in (folder / 'losses_0.txt').read_text().splitlines())


@pytest.mark.parametrize('setup', SETUPS)
def test_killed_run_resumes_bit_exactly(setup, tmp_path, run_command, request):
    config, *options = SETUPS[setup]
    steps = STEPS.get(setup, 24)
    if 'toytown' in setup:
        root = request.getfixturevalue('toytown')
        options += [f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'val')]
    options = ['train_dataloader.drop_last=True', *options]
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    uninterrupted = run_command('tools/train.py', config, '--work-dir', whole, '--cfg-options',
                                *options, wait=False)
    process = run_command('tools/train.py', config, '--work-dir', killed, '--cfg-options',
                          *options, f'custom_hooks.0.sleep={1.2 / steps}', wait=False)
    written = killed / 'losses_0.txt'
    deadline = time.time() + 300
    while time.time() < deadline and process.poll() is None:
        if written.exists() and written.read_text().count('\n') >= 0.4 * steps:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 0.4 * steps <= len(losses(killed)) < steps

    done = run_command('tools/train.py', config, '--work-dir', killed, '--resume',
                       '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    error = uninterrupted.communicate()[1]
    assert uninterrupted.returncode == 0, error
    assert 'resumed epoch' in done.stdout + done.stderr
    assert losses(killed) == losses(whole)
    for expected, found in zip(weights(whole)[1].items(), weights(killed)[1].items()):
        assert expected[0] == found[0]
        assert torch.equal(expected[1], found[1]), expected[0]
    assert weights(whole)[0] == weights(killed)[0] == steps
    state, resumed = weights(whole)[2]['state'], weights(killed)[2]['state']
    assert all(torch.equal(state[i][key], resumed[i][key]) for i in state for key in state[i])
    averaged = torch.load((killed / 'last_checkpoint').read_text(), weights_only=True)
    assert ('ema_state_dict' in averaged) == ('ema' in setup)
    bests = [sorted(p.name for p in folder.glob('best_*.pth')) for folder in (whole, killed)]
    assert bests[0] == bests[1] and len(bests[0]) == 1


@pytest.mark.parametrize('content', [b'', b'\xff\xfe\x00\x81', b'a\0b', b'x' * 10_000, b'a\nb'])
def test_a_damaged_note_of_the_last_checkpoint_is_one_line(content, tmp_path):
    (tmp_path / 'last_checkpoint').write_bytes(content)
    with pytest.raises(UserError, match='last_checkpoint: it names no checkpoint: .*--resume PATH'):
        latest_checkpoint(tmp_path)
