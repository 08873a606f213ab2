import math
import time

import pytest
import torch
from mmdet3d.models.utils import gaussian_radius as mmdet3d_radius

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.models.heads.center_targets import (
    CenterTargetDrawer,
    class_channels,
    gaussian_radius,
)
from tests.helpers.detection import (
    CLASSES,
    GRID,
    MMDET3D_CLASSES,
    TASKS,
    head,
    instances,
    mmdet3d_head,
    random_boxes,
    sample,
)

COUNTS = tuple(map(len, TASKS))


def drawer(grid=GRID, **settings):
    return CenterTargetDrawer(BEVGrid(**grid), settings.pop('num_classes', COUNTS), **settings)


def same_as_mmdet3d(targets, theirs):
    heatmaps, codes, index, mask = theirs
    assert torch.equal(targets.heatmap, torch.cat(heatmaps, 1))
    for ours, other in zip(targets[1:], (codes, index, mask)):
        other = torch.stack(other, 1)
        torch.testing.assert_close(ours, other.to(ours.dtype), rtol=0, atol=0, equal_nan=True)
    return int(targets.mask.sum())


@pytest.mark.parametrize('seed', range(8))
def test_equal_to_mmdet3d_to_the_bit(seed):
    scenes = [random_boxes(count, seed * 10 + n) for n, count in enumerate((0, 1, 30, 200))]
    scenes[2][0][3, 7:] = math.nan
    scenes[2][0][4, 3] = 0  # no size
    gt = [instances(*scene) for scene in scenes]
    ours = head().targets(gt, [sample()] * 4)
    drawn = same_as_mmdet3d(ours, mmdet3d_head().get_targets(gt))
    assert drawn == 0 + 1 + 29 + 200


def test_equal_to_mmdet3d_beyond_the_range_and_beyond_the_slots():
    """By mmdet3d's rounding, the objects less than a cell below the range are in it, too."""
    boxes, labels = random_boxes(900, half=16)
    labels = labels % 2  # 450 cars, many of them outside; 450 trucks
    labels[:700] = 0
    gt = [instances(boxes, labels)]
    theirs = mmdet3d_head().get_targets(gt)
    ours = head(train_cfg=dict(rounding='trunc')).targets(gt, [sample()])
    drawn = same_as_mmdet3d(ours, theirs)
    fewer = int(head().targets(gt, [sample()]).mask.sum())
    assert drawn > fewer > 300
    below = boxes[0:1].clone()
    below[:, :2] = torch.tensor([-12.9, 3.0])
    assert head().targets([instances(below, labels[:1])], [sample()]).mask.sum() == 0


def test_other_voxel_sizes_of_mmdet3d():
    gt = [instances(*random_boxes(300, half=54))]
    grid = dict(x_range=(-54, 54), y_range=(-54, 54), resolution=0.6, rows='+y', cols='+x')
    reference = mmdet3d_head(voxel=0.075, half=54)
    assert same_as_mmdet3d(head(grid).targets(gt, [sample()]), reference.get_targets(gt)) == 300


def test_values_of_one_box():
    boxes = torch.tensor([[1.0, 2.0, -1.0, 4.0, 2.0, 1.5, math.pi / 2, 3.0, -1.0]])
    targets = head(train_cfg=dict(max_objs=3)).targets([instances(boxes, torch.tensor([2]))],
                                                      [sample()])
    # x: 13.8 / 0.8 = 17.25, y: 14.8 / 0.8 = 18.5; class 2 is the second of task 1
    assert targets.heatmap.shape == (1, 10, 32, 32) and targets.codes.shape == (1, 6, 3, 10)
    assert targets.heatmap[0].amax((1, 2)).tolist() == [0, 0, 1] + [0] * 7
    assert targets.mask.nonzero().tolist() == [[0, 1, 0]]
    assert targets.index[0, 1].tolist() == [18 * 32 + 17, 0, 0]
    torch.testing.assert_close(targets.codes[0, 1, 0], torch.tensor(
        [0.25, 0.5, -0.25, math.log(4), math.log(2), math.log(1.5), 1.0, 0.0, 3.0, -1.0]),
        atol=1e-5, rtol=0)
    # radius 2, sigma 5 / 6: one cell beside the centre exp(-18 / 25)
    torch.testing.assert_close(targets.heatmap[0, 2, 18, 16:22], torch.tensor(
        [math.exp(-18 / 25), 1, math.exp(-18 / 25), math.exp(-72 / 25), 0, 0]))


def test_the_bottom_as_height_and_sizes_without_logarithm():
    boxes = torch.tensor([[1.0, 2.0, -1.0, 4.0, 2.0, 1.5, 0.0, 3.0, -1.0]])
    gt = [instances(boxes, torch.tensor([0]))]
    codes = head(z='bottom', norm_bbox=False).targets(gt, [sample()]).codes[0, 0, 0]
    assert codes[2:6].tolist() == [-1.0, 4.0, 2.0, 1.5]


def test_velocity_as_displacement():
    boxes, labels = random_boxes(5)
    gt = [instances(boxes, labels)]
    speed = head().targets(gt, [sample()]).codes
    moved = head(velocity='displacement').targets(gt, [sample(past_interval=0.5)]).codes
    assert torch.equal(moved[..., 8:], speed[..., 8:] * 0.5) and speed[..., 8:].abs().max() > 1
    assert torch.equal(moved[..., :8], speed[..., :8])
    with pytest.raises(UserError, match=r"metainfo\['past_interval'\] is None; load past images"):
        head(velocity='displacement').targets(gt, [sample()])


@pytest.mark.parametrize('rows, cols, turn', [('+y', '+x', 0), ('-x', '+y', 1), ('-y', '-x', 2),
                                              ('+x', '-y', 3)])
def test_a_scene_that_turns_with_its_grid_has_the_same_heatmap(rows, cols, turn):
    """A quarter turn to the left moves x to y and y to -x."""
    grid = dict(x_range=(-25.6, 12.8), y_range=(-12.8, 19.2), resolution=0.8, rows='+y', cols='+x')
    ranges = [grid['x_range'], grid['y_range']]
    boxes, labels = random_boxes(60, half=24)
    turned = boxes.clone()
    for _ in range(turn):
        for pair in (turned[:, :2], turned[:, 7:]):
            pair.copy_(torch.stack([-pair[:, 1], pair[:, 0]], 1))
        turned[:, 6] += math.pi / 2
        ranges = [(-ranges[1][1], -ranges[1][0]), ranges[0]]
    first = drawer(grid)(boxes, labels)
    second = drawer(dict(grid, x_range=ranges[0], y_range=ranges[1], rows=rows, cols=cols))(
        turned, labels)
    assert first.heatmap.shape[1:] == (40, 48) and first.mask.sum() > 20
    for name in ('heatmap', 'index', 'mask'):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    torch.testing.assert_close(first.codes[..., :6], second.codes[..., :6], atol=1e-4, rtol=0)
    yaw = torch.atan2(second.codes[..., 6], second.codes[..., 7]) - torch.atan2(
        first.codes[..., 6], first.codes[..., 7])
    torch.testing.assert_close(torch.cos(yaw[first.mask] - turn * math.pi / 2),
                               torch.ones(int(first.mask.sum())), atol=1e-5, rtol=0)


def test_a_flipped_grid_flips_the_heatmap():
    boxes, labels = random_boxes(60)
    usual, flipped = drawer()(boxes, labels), drawer(dict(GRID, rows='-y'))(boxes, labels)
    assert torch.equal(usual.heatmap.flip(1), flipped.heatmap)
    torch.testing.assert_close(usual.codes[..., 1][usual.mask] + flipped.codes[..., 1][usual.mask],
                               torch.ones(60), atol=1e-4, rtol=0)


def test_labels_are_names():
    boxes, labels = random_boxes(80)
    names = [CLASSES[label] for label in labels]
    ours = head().targets([instances(boxes, labels)], [sample()])
    renamed = torch.tensor([MMDET3D_CLASSES.index(name) for name in names])
    theirs = head().targets([instances(boxes, renamed)], [sample(classes=MMDET3D_CLASSES)])
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs)) and not torch.equal(labels, renamed)


def test_objects_of_no_task_are_ignored():
    boxes, labels = random_boxes(80)
    gt = [instances(boxes, torch.cat([labels[:40], torch.tensor([-1, 10, 99] + [5] * 37)]))]
    few = [['car'], ['pedestrian', 'truck']]
    targets = head(tasks=few).targets(gt, [sample()])
    wanted = [(labels[:40] == n).sum() for n in (0, 1, 8)]
    assert targets.heatmap.shape[1] == 3
    assert targets.mask.sum((0, 2)).tolist() == [wanted[0], wanted[1] + wanted[2]]


def test_a_class_that_the_data_does_not_have():
    with pytest.raises(UserError, match="head.tasks: the data has no class 'pedestrain'; did you "
                                        "mean 'pedestrian'"):
        class_channels([['car'], ['pedestrain']], CLASSES)
    assert class_channels([['bus'], ['truck', 'car']], ['car', 'tree', 'bus', 'truck']) == (
        2, 3, 0, 1, 3)


@pytest.mark.parametrize('column, value', [(0, math.nan), (1, math.inf), (3, 0.0), (4, -1.0),
                                           (5, 0.0), (3, math.nan), (4, math.inf)])
def test_boxes_without_position_or_size_change_nothing(column, value):
    boxes, labels = random_boxes(10)
    without = drawer()(boxes[:9], labels[:9])
    boxes[9, column] = value
    labels[9] = 9
    bad = drawer()(boxes, labels)
    assert torch.equal(without.heatmap, bad.heatmap) and without.mask.sum() == bad.mask.sum() == 9
    assert bad.codes.isfinite().all()


def test_a_box_larger_than_the_grid():
    boxes = torch.tensor([[0.0, 0, 0, 5e3, 5e3, 2, 0, 0, 0], [1, 1, 0, 1e30, 1e30, 2, 0, 0, 0]])
    targets = drawer()(boxes, torch.tensor([0, 1]))
    assert targets.heatmap[0].min() > 0.99
    assert targets.heatmap.amax((1, 2)).tolist() == [1, 1] + [0] * 8


def test_nothing_waits_for_the_device():
    """A tensor of the device 'meta' has no values that could be read."""
    boxes, labels = random_boxes(30)
    made = head().to('meta')
    targets = made.targets([instances(boxes, labels)] * 2, [sample()] * 2, torch.device('meta'))
    assert targets.heatmap.shape == (2, 10, 32, 32) and targets.heatmap.is_meta


@pytest.mark.parametrize('radius, cells', [(2, (4.0, 2.0)), (3, (22.5, 3.75))])
def test_radius(radius, cells):
    """Of a car of 3.2 x 1.6 m and a bus of 18 x 3 m in cells of 0.8 m."""
    length, width = torch.tensor([cells[0]]), torch.tensor([cells[1]])
    found = gaussian_radius(length, width, 0.1)
    assert found == mmdet3d_radius((width[0], length[0]), 0.1) and max(int(found), 2) == radius


def test_at_most_ten_milliseconds_a_sample():
    grid = dict(GRID, x_range=(-51.2, 51.2), y_range=(-51.2, 51.2))
    draw, (boxes, labels) = drawer(grid), random_boxes(40, half=51)
    spent = []
    for _ in range(7):
        begin = time.process_time()
        draw(boxes, labels)
        spent.append(time.process_time() - begin)
    assert min(spent) < 0.010
