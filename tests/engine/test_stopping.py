"""A training that turns NaN or is interrupted leaves the last whole, finite checkpoint."""
import logging
import math
import signal
import time
from types import SimpleNamespace
from uuid import uuid4

import mmengine.config.config
import pytest
import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet3d_plugin.engine import build_runner, load_config
from mmdet3d_plugin.errors import UserError


@pytest.fixture(autouse=True)
def toy_project(monkeypatch):
    monkeypatch.syspath_prepend('tests/toy')


class At(Hook):
    """Calls a function before one step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.step:
            self.action(runner)


def blow_up(runner):
    for group in runner.optim_wrapper.param_groups:
        group['lr'] = 1e30


def runner_of(folder, *hooks, **settings):
    """A Runner for ten steps, which validates and saves after every second."""
    cfg = load_config('tests/toy/toy_config_iter.py', {
        'train_cfg.max_iters': 10, 'train_cfg.val_interval': 2, 'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False, 'custom_hooks': [], 'param_scheduler': [],
        'default_hooks.checkpoint.interval': 2, **settings})
    cfg.work_dir, cfg.experiment_name = str(folder), f'{folder.name}_{uuid4().hex}'
    runner = build_runner(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    return runner


def finite(path):
    state = torch.load(path, weights_only=True)['state_dict']
    return all(value.isfinite().all() for value in state.values() if value.is_floating_point())


def test_a_loss_that_turns_nan_stops_the_training(tmp_path):
    with pytest.raises(UserError) as error:
        runner_of(tmp_path, At(4, blow_up)).train()
    last = tmp_path / 'iter_4.pth'
    for text in ('iteration 6: loss is ', 'loss_index is ', f'{last} has the last finite weights',
                 'the same command and --resume --extend', '--keep-going trains on regardless'):
        assert text in str(error.value)
    assert (tmp_path / 'last_checkpoint').read_text() == str(last)
    assert sorted(p.name for p in tmp_path.glob('iter_*.pth')) == ['iter_2.pth', 'iter_4.pth']
    assert all(map(finite, tmp_path.glob('*.pth'))) and list(tmp_path.glob('best_*.pth'))


def spoil(runner):
    with torch.no_grad():
        runner.model.body[1].running_mean.fill_(math.inf)


def test_infinite_weights_are_not_saved(tmp_path):
    with pytest.raises(UserError, match='iteration 6: 1 weights have NaN or infinite values, such '
                       'as body.1.running_mean; the training stops. .*iter_4.pth has the last'):
        runner_of(tmp_path, At(5, spoil)).train()
    assert sorted(p.name for p in tmp_path.glob('iter_*.pth')) == ['iter_2.pth', 'iter_4.pth']
    with pytest.raises(UserError, match='No checkpoint was saved before: lower the learning rate'):
        runner_of(tmp_path / 'first', At(0, spoil)).train()


def test_keep_going_trains_on_and_saves_finite_weights_only(tmp_path, capsys):
    runner = runner_of(tmp_path, At(4, blow_up), keep_going=True)
    runner.train()
    assert runner.iter == 10
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_4.pth')
    assert all(map(finite, tmp_path.glob('*.pth')))
    assert capsys.readouterr().out.count('the training goes on (--keep-going)') == 1


@pytest.mark.parametrize('steps, stops', [(10, False), (11, True)])
def test_loss_scaling_may_skip_some_steps(tmp_path, steps, stops):
    runner = runner_of(tmp_path, **{'train_cfg.max_iters': 1})
    hook, = (hook for hook in runner.hooks if type(hook).__name__ == 'SafeCheckpointHook')
    runner.train()
    runner.optim_wrapper.loss_scaler = 'of AMP'
    stopped = False
    for _ in range(steps):
        runner.message_hub.update_scalar('train/loss', math.inf)
        try:
            hook._check_loss(runner, dict(loss=None))
        except UserError:
            stopped = True
    assert stopped == stops
    runner.message_hub.update_scalar('train/loss', 1.0)
    hook._check_loss(runner, dict(loss=None))
    runner.message_hub.update_scalar('train/loss', math.inf)
    hook._check_loss(runner, dict(loss=None))


@pytest.mark.parametrize('save_best, rule', [('toy/mae', 'less'),
                                             (['toy/mae', 'toy/count'], ['less', 'less'])])
def test_the_best_checkpoint_is_never_away(tmp_path, monkeypatch, save_best, rule):
    values = dict.fromkeys(['toy/mae', 'toy/count'], 9.0)
    runner = runner_of(tmp_path, **{
        'train_cfg.max_iters': 2, 'default_hooks.checkpoint.save_best': save_best,
        'default_hooks.checkpoint.rule': rule})
    hook, = (hook for hook in runner.hooks if type(hook).__name__ == 'SafeCheckpointHook')
    runner.train()

    def best():
        return sorted(p.name for p in tmp_path.glob('best_*.pth'))

    before, during = best(), []
    assert before[-1] == 'best_toy_mae_iter_2.pth' and len(before) == len(hook.key_indicators)
    hook._save_best_checkpoint(runner, values | {'toy/count': 99.0, 'toy/mae': 99.0})
    assert best() == before  # 99 is no better

    monkeypatch.setattr(Runner, 'save_checkpoint', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hook._save_best_checkpoint(runner, dict.fromkeys(values, -1.0))
    assert best() == before
    monkeypatch.undo()

    hook.before_train(runner)
    runner.train_loop._iter = 3
    save = runner.save_checkpoint
    monkeypatch.setattr(runner, 'save_checkpoint', lambda *args, **kwargs: (
        during.append(best()), save(*args, **kwargs)))
    hook._save_best_checkpoint(runner, dict.fromkeys(values, -2.0))
    assert during and all(set(before) <= set(names) for names in during)
    assert best() == [name.replace('iter_2', 'iter_3') for name in before]


def test_the_text_of_the_config_is_formatted_once(tmp_path, monkeypatch):
    format_code, calls = mmengine.config.config.FormatCode, []
    monkeypatch.setattr(mmengine.config.config, 'FormatCode', lambda *args, **kwargs: (
        calls.append(1), format_code(*args, **kwargs))[1])
    runner = runner_of(tmp_path)
    runner.train()
    assert len(calls) == 1
    text = torch.load(tmp_path / 'iter_10.pth', weights_only=True)['meta']['cfg']
    assert text == runner.cfg.pretty_text and 'max_iters=10' in text
    runner.cfg.train_cfg.max_iters = 11
    assert 'max_iters=11' in runner.cfg.pretty_text and len(calls) == 2


@pytest.mark.parametrize('moment', ['importing', 'training'])
def test_an_interrupted_training_ends_at_once(tmp_path, run_command, moment):
    process = run_command('tools/train.py', 'tests/toy/toy_config_iter.py', '--work-dir', tmp_path,
                          '--cfg-options', 'default_hooks.checkpoint.interval=1',
                          'train_cfg.max_iters=100000', wait=False)
    deadline = time.time() + 100
    while time.time() < deadline and process.poll() is None:
        if moment == 'importing' or (tmp_path / 'last_checkpoint').is_file():
            break
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    try:
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    if moment == 'importing':
        assert process.returncode in (-signal.SIGINT, 130)
        return
    assert process.returncode == 130
    assert 'Traceback' not in error
    assert error.strip().splitlines()[-1] == (
        'interrupted; the same command with --resume goes on from the last checkpoint')
    last = (tmp_path / 'last_checkpoint').read_text()
    assert torch.load(last, weights_only=True)['meta']['iter'] > 0


def test_a_full_disk_names_the_way_on(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')
    runner = runner_of(tmp_path)
    monkeypatch.setattr('mmdet3d_plugin.checkpoints.os.fsync', full)
    with pytest.raises(UserError, match='iter_2.pth: cannot write: No space left on device; make '
                       'room there, .*and run the same command again with --resume'):
        runner.train()
    assert not list(tmp_path.glob('*.pth')) and not list(tmp_path.glob('.*.tmp'))


def test_validations_without_ground_truth_do_not_stop_a_training():
    hook = HOOKS.build(dict(type='EarlyStoppingHook', monitor='bev/IoU100', rule='greater',
                            patience=2, min_delta=0))
    runner = SimpleNamespace(train_loop=SimpleNamespace(stop_training=False),
                             logger=logging.getLogger())
    hook.before_run(runner)
    stopped = []
    for score in (5.0, float('nan'), 4.0, float('nan'), 3.0):
        hook.after_val_epoch(runner, {'bev/IoU100': score})
        stopped.append(runner.train_loop.stop_training)
    assert stopped == [False, False, False, False, True] and hook.best_score == 5.0
