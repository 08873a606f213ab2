from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

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
