"""Annotated boxes from the info file to the model."""
import copy
import pickle

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints
from mmengine.registry import init_default_scope

from mmdet3d_plugin.datasets.convention import check_convention
from mmdet3d_plugin.datasets.transforms import GlobalRotScaleTransFlip, PackBEVInputs
from mmdet3d_plugin.datasets.transforms.augment import apply_bev_aug, rotate
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import CameraRig, rigid
from mmdet3d_plugin.structures import load_infos

NAN = float('nan')
CLASSES = ('car', 'pedestrian')
BOXES = np.array([[10, 4, -1, 4.5, 1.8, 1.5, 0.3, 3, 1], [-6, 0.2, -1, 4, 2, 1.6, 3.1, 0, 0],
                  [30, -9, -1, 1, 0.6, 1.7, 1.2, NAN, NAN]])


def frame(boxes=BOXES):
    rng = np.random.default_rng(0)
    inside = rng.uniform(-0.5, 0.5, (len(boxes), 40, 3)) * boxes[:, None, 3:6]
    inside = [rigid.apply(rigid.rigid(translation=box[:3]) @ rigid.yaw_matrix(box[6]), points)
              for box, points in zip(boxes, inside)]
    points = np.concatenate([*inside, rng.normal(0, 6, (200, 3))]).astype(np.float32)
    annotations = dict(
        gt_bboxes_3d=LiDARInstance3DBoxes(boxes.astype(np.float32), 9, origin=(.5, .5, .5)),
        gt_labels_3d=np.array([0, 0, 1])[:len(boxes)],
        num_points=np.array([40, 2, -1])[:len(boxes)],
        visibility=np.array([4, 1, 2])[:len(boxes)],
        valid=np.array([True, False, True])[:len(boxes)])
    return dict(points=LiDARPoints(torch.from_numpy(points), points_dim=3), ann_info=annotations,
                classes=CLASSES, lidar2global=np.eye(4))


def packed(results):
    return PackBEVInputs()(results)['data_samples'].gt_instances_3d


def centred(instances):
    boxes = instances.bboxes_3d
    return torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], 1).numpy()


# What is packed -----------------------------------------------------------------------------------


def test_boxes_velocities_and_counts_are_packed():
    sample = PackBEVInputs()(frame())['data_samples']
    found = sample.gt_instances_3d
    assert type(found.bboxes_3d) is LiDARInstance3DBoxes
    np.testing.assert_allclose(centred(found), BOXES, atol=1e-6)
    np.testing.assert_allclose(found.bboxes_3d.tensor[0], [
        10, 4, -1.75, 4.5, 1.8, 1.5, 0.3, 3, 1], atol=1e-6)
    assert found.labels_3d.tolist() == [0, 0, 1] and found.labels_3d.dtype == torch.int64
    assert found.num_points.tolist() == [40, 2, -1] and found.valid.tolist() == [True, False, True]
    assert found.visibility.tolist() == [4, 1, 2]
    assert sample.metainfo['classes'] == CLASSES
    assert sample.metainfo['lidar2global'].dtype == np.float64


# Augmentation -------------------------------------------------------------------------------------


def test_boxes_and_velocities_by_hand():
    """A quarter turn, twice the size, then x negated: the mirror image of what faces +y."""
    matrix = np.diag([-1.0, 1, 1, 1]) @ np.diag([2.0, 2, 2, 1]) @ rigid.yaw_matrix(np.pi / 2)
    results = frame(np.array([[10, 4, -1, 4.5, 1.8, 1.5, 0.3, 3, 1.0]]))
    apply_bev_aug(results, matrix)
    np.testing.assert_allclose(centred(packed(results)), [
        [8, 20, -2, 9, 3.6, 3, np.pi / 2 - 0.3, 2, 6]], atol=1e-5)


def augmentations():
    betas = GlobalRotScaleTransFlip((0.95, 1.05), 22.5, 0.0, (0.5, 0.5))  # BEVDet's and BEVDepth's
    yield from [(f'all {seed}', betas) for seed in range(6)]
    yield from [(f'flip {n}', GlobalRotScaleTransFlip((1, 1), 0.0, 0.0, flip))
                for n, flip in enumerate(((1, 0), (0, 1), (1, 1)))]
    yield 'rotation', GlobalRotScaleTransFlip((1, 1), 180.0, 0.0, (0, 0))
    yield 'scale', GlobalRotScaleTransFlip((1.2, 1.2), 0.0, 0.0, (0, 0))
    yield 'bevfusion', GlobalRotScaleTransFlip()
    yield 'yaw', lambda results: rotate(results, 3, 16, flip=True)
    yield 'twice', lambda results: betas(rotate(results, -5, 16))


@pytest.mark.parametrize('name, augment', augmentations(), ids=[n for n, _ in augmentations()])
def test_points_inside_stay_inside_and_objects_go_where_they_went(name, augment):
    torch.manual_seed(len(name) + int(name[-1]) if name[-1].isdigit() else 3)
    results = augment(frame())
    before, after = BOXES, centred(packed(results))
    inside = rigid.points_in_boxes(frame()['points'].tensor, before, margin=1e-4)
    found = rigid.points_in_boxes(results['points'].tensor, after, margin=1e-4)
    assert (inside.sum(1) >= 40).all()
    np.testing.assert_array_equal(found, inside)
    # a second later: the object at its new place, moved, is where its velocity leads to
    moving = np.isfinite(before[:, 7])
    later = np.c_[before[:, :2] + before[:, 7:], before[:, 2]]
    moved = rigid.apply(results['bev_aug'], later)
    np.testing.assert_allclose((after[:, :2] + after[:, 7:])[moving], moved[moving, :2], atol=1e-4)
    assert np.isnan(after[2, 7:]).all()
    # what is ahead of a box stays ahead of it
    ahead = before[:, :3] + np.stack([np.cos(before[:, 6]), np.sin(before[:, 6]), 0 * before[:, 6]],
                                     -1)
    step = rigid.apply(results['bev_aug'], ahead)[:, :2] - after[:, :2]
    np.testing.assert_allclose(np.arctan2(step[:, 1], step[:, 0]), after[:, 6], atol=1e-4)


def test_the_ranges_of_bevdet_and_bevdepth():
    torch.manual_seed(0)
    augment = GlobalRotScaleTransFlip((0.95, 1.05), 22.5, 0.0, (0.5, 0.5))
    drawn = np.array([augment(dict())['bev_aug'] for _ in range(400)])
    assert (drawn[:, :3, 3] == 0).all()
    scale = np.abs(np.linalg.det(drawn[:, :3, :3])) ** (1 / 3)
    assert 0.95 <= scale.min() < 0.952 and 1.048 < scale.max() <= 1.05
    flips = np.sign(drawn[:, [0, 1], [0, 1]])             # |yaw| < 90: the signs are the flips
    assert all(60 < (flips == pair).all(1).sum() < 140 for pair in ([1, 1], [1, -1], [-1, 1]))
    yaw = np.rad2deg(np.arctan2(np.abs(drawn[:, 1, 0]), np.abs(drawn[:, 0, 0])))
    assert 22 < yaw.max() <= 22.5


# Which boxes --------------------------------------------------------------------------------------


@pytest.mark.parametrize('options, kept', [
    (dict(), [0, 1, 2]), (dict(point_cloud_range=(-20, -20, -5, 20, 20, 3)), [0, 1]),
    (dict(classes=('pedestrian', )), [2]), (dict(min_points=3), [0, 2]),
    (dict(min_visibility=2), [0, 2]), (dict(valid=True), [0, 2]),
    (dict(classes=('car', ), valid=True, point_cloud_range=(-1, -1, -1, 1, 1, 1)), [])])
def test_boxes_are_left_out(options, kept):
    found = packed(TRANSFORMS.build(dict(type='FilterBoxes', **options))(frame()))
    np.testing.assert_allclose(centred(found), BOXES[kept].reshape(-1, 9), atol=1e-6)
    assert found.labels_3d.tolist() == [[0, 0, 1][n] for n in kept]
    assert found.num_points.tolist() == [[40, 2, -1][n] for n in kept]


def test_the_range_is_that_of_the_augmented_frame():
    results = frame()
    apply_bev_aug(results, np.diag([-1.0, 1, 1, 1]))
    keep = TRANSFORMS.build(dict(type='FilterBoxes', point_cloud_range=(0, -50, -5, 50, 50, 3)))
    assert centred(packed(keep(results)))[:, 0].tolist() == [6]     # it was 6 m behind


@pytest.mark.parametrize('options, message', [
    (dict(point_cloud_range=(0, 0, 1, 1)), 'FilterBoxes.point_cloud_range: expected x, y, z'),
    (dict(point_cloud_range=(5, 0, 0, 1, 1, 1)), 'FilterBoxes.point_cloud_range: expected x, y, z'),
    (dict(classes=('cars', )), r"no class 'cars'; did you mean 'car'\?")])
def test_misuse_of_the_filter(options, message):
    with pytest.raises(UserError, match=message):
        TRANSFORMS.build(dict(type='FilterBoxes', **options))(frame())
    with pytest.raises(UserError, match='FilterBoxes: the targets are rasterised already'):
        TRANSFORMS.build(dict(type='FilterBoxes'))(dict(frame(), gt_bev={}))


def test_training_needs_a_box_that_is_kept(toytown_nuscenes, tmp_path):
    infos = load_infos(str(toytown_nuscenes / 'nuscenes_infos_train.pkl'))
    for info in infos['data_list']:
        info['instances'] = [i for i in info['instances'] if i['bbox_label_3d'] != 3]
    path = tmp_path / 'no_bus.pkl'
    path.write_bytes(pickle.dumps(infos))
    pipeline = [dict(type='FilterBoxes', classes=('bus', )), dict(type='PackBEVInputs')]
    with pytest.raises(UserError, match='no ground truth to train on: no frame has an object of '
                       'bus'):
        build(toytown_nuscenes, pipeline, ann_file=str(path), test_mode=False)
    dataset = build(toytown_nuscenes, [dict(pipeline[0], classes=('bus', 'car')), pipeline[1]],
                    ann_file=str(path), test_mode=False)
    assert dataset[0]['data_samples'].gt_instances_3d.labels_3d.unique().tolist() == [0]


# Boxes of another convention ----------------------------------------------------------------------


def cars(number=4, **changes):
    """Frames with cars along roads of all directions, one in two of them moving."""
    yaws = np.linspace(-3, 3, number)
    instances = [dict(bbox_3d=[9.0 * n, 0, 0, 4.5, 1.8, 1.5, yaw], bbox_label_3d=2,
                      velocity=[8 * np.cos(yaw), 8 * np.sin(yaw)] if n % 2 else [NAN, NAN])
                 for n, yaw in enumerate(yaws)]
    return [dict(instances=instances[:number // 2]), dict(instances=[]),
            dict(instances=instances[number // 2:])]


def old(frames, sizes=True, yaws=True):
    for instance in (i for frame in frames for i in frame['instances']):
        x, y, z, length, width, height, yaw = instance['bbox_3d']
        instance['bbox_3d'] = [
            x, y, z, *((width, length) if sizes else (length, width)), height,
            -yaw - np.pi / 2 if yaws else yaw]
    return frames


def test_cars_of_another_convention_are_an_error():
    check_convention(cars(40), 2, 'x.pkl')
    with pytest.raises(UserError, match=r'x.pkl: cars are 1.8 m long and 4.5 m wide on average and '
                       r'\d+ of 20 moving cars do not face along their velocity. Boxes of mmdet3d '
                       r'before 1.0 .* yaw = -yaw - pi/2.*: convert the data set again'):
        check_convention(old(cars(40)), 2, 'x.pkl')
    with pytest.raises(UserError, match=r'1.8 m long and 4.5 m wide on average\.'):
        check_convention(old(cars(40), yaws=False), 2, 'x.pkl')
    with pytest.raises(UserError, match=r'x.pkl: \d+ of 20 moving cars do not face'):
        check_convention(old(cars(40), sizes=False), 2, 'x.pkl')


def test_what_says_nothing_about_the_convention():
    check_convention(old(cars(2)), 2, 'x.pkl')               # two cars
    check_convention(old(cars(40)), 1, 'x.pkl')              # other objects
    check_convention(old(cars(40)), None, 'x.pkl')
    check_convention(old(cars(40)), -1, 'x.pkl')
    check_convention([], 2, 'x.pkl')


@pytest.mark.parametrize('mode', [dict(), dict(test_mode=True)])
def test_data_sets_check_the_convention(toytown_nuscenes, tmp_path, mode):
    infos = load_infos(str(toytown_nuscenes / 'nuscenes_infos_train.pkl'))
    old(infos['data_list'])
    path = tmp_path / 'old.pkl'
    path.write_bytes(pickle.dumps(infos))
    with pytest.raises(UserError, match='old.pkl: cars are .* before 1.0'):
        build(toytown_nuscenes, ann_file=str(path), **mode)


# Frames of nuScenes -------------------------------------------------------------------------------


def build(root, pipeline=(), **kwargs):
    return DATASETS.build({**dict(
        type='NuScenesBEVDataset', data_root=str(root), ann_file='nuscenes_infos_val.pkl',
        pipeline=list(pipeline), test_mode=True), **kwargs})


@pytest.fixture(scope='module')
def frames(toytown_nuscenes):
    init_default_scope('mmdet3d')
    load = [dict(type=name) for name in ('LoadPointCloud', 'LoadMultiViewImages', 'PackBEVInputs')]
    return {name: [build(toytown_nuscenes, load, frame=name)[n] for n in range(4)]
            for name in ('lidar', 'ego', 'ego_ground')}


@pytest.mark.parametrize('name', ['lidar', 'ego', 'ego_ground'])
def test_boxes_reach_the_world_whatever_the_frame(frames, toytown_nuscenes, name):
    """As the devkit's tables have them: place, heading, velocity, size."""
    from nuscenes.nuscenes import NuScenes
    devkit = NuScenes('v1.0-mini', str(toytown_nuscenes), verbose=False)
    seen = moving = 0
    for packed in frames[name]:
        sample = packed['data_samples']
        pose = sample.metainfo['lidar2global']
        assert pose.shape == (4, 4) and pose.dtype == np.float64
        found = rigid.transform_boxes(pose, centred(sample.gt_instances_3d), pose[2, :3])
        tokens = devkit.get('sample', sample.metainfo['token'])['anns']
        truth = {tuple(np.round(r['translation'], 1)): r for r in (
            devkit.get('sample_annotation', token) for token in tokens)}
        for box, points in zip(found, sample.gt_instances_3d.num_points):
            record = truth[min(truth, key=lambda place: np.linalg.norm(box[:3] - place))]
            np.testing.assert_allclose(box[:3], record['translation'], atol=2e-4)
            np.testing.assert_allclose(box[[4, 3, 5]], record['size'], rtol=1e-6)
            w, *_, z = record['rotation']
            assert np.cos(box[6] - 2 * np.arctan2(z, w)) == pytest.approx(1, abs=1e-9)
            np.testing.assert_allclose(box[7:], devkit.box_velocity(record['token'])[:2], atol=1e-5)
            assert points == record['num_lidar_pts']
            seen, moving = seen + 1, moving + (np.abs(box[7:]).max() > 1)
    assert seen > 60 and moving > 5


def test_convention_frames_of_nuscenes(frames):
    """Origin and axes of the three frames, and of the LiDAR's points in them."""
    for lidar, ego, ground in zip(*frames.values()):
        poses = [f['data_samples'].metainfo['lidar2global'] for f in (lidar, ego, ground)]
        np.testing.assert_allclose(poses[2][:3, :3], poses[1][:3, :3], atol=1e-9)
        np.testing.assert_allclose(poses[1] @ [0, 0, -1.84, 1], poses[2][:, 3], atol=1e-9)
        assert abs(poses[2][2, 3]) < 1e-9                              # on the road
        np.testing.assert_allclose(poses[0][:3, 3], (poses[2] @ [0.944, 0, 1.84, 1])[:3], atol=1e-9)
        clouds = [rigid.apply(pose, f['inputs']['points'].double().numpy())
                  for pose, f in zip(poses, (lidar, ego, ground))]
        np.testing.assert_allclose(clouds[1], clouds[0], atol=1e-4)
        np.testing.assert_allclose(clouds[2], clouds[0], atol=1e-4)
        low = np.quantile(ground['inputs']['points'][:, 2], 0.05)      # most of them are road
        assert abs(low) < 0.2


@pytest.mark.parametrize('name', ['ego', 'ego_ground'])
def test_images_show_the_same_in_every_frame(frames, name):
    for lidar, other in zip(frames['lidar'], frames[name]):
        pixels = []
        for packed in (lidar, other):
            sample = packed['data_samples']
            corners = torch.from_numpy(rigid.box_corners(centred(sample.gt_instances_3d)))
            uv, _, valid = CameraRig.from_dicts([sample.cameras]).project(
                torch.cat([packed['inputs']['points'].double(), corners.flatten(0, 1)]).float())
            pixels.append((uv, valid))
        # boxes are upright in a frame; the LiDAR is tilted by less than a degree
        number = len(lidar['inputs']['points'])
        seen = pixels[0][1][..., :number] & pixels[1][1][..., :number]
        assert seen.sum() > 500
        np.testing.assert_allclose(pixels[0][0][..., :number, :][seen],
                                   pixels[1][0][..., :number, :][seen], atol=0.02)
        seen = pixels[0][1][..., number:] & pixels[1][1][..., number:]
        assert seen.sum() > 20
        distance = (pixels[0][0] - pixels[1][0])[..., number:, :][seen].norm(dim=-1)
        assert distance.median() < 1


def test_frames_without_boxes_have_nine_columns(toytown_nuscenes):
    dataset = build(toytown_nuscenes, metainfo=dict(classes=('car', )))
    info = dataset.get_data_info(0)
    empty = dict(info, eval_ann_info=dataset.parse_ann_info(dict(info, instances=[])))
    found = packed(empty)
    assert found.bboxes_3d.tensor.shape == (0, 9) and found.labels_3d.dtype == torch.int64
    assert found.valid.dtype == torch.bool and len(found.num_points) == 0


def test_unknown_frames_are_refused(toytown_nuscenes):
    with pytest.raises(UserError, match=r"NuScenesBEVDataset.frame: 'ego_grund' is none; did you "
                       "mean 'ego_ground'"):
        build(toytown_nuscenes, frame='ego_grund')


def test_ground_frame_of_infos_in_other_axes(toytown_nuscenes):
    """A converted keyframe: axes of the car at the LiDAR; without lidar2ego it is an error."""
    dataset = build(toytown_nuscenes, frame='ego_ground')
    raw = load_infos(str(toytown_nuscenes / 'nuscenes_infos_val.pkl'))
    raw['metainfo']['lidar_frame'] = 'x forward, y left, z up'
    for info in raw['data_list']:
        info['images'] = {}
    info, metainfo = raw['data_list'][0], raw['metainfo']
    dataset._metainfo = {}
    found = dataset.parse_frame(copy.deepcopy(info), {**metainfo, 'classes': CLASSES})
    expected = rigid.apply(info['lidar_points']['lidar2ego'], info['instances'][0]['bbox_3d'][:3])
    np.testing.assert_allclose(found['instances'][0]['bbox_3d'][:3], expected, atol=1e-9)
    assert found['classes'] == CLASSES
    del info['lidar_points']['lidar2ego']
    with pytest.raises(UserError, match="frame='ego_ground' needs lidar2ego"):
        dataset.parse_frame(info, {**metainfo, 'classes': CLASSES})
