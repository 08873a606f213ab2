"""The Runner of the tools: mmengine's, with early errors and CPU-distributed training."""
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

import torch
import torch.distributed
from mmdet3d.registry import HOOKS, MODELS, RUNNERS
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import (
    BaseLoop,
    CheckpointLoader,
    IterBasedTrainLoop,
    Runner,
    get_priority,
)
from torch import nn

from ..checkpoints import (
    RENAMED_ENTRIES,
    kind_difference,
    put_weights,
    read_checkpoint,
    shapes_of,
    state_difference,
    student_weights,
    weights_of,
)
from ..errors import UserError, build_from, parse_errors
from .config import RUNNER_KEYS, check_config
from .config_text import FormattedOnce
from .memory import keep_freed_memory
from .pretrained import DownloadError
from .reproducible import follow_batches
from .resuming import (
    check_optimizer_state,
    follow_config,
    hyperparameters,
    say_differences,
)
from .settings import check_batches

_DEFAULT_HOOKS = dict(
    checkpoint=dict(type='SafeCheckpointHook'),
    sampler_seed=dict(type='ReproducibleTrainingHook'))


_RATES = ('eta_max', 'eta_min', 'min_value')


@RUNNERS.register_module()
class PluginRunner(Runner):
    """mmengine's Runner, which also

    * names the config path in errors about the model,
    * writes checkpoints atomically and resumes exactly, unless the config names other
      hooks for the slots ``checkpoint`` and ``sampler_seed``,
    * resumes checkpoints under torch's ``weights_only`` loading,
    * scales the rates of schedulers too (``auto_scale_lr``), and counts accumulated batches,
    * starts a distiller's student from a checkpoint of the student alone (``load_from``),
    * trains on several CPU processes (gloo) where there is no GPU,
    * lets the C library keep freed memory if ``env_cfg.keep_freed_memory`` is True and there is no
      GPU; see :func:`.memory.keep_freed_memory`.
    """

    def setup_env(self, env_cfg: Dict) -> None:
        """On CPUs: reuse memory, and join a gloo group before mmengine asks for GPUs."""
        self._keeps_memory = (env_cfg.get('keep_freed_memory', False)
                              and not torch.cuda.is_available() and keep_freed_memory())
        if self.distributed and not torch.cuda.is_available() and not is_distributed():
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger, and log what :meth:`setup_env` did before there was one.

        Environment, config and order of the hooks go to the log file only: on the console they
        hide the line of an error.
        """
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_for_the_console)
        if self._keeps_memory:
            logger.info('env_cfg.keep_freed_memory: the C library keeps up to 2 GiB of freed '
                        'memory for the next tensors; resident memory stays near its peak')
        return logger

    def build_model(self, model: Union[nn.Module, Dict]) -> nn.Module:
        """Build the model; errors start with the path of the wrong part, ``model.…``."""
        return build_from(MODELS, model, 'model')

    def build_optim_wrapper(self, *args, **kwargs) -> OptimWrapper:
        """Build the optimiser; a setting that it refuses is an error of the config."""
        with _setting('optim_wrapper'):
            return super().build_optim_wrapper(*args, **kwargs)

    def build_param_scheduler(self, *args, **kwargs) -> Union[List, Dict]:
        """Build the schedulers; a setting that one refuses is an error of the config."""
        with _setting('param_scheduler'):
            return super().build_param_scheduler(*args, **kwargs)

    def build_train_loop(self, loop: Union[BaseLoop, Dict]) -> BaseLoop:
        """Build the loop; a training set without a batch is an error."""
        loop = super().build_train_loop(loop)
        infinite = isinstance(loop, IterBasedTrainLoop)
        check_batches(loop.dataloader, infinite, self.world_size)
        return loop

    def build_val_loop(self, loop: Union[BaseLoop, Dict]) -> BaseLoop:
        """Build the loop; its metrics see the data before the training starts."""
        return _prepared(super().build_val_loop(loop))

    def build_test_loop(self, loop: Union[BaseLoop, Dict]) -> BaseLoop:
        """Build the loop; its metrics see the data before the inference starts."""
        return _prepared(super().build_test_loop(loop))

    def wrap_model(self, model_wrapper_cfg: Optional[Dict], model: nn.Module) -> nn.Module:
        """Wrap for distributed training; CPU processes have no device ids."""
        if self.distributed and not torch.cuda.is_available():
            model_wrapper_cfg = dict(
                type='MMDistributedDataParallel', broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', False)
            ) | dict(model_wrapper_cfg or {}, device_ids=None)
        return super().wrap_model(model_wrapper_cfg, model)

    def register_default_hooks(self, hooks: Optional[Dict] = None) -> None:
        """Register mmengine's default hooks, with ours in two of their slots."""
        super().register_default_hooks({
            name: _built(hook, f'default_hooks.{name}')
            for name, hook in (_DEFAULT_HOOKS | dict(hooks or {})).items()})

    def register_custom_hooks(self, hooks: Sequence[Union[Hook, Dict]]) -> None:
        """Register the config's hooks; a setting that one refuses is an error of the config."""
        super().register_custom_hooks([_built(hook, f'custom_hooks[{n}]')
                                       for n, hook in enumerate(hooks)])

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """Call all hooks; a setting that one refuses before the run is an error of the config."""
        if fn_name != 'before_run':
            return super().call_hook(fn_name, **kwargs)
        for hook in self._hooks:
            with _setting(type(hook).__name__):
                hook.before_run(self, **kwargs)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: Optional[Dict] = None) -> None:
        """Scale the learning rate to the real batch size, where the config asks for it.

        mmengine's own scales the optimiser's rate only, which OneCycleLR replaces, and cosine
        schedulers leave. Here the rates that schedulers of the learning rate name (``eta_max``,
        ``eta_min``, ``min_value``) are scaled as well. The real batch size is that of all
        processes and accumulated batches together.

        Args:
            optim_wrapper (OptimWrapper): Its parameter groups are changed.
            auto_scale_lr (dict, optional): ``enable`` and ``base_batch_size``.
        """
        if not (auto_scale_lr or {}).get('enable'):
            return
        loader = self._train_dataloader
        size = loader['batch_size'] if isinstance(loader, dict) else loader.batch_size
        real = self.world_size * size * optim_wrapper._accumulative_counts
        ratio = real / auto_scale_lr['base_batch_size']
        self.logger.info(f'auto_scale_lr: the learning rate is for a batch size of '
                         f'{auto_scale_lr["base_batch_size"]}, the real one is {real}; scaled by '
                         f'{ratio:g}')
        for group in optim_wrapper.param_groups:
            group['lr'] *= ratio
        schedulers = self.param_schedulers or []
        for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
            if str(scheduler['type']).endswith('LR'):
                scheduler.update({key: scheduler[key] * ratio for key in _RATES
                                  if scheduler.get(key)})

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        """Load a checkpoint of this Runner or of mmengine's, without running code from it.

        Raises:
            UserError: The run is to be resumed and the weights are not this model's, or it is to
                start from a student's checkpoint which is not its student's; a weight is not of
                floating point.
        """
        content, model = _read(filename), _unwrapped(self.model)
        if not self._resume and hasattr(model, 'student') and _is_of_a_student(content):
            self.logger.info(f'The student starts from {filename}')
            put_weights(model, content, filename)
            checkpoint = dict(state_dict=model.state_dict())
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
            return checkpoint
        if different := kind_difference(model, weights_of(content)):
            raise UserError(f'checkpoint {filename}: {different}; use a checkpoint of this model')
        del content  # mmengine reads it again
        options = dict(strict=bool(self._resume),
                       revise_keys=[(r'^module\.', ''), *RENAMED_ENTRIES])
        try:
            checkpoint = super().load_checkpoint(filename, *args, **{**options, **kwargs})
        except RuntimeError as error:
            difference = state_difference(shapes_of(model), weights_of(_read(filename)))
            raise UserError(f'checkpoint {filename}: its weights do not fit the model of the '
                            f'config: {difference or error}; resume with the config that trained '
                            'it, or start anew from it, without --resume and in another '
                            '--work-dir: --cfg-options load_from=PATH') from error
        if self._resume:
            say_differences(self, checkpoint, filename, RUNNER_KEYS)
            self._saved_batches = checkpoint.get('meta', {}).get('batches')
            if 'optimizer' in checkpoint:
                check_optimizer_state(self, checkpoint['optimizer'], filename,
                                      self.optim_wrapper.state_dict())
        return checkpoint

    def resume(self, filename: str, *args, **kwargs) -> None:
        """Continue a training.

        Schedule and settings of the optimiser are those of the checkpoint, and what the config has
        otherwise is logged; with ``extend=True`` in the config they are the config's.
        """
        extend = self.cfg.get('extend', False)
        groups = hyperparameters(self) if extend else []
        options = dict(kwargs, resume_param_scheduler=False) if extend else kwargs
        super().resume(filename, *args, **options)
        follow_batches(self, self._saved_batches)
        if extend:
            follow_config(self, groups)

    def _init_model_weights(self) -> None:
        """Initialise the weights; where pretrained ones are out of reach, name the option."""
        try:
            super()._init_model_weights()
        except DownloadError as error:
            places = [f'{path}.init_cfg=None' for path in _places(self.cfg.model, error.url)]
            option = f': --cfg-options {" ".join(places)}' if places else ''
            raise UserError(f'{error}{option}') from error


def _read(source: str) -> dict:
    """The content of a checkpoint, from a file or a URL."""
    if '://' in source:
        return CheckpointLoader.load_checkpoint(source, 'cpu')
    return read_checkpoint(source)


def _is_of_a_student(content: Mapping) -> bool:
    state = weights_of(content)
    return student_weights(state) is state


def _built(cfg: Any, path: str) -> Any:
    """A hook; its ``priority`` is the Runner's, not an argument."""
    if not isinstance(cfg, Mapping):
        return cfg
    own = {key: value for key, value in cfg.items() if key != 'priority'}
    with _setting(path):
        hook = build_from(HOOKS, own, path)
        if 'priority' in cfg:
            get_priority(cfg['priority'])
            hook.priority = cfg['priority']
    return hook


@contextmanager
def _setting(path: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'{path}: {type(error).__name__}: {error}', path) from error


def _prepared(loop: BaseLoop) -> BaseLoop:
    for metric in loop.evaluator.metrics:
        if hasattr(metric, 'prepare'):
            metric.prepare(loop.dataloader.dataset)
    return loop


def _is_for_the_console(record: logging.LogRecord) -> bool:
    begin = record.getMessage()[:200].lstrip('-\n')
    return not begin.startswith(('System environment:', 'Config:', 'Hooks will be executed'))


def _places(cfg: Any, url: str, path: str = 'model') -> Iterator[str]:
    """Paths of the parts of a config whose ``init_cfg`` names a URL."""
    if isinstance(cfg, (list, tuple)):
        cfg = dict(enumerate(cfg))
    if isinstance(cfg, Mapping):
        if url in str(cfg.get('init_cfg')):
            yield path
        for key, part in cfg.items():
            yield from _places(part, url, f'{path}.{key}')


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def build_runner(cfg: Config) -> Runner:
    """A Runner for a complete config, after a check of names and files.

    Args:
        cfg (Config): The config; ``runner_type`` may name another Runner.

    Returns:
        Runner: Ready for ``train()`` or ``test()``.

    Raises:
        UserError: A misspelt key or type, or a missing or damaged checkpoint.
    """
    check_config(cfg)
    if cfg.get('resume') and not cfg.get('load_from'):
        cfg.load_from = latest_checkpoint(cfg.work_dir)
    if cfg.get('load_from') and '://' not in cfg.load_from:
        content = read_checkpoint(cfg.load_from)
        if cfg.get('resume') and not {'meta', 'message_hub', 'optimizer'} <= set(content):
            raise UserError(f'checkpoint {cfg.load_from}: it holds weights but no state of a '
                            'training; start from it with --cfg-options load_from=PATH')
    cfg = FormattedOnce.of(cfg)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return PluginRunner.from_cfg(cfg)


def latest_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """The newest complete checkpoint of a work dir, which may have moved since.

    Args:
        work_dir (str | Path): Folder with the file ``last_checkpoint``.

    Returns:
        str | None: Path of the checkpoint; None if there is none yet.

    Raises:
        UserError: ``last_checkpoint`` names a file that is gone.
    """
    note = Path(work_dir) / 'last_checkpoint'
    if not note.is_file():
        return None
    with parse_errors(f'{note}: it names no checkpoint',
                      'give the checkpoint with --resume PATH, or delete this file'):
        text = note.read_text().strip()
        if not text.isprintable() or not 0 < len(text) < 4096:
            raise ValueError(f'{text!r:.60}')
    named = Path(text)
    for path in (note.parent / named.name, named):
        if path.is_file():
            return str(path)
    raise UserError(f'{note} names {named}, which does not exist; '
                    'give the checkpoint with --resume PATH, or delete the folder to start anew')
