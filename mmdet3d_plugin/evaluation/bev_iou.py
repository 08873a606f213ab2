"""Intersection over union of BEV maps."""
from typing import Dict, List, Sequence

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..errors import UserError
from ..geometry import BEVGrid
from . import scores


@METRICS.register_module()
class BEVIoUMetric(BaseMetric):
    """IoU of the segmentation over all frames, in squares around the vehicle.

    Convention: intersections and unions are counted as whole numbers over the data set and divided
    once; without ground truth the score is NaN, with a warning. With several channels
    ``IoU<range>`` is the mean of those with ground truth, and ``IoU<range>_<name>`` each of them.

    Args:
        ranges (tuple): Sides of the squares, metres, centred on the LiDAR.
        threshold (float): A cell is positive if its probability is at least the threshold.
        strict (bool): A probability equal to the threshold is negative, as in the release of
            KD360-VoxelBEV, which rounds half to even. Defaults to False.
        class_names (tuple, optional): Names of the channels, default their numbers.
    """

    default_prefix = 'bev'

    def __init__(self, ranges: Sequence[float] = (100, 50, 20), threshold: float = 0.5,
                 class_names: Sequence[str] = None, strict: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.ranges, self.threshold, self.class_names = tuple(ranges), threshold, class_names
        self.is_positive = torch.gt if strict else torch.ge

    def names(self) -> List[str]:
        """Names of the metrics, known without data; those of single channels begin with them."""
        return [f'IoU{side:g}' for side in self.ranges]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Append (ranges, K, 3) int64 cells of intersection, union and truth, an array a sample."""
        for sample in data_samples:
            for key in ('pred_bev', 'gt_bev', 'bev_grid'):
                if key not in sample:
                    raise UserError(f'BEVIoUMetric: the sample has no {key}; evaluation needs '
                                    'RasterizeBEV in the pipeline and a model that predicts a map')
            pred = self.is_positive(sample['pred_bev']['seg'].detach(), self.threshold)
            truth = sample['gt_bev']['seg'].to(pred.device) > 0.5
            if pred.shape != truth.shape:
                raise UserError(f'BEVIoUMetric: prediction {tuple(pred.shape)} and ground truth '
                                f'{tuple(truth.shape)} differ in shape; the model and RasterizeBEV '
                                'need the same grid and classes')
            both = torch.stack([pred & truth, pred | truth, truth])
            grid = BEVGrid(**sample['bev_grid'])
            counts = [both[(..., *grid.window(side))].sum((-1, -2)).T for side in self.ranges]
            self.results.append(torch.stack(counts).cpu().numpy())

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """Percentages, one for each range."""
        inter, union, truth = np.moveaxis(np.sum(results, axis=0, dtype=np.int64), -1, 0)
        metrics = {}
        for side, values in zip(self.ranges, scores.ratio(inter, union, truth)):
            metrics[f'IoU{side:g}'] = scores.mean(values)
            if len(values) > 1:
                names = self.class_names or range(len(values))
                metrics |= {f'IoU{side:g}_{n}': float(v) for n, v in zip(names, values)}
        scores.warn_without_truth('BEVIoUMetric', metrics, list(metrics))
        return metrics
