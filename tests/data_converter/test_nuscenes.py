"""nuScenes from toytown's raw files: devkit, converter, mmdet3d, data set, model, metric."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, METRICS, TRANSFORMS
from mmengine.config import Config
from mmengine.structures import PixelData

pytest.importorskip('trimesh')
pytest.importorskip('embreex')
pytest.importorskip('nuscenes')

from data_converter import nuscenes  # noqa: E402
from data_converter.toytown import nuscenes_layout as layout  # noqa: E402
from data_converter.toytown.sensors import RayScene  # noqa: E402
from mmdet3d_plugin.datasets.bev_dataset import change_frame  # noqa: E402
from mmdet3d_plugin.errors import UserError  # noqa: E402
from mmdet3d_plugin.geometry import CameraRig, rigid  # noqa: E402
from mmdet3d_plugin.structures import load_infos  # noqa: E402
from tests.factories import CAMERA, GRID, LIDAR, build  # noqa: E402
from tools import create_data  # noqa: E402

MINI = 'v1.0-mini'
WRITE = ['toytown', '--layout', 'nuscenes', '--frames', '6', '--sequences', '2', '--seed', '3',
         '--supersample', '1', '--image-size', '90', '160', '--scan-size', '32', '256',
         '--sweeps', '1', '1', '--workers', '1', '--out-dir']
PREFIX = {'pts': 'samples/LIDAR_TOP', 'sweeps': 'sweeps/LIDAR_TOP',
          **{name: f'samples/{name}' for name in nuscenes.CAMERAS}}


def run(*words):
    args = create_data.parse_args(list(map(str, words)))
    args.run(args)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Two scenes of three key frames, written and converted by the command's own code."""
    root = tmp_path_factory.mktemp('nuscenes') / 'town'
    run(*WRITE, root)
    run('nuscenes', '--root-path', root, '--version', MINI, '--check')
    return root


@pytest.fixture(scope='module')
def devkit(root):
    from nuscenes.nuscenes import NuScenes
    return NuScenes(MINI, str(root), verbose=False)


def infos_of(root, split='train'):
    return load_infos(str(root / f'nuscenes_infos_{split}.pkl'))


def dataset(root, pipeline=(), split='train', **kwargs):
    return DATASETS.build({**dict(
        type='NuScenesBEVDataset', data_root=str(root), ann_file=f'nuscenes_infos_{split}.pkl',
        pipeline=list(pipeline)), **kwargs})


def table(root, name):
    return json.loads((root / MINI / f'{name}.json').read_text())


# The devkit and mmdet3d -----------------------------------------------------------------------


def test_truth_fed_back_scores_one_in_the_devkit(root, devkit, tmp_path):
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval
    from nuscenes.eval.detection.utils import category_to_detection_name

    results = {}
    for frame in infos_of(root, 'val')['data_list']:
        sample = devkit.get('sample', frame['token'])
        results[sample['token']] = boxes = []
        for token in sample['anns']:
            truth = devkit.get('sample_annotation', token)
            name = category_to_detection_name(truth['category_name'])
            if name:
                attributes = [devkit.get('attribute', a)['name'] for a in truth['attribute_tokens']]
                boxes.append(dict(
                    sample_token=sample['token'], translation=truth['translation'],
                    size=truth['size'], rotation=truth['rotation'], detection_name=name,
                    velocity=devkit.box_velocity(token)[:2].tolist(), detection_score=1.0,
                    attribute_name=(attributes or [''])[0]))
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(dict(results=results, meta=dict.fromkeys(
        ('use_camera', 'use_lidar', 'use_radar', 'use_map', 'use_external'), False))))
    metrics = DetectionEval(devkit, config_factory('detection_cvpr_2019'), str(path), 'mini_val',
                            str(tmp_path), verbose=False).main(render_curves=False)
    assert metrics['mean_ap'] == pytest.approx(1, abs=1e-12)
    assert metrics['nd_score'] == pytest.approx(1, abs=1e-12)


def test_mmdet3d_reads_the_same_files(root, tmp_path, capsys):
    """Its data set, its sweeps loader, and truth fed back in its metric."""
    data = DATASETS.build(dict(
        type='NuScenesDataset', data_root=str(root), ann_file='nuscenes_infos_val.pkl',
        data_prefix=PREFIX, pipeline=[], test_mode=True,
        modality=dict(use_lidar=True, use_camera=True)))
    metric = METRICS.build(dict(type='NuScenesMetric', data_root=str(root),
                                ann_file=str(root / 'nuscenes_infos_val.pkl'),
                                jsonfile_prefix=str(tmp_path)))
    metric.dataset_meta = dict(data.metainfo, version=MINI)
    for n in range(len(data)):
        info = data[n]
        assert all(os.path.isfile(camera['img_path']) for camera in info['images'].values())
        truth = info['eval_ann_info']
        labels = torch.from_numpy(truth['gt_labels_3d'])
        known = labels >= 0
        found = dict(bboxes_3d=truth['gt_bboxes_3d'][known], labels_3d=labels[known],
                     scores_3d=torch.ones(int(known.sum())))
        metric.process({}, [dict(pred_instances_3d=found, pred_instances={},
                                 sample_idx=info['sample_idx'])])
    scores = metric.evaluate(len(data))
    assert scores['NuScenes metric/pred_instances_3d_NuScenes/mAP'] == pytest.approx(1, abs=1e-12)
    # upright boxes of the world are written as upright in the tilted frame of the LiDAR
    assert scores['NuScenes metric/pred_instances_3d_NuScenes/NDS'] == pytest.approx(1, abs=1e-3)


def test_sweeps_land_in_the_key_frame_through_mmdet3d(root, devkit):
    data = DATASETS.build(dict(
        type='NuScenesDataset', data_root=str(root), ann_file='nuscenes_infos_train.pkl',
        data_prefix=PREFIX, test_mode=True, pipeline=[
            dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5, use_dim=5),
            dict(type='LoadPointsFromMultiSweeps', sweeps_num=1, test_mode=True,
                 remove_close=False)]))
    results = data[1]
    own, sweep = results['points'].tensor.numpy().reshape(2, -1, 4)  # x y z and time
    sample = devkit.get('sample', results['token'])
    key = devkit.get('sample_data', sample['data']['LIDAR_TOP'])
    before = devkit.get('sample_data', key['prev'])  # the nearest one
    assert not before['is_key_frame']
    np.testing.assert_allclose(sweep[:, 3], 0.25, atol=1e-4)
    raw = np.fromfile(root / before['filename'], '<f4').reshape(-1, 5)[:, :3]
    expected = rigid.apply(np.linalg.inv(chain(devkit, key)) @ chain(devkit, before),
                           raw.astype(np.float64))
    np.testing.assert_allclose(sweep[:, :3], expected, atol=1e-4)
    assert np.abs(expected - raw).max() > 0.5                  # the car moved


def chain(devkit, record):
    """Sensor to world by the devkit's records."""
    from nuscenes.utils.geometry_utils import transform_matrix
    from pyquaternion import Quaternion
    matrices = [transform_matrix(r['translation'], Quaternion(r['rotation'])) for r in (
        devkit.get('ego_pose', record['ego_pose_token']),
        devkit.get('calibrated_sensor', record['calibrated_sensor_token']))]
    return matrices[0] @ matrices[1]


def test_infos_say_what_the_devkit_says(root, devkit):
    seen = hidden = 0
    for split in ('train', 'val'):
        for frame in infos_of(root, split)['data_list']:
            sample = devkit.get('sample', frame['token'])
            scene = devkit.get('scene', sample['scene_token'])
            log = devkit.get('log', scene['log_token'])
            assert (frame['location'], frame['prev'], frame['next']) == (
                log['location'], sample['prev'], sample['next'])
            assert frame['timestamp'] == sample['timestamp'] / 1e6
            _, boxes, _ = devkit.get_sample_data(sample['data']['LIDAR_TOP'])
            assert len(boxes) == len(frame['instances'])
            lidar = chain(devkit, devkit.get('sample_data', sample['data']['LIDAR_TOP']))
            for box, instance in zip(boxes, frame['instances']):
                truth = devkit.get('sample_annotation', box.token)
                np.testing.assert_allclose(instance['bbox_3d'][:3], box.center, atol=1e-6)
                assert instance['bbox_3d'][3:6] == box.wlh[[1, 0, 2]].tolist()
                assert instance['bbox_3d'][6] == pytest.approx(
                    box.orientation.yaw_pitch_roll[0], abs=1e-3)
                assert instance['category'] == truth['category_name']
                names = [devkit.get('attribute', t)['name'] for t in truth['attribute_tokens']]
                assert instance['attribute'] == ''.join(names)
                assert (*nuscenes.ATTRIBUTES, '')[instance['attr_label']] == instance['attribute']
                assert instance['num_lidar_pts'] == truth['num_lidar_pts']
                velocity = np.linalg.inv(lidar[:3, :3]) @ devkit.box_velocity(box.token)
                velocity = velocity[:2] if np.isfinite(velocity[2]) else [np.nan] * 2
                np.testing.assert_allclose(instance['velocity'], velocity, atol=1e-6)
                seen += 1
                hidden += not instance['bbox_3d_isvalid']
            for name, camera in frame['images'].items():
                record = devkit.get('sample_data', sample['data'][name])
                np.testing.assert_allclose(camera['lidar2cam'],
                                           np.linalg.inv(chain(devkit, record)) @ lidar, atol=1e-9)
                assert camera['timestamp'] - frame['timestamp'] == pytest.approx(
                    layout.CAMERAS[name][-1] / 1000, abs=2e-6)
    assert seen > 100 and hidden > 0


def test_side_table_of_images(root, devkit):
    with np.load(root / 'nuscenes_images_train.npz') as file:
        images = dict(file)
    frame = infos_of(root)['data_list'][2]
    for name in nuscenes.CAMERAS:
        first, key = images[f'{name}.first'][2], images[f'{name}.key'][2]
        record = devkit.get('sample_data', frame['images'][name]['sample_data_token'])
        found = 0
        for row in range(key, first - 1, -1):
            assert images[f'{name}.path'][row].decode() == record['filename']
            sensor2global = images[f'{name}.ego2global'][row] @ images[f'{name}.cam2ego'][row]
            np.testing.assert_allclose(sensor2global, chain(devkit, record), atol=1e-9)
            found += 1
            if row > first:
                record = devkit.get('sample_data', record['prev'])
        assert found == 5 and record['prev'] == ''


def test_vehicles_of_lift_splat_bit_for_bit(root, copy, tmp_path):
    """From raw tables to the target of a tilted vehicle: the protocol with the devkit's boxes."""
    import cv2
    from nuscenes.nuscenes import NuScenes
    from nuscenes.utils.data_classes import Box
    from pyquaternion import Quaternion
    tilt = Quaternion(axis=(0.3, 1.0, 0.1), degrees=2.0)
    edit(copy, 'ego_pose', lambda rows: [row.update(
        rotation=(Quaternion(row['rotation']) * tilt).elements.tolist()) for row in rows])
    nuscenes.convert(str(copy), str(tmp_path / 'out'), MINI, max_sweeps=0)
    shutil.copytree(root / 'maps', copy / 'maps')
    kit = NuScenes(MINI, str(copy), verbose=False)
    drawn = 0
    for rows, turned in (('+x', lambda x: x), ('-x', lambda x: x[::-1, ::-1])):
        grid = dict(rows=rows, cols=f'{rows[0]}y')
        data = dataset(copy, [dict(
            type='RasterizeBEV', grid=grid, method='lift_splat',
            classes=[DATASETS.get('NuScenesBEVDataset').VEHICLES])],
            ann_file=str(tmp_path / 'out' / 'nuscenes_infos_train.pkl'))
        for n in range(len(data)):
            frame, expected = data[n], np.zeros((200, 200))
            sample = kit.get('sample', frame['token'])
            pose = kit.get('ego_pose', kit.get(
                'sample_data', sample['data']['LIDAR_TOP'])['ego_pose_token'])
            for token in sample['anns']:
                truth = kit.get('sample_annotation', token)
                if truth['category_name'].split('.')[0] == 'vehicle':
                    box = Box(truth['translation'], truth['size'], Quaternion(truth['rotation']))
                    box.translate(-np.array(pose['translation']))
                    box.rotate(Quaternion(pose['rotation']).inverse)
                    corners = np.round((box.bottom_corners()[:2].T + 50) / 0.5).astype(np.int32)
                    cv2.fillPoly(expected, [np.ascontiguousarray(corners[:, ::-1])], 1.0)
            np.testing.assert_array_equal(frame['gt_bev']['seg'][0], turned(expected))
            drawn += expected.sum()
    assert drawn > 2000


# From files to the metric ---------------------------------------------------------------------


def test_raw_files_to_metric(root):
    targets = dict(type='RasterizeBEV', grid=GRID, classes=[
        DATASETS.get('NuScenesBEVDataset').VEHICLES])
    pipeline = [
        dict(type='LoadStitchedPanorama', size=(64, 128), fov_deg=(22.5, -22.5),
             center=(0.95, 0, -.3), ground_z=-1.84, feather_px=8),
        dict(type='LoadPointCloud', min_range=2.5),
        dict(type='SphericalLiDARImage', native=(32, 256), size=(16, 64)), targets,
        dict(type='PackBEVInputs')]
    frames = [dataset(root, pipeline)[i] for i in range(2)]
    lidar = dict(LIDAR, encoder=dict(LIDAR['encoder'], in_channels=2))
    model = build(CAMERA, lidar, data_preprocessor=dict(
        type='BEVDataPreprocessor', lidar_mean=(.3, .3), lidar_std=(.3, .3)))
    data = dict(inputs={key: [f['inputs'][key] for f in frames] for key in frames[0]['inputs']},
                data_samples=[f['data_samples'] for f in frames])
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

    metric = METRICS.build(dict(type='BEVIoUMetric', ranges=(32, 20)))
    val = [dataset(root, pipeline, 'val', test_mode=True)[i] for i in range(2)]
    samples = model.eval().test_step(dict(
        inputs={key: [f['inputs'][key] for f in val] for key in val[0]['inputs']},
        data_samples=[f['data_samples'] for f in val]))
    metric.process({}, [sample.to_dict() for sample in samples])
    assert 0 <= metric.evaluate(2)['bev/IoU32'] < 100
    for sample in samples:
        assert sample.gt_bev.seg.any()
        sample.pred_bev = PixelData(seg=sample.gt_bev.seg)
    metric.process({}, [sample.to_dict() for sample in samples])
    assert metric.evaluate(2)['bev/IoU32'] == 100


def test_map_segmentation_from_the_base_config(root):
    """Six images, points and six classes: data set, model with six cameras, metric."""
    config = Config.fromfile('configs/_base_/datasets/nuscenes_map.py')
    pipeline = list(map(dict, config.fusion_test_pipeline))
    assert pipeline[1] == config.resize_views and pipeline[-2] == config.map_targets
    pipeline[1].update(size=(64, 128), resize=0.8)
    pipeline[-2]['grid'] = dict(GRID, forward_axis='+y')
    frames = [dataset(root, pipeline, 'val', frame='lidar')[n] for n in range(2)]
    assert frames[0]['inputs']['img'].shape == (6, 3, 64, 128)
    assert frames[0]['inputs']['points'].shape[1] == 5             # with the age of the sweep's
    truth = frames[0]['data_samples'].gt_bev.seg
    assert truth.shape == (6, 32, 32) and truth[[0, 2, 5]].any(-1).any(-1).all()
    points = frames[0]['inputs']['points']
    rig = CameraRig.from_dicts([frames[0]['data_samples'].cameras])
    assert rig.project(points[:, :3])[2].any(2).all()               # every camera sees some of them
    model = build(CAMERA, head=dict(type='BEVSegHead', in_channels=8, num_classes=6,
                                    tasks=('segmentation',)))
    data = dict(inputs=dict(img=[f['inputs']['img'] for f in frames]),
                data_samples=[f['data_samples'] for f in frames])
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    metric = METRICS.build(config.val_evaluator)
    for sample in model.eval().test_step(data):
        assert sample.pred_bev.seg.shape == truth.shape
        sample.pred_bev = PixelData(seg=sample.gt_bev.seg)
        metric.process({}, [sample.to_dict()])
    scores = metric.evaluate(2)
    assert scores['map/drivable_area'] == scores['map/divider'] == 100


# One world for all sensors --------------------------------------------------------------------


def test_one_place_in_images_lidar_image_and_bev(root):
    grid = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=0.5)
    results = dataset(root, [
        dict(type='LoadPointCloud'),
        dict(type='SphericalLiDARImage', channels=('range',), native=(32, 256), size=(32, 256),
             max_range=100.0),
        dict(type='RasterizeBEV', grid=grid, classes=[
            DATASETS.get('NuScenesBEVDataset').VEHICLES])])[1]
    town = layout.town_of(3, 0, 3)
    to_town = np.linalg.inv(layout.to_world(town))
    rig = CameraRig.from_dicts([[results['lidar_camera']]])
    points = results['points'].tensor.numpy().astype(np.float64)
    users = {user.instance: user for user in town.road_users}
    frame2town = to_town @ results['ego2global'] @ results['lidar_points']['lidar2ego']
    checked = 0
    for instance in results['instances']:
        box = np.array(instance['bbox_3d'])
        middle = rigid.apply(frame2town, box[None, :3])[0]
        user = min(users.values(), key=lambda u: np.linalg.norm(
            u.position(0.5) + (0, 0, u.size[2] / 2) - middle))
        np.testing.assert_allclose(
            user.position(0.5) + (0, 0, user.size[2] / 2), middle, atol=1e-3)
        assert layout.category(user) == instance['category']
        if np.isfinite(instance['velocity']).all() and user.speed:
            heading = np.array([np.cos(box[6]), np.sin(box[6])])
            np.testing.assert_allclose(instance['velocity'], user.speed * heading, atol=0.03)
        inside = points[rigid.points_in_boxes(points, box[None])[0]]
        assert abs(len(inside) - instance['num_lidar_pts']) <= 1 + 0.05 * len(inside)
        if len(inside) < 15 or not instance['category'].startswith('vehicle.'):
            continue
        checked += 1
        if box[4] > 1.5:
            turn = rigid.yaw_matrix(box[6])[:3, :3]
            deep = ((inside - box[:3]) @ turn).clip(0.4 - box[3:6] / 2, box[3:6] / 2 - 0.4)
            row, col = ((50 - (deep @ turn.T + box[:3])[:, :2]) / 0.5).astype(int).T
            assert results['gt_bev']['seg'][0, row, col].all()
        pixel, depth, _ = rig.project(torch.from_numpy(inside))
        col, row = np.rint(pixel[0, 0].numpy()).astype(int).T
        there = results['lidar_img'][0, row.clip(0, 31), col % 256] * 100
        assert (np.abs(there - depth[0, 0].numpy()) < 0.7).mean() > 0.7
    assert checked >= 4
    camera = results['images']['CAM_FRONT_LEFT']                    # 43 ms before the scan
    t = 0.5 - 0.0431
    scene, pose = RayScene(town.mesh(t)), layout.car_pose(town, t) @ layout.RIG['CAM_FRONT_LEFT']
    local = rigid.apply(camera['lidar2cam'], points)
    pixel = local @ np.array(camera['cam2img']).T
    pixel = pixel[:, :2] / pixel[:, 2:]
    ahead = (local[:, 2] > 3) & (local[:, 2] < 40) & (pixel > 0).all(1) & (pixel < (159, 89)).all(1)
    rays = np.c_[pixel, np.ones(len(pixel))] @ np.linalg.inv(camera['cam2img']).T
    rays = rays[ahead] / np.linalg.norm(rays[ahead], axis=1, keepdims=True)
    distance, *_ = scene.cast(pose[:3, 3], rays @ pose[:3, :3].T)
    error = np.abs(distance - np.linalg.norm(local[ahead], axis=1))
    assert ahead.sum() > 200 and (error < 0.3).mean() > 0.85


def test_convention_car_axes():
    """Scanner x right, y ahead, 0.9 m before and 1.8 m above the axle; a box ahead on the left."""
    lidar2ego = rigid.rigid([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], (0.9, 0, 1.8))
    info = dict(ego2global=rigid.rigid(translation=(100, 0, 0)).tolist(),
                lidar_points=dict(lidar2ego=lidar2ego.tolist()),
                images=dict(CAM=dict(lidar2cam=np.eye(4).tolist())),
                instances=[dict(bbox_3d=[-5, 20, -1, 4, 2, 1.5, np.pi / 2], velocity=[0.0, 3.0])])
    change_frame(info)
    np.testing.assert_allclose(info['instances'][0]['bbox_3d'], [20.9, 5, -1, 4, 2, 1.5, 0],
                               atol=1e-12)
    np.testing.assert_allclose(info['instances'][0]['velocity'], [3, 0], atol=1e-12)
    np.testing.assert_allclose(np.array(info['ego2global'])[:3, 3], [100, 0, 0])
    np.testing.assert_allclose(info['lidar_points']['lidar2ego'],
                               rigid.rigid(translation=(0, 0, 1.8)), atol=1e-12)
    assert 'lidar2global' not in info  # the pose is said once
    points = rigid.apply(info['lidar_points']['scan2lidar'], [[-5., 20, -1], [0, 0, 0]])
    np.testing.assert_allclose(points, [[20.9, 5, -1], [0.9, 0, 0]])
    np.testing.assert_allclose(rigid.apply(info['images']['CAM']['lidar2cam'], points),
                               [[-5, 20, -1], [0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(rigid.apply(info['lidar_points']['lidar2sensor'], points),
                               [[20, 5, -1], [0, 0, 0]], atol=1e-12)


def test_vehicles_of_lift_splat(root):
    """Emergency vehicles are vehicles, and hidden boxes count unless a visibility is asked for."""
    frames = [dataset(root, min_visibility=least)[0] for least in (0, 4)]
    counts = [len(frame['ann_info']['gt_labels_3d']) for frame in frames]
    known = [i for i in frames[0]['instances'] if not i['category'].startswith('animal')]
    visible = [i for i in known if i['visibility'] == 4]
    assert counts == [len(known), len(visible)] and counts[0] > counts[1] > 0
    assert 10 in frames[0]['ann_info']['gt_labels_3d']
    plain = dataset(root, metainfo=dict(classes=['car', 'bus']))[0]['ann_info']['gt_labels_3d']
    assert set(plain.tolist()) <= {0, 1}


# The converter --------------------------------------------------------------------------------


def test_any_number_of_workers_and_stops_gives_the_same_bytes(root, tmp_path, monkeypatch):
    def files(folder):
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    nuscenes.convert(root, tmp_path / 'two', MINI, workers=2)
    wanted = files(tmp_path / 'two')
    assert sorted(wanted) == ['nuscenes_images_train.npz', 'nuscenes_images_val.npz',
                              'nuscenes_infos_train.pkl', 'nuscenes_infos_val.pkl']
    assert wanted['nuscenes_infos_val.pkl'] == (root / 'nuscenes_infos_val.pkl').read_bytes()
    frame, made = nuscenes._frame, []

    def stopped(*args):
        made.append(args)
        if len(made) == 3:
            raise KeyboardInterrupt
        return frame(*args)

    monkeypatch.setattr(nuscenes, '_frame', stopped)
    with pytest.raises(KeyboardInterrupt):
        nuscenes.convert(root, tmp_path / 'one', MINI)
    assert not (tmp_path / 'one' / 'nuscenes_infos_train.pkl').exists()
    nuscenes.convert(root, tmp_path / 'one', MINI)
    assert len(made) == 3 + 4                       # two of six were not done again
    assert files(tmp_path / 'one') == wanted


def test_report_and_metainfo(root):
    infos = infos_of(root, 'val')
    report = nuscenes.report(infos)
    assert report['frames'] == 3 and report['sequences'] == 1 and report['sweeps'] == 0 + 2 + 4
    assert min(report['objects'].values()) >= 1 and report['other'] >= 1
    assert infos['metainfo']['categories']['traffic_cone'] == 8
    assert 'lidar_sweeps' not in infos['data_list'][0]


@pytest.fixture
def copy(root, tmp_path):
    """The raw files again, to be damaged."""
    for name in (MINI, 'samples', 'sweeps'):
        shutil.copytree(root / name, tmp_path / 'copy' / name)
    return tmp_path / 'copy'


def edit(root, name, change):
    rows = table(root, name)
    change(rows)
    (root / MINI / f'{name}.json').write_text(json.dumps(rows))


def key_file(root, channel, number=0):
    """Name of a key frame's file in the split val."""
    return infos_names(root, 'scene-0103', channel)[number]


def first_file(root, folder):
    return sorted((root / folder).iterdir())[0]


@pytest.mark.parametrize('damage, message', [
    (lambda r: (r / MINI / 'ego_pose.json').unlink(), r'ego_pose\.json: no table of nuScenes'),
    (lambda r: (r / MINI / 'sample.json').write_text('[{"token": "a", '),
     r'sample\.json: no table of nuScenes'),
    (lambda r: edit(r, 'scene', lambda rows: rows[0].pop('name')),
     r"scene\.json: a record lacks the field 'name'"),
    (lambda r: edit(r, 'log', lambda rows: rows.pop()),
     r"log\.json: no record '\w+', which .*scene"),
    (lambda r: edit(r, 'sample_data', lambda rows: rows.remove(next(
        row for row in rows if row['filename'] == key_file(r, 'CAM_BACK')))),
     'has no key frame of CAM_BACK'),
    (lambda r: (r / key_file(r, 'CAM_BACK')).unlink(), r'CAM_BACK__\d+\.jpg: no such file'),
    (lambda r: (r / key_file(r, 'LIDAR_TOP', 1)).unlink(), r'LIDAR_TOP__\d+\.pcd\.bin: no such'),
    (lambda r: (r / key_file(r, 'CAM_BACK')).write_bytes(b'\xff\xd8 cut'),
     r'CAM_BACK__\d+\.jpg: unreadable image: not a complete PNG or JPEG file \(6 bytes\)'),
    (lambda r: (r / key_file(r, 'LIDAR_TOP')).write_bytes(b'1' * 21),
     r'pcd\.bin: 21 bytes, expected points of 5 float32'),
    (lambda r: edit(r, 'sample', lambda rows: rows.append(rows[0])), r'sample\.json: two records'),
    (lambda r: edit(r, 'sample_data', lambda rows: rows.append(dict(rows[0], token='x'))),
     'two key frames of one sensor'),
    (lambda r: edit(r, 'ego_pose', lambda rows: rows[0].update(rotation=[1, 1, 0, 0])),
     r'ego_pose\.json: record \w+: expected 3 finite numbers .*unit quaternion'),
    (lambda r: edit(r, 'sample', lambda rows: rows[0].update(timestamp='soon')),
     r'sample\.json: a record lacks the field .*or has a wrong one'),
    (lambda r: edit(r, 'scene', lambda rows: rows[0].update(name=7)),
     r'scene\.json: a record lacks'),
    (lambda r: edit(r, 'calibrated_sensor', lambda rows: rows[-1].update(
        camera_intrinsic=[[1, 0], [0, 1]])), r'calibrated_sensor\.json: a record lacks the field'),
])
def test_errors_name_the_file(copy, damage, message):
    damage(copy)
    with pytest.raises(UserError, match=message):
        nuscenes.convert(copy, version=MINI)
    assert not (copy / 'nuscenes_infos_val.pkl').exists()


def test_scenes_that_were_not_downloaded_are_left_out(copy, tmp_path):
    val = infos_names(copy, 'scene-0103')
    os.unlink(copy / val[0])
    with pytest.raises(UserError, match="no scene of split 'val'"):
        nuscenes.convert(copy, tmp_path / 'out', MINI)


def test_val_alone_is_converted_and_said(copy, tmp_path):
    """Evaluation needs no training split."""
    for path in infos_names(copy, 'scene-0061'):
        os.unlink(copy / path)
    report = nuscenes.convert(copy, tmp_path / 'out', MINI)
    assert report['train'].startswith("not written: no scene of split 'train' of v1.0-mini has fil")
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'nuscenes_images_val.npz', 'nuscenes_infos_val.pkl']


def test_one_split_is_written_on_request(copy, tmp_path):
    os.unlink(copy / infos_names(copy, 'scene-0103')[0])
    with pytest.raises(UserError, match='--splits train writes the other split alone'):
        nuscenes.convert(copy, tmp_path / 'out', MINI)
    assert not [p for p in (tmp_path / 'out').iterdir() if not p.name.endswith('.journal')]
    nuscenes.convert(copy, tmp_path / 'out', MINI, only=('train', ))
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'nuscenes_images_train.npz', 'nuscenes_infos_train.pkl']
    with pytest.raises(UserError, match='--splits test: no such split; known: train, val'):
        nuscenes.convert(copy, tmp_path / 'out', MINI, only=('test', ))


def test_parts_of_the_set_have_a_way_out(copy, tmp_path):
    shutil.rmtree(copy / 'sweeps')
    with pytest.raises(UserError, match='sweeps/LIDAR_TOP: no such folder; .* --max-sweeps 0'):
        nuscenes.convert(copy, tmp_path / 'out', MINI)
    nuscenes.convert(copy, tmp_path / 'out', MINI, max_sweeps=0)
    infos = load_infos(str(tmp_path / 'out' / 'nuscenes_infos_val.pkl'))
    assert not any('lidar_sweeps' in frame for frame in infos['data_list'])
    shutil.rmtree(copy / 'samples' / 'CAM_BACK')
    with pytest.raises(UserError, match='samples/CAM_BACK: no such folder; the conversion needs'):
        nuscenes.convert(copy, tmp_path / 'out', MINI, max_sweeps=0)


def test_maps_that_were_not_downloaded_are_noted(copy, tmp_path):
    report = nuscenes.convert(copy, tmp_path, MINI)
    assert report['maps_missing'] == 'boston-seaport, singapore-queenstown'


def infos_names(root, scene, channel='LIDAR_TOP'):
    """Key frames of a sensor of a scene, by the tables."""
    token = next(row['token'] for row in table(root, 'scene') if row['name'] == scene)
    samples = [row['token'] for row in table(root, 'sample') if row['scene_token'] == token]
    return [row['filename'] for row in table(root, 'sample_data') if row['is_key_frame']
            and row['sample_token'] in samples and f'/{channel}/' in row['filename']]


def test_wrong_version(root, tmp_path):
    with pytest.raises(UserError, match=r'there is v1\.0-mini: choose it with --version'):
        nuscenes.convert(root, tmp_path, 'v1.0-trainval')
    with pytest.raises(UserError, match="did you mean 'v1.0-mini'"):
        nuscenes.convert(root, tmp_path, 'v1.0-mni')


def test_a_test_version_has_no_objects(copy, tmp_path, monkeypatch):
    (copy / MINI).rename(copy / 'v1.0-test')
    for name in ('sample_annotation', 'instance', 'attribute', 'visibility'):
        (copy / 'v1.0-test' / f'{name}.json').write_text('[]')
    monkeypatch.setattr(nuscenes, 'split_scenes', lambda version: dict(test=['scene-0103']))
    nuscenes.convert(copy, tmp_path, 'v1.0-test')
    infos = infos_of(tmp_path, 'test')
    assert [frame['instances'] for frame in infos['data_list']] == [[], [], []]
    assert len(dataset_of(copy, tmp_path)) == 3


def dataset_of(root, out):
    return DATASETS.build(dict(type='NuScenesBEVDataset', data_root=str(root), pipeline=[],
                               ann_file=str(out / 'nuscenes_infos_test.pkl')))


@pytest.mark.parametrize('chunk', [1, 7, 1000])
def test_rows_are_read_in_pieces(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(nuscenes, '_CHUNK', chunk)
    rows = [dict(a='ü]', b=[1, {'c': None}]), dict(a='', b=-2.5e-3)]
    path = tmp_path / 't.json'
    path.write_text(json.dumps(rows, indent=1) + '\n')
    assert list(nuscenes.read_rows(path)) == rows
    path.write_text('[]')
    assert list(nuscenes.read_rows(path)) == []


def test_velocity_of_gaps_is_unknown(copy, tmp_path):
    """As the devkit: neighbours at most 1.5 s apart, 3 s if both are there."""
    chains = {}
    for row in table(copy, 'sample_annotation'):
        chains.setdefault(row['instance_token'], []).append(row['token'])
    chosen = next(tokens for tokens in chains.values() if len(tokens) == 3)

    def slower(rows):
        for row in rows:
            row['timestamp'] = 1_000_000 * round(1.4 * (row['timestamp'] % 300_000_000) / 1e5) + 1

    edit(copy, 'sample', slower)
    tables = nuscenes.load(copy, MINI)
    raw = table(copy, 'sample_annotation')
    order = np.argsort(nuscenes.locate(tables.samples['token'], np.array(
        [row['sample_token'].encode() for row in raw]), 's', 'a'), kind='stable')
    velocity = {raw[n]['token']: v for n, v in zip(order, tables.annotations['velocity'])}
    assert all(np.isnan(velocity[token]).all() for token in chosen)


# The files of toytown -------------------------------------------------------------------------


def test_scan_is_column_after_column(root):
    scan = np.fromfile(first_file(root, 'samples/LIDAR_TOP'), '<f4').reshape(-1, 5)
    assert len(scan) == 32 * 256 and scan[:64, 4].tolist() == [*range(32), *range(32)]
    there = scan[:, :3].any(1)
    assert 0.5 < there.mean() < 1 and scan[there, 3].max() <= 255
    elevation = np.rad2deg(np.arctan2(scan[:, 2], np.hypot(scan[:, 0], scan[:, 1])))
    np.testing.assert_allclose(elevation[there], np.linspace(-30.67, 10.67, 32)[
        scan[there, 4].astype(int)], atol=0.05)


def test_a_damaged_folder_is_finished_to_the_same_bytes(root):
    paths = [first_file(root, 'sweeps/CAM_BACK'), root / MINI / 'sample_data.json']
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    run(*WRITE, root)
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize('change, message', [
    (dict(sequences=11, frames=40), 'sequences must be 10 at most'),
    (dict(sequences=3, frames=8), 'three key frames or more each'),
    (dict(sequences=2, frames=201), 'a scene can have 100 key frames, got 201 for 2 scenes'),
    (dict(sweeps=(-1, 0)), 'sweeps not negative'),
])
def test_impossible_settings(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        layout.write(tmp_path / 'new', **{'frames': 8, **change})
    assert not (tmp_path / 'new').exists()


def test_command_says_what_it_did(root, tmp_path, capsys):
    run('nuscenes', '--root-path', root, '--out-dir', tmp_path, '--version', MINI,
        '--max-sweeps', 0)
    out = capsys.readouterr().out
    assert "'frames': 3" in out and "'sweeps': 0" in out and 'scenes_skipped: 0' in out
    assert 'maps_missing: none' in out
    assert pickle.loads((tmp_path / 'nuscenes_infos_train.pkl').read_bytes())['data_list']
    assert TRANSFORMS.get('LoadStitchedPanorama')
