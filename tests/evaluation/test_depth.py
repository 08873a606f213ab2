"""Depth errors."""
import math

import numpy as np
import pytest
import torch

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.evaluation import DepthMetric

FOUND, TRUTH = (10.0, 22, 30, 70), (9.0, 20, 40, 60)


def sample(found, truth, names):
    return dict(pred_depth=torch.tensor(found), gt_depth=torch.tensor(truth),
                cameras=[dict(name=name, time=time) for time in (0, 1) for name in names])


def evaluate(*samples, **kwargs):
    metric = DepthMetric(**kwargs)
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_errors_of_four_depths():
    found = evaluate(sample([[[*FOUND, 5.0]]], [[[*TRUTH, 0.0]]], ['a']))
    expected = dict(AbsRel=0.1569445, SqRel=1.1194445, RMSE=7.1589107, RMSElog=0.1779805,
                    delta1=0.75, delta2=1.0, delta3=1.0)
    assert {name: found[f'depth/{name}'] for name in expected} == pytest.approx(expected, abs=5e-7)
    assert {name: found[f'depth/{name}_a'] for name in expected} == pytest.approx(
        expected, abs=5e-7)
    assert math.isnan(found['depth/AbsRel_std'])


def test_cameras_count_alike_however_many_points_they_see():
    """Two frames; 10 % and 30 % too far."""
    one = sample([[[11.0, 22]], [[13.0, 7]]], [[[10.0, 20]], [[10.0, 0]]], ['a', 'b'])
    two = sample([[[44.0, 3]], [[3.0, 3]]], [[[40.0, 0]], [[0.0, 0]]], ['a', 'b'])
    found = evaluate(one, two)
    assert found['depth/AbsRel_a'] == pytest.approx(0.1)
    assert found['depth/AbsRel_b'] == pytest.approx(0.3)
    assert found['depth/AbsRel'] == pytest.approx(0.2)
    assert found['depth/AbsRel_std'] == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert found['depth/delta1'] == 0.5


def test_points_outside_the_range_and_cameras_without_points():
    found = evaluate(sample([[[11.0, 50]], [[1.0, 1]]], [[[10.0, 90]], [[0.0, 0]]], ['a', 'b']),
                     max_depth=80)
    assert found['depth/AbsRel'] == pytest.approx(0.1)
    assert math.isnan(found['depth/AbsRel_b'])
    nothing = evaluate(sample([[[1.0]]], [[[0.0]]], ['a']))
    assert all(math.isnan(value) for value in nothing.values())


def test_samples_without_depth_and_wrong_ranges():
    with pytest.raises(UserError, match='no gt_depth; set predict=True.*LoadPointCloud'):
        DepthMetric().process({}, [dict(pred_depth=torch.ones(1, 1, 1))])
    with pytest.raises(UserError, match='expected 0 <= min_depth < max_depth, got 5 and 3'):
        DepthMetric(max_depth=3, min_depth=5)
