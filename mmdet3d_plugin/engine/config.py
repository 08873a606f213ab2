"""Load configs and find misspelt names in them before anything expensive starts."""
import copy
import difflib
import importlib
import inspect
import logging
import pkgutil
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional, Set, Tuple, Union

from mmdet3d.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    VISUALIZERS,
)
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import print_log
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from ..errors import UserError, check_from, did_you_mean, is_config
from .known_keys import RUNNER_KEYS, check_keys
from .options import OptionText, entries_like, entry, evaluate, reaches, value_of
from .settings import check_settings

_LOADER_KEYS = (set(inspect.signature(DataLoader.__init__).parameters) - {'self'}) | {
    'num_batch_per_epoch', 'disable_subprocess_warning'}


def load_config(path: Union[str, Path], options: Optional[Mapping] = None) -> Config:
    """Read a config file and merge the command line's options into it.

    Args:
        path (str | Path): The config file.
        options (dict, optional): ``{'a.b.c': value}`` of ``--cfg-options``. A variable that the
            config files assign, such as ``batch_size``, changes what they compute from it.

    Returns:
        Config: The config, with its ``custom_imports`` done and its scope set.

    Raises:
        UserError: No such file, it does not parse, or an option cannot be merged or would change
            nothing.
    """
    path = Path(path)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path('configs')
        found = [p.name for p in folder.glob('**/*.py')]
        raise UserError(f'config {path}: no such file{did_you_mean(path.name, found)}')
    cfg, _ = _evaluate(path, {})
    options = {key: value_of(key, value, entry(cfg, key)) if isinstance(value, OptionText)
               else value for key, value in (options or {}).items()}
    variables = set(cfg) - RUNNER_KEYS
    for name in {key.split('.')[0] for key in options} - RUNNER_KEYS - variables:
        close = difflib.get_close_matches(name, variables, n=1, cutoff=0.85)
        if close:
            raise UserError(f'--cfg-options {name}: no such variable in {path}; did you mean '
                            f'{close[0]!r}?')
    chosen = {key: value for key, value in options.items() if key.split('.')[0] in variables}
    own = {key: value for key, value in options.items() if key not in chosen}
    try:
        if chosen:
            cfg = _with_variables(path, chosen, own)
        cfg.merge_from_dict(own)
    except (KeyError, IndexError, TypeError, AssertionError, AttributeError) as error:
        for key, value in own.items():
            if isinstance(entry(cfg, key), Mapping):
                is_config(value, f'--cfg-options {key}')
        raise UserError(f'--cfg-options {options}: cannot be merged into {path} '
                        f'({error})') from error
    for key in ('work_dir', 'load_from', 'default_scope'):
        if not isinstance(cfg.get(key), (str, type(None))):
            raise UserError(f'{key}: expected a text, got {cfg[key]!r:.80}')
    _import_modules(cfg)
    _settle_loaders(cfg)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    return cfg


def _evaluate(path: Path, variables: Mapping) -> Tuple[Config, Set[str]]:
    try:
        return evaluate(path, variables)
    except (SyntaxError, NameError, KeyError, OSError, ImportError, AttributeError, TypeError,
            ValueError) as error:
        given = f' with {dict(variables)}' if variables else ''
        raise UserError(f'config {path}{given}: {type(error).__name__}: {error}') from error


def _import_modules(cfg: Config) -> None:
    """Do the ``custom_imports`` of a complete config."""
    custom = cfg.get('custom_imports')
    if not is_config(custom, 'custom_imports'):
        return
    names = custom.get('imports') or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UserError(f'custom_imports.imports: expected names of modules, got {names!r:.80}')
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if custom.get('allow_failed_imports'):
                print_log(f'custom_imports.imports: {name}: {error}; the config goes on without it',
                          'current', logging.WARNING)
                continue
            known = {module.name for module in pkgutil.iter_modules()}
            missing = getattr(error, 'name', None) == name
            hint = did_you_mean(name, known) if missing else ''
            raise UserError(f'custom_imports.imports: {name}: {error}'
                            f'{hint if "did you" in hint else ""}; modules are searched for in '
                            'the folders of PYTHONPATH') from error


def _with_variables(path: Path, options: Mapping, own: Mapping) -> Config:
    """The config with other values of variables; each must change an entry, or be read by code.

    Entries that are set themselves (``own``) do not follow a variable.
    """
    cfg, read = _evaluate(path, options)
    merged = copy.deepcopy(cfg)
    merged.merge_from_dict(copy.deepcopy(dict(own)))
    for name in {key.split('.')[0] for key in options}:
        others = {key: value for key, value in options.items() if key.split('.')[0] != name}
        plain, _ = _evaluate(path, others)
        plain.merge_from_dict(copy.deepcopy(dict(own)))
        if reaches(merged, plain, name):
            continue
        instead = entries_like(plain, name, RUNNER_KEYS)
        if name in read or any(name in key.split('.') for key in instead):
            raise UserError(f'--cfg-options {name}: no entry of {path} follows this variable; set '
                            f'the entry itself{": " if instead else ""}{", ".join(instead[:6])}')
        print_log(f'--cfg-options {name}: no entry of {path} follows it; only code that reads '
                  f'this key sees it', 'current', logging.WARNING)
    return cfg


def _settle_loaders(cfg: Config) -> None:
    """Without workers a loader has no options of workers: torch refuses them."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, Mapping) and loader.get('num_workers', 0) == 0:
            for key in ('prefetch_factor', 'multiprocessing_context', 'timeout'):
                loader.pop(key, None)
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
    check_keys(cfg)
    for split in ('train', 'val', 'test'):
        if cfg.get(f'{split}_dataloader') is not None and is_config(
                cfg[f'{split}_dataloader'], f'{split}_dataloader'):
            _check_dataloader(cfg[f'{split}_dataloader'], f'{split}_dataloader')
        if split != 'train':
            for metric, path in _listed(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
                check_from(METRICS, metric, path, strict=True)
        _check_loop(cfg.get(f'{split}_cfg'), f'{split}_cfg')
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if hook is not None:
            _check_hook(hook, f'default_hooks.{name}')
    if isinstance(cfg.get('custom_hooks'), Mapping):
        raise UserError(f'custom_hooks: expected a list of dicts, got {cfg.custom_hooks!s:.80}; '
                        "write it as [{'type':'X'}]")
    for hook, path in _listed(cfg.get('custom_hooks'), 'custom_hooks'):
        _check_hook(hook, path)
    for scheduler, path in _listed(cfg.get('param_scheduler'), 'param_scheduler'):
        own = {k: v for k, v in scheduler.items() if k != 'convert_to_iter_based'}  # the Runner's
        check_from(PARAM_SCHEDULERS, own, path, strict=True)
    _check_optim_wrapper(cfg.get('optim_wrapper'))
    for path, registry in (('log_processor', LOG_PROCESSORS), ('visualizer', VISUALIZERS)):
        if is_config(cfg.get(path), path):
            check_from(registry, {'type': 'LogProcessor', **cfg[path]}, path, strict=True)
    check_settings(cfg)


def _check_top_level(cfg: Config) -> None:
    for name in ('model', 'data_preprocessor', 'model.data_preprocessor'):
        is_config(entry(cfg, name), name)
    if not cfg.get('model'):
        raise UserError("config: it has no key 'model'; a config to run needs one "
                        '(files in configs/_base_ are parts of configs)')
    for name in set(cfg) - RUNNER_KEYS:
        close = difflib.get_close_matches(name, RUNNER_KEYS, n=1, cutoff=0.8)
        if close:
            raise UserError(f'{name}: no such key of a config; did you mean {close[0]!r}?')


def _check_hook(cfg: Any, path: str) -> None:
    """Two hooks pass what they do not know on: to the first checkpoint, and to the average."""
    if not is_config(cfg, path):
        return
    cfg = {key: value for key, value in cfg.items() if key != 'priority'}  # the Runner's
    hook = check_from(HOOKS, cfg, path, strict=True)
    for base, others in ((CheckpointHook, ()), (EMAHook, (ExponentialMovingAverage, ))):
        if not inspect.isclass(hook) or not issubclass(hook, base) or 'ema_type' in cfg:
            continue
        known = {name for cls in (hook, base, *others)
                 for name in inspect.signature(cls.__init__).parameters} - {
                     'self', 'args', 'kwargs', 'model'}
        for name in set(cfg) - known - {'type', '_scope_'}:
            raise UserError(f'{path}.{name}: {hook.__name__} has no such argument'
                            f'{did_you_mean(name, known)}', path)


def _check_loop(cfg: Any, path: str) -> None:
    if not is_config(cfg, path):
        return
    loop = dict(cfg)
    if 'by_epoch' in loop:
        loop['type'] = f'{"Epoch" if loop.pop("by_epoch") else "Iter"}BasedTrainLoop'
    if 'type' not in loop and path != 'train_cfg':
        loop['type'] = f'{path.split("_")[0].capitalize()}Loop'  # as the Runner does
    check_from(LOOPS, loop, path, strict=True)


def _check_dataloader(cfg: Mapping, path: str) -> None:
    for name in cfg:
        if name not in _LOADER_KEYS:
            raise UserError(f'{path}.{name}: a data loader has no such argument'
                            f'{did_you_mean(name, _LOADER_KEYS)}')
    for name in ('sampler', 'batch_sampler', 'collate_fn'):
        if is_config(cfg.get(name), f'{path}.{name}') and name == 'sampler':
            check_from(DATA_SAMPLERS, cfg[name], f'{path}.{name}')
    _check_dataset(cfg.get('dataset'), f'{path}.dataset')


def _check_dataset(cfg: Any, path: str) -> None:
    if not is_config(cfg, path):
        return
    check_from(DATASETS, cfg, path, strict=True)
    _check_dataset(cfg.get('dataset'), f'{path}.dataset')
    for inner, inner_path in _listed(cfg.get('datasets'), f'{path}.datasets'):
        _check_dataset(inner, inner_path)
    _check_transforms(cfg.get('pipeline'), f'{path}.pipeline')


def _check_transforms(pipeline: Any, path: str) -> None:
    for transform, inner_path in _listed(pipeline, path):
        check_from(TRANSFORMS, transform, inner_path)
        _check_transforms(transform.get('transforms'), f'{inner_path}.transforms')


def _check_optim_wrapper(cfg: Any) -> None:
    if not is_config(cfg, 'optim_wrapper'):
        return
    if 'optimizer' not in cfg:
        if 'constructor' not in cfg and not any(isinstance(v, OptimWrapper) for v in cfg.values()):
            names = ', '.join(map(str, cfg)) or 'nothing'
            raise UserError(f'optim_wrapper.optimizer: missing (optim_wrapper has {names})')
        return
    own = {k: v for k, v in cfg.items() if k not in ('constructor', 'paramwise_cfg')}
    check_from(OPTIM_WRAPPERS, {'type': 'OptimWrapper', **own}, 'optim_wrapper', strict=True)
    if is_config(cfg['optimizer'], 'optim_wrapper.optimizer'):
        check_from(OPTIMIZERS, cfg['optimizer'], 'optim_wrapper.optimizer')


def _listed(value: Any, path: str) -> Iterable:
    """Pairs (config, path) of a config or of a list of configs; built objects are left out."""
    if value is None or not isinstance(value, (list, tuple)):
        return [(value, path)] if is_config(value, path) else []
    for i, item in enumerate(value):
        if item is None:
            raise UserError(f'{path}[{i}]: expected a dict, got None; leave it out of the list')
    return [(item, f'{path}[{i}]') for i, item in enumerate(value)
            if is_config(item, f'{path}[{i}]')]
