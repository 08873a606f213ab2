"""Settings that depend on each other, checked before the first step."""
import copy
import logging
from typing import Any, Iterator, Mapping, Optional, Tuple

from mmdet3d.registry import METRICS
from mmengine.config import Config
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from ..errors import UserError, did_you_mean


def check_settings(cfg: Config) -> None:
    """Check numbers of loaders, intervals against the length of the training, and best scores.

    Raises:
        UserError: A loader cannot be built, nothing would be validated or saved, or no evaluator
            gives the metric that is waited for.
    """
    for split in ('train', 'val', 'test'):
        _check_numbers(cfg.get(f'{split}_dataloader') or {}, f'{split}_dataloader')
        _check_complete(cfg, split)
    if cfg.get('train_cfg') and cfg.get('train_dataloader'):
        _check_intervals(cfg)
        _check_monitored(cfg)


def _check_numbers(loader: Mapping, path: str) -> None:
    for key, least in (('batch_size', 1), ('num_workers', 0), ('prefetch_factor', 1)):
        value = loader.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f'{path}.{key}: expected a whole number of at least {least}, got '
                            f'{value!r}')


def _check_complete(cfg: Config, split: str) -> None:
    names = [f'{split}_dataloader', f'{split}_cfg',
             'optim_wrapper' if split == 'train' else f'{split}_evaluator']
    missing = [name for name in names if cfg.get(name) is None]
    if missing and len(missing) < len(names):
        others = ', '.join(name for name in names if name not in missing)
        raise UserError(f'{", ".join(missing)}: not set, but {others}; set all three, or all to '
                        'None')


def _length(train_cfg: Mapping) -> Tuple[Optional[int], str, bool]:
    """Steps or epochs of a training, the entry that says so, and whether it counts epochs."""
    by_epoch = train_cfg.get('by_epoch', 'max_epochs' in train_cfg)
    key = 'max_epochs' if by_epoch else 'max_iters'
    return train_cfg.get(key), f'train_cfg.{key}', by_epoch


def _check_intervals(cfg: Config) -> None:
    total, name, by_epoch = _length(cfg.train_cfg)
    if total is None:
        return  # a loop of the user's own
    if not isinstance(total, int) or isinstance(total, bool) or total < 1:
        raise UserError(f'{name}: expected a whole number of at least 1, got {total!r}')
    for key in ('val_interval', 'val_begin'):
        value = cfg.train_cfg.get(key, 1)
        if not isinstance(value, int) or value < 1:
            raise UserError(f'train_cfg.{key}: expected a whole number of at least 1, got '
                            f'{value!r}')
    if cfg.get('val_cfg') and cfg.train_cfg.get('val_begin', 1) > total:
        raise UserError(f'train_cfg.val_begin is {cfg.train_cfg.val_begin}, but {name} is {total}: '
                        'nothing would be validated; set val_begin to at most that')
    if cfg.get('val_cfg') and cfg.train_cfg.get('val_interval', 1) > total:
        _warn(f'train_cfg.val_interval is {cfg.train_cfg.val_interval}, but {name} is {total}: '
              'one validation, after the last step')
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    hook = hook if isinstance(hook, Mapping) else {}  # built before
    interval = hook.get('interval', -1)
    if type(interval) is not int:
        raise UserError(f'default_hooks.checkpoint.interval: expected a whole number, got '
                        f'{interval!r:.80}')
    if hook.get('by_epoch', True) and not by_epoch and interval > 0:
        raise UserError(f'default_hooks.checkpoint counts epochs, but {name} counts iterations, '
                        'which are one epoch: set default_hooks.checkpoint.by_epoch=False')
    if hook.get('by_epoch', True) == by_epoch and interval > total and not hook.get(
            'save_last', True):
        raise UserError(f'default_hooks.checkpoint.interval is {interval}, but {name} is {total}, '
                        'and save_last is False: nothing would be saved')


def _check_monitored(cfg: Config) -> None:
    """The metrics that checkpoints, hooks and schedulers wait for are among the evaluators'."""
    for path, key in _monitored(cfg):
        if not cfg.get('val_evaluator') or not cfg.get('val_cfg'):
            _warn(f'{path} is {key!r}, but there is no validation (val_cfg, val_evaluator): it '
                  'will have no effect')
            continue
        known = _metrics(cfg.val_evaluator)
        if known is not None and not any(key == name or key.startswith(f'{name}_')
                                         for name in known):
            raise UserError(f'{path}: val_evaluator gives no metric {key!r}'
                            f'{did_you_mean(key, known)}')


def _monitored(cfg: Config) -> Iterator[Tuple[str, str]]:
    """Pairs of an entry and the metric that it names."""
    hooks = [(f'default_hooks.{name}', hook)
             for name, hook in (cfg.get('default_hooks') or {}).items()]
    hooks += [(f'custom_hooks.{n}', hook) for n, hook in enumerate(cfg.get('custom_hooks') or ())]
    schedulers = cfg.get('param_scheduler') or ()
    schedulers = [schedulers] if isinstance(schedulers, Mapping) else schedulers
    parts = hooks + [(f'param_scheduler.{n}', part) for n, part in enumerate(schedulers)]
    for path, part in parts:
        for key in ('save_best', 'monitor'):
            names: Any = part.get(key) if isinstance(part, Mapping) else None
            for name in [names] if isinstance(names, str) else names or ():
                if name != 'auto' and not (path.startswith('param_scheduler') and name == 'loss'):
                    yield f'{path}.{key}', name


def _metrics(evaluators: Any) -> Optional[list]:
    """Names of the evaluators' metrics; those of channels begin with them. None if unknown."""
    found = []
    for evaluator in [evaluators] if isinstance(evaluators, Mapping) else evaluators:
        metric = METRICS.build(copy.deepcopy(evaluator)) if isinstance(
            evaluator, Mapping) else evaluator
        if not hasattr(metric, 'names'):
            return None
        prefix = metric.prefix or metric.default_prefix
        found += [f'{prefix}/{name}' for name in metric.names()]
    return found


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)


def check_batches(dataloader: DataLoader, infinite: bool, world_size: int) -> None:
    """A training set that is smaller than a batch.

    Args:
        dataloader (DataLoader): Of the training.
        infinite (bool): Whether the sampler goes on from epoch to epoch within a batch.
        world_size (int): Processes.

    Raises:
        UserError: An epoch has no batch.
    """
    frames, batch_size = len(dataloader.dataset), dataloader.batch_sampler.batch_size
    if not infinite and not len(dataloader):
        raise UserError(f'train_dataloader: its {frames} frames fill no batch of {batch_size} on '
                        f'each of {world_size} processes, and drop_last is True; set '
                        'train_dataloader.batch_size to less')
    if frames < batch_size * world_size:
        what = 'frames occur more than once in a batch' if infinite else 'batches are smaller'
        _warn(f'train_dataloader: {frames} frames are fewer than the {batch_size * world_size} of '
              f'a batch of all processes: {what}')
