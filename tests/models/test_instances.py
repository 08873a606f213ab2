import math

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.structures import PixelData

from mmdet3d_plugin.errors import UserError, build_from
from mmdet3d_plugin.evaluation import BEVInstanceMetric
from mmdet3d_plugin.evaluation.bev_instances import match_instances
from mmdet3d_plugin.geometry import BEVGrid, raster, rigid
from mmdet3d_plugin.models.heads.instances import (
    CenterGrouping,
    find_peaks,
    group_cells,
    oriented_boxes,
)
from tests.factories import batch, build

GRID = BEVGrid((-20, 20), (-20, 20), 0.5)
Z = (-2.0, -0.5)
PARKED = np.array([[10, 5, -1, 4.5, 1.8, 1.5, 0], [10, 7.4, -1, 4.5, 1.8, 1.5, 0],
                   [4.6, 7.4, -1, 4.5, 1.8, 1.5, 0.1], [-9, -8, -1, 9, 2.5, 3, 2.2]])


def drawn(boxes, channels=None, num_channels=1, method='exact', grid=GRID):
    channels = [0] * len(boxes) if channels is None else channels
    maps = raster.rasterize(boxes, channels, grid, num_channels, method)
    return {name: torch.from_numpy(value) for name, value in maps.items()}


def group(maps, **kwargs):
    return CenterGrouping(**kwargs)(maps['seg'], maps['centerness'], maps['offset'])


def quality(pred, truth):
    iou, hits, alarms, misses = match_instances(pred, truth)
    return iou / (hits + (alarms + misses) / 2)


# Peaks and grouping ------------------------------------------------------------------------------


def test_peaks_are_sorted_and_above_the_threshold():
    values = torch.zeros(8, 9)
    values[1, 2], values[5, 7], values[7, 0], values[5, 6] = 0.5, 0.9, 0.05, 0.8
    assert find_peaks(values, 0.1).tolist() == [[5, 7], [1, 2]]
    assert find_peaks(values, 0.01).tolist() == [[5, 7], [1, 2], [7, 0]]
    assert find_peaks(values, 0.1, top_k=1).tolist() == [[5, 7]]
    assert find_peaks(values, 0.1, window=13).tolist() == [[5, 7]]
    assert find_peaks(values * 0, 0.1).shape == (0, 2)


def test_a_plateau_is_one_peak():
    values = torch.zeros(8, 8)
    values[2:4, 2:4] = 0.7                      # a centre on the corner of four cells
    values[6, 1:6] = 0.6
    assert find_peaks(values, 0.1).tolist() == [[2, 2], [6, 1]]


def test_cells_join_the_peak_they_point_to_not_the_nearest():
    foreground = torch.zeros(1, 8, dtype=torch.bool)
    foreground[0, [1, 2, 5]] = True
    offset = torch.zeros(2, 1, 8)
    offset[1, 0, 1] = 5.2                       # points from column 1 to column 6.2
    peaks = torch.tensor([[0, 2], [0, 6]])
    assert group_cells(foreground, offset, peaks).tolist() == [[0, 2, 1, 0, 0, 2, 0, 0]]
    offset[0, 0, 5] = 3.0
    assert group_cells(foreground, offset, peaks, 2.5).tolist() == [[0, 2, 1, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize('method', ['exact', 'release'])
def test_truth_is_grouped_to_its_own_instances(method):
    maps = drawn(PARKED, method=method)
    assert quality(group(maps)[0], maps['instances'][0]) == 1
    assert len(maps['instances'].unique()) == 5


def test_truth_of_toytown_is_grouped_but_for_centres_outside(toytown):
    grid = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=1.0)
    target = dict(type='RasterizeBEV', grid=grid, sigma=1.5, instances=True)
    dataset = DATASETS.build(dict(
        type='Dur360BEVDataset', data_root=str(toytown), ann_file='dur360bev_infos_train.pkl',
        pipeline=[target, dict(type='PackBEVInputs')]))
    grouped, itself = BEVInstanceMetric(ranges=(100, 80)), BEVInstanceMetric()
    for sample in (frame['data_samples'] for frame in dataset):
        sample.pred_bev = PixelData(instances=group(dict(sample.gt_bev.items())))
        grouped.process({}, [sample.to_dict()])
        sample.pred_bev = sample.gt_bev
        itself.process({}, [sample.to_dict()])
    assert sum(result[1, 0, 1] for result in grouped.results) > 10
    scores = grouped.compute_metrics(grouped.results)
    assert scores['PQ80'] == 100 and scores['PQ100'] > 95
    assert set(itself.compute_metrics(itself.results).values()) == {100.0}


def test_an_instance_has_one_class_and_channels_do_not_share():
    maps = drawn(PARKED, [0, 1, 0, 1], 2)
    maps['seg'] = maps['seg'] * 0.9
    maps['seg'][0, 59:61] = 0.95                # some cells of the last one look like class 0
    maps['seg'][0][maps['seg'][1] == 0] *= (maps['instances'][0] > 0)[maps['seg'][1] == 0]
    out = group(maps)
    assert out.shape == (2, 80, 80) and out.dtype == torch.int32
    for pred, truth in zip(out, maps['instances']):
        assert quality(pred, truth) == 1


@pytest.mark.parametrize('spoil', ['seg', 'centerness', 'offset'])
def test_values_that_are_not_finite_hurt_their_cells_only(spoil):
    maps = drawn(PARKED)
    maps[spoil][..., 40:] = float('nan')         # the right half
    out = group(maps)[0]
    left = maps['instances'][0].clone()
    left[:, 40:] = 0
    assert quality(torch.where(left > 0, out, 0), left) == 1
    if spoil != 'centerness':
        assert not out[:, 40:].any()


def test_nothing_and_single_cells():
    empty = drawn(np.zeros((0, 7)))
    assert not group(empty).any()
    single = drawn(np.array([[3.25, 3.25, 0, 0.4, 0.4, 1, 1.0]]))
    assert group(single).sum() == 1 and single['seg'].sum() == 1
    no_peak = dict(single, centerness=single['centerness'] * 0)
    assert not group(no_peak).any()
    full = dict(seg=torch.ones(1, 80, 80), centerness=torch.ones(1, 80, 80),
                offset=torch.zeros(2, 80, 80))
    assert group(full).min() == 1                # one plateau, whatever its size
    assert len(CenterGrouping().boxes(PixelData(instances=group(full), **full), GRID)) == 1


# Boxes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('rows, cols', [('-x', '-y'), ('+y', '+x'), ('+x', '+y')])
def test_convention_upright_rectangles_of_whole_cells_are_exact(rows, cols):
    grid = BEVGrid((-20, 20), (-20, 20), 0.5, rows=rows, cols=cols)
    boxes = np.array([[5.25, 3, 0, 4.5, 2, 1, 0], [-4, -6, 0, 3, 8.0, 1, 0]])
    found, channels = oriented_boxes(drawn(boxes, grid=grid)['instances'], grid, (-2, 0))
    # the second one is longer across: its length is along y, 90 degrees from x
    expected = [[5.25, 3, -1, 4.5, 2, 2, 0], [-4, -6, -1, 8, 3, 2, math.pi / 2]]
    found[1, 6] = found[1, 6].abs()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert channels.tolist() == [0, 0] and found.dtype == torch.float32


@pytest.mark.parametrize('yaw', [-1.4, -0.5, 0.3, 0.8, 1.5])
def test_turned_rectangles(yaw):
    truth = np.array([[1.3, -2.1, 0, 9, 3, 1, yaw]])
    found = oriented_boxes(drawn(truth)['instances'], GRID, Z)[0][0]
    np.testing.assert_allclose(found[:2], truth[0, :2], atol=0.1)
    np.testing.assert_allclose(found[3:5], [9, 3], atol=0.3)
    error = (found[6] - yaw + math.pi / 2) % math.pi - math.pi / 2
    assert abs(error) < math.radians(3) and abs(found[6]) <= math.pi / 2 + 1e-6


def test_headings_are_right_up_to_half_a_turn():
    one, other = (oriented_boxes(drawn(np.array([[1., 2, 0, 5, 2, 1, yaw]]))['instances'], GRID,
                                 Z)[0] for yaw in (0.4, 0.4 + math.pi))
    torch.testing.assert_close(one, other)


def test_a_cell_is_a_square_and_nothing_is_nothing():
    one = torch.zeros(2, 80, 80, dtype=torch.int32)
    one[1, 33, 46] = 8
    boxes, channels = oriented_boxes(one, GRID, Z)
    np.testing.assert_allclose(boxes[0], [3.25, -3.25, -1.25, 0.5, 0.5, 1.5, 0], atol=1e-6)
    assert channels.tolist() == [1]
    boxes, channels = oriented_boxes(one * 0, GRID, Z)
    assert boxes.shape == (0, 7) and channels.shape == (0,)


def test_scores_and_labels_of_boxes():
    maps = drawn(PARKED, [0, 1, 0, 1], 2)
    maps['seg'] *= torch.tensor([0.8, 0.6])[:, None, None]
    maps['centerness'] *= 0.5
    found = CenterGrouping().boxes(PixelData(**maps), GRID)
    assert found.labels_3d.tolist() == [0, 1, 0, 1]
    peaks = [maps['centerness'][0][m > 0].max() for m in
             (maps['instances'].amax(0) == n for n in (1, 2, 3, 4))]
    torch.testing.assert_close(found.scores_3d, torch.stack(peaks) * torch.tensor([.8, .6, .8, .6]))
    centres = found.bboxes_3d.gravity_center[:, :2].numpy()
    np.testing.assert_allclose(centres, PARKED[:, :2], atol=0.3)
    for box, truth in zip(found.bboxes_3d.corners.numpy(), rigid.box_corners(PARKED)):
        assert np.abs(np.sort(box[:, 0]) - np.sort(truth[:, 0])).max() < 0.6


# The head ----------------------------------------------------------------------------------------

HEAD = dict(type='BEVSegHead', in_channels=8)


def predict(head):
    model = build(head=head).eval()
    return model.test_step(batch(2, lidar=False))


def test_off_by_default():
    sample = predict(HEAD)[0]
    assert 'instances' not in sample.pred_bev and 'pred_instances_3d' not in sample


def test_a_model_predicts_instances_and_boxes():
    grouping = dict(type='CenterGrouping', threshold=0.3, z_range=(-1, 1))
    for sample in predict(dict(HEAD, instances=grouping)):
        assert sample.pred_bev.instances.shape == (1, 32, 32)
        numbers = sample.pred_bev.instances.unique().tolist()
        found = sample.pred_instances_3d
        assert len(found) == len(numbers) - (0 in numbers) > 0
        assert set(found.bboxes_3d.tensor[:, 5].tolist()) == {2.0}
        assert found.bboxes_3d.gravity_center[:, 2].abs().max() < 1e-6


@pytest.mark.parametrize('cfg, message', [
    (dict(tasks=('segmentation', 'offset'), instances=dict(type='CenterGrouping')),
     r"model.head: instances need the tasks segmentation, centerness, offset, but tasks is"),
    (dict(instances=dict(type='CenterGrouping', treshold=1)),
     r"model.head.instances.treshold: .* did you mean 'threshold'"),
    (dict(instances=dict(type='CenterGrouping', window=4)), 'odd number of cells, got 4'),
    (dict(instances=dict(type='CentreGrouping')), "did you mean 'CenterGrouping'"),
])
def test_bad_configs_are_named(cfg, message):
    with pytest.raises(UserError, match=message):
        build_from(MODELS, dict(HEAD, **cfg), 'model.head')
