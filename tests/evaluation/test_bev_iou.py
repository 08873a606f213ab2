from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS
from mmdet3d.structures import Det3DDataSample
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub, MMLogger
from mmengine.structures import PixelData

from mmdet3d_plugin.engine.checkpoint_hook import SafeCheckpointHook
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


@pytest.mark.parametrize('pred', [0.0, 1.0])
def test_convention_no_truth_is_no_score(pred, capsys):
    """Whether something is predicted or not, and never 0."""
    truth = (torch.rand(1, 100, 100) > 0.8).float()
    assert set(evaluate([sample(truth, truth)]).values()) == {100.0}
    MMLogger.get_instance('truth')
    result = evaluate([sample(torch.full((1, 100, 100), pred), torch.zeros(1, 100, 100))])
    assert list(result) == ['bev/IoU100', 'bev/IoU50', 'bev/IoU20']
    assert np.isnan(list(result.values())).all()
    assert 'WARNING' in (said := ''.join(capsys.readouterr())) and (
        'BEVIoUMetric: no ground truth: nothing to score' in said)


def test_convention_a_range_or_class_without_truth_is_in_no_mean(capsys):
    MMLogger.get_instance('part')
    near, far = maps((0, 0, 1), (50, 50, 1)), maps((0, 0, 1))
    assert evaluate([sample(near, far)], ranges=(100, 20)) == {
        'bev/IoU100': 50.0, 'bev/IoU20': pytest.approx(float('nan'), nan_ok=True)}
    assert 'no ground truth: no score for IoU20' in ''.join(capsys.readouterr())
    result = evaluate([sample(torch.cat([far, near]), torch.cat([far, far * 0]))], ranges=(100, ))
    assert result['bev/IoU100'] == result['bev/IoU100_0'] == 100.0
    assert np.isnan(result['bev/IoU100_1'])


def test_no_truth_is_never_a_best_checkpoint():
    """A validation without ground truth leaves the best checkpoint as it was."""
    hook = SafeCheckpointHook(interval=1, save_best='bev/IoU100', rule='greater')
    hub = MessageHub.get_instance('best')
    runner = SimpleNamespace(epoch=1, iter=1, message_hub=hub, model=torch.nn.Linear(1, 1))
    hook._save_best_checkpoint(runner, {'bev/IoU100': float('nan')})
    assert 'best_score' not in hub.runtime_info and not hook.best_ckpt_path


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
    ones = np.full((1, 1, 3), 2 ** 40, np.int64)
    metric = BEVIoUMetric(ranges=(100,))
    assert metric.compute_metrics([ones, ones + [0, 2, 2]]) == {
        'IoU100': pytest.approx(100 * 2 ** 41 / (2 ** 41 + 2), abs=1e-12)}


def test_missing_maps_and_shapes_are_named():
    good = sample(maps(), maps())
    del good.gt_bev
    with pytest.raises(UserError, match='has no gt_bev; evaluation needs RasterizeBEV'):
        evaluate([good])
    with pytest.raises(UserError, match=r'prediction \(1, 100, 100\) and ground truth \(2, 100'):
        evaluate([sample(maps(), torch.zeros(2, 100, 100))])
