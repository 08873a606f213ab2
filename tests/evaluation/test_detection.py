"""Detection scores: equal to the devkit's, and to numbers by hand."""
import json
import logging
import math
import shutil

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, METRICS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.dataset import DefaultSampler
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from data_converter import nuscenes
from mmdet3d_plugin.engine import build_runner, load_config
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.evaluation import NuScenesDetectionMetric
from mmdet3d_plugin.evaluation.detection import attribute_of, found_share
from mmdet3d_plugin.structures import load_infos

NAN, ONE = float('nan'), pytest.approx(1, abs=1e-12)
CLASSES = nuscenes.CLASSES
ERRORS = dict(ATE='trans_err', ASE='scale_err', AOE='orient_err', AVE='vel_err', AAE='attr_err')


# Equal to the devkit ------------------------------------------------------------------------------


def data(root, **kwargs):
    init_default_scope('mmdet3d')
    return DATASETS.build({**dict(
        type='NuScenesBEVDataset', data_root=str(root), ann_file='nuscenes_infos_val.pkl',
        metainfo=dict(classes=CLASSES[::-1]), pipeline=[dict(type='PackBEVInputs')],
        test_mode=True), **kwargs})


def guesses(dataset, seed=0, noise=1.0):
    """Samples with predictions: the truth with errors, without some of it, and with false alarms.

    Both depend on the object's place in the world alone, so they are the same in every frame.
    """
    rng = np.random.default_rng(seed)
    for n in range(len(dataset)):
        sample = dataset[n]['data_samples']
        truth = sample.gt_instances_3d
        boxes = torch.cat([truth.bboxes_3d.gravity_center, truth.bboxes_3d.tensor[:, 3:]], 1)
        boxes = boxes.double().numpy().repeat(2, 0)
        boxes[:, 7:] = np.nan_to_num(boxes[:, 7:])
        labels = truth.labels_3d.numpy().repeat(2)
        boxes[:, :2] += noise * rng.normal(0, 0.7, (len(boxes), 2))
        boxes[:, 3:6] *= np.exp(noise * rng.normal(0, 0.2, (len(boxes), 3)))
        boxes[:, 6] += noise * rng.normal(0, 0.4, len(boxes))
        boxes[:, 7:] += noise * rng.normal(0, 0.5, (len(boxes), 2))
        kept = rng.random(len(boxes)) < (0.6 if noise else 1)
        sample = sample.to_dict()
        sample['pred_instances_3d'] = dict(
            bboxes_3d=LiDARInstance3DBoxes(boxes[kept], 9, origin=(.5, .5, .5)),
            scores_3d=torch.from_numpy(rng.random(kept.sum())),
            labels_3d=torch.from_numpy(labels[kept]))
        yield sample


def score(dataset, samples, prepared=True, **kwargs):
    metric = METRICS.build(dict(type='NuScenesDetectionMetric', **kwargs))
    metric.dataset_meta = dataset.metainfo
    if prepared:
        metric.prepare(dataset)
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(dataset))


def by_the_devkit(root, folder, version='v1.0-mini', split='mini_val'):
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval
    from nuscenes.nuscenes import NuScenes
    devkit = NuScenes(version, str(root), verbose=False)
    path = folder / 'pred_instances_3d' / 'results_nusc.json'
    found = DetectionEval(devkit, config_factory('detection_cvpr_2019'), str(path), split,
                          str(folder / 'devkit'), verbose=False).main(render_curves=False)
    return found


def assert_equal(found, theirs):
    """All scores of the devkit's summary, within 1e-9."""
    assert found['det/mAP'] == pytest.approx(theirs['mean_ap'], abs=1e-9)
    assert found['det/NDS'] == pytest.approx(theirs['nd_score'], abs=1e-9)
    for ours, name in ERRORS.items():
        assert found[f'det/m{ours}'] == pytest.approx(theirs['tp_errors'][name], abs=1e-9)
    for label in CLASSES:
        assert found[f'det/AP_{label}'] == pytest.approx(theirs['mean_dist_aps'][label], abs=1e-9)
        for distance, ap in theirs['label_aps'][label].items():
            assert found[f'det/AP_{label}_{distance:g}'] == pytest.approx(ap, abs=1e-9)
        for ours, name in ERRORS.items():
            expected = theirs['label_tp_errors'][label][name]
            assert found[f'det/{ours}_{label}'] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert len(found) == 7 + 10 * (1 + 4 + 5)


@pytest.mark.parametrize('frame, noise', [
    ('lidar', 1.0), ('ego', 1.0), ('ego_ground', 1.0), ('ego', 0.3)])
def test_equal_to_the_devkit(toytown_nuscenes, tmp_path, frame, noise):
    dataset = data(toytown_nuscenes, frame=frame)
    samples = list(guesses(dataset, noise=noise))
    found = score(dataset, samples, absent='devkit', jsonfile_prefix=str(tmp_path))
    assert_equal(found, by_the_devkit(toytown_nuscenes, tmp_path))
    assert 0.05 < found['det/mAP'] < 0.9 and found['det/mAOE'] > 0.05
    # the ground truth of the file is that of the data set
    again = score(dataset, samples, absent='devkit', prepared=False, data_root=toytown_nuscenes,
                  ann_file='nuscenes_infos_val.pkl')
    assert all(again[key] == pytest.approx(value, abs=1e-9, nan_ok=True)
               for key, value in found.items())


@pytest.mark.parametrize('frame', ['lidar', 'ego', 'ego_ground'])
def test_the_truth_has_no_errors_in_any_frame(toytown_nuscenes, frame):
    """Boxes and velocities go to the samples' frame and back: only float32 is between."""
    dataset = data(toytown_nuscenes, frame=frame)
    found = score(dataset, guesses(dataset, noise=0))
    for name in ('mATE', 'mASE', 'mAOE', 'mAVE'):
        assert found[f'det/{name}'] < 1e-4, name
    known = [found[f'det/AP_{name}'] for name in CLASSES]
    # each object was predicted twice: half of what comes before the last one is a false alarm
    assert np.nanmin(known) > 0.5 and np.isfinite(known).sum() > 5


def rack_around(root, tokens, copy):
    """A copy of a data set's tables in which a bicycle rack stands around each annotation."""
    shutil.copytree(root / 'v1.0-mini', copy / 'v1.0-mini')
    for name in ('samples', 'maps'):
        (copy / name).symlink_to(root / name)
    paths = {name: copy / 'v1.0-mini' / f'{name}.json' for name in (
        'category', 'instance', 'sample_annotation')}
    rows = {name: json.loads(path.read_text()) for name, path in paths.items()}
    category, = (row['token'] for row in rows['category']
                 if row['name'] == 'static_object.bicycle_rack')
    for n, token in enumerate(tokens):
        bike, = (row for row in rows['sample_annotation'] if row['token'] == token)
        rows['instance'].append(dict(
            token=f'rack{n}', category_token=category, nbr_annotations=1,
            first_annotation_token=f'r{n}', last_annotation_token=f'r{n}'))
        rows['sample_annotation'].append(dict(
            bike, token=f'r{n}', instance_token=f'rack{n}', size=[3.0, 4.0, 2.0], prev='', next='',
            attribute_tokens=[]))
    for name, path in paths.items():
        path.write_text(json.dumps(rows[name]))
    return copy


def test_two_wheelers_in_racks_do_not_count(toytown_nuscenes, tmp_path):
    from nuscenes.nuscenes import NuScenes
    devkit = NuScenes('v1.0-mini', str(toytown_nuscenes), verbose=False)
    val = {frame['token'] for frame in load_infos(
        str(toytown_nuscenes / 'nuscenes_infos_val.pkl'))['data_list']}
    cycles = [row['token'] for row in devkit.sample_annotation if row['sample_token'] in val
              and row['category_name'] in ('vehicle.bicycle', 'vehicle.motorcycle')]
    (tmp_path / 'copy').mkdir()
    copy = rack_around(toytown_nuscenes, cycles[::2], tmp_path / 'copy')
    nuscenes.convert(str(copy), None, 'v1.0-mini', max_sweeps=0, only=('val', ))
    dataset = data(copy)
    found = score(dataset, guesses(dataset), absent='devkit', jsonfile_prefix=str(tmp_path))
    assert_equal(found, by_the_devkit(copy, tmp_path))
    without = data(toytown_nuscenes)
    other = score(without, guesses(without), absent='devkit')
    assert any(found[f'det/AP_{name}'] != other[f'det/AP_{name}']
               for name in ('bicycle', 'motorcycle'))


# By hand ------------------------------------------------------------------------------------------


CAR = [10.0, 0, 0, 4, 2, 1, 0, 0, 0]


def instance(box=CAR, label=0, points=5, attribute='vehicle.parked', **more):
    return dict(bbox_3d=list(box[:7]), velocity=list(box[7:]), bbox_label_3d=label,
                num_lidar_pts=points, num_radar_pts=0, attribute=attribute, **more)


class Frames:
    """A data set as the metric sees it: each frame a list of instances."""

    def __init__(self, *frames, classes=('car', 'truck'), **info):
        self.frames = [dict(token=f't{n}', instances=instances, **info)
                       for n, instances in enumerate(frames)]
        self.metainfo = dict(classes=classes, categories={c: n for n, c in enumerate(classes)})

    def __len__(self):
        return len(self.frames)

    def get_data_info(self, n):
        return self.frames[n]


def predicted(token, *boxes, classes=('car', 'truck'), **meta):
    """A sample with (box, score) or (box, score, label)."""
    values = torch.tensor([box for box, *_ in boxes], dtype=torch.float64).reshape(-1, 9)
    return dict(token=token, classes=classes, pred_instances_3d=dict(
        bboxes_3d=LiDARInstance3DBoxes(values, 9, origin=(.5, .5, .5)),
        scores_3d=torch.tensor([score for _, score, *_ in boxes]),
        labels_3d=torch.tensor([label[0] if label else 0 for _, _, *label in boxes],
                               dtype=torch.int64)), **meta)


def at(x, y=0.0, **changes):
    names = dict(length=3, width=4, height=5, yaw=6, vx=7, vy=8)
    box = [x, y, *CAR[2:]]
    for name, value in changes.items():
        box[names[name]] = value
    return box


def ap(recalls, precisions):
    """The AP of nuScenes, without numpy: precision at recalls 0.11 to 1, over 0.1, of at most 0.9.

    Between two recalls the precision is interpolated, before the first it is the first, beyond the
    last it is 0; at equal recalls the last one counts.
    """
    total = 0.0
    for percent in range(11, 101):
        recall, precision = percent / 100, 0.0
        for n, (r, p) in enumerate(zip(recalls, precisions)):
            if recall < recalls[0]:
                precision = precisions[0]
            elif r <= recall:
                precision = p if r == recall else 0.0
                if r < recall and n + 1 < len(recalls) and recalls[n + 1] > recall:
                    share = (recall - r) / (recalls[n + 1] - r)
                    precision = p + share * (precisions[n + 1] - p)
        total += max(precision - 0.1, 0) / 0.9
    return total / 90


def test_average_precision_of_three_boxes_by_hand():
    """Two cars; predictions 0.3 m off, nowhere, and 1.5 m off, in the order of their scores."""
    dataset = Frames([instance(at(10)), instance(at(20, 5))])
    sample = predicted('t0', (at(20, 6.5), 0.7), (at(10.3), 0.9), (at(-10), 0.8))
    found = score(dataset, [sample])
    near = (39 * 0.9 + (1 / 3 - 0.1)) / 90 / 0.9  # precision 1 at 0.11 to 0.49, 1/3 at 0.5, then 0
    # precision 1 at 0.11 to 0.49; from 0.5 to 1 the line from 1/2 to 2/3: 51 values
    far = (39 * 0.9 + 51 * ((1 / 2 + 2 / 3) / 2 - 0.1)) / 90 / 0.9
    assert near == pytest.approx(0.4362139917695473) and far == pytest.approx(0.7376543209876543)
    assert near == pytest.approx(ap([.5, .5, .5], [1, 1 / 2, 1 / 3]), abs=1e-12)
    assert far == pytest.approx(ap([.5, .5, 1], [1, 1 / 2, 2 / 3]), abs=1e-12)
    for distance, expected in (('0.5', near), ('1', near), ('2', far), ('4', far)):
        assert found[f'det/AP_car_{distance}'] == pytest.approx(expected, abs=1e-12)
    assert found['det/AP_car'] == found['det/mAP'] == pytest.approx((near + far) / 2, abs=1e-12)


def test_errors_and_nds_by_hand():
    """A car that is 0.5 m off, twice as high, turned by 0.2 rad and not at rest."""
    dataset = Frames([instance(at(10))])
    found = score(dataset, [predicted('t0', (at(10.3, 0.4, height=2, yaw=0.2, vx=1.0), 0.9))])
    assert {key: found[f'det/{key}_car'] for key in ('AP', *ERRORS)} == pytest.approx(
        dict(AP=0.75, ATE=0.5, ASE=0.5, AOE=0.2, AVE=1.0, AAE=1.0), abs=1e-6)
    assert found['det/NDS'] == pytest.approx((5 * 0.75 + 0.5 + 0.5 + 0.8) / 10, abs=1e-6)


@pytest.mark.parametrize('name, speed, attribute', [
    ('car', 0.3, 'vehicle.moving'), ('car', 0.2, 'vehicle.parked'), ('truck', 0, 'vehicle.parked'),
    ('trailer', 0, 'vehicle.parked'), ('construction_vehicle', 0, 'vehicle.parked'),
    ('bus', 0, 'vehicle.stopped'), ('bus', 1, 'vehicle.moving'),
    ('bicycle', 1, 'cycle.with_rider'), ('motorcycle', 0, 'cycle.without_rider'),
    ('pedestrian', 0.21, 'pedestrian.moving'), ('pedestrian', 0.1, 'pedestrian.standing'),
    ('barrier', 9, ''), ('traffic_cone', 0, ''), ('tram', 3, '')])
def test_attributes_follow_from_class_and_speed(name, speed, attribute):
    assert attribute_of(name, speed) == attribute


# What counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize('annotated, expected', [
    (dict(box=at(49)), 0.5), (dict(box=at(51)), 1.0), (dict(points=0), 1.0),
    (dict(points=1), 0.5)])
def test_objects_far_away_or_without_points_do_not_count(annotated, expected):
    """A second car that is not found halves the recall if it counts."""
    dataset = Frames([instance(at(5, 8)), instance(**annotated)])
    found = score(dataset, [predicted('t0', (at(5, 8), 0.9), (at(60), 0.95))])
    recall = ap([expected], [1.0])
    assert found['det/AP_car'] == pytest.approx(recall, abs=1e-12)


def test_distances_are_from_the_vehicle_and_boxes_in_the_world():
    """A LiDAR 10 m ahead of the vehicle, which faces the world's +y at (1000, 2000)."""
    ego2global = np.array([[0, -1, 0, 1000], [1, 0, 0, 2000], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    lidar2ego = np.eye(4)
    lidar2ego[0, 3] = 10
    dataset = Frames([instance(at(39)), instance(at(41))], ego2global=ego2global.tolist(),
                     lidar_points=dict(lidar2ego=lidar2ego.tolist()))
    metric = NuScenesDetectionMetric()
    metric.prepare(dataset)
    truth = metric.truth['t0']
    np.testing.assert_allclose(truth.boxes[:, :2], [[1000, 2049], [1000, 2051]])
    np.testing.assert_allclose(truth.boxes[:, 6], np.pi / 2)
    assert truth.outside(truth.boxes, truth.names, metric.ranges).tolist() == [False, True]
    sample = predicted('t0', (at(39, vx=2), 0.5), lidar2global=ego2global @ lidar2ego)
    metric.process({}, [sample])
    np.testing.assert_allclose(metric.results[0]['boxes'][0], [
        1000, 2049, 0, 4, 2, 1, np.pi / 2, 0, 2], atol=1e-12)
    assert metric.evaluate(1)['det/AP_car'] == ONE


def test_augmentation_of_the_sample_is_undone():
    dataset = Frames([instance(at(10, 5))])
    bev_aug = np.diag([-2.0, 2, 2, 1])
    box = at(-20, 10, length=8, width=4, height=2, yaw=np.pi)
    found = score(dataset, [predicted('t0', (box, 0.9), bev_aug=bev_aug)])
    assert found['det/AP_car'] == ONE
    assert max(found[f'det/{name}_car'] for name in ('ATE', 'ASE', 'AOE', 'AVE')) < 1e-6


def test_a_class_that_never_occurs_has_no_score(capsys):
    MMLogger.get_instance('detection')
    dataset = Frames([instance(at(10))])
    sample = predicted('t0', (at(10), 0.9), (at(5), 0.9, 1))
    found = score(dataset, [sample])
    assert found['det/AP_car'] == found['det/mAP'] == ONE and np.isnan(found['det/AP_truck'])
    assert np.isnan(found['det/ATE_truck']) and found['det/NDS'] == pytest.approx(1)
    text = ''.join(capsys.readouterr())
    assert 'NuScenesDetectionMetric: no ground truth: no score for AP_truck' in text
    row, = (line.split() for line in text.splitlines() if line.startswith('truck '))
    assert row == ['truck', '-', '-', '-', '-', '-', '-']
    row, = (line.split() for line in text.splitlines() if line.startswith('car '))
    assert row == ['car', '1.000', '0.000', '0.000', '0.000', '0.000', '0.000']
    with_zeros = score(dataset, [sample], absent='devkit')
    assert (with_zeros['det/mAP'], with_zeros['det/mATE']) == (pytest.approx(0.5), 0.5)


def test_what_is_not_annotated_has_no_score():
    unknown = at(10, vx=NAN, vy=NAN)
    found = score(Frames([instance(unknown, attribute='')]), [predicted('t0', (at(10), 0.9))])
    assert (found['det/AP_car'], found['det/ATE_car']) == (ONE, 0)
    assert np.isnan([found[f'det/{key}'] for key in ('mAVE', 'mAAE', 'AVE_car', 'NDS')]).all()


def test_a_part_of_the_classes_and_classes_of_other_data_sets():
    names = ('car', 'tram')
    dataset = Frames([instance(at(10)), instance(at(60), 1, attribute='')], classes=names)
    sample = predicted('t0', (at(10), 0.9), (at(60), 0.8, 1), classes=names)
    found = score(dataset, [sample], class_range=dict(tram=70))
    assert (found['det/AP_car'], found['det/AP_tram'], found['det/mAP']) == (ONE, ONE, ONE)
    found = score(dataset, [sample], classes=('car', ))
    assert found['det/mAP'] == ONE and 'det/AP_tram' not in found
    with pytest.raises(UserError, match=r"class_range: no range of the class 'tram'; add"):
        score(dataset, [sample])
    with pytest.raises(UserError, match=r"classes: the data set has no class 'cars'; did you mean "
                       "'car'"):
        score(dataset, [sample], classes=('cars', ))


def test_of_too_many_boxes_the_best_count(capsys):
    MMLogger.get_instance('many')
    dataset = Frames([instance(at(10))])
    boxes = [(at(-20 - n / 100), 0.5) for n in range(600)]
    found = score(dataset, [predicted('t0', *boxes, (at(10), 0.4))])
    assert found['det/AP_car'] == 0
    assert 'a frame has 601 boxes; of such frames the 500' in ''.join(capsys.readouterr())
    found = score(dataset, [predicted('t0', *boxes, (at(10), 0.6))])
    assert found['det/AP_car'] == pytest.approx(89 / 90)   # at recall 1, 499 false alarms follow


# Submissions --------------------------------------------------------------------------------------


def test_submission_in_the_devkits_format(tmp_path):
    dataset = Frames([instance(at(10))], [], ego2global=np.eye(4).tolist())
    pose = dict(lidar2global=np.eye(4))
    samples = [predicted('t0', (at(10, yaw=np.pi / 2, vx=3.0), 0.5), **pose),
               predicted('t1', **pose)]
    score(dataset, samples, jsonfile_prefix=str(tmp_path), modality=dict(use_lidar=True))
    path = tmp_path / 'pred_instances_3d' / 'results_nusc.json'
    content = json.loads(path.read_text())
    assert content['meta'] == dict(use_camera=False, use_lidar=True, use_radar=False, use_map=False,
                                   use_external=False)
    box, = content['results']['t0']
    assert content['results']['t1'] == []
    assert box.pop('rotation') == pytest.approx([0.5 ** 0.5, 0, 0, 0.5 ** 0.5])
    assert box == dict(
        sample_token='t0', translation=[10.0, 0.0, 0.0], size=[2.0, 4.0, 1.0], velocity=[3.0, 0.0],
        detection_name='car', detection_score=0.5, attribute_name='vehicle.moving')


@pytest.mark.parametrize('format_only', [True, False])
def test_a_split_without_annotations_is_written_and_not_scored(tmp_path, format_only, capsys):
    MMLogger.get_instance('test_split')
    dataset = Frames([], [], ego2global=np.eye(4).tolist())
    samples = [predicted(token, (at(10), 0.5), lidar2global=np.eye(4)) for token in ('t0', 't1')]
    found = score(dataset, samples, jsonfile_prefix=str(tmp_path), format_only=format_only)
    content = json.loads((tmp_path / 'pred_instances_3d' / 'results_nusc.json').read_text())
    assert [len(boxes) for boxes in content['results'].values()] == [1, 1]
    text = ''.join(capsys.readouterr())
    assert 'the data have no annotations: nothing to score' in text
    if format_only:
        assert found == {}
    else:
        assert np.isnan(list(found.values())).all()
        assert 'NuScenesDetectionMetric: no ground truth: nothing to score' in text


# What does not fit --------------------------------------------------------------------------------


def test_another_info_file_is_found_before_the_inference(toytown_nuscenes):
    metric = NuScenesDetectionMetric('nuscenes_infos_train.pkl', str(toytown_nuscenes))
    with pytest.raises(UserError, match=r'ann_file: .*infos_train.pkl has 4 frames, the data set '
                       '4; 8 are in one of them only'):
        metric.prepare(data(toytown_nuscenes))
    metric = NuScenesDetectionMetric('nuscenes_infos_val.pkl', str(toytown_nuscenes))
    with pytest.raises(UserError, match='has 4 frames, the data set 2; 2 are in one of them only '
                       r'\(it alone has'):
        metric.prepare(data(toytown_nuscenes, indices=2))
    metric.prepare(data(toytown_nuscenes))
    # without the tools, at the first batch
    metric = NuScenesDetectionMetric('nuscenes_infos_train.pkl', str(toytown_nuscenes))
    dataset = data(toytown_nuscenes)
    metric.dataset_meta = dataset.metainfo
    with pytest.raises(UserError, match=r'frame \w+ is not in .*infos_train.pkl \(4 frames\)'):
        metric.process({}, [next(guesses(dataset))])
    part = data(toytown_nuscenes, indices=2)     # a part of a data set is scored as it is
    assert 0 < score(part, guesses(part))['det/mAP'] < 1


@pytest.mark.parametrize('which', ['test', 'val'])
def test_the_runner_lets_metrics_see_the_data_first(tmp_path, monkeypatch, which):
    monkeypatch.syspath_prepend('tests/toy')
    cfg = load_config('tests/toy/toy_config.py')
    cfg.work_dir = str(tmp_path)
    runner = build_runner(cfg)
    seen = []
    metric, = getattr(runner, f'build_{which}_loop')(
        dict(type=f'{which.title()}Loop')).evaluator.metrics
    monkeypatch.setattr(type(metric), 'prepare', lambda self, data: seen.append(len(data)),
                        raising=False)
    getattr(runner, f'build_{which}_loop')(dict(type=f'{which.title()}Loop'))
    assert seen == [12]


def test_errors():
    dataset = Frames([instance(at(10))], [])
    with pytest.raises(UserError, match='1 of 2 frames were not predicted, such as t1'):
        score(dataset, [predicted('t0')])
    for box in (at(NAN), at(5, vx=NAN), at(5, length=0.0)):
        with pytest.raises(UserError, match='frame t0: box 1 of the prediction is not finite'):
            score(dataset, [predicted('t0', (at(5), 0.5), (box, 0.5))])
    with pytest.raises(UserError, match='the sample has no pred_instances_3d'):
        score(dataset, [dict(token='t0')])
    with pytest.raises(UserError, match='frame t0 has no lidar2global, but a submission has to be'):
        score(dataset, [predicted('t0')], jsonfile_prefix='nowhere')
    with pytest.raises(UserError, match='frame t0 has no lidar2global, but the ground truth is in'):
        score(Frames([], ego2global=np.eye(4).tolist()), [predicted('t0')])
    with pytest.raises(UserError, match="eval_version: 'detection_2018' is no configuration"):
        score(dataset, [predicted('t0')], eval_version='detection_2018')
    with pytest.raises(UserError, match='no ground truth; name the info file'):
        score(dataset, [predicted('t0')], prepared=False)
    for options, message in ((dict(absent='zero'), "absent: expected 'skip' or 'devkit'"),
                             (dict(format_only=True), 'name its folder with jsonfile_prefix'),
                             (dict(modality=dict(camera=True)), "did you mean 'use_camera'")):
        with pytest.raises(UserError, match=message):
            NuScenesDetectionMetric(**options)


def test_metrics_that_checkpoints_may_follow():
    names = NuScenesDetectionMetric().names()
    found = score(Frames([instance(at(10))]), [predicted('t0', (at(10), 0.5))])
    assert {'mAP', 'NDS', 'mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE'} <= set(names)
    for key in found:
        assert any(key == f'det/{name}' or key.startswith(f'det/{name}_') for name in names), key


# Processes ----------------------------------------------------------------------------------------


SIZE = 5


def measure(rank, processes, folder):
    """One process's part of an evaluation of five frames; the first writes the scores."""
    if processes > 1:
        torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank,
                                             world_size=processes)
    logging.disable()
    dataset = Frames(*[[instance(at(10 + n)), instance(at(-8, n), 1)] for n in range(SIZE)])
    metric = NuScenesDetectionMetric()
    metric.prepare(dataset)
    for n in DefaultSampler(range(SIZE), shuffle=False):
        metric.process({}, [predicted(f't{n}', (at(10.7 + n), 0.5 + n / 10), (at(n), 0.7, 1))])
    assert len(metric.results) == -(-SIZE // processes)
    scores = metric.evaluate(SIZE)
    if rank == 0:
        torch.save(scores, f'{folder}/scores_{processes}.pth')


def test_two_processes_count_each_of_five_frames_once(tmp_path):
    try:
        measure(0, 1, tmp_path)
    finally:
        logging.disable(logging.NOTSET)
    torch.multiprocessing.start_processes(measure, (2, str(tmp_path)), 2, start_method='fork')
    one, two = (torch.load(tmp_path / f'scores_{n}.pth') for n in (1, 2))
    np.testing.assert_equal(two, one)
    assert one['det/AP_car'] == pytest.approx(0.75) and one['det/AP_truck'] == 0


def test_share_of_objects_that_are_found():
    def instances(rows, **more):
        rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)
        boxes = torch.cat([rows[:, :2], torch.zeros(len(rows), 1), torch.ones(len(rows), 4)], 1)
        return InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes), labels_3d=rows[:, 2].long(),
                            **more)

    truth = instances([(0, 0, 0), (10, 0, 1), (20, 0, 0), (30, 0, 1)])
    found = instances([(0.3, 0.3, 0), (10, 0.6, 1), (20, 0, 1), (30, 0, 1)],
                      scores_3d=torch.tensor([0.9, 0.9, 0.9, 0.05]))
    assert found_share(found, truth, 0.5) == 0.25
    assert found_share(found, truth, 0.7) == 0.5
    assert found_share(found, truth, 0.7, score=0.0) == 0.75
    assert found_share(found[:0], truth, 1.0) == 0.0
    assert math.isnan(found_share(found, truth[:0], 1.0))
