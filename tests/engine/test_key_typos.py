"""A misspelt key anywhere in a config is an error that names it, before the first step."""
import copy
import re

import pytest
from mmdet3d.registry import MODELS

from mmdet3d_plugin.engine import check_config, load_config
from mmdet3d_plugin.engine.known_keys import RUNNER_KEYS
from mmdet3d_plugin.engine.options import entry
from mmdet3d_plugin.errors import UserError, build_from

STUDENT = 'configs/kd360/kd360_student_r18_500it_toytown.py'
DISTILLED = 'configs/kd360/kd360_distill_r18_500it_toytown.py'
MORE = {
    'launcher': 'none', 'auto_scale_lr': dict(enable=False, base_batch_size=4),
    'find_unused_parameters': False, 'custom_hooks': [dict(type='EMAHook', momentum=0.1)],
    'randomness': dict(seed=0, deterministic=False, diff_rank_seed=False),
    'env_cfg.resource_limit': 4096, 'log_processor.custom_cfg': [
        dict(data_src='loss', method_name='mean', log_name='slow', window_size=50)],
    'optim_wrapper.accumulative_counts': 2,
    'optim_wrapper.clip_grad': dict(type='norm', max_norm=1.0, norm_type=2),
    'optim_wrapper.paramwise_cfg': dict(norm_decay_mult=0.0, custom_keys=dict(
        head=dict(lr_mult=0.1, decay_mult=0.5))),
    'model_wrapper_cfg': dict(type='MMDistributedDataParallel', broadcast_buffers=False)}
"""Entries that the configs do not have."""
FREE = {r'model\.terms\.\w+': 'a term has any name',
        r'optim_wrapper\.paramwise_cfg\.custom_keys\.\w+': 'it is part of the name of a parameter'}
"""Keys that may have any name, and why. So may variables of the config files: only these read them,
and ``--cfg-options`` checks their names.
"""


def keys(node, path=()):
    items = node.items() if isinstance(node, dict) else (
        enumerate(node) if isinstance(node, (list, tuple)) else ())
    for key, value in items:
        if isinstance(key, str):
            yield (*path, key)
        yield from keys(value, (*path, key))


TYPOS = {'missing': lambda key: key[:len(key) // 2] + key[len(key) // 2 + 1:] or key + 'x',
         'doubled': lambda key: key[:2] + key[1:],
         'swapped': lambda key: key[:-2] + key[:-3:-1] if key[-2:-1] != key[-1:] else key + 'x',
         'plural': lambda key: key + 's'}


def check_typos(path, typo):
    """Try a typo in every key; returns the keys whose typo is no error that names it."""
    base = load_config(path, MORE)
    check_config(base)
    bad, count = [], 0
    for where in keys(base._cfg_dict.to_dict()):
        name, wrong = '.'.join(map(str, where)), typo(where[-1])
        if where[0] not in RUNNER_KEYS or any(re.fullmatch(free, name) for free in FREE):
            continue
        cfg, count = copy.deepcopy(base), count + 1
        parent = cfg
        for key in where[:-1]:
            parent = parent[key]
        if wrong in parent:
            continue
        parent[wrong] = parent.pop(where[-1])
        try:
            check_config(cfg)
            if where[0] == 'model':
                build_from(MODELS, copy.deepcopy(cfg.model), 'model')
            bad.append(f'{name} -> {wrong}: accepted')
        except UserError as error:
            if not {wrong, where[-1]} & set(re.findall(r'\w+', str(error))):
                bad.append(f'{name} -> {wrong}: {error}')
        except Exception as error:
            bad.append(f'{name} -> {wrong}: {type(error).__name__} {error}')
    assert count > 200
    return bad


def test_a_typo_in_every_key():
    assert not check_typos(STUDENT, TYPOS['missing'])


@pytest.mark.slow
@pytest.mark.parametrize('typo', TYPOS)
@pytest.mark.parametrize('path', [STUDENT, DISTILLED])
def test_other_typos_in_every_key(path, typo):
    assert not check_typos(path, TYPOS[typo])


@pytest.mark.parametrize('options, message', [
    ({'model.grid.x_rang': [-50, 50]}, r"model\.grid\.x_rang: .*did you mean 'x_range'"),
    ({'train_dataloader.dataset.pipeline.1.grid.rws': '-x'},
     r"train_dataloader\.dataset\.pipeline\[1\]\.grid\.rws: .*'rows'"),
    ({'model.grid.resolution': 0}, r'model\.grid: '),
    ({'model.grid.resolution': 'fine'}, r'model\.grid: '),
    ({'randomness.seed': -1}, r'randomness\.seed: expected a whole number from 0 to 4294967295'),
    ({'randomness.seed': '1'}, r"randomness\.seed: expected .*, got '1'"),
    ({'randomness': 0}, 'randomness: expected a dict, got 0'),
    ({'randomness.deterministic': 'yes'}, r"deterministic: expected True or False, got 'yes'"),
    ({'log_processor.window_size': 0},
     r'log_processor\.window_size: expected .* at least 1, got 0'),
    ({'log_processor.custom_cfg': [dict(method_name='mean')]}, r'custom_cfg\[0\]: expected dict'),
    ({'log_processor.custom_cfg': [dict(data_src='loss', window=3)]},
     r"custom_cfg\[0\]\.window: .*'window_size'"),
    ({'log_processor.mean_pattern': '('}, 'mean_pattern: no regular expression'),
    ({'visualizer.vis_backends': [dict(type='LocalVisBacked')]},
     r"vis_backends\[0\]\.type: .*'LocalVisBackend'"),
    ({'visualizer.vis_backends': [dict(type='LocalVisBackend', save_dr='x')]},
     r"vis_backends\[0\]\.save_dr: .*'save_dir'"),
    ({'optim_wrapper.clip_grad': dict(max_nrm=1)},
     r"clip_grad\.max_nrm: .*did you mean 'max_norm'"),
    ({'optim_wrapper.clip_grad': dict(norm_type=2)}, r'clip_grad\.max_norm: missing'),
    ({'optim_wrapper.clip_grad': dict(max_norm=-1)}, r'clip_grad\.max_norm: expected a number > 0'),
    ({'optim_wrapper.clip_grad': dict(type='nrm', max_norm=1)}, "expected 'norm' or 'value'"),
    ({'optim_wrapper.clip_grad': dict(type='value', max_norm=1)}, r"clip_grad\.max_norm: no such"),
    ({'optim_wrapper.clip_grad': 1.0}, r'clip_grad: expected a dict, got 1\.0'),
    ({'optim_wrapper.paramwise_cfg': dict(norm_decay=0.0)}, r"norm_decay: .*'norm_decay_mult'"),
    ({'optim_wrapper.paramwise_cfg': dict(norm_decay_mult='0')}, 'norm_decay_mult: expected a num'),
    ({'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(head=dict(lr=1)))},
     r"custom_keys\.head\.lr: .*known: decay_mult, lr_mult"),
    ({'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(head=0.1))},
     'custom_keys.head: expected'),
    ({'launcher': 'pytorc'}, "launcher: expected 'none', 'pytorch', 'slurm' or 'mpi'"),
    ({'log_level': 'LOUD'}, "log_level: expected a level such as 'INFO', got 'LOUD'"),
    ({'auto_scale_lr': dict(enable=True)}, r'auto_scale_lr\.base_batch_size: missing'),
    ({'auto_scale_lr': dict(enable=True, base_batch_size='4')},
     'base_batch_size: expected a whole'),
    ({'env_cfg.dist_cfg.backnd': 'gloo'}, r"env_cfg\.dist_cfg\.backnd: .*'backend'"),
    ({'env_cfg.mp_cfg.mp_start_method': 'frk'}, "mp_start_method: expected 'fork', 'spawn'"),
    ({'default_hooks.chekpoint': dict(type='CheckpointHook')},
     r"default_hooks\.chekpoint: .*'checkp"),
    ({'optim_wrapper': dict(type='OptimWrapper', optimiser=dict(type='SGD', lr=0.1))},
     r'optim_wrapper\.optimizer: missing'),
    ({'train_cfg': dict(max_iters=4)}, r"train_cfg: the config has no 'type'"),
    ({'val_cfg.typ': 'ValLoop'}, r"val_cfg\.typ: ")])
def test_names_and_values_that_only_a_run_would_find(options, message):
    cfg = load_config(STUDENT)
    check_config(copy.deepcopy(cfg))
    for path, value in options.items():
        parent, _, key = path.rpartition('.')
        (entry(cfg, parent) if parent else cfg)[key] = value
    with pytest.raises(UserError, match=message):
        check_config(cfg)
