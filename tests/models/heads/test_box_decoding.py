import math

import numpy as np
import pytest
import torch
from mmcv.ops import nms_rotated
from mmdet3d.models.layers import circle_nms as mmdet3d_circle_nms
from mmdet3d.structures import LiDARInstance3DBoxes
from shapely.geometry import Polygon

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.models.heads.box_decoding import circle_nms, rotated_nms, task_decodings
from tests.helpers.detection import (
    BEVDET,
    CLASSES,
    GRID,
    MMDET3D_CLASSES,
    RADII,
    RANGE,
    TASKS,
    head,
    instances,
    mmdet3d_head,
    random_boxes,
    random_outs,
    sample,
    to_mmdet3d,
)


def predict(made, outs, batch=2, classes=CLASSES, **metainfo):
    found = made.predict(outs, [sample(classes=classes, **metainfo) for _ in range(batch)])
    return [one.pred_instances_3d for one in found]


@pytest.mark.parametrize('test, theirs', [
    (dict(nms_type='circle', squared_radius=RADII), dict(nms_type='circle', min_radius=RADII)),
    (dict(nms_type='rotate', nms_thr=0.2), dict(nms_type='rotate', nms_thr=0.2))])
def test_equal_to_mmdet3d(test, theirs):
    ours = head(test_cfg=dict(test, post_center_range=RANGE))
    outs = random_outs(ours)
    kept = {name: out.clone() for name, out in outs.items()}
    found = predict(ours, outs)
    reference = mmdet3d_head(**theirs).predict_by_feat(
        to_mmdet3d(outs), [dict(box_type_3d=LiDARInstance3DBoxes)] * 2)
    for mine, other in zip(found, reference):
        assert 100 < len(mine.labels_3d) == len(other.labels_3d)
        torch.testing.assert_close(mine.bboxes_3d.tensor, other.bboxes_3d.tensor, rtol=1e-6,
                                   atol=1e-5)
        torch.testing.assert_close(mine.scores_3d, other.scores_3d, rtol=1e-6, atol=1e-7)
        assert torch.equal(mine.labels_3d, other.labels_3d.long())
    assert all(torch.equal(outs[name], out) for name, out in kept.items())


@pytest.mark.parametrize('orientation', [dict(), dict(rows='-x', cols='-y'),
                                         dict(rows='+x', cols='-y'), dict(rows='-y', cols='-x')])
@pytest.mark.parametrize('settings', [
    dict(), dict(velocity='displacement'), dict(z='bottom', norm_bbox=False)])
def test_targets_decode_to_their_boxes(orientation, settings):
    """The heatmap's peaks and codes as the outputs of a network that is always right."""
    made = head(dict(GRID, **orientation), test_cfg=dict(nms_type=None, score_threshold=0.9),
                **settings)
    boxes, labels = random_boxes(30)
    boxes[:, :2] = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(5), indexing='ij'),
                               -1).view(-1, 2) * 4.3 - 11
    outs = perfect(made, [instances(boxes, labels)], [sample(past_interval=0.8)])
    found, = predict(made, outs, 1, past_interval=0.8)
    order, back = (torch.from_numpy(np.lexsort(box[:, :2].T.numpy().round(3)))
                   for box in (boxes, found.bboxes_3d.tensor))
    assert torch.equal(found.labels_3d[back], labels[order])
    same = boxes[order]
    same[:, 6] = torch.atan2(same[:, 6].sin(), same[:, 6].cos())
    torch.testing.assert_close(found.bboxes_3d.tensor[back], same, rtol=1e-4, atol=1e-4)


def perfect(made, gt, samples):
    targets = made.targets(gt, samples)
    maps = torch.zeros(len(gt), *targets.codes.shape[1:2], targets.codes.shape[-1],
                       made.grid.shape[0] * made.grid.shape[1])
    for b, t, slot in targets.mask.nonzero().tolist():
        maps[b, t, :, targets.index[b, t, slot]] = targets.codes[b, t, slot]
    maps = maps.unflatten(-1, made.grid.shape)
    outs = {}
    heatmaps = torch.where(targets.heatmap == 1, 20.0, -20.0).split(made.num_classes, 1)
    for t, heatmap in enumerate(heatmaps):
        outs[f'task{t}.heatmap'] = heatmap
        parts = maps[:, t].split(list(made.channels.values()), 1)
        outs.update({f'task{t}.{name}': part for name, part in zip(made.channels, parts)})
    return outs


def test_labels_are_names_of_the_data():
    made = head(test_cfg=dict(nms_type=None))
    outs = random_outs(made)
    ours, theirs = predict(made, outs), predict(made, outs, classes=['tree', *MMDET3D_CLASSES])
    for first, second in zip(ours, theirs):
        names = [CLASSES[label] for label in first.labels_3d]
        assert names == [['tree', *MMDET3D_CLASSES][label] for label in second.labels_3d]
        assert len(set(names)) == 10
    with pytest.raises(UserError, match=r"labels are those of metainfo\['classes'\]"):
        made.predict(outs, [type(sample())()] * 2)
    with pytest.raises(UserError, match="the data has no class 'trailer'"):
        predict(made, outs, classes=['car', 'truck', 'construction_vehicle', 'bus'])


def test_no_box_above_the_threshold():
    made = head()
    found, = predict(made, random_outs(made, 1, peaks=-50), 1)
    assert found.bboxes_3d.tensor.shape == (0, 9)
    assert found.labels_3d.shape == found.scores_3d.shape == (0, )
    assert found.labels_3d.dtype == torch.int64


def test_more_boxes_than_cells():
    grid = dict(GRID, x_range=(-0.8, 0.8), y_range=(-0.8, 0.8))
    made = head(grid, tasks=[['car']], test_cfg=dict(nms_type=None))
    found, = predict(made, random_outs(made, 1, peaks=9), 1)
    assert len(found.labels_3d) == 4


def task_boxes(test_cfg, boxes, scores, tasks, labels):
    """The scores of the boxes that are left."""
    made = head(tasks=tasks, test_cfg=test_cfg)
    outs = perfect(made, [instances(boxes, labels)], [sample()])
    rows, cols = made.grid.to_index(boxes[:, :2])[0].T
    for t in range(len(tasks)):
        heatmap = outs[f'task{t}.heatmap'][0]
        at = heatmap[:, rows, cols]
        heatmap[:, rows, cols] = torch.where(at > 0, torch.logit(scores), at)
    found, = predict(made, outs, 1)
    return [round(float(score), 3) for score in found.scores_3d]


def row_of_boxes(xs, size):
    boxes = torch.zeros(len(xs), 9)
    boxes[:, 0] = torch.tensor(xs)
    boxes[:, 3:6] = torch.tensor(size)
    return boxes


def test_scale_nms_makes_small_boxes_overlap():
    """Cones 0.4 m wide and 1 m apart: times 9 they overlap with an IoU of 0.57."""
    boxes = row_of_boxes([0.0, 1.0, 5.0], [0.4, 0.4, 1.0])
    labels, scores = torch.tensor([9, 9, 9]), torch.tensor([0.6, 0.9, 0.5])
    settings = dict(nms_type='rotate', nms_thr=0.5)
    task = [['pedestrian', 'traffic_cone']]
    assert task_boxes(settings, boxes, scores, task, labels) == [0.9, 0.6, 0.5]
    scaled = dict(settings, scale_factors=[[4.5, 9.0]])
    assert task_boxes(scaled, boxes, scores, task, labels) == [0.9, 0.5]
    assert task_boxes(dict(scaled, nms_thr=0.6), boxes, scores, task, labels) == [0.9, 0.6, 0.5]
    pedestrians = torch.tensor([8, 8, 8])  # 1.8 m: 0.8 / 2.8 = 0.29
    assert task_boxes(scaled, boxes, scores, task, pedestrians) == [0.9, 0.6, 0.5]


def test_scale_nms_shrinks_and_the_classes_of_a_task_suppress_each_other():
    boxes = row_of_boxes([0.0, 8.0], [12.0, 2.5, 3.0])  # IoU 4 / 20
    labels, scores = torch.tensor([3, 4]), torch.tensor([0.6, 0.9])
    task, settings = [['bus', 'trailer']], dict(nms_type='rotate', nms_thr=0.15)
    assert task_boxes(settings, boxes, scores, task, labels) == [0.9]
    scaled = dict(settings, scale_factors=[[0.4, 0.55]])
    assert task_boxes(scaled, boxes, scores, task, labels) == [0.9, 0.6]
    apart = [['bus'], ['trailer']]
    assert task_boxes(settings, boxes, scores, apart, labels) == [0.6, 0.9]


def test_a_suppressed_box_suppresses_none():
    boxes = row_of_boxes([0.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    labels, scores = torch.tensor([0, 0, 0]), torch.tensor([0.9, 0.8, 0.7])
    circle = dict(nms_type='circle', squared_radius=4.001)
    assert task_boxes(circle, boxes, scores, [['car']], labels) == [0.9, 0.7]
    assert task_boxes(dict(circle, squared_radius=3.9), boxes, scores, [['car']], labels) == [
        0.9, 0.8, 0.7]


def test_limits_before_and_after():
    boxes = row_of_boxes([0.0, 2.0, 4.0, 6.0], [1.0, 1.0, 1.0])
    labels, scores = torch.zeros(4).long(), torch.tensor([0.9, 0.8, 0.7, 0.05])

    def left(**settings):
        return task_boxes(settings, boxes, scores, [['car']], labels)

    assert left() == [0.9, 0.8, 0.7]
    assert left(score_threshold=0.75) == [0.9, 0.8]
    assert left(score_threshold=0.0, post_max_size=None, pre_max_size=None)[:4] == [
        0.9, 0.8, 0.7, 0.05]
    assert left(post_max_size=1) == left(pre_max_size=1) == left(max_num=1) == [0.9]
    assert left(post_center_range=[1, -9, -9, 4.5, 9, 9]) == [0.8, 0.7]
    assert left(post_center_range=[-9, -9, 0.6, 9, 9, 9]) == []  # the centres are at z = 0.5


def test_bevdets_settings():
    made = head(test_cfg=dict(BEVDET, post_center_range=[-61.2, -61.2, -10, 61.2, 61.2, 10]))
    of = dict(zip([task[0] for task in TASKS], made.decodings))
    assert of['bus'].scale_factors == (0.4, 0.55) and of['barrier'].scale_factors == (1.1, )
    assert of['pedestrian'].nms_thr == 0.5 and of['car'].scale_factors == (1.0, )
    assert of['barrier'].nms_type == 'circle' and of['barrier'].squared_radius == 1.0
    assert (of['car'].max_num, of['car'].pre_max_size, of['car'].post_max_size) == (500, 1000, 83)


@pytest.mark.parametrize('wrong, message', [
    (dict(nms_type='rotated'), "nms_type: expected 'rotate', 'circle' or None, got 'rotated'"),
    (dict(nms_thr=[0.1, 0.2]), 'nms_thr: 2 values, but there are 6 tasks'),
    (dict(scale_factors=[1, 1, [1, 2, 3], 1, 1, 1]), '3 values for the classes bus, trailer'),
    (dict(post_center_range=[1, 2, 3]), 'post_center_range: expected x, y, z of both ends'),
    (dict(min_radius=RADII), 'test_cfg.min_radius: there is no such setting')])
def test_wrong_settings(wrong, message):
    with pytest.raises(UserError, match=message):
        head(test_cfg=wrong)


def test_circle_nms_is_mmdet3ds():
    generator = np.random.default_rng(0)
    for radius in (0.175, 4, 12):
        boxes = generator.uniform(-20, 20, (300, 3)).astype(np.float32)
        boxes = boxes[np.argsort(-boxes[:, 2])]
        kept = circle_nms(torch.from_numpy(boxes[:, :2]), radius).tolist()
        assert kept == list(mmdet3d_circle_nms(boxes, radius, 300)) and 10 < len(kept) < 300


@pytest.mark.parametrize('iou', [0.05, 0.2, 0.5])
def test_rotated_nms_is_right_and_mmcvs(iou):
    """Against the polygons of shapely, and mmcv's operator, which is right on CPUs."""
    generator = np.random.default_rng(1)
    boxes = generator.uniform((-12, -12, 1, 0.5, -4), (12, 12, 9, 4, 4), (80, 5)).astype('float32')
    scores = -np.sort(-generator.random(80).astype('float32'))
    shapes = [polygon(*box) for box in boxes.astype(float)]
    kept = []
    for n, shape in enumerate(shapes):
        if all(shape.intersection(shapes[m]).area / shape.union(shapes[m]).area <= iou
               for m in kept):
            kept.append(n)
    assert rotated_nms(torch.from_numpy(boxes), iou).tolist() == kept and 10 < len(kept) < 80
    assert nms_rotated(torch.from_numpy(boxes), torch.from_numpy(scores), iou)[1].tolist() == kept


def test_rotated_nms_of_none_and_of_equal_boxes():
    assert rotated_nms(torch.zeros(0, 5), 0.2).tolist() == []
    box = torch.tensor([[1.0, 2.0, 4.0, 2.0, 0.3]])
    turned = box + torch.tensor([0, 0, 0, 0, math.pi])
    assert rotated_nms(torch.cat([box, box, turned, box + 9]), 0.9).tolist() == [0, 3]
    far = box + torch.tensor([[4.5, 0.0, 0, 0, 0]])
    assert rotated_nms(torch.cat([box, far]), 0.0).tolist() == [0, 1]


def polygon(x, y, length, width, yaw):
    cos, sin = math.cos(yaw), math.sin(yaw)
    return Polygon([(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in (
        (length / 2, width / 2), (-length / 2, width / 2), (-length / 2, -width / 2),
        (length / 2, -width / 2))])


def test_one_value_for_all_tasks_or_one_for_each():
    one, two = task_decodings([['a'], ['b', 'c']], nms_thr=[0.1, 0.3], scale_factors=[2, [3, 4]],
                              post_max_size=None)
    assert (one.nms_thr, one.scale_factors, one.post_max_size) == (0.1, (2, ), None)
    assert (two.nms_thr, two.scale_factors, two.classes) == (0.3, (3, 4), ('b', 'c'))
