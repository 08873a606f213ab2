"""Load configs and find misspelt names in them before anything expensive starts."""
import difflib
import inspect
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional, Union

from mmdet3d.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
)
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..errors import UserError, check_from, did_you_mean

_RUNNER_KEYS = set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'}
_LOADER_KEYS = (set(inspect.signature(DataLoader.__init__).parameters) - {'self'}) | {
    'num_batch_per_epoch', 'disable_subprocess_warning'}


def load_config(path: Union[str, Path], options: Optional[Mapping] = None) -> Config:
    """Read a config file and merge the command line's options into it.

    Args:
        path (str | Path): The config file.
        options (dict, optional): ``{'a.b.c': value}`` of ``--cfg-options``.

    Returns:
        Config: The config, with its ``custom_imports`` done and its scope set.

    Raises:
        UserError: No such file, it does not parse, or an option cannot be merged.
    """
    path = Path(path)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path('configs')
        found = [p.name for p in folder.glob('**/*.py')]
        raise UserError(f'config {path}: no such file{did_you_mean(path.name, found)}')
    try:
        cfg = Config.fromfile(path)
    except (SyntaxError, NameError, KeyError, OSError, ImportError, AttributeError, TypeError,
            ValueError) as error:
        raise UserError(f'config {path}: {type(error).__name__}: {error}') from error
    try:
        cfg.merge_from_dict(dict(options or {}))
    except (KeyError, IndexError, TypeError, AssertionError) as error:
        raise UserError(f'--cfg-options {dict(options)}: cannot be merged into {path} '
                        f'({error})') from error
    _settle_loaders(cfg)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    return cfg


def _settle_loaders(cfg: Config) -> None:
    """Without workers a loader has no options of workers: torch refuses them."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader and loader.get('num_workers') == 0:
            loader.pop('prefetch_factor', None)
            if 'persistent_workers' in loader:
                loader.persistent_workers = False


def check_config(cfg: Config) -> None:
    """Check the names of everything but the model, which :func:`build_from` checks.

    Args:
        cfg (Config): A complete config.

    Raises:
        UserError: An unknown type or argument name, with its config path and close matches.
    """
    _check_top_level(cfg)
    for split in ('train', 'val', 'test'):
        if cfg.get(f'{split}_dataloader'):
            _check_dataloader(cfg[f'{split}_dataloader'], f'{split}_dataloader')
        if split != 'train':
            for metric, path in _listed(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
                check_from(METRICS, metric, path, strict=True)
        _check_loop(cfg.get(f'{split}_cfg'), f'{split}_cfg')
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if hook is not None:
            check_from(HOOKS, hook, f'default_hooks.{name}', strict=True)
    for hook, path in _listed(cfg.get('custom_hooks'), 'custom_hooks'):
        check_from(HOOKS, hook, path, strict=True)
    for scheduler, path in _listed(cfg.get('param_scheduler'), 'param_scheduler'):
        own = {k: v for k, v in scheduler.items() if k != 'convert_to_iter_based'}  # the Runner's
        check_from(PARAM_SCHEDULERS, own, path, strict=True)
    _check_optim_wrapper(cfg.get('optim_wrapper'))


def _check_top_level(cfg: Config) -> None:
    if not cfg.get('model'):
        raise UserError("config: it has no key 'model'; a config to run needs one "
                        '(files in configs/_base_ are parts of configs)')
    for name in set(cfg) - _RUNNER_KEYS:
        close = difflib.get_close_matches(name, _RUNNER_KEYS, n=1, cutoff=0.8)
        if close:
            raise UserError(f'{name}: no such key of a config; did you mean {close[0]!r}?')


def _check_loop(cfg: Any, path: str) -> None:
    if not isinstance(cfg, Mapping):
        return
    loop = dict(cfg)
    if 'by_epoch' in loop:
        loop['type'] = f'{"Epoch" if loop.pop("by_epoch") else "Iter"}BasedTrainLoop'
    if 'type' in loop:
        check_from(LOOPS, loop, path, strict=True)


def _check_dataloader(cfg: Mapping, path: str) -> None:
    for name in cfg:
        if name not in _LOADER_KEYS:
            raise UserError(f'{path}.{name}: a data loader has no such argument'
                            f'{did_you_mean(name, _LOADER_KEYS)}')
    if isinstance(cfg.get('sampler'), Mapping):
        check_from(DATA_SAMPLERS, cfg['sampler'], f'{path}.sampler')
    _check_dataset(cfg.get('dataset'), f'{path}.dataset')


def _check_dataset(cfg: Any, path: str) -> None:
    if not isinstance(cfg, Mapping):
        return
    check_from(DATASETS, cfg, path, strict=True)
    _check_dataset(cfg.get('dataset'), f'{path}.dataset')
    for inner, inner_path in _listed(cfg.get('datasets'), f'{path}.datasets'):
        _check_dataset(inner, inner_path)
    for transform, inner_path in _listed(cfg.get('pipeline'), f'{path}.pipeline'):
        check_from(TRANSFORMS, transform, inner_path)


def _check_optim_wrapper(cfg: Any) -> None:
    if not isinstance(cfg, Mapping) or 'optimizer' not in cfg:
        return
    own = {k: v for k, v in cfg.items() if k not in ('constructor', 'paramwise_cfg')}
    check_from(OPTIM_WRAPPERS, {'type': 'OptimWrapper', **own}, 'optim_wrapper', strict=True)
    if isinstance(cfg['optimizer'], Mapping):
        check_from(OPTIMIZERS, cfg['optimizer'], 'optim_wrapper.optimizer')


def _listed(value: Any, path: str) -> Iterable:
    """Pairs (config, path) of a config or of a list of configs; built objects are left out."""
    if isinstance(value, Mapping):
        return [(value, path)]
    return [(item, f'{path}[{i}]') for i, item in enumerate(value or [])
            if isinstance(item, Mapping)]
