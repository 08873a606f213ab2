"""Entries of a config that mmengine and torch read without checking their names or values."""
import inspect
import logging
import re
from typing import Any, Callable, Iterator, Mapping, Set, Tuple

import torch
from mmdet3d.registry import MODEL_WRAPPERS, VISBACKENDS
from mmengine.config import Config
from mmengine.runner import Runner, set_random_seed

from ..errors import UserError, check_from, did_you_mean, is_config
from ..geometry import BEVGrid
from .options import entry

RUNNER_KEYS = (set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'}) | {
    'custom_imports', 'extend', 'find_unused_parameters', 'keep_going', 'model_wrapper_cfg',
    'runner_type', 'sync_bn'}
_CLIP = dict(norm=torch.nn.utils.clip_grad_norm_, value=torch.nn.utils.clip_grad_value_)
_DEFAULT_HOOKS = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler',
                  'checkpoint'}
_KNOWN_KEYS = {
    'custom_imports': {'imports', 'allow_failed_imports'},
    'env_cfg': {'cudnn_benchmark', 'keep_freed_memory', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'env_cfg.dist_cfg': {'port', 'init_backend', *inspect.signature(
        torch.distributed.init_process_group).parameters},
    'randomness': set(inspect.signature(set_random_seed).parameters),
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'optim_wrapper.paramwise_cfg': {
        'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult',
        'flat_decay_mult', 'bypass_duplicate', 'dcn_offset_lr_mult'}}


def _whole(low: int, high: float = float('inf')) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value < high


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


_VALUES: Tuple[Tuple[str, Callable[[Any], bool], str], ...] = (
    ('launcher', _one_of('none', 'pytorch', 'slurm', 'mpi'), "'none', 'pytorch', 'slurm' or 'mpi'"),
    ('log_level', lambda v: v in logging._nameToLevel or _whole(0)(v), "a level such as 'INFO'"),
    ('randomness.seed', _whole(0, 1 << 32), f'a whole number from 0 to {(1 << 32) - 1}'),
    ('randomness.deterministic', _flag, 'True or False'),
    ('randomness.diff_rank_seed', _flag, 'True or False'),
    ('auto_scale_lr.enable', _flag, 'True or False'),
    ('auto_scale_lr.base_batch_size', _whole(1), 'a whole number of at least 1'),
    ('env_cfg.cudnn_benchmark', _flag, 'True or False'),
    ('env_cfg.resource_limit', _whole(1), 'a whole number of at least 1'),
    ('env_cfg.mp_cfg.mp_start_method', _one_of('fork', 'spawn', 'forkserver'),
     "'fork', 'spawn' or 'forkserver'"),
    ('env_cfg.mp_cfg.opencv_num_threads', _whole(0), 'a whole number of at least 0'),
    ('log_processor.window_size', _whole(1), 'a whole number of at least 1'),
    ('log_processor.by_epoch', _flag, 'True or False'),
    ('log_processor.num_digits', _whole(0, 30), 'a whole number from 0 to 29'),
    ('visualizer.name', lambda v: isinstance(v, str), 'a text'),
    ('optim_wrapper.accumulative_counts', _whole(1), 'a whole number of at least 1'),
    ('optim_wrapper.clip_grad.max_norm', lambda v: _number(v) and v > 0, 'a number > 0'),
    ('optim_wrapper.clip_grad.clip_value', lambda v: _number(v) and v > 0, 'a number > 0'),
    ('optim_wrapper.clip_grad.norm_type', lambda v: v == 'inf' or _number(v),
     "a number, or 'inf'"),
    ('optim_wrapper.clip_grad.error_if_nonfinite', _flag, 'True or False'),
    *((f'optim_wrapper.paramwise_cfg.{name}', _number, 'a number')
      for name in sorted(_KNOWN_KEYS['optim_wrapper.paramwise_cfg'])
      if name.endswith('_mult')),
)


def check_keys(cfg: Config) -> None:
    """Check entries whose readers take any name, or find a wrong one only while they run.

    Raises:
        UserError: An unknown name, with the near one, or a value of another type.
    """
    for path, known in _KNOWN_KEYS.items():
        check_names(_mapping(cfg, path), known, path)
    for path, valid, expected in _VALUES:
        parent, _, key = path.rpartition('.')
        value = (_mapping(cfg, parent) if parent else cfg).get(key)
        if value is not None and not valid(value):
            raise UserError(f'{path}: expected {expected}, got {value!r:.80}')
    _check_clip_grad(_mapping(cfg, 'optim_wrapper.clip_grad'))
    _check_custom_keys(_mapping(cfg, 'optim_wrapper.paramwise_cfg.custom_keys'))
    for name in set(_mapping(cfg, 'default_hooks')) - _DEFAULT_HOOKS:
        hint = did_you_mean(name, _DEFAULT_HOOKS)
        if 'did you mean' in hint:
            raise UserError(f'default_hooks.{name}: no such default hook{hint}; hooks of other '
                            'names are for custom_hooks')
    if scale := _mapping(cfg, 'auto_scale_lr'):
        if scale.get('enable') and 'base_batch_size' not in scale:
            raise UserError('auto_scale_lr.base_batch_size: missing; the batch size that the '
                            'learning rate is for')
    if isinstance(cfg.get('model_wrapper_cfg'), Mapping):
        check_from(MODEL_WRAPPERS, cfg['model_wrapper_cfg'], 'model_wrapper_cfg', strict=True)
    _check_log_processor(_mapping(cfg, 'log_processor'))
    _check_backends(_mapping(cfg, 'visualizer').get('vis_backends'))
    for part in ('model', *(f'{split}_dataloader' for split in ('train', 'val', 'test'))):
        for path, grid in _grids(cfg.get(part), part):
            _check_grid(grid, path)


def check_names(values: Mapping, known: Set[str], path: str) -> None:
    """Raise an error unless all names are known."""
    for name in values:
        if name not in known:
            raise UserError(f'{path}.{name}: no such key{did_you_mean(str(name), known)}')


def _mapping(cfg: Config, path: str) -> Mapping:
    """The mapping of a path; an empty one where there is none."""
    value = entry(cfg, path)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        is_config(value, path)
        if path in ('visualizer', 'log_processor', 'optim_wrapper'):
            return {}  # built before
        raise UserError(f'{path}: expected a dict, got {value!r:.80}')
    return value


def _check_clip_grad(clip: Mapping) -> None:
    if not clip:
        return
    path, kind = 'optim_wrapper.clip_grad', clip.get('type', 'norm')
    if kind not in _CLIP:
        raise UserError(f"{path}.type: expected 'norm' or 'value', got {kind!r:.80}")
    known = {'type', *inspect.signature(_CLIP[kind]).parameters} - {'parameters'}
    check_names(clip, known, path)
    needed = 'max_norm' if kind == 'norm' else 'clip_value'
    if needed not in clip:
        raise UserError(f'{path}.{needed}: missing, expected a number > 0')


def _check_custom_keys(keys: Mapping) -> None:
    for name, value in keys.items():
        path = f'optim_wrapper.paramwise_cfg.custom_keys.{name}'
        if not isinstance(value, Mapping):
            raise UserError(f'{path}: expected dict(lr_mult=..., decay_mult=...), got '
                            f'{value!r:.80}')
        check_names(value, {'lr_mult', 'decay_mult'}, path)
        for key, number in value.items():
            if not _number(number):
                raise UserError(f'{path}.{key}: expected a number, got {number!r:.80}')


def _check_log_processor(cfg: Mapping) -> None:
    items = cfg.get('custom_cfg') or ()
    if not isinstance(items, (list, tuple)):
        raise UserError(f'log_processor.custom_cfg: expected a list of dicts, got {items!r:.80}')
    for n, item in enumerate(items):
        path = f'log_processor.custom_cfg[{n}]'
        if not isinstance(item, Mapping) or 'data_src' not in item:
            raise UserError(f'{path}: expected dict(data_src=..., method_name=...), got '
                            f'{item!r:.80}')
        if item.get('method_name', 'mean') in ('mean', 'max', 'min', 'current'):
            check_names(item, {'data_src', 'method_name', 'log_name', 'window_size'}, path)
    if isinstance(cfg.get('mean_pattern'), str):
        try:
            re.compile(cfg['mean_pattern'])
        except re.error as error:
            raise UserError(f'log_processor.mean_pattern: no regular expression: {error}'
                            ) from error


def _check_backends(backends: Any) -> None:
    if backends is None:
        return
    path = 'visualizer.vis_backends'
    if is_config(backends, path):
        backends = backends if 'type' not in backends else [backends]
    for n, backend in backends.items() if isinstance(backends, Mapping) else enumerate(backends):
        if is_config(backend, f'{path}[{n}]'):
            check_from(VISBACKENDS, backend, f'{path}[{n}]', strict=True)


def _grids(value: Any, path: str) -> Iterator[Tuple[str, Mapping]]:
    """The BEV grids below an entry, with their paths."""
    items = value.items() if isinstance(value, Mapping) else (
        enumerate(value) if isinstance(value, (list, tuple)) else ())
    for key, item in items:
        at = f'{path}[{key}]' if isinstance(key, int) else f'{path}.{key}'
        if key == 'grid' and isinstance(item, Mapping):
            yield at, item
        else:
            yield from _grids(item, at)


def _check_grid(grid: Mapping, path: str) -> None:
    check_names(grid, set(inspect.signature(BEVGrid).parameters), path)
    try:
        BEVGrid(**grid)
    except UserError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f'{path}: {error}') from error
