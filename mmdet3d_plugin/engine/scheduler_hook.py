"""Learning rates under gradient accumulation."""
from mmdet3d.registry import HOOKS
from mmengine.hooks import ParamSchedulerHook

from .resuming import say_end_of_schedule


@HOOKS.register_module()
class UpdateSchedulerHook(ParamSchedulerHook):
    """mmengine's hook, but the schedulers count optimiser updates instead of batches.

    With ``optim_wrapper.accumulative_counts = n`` one update takes n iterations; a schedule of N
    updates then has ``total_steps`` about N and ``train_cfg.max_iters`` n N.
    """

    def before_train(self, runner) -> None:
        """Say so where the schedule ends before the training."""
        super().before_train(runner)
        say_end_of_schedule(runner)

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        """Step where the optimiser stepped."""
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, *args, **kwargs)
