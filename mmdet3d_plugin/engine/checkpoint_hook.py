"""A checkpoint hook that loses nothing to a kill at any moment, nor to weights that turn NaN."""
import math
from collections import deque
from pathlib import Path
from typing import Dict, Optional, Union

from mmdet3d.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from ..checkpoints import atomic_write, to_plain
from ..errors import UserError
from .runner import latest_checkpoint

_AGAIN = 'run the same command again with --resume'
SKIPPED_STEPS = 10
"""Losses in a row that may be infinite or NaN under loss scaling, which skips such updates."""


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """Local files that are written atomically."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes atomically."""
        with atomic_write(filepath, _AGAIN) as file:
            file.write(obj)

    def put_text(self, obj: str, filepath: Union[str, Path], encoding: str = 'utf-8') -> None:
        """Write text atomically."""
        self.put(obj.encode(encoding), filepath)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's checkpoint hook, with atomic writes and without pickled code.

    * files are written atomically; ``last_checkpoint`` names a file only after it is complete,
      and an old file, the former best one too, is removed only after that;
    * files hold plain types only and load with ``torch.load(weights_only=True)``;
    * a validation that was due when the run was killed is made up for on resuming;
    * the training stops where its loss or its weights are not finite any more, and such weights are
      never saved; with ``keep_going=True`` in the config it goes on, and only warns.

    Args:
        *args: See :class:`mmengine.hooks.CheckpointHook`.
        backend_args (dict, optional): Where files are written. Defaults to the local atomic one.
        **kwargs: See :class:`mmengine.hooks.CheckpointHook`.
    """

    def __init__(self, *args, backend_args: Optional[dict] = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or dict(backend='atomic'), **kwargs)
        self._wrong_losses, self._warned = 0, False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replace every object by plain types."""
        checkpoint.update(to_plain(checkpoint))

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder; validate first if the run was killed before it could."""
        super().before_train(runner)
        if runner.val_loop is not None and _validation_is_due(runner.train_loop):
            runner.logger.info('Resumed where a validation was due: validating first.')
            runner.val_loop.run()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None,
                         outputs: Optional[dict] = None) -> None:
        """Stop where the loss is not finite; save where it is time to."""
        self._check_loss(runner, outputs or {})
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def _check_loss(self, runner: Runner, outputs: dict) -> None:
        """Check the losses that were read for the log: no value of the device is read for it."""
        logged = runner.message_hub.log_scalars
        losses = {name: logged[f'train/{name}'].current() for name in outputs
                  if 'loss' in name and f'train/{name}' in logged}
        wrong = [f'{name} is {value:g}' for name, value in losses.items()
                 if not math.isfinite(value)]
        self._wrong_losses = self._wrong_losses + 1 if wrong else 0
        if self._wrong_losses > (SKIPPED_STEPS if hasattr(
                runner.optim_wrapper, 'loss_scaler') else 0):
            self._stop(runner, ', '.join(wrong), runner.iter + 1)

    def _may_save(self, runner: Runner, step: int) -> bool:
        """Whether the weights are finite; the training stops where they are not."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        wrong = [name for name, value in model.state_dict().items()
                 if value.is_floating_point() and not value.isfinite().all()]
        if wrong:
            self._stop(runner, f'{len(wrong)} weights have NaN or infinite values, such as '
                       f'{wrong[0]}', step)
        return not wrong

    def _stop(self, runner: Runner, what: str, step: int) -> None:
        """Raise an error that says how to go on, or warn once where the training is to go on."""
        if runner.cfg.get('keep_going', False):
            if not self._warned:
                runner.logger.warning(f'iteration {step}: {what}; the training goes on '
                                      '(--keep-going), and saves finite weights only')
            self._warned = True
            return
        last = latest_checkpoint(runner.work_dir)
        remedy = ('lower the learning rate, or clip the gradients (--cfg-options '
                  'optim_wrapper.clip_grad.max_norm=5)')
        raise UserError(
            f'iteration {step}: {what}; the training stops. ' +
            (f'{last} has the last finite weights: {remedy}, and go on from it with the same '
             'command and --resume --extend' if last else
             f'No checkpoint was saved before: {remedy}, and start again') +
            '; --keep-going trains on regardless')

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the best checkpoint; the former one is removed when the new one is on the disk."""
        if not self.save_best or not self._may_save(runner, runner.iter):
            return
        former = self._best_paths()
        self._set_best_paths(dict.fromkeys(former))  # mmengine removes them before it saves
        super()._save_best_checkpoint(runner, metrics)
        paths = self._best_paths()
        self._set_best_paths({key: path or former[key] for key, path in paths.items()})
        if not is_main_process():
            return
        for key, path in former.items():
            if path and paths[key] and path not in paths.values() and self.file_backend.isfile(
                    path):
                self.file_backend.remove(path)
                runner.logger.info(f'The previous best checkpoint {path} is removed')

    def _best_paths(self) -> Dict[str, Optional[str]]:
        """Of the best checkpoint so far, by metric."""
        single = len(self.key_indicators) == 1
        return {'': self.best_ckpt_path} if single else dict(self.best_ckpt_path_dict)

    def _set_best_paths(self, paths: Dict[str, Optional[str]]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths['']
        else:
            self.best_ckpt_path_dict = paths

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not self._may_save(runner, meta['iter']):
            return
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        retired = []
        if self.max_keep_ckpts > 0:
            steps = [kept for kept in self.keep_ckpt_ids if kept != step] + [step]
            retired = steps[:-self.max_keep_ckpts]
            self.keep_ckpt_ids = deque(steps[-self.max_keep_ckpts:], self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir, name, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
            backend_args=self.backend_args, **self.args)
        if not is_main_process():
            return
        with atomic_write(Path(runner.work_dir) / 'last_checkpoint', _AGAIN) as file:
            file.write(self.last_ckpt.encode())
        for old in retired:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)


def _validation_is_due(loop) -> bool:
    """Whether the train loop, at the step where it stands, would have validated just before."""
    by_iter = isinstance(loop, IterBasedTrainLoop)
    step, last = (loop.iter, loop.max_iters) if by_iter else (loop.epoch, loop.max_epochs)
    return step >= max(loop.val_begin, 1) and (step % loop.val_interval == 0 or step == last)
