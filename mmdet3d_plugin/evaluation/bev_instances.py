"""Panoptic quality of instances on BEV maps."""
from typing import Dict, List, Sequence

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ..errors import UserError
from ..geometry import BEVGrid
from . import scores


def match_instances(pred: Tensor, truth: Tensor) -> np.ndarray:
    """Match two maps of instances: a pair with IoU > 0.5 is a match, and no instance has two.

    Args:
        pred, truth (Tensor): (R, C) int, 0 = none, equal numbers = one instance.

    Returns:
        np.ndarray: (4,) float64: sum of the matches' IoU, matches, false alarms, misses.
    """
    pred, truth = _numbered(pred), _numbered(truth)
    columns = int(pred.max()) + 1
    both = torch.bincount(truth * columns + pred, minlength=columns * (int(truth.max()) + 1))
    both = both.reshape(-1, columns)
    inter = both[1:, 1:]
    union = both.sum(1)[1:, None] + both.sum(0)[1:] - inter
    match = 2 * inter > union
    iou = (inter[match].double() / union[match]).sum().item()
    hits = int(match.sum())
    return np.array([iou, hits, inter.shape[1] - hits, inter.shape[0] - hits], np.float64)


def _numbered(instances: Tensor) -> Tensor:
    """Numbers 0, 1, 2, ... without gaps, flat; 0 stays none."""
    flat = instances.flatten().long()
    return torch.cat([flat.new_zeros(1), flat]).unique(return_inverse=True)[1]


@METRICS.register_module()
class BEVInstanceMetric(BaseMetric):
    """Panoptic quality of instances, in squares around the vehicle.

    ``PQ = SQ * RQ``, with the mean IoU of the matches ``SQ = sum(IoU) / TP`` and
    ``RQ = TP / (TP + FP / 2 + FN / 2)``; a match has an IoU above 0.5.

    Convention: instances are cut at the border of each square, and what lies inside counts as an
    instance, however small. Counts are summed over the data set and divided once; without
    instances in the ground truth all three are NaN, with a warning. With several channels
    ``PQ<range>`` is the mean of those with ground truth, and ``PQ<range>_<name>`` each of them.

    Args:
        ranges (tuple): Sides of the squares, metres, centred on the LiDAR.
        class_names (tuple, optional): Names of the channels, default their numbers.
    """

    default_prefix = 'bev'

    def __init__(self, ranges: Sequence[float] = (100, 50, 20),
                 class_names: Sequence[str] = None, **kwargs):
        super().__init__(**kwargs)
        self.ranges, self.class_names = tuple(ranges), class_names

    def names(self) -> List[str]:
        """Names of the metrics, known without data; those of single channels begin with them."""
        return [f'{name}{side:g}' for side in self.ranges for name in ('PQ', 'SQ', 'RQ')]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Append (ranges, K, 4) float64 of :func:`match_instances`, one array per sample."""
        for sample in data_samples:
            pred, truth = self._maps(sample)
            grid = BEVGrid(**sample['bev_grid'])
            windows = [grid.window(side) for side in self.ranges]
            self.results.append(np.array([
                [match_instances(p[window], t[window]) for p, t in zip(pred, truth)]
                for window in windows]))

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """Percentages, three for each range."""
        iou, hits, alarms, misses = np.moveaxis(np.sum(results, axis=0), -1, 0)
        truth = hits + misses
        quality = {'PQ': (iou, hits + alarms / 2 + misses / 2), 'SQ': (iou, hits),
                   'RQ': (hits, hits + alarms / 2 + misses / 2)}
        metrics = {}
        for n, side in enumerate(self.ranges):
            for name, (part, whole) in quality.items():
                values = scores.ratio(part[n], whole[n], truth[n])
                metrics[f'{name}{side:g}'] = scores.mean(values)
                if len(values) > 1:
                    names = self.class_names or range(len(values))
                    metrics |= {f'{name}{side:g}_{c}': float(v) for c, v in zip(names, values)}
        scores.warn_without_truth('BEVInstanceMetric', metrics, list(metrics))
        return metrics

    @staticmethod
    def _maps(sample):
        for key, cure in (('pred_bev', "model.head.instances=dict(type='CenterGrouping')"),
                          ('gt_bev', 'RasterizeBEV(instances=True)')):
            if key not in sample or 'instances' not in sample[key]:
                raise UserError(f'BEVInstanceMetric: the sample has no {key}.instances; set {cure}')
        pred, truth = (sample[key]['instances'] for key in ('pred_bev', 'gt_bev'))
        if pred.shape != truth.shape:
            raise UserError(f'BEVInstanceMetric: prediction {tuple(pred.shape)} and ground truth '
                            f'{tuple(truth.shape)} differ in shape; the model and RasterizeBEV '
                            'need the same grid and classes')
        return pred, truth.to(pred.device)
