"""Scores from counts; without ground truth there is none."""
import logging
from typing import Dict, Sequence

import numpy as np
from mmengine.logging import print_log


def ratio(part, whole, truth) -> np.ndarray:
    """``100 part / whole``, NaN where there is no ground truth.

    Args:
        part, whole: Counts.
        truth: Number of cells or instances of the ground truth, of the same shape.
    """
    scores = 100 * np.asarray(part, np.float64) / np.maximum(whole, 0.5)
    return np.where(np.asarray(truth) > 0, scores, np.nan)


def mean(scores: np.ndarray) -> float:
    """Mean of those that have ground truth; NaN if none has."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else float('nan')


def warn_without_truth(metric: str, metrics: Dict[str, float], names: Sequence[str]) -> None:
    """Log which of the metrics are NaN, and that nothing at all can be scored if all are."""
    missing = [name for name in names if np.isnan(metrics[name])]
    if missing:
        what = 'nothing to score' if len(missing) == len(names) else (
            f'no score for {", ".join(missing)}')
        print_log(f'{metric}: no ground truth: {what}. The test data have no object or area there; '
                  'is it a split without annotations?', 'current', logging.WARNING)
