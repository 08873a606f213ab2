"""The schedules' learning rates and momenta, and what resuming makes of them."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import PARAM_SCHEDULERS

from mmdet3d_plugin.engine import build_runner

ROOT = Path(__file__).resolve().parents[1]


def test_golden_learning_rates_of_the_release():
    schedule = Config.fromfile(ROOT / 'configs/_base_/schedules/kd360_12k.py')
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))],
                                  schedule.optim_wrapper.optimizer.lr)
    one_cycle, = schedule.param_scheduler
    scheduler = PARAM_SCHEDULERS.build(dict(one_cycle, optimizer=optimizer))
    rates = []
    for _ in range(schedule.train_cfg.max_iters):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    golden = {1: 2e-5, 2: 2.0397e-5, 605: 2.59801e-4, 1209: 4.99603e-4, 1210: 5e-4,
              1211: 4.99954e-4, 6000: 2.80074e-4, 12000: 4.59335e-6}
    for step, rate in golden.items():
        assert rates[step - 1] == pytest.approx(rate, rel=2e-5)


class Stopped(Exception):
    """Stands for a kill."""


class Record(Hook):
    """What each iteration trains with: {iteration: (epoch, learning rate, first momentum)}."""

    def __init__(self, seen, stop=None):
        self.seen, self.stop = seen, stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise Stopped
        group, = runner.optim_wrapper.param_groups[:1]
        self.seen[runner.iter] = (runner.epoch, group['lr'], group['betas'][0])


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains a toy model of 6 iterations an epoch with a schedule; returns what was seen."""
    monkeypatch.syspath_prepend(str(ROOT / 'tests' / 'toy'))
    toy = Config.fromfile(ROOT / 'tests/toy/toy_config.py')
    monkeypatch.setattr(Config, 'pretty_text', '')  # of the checkpoints; half of the time

    def run(name, folder, stop=None, resume=False, scale=False):
        config = Config.fromfile(ROOT / f'configs/_base_/schedules/{name}_20e.py')
        config.merge_from_dict(dict(
            {key: toy[key] for key in toy if 'data' in key or 'eval' in key or key == 'model'},
            custom_imports=toy.custom_imports, work_dir=str(tmp_path / folder), resume=resume,
            train_cfg=dict(val_interval=20), auto_scale_lr=dict(enable=scale), log_level='ERROR',
            default_hooks=dict(checkpoint=dict(interval=2, save_best='toy/mae', rule='less'))))
        seen = {}
        runner = build_runner(config)
        runner.register_hook(Record(seen, stop))
        if stop is None:
            runner.train()
        else:
            with pytest.raises(Stopped):
                runner.train()
        return seen

    return run


GOLDEN = {  # learning rate and first momentum at some of the 120 iterations of 20 epochs
    'bridgeta': {0: (1e-4, 0.9), 30: (8.5355339e-5, 0.9), 60: (5e-5, 0.9),
                 90: (1.4644661e-5, 0.9), 119: (1.7133751e-8, 0.9)},
    'bevfusion': {0: (1e-4, 0.9), 24: (5.5e-4, 0.8526316), 48: (1e-3, 0.8052632),
                  84: (5.00005e-4, 0.8526316), 119: (4.8588655e-7, 0.8999549)}}


@pytest.mark.parametrize('name', GOLDEN)
def test_twenty_epochs_resumed_are_twenty_epochs(name, train):
    """Stopped inside an epoch, and at the end of the one where BEVFusion's rate turns."""
    whole = train(name, 'whole')
    assert list(whole) == list(range(120)) and {epoch for epoch, *_ in whole.values()} == {
        *range(20)}
    for step, (rate, momentum) in GOLDEN[name].items():
        # mmengine ends a segment one step short of its end: here by a thousandth of the rate
        assert whole[step][1:] == pytest.approx((rate, momentum), rel=2e-3), step
    for stop, again in ((15, 12), (48, 48)):
        before = train(name, f'stopped_{stop}', stop=stop)
        after = train(name, f'stopped_{stop}', resume=True)
        assert list(before) == list(range(stop)) and min(after) == again
        assert {**before, **after} == whole


@pytest.mark.parametrize('name, ratio', [('bridgeta', 2 / 6), ('bevfusion', 2 / 32)])
def test_all_rates_of_a_schedule_scale_with_the_batch_size(name, ratio, train):
    """Cosine schedules: also where they end; the momentum is left."""
    plain, scaled = train(name, 'plain'), train(name, 'scaled', scale=True)
    for step, (_, rate, momentum) in plain.items():
        assert scaled[step][1:] == (pytest.approx(rate * ratio), pytest.approx(momentum))


@pytest.mark.parametrize('accumulated, base, highest', [(1, 6, 5e-4 / 3), (5, 30, 5e-4 / 3),
                                                        (3, 6, 5e-4), (1, 1, 1e-3)])
def test_one_cycle_scales_with_the_batch_size(accumulated, base, highest, tmp_path, monkeypatch):
    """OneCycleLR replaces the optimiser's rate by its own; a batch of the toy config is 2."""
    monkeypatch.syspath_prepend(str(ROOT / 'tests' / 'toy'))
    config = Config.fromfile(ROOT / 'tests/toy/toy_config.py')
    config.merge_from_dict(dict(
        work_dir=str(tmp_path), log_level='ERROR', optim_wrapper=dict(
            accumulative_counts=accumulated), param_scheduler=[dict(
                type='OneCycleLR', eta_max=5e-4, total_steps=24, by_epoch=False)],
        auto_scale_lr=dict(enable=True, base_batch_size=base)))
    seen = {}
    runner = build_runner(config)
    runner.register_hook(Record(seen))
    runner.train()
    assert max(rate for _, rate, _ in seen.values()) == pytest.approx(highest, rel=0.02)
