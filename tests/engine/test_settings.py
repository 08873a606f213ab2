"""Settings that depend on each other are found before the first step."""
import pytest
import torch
from mmdet3d.registry import METRICS

from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.config import check_config
from mmdet3d_plugin.engine.settings import check_batches
from mmdet3d_plugin.errors import UserError

STUDENT = 'configs/kd360/kd360_student_r18_500it_toytown.py'
NO_VALIDATION = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)


@pytest.mark.parametrize('options, message', [
    ({'default_hooks.checkpoint.max_kep_ckpts': 1},
     r"max_kep_ckpts: .*did you mean 'max_keep_ckpts'"),
    ({'default_hooks.checkpoint': dict(type='CheckpointHook', intervall=1)},
     r"intervall: .*did you mean 'interval'"),
    ({'default_hooks.checkpoint.save_best': 'bev/IoU10'},
     r"save_best: .*did you mean 'bev/IoU100'"),
    ({'default_hooks.checkpoint.save_best': ['bev/IoU100', 'map/mean']}, "no metric 'map/mean'"),
    ({'custom_hooks': [dict(type='EarlyStoppingHook', monitor='bev/iou100')]},
     r"custom_hooks.0.monitor: .*'bev/IoU100'"),
    ({'default_hooks.checkpoint.by_epoch': True}, 'counts epochs, but train_cfg.max_iters counts'),
    ({'train_cfg.val_begin': 501}, 'val_begin is 501, but train_cfg.max_iters is 500'),
    ({'train_cfg.val_interval': 0}, 'val_interval: expected a whole number of at least 1, got 0'),
    ({'train_cfg.max_iters': 0}, 'max_iters: expected a whole number of at least 1, got 0'),
    ({'default_hooks.checkpoint.interval': 501, 'default_hooks.checkpoint.save_last': False},
     'nothing would be saved'),
    ({'train_dataloader.batch_size': 0}, 'train_dataloader.batch_size: .* at least 1, got 0'),
    ({'train_dataloader.batch_size': '4'}, "batch_size: .*got '4'"),
    ({'val_dataloader.num_workers': -1}, 'val_dataloader.num_workers: .* at least 0, got -1'),
    ({'val_dataloader.prefetch_factor': 0}, 'val_dataloader.prefetch_factor: .*got 0'),
    ({'env_cfg.cudnn_benchmrk': True}, "env_cfg.cudnn_benchmrk: .*'cudnn_benchmark'"),
    ({'randomness.sed': 1}, "randomness.sed: .*'seed'"),
    ({'auto_scale_lr.enabled': True}, "auto_scale_lr.enabled: .*'enable'"),
    ({'val_cfg': None}, 'val_cfg: not set, but val_dataloader, val_evaluator'),
    ({'custom_hooks': [dict(type='EMAHook', momentm=0.1)]}, "momentm: .*'momentum'"),
    ({'log_processor.window': 1}, "log_processor.window: .*'window_size'")])
def test_settings_that_cannot_work(options, message):
    with pytest.raises(UserError, match=message):
        check_config(load_config(STUDENT, options))


@pytest.mark.parametrize('options', [
    {}, {'train_cfg.max_iters': 4}, {'default_hooks.checkpoint.save_best': 'auto'},
    {'default_hooks.checkpoint.save_best': None}, NO_VALIDATION,
    {'custom_hooks': [dict(type='EMAHook', momentum=0.1, update_buffers=True)]},
    {'default_hooks.checkpoint.save_best': 'bev/IoU100_car'},
    {'default_hooks.checkpoint': dict(type='CheckpointHook', by_epoch=False, interval=9,
                                      save_optimizer=False, published_keys=['meta'])}])
def test_settings_that_work(options):
    check_config(load_config(STUDENT, options))


@pytest.mark.parametrize('cfg, expected', [
    (dict(type='BEVIoUMetric', ranges=(100, 12.5)), ['IoU100', 'IoU12.5']),
    (dict(type='BEVInstanceMetric', ranges=(20, )), ['PQ20', 'SQ20', 'RQ20']),
    (dict(type='MapIoUMetric', classes=('road', )), ['mean', 'road'])])
def test_metrics_name_their_scores_before_there_are_any(cfg, expected):
    assert METRICS.build(cfg).names() == expected


def test_a_training_set_smaller_than_a_batch(caplog):
    loader = torch.utils.data.DataLoader([0, 1, 2], batch_size=4, drop_last=True)
    with pytest.raises(UserError, match='its 3 frames fill no batch of 4 .* drop_last'):
        check_batches(loader, False, 1)
    check_batches(loader, True, 1)
    check_batches(torch.utils.data.DataLoader([0, 1, 2], batch_size=3), False, 1)
