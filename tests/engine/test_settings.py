"""Settings that depend on each other are found before the first step."""
import re

import pytest
import torch
from mmdet3d.registry import METRICS, MODELS

from mmdet3d_plugin.engine import build_runner, load_config
from mmdet3d_plugin.engine.config import check_config
from mmdet3d_plugin.engine.options import OptionText
from mmdet3d_plugin.engine.settings import check_batches
from mmdet3d_plugin.errors import UserError, build_from

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


@pytest.mark.parametrize('key', [
    'model', 'model.camera_branch', 'train_cfg', 'val_cfg', 'optim_wrapper', 'val_evaluator',
    'optim_wrapper.optimizer', 'train_dataloader', 'val_dataloader.dataset', 'param_scheduler',
    'train_dataloader.sampler', 'train_dataloader.collate_fn', 'param_scheduler.0', 'visualizer',
    'train_dataloader.dataset.pipeline', 'train_dataloader.dataset.pipeline.1', 'custom_hooks',
    'default_hooks', 'default_hooks.logger', 'visualizer.vis_backends', 'log_processor', 'env_cfg',
    'custom_imports'])
@pytest.mark.parametrize('text, hint', [
    ('5', 'got 5$'), ('x', "got 'x'$"),
    ("dict(type='X')", r"""got "dict\(type='X'\)"; .* \{'type':'X','key':1\}, .*config file$""")])
def test_text_where_a_dict_must_be(key, text, hint):
    with pytest.raises(UserError, match=rf'{re.escape(key)}: expected a dict, {hint}'):
        cfg = load_config(STUDENT, {key: OptionText(text)})
        check_config(cfg)
        build_from(MODELS, cfg.model, 'model')


@pytest.mark.parametrize('key', ['custom_hooks', 'param_scheduler', 'val_evaluator',
                                 'visualizer.vis_backends', 'train_dataloader.dataset.pipeline'])
@pytest.mark.parametrize('text', ["[dict(type='X',at=6)]", '[5]', '[x]'])
def test_text_in_a_list_of_dicts(key, text):
    got = re.escape(repr(int(text[1:-1]) if text == '[5]' else text[1:-1]))
    with pytest.raises(UserError, match=rf'^{re.escape(key)}\[0\]: expected a dict, got {got}'):
        check_config(load_config(STUDENT, {key: OptionText(text)}))


def test_hooks_as_a_dict_and_none_in_a_list():
    with pytest.raises(UserError, match='custom_hooks: expected a list of dicts, got'):
        check_config(load_config(STUDENT, {'custom_hooks': OptionText("{'type':'EMAHook'}")}))
    with pytest.raises(UserError, match=r'custom_hooks\[1\]: expected a dict, got None; leave'):
        check_config(load_config(STUDENT, {'custom_hooks': [dict(type='EMAHook'), None]}))


@pytest.mark.parametrize('key, message', [
    ('work_dir', 'work_dir: expected a text, got 5'),
    ('load_from', 'load_from: expected a text, got 5'),
    ('custom_imports.imports', 'custom_imports.imports: expected names of modules, got 5')])
def test_numbers_where_texts_must_be(key, message):
    with pytest.raises(UserError, match=message):
        load_config(STUDENT, {key: 5})


def test_a_misspelt_module_of_custom_imports(tmp_path):
    near = "mmdet3d_plugn: No module named 'mmdet3d_plugn'; did you mean 'mmdet3d_plugin'"
    with pytest.raises(UserError, match=f'^custom_imports.imports: {near}'):
        load_config(STUDENT, {'custom_imports.imports': OptionText('[mmdet3d_plugn]')})
    path = tmp_path / 'config.py'
    path.write_text("custom_imports = dict(imports=['mmdet3d_plugin', 'mmdet3d_plugin.nothing'])")
    with pytest.raises(UserError, match="plugin.nothing: No module named 'mmdet3d_plugin.nothing'"):
        load_config(path)
    with pytest.raises(UserError, match=r"^custom_imports.import: .*'imports'"):
        check_config(load_config(STUDENT, {'custom_imports.import': 'x'}))
    load_config(path, {'custom_imports.allow_failed_imports': True})


@pytest.mark.parametrize('hook, message', [
    (dict(type='EarlyStoppingHook'),
     r"custom_hooks\[1\] \(EarlyStoppingHook\): missing argument 'monitor'"),
    (dict(type='EarlyStoppingHook', monitor='toy/mae'),
     r'custom_hooks\[1\] \(EarlyStoppingHook\): Cannot infer the rule for toy/mae'),
    (dict(type='EMAHook', begin_iter=-4), r'custom_hooks\[1\]: .*begin_iter'),
    (dict(type='EMAHook', priority='HIGHEST2'), r"custom_hooks\[1\].*'HIGHEST2'"),
    (dict(type='EMAHook', priority=900), r'custom_hooks\[1\].*between 0 and 100'),
    (dict(type='EMAHook', momentum=5), 'EMAHook: AssertionError: momentum must be in range')])
def test_hooks_whose_arguments_are_wrong(hook, message, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend('tests/toy')
    cfg = load_config('tests/toy/toy_config.py', {
        'custom_hooks': [dict(type='WriteLossHook'), hook], 'work_dir': str(tmp_path)})
    with pytest.raises(UserError, match=f'^{message}'):
        build_runner(cfg).train()


def test_a_default_hook_whose_argument_is_wrong_and_a_priority(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend('tests/toy')
    cfg = load_config('tests/toy/toy_config.py', {
        'custom_hooks': [dict(type='WriteLossHook', priority='VERY_HIGH')],
        'work_dir': str(tmp_path)})
    runner = build_runner(cfg)
    assert [h.priority for h in runner.hooks if type(h).__name__ == 'WriteLossHook'] == [
        'VERY_HIGH']
    cfg.default_hooks.logger.interval = 'x'
    with pytest.raises(UserError, match='^default_hooks.logger: TypeError: interval must be an in'):
        build_runner(cfg)


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
