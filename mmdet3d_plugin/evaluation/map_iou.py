"""Intersection over union of overlapping map classes at the best threshold."""
from typing import Dict, List, Sequence

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..errors import UserError
from . import scores


@METRICS.register_module()
class MapIoUMetric(BaseMetric):
    """BEVFusion's metric of map segmentation.

    For each class and threshold ``TP / (TP + FP + FN)`` over the data set; a class's score is the
    best over the thresholds, and ``mean`` the mean of the classes' scores. Percentages.

    Convention: a cell is positive if its probability is at least the threshold. Counts are whole
    numbers; a class without ground truth scores NaN, with a warning, and is not in the mean.

    Args:
        classes (tuple): Names of the channels.
        thresholds (tuple): Of the probability.
    """

    default_prefix = 'map'

    def __init__(self, classes: Sequence[str], thresholds: Sequence[float] = (
            0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65), **kwargs):
        super().__init__(**kwargs)
        self.classes, self.thresholds = tuple(classes), tuple(thresholds)

    def names(self) -> List[str]:
        """Names of the metrics, known without data; those of single thresholds begin with them."""
        return ['mean', *self.classes]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Append (classes, thresholds, 3) int64 counts of TP, FP and FN, one array per sample.

        One for each sample, since distributed evaluation cuts the list to the size of the data set.
        """
        for sample in data_samples:
            for key in ('pred_bev', 'gt_bev'):
                if key not in sample:
                    raise UserError(f'MapIoUMetric: the sample has no {key}; evaluation needs '
                                    'RasterizeMap in the pipeline and a model that predicts a map')
            pred, truth = sample['pred_bev']['seg'].detach(), sample['gt_bev']['seg'] > 0.5
            if pred.shape != truth.shape or len(pred) != len(self.classes):
                raise UserError(
                    f'MapIoUMetric: prediction {tuple(pred.shape)}, ground truth '
                    f'{tuple(truth.shape)} and {len(self.classes)} classes do not fit; the model, '
                    'RasterizeMap and the metric need the same classes and grid')
            truth = truth.to(pred.device).flatten(1)[:, None]
            # the probability decides in its own precision, as thresholds of a float32 map do
            limits = torch.tensor(self.thresholds, dtype=pred.dtype, device=pred.device)
            positive = pred.flatten(1)[:, None] >= limits[:, None]
            counts = [(positive & truth).sum(-1), (positive & ~truth).sum(-1),
                      (~positive & truth).sum(-1)]
            self.results.append(torch.stack(counts, -1).cpu().numpy())

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """``<class>``, ``<class>_<threshold>`` and ``mean``."""
        counts = np.sum(results, axis=0, dtype=np.int64)
        hits, _, misses = np.moveaxis(counts, -1, 0)
        iou = scores.ratio(hits, counts.sum(-1), hits + misses)
        metrics = dict(mean=scores.mean(iou.max(1)))
        for name, values in zip(self.classes, iou):
            metrics[name] = float(values.max())
            metrics |= {f'{name}_{t:.2f}': float(v) for t, v in zip(self.thresholds, values)}
        scores.warn_without_truth('MapIoUMetric', metrics, self.classes)
        return metrics
