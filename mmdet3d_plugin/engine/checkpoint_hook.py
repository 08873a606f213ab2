"""A checkpoint hook that loses nothing to a kill at any moment."""
from collections import deque
from pathlib import Path
from typing import Optional, Union

from mmdet3d.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import IterBasedTrainLoop, Runner

from ..checkpoints import atomic_write, to_plain


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """Local files that are written atomically."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes atomically."""
        with atomic_write(filepath) as file:
            file.write(obj)

    def put_text(self, obj: str, filepath: Union[str, Path], encoding: str = 'utf-8') -> None:
        """Write text atomically."""
        self.put(obj.encode(encoding), filepath)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's checkpoint hook, with atomic writes and without pickled code.

    * files are written atomically; ``last_checkpoint`` names a file only after it is complete,
      and an old file is removed only after that;
    * files hold plain types only and load with ``torch.load(weights_only=True)``;
    * a validation that was due when the run was killed is made up for on resuming.

    Args:
        *args: See :class:`mmengine.hooks.CheckpointHook`.
        backend_args (dict, optional): Where files are written. Defaults to the local atomic one.
        **kwargs: See :class:`mmengine.hooks.CheckpointHook`.
    """

    def __init__(self, *args, backend_args: Optional[dict] = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or dict(backend='atomic'), **kwargs)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replace every object by plain types."""
        checkpoint.update(to_plain(checkpoint))

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder; validate first if the run was killed before it could."""
        super().before_train(runner)
        if runner.val_loop is not None and _validation_is_due(runner.train_loop):
            runner.logger.info('Resumed where a validation was due: validating first.')
            runner.val_loop.run()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
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
        with atomic_write(Path(runner.work_dir) / 'last_checkpoint') as file:
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
