"""Training engine: the Runner of the tools, safe checkpoints, exact resuming, config checks."""
from .amp import BF16OptimWrapper
from .checkpoint_hook import AtomicBackend, SafeCheckpointHook
from .config import check_config, load_config
from .early_stopping_hook import EarlyStoppingHook
from .reproducible import Draw, ReproducibleTrainingHook, ResumableSampler, mix_seed
from .runner import PluginRunner, build_runner, latest_checkpoint
from .scheduler_hook import UpdateSchedulerHook

__all__ = [
    'AtomicBackend', 'BF16OptimWrapper', 'Draw', 'EarlyStoppingHook', 'PluginRunner',
    'ReproducibleTrainingHook', 'ResumableSampler', 'SafeCheckpointHook', 'UpdateSchedulerHook',
    'build_runner', 'check_config', 'latest_checkpoint', 'load_config', 'mix_seed'
]
