"""Learning rates under gradient accumulation, and mixed precision on a CPU."""
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, PARAM_SCHEDULERS

from mmdet3d_plugin.engine import BF16OptimWrapper, UpdateSchedulerHook
from tests.factories import batch, build

ROOT = Path(__file__).resolve().parents[2]


def test_the_releases_schedule_steps_once_per_update_of_five_batches():
    cfg = Config.fromfile(ROOT / 'configs/kd360/release/kd360_student_effb0_12k_dur360bev.py')
    hook = HOOKS.build(cfg.default_hooks.param_scheduler)
    assert isinstance(hook, UpdateSchedulerHook)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))],
                                  cfg.optim_wrapper.optimizer.lr)
    wrapper = BF16OptimWrapper(optimizer,
                               accumulative_counts=cfg.optim_wrapper.accumulative_counts)
    scheduler, = (PARAM_SCHEDULERS.build(dict(one, optimizer=optimizer))
                  for one in cfg.param_scheduler)
    runner = SimpleNamespace(optim_wrapper=wrapper, param_schedulers=[scheduler])
    rates, wrapped = [], wrapper.optimizer.param_groups[0]
    for iteration in range(cfg.train_cfg.max_iters):
        if iteration % 5 == 0:
            rates.append(wrapped['lr'])
        wrapper._inner_count += 1
        if wrapper.should_update():
            optimizer.step()
        hook.after_train_iter(runner, iteration)
    assert len(rates) == 12000
    golden = {1: 2e-5, 2: 2.0397e-5, 605: 2.59801e-4, 1209: 4.99603e-4, 1210: 5e-4,
              1211: 4.99954e-4, 6000: 2.80074e-4, 12000: 4.59335e-6}
    for step, rate in golden.items():
        assert rates[step - 1] == pytest.approx(rate, rel=2e-5)


def test_bf16_trains_in_mixed_precision_and_keeps_float32_weights():
    model, seen = build(), []
    model.head.segmentation[0].conv.register_forward_hook(
        lambda _module, _inputs, out: seen.append(out.dtype))
    wrapper = BF16OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    before = model.head.segmentation[1].weight.detach().clone()
    losses = [model.train_step(batch(), wrapper)['loss'] for _ in range(8)]
    assert seen[0] == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses[0].dtype == torch.float32 and losses[-1] < losses[0]
    assert not torch.equal(before, model.head.segmentation[1].weight)
