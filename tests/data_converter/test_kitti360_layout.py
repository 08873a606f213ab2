"""Toytown in KITTI-360's layout: raw files -> converter -> data set -> model -> metric."""

import re
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, METRICS
from mmengine.structures import PixelData

pytest.importorskip('trimesh')
pytest.importorskip('embreex')

from data_converter import kitti360  # noqa: E402
from data_converter.toytown import kitti360_layout as layout  # noqa: E402
from data_converter.toytown.world import Town  # noqa: E402
from mmdet3d_plugin.geometry import CameraRig, panorama, rigid  # noqa: E402
from mmdet3d_plugin.structures import load_infos  # noqa: E402
from tests.factories import CAMERA, GRID, LIDAR, build  # noqa: E402
from tools import create_data  # noqa: E402

SIDE, SCAN, BETWEEN = 96, (32, 512), (-0.06, 0.0, 0.23)
TRAIN, VAL = '2013_05_28_drive_0002_sync', '2013_05_28_drive_0010_sync'
SIZES = ['--image-size', str(SIDE), str(SIDE), '--scan-size', *map(str, SCAN)]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Two drives of four frames, written and converted by the command's own code."""
    root = tmp_path_factory.mktemp('kitti360') / 'town'
    for words in (['toytown', '--layout', 'kitti360', '--out-dir', str(root), '--frames', '8',
                   '--sequences', '2', '--seed', '3', '--supersample', '1', *SIZES,
                   '--workers', '1'],
                  ['kitti360', '--root-path', str(root), '--check']):
        args = create_data.parse_args(words)
        args.run(args)
    return root


@pytest.fixture(scope='module')
def truth():
    """Frame 2 of the first drive, rendered again: (town, scan, scene, car to town)."""
    town = Town(3, 0, 2.0)
    _, scan, scene = layout.render_frame(town, 2, SIDE, SCAN)
    return town, scan, scene, layout.car_pose(town, 2)


@pytest.fixture
def frame(root):
    return infos_of(root)['data_list'][1]


def infos_of(root, split='train'):
    return load_infos(str(root / f'kitti360_infos_{split}.pkl'))


def dataset(root, pipeline, split='train', **kwargs):
    return DATASETS.build(dict(
        type='Kitti360BEVDataset', data_root=str(root), ann_file=f'kitti360_infos_{split}.pkl',
        pipeline=pipeline, **kwargs))


def vehicles_of(frame, scan, nearer=40, least=20):
    """(box, its points in the LiDAR frame, its number) of the vehicles that were well seen."""
    for box in frame['instances']:
        number = box['instance_id'] % 1000
        points = scan.xyz[scan.instance == number].astype(np.float64)
        if len(points) >= least and np.linalg.norm(box['bbox_3d'][:2]) < nearer and \
                box['bbox_label_3d'] < 3:
            yield box, points, number


def at_pixels(image, pixels):
    col, row = np.rint(np.asarray(pixels)).astype(int).T
    return image[row.clip(0, len(image) - 1), col % image.shape[1]]


# From files to the metric ----------------------------------------------------------------------


def test_raw_files_to_metric(root):
    targets = dict(type='RasterizeBEV', grid=GRID, classes=[('car', 'truck', 'bus')])
    pipeline = [
        dict(type='LoadStitchedPanorama', size=(64, 128), fov_deg=(90, -90), center=BETWEEN,
             radius=50.0, feather_px=4), dict(type='LoadPointCloud', undistort=True),
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


# One world for all sensors --------------------------------------------------------------------


def test_boxes_are_where_the_town_has_them(frame, truth):
    town, _, _, car = truth
    to_velo = np.linalg.inv(car @ layout.RIG['velo'])
    users = {user.instance: user for user in town.road_users}
    moving = 0
    for box in frame['instances']:
        user = users[box['instance_id'] % 1000]
        middle = user.position(2 * 0.5) + (0, 0, user.size[2] / 2)
        np.testing.assert_allclose(box['bbox_3d'][:3], rigid.apply(to_velo, middle[None])[0],
                                   atol=1e-3)
        assert box['bbox_3d'][3:6] == pytest.approx(user.size, abs=1e-4)
        heading = to_velo[:3, :3] @ [np.cos(user.yaw), np.sin(user.yaw), 0]
        assert np.cos(box['bbox_3d'][6] - np.arctan2(heading[1], heading[0])) > 1 - 1e-9
        assert box['is_static'] == (user.speed == 0)
        if np.isfinite(box['velocity']).all():
            np.testing.assert_allclose(box['velocity'], user.speed * heading[:2], atol=0.01)
            moving += user.speed > 0
    assert moving >= 3


def test_static_boxes_are_those_that_the_scan_saw(frame, truth):
    town, scan, _, car = truth
    kept = {box['instance_id'] % 1000: box['num_lidar_pts'] for box in frame['instances']}
    to_velo = np.linalg.inv(car @ layout.RIG['velo'])
    hidden = 0
    for user in town.road_users:
        echoes = np.count_nonzero(scan.instance == user.instance)
        near = np.linalg.norm(rigid.apply(to_velo, user.position(1.0)[None])) < 74
        if near and echoes >= 5:
            assert kept[user.instance] >= 0.7 * echoes    # range noise puts some outside
        elif near and not echoes and user.instance not in kept:
            hidden += 1
    assert hidden >= 5


def instances_seen(frame, truth, side=500):
    """Fisheyes of a frame at another size, and who each of their pixels shows."""
    _, _, scene, car = truth
    cameras, images = [], []
    for name, camera in zip(layout.LENSES, frame['images'].values()):
        mei = {key: value * side / SIDE if key in ('gamma1', 'gamma2', 'u0', 'v0') else value
               for key, value in camera['mei'].items()}
        cameras.append(dict(camera, mei=mei, height=side, width=side))
        rays = layout.fisheye_rays(name, side)[0][:, :, 0].reshape(-1, 3)
        pose = car @ layout.RIG[name]
        seen = scene.instances(pose[:3, 3], rays @ pose[:3, :3].T.astype(np.float32))
        images.append(seen.reshape(side, side))
    return cameras, images


def test_points_fall_on_their_pixels_in_the_fisheyes(frame, truth):
    found = []
    for camera, image in zip(*instances_seen(frame, truth)):
        rig = CameraRig.from_dicts([[camera]])
        for _, points, number in vehicles_of(frame, truth[1]):
            pixel, _, valid = rig.project(torch.from_numpy(points).float())
            mine = at_pixels(image, pixel[0, 0]) == number
            found += mine[valid[0, 0].numpy()].tolist()
    assert len(found) > 500 and np.mean(found) > 0.95


def test_a_vehicle_is_at_one_place_in_panorama_lidar_image_and_bev(root, frame, truth):
    height, width = 128, 512
    grid = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=0.5)
    results = dataset(root, [
        dict(type='LoadPointCloud'),
        dict(type='SphericalLiDARImage', channels=('range',), native=(64, 512), size=(64, 512),
             max_range=100.0),
        dict(type='RasterizeBEV', grid=grid, classes=[('car', 'truck', 'bus')])])[1]
    lidar_rig = CameraRig.from_dicts([[results['lidar_camera']]])
    view = dict(lens='equirect', height=height, width=width, fov_up=np.pi / 2,
                fov_down=-np.pi / 2, lidar2cam=rigid.rigid(translation=-np.array(BETWEEN)))
    filled = cv2.dilate(results['gt_bev']['seg'][0], np.ones((3, 3)))  # points lie on the outside
    cameras, images = instances_seen(frame, truth)
    chosen = sorted(vehicles_of(frame, truth[1]), key=lambda v: -len(v[1]))[:3]
    assert len(chosen) == 3
    for box, points, number in chosen:
        # Panorama: sharp, for the assumed sphere goes through the vehicle.
        radius = float(np.linalg.norm(np.array(box['bbox_3d'][:3]) - BETWEEN))
        maps = panorama.stitch_maps(cameras, height, width, center=BETWEEN, radius=radius,
                                    feather_px=0)
        masks = [np.repeat(((p == number) * np.uint8(255))[..., None], 3, 2) for p in images]
        mask = panorama.stitch(masks, maps[0])[..., 0] > 100
        pixel = CameraRig.from_dicts([[view]]).project(torch.from_numpy(points))[0][0, 0]
        assert at_pixels(mask, pixel).mean() > 0.8
        # LiDAR image: the pixel of a point holds its range, but where a nearer point hides it.
        pixel, depth, _ = lidar_rig.project(torch.from_numpy(points))
        there = at_pixels(results['lidar_img'][0], pixel[0, 0]) * 100
        assert (np.abs(there - depth[0, 0].numpy()) < 0.5).mean() > 0.7
        row, col = ((50 - points[:, :2]) / 0.5).astype(int).T
        assert filled[row, col].mean() > 0.97


# The files ------------------------------------------------------------------------------------


def test_poses_and_cam0_to_world_agree(root):
    poses = kitti360.read_poses(str(root / 'data_poses' / VAL / 'poses.txt'))
    assert sorted(poses) == [1, 2] and np.abs(poses[1][:2, 3]).min() > 1000
    table = np.loadtxt(root / 'data_poses' / VAL / 'cam0_to_world.txt')
    rows = (root / 'calibration' / 'perspective.txt').read_text()
    rectify = np.eye(4)
    rectify[:3, :3] = np.array(re.search(r'R_rect_00: (.*)', rows)[1].split(), float).reshape(3, 3)
    to_pose = kitti360.read_calibration(str(root / 'calibration' / 'calib_cam_to_pose.txt'))
    for row in table:
        np.testing.assert_allclose(
            row[1:].reshape(4, 4), poses[int(row[0])] @ to_pose['image_00'] @ rectify.T, atol=2e-6)


def test_the_devkit_can_split_the_numbers(root):
    """It splits at spaces and then drops line ends: numbers must not be glued by that."""
    tree = ET.parse(root / 'data_3d_bboxes' / 'train_full' / f'{TRAIN}.xml')
    nodes = [node for node in tree.iter() if node.get('type_id') == 'opencv-matrix']
    for node in nodes[:200] + nodes[-6:]:
        words = [word.replace('\n', '') for word in node.find('data').text.split(' ')]
        numbers = [float(word) for word in words if word]
        assert len(numbers) == int(node.find('rows').text) * int(node.find('cols').text)
    assert tree.find('.//transform_plane') is not None
    assert any(node.find('transform') is None for node in tree.getroot())


def test_vertices_and_faces_make_a_closed_cube_with_outward_faces():
    corners, faces = layout.CORNERS, np.array(layout.FACES)
    assert len(np.unique(corners, axis=0)) == 8 and (np.abs(corners) == 0.5).all()
    a, b, c = np.moveaxis(corners[faces], 1, 0)
    volume = (np.cross(a, b) * c).sum() / 6
    assert abs(volume) == pytest.approx(1)


def test_train_full_has_the_same_boxes_without_some_ids(root, tmp_path):
    options = kitti360.Options(boxes='train_full', split='windows')
    kitti360.convert(str(root), str(tmp_path), options)
    full, plain = infos_of(tmp_path), infos_of(root)
    for one, other in zip(full['data_list'], plain['data_list']):
        assert [i['bbox_3d'] for i in one['instances']] == [i['bbox_3d'] for i in
                                                            other['instances']]


def test_scan_has_echoes_only_and_uneven_beams(root):
    scan = np.fromfile(root / 'data_3d_raw' / TRAIN / 'velodyne_points' / 'data' / '0000000002.bin',
                       '<f4').reshape(-1, 4)
    assert 2000 < len(scan) <= SCAN[0] * SCAN[1]
    assert np.linalg.norm(scan[:, :3], axis=1).min() > 0.2
    assert 0 <= scan[:, 3].min() and scan[:, 3].max() <= 1
    elevation = np.rad2deg(np.arctan2(scan[:, 2], np.hypot(scan[:, 0], scan[:, 1])))
    assert elevation.min() > -24.91 and elevation.max() < 2.01
    assert np.diff(layout.UnevenLidar(64, 16).altitude_deg)[[0, -1]].tolist() == pytest.approx(
        [-10.5 / 31, -16 / 31])


def test_a_damaged_folder_is_finished_to_the_same_bytes(root):
    path = root / 'data_2d_raw' / TRAIN / 'image_03' / 'data_rgb' / '0000000001.png'
    boxes = root / 'data_3d_bboxes' / 'train' / f'{VAL}.xml'
    before = path.read_bytes(), boxes.read_bytes()
    path.unlink()
    boxes.unlink()
    args = create_data.parse_args(['toytown', '--layout', 'kitti360', '--out-dir', str(root),
                                   '--frames', '8', '--sequences', '2', '--seed', '3',
                                   '--supersample', '1', *SIZES, '--workers', '1'])
    args.run(args)
    assert (path.read_bytes(), boxes.read_bytes()) == before


@pytest.mark.parametrize('change, message', [
    (dict(image_size=(64, 128)), 'must be square'),
    (dict(sequences=9, frames=40), 'sequences must be 8 at most'),
    (dict(sequences=3, frames=5), 'two frames or more each'),
])
def test_impossible_settings(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        layout.write(tmp_path / 'new', **{'frames': 8, **change})
    assert not (tmp_path / 'new').exists()
