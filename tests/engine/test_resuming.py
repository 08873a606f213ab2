"""A resumed run says what it takes from its checkpoint, and can follow the config instead."""
import json
import logging
from uuid import uuid4

import pytest
import torch

from mmdet3d_plugin.engine import build_runner, load_config
from mmdet3d_plugin.engine.config_text import read_config_text
from mmdet3d_plugin.engine.resuming import compare_configs
from mmdet3d_plugin.errors import UserError


@pytest.fixture(autouse=True)
def toy_project(monkeypatch):
    monkeypatch.syspath_prepend('tests/toy')


def options(steps, total, rate, decay=0.0, **more):
    return {'train_cfg.max_iters': steps, 'train_cfg.val_interval': 100, 'val_cfg': None,
            'val_dataloader': None, 'val_evaluator': None, 'train_dataloader.num_workers': 0,
            'default_hooks.checkpoint.save_best': None, 'custom_hooks': [],
            'default_hooks.param_scheduler': dict(type='UpdateSchedulerHook'),
            'optim_wrapper.optimizer.weight_decay': decay,
            'param_scheduler': [dict(type='OneCycleLR', eta_max=rate, total_steps=total,
                                     by_epoch=False)], **more}


def train(folder, resume=False, extend=False, **settings):
    """Messages, the learning rate by step, and the runner."""
    cfg = load_config('tests/toy/toy_config_iter.py', options(**settings))
    cfg.work_dir, cfg.resume, cfg.extend = str(folder), resume, extend
    cfg.experiment_name = f'{folder.name}_{resume}_{extend}_{uuid4().hex}'
    runner = build_runner(cfg)
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append((record.levelname, record.getMessage()))
    runner.logger.addHandler(handler)
    runner.train()
    lines = [json.loads(line) for file in sorted(folder.glob('*/vis_data/scalars.json'))
             for line in file.read_text().splitlines()]
    rates = {line['step']: line['lr'] for line in lines}
    return messages, rates, runner


def test_differences_that_have_no_effect_are_said_with_both_values(tmp_path):
    train(tmp_path, steps=4, total=5, rate=0.1)
    messages, rates, runner = train(tmp_path, resume=True, steps=8, total=9, rate=0.5, decay=0.9)
    warned = ' | '.join(text for level, text in messages if level == 'WARNING')
    assert 'param_scheduler.0.eta_max 0.1 -> 0.5' in warned
    assert 'param_scheduler.0.total_steps 5 -> 9' in warned
    assert 'optim_wrapper.optimizer.weight_decay 0.0 -> 0.9' in warned
    assert 'from now on: train_cfg.max_iters 4 -> 8' in warned
    assert 'ends at step 5, the training at 8' in warned
    assert 'max_iters 4 -> 8: the schedule was made for 4' in warned
    assert runner.optim_wrapper.param_groups[0]['weight_decay'] == 0.0
    assert rates[8] == pytest.approx(rates[6])


def test_extending_follows_the_config_at_the_step_that_was_reached(tmp_path):
    whole = train(tmp_path / 'whole', steps=8, total=9, rate=0.5, decay=0.9)
    train(tmp_path / 'part', steps=4, total=5, rate=0.1)
    messages, rates, runner = train(tmp_path / 'part', resume=True, extend=True, steps=8, total=9,
                                    rate=0.5, decay=0.9)
    assert [rates[step] for step in range(5, 9)] == pytest.approx(
        [whole[1][step] for step in range(5, 9)], rel=1e-9)
    assert rates[4] != whole[1][4]
    assert runner.optim_wrapper.param_groups[0]['weight_decay'] == 0.9
    assert runner.optim_wrapper.optimizer.state_dict()['state'][0]['step'] == 8
    warned = ' | '.join(text for level, text in messages if level == 'WARNING')
    assert not any(word in warned for word in ('ends at step', 'no effect', 'was made for'))


def test_an_unchanged_run_resumes_without_a_word_about_its_config(tmp_path):
    train(tmp_path, steps=4, total=9, rate=0.1)
    messages, _, _ = train(tmp_path, resume=True, steps=4, total=9, rate=0.1)
    assert not [text for level, text in messages
                if level == 'WARNING' and ('Resumed' in text or 'schedule' in text)]


def test_another_optimizer_or_schedule_cannot_go_on(tmp_path):
    train(tmp_path, steps=4, total=9, rate=0.1)
    with pytest.raises(UserError, match='AdamW.*SGD.*start anew from its weights'):
        train(tmp_path, resume=True, steps=8, total=9, rate=0.1,
              **{'optim_wrapper.optimizer': dict(type='SGD', lr=0.1)})
    linear = [dict(type='LinearLR', start_factor=0.1, end=8, by_epoch=False)]
    with pytest.raises(UserError, match="'OneCycleLR' -> 'LinearLR'.*--extend"):
        train(tmp_path, resume=True, steps=8, total=9, rate=0.1, param_scheduler=linear)
    train(tmp_path, resume=True, extend=True, steps=8, total=9, rate=0.1, param_scheduler=linear)


def test_configs_are_compared_by_what_a_run_uses():
    stored = dict(lr=1, work_dir='a', model=dict(n=1), randomness=dict(seed=0),
                  optim_wrapper=dict(optimizer=dict(lr=1), clip_grad=None))
    today = dict(lr=2, work_dir='b', model=dict(n=2), randomness=dict(seed=1),
                 optim_wrapper=dict(optimizer=dict(lr=2), clip_grad=5))
    ignored, used = compare_configs(stored, today, {'model', 'work_dir', 'optim_wrapper',
                                                    'randomness'})
    assert ignored == {'optim_wrapper.optimizer.lr': (1, 2), 'randomness.seed': (0, 1)}
    assert used == {'model.n': (1, 2), 'optim_wrapper.clip_grad': (None, 5)}


def test_a_dumped_config_is_read_without_running_it():
    cfg = load_config('configs/kd360/kd360_distill_r18_500it_toytown.py')
    assert read_config_text(cfg.pretty_text, 'x')._cfg_dict == cfg._cfg_dict
    text = "a = dict(b=-1, **{'c d': (inf, None)})\ne = {'f': [1.5, 'g']}\n"
    assert read_config_text(text, 'x')._cfg_dict == dict(
        a={'b': -1, 'c d': (float('inf'), None)}, e=dict(f=[1.5, 'g']))
    for bad in ("a = __import__('os').getcwd()", 'import os', 'a = open("x")', 'a.b = 1', 'a = (',
                'a = [1 for _ in (1, )]', 'a = dict([(1, 2)])', 'a = b'):
        with pytest.raises(UserError, match='x: its config is not the text'):
            read_config_text(bad, 'x')


@pytest.mark.parametrize('settings, message', [
    ({'optim_wrapper.optimizer.lr': -1.0}, 'optim_wrapper: .*[Ii]nvalid learning rate'),
    ({'optim_wrapper.accumulative_counts': 0}, 'accumulative_counts: .* at least 1, got 0'),
    ({'param_scheduler': [dict(type='OneCycleLR', eta_max=0.1, total_steps=0, by_epoch=False)]},
     'param_scheduler: ')])
def test_a_setting_that_the_optimizer_refuses(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tmp_path, steps=1, total=2, rate=0.1, **settings)


OPTIMIZER = 'optim_wrapper.optimizer'
SGD = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0)
HEAD = {'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(head=dict(lr_mult=0.1)))}


@pytest.mark.parametrize('extend', [False, True])
@pytest.mark.parametrize('first, second, message', [
    ({}, HEAD, 'other parameter groups, of 6 parameters; those of the config have 1, 1, 1, 1, 1, 1 '
     r'\(paramwise_cfg, frozen parts\); resume with the config that trained it, or start anew'),
    (HEAD, {}, 'other parameter groups, of 1, 1, 1, 1, 1, 1 parameters; those of the config '
     'have 6')])
def test_other_parameter_groups_cannot_go_on(tmp_path, first, second, message, extend):
    train(tmp_path, steps=4, total=9, rate=0.1, **first)
    with pytest.raises(UserError, match=message):
        train(tmp_path, resume=True, extend=extend, steps=8, total=9, rate=0.1, **second)


def test_a_state_that_the_optimizer_cannot_use_is_an_error(tmp_path):
    """A checkpoint does not always say of which config it is; then its state does."""
    train(tmp_path, steps=4, total=9, rate=0.1)
    path = tmp_path / 'iter_4.pth'
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint['meta']['cfg']
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match='iter_4.pth: the state of its optimizer is of another '
                       'kind: it has no .*momentum, which SGD needs; resume with the config that'):
        train(tmp_path, resume=True, steps=8, total=9, rate=0.1, **{OPTIMIZER: SGD})
    with pytest.raises(UserError, match='is without amsgrad, which --extend would switch on'):
        train(tmp_path, resume=True, extend=True, steps=8, total=9, rate=0.1,
              **{f'{OPTIMIZER}.amsgrad': True})


@pytest.mark.parametrize('extend', [False, True])
def test_sgd_and_adamw_cannot_continue_each_other(tmp_path, extend):
    for first, second in ((SGD, dict(type='AdamW', lr=0.1)), (dict(type='AdamW', lr=0.1), SGD)):
        folder = tmp_path / first['type']
        train(folder, steps=4, total=9, rate=0.1, **{OPTIMIZER: first})
        with pytest.raises(UserError, match=f"type '{first['type']}' -> '{second['type']}'; start "
                           'anew from its weights in another --work-dir'):
            train(folder, resume=True, extend=extend, steps=8, total=9, rate=0.1,
                  **{OPTIMIZER: second})


def test_another_batch_size_says_where_the_data_go_on(tmp_path):
    train(tmp_path, steps=4, total=9, rate=0.1)
    messages, _, _ = train(tmp_path, resume=True, steps=6, total=9, rate=0.1,
                           **{'train_dataloader.batch_size': 3})
    warned = ' | '.join(text for level, text in messages if level == 'WARNING')
    assert ('Resumed with batches of 3 frames on all processes together; the checkpoint had 2: the '
            'order of the frames goes on at draw 12, as if all 4 steps had had such batches; they '
            'drew 8. The learning rate stays') in warned
    messages, _, _ = train(tmp_path, resume=True, steps=8, total=9, rate=0.1,
                           **{'train_dataloader.batch_size': 3})
    assert not any('Resumed with batches' in text for _, text in messages)


def test_epochs_go_on_with_batches_of_another_size(tmp_path):
    """12 frames are 6 batches of 2 or 3 of 4; the remaining epochs have all their frames."""
    def run(epochs, batch, **more):
        cfg = load_config('tests/toy/toy_config.py', {
            'train_cfg.max_epochs': epochs, 'train_dataloader.batch_size': batch})
        cfg.work_dir, cfg.experiment_name = str(tmp_path), uuid4().hex
        cfg.update(more)
        build_runner(cfg).train()

    run(2, 2)
    run(4, 4, resume=True)
    lines = (tmp_path / 'losses_0.txt').read_text().splitlines()
    assert [int(line.split()[0]) for line in lines] == [*range(12), *range(6, 12)]
    assert torch.load(tmp_path / 'epoch_4.pth', weights_only=True)['meta']['iter'] == 12
