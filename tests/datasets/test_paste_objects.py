"""Objects of other frames: the database, what is pasted, and when."""
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints
from shapely.geometry import Polygon

from mmdet3d_plugin.datasets import object_database
from mmdet3d_plugin.datasets.object_database import ObjectDatabase, create_database
from mmdet3d_plugin.datasets.transforms import PasteObjects
from mmdet3d_plugin.datasets.transforms.objects import free_of_overlap
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.reproducible import Draw
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import rigid

CLASSES = ('pedestrian', 'car')
CAR, FAR = [10, 0, 0, 4, 2, 2, 0, 1, 2], [-20, 5, 0, 4, 2, 2, 1, np.nan, np.nan]


def write(folder, boxes=(CAR, FAR), names=('car', 'car'), counts=(5, 6), columns=4):
    """Points of object n have the intensity n."""
    count, boxes = np.array(counts), np.array(boxes, np.float32)
    points = np.ones((count.sum(), columns), '<f4')
    points *= np.arange(len(boxes), dtype='<f4').repeat(count)[:, None]
    points[:, :3] = boxes[:, :3].repeat(count, 0)
    (folder / 'o.bin').write_bytes(points.tobytes())
    np.savez(folder / 'o.npz', boxes=boxes, names=np.array(names), count=count, columns=columns,
             first=count.cumsum() - count)


def frame(folder, boxes=(), points=((0, 0, 0, 9), (10, 0.5, 0, 9)), **more):
    boxes = np.array(boxes, np.float32).reshape(-1, 9)
    return dict(
        points=LiDARPoints(torch.tensor(points, dtype=torch.float32), points_dim=4),
        classes=CLASSES, data_root=str(folder), ann_info=dict(
            gt_bboxes_3d=LiDARInstance3DBoxes(boxes, 9, origin=(.5, .5, .5)),
            gt_labels_3d=np.ones(len(boxes), np.int64),
            num_points=np.full(len(boxes), 3), visibility=np.full(len(boxes), 2),
            valid=np.zeros(len(boxes), bool)), **more)


def test_objects_come_with_points_boxes_and_velocity(tmp_path):
    write(tmp_path, boxes=(CAR, [0, 0, 0, 4, 2, 2, 0, 0, 0]), counts=(5, 4))
    out = PasteObjects('o', dict(car=1))(frame(tmp_path))      # the second has too few points
    ann = out['ann_info']
    np.testing.assert_array_equal(ann['gt_bboxes_3d'].gravity_center[0], CAR[:3])
    np.testing.assert_array_equal(ann['gt_bboxes_3d'].tensor[0, 3:], CAR[3:])
    assert ann['gt_labels_3d'].tolist() == [1] and ann['gt_labels_3d'].dtype == np.int64
    assert ann['num_points'].tolist() == [5] and ann['visibility'].tolist() == [4]
    assert ann['valid'].tolist() == [True]
    # the frame's point in the box is gone, the five of the object are there
    assert out['points'].tensor.tolist() == [[0, 0, 0, 9]] + [[10, 0, 0, 0]] * 5


def test_only_what_is_missing_and_free_is_pasted(tmp_path):
    write(tmp_path)
    paste = PasteObjects('o', dict(car=2))
    there = [CAR[:3] + [4, 2, 2, 0.3, 0, 0]]
    torch.manual_seed(0)
    sizes = set()
    for _ in range(20):
        ann = paste(frame(tmp_path, there))['ann_info']
        np.testing.assert_allclose(ann['gt_bboxes_3d'].tensor[0, 6], 0.3)
        sizes.add(len(ann['gt_labels_3d']))
        assert ann['valid'].tolist() == [False, True][:len(ann['valid'])]
        if len(ann['gt_labels_3d']) == 2:
            assert ann['gt_bboxes_3d'].tensor[1, :2].tolist() == FAR[:2]   # CAR would overlap
            assert ann['gt_bboxes_3d'].tensor[1, 7:].isnan().all()
    assert sizes == {1, 2}
    full = frame(tmp_path, there * 2)
    assert len(paste(full)['ann_info']['gt_labels_3d']) == 2


def test_draws_are_those_of_the_seed_and_end_with_the_epoch(tmp_path):
    write(tmp_path, [[x, 0, 0, 1, 1, 1, 0, 0, 0] for x in range(0, 100, 5)], ['car'] * 20, [5] * 20)
    paste = PasteObjects('o', dict(car=3), epochs=2)
    torch.manual_seed(3)
    first = paste(frame(tmp_path))['points'].tensor
    torch.manual_seed(3)
    assert torch.equal(paste(frame(tmp_path, epoch=1))['points'].tensor, first)
    torch.manual_seed(4)
    assert not torch.equal(paste(frame(tmp_path))['points'].tensor, first)
    assert len(paste(frame(tmp_path, epoch=2))['points']) == 2


def test_overlap_from_above_is_that_of_shapely():
    rng = np.random.default_rng(0)
    boxes = np.c_[rng.uniform(-8, 8, (60, 2)), np.zeros(60), rng.uniform(0.5, 6, (60, 3)),
                  rng.uniform(-4, 4, 60)]
    corners = rigid.box_corners(boxes)[:, :4, :2]
    shapes = [Polygon(c) for c in corners]
    expected = [[a.intersection(b).area > 1e-9 for b in shapes[20:]] for a in shapes[:20]]
    found = rigid.footprints_overlap(boxes[:20], boxes[20:])
    np.testing.assert_array_equal(found, expected)
    assert 20 < found.sum() < 400
    touching = np.array([[0, 0, 0, 2, 2, 1, 0.], [2, 0, 5, 2, 2, 1, 0], [1.9, 0, 0, 2, 2, 1, 0]])
    assert rigid.footprints_overlap(touching[:1], touching).tolist() == [[True, False, True]]
    assert rigid.footprints_overlap(touching[:0], touching).shape == (0, 3)
    # 2 overlaps 0, which comes first; 1 overlaps 2 alone, which is left out
    assert free_of_overlap(touching[[0, 2, 1]], touching[:0]).tolist() == [True, False, True]
    assert free_of_overlap(touching, touching[:1] - [1, *[0] * 6]).tolist() == [False, True, False]


def test_errors(tmp_path):
    with pytest.raises(UserError, match='o.npz: no database of objects; make it with python tools'):
        PasteObjects('o', dict(car=1)).prepare(frame(tmp_path))
    never = PasteObjects('o', dict(car=1), epochs=0)
    never.prepare(frame(tmp_path))
    assert len(never(frame(tmp_path))['points']) == 2
    write(tmp_path)
    for counts, message in ((dict(cars=1), "no class 'cars'; did you mean 'car'"),
                            (dict(pedestrian=1), 'has no pedestrian of 5 points')):
        with pytest.raises(UserError, match=message):
            PasteObjects('o', counts)(frame(tmp_path))
    paste = PasteObjects('o', dict(car=1))
    for more in (dict(img=[]), dict(bev_aug=np.eye(4))):
        with pytest.raises(UserError, match='not augmented, and no images; put it after'):
            paste(frame(tmp_path, **more))
    write(tmp_path, columns=5)
    with pytest.raises(UserError, match='have 5 values, those of the frame 4'):
        PasteObjects('o', dict(car=1))(frame(tmp_path))
    (tmp_path / 'o.bin').write_bytes(b'1234')
    with pytest.raises(UserError, match='o.bin: 4 bytes, expected 11 points of 5 float32'):
        PasteObjects('o', dict(car=1))(frame(tmp_path))
    (tmp_path / 'o.npz').write_bytes(b'x')
    with pytest.raises(UserError, match='o.npz: no database of objects'):
        ObjectDatabase.load(tmp_path / 'o')
    with pytest.raises(UserError, match='has no PasteObjects'):
        object_database.paste_of(load_config(
            'configs/detection/centerpoint_teacher_pillar_500it_toytown.py'))


def test_the_database_of_a_config_has_its_objects(toytown_nuscenes, tmp_path):
    config = load_config('configs/detection/centerpoint_teacher_pillar_500it_toytown.py', {
        'train_dataloader.dataset.data_root': str(toytown_nuscenes)})
    dataset = config.train_dataloader.dataset
    paste = dict(type='PasteObjects', database=str(tmp_path / 'own'), counts=dict(car=30, bus=3))
    steps = dataset.pipeline
    place = next(n for n, step in enumerate(steps) if step['type'] == 'GlobalRotScaleTransFlip')
    dataset.pipeline = [*steps[:place], paste, *steps[place:]]
    report = create_database(config)
    assert report['car'] > 20 and report['path'] == str(tmp_path / 'own')
    database = ObjectDatabase.load(tmp_path / 'own')
    assert (database.names == 'car').sum() == report['car']
    for n in (0, len(database.count) - 1):
        points = database.points_of(n)
        assert points.shape == (database.count[n], 5)
        assert rigid.points_in_boxes(points, database.boxes[n:n + 1]).all()
    plain = DATASETS.build(dict(dataset, pipeline=steps))
    train = DATASETS.build(dataset)
    late = [transform for transform in train.pipeline.transforms
            if isinstance(transform, PasteObjects)][0]
    late.epochs = 3
    boxes = [len(data['data_samples'].gt_instances_3d.labels_3d) for data in
             (plain[Draw(1, 5)], train[Draw(1, 5)], train[Draw(1, 5, 2)], train[Draw(1, 5, 3)])]
    assert boxes[0] < boxes[1] == boxes[2] and boxes[3] == boxes[0]
