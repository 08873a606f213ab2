"""Intersection over union of BEV maps."""
from typing import Dict, List, Sequence

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..errors import UserError
from ..geometry import BEVGrid


@METRICS.register_module()
class BEVIoUMetric(BaseMetric):
    """IoU of the segmentation over all frames, in squares around the vehicle.

    Convention: intersections and unions are counted as whole numbers over the data set and divided
    once; an empty union gives 0. With several channels ``IoU<range>`` is their mean, and
    ``IoU<range>_<name>`` each of them.

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

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Append (ranges, K, 2) int64 counts of intersection and union, one array per sample."""
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
            both = torch.stack([pred & truth, pred | truth])
            grid = BEVGrid(**sample['bev_grid'])
            counts = [both[(..., *grid.window(side))].sum((-1, -2)).T for side in self.ranges]
            self.results.append(torch.stack(counts).cpu().numpy())

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """Percentages, one for each range."""
        inter, union = np.moveaxis(np.sum(results, axis=0, dtype=np.int64), -1, 0)
        iou = 100 * inter / np.maximum(union, 1)
        metrics = {}
        for side, values in zip(self.ranges, iou):
            metrics[f'IoU{side:g}'] = float(values.mean())
            if len(values) > 1:
                names = self.class_names or range(len(values))
                metrics |= {f'IoU{side:g}_{n}': float(v) for n, v in zip(names, values)}
        return metrics
