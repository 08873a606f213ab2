import pickle

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, METRICS, TRANSFORMS

from data_converter import nuscenes, nuscenes_frame
from mmdet3d_plugin.datasets import NuScenesBEVDataset
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import CameraRig, rigid
from mmdet3d_plugin.structures import lidar2global, load_infos
from tools import create_data

GRID = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=0.5)
STITCH = dict(type='LoadStitchedPanorama', size=(256, 2048), center=(0, 0, -0.3), ground_z=-1.84)
LIDAR = [dict(type='LoadPointCloud', min_range=2.5),
         dict(type='SphericalLiDARImage', native=(32, 1024), size=(64, 1024))]


# A made-up keyframe: x right, y forward, LiDAR pitched by 0.1 rad ----------------------------


@pytest.fixture
def folder(tmp_path):
    """One camera that looks ahead, a box 20 m ahead and 5 m to the left, points on its corners."""
    pitch = np.array([[1, 0, 0], [0, np.cos(.1), np.sin(.1)], [0, -np.sin(.1), np.cos(.1)]])
    right_forward = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])        # nuScenes -> ego axes
    lidar2ego = rigid.rigid(right_forward @ pitch, [1, 0, 1.8])
    ego2cam = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    box = np.array([[20, 5, -1, 4, 2, 1.5, 0.3]])
    to_lidar = np.linalg.inv(rigid.rigid(lidar2ego[:3, :3]))
    corners = rigid.apply(to_lidar, rigid.box_corners(box)[0])
    scan = np.c_[corners, np.full(8, 10.), np.arange(8)].astype('<f4')
    scan.tofile(tmp_path / 'sweep.bin')
    cv2.imwrite(str(tmp_path / 'front.png'), np.full((90, 160, 3), 200, np.uint8))
    moved = rigid.transform_boxes(to_lidar, box)[0].tolist()
    frame = dict(
        token='t', timestamp=1.0, ego2global=np.eye(4).tolist(),
        images=dict(CAM_FRONT=dict(
            img_path='front.png', cam2img=[[80, 0, 80], [0, 80, 45], [0, 0, 1]],
            lidar2cam=(ego2cam @ rigid.rigid(lidar2ego[:3, :3])).tolist())),
        lidar_points=dict(lidar_path='sweep.bin', lidar2ego=lidar2ego.tolist()),
        instances=[dict(bbox_3d=moved, bbox_label_3d=0, num_lidar_pts=8)])
    (tmp_path / 'i.pkl').write_bytes(pickle.dumps(dict(
        metainfo=dict(categories=dict(car=0), version='x'), data_list=[frame])))
    return tmp_path


def test_convention_everything_moves_into_forward_left_up(folder, tmp_path):
    out = tmp_path / 'out'
    assert nuscenes_frame.convert(folder, out)['objects'] == 1
    frame = load_infos(str(out / 'nuscenes_frame_infos.pkl'))['data_list'][0]
    box = frame['instances'][0]['bbox_3d']      # upright in two frames: the yaw is 0.16 deg off
    np.testing.assert_allclose(box, [20, 5, -1, 4, 2, 1.5, .3], atol=4e-3)
    points = np.fromfile(out / frame['lidar_points']['lidar_path'], '<f4').reshape(-1, 5)
    expected = rigid.box_corners([[20, 5, -1, 4, 2, 1.5, .3]])[0]
    np.testing.assert_allclose(points[:, :3], expected, atol=1e-4)
    camera = frame['images']['CAM_FRONT']
    assert (camera['height'], camera['width'], camera['lens']) == (90, 160, 'pinhole')
    # 5 m left at 20 m depth: a quarter of the focal length left of the middle
    pixel = np.array(camera['cam2img']) @ rigid.apply(camera['lidar2cam'], [[20., 5, 0]])[0]
    np.testing.assert_allclose(pixel[:2] / pixel[2], [60, 45], atol=1e-6)
    np.testing.assert_allclose(lidar2global(frame)[:3, 3], [1, 0, 1.8])


def test_the_scanners_own_axes_come_back(folder, tmp_path):
    """``frame='lidar'``: scan, boxes and calibration are those of the file of mmdet3d."""
    with open(folder / 'i.pkl', 'rb') as file:
        stored = pickle.load(file)['data_list'][0]  # noqa: S301 (written above)
    nuscenes_frame.convert(folder, tmp_path / 'out')
    frame = DATASETS.build(dict(
        type='NuScenesBEVDataset', data_root=str(tmp_path / 'out'), frame='lidar',
        ann_file='nuscenes_frame_infos.pkl', pipeline=[dict(type='LoadPointCloud')]))[0]
    np.testing.assert_allclose(frame['images']['CAM_FRONT']['lidar2cam'],
                               stored['images']['CAM_FRONT']['lidar2cam'], atol=1e-9)
    scan = np.fromfile(folder / 'sweep.bin', '<f4').reshape(-1, 5)
    np.testing.assert_allclose(frame['points'].tensor[:, :3], scan[:, :3], atol=1e-4)
    np.testing.assert_allclose(frame['instances'][0]['bbox_3d'], stored['instances'][0]['bbox_3d'],
                               atol=5e-3)  # its yaw was about two verticals
    pose = np.array(frame['ego2global']) @ frame['lidar_points']['lidar2ego']
    np.testing.assert_allclose(pose, stored['lidar_points']['lidar2ego'], atol=1e-9)
    np.testing.assert_allclose(frame['lidar_points']['lidar2sensor'],
                               rigid.rigid([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]), atol=1e-9)


def test_lidar_image_uses_the_axes_of_the_scanner(folder, tmp_path):
    """The camera of the LiDAR image finds every point in the row of its beam."""
    nuscenes_frame.convert(folder, tmp_path / 'out')
    beams = np.deg2rad(nuscenes_frame.BEAMS_DEG)[::-1]          # ring 0 is the lowest
    frame = load_infos(str(tmp_path / 'out' / 'nuscenes_frame_infos.pkl'))['data_list'][0]
    azimuth = np.linspace(-3, 3, 32)
    sensor = 10 * np.stack([np.cos(beams) * np.cos(azimuth), np.cos(beams) * np.sin(azimuth),
                            np.sin(beams)], -1)
    ours = rigid.apply(np.linalg.inv(frame['lidar_points']['lidar2sensor']), sensor)
    assert np.abs(ours - sensor).max() > 0.5
    scan = np.c_[ours, np.full(32, 5.), np.arange(32)].astype('<f4')
    scan.tofile(tmp_path / 'out' / 'points' / 't.bin')
    results = _dataset(tmp_path / 'out', [
        LIDAR[0], dict(LIDAR[1], native=(32, 64), size=(32, 64), channels=('mask',))])[0]
    rig = CameraRig.from_dicts([[results['lidar_camera']]])
    pixel = rig.project(results['points'].tensor)[0][0, 0].numpy()
    np.testing.assert_allclose(pixel[:, 1], 31 - np.arange(32), atol=1e-3)
    col, row = np.round(pixel).astype(int).T
    assert (results['lidar_img'][0, row, col] == 1).all() and results['lidar_img'].sum() == 32


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(UserError, match='expected one mmdet3d info file'):
        nuscenes_frame.convert(tmp_path / 'nowhere', tmp_path / 'out')
    (folder / 'front.png').write_bytes(b'')
    with pytest.raises(UserError, match=r'front\.png: unreadable image: not a complete'):
        nuscenes_frame.convert(folder, tmp_path / 'out')
    (folder / 'sweep.bin').write_bytes(b'123')
    with pytest.raises(UserError, match=r'sweep\.bin: 3 bytes, expected points of 5 float32'):
        nuscenes_frame.convert(folder, tmp_path / 'out')
    (folder / 'i.pkl').write_bytes(pickle.dumps(dict(data_list=[])))
    with pytest.raises(UserError, match=r'i\.pkl: no mmdet3d v2 info file'):
        nuscenes_frame.convert(folder, tmp_path / 'out')


# The real keyframe and scan ---------------------------------------------------------------------


@pytest.fixture(scope='module')
def keyframe(real_data, tmp_path_factory):
    out = tmp_path_factory.mktemp('keyframe')
    nuscenes_frame.convert(real_data / 'nuscenes_demo', out)
    return out


def _dataset(out, pipeline):
    return DATASETS.build(dict(type='NuScenesBEVDataset', data_root=str(out), pipeline=pipeline,
                               ann_file='nuscenes_frame_infos.pkl'))


def test_boxes_of_the_keyframe_hold_their_points(keyframe):
    frame = load_infos(str(keyframe / 'nuscenes_frame_infos.pkl'))['data_list'][0]
    points = np.fromfile(keyframe / frame['lidar_points']['lidar_path'], '<f4').reshape(-1, 5)
    boxes = np.array([i['bbox_3d'] for i in frame['instances']])
    counted = rigid.points_in_boxes(points, boxes).sum(1)
    listed = np.array([i['num_lidar_pts'] for i in frame['instances']])
    # boxes are upright in the world, the file's are upright in the tilted frame of the LiDAR
    assert np.corrcoef(counted, listed)[0, 1] > 0.99 and (counted > 0).mean() > 0.8
    # the road under the LiDAR lies at its mounting height
    below = np.hypot(points[:, 0], points[:, 1])
    road = points[(below > 3) & (below < 8) & (points[:, 2] < -1.2), 2]
    assert np.median(road) == pytest.approx(-1.84, abs=0.1) and road.std() < 0.12


def test_keyframe_reaches_the_model(keyframe):
    vehicles = [list(NuScenesBEVDataset.VEHICLES)]
    packed = _dataset(keyframe, [
        STITCH, *LIDAR, dict(type='RasterizeBEV', grid=GRID, classes=vehicles),
        dict(type='PackBEVInputs')])[0]
    assert packed['inputs']['img'].shape == (1, 3, 256, 2048)
    assert packed['inputs']['lidar_img'].shape == (2, 64, 1024)
    assert 100 < packed['data_samples'].gt_bev.seg.sum() < 1000
    # the truck 11 to 22 m ahead on the left
    assert packed['data_samples'].gt_bev.seg[0, 68, 91] == 1


@pytest.mark.parametrize('frame', ['lidar', 'ego', 'ego_ground'])
def test_boxes_of_the_keyframe_in_every_frame(keyframe, frame):
    dataset = DATASETS.build(dict(
        type='NuScenesBEVDataset', data_root=str(keyframe), frame=frame, test_mode=True,
        ann_file='nuscenes_frame_infos.pkl', metainfo=dict(classes=nuscenes.CLASSES), pipeline=[
            dict(type='LoadPointCloud'), dict(type='PackBEVInputs')]))
    packed = dataset[0]
    sample, points = packed['data_samples'], packed['inputs']['points'].double().numpy()
    truth = sample.gt_instances_3d
    boxes = torch.cat([truth.bboxes_3d.gravity_center, truth.bboxes_3d.tensor[:, 3:]], 1).double()
    assert len(truth) == 68 and truth.num_points.sum() > 500 and truth.valid.any()
    inside = rigid.points_in_boxes(points, boxes.numpy()).sum(1)
    assert np.corrcoef(inside, truth.num_points)[0, 1] > 0.9  # these count radar points too
    speed = boxes[:, 7:].norm(dim=1)
    moving = (speed > 2) & (truth.labels_3d < 5)              # vehicles
    ahead = torch.stack([boxes[:, 6].cos(), boxes[:, 6].sin()], 1)
    assert moving.sum() > 2 and ((ahead * boxes[:, 7:]).sum(1) / speed)[moving].min() > 0.97
    pose = sample.metainfo['lidar2global']
    world = rigid.transform_boxes(pose, boxes, pose[2, :3])
    near = np.linalg.norm(boxes[:, :2], axis=1) < 20
    assert np.median(world[near, 2] - world[near, 5] / 2) == pytest.approx(0, abs=0.3)   # the road
    metric = METRICS.build(dict(type='NuScenesDetectionMetric'))
    metric.dataset_meta = dataset.metainfo
    metric.prepare(dataset)
    found = truth[truth.valid]          # the others are not scored, so they would be false alarms
    found = dict(bboxes_3d=found.bboxes_3d, labels_3d=found.labels_3d,
                 scores_3d=torch.ones(len(found)))
    found['bboxes_3d'].tensor[:, 7:] = found['bboxes_3d'].tensor[:, 7:].nan_to_num()
    metric.process({}, [dict(sample.to_dict(), pred_instances_3d=found)])
    scores = metric.evaluate(1)
    assert scores['det/mAP'] == pytest.approx(1) and np.isnan(scores['det/NDS'])  # no attributes
    assert max(scores[f'det/m{name}'] for name in ('ATE', 'ASE', 'AOE', 'AVE')) < 1e-4


def test_panorama_agrees_with_the_images_it_is_made_of(keyframe):
    """Colours of the scan's points in the panorama are those in the pinhole that sees them."""
    results = _dataset(keyframe, [STITCH, *LIDAR])[0]
    assert 0.7 < results['coverage'].mean() < 0.85
    points = results['points'].tensor.numpy().astype(np.float64)
    points = points[(points[:, 2] > -1.5) & (np.hypot(points[:, 0], points[:, 1]) > 15)]
    panorama = cv2.GaussianBlur(results['img'][0], (0, 0), 3).astype(int)
    pano = CameraRig.from_dicts([results['cameras']])
    differences = []
    for camera in results['images'].values():
        image = cv2.imread(camera['img_path'])[..., ::-1]
        image = cv2.GaussianBlur(image, (0, 0), 8).astype(int)
        local = rigid.apply(camera['lidar2cam'], points)
        u, v, z = (local @ np.array(camera['cam2img']).T).T
        inside = (z > 1) & (np.abs(u / z - 799.5) < 500) & (np.abs(v / z - 449.5) < 350)
        u, v = (u / z)[inside].astype(int), (v / z)[inside].astype(int)
        pixel, _, valid = pano.project(torch.from_numpy(points[inside]))
        col, row = np.round(pixel[0, 0].numpy()).astype(int).T
        seen = valid[0, 0].numpy()
        colours = panorama[row[seen], col[seen]], image[v[seen], u[seen]]
        differences.append(np.abs(colours[0] - colours[1]).mean(1))
    differences = np.concatenate(differences)
    assert len(differences) > 3000 and np.median(differences) < 8


def test_kitti_scan_gives_a_lidar_image(real_data):
    path = real_data / 'kitti_demo' / '000008.bin'
    if not path.is_file():
        pytest.skip(f'real data: no {path}')
    results = dict(lidar_points=dict(lidar_path=str(path), num_pts_feats=4,
                                     feature_names=['x', 'y', 'z', 'intensity']),
                   lidar_image=dict(fov_up=np.deg2rad(3), fov_down=np.deg2rad(-25)))
    for cfg in (dict(type='LoadPointCloud'), dict(LIDAR[1], native=(64, 2048), size=(64, 2048),
                                                  channels=('range', 'intensity', 'mask'))):
        results = TRANSFORMS.build(cfg)(results)
    image = results['lidar_img']
    assert image.shape == (3, 64, 2048) and 0 <= image.min() and image.max() == 1
    cols = np.flatnonzero(image[2].any(0))
    # the scan is cut to 80 degrees ahead, around the centre column
    assert 780 < cols.min() < 820 and 1230 < cols.max() < 1270
    block = image[:, 5:38, cols.min():cols.max()]
    assert block[2].mean() > 0.8
    # down the road, range falls from row to row
    assert np.diff(np.median(block[0][15:], axis=1)).max() < 0.02


def test_command_line(folder, tmp_path, capsys):
    words = ['nuscenes-frame', '--root-path', str(folder), '--out-dir', str(tmp_path / 'out')]
    args = create_data.parse_args(words)
    args.run(args)
    assert 'objects: 1' in capsys.readouterr().out
