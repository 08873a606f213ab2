import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS
from mmdet3d.structures import Det3DDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.evaluation import BEVIoUMetric
from mmdet3d_plugin.geometry import BEVGrid

GRID = BEVGrid((-50, 50), (-50, 50), 1.0)


def sample(pred, truth, grid=GRID):
    out = Det3DDataSample(metainfo=dict(bev_grid=grid.asdict()))
    out.pred_bev, out.gt_bev = PixelData(seg=pred), PixelData(seg=truth)
    return out


def evaluate(samples, **kwargs):
    evaluator = Evaluator(METRICS.build(dict(type='BEVIoUMetric', **kwargs)))
    for s in samples:
        evaluator.process([s])
    assert len(evaluator.metrics[0].results) == len(samples)
    assert all(r.dtype == np.int64 for r in evaluator.metrics[0].results)
    return evaluator.evaluate(len(samples))


def maps(*cells):
    out = torch.zeros(1, 100, 100)
    for row, col, value in cells:
        out[0, row, col] = value
    return out


def test_convention_counts_are_summed_over_frames_before_dividing():
    near, far = (50, 50), (0, 0)
    a = sample(maps((*near, .9), (*far, .9)), maps((*near, 1)))
    b = sample(maps((*near, .4)), maps((*near, 1), (*far, 1)))
    result = evaluate([a, b])
    # 100 m: intersection 1, union 2 + 2; 50 and 20 m see only the near cell: 1 of 2
    assert result == {'bev/IoU100': 25.0, 'bev/IoU50': 50.0, 'bev/IoU20': 50.0}


def test_windows_are_centred_squares():
    inside, outside = (40, 59), (39, 59)          # rows 40..59 are the inner 20 m
    pred = maps((*inside, 1), (*outside, 1))
    result = evaluate([sample(pred, maps((*inside, 1)))], ranges=(20, 24))
    assert result == {'bev/IoU20': 100.0, 'bev/IoU24': 50.0}


def test_convention_an_empty_union_is_zero():
    truth = (torch.rand(1, 100, 100) > 0.8).float()
    assert set(evaluate([sample(truth, truth)]).values()) == {100.0}
    empty = torch.zeros(1, 100, 100)
    assert set(evaluate([sample(empty, empty)]).values()) == {0.0}


@pytest.mark.parametrize('strict, iou', [(False, 100.0), (True, 0.0)])
def test_exactly_half_is_positive_but_in_the_release_of_kd360(strict, iou):
    half = sample(maps((50, 50, .5)), maps((50, 50, 1)))
    assert evaluate([half], ranges=(100,), strict=strict) == {'bev/IoU100': iou}
    logits = torch.tensor([0.0, 1e-6, -1e-6])
    if strict:  # the release's prediction
        assert (logits.sigmoid().round() == 1).tolist() == (logits.sigmoid() > 0.5).tolist()


def test_convention_several_channels_give_mean_and_each():
    pred, truth = torch.zeros(2, 100, 100), torch.zeros(2, 100, 100)
    pred[0, :10], truth[0, :10] = 1, 1
    truth[1, :10] = 1
    result = evaluate([sample(pred, truth)], ranges=(100,), class_names=('car', 'bus'))
    assert result == {'bev/IoU100': 50.0, 'bev/IoU100_car': 100.0, 'bev/IoU100_bus': 0.0}


def test_counts_do_not_overflow_or_round():
    ones = np.full((1, 1, 2), 2 ** 40, np.int64)
    metric = BEVIoUMetric(ranges=(100,))
    assert metric.compute_metrics([ones, ones + [0, 2]]) == {
        'IoU100': pytest.approx(100 * 2 ** 41 / (2 ** 41 + 2), abs=1e-12)}


def test_missing_maps_and_shapes_are_named():
    good = sample(maps(), maps())
    del good.gt_bev
    with pytest.raises(UserError, match='has no gt_bev; evaluation needs RasterizeBEV'):
        evaluate([good])
    with pytest.raises(UserError, match=r'prediction \(1, 100, 100\) and ground truth \(2, 100'):
        evaluate([sample(maps(), torch.zeros(2, 100, 100))])
