"""What a resumed run takes from its checkpoint and what from its config."""
import copy
import warnings
from typing import Dict, List, Mapping, Tuple

from mmengine.runner import Runner

from ..errors import UserError
from .config_text import read_config_text
from .options import MISSING, differences

_FROM_CHECKPOINT = ('optim_wrapper.optimizer.', 'optim_wrapper.paramwise_cfg.', 'param_scheduler.',
                    'randomness.seed')
_OF_THE_RUN = ('extend', 'keep_going', 'launcher', 'load_from', 'log_level', 'resume', 'work_dir',
               'experiment_name')
_SHOWN = 12


def compare_configs(stored: Mapping, cfg: Mapping, keys) -> Tuple[Dict, Dict]:
    """What differs between the config of a checkpoint and today's.

    Args:
        stored, cfg (Mapping): The checkpoint's config and today's.
        keys (Container): The top-level keys to compare; others are variables of config files.

    Returns:
        tuple: by entry ``(stored value, today's value)``, of the settings that a resumed run takes
        from the checkpoint, and of those that it takes from today's config.
    """
    stored, cfg = ({key: value for key, value in config.items()
                    if key in keys and key not in _OF_THE_RUN} for config in (stored, cfg))
    ignored, used = {}, {}
    for key, values in differences(stored, cfg).items():
        (ignored if key.startswith(_FROM_CHECKPOINT) else used)[key] = values
    return ignored, used


def say_differences(runner: Runner, checkpoint: Mapping, source: str, keys) -> None:
    """Log what a resumed run does differently from the run of its checkpoint, with both values.

    Raises:
        UserError: Optimiser or schedulers are of other types: their state does not fit.
    """
    text = checkpoint.get('meta', {}).get('cfg')
    stored = read_config_text(text, source) if isinstance(text, str) else {}
    if not stored.get('optim_wrapper') or not runner.cfg.get('optim_wrapper'):
        return  # a Runner that was built in Python, without a whole config
    ignored, used = compare_configs(stored, runner.cfg, keys)
    extend = runner.cfg.get('extend', False)
    kinds = [key for key in ignored if key.endswith('.type')
             and (key.startswith('optim_wrapper') or not extend)]
    if kinds:
        raise UserError(
            f'{source}: its training cannot go on with another {describe(ignored, kinds)}; start '
            f'anew from its weights in another --work-dir: --cfg-options load_from={source}, '
            'without --resume' +
            ('' if extend else ', or follow the config\'s schedule with --extend'))
    if ignored and extend:
        runner.logger.info(f'--extend: from now on as the config says: {describe(ignored)}')
    elif ignored:
        runner.logger.warning(
            'Resumed: learning rate, schedule and settings of the optimizer come from the '
            'checkpoint, so these differences of the config have no effect: '
            f'{describe(ignored)}. To follow the config from this step on, add --extend; to start '
            f'anew from the weights, use --cfg-options load_from={source} without --resume, in '
            'another --work-dir')
    for key in ('train_cfg.max_iters', 'train_cfg.max_epochs'):
        before, now = used.get(key, (0, 0))
        if not extend and isinstance(before, int) and isinstance(now, int) and now > before:
            runner.logger.warning(
                f'{key} {before} -> {now}: the schedule was made for {before}; the learning rate '
                'stays as it is from there on. To follow the schedule of the config, add --extend')
    if used:
        runner.logger.warning(
            f'Resumed with another config than its checkpoint\'s; from now on: {describe(used)}')


def describe(found: Mapping, keys=None) -> str:
    """The first differences of :func:`compare_configs` in one line, with both values."""
    keys = list(found if keys is None else keys)
    words = [f'{key} {_short(found[key][0])} -> {_short(found[key][1])}' for key in keys[:_SHOWN]]
    more = len(keys) - len(words)
    return ', '.join(words) + (f' and {more} more' if more else '')


def _short(value) -> str:
    text = value if value is MISSING else repr(value)
    return text if len(text) <= 60 else text[:57] + '...'


def check_optimizer_state(runner: Runner, state: Mapping, source: str, built: Mapping) -> None:
    """Check that the optimiser of the config can go on with the state of a checkpoint.

    Args:
        runner (Runner): For its config.
        state (Mapping): The optimiser's, of the checkpoint.
        source (str): The checkpoint, for the error.
        built (Mapping): State of the optimiser that the config builds.

    Raises:
        UserError: Kind, number or sizes of the parameter groups differ, or a value that today's
            settings need is not in the state.
    """
    if 'param_groups' not in state or 'param_groups' not in built:
        return  # several optimisers
    theirs, ours = state['param_groups'], built['param_groups']
    sizes = [[len(group['params']) for group in groups] for groups in (theirs, ours)]
    problem = ''
    unknown = sorted(key for key in set(ours[0]) - set(theirs[0]) - {'initial_lr'}
                     if isinstance(ours[0][key], (float, tuple)))  # versions of torch add switches
    if unknown:
        problem = (f'is of another kind: it has no {", ".join(unknown)}, which '
                   f'{runner.cfg.optim_wrapper.optimizer.type} needs')
    elif sizes[0] != sizes[1]:
        problem = (f'has other parameter groups, of {_counts(sizes[0])} parameters; those of the '
                   f'config have {_counts(sizes[1])} (paramwise_cfg, frozen parts)')
    elif runner.cfg.get('extend') and any(group.get('amsgrad') for group in ours) and not all(
            group.get('amsgrad') for group in theirs):
        problem = 'is without amsgrad, which --extend would switch on'
    if problem:
        raise UserError(
            f'{source}: the state of its optimizer {problem}; resume with the config that trained '
            'it, or start anew from its weights in another --work-dir: --cfg-options '
            f'load_from={source}, without --resume')


def _counts(sizes: List[int]) -> str:
    shown = ', '.join(map(str, sizes[:_SHOWN]))
    return shown if len(sizes) <= _SHOWN else f'{shown} ... ({len(sizes)} groups)'


def hyperparameters(runner: Runner) -> List[dict]:
    """Of the optimiser's parameter groups: learning rates, weight decays and the like."""
    return [{key: copy.copy(value) for key, value in group.items() if key != 'params'}
            for group in runner.optim_wrapper.param_groups]


def follow_config(runner: Runner, groups: List[dict]) -> None:
    """After the state was loaded, go on with the config's settings at the step that was reached.

    Args:
        runner (Runner): Resumed, but for its schedulers, which are new.
        groups (list[dict]): Its :func:`hyperparameters` as the config made them.
    """
    for group, own in zip(runner.optim_wrapper.param_groups, groups):
        group.update(own)
    updates = runner.iter // getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # schedulers that step before the optimiser does
        for scheduler in runner.param_schedulers or ():
            for _ in range(runner.epoch if scheduler.by_epoch else updates):
                scheduler.step()


def say_end_of_schedule(runner: Runner) -> None:
    """Log it where the learning rate's schedule ends before the training does."""
    loop, wrapper = runner.train_loop, runner.optim_wrapper
    updates = loop.max_iters // getattr(wrapper, '_accumulative_counts', 1)
    ends = {}
    for scheduler in runner.param_schedulers or ():
        length = getattr(scheduler, 'total_steps', None) or getattr(scheduler, 'T_max', None)
        if length and scheduler.param_name == 'lr':
            end = scheduler.begin + length
            ends[scheduler.by_epoch] = max(end, ends.get(scheduler.by_epoch, 0))
    for by_epoch, end in ends.items():
        last = loop.max_epochs if by_epoch else updates
        if end < last:
            unit = 'epoch' if by_epoch else 'step'
            runner.logger.warning(
                f'The schedule of the learning rate ends at {unit} {end}, the training at {last}: '
                'what follows is not scheduled. Let param_scheduler (total_steps, T_max, end) '
                'cover train_cfg; a resumed run has the schedule of its checkpoint unless '
                '--extend is given')
