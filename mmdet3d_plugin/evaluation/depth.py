"""Errors of predicted depths at the points of a scan."""
from typing import Dict, List, Sequence, Tuple

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..errors import UserError
from . import scores

_NAMES = ('AbsRel', 'SqRel', 'RMSE', 'RMSElog', 'delta1', 'delta2', 'delta3')


@METRICS.register_module()
class DepthMetric(BaseMetric):
    """Depth errors of each camera over all frames, and their mean over the cameras.

    With the ground truth g and the prediction p of the features that a point of the scan is seen
    in: ``AbsRel`` mean ``|p - g| / g``, ``SqRel`` mean ``(p - g)^2 / g``, ``RMSE`` root of the mean
    ``(p - g)^2``, ``RMSElog`` that of ``(ln p - ln g)^2``, ``deltaK`` the share with
    ``max(p / g, g / p) < 1.25^K``. Names such as ``AbsRel_CAM_FRONT`` are of one camera, and
    ``AbsRel_std`` is the sample standard deviation over the cameras. Nothing is rescaled.

    A camera without points has NaN, and does not count in the mean. ``pred_depth`` and ``gt_depth``
    of a sample are filled by ``DepthLoss(predict=True)``; the test pipeline loads the scan.

    Args:
        max_depth (float): Points further away do not count, metres.
        min_depth (float): Nor do nearer ones.
        **kwargs: See mmengine's ``BaseMetric``.
    """

    default_prefix = 'depth'

    def __init__(self, max_depth: float = 80.0, min_depth: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= min_depth < max_depth:
            raise UserError(f'DepthMetric: expected 0 <= min_depth < max_depth, got {min_depth} '
                            f'and {max_depth}')
        self.range = min_depth, max_depth

    def names(self) -> List[str]:
        """Names of the metrics, known without data; those of single cameras begin with them."""
        return [*_NAMES, 'AbsRel_std']

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Append names of the cameras and (N, 8) float64 sums of each, the last one the number."""
        for sample in data_samples:
            for key in ('pred_depth', 'gt_depth'):
                if key not in sample:
                    raise UserError(f'DepthMetric: the sample has no {key}; set predict=True of '
                                    'the model\'s DepthLoss, and put LoadPointCloud and "points" '
                                    'into the test pipeline')
            names = [camera['name'] for camera in sample['cameras'] if not camera.get('time', 0)]
            truth, found = (sample[key].double() for key in ('gt_depth', 'pred_depth'))
            self.results.append((names, _sums(found, truth, self.range)))

    def compute_metrics(self, results: List[tuple]) -> Dict[str, float]:
        """Errors, and shares between 0 and 1."""
        totals: Dict[str, np.ndarray] = {}
        for names, sums in results:
            for name, own in zip(names, sums):
                totals[name] = totals.get(name, 0) + own
        table = {name: _errors(own) for name, own in totals.items()}
        values = np.array(list(table.values())).reshape(-1, len(_NAMES))
        metrics = {name: scores.mean(column) for name, column in zip(_NAMES, values.T)}
        known = values[~np.isnan(values[:, 0]), 0]
        metrics['AbsRel_std'] = float(known.std(ddof=1)) if len(known) > 1 else float('nan')
        scores.warn_without_truth('DepthMetric', metrics, _NAMES)
        return metrics | {f'{name}_{camera}': float(value) for camera, row in table.items()
                          for name, value in zip(_NAMES, row)}


def _sums(found: torch.Tensor, truth: torch.Tensor, limits: Tuple[float, float]) -> np.ndarray:
    """(N, h, w) maps to (N, 8) sums over the features with a point."""
    known = (truth > 0) & (truth >= limits[0]) & (truth <= limits[1])
    truth, found = truth.where(known, 1.0), found.where(known, 1.0).clamp_min(1e-3)
    error, ratio = found - truth, torch.maximum(found / truth, truth / found)
    terms = [error.abs() / truth, error**2 / truth, error**2, (found.log() - truth.log())**2,
             *((ratio < 1.25**k).double() for k in (1, 2, 3)), torch.ones_like(truth)]
    return torch.stack([(term * known).sum((-1, -2)) for term in terms], -1).cpu().numpy()


def _errors(sums: np.ndarray) -> np.ndarray:
    if not sums[-1]:
        return np.full(len(_NAMES), np.nan)
    means = sums[:-1] / sums[-1]
    means[2:4] **= 0.5
    return means
