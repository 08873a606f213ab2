"""Early stopping that does not count validations without a score."""
import logging
import math
from typing import Dict, Optional

from mmdet3d.registry import HOOKS
from mmengine.hooks import EarlyStoppingHook as _EarlyStoppingHook
from mmengine.logging import print_log
from mmengine.runner import Runner


@HOOKS.register_module()
class EarlyStoppingHook(_EarlyStoppingHook):
    """mmengine's, for metrics that are NaN where the validation data have no ground truth.

    mmengine's stops there (``check_finite=True``), or takes NaN for the best score.
    """

    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        """Compare the metric with the best one so far, unless it is NaN."""
        if math.isnan((metrics or {}).get(self.monitor, 0)):
            print_log(f'EarlyStoppingHook: {self.monitor} is NaN (no ground truth): this '
                      'validation does not count', 'current', logging.WARNING)
            return
        super().after_val_epoch(runner, metrics)
