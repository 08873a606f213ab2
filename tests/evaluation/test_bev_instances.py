import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS
from mmdet3d.structures import Det3DDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.evaluation import BEVInstanceMetric
from mmdet3d_plugin.evaluation.bev_instances import match_instances
from mmdet3d_plugin.geometry import BEVGrid, raster

GRID = BEVGrid((-50, 50), (-50, 50), 1.0)


def sample(pred, truth):
    out = Det3DDataSample(metainfo=dict(bev_grid=GRID.asdict()))
    out.pred_bev, out.gt_bev = PixelData(instances=pred), PixelData(instances=truth)
    return out


def evaluate(samples, **kwargs):
    evaluator = Evaluator(METRICS.build(dict(type='BEVInstanceMetric', **kwargs)))
    for s in samples:
        evaluator.process([s])
    return evaluator.evaluate(len(samples))


def maps(**boxes):
    """(1, 100, 100) with ``name=(id, rows, columns)``."""
    out = torch.zeros(1, 100, 100, dtype=torch.int32)
    for number, rows, cols in boxes.values():
        out[0, slice(*rows), slice(*cols)] = number
    return out


TRUTH = maps(a=(5, (50, 52), (50, 53)), b=(2, (55, 57), (50, 52)), c=(9, (0, 1), (0, 1)))
# 4 of a's 6 cells and 1 other; 2 of b's 4 cells: exactly a half; something that is not there
PRED = maps(a=(2, (50, 52), (51, 53)), more=(2, (49, 50), (51, 52)), b=(7, (55, 56), (50, 52)),
            d=(1, (58, 59), (40, 45)))


def test_hand_computed_panoptic_quality():
    assert match_instances(PRED[0], TRUTH[0]).tolist() == [pytest.approx(4 / 7), 1, 2, 2]
    result = evaluate([sample(PRED, TRUTH)], ranges=(100, 50))
    expected = dict(PQ100=100 * 4 / 7 / 3, SQ100=400 / 7, RQ100=100 / 3,
                    PQ50=100 * 4 / 7 / 2.5, SQ50=400 / 7, RQ50=40)     # c is outside of 50 m
    assert result == {f'bev/{key}': pytest.approx(value) for key, value in expected.items()}


def test_numbers_are_names_only():
    renamed = torch.zeros_like(PRED)
    for new, old in enumerate((7, 1, 2), 40):
        renamed[PRED == old] = new * 1000
    assert match_instances(renamed[0], TRUTH[0]).tolist() == match_instances(
        PRED[0], TRUTH[0]).tolist()


def test_truth_as_prediction_is_perfect_and_split_or_joined_instances_are_not():
    boxes = [[10, 5, -1, 4.5, 1.8, 1.5, 0.2], [10, 8, -1, 4.5, 1.8, 1.5, 0.1],
             [-12, 0, -1, 9, 2.5, 3, 2]]
    truth = torch.from_numpy(raster.rasterize(boxes, [0] * 3, GRID, 1)['instances'])
    assert set(evaluate([sample(truth.clone(), truth)] * 2).values()) == {100.0}
    cars = torch.where(truth < 3, truth, 0)
    assert evaluate([sample((cars > 0).int(), cars)], ranges=(100,))['bev/PQ100'] == 0
    half = torch.where(GRID.centers_2d()[..., 1] > 5, 4, truth)
    half[truth == 0] = 0
    assert 0 < evaluate([sample(half, truth)], ranges=(100,))['bev/PQ100'] < 100


def test_convention_instances_are_cut_at_the_border_of_the_square():
    truth = maps(a=(1, (36, 42), (50, 51)))              # two of six cells within 20 m
    pred = maps(a=(1, (40, 42), (50, 51)))
    result = evaluate([sample(pred, truth)], ranges=(100, 20))
    assert (result['bev/PQ100'], result['bev/PQ20']) == (0, 100)


def test_convention_sums_run_over_frames_before_dividing():
    empty = torch.zeros_like(TRUTH)
    result = evaluate([sample(TRUTH, TRUTH), sample(empty, TRUTH)], ranges=(100,))
    assert result == {'bev/PQ100': pytest.approx(300 / 4.5), 'bev/SQ100': 100,
                      'bev/RQ100': pytest.approx(300 / 4.5)}
    for pred in (empty, TRUTH):
        assert np.isnan(list(evaluate([sample(pred, empty)]).values())).all()


def test_convention_several_channels_give_mean_and_each():
    pred, truth = torch.cat([TRUTH, TRUTH * 0]), torch.cat([TRUTH, TRUTH])
    result = evaluate([sample(pred, truth)], ranges=(100,), class_names=('car', 'bus'))
    assert result['bev/PQ100'] == 50
    assert (result['bev/PQ100_car'], result['bev/PQ100_bus']) == (100, 0)


def test_results_do_not_depend_on_how_frames_are_shared_out():
    metric = BEVInstanceMetric()
    metric.process({}, [sample(PRED, TRUTH).to_dict(), sample(TRUTH, TRUTH).to_dict()])
    assert len(metric.results) == 2 and metric.results[0].shape == (3, 1, 4)
    alone = [BEVInstanceMetric(), BEVInstanceMetric()]
    for one, (pred, truth) in zip(alone, ((PRED, TRUTH), (TRUTH, TRUTH))):
        one.process({}, [sample(pred, truth).to_dict()])
    for one, result in zip(alone, metric.results):
        np.testing.assert_array_equal(one.results[0], result)


def test_no_match_can_have_two_partners():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        pred, truth = torch.randint(0, 4, (2, 8, 8), generator=generator)
        iou, hits, alarms, misses = match_instances(pred, truth)
        assert hits + alarms == len(pred.unique()) - 1 and hits + misses == len(truth.unique()) - 1
        assert hits / 2 <= iou <= hits


def test_missing_maps_and_shapes_are_named():
    with pytest.raises(UserError, match='no gt_bev.instances; set RasterizeBEV.instances=True'):
        out = sample(PRED, TRUTH)
        del out.gt_bev.instances
        evaluate([out])
    with pytest.raises(UserError, match='no pred_bev.instances; set model.head.instances=dict'):
        out = sample(PRED, TRUTH)
        del out.pred_bev
        evaluate([out])
    with pytest.raises(UserError, match=r'prediction \(1, 100, 100\) and ground truth \(2, 100'):
        evaluate([sample(PRED, torch.cat([TRUTH, TRUTH]))])
