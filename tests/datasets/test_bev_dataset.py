import pickle
import random

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, TRANSFORMS

from data_converter import dur360bev
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import BEVGrid, CameraRig, lidar_image, panorama, rigid
from mmdet3d_plugin.models.view_transforms import VoxelPulling
from mmdet3d_plugin.structures import load_infos
from tests.helpers.dur360bev import COLS, ROWS, make_root

GRID = dict(x_range=(-40, 40), y_range=(-40, 40), resolution=1.0)
CAMERA = [dict(type='LoadDualFisheyePanorama', size=(16, 32))]
LIDAR = [dict(type='LoadOusterScan'), dict(type='BuildLiDARImage', size=(12, 64))]
TARGET = [dict(type='RasterizeBEV', grid=GRID), dict(type='PackBEVInputs')]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = make_root(tmp_path_factory.mktemp('town') / 'data')
    dur360bev.convert(str(root))
    return root


@pytest.fixture
def spoiled(tmp_path):
    """A root of its own, to be damaged after the conversion."""
    root = make_root(tmp_path / 'data')
    dur360bev.convert(str(root))
    return root


def build(root, pipeline=(), split='train', **kwargs):
    return DATASETS.build(dict(type='Dur360BEVDataset', data_root=str(root),
                               ann_file=f'dur360bev_infos_{split}.pkl', pipeline=list(pipeline),
                               **kwargs))


def test_whole_pipeline_packs_what_a_teacher_reads(root):
    packed = build(root, CAMERA + LIDAR + TARGET)[0]
    inputs, sample = packed['inputs'], packed['data_samples']
    assert inputs['img'].shape == (1, 3, 16, 32) and inputs['img'].dtype == torch.uint8
    assert inputs['lidar_img'].shape == (3, 12, 64) and inputs['lidar_img'].dtype == torch.float32
    assert inputs['points'].shape[1] == 3 and len(inputs['points']) < ROWS * COLS
    assert sample.gt_bev.seg.shape == (1, 80, 80)
    assert sample.gt_bev.centerness.shape == (1, 80, 80)
    assert sample.gt_bev.offset.shape == (2, 80, 80)
    assert sample.gt_bev.seg[0, 30, 35] == 1          # the car at x 10, y 5
    assert sample.gt_instances_3d.labels_3d.tolist() == [0, 3]      # the tram is ignored
    np.testing.assert_allclose(sample.gt_instances_3d.bboxes_3d.gravity_center[0], [10, 5, -1])
    meta = sample.metainfo
    assert meta['token'] == 'extended_1000000000' and meta['frame_id'] == '1000000000'
    assert meta['img_path'] == str(root / 'image' / 'data' / '1000000000.png')
    assert meta['lidar_path'].endswith('ouster_points/data/1000000000.bin')
    camera, = meta['cameras']
    assert (camera['lens'], camera['height'], camera['width']) == ('equirect', 16, 32)
    assert (camera['fov_up'], camera['fov_down']) == (np.pi / 2, -np.pi / 2)
    assert meta['lidar_camera']['fov_up'] == pytest.approx(np.deg2rad(22.5))
    assert meta['bev_grid']['rows'] == '-x' and meta['bev_grid']['resolution'] == 1.0


@pytest.mark.parametrize('options', [{}, dict(test_mode=True)])
def test_the_table_counts_the_frames_that_are_used(root, options):
    def count(indices):
        return build(root, indices=indices, **options).num_ins_per_cat

    assert count(None) == [2, 1, 0, 2] and count(1) == count([0]) == [1, 0, 0, 1]
    assert np.sum([count([n]) for n in range(4)], 0).tolist() == [2, 1, 0, 2]


def test_a_student_never_touches_the_scans(spoiled):
    for path in (spoiled / 'ouster_points' / 'data').iterdir():
        path.unlink()
    packed = build(spoiled, CAMERA + TARGET)[0]
    assert set(packed['inputs']) == {'img'}
    assert 'lidar_camera' not in packed['data_samples'].metainfo


def test_a_lidar_model_never_touches_the_images(spoiled):
    for path in (spoiled / 'image' / 'data').iterdir():
        path.unlink()
    assert set(build(spoiled, LIDAR + TARGET)[0]['inputs']) == {'lidar_img', 'points'}


def test_frames_without_objects_are_ordinary_frames(root):
    for kwargs in (dict(), dict(test_mode=True)):
        dataset = build(root, CAMERA + TARGET, **kwargs)
        assert len(dataset) == 4
        sample = dataset[1]['data_samples']
        assert not sample.gt_bev.seg.any() and len(sample.gt_instances_3d.labels_3d) == 0
        assert sample.gt_instances_3d.bboxes_3d.tensor.shape == (0, 9)


def test_test_mode_has_the_same_ground_truth(root):
    train, test = (build(root, TARGET, test_mode=mode)[0]['data_samples'] for mode in (False, True))
    torch.testing.assert_close(train.gt_bev.seg, test.gt_bev.seg)


def test_frames_without_annotations_pass_without_ground_truth(root):
    sample = build(root, TARGET, test_mode=True, load_eval_anns=False)[0]['data_samples']
    assert 'gt_bev' not in sample and sample.metainfo['bev_grid']['resolution'] == 1.0


def test_instances_on_request_number_the_boxes(root):
    assert 'instances' not in build(root, TARGET)[0]['data_samples'].gt_bev
    target = [dict(TARGET[0], instances=True, classes=[['pedestrian'], ['car']]), TARGET[1]]
    dataset = build(root, target, metainfo=dict(classes=('pedestrian', 'car')))
    sample = dataset[0]['data_samples']
    assert sample.gt_instances_3d.labels_3d.tolist() == [1, 0]
    ids = sample.gt_bev.instances
    assert ids.shape == (2, 80, 80)
    assert ids[1, 30, 35] == 1                        # the car at x 10, y 5 is the first box
    assert torch.equal(ids > 0, sample.gt_bev.seg > 0)
    assert not dataset[1]['data_samples'].gt_bev.instances.any()


def test_class_subset_and_channels(root):
    target = [dict(type='RasterizeBEV', grid=GRID, classes=[['pedestrian'], ['car']]), TARGET[1]]
    dataset = build(root, target, metainfo=dict(classes=('pedestrian', 'car')))
    seg = dataset[0]['data_samples'].gt_bev.seg
    assert seg.shape == (2, 80, 80) and seg[1, 30, 35] == 1 and not seg[0, 30, 35]
    sample = build(root, TARGET[1:], metainfo=dict(classes=('pedestrian',)))[0]['data_samples']
    assert sample.gt_instances_3d.labels_3d.tolist() == [0]


def test_categories_are_matched_by_name(spoiled):
    path = spoiled / 'dur360bev_infos_train.pkl'
    infos = load_infos(str(path))
    infos['metainfo']['categories'] = dict(pedestrian=0, car=1, truck=2, bus=3)
    for frame in infos['data_list']:
        for instance in frame['instances']:
            instance['bbox_label_3d'] = {0: 1, 1: 3, 3: 0, -1: -1}[instance['bbox_label_3d']]
    path.write_bytes(pickle.dumps(infos))
    assert build(spoiled)[0]['ann_info']['gt_labels_3d'].tolist() == [0, 3]


def test_release_panorama_is_the_upright_image_gathered(root):
    results = build(root, [dict(CAMERA[0], sampling='release')])[0]
    native = cv2.imread(results['img_path'])[..., ::-1]
    upright = np.concatenate([np.rot90(native[:, :32], -1), np.rot90(native[:, 32:])], 1)
    xs, ys = panorama.release_indices(16, 32, 32)
    np.testing.assert_array_equal(results['img'][0], upright[ys, xs])


def test_lidar_image_pixels_see_the_points_of_the_scan(root):
    """Every point of the scan, projected with the image's camera, meets its own range."""
    build_image = [LIDAR[0], dict(type='BuildLiDARImage', channels=('range',), size=(ROWS, COLS),
                                  max_range=100.0)]
    results = build(root, build_image)[0]
    points = results['points'].tensor.numpy().astype(np.float64)
    camera = results['lidar_camera']
    azimuth = np.arctan2(-points[:, 1], points[:, 0])
    elevation = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    col = np.round(((azimuth / np.pi + 1) * COLS - 1) / 2).astype(int)
    row = (camera['fov_up'] - elevation) / (camera['fov_up'] - camera['fov_down']) * ROWS - 0.5
    # the helper's beams are at +-20 degrees, the assumed edges at +-22.5: within a fifth of a row
    assert np.abs(row - np.round(row)).max() < 0.2
    seen = results['lidar_img'][0, np.round(row).astype(int), col] * 100
    np.testing.assert_allclose(seen, np.linalg.norm(points, axis=1), rtol=1e-5)


def test_no_returns_can_be_kept(root):
    points = build(root, [dict(type='LoadOusterScan', drop_no_returns=False,
                               use_dim=(0, 1, 2, 3))])[0]['points'].tensor
    assert points.shape == (ROWS * COLS, 4) and (points[:, :3] == 0).all(1).any()


def test_frames_do_not_depend_on_their_order(root):
    dataset = build(root, CAMERA + LIDAR + TARGET)
    forward = [dataset[i]['inputs'] for i in range(4)]
    backward = [dataset[i]['inputs'] for i in (3, 2, 1, 0)][::-1]
    for a, b in zip(forward, backward):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_an_index_with_a_seed_fixes_every_draw(root):
    class Draw(int):
        seed = 7

    class Noise:
        def __call__(self, results):
            numpy = np.random.rand()  # noqa: NPY002
            results['token'] = str((random.random(), numpy, torch.rand(1).item()))
            return results

    dataset = build(root, [Noise(), TARGET[1]])
    first, second = (dataset[Draw(0)]['data_samples'].metainfo['token'] for _ in range(2))
    assert first == second != dataset[0]['data_samples'].metainfo['token']


@pytest.mark.parametrize('aug', [rigid.yaw_matrix(0.5), np.diag([1., -1, 1, 1]),
                                 rigid.rigid(np.eye(3) * 1.1, [2, 1, 0])])
def test_bev_aug_moves_targets_and_boxes_alike(root, aug):
    class Augment:
        def __call__(self, results):
            results['bev_aug'] = aug
            return results

    sample = build(root, [Augment(), *TARGET])[0]['data_samples']
    centre = rigid.apply(aug, [[10., 5, -1]])[0]
    box = sample.gt_instances_3d.bboxes_3d.gravity_center[0]
    np.testing.assert_allclose(box, centre, atol=1e-5)
    assert sample.gt_bev.seg[0, int(40 - centre[0]), int(40 - centre[1])] == 1
    np.testing.assert_array_equal(sample.metainfo['bev_aug'], aug)


def test_stateful_lidar_images_follow_the_release(root):
    dataset = build(root, [LIDAR[0], dict(LIDAR[1], stateful=True)])
    expected = lidar_image.LiDARImageProcessor(stateful=True)
    for n in range(3):
        results = dataset[n]
        shift = results['lidar_image']['pixel_shift_by_row']
        raw = lidar_image.destagger(results['scan'][..., 3], shift)
        image = lidar_image.resize(expected('intensity', raw), 12, 64)
        np.testing.assert_array_equal(results['lidar_img'][2], image)


# Errors of the user ---------------------------------------------------------------------------


def image(root):
    return root / 'image' / 'data' / '1000000000.png'


def scan(root):
    return root / 'ouster_points' / 'data' / '1000000000.bin'


LOADING = {
    'missing scan': (lambda r: scan(r).unlink(), '1000000000.bin: cannot read LiDAR scan'),
    'cut scan': (lambda r: scan(r).write_bytes(scan(r).read_bytes()[:-1]),
                 '1000000000.bin: 18431 bytes, expected 512 points of 9 float32'),
    'missing image': (lambda r: image(r).unlink(), '1000000000.png: no such image'),
    'no image': (lambda r: image(r).write_bytes(b'x'), '1000000000.png: unreadable image'),
    'wrong size': (lambda r: cv2.imwrite(str(image(r)), np.zeros((32, 60, 3), np.uint8)),
                   '1000000000.png: wrong image size 60x32, the info file says 64x32'),
    'info file': (lambda r: (r / 'dur360bev_infos_train.pkl').unlink(), 'no such info file'),
}


@pytest.mark.parametrize('case', LOADING)
def test_loading_errors_name_the_file(spoiled, case):
    spoil, message = LOADING[case]
    spoil(spoiled)
    with pytest.raises(UserError) as error:
        build(spoiled, CAMERA + LIDAR + TARGET, test_mode=True)[0]
    assert message in str(error.value) and '\n' not in str(error.value)


def test_an_info_file_without_frames_is_refused(spoiled):
    path = spoiled / 'dur360bev_infos_train.pkl'
    path.write_bytes(pickle.dumps(dict(load_infos(str(path)), data_list=[])))
    with pytest.raises(UserError, match='no frames; convert the data set again'):
        build(spoiled)


@pytest.mark.parametrize('cfg, message', [
    (dict(type='LoadDualFisheyePanorama', sampling='cubic'), "got 'cubic'"),
    (dict(type='BuildLiDARImage', channels=('colour',)), 'expected some of range, ambient'),
    (dict(type='BuildLiDARImage', interpolation='cubic'), "'linear' or 'nearest', got 'cubic'"),
    (dict(type='RasterizeBEV', grid=GRID, method='x'), "got 'x'"),
    (dict(type='PackBEVInputs', keys=('imgs',)), "unknown input 'imgs'; did you mean 'img'"),
])
def test_bad_arguments_fail_when_built(cfg, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(cfg)


def test_unknown_classes_are_named(root):
    with pytest.raises(UserError, match="'caar' is no class of Dur360BEVDataset; did you .* 'car'"):
        build(root, metainfo=dict(classes=('caar',)))
    target = [dict(type='RasterizeBEV', grid=GRID, classes=[['lorry']]), TARGET[1]]
    with pytest.raises(UserError, match="the data set has no class 'lorry'"):
        build(root, target)[0]


# Fisheye circles themselves -----------------------------------------------------------------------


def test_fisheye_circles_are_the_files_pixels(root):
    frame = build(root, [dict(type='LoadDualFisheye')])[0]
    native = cv2.imread(frame['img_path'])[..., ::-1]
    np.testing.assert_array_equal(frame['img'][0], np.rot90(native[:, 32:]))
    np.testing.assert_array_equal(frame['img'][1], np.rot90(native[:, :32], -1))
    cropped = build(root, [dict(type='LoadDualFisheye', rows=(0.25, 0.875)),
                           dict(type='PackBEVInputs', keys=('img', ))])[0]
    assert cropped['inputs']['img'].shape == (2, 3, 20, 32)
    np.testing.assert_array_equal(cropped['inputs']['img'][1].movedim(0, -1), frame['img'][1][8:28])
    front, rear = cropped['data_samples'].cameras
    assert (front['height'], front['width'], front['theta_max_deg']) == (20, 32, 101.5)
    assert (front['equidistant']['u0'], rear['equidistant']['v0']) == (15.5, 7.5)


@pytest.mark.parametrize('point, view', [((6.5, 2.5, 0.5), 0), ((-4.5, 3.5, -0.5), 1)])
def test_a_point_of_the_raw_image_is_found_at_its_feature(spoiled, point, view):
    """A spot painted where the point is in the native file lights up the point's voxel alone."""
    path = spoiled / 'image' / 'data' / '1000000000.png'
    row, col = panorama.dual_fisheye_pixels(np.array(point), 256)
    rows, cols = np.mgrid[:256, :512]
    spot = 255 * np.exp(-((rows - row)**2 + (cols - col)**2) / 18)
    cv2.imwrite(str(path), np.repeat(spot[..., None], 3, -1).astype(np.uint8))
    frame = build(spoiled).get_data_info(0)
    frame['images']['CAM_PANO'].update(height=256, width=512)
    load = TRANSFORMS.build(dict(type='LoadDualFisheye', rows=(0.25, 0.875)))
    frame = load(frame)
    images = torch.from_numpy(np.stack(frame['img'])).float().movedim(-1, 1)
    features = torch.nn.functional.avg_pool2d(images, 4)[None]
    assert features[0, view].max() > 100 and features[0, 1 - view].max() < 1
    pull = VoxelPulling(BEVGrid(x_range=(-10, 10), y_range=(-10, 10), resolution=1.0), (-1, 1), 2)
    voxels = pull(features, CameraRig.from_dicts([frame['cameras']]))[0, :2]
    level, row, col = np.unravel_index(int(voxels.argmax()), voxels.shape)
    found = pull.grid.centers()[level, row, col]
    assert found.tolist() == pytest.approx(point)


def test_rows_of_the_fisheyes_are_checked():
    with pytest.raises(UserError, match=r'LoadDualFisheye.rows: expected two parts of the height'):
        TRANSFORMS.build(dict(type='LoadDualFisheye', rows=(0.9, 0.1)))


@pytest.mark.parametrize('emptied, classes, message', [
    (True, [('car', 'bus', 'truck')], 'no frame has an object of car, bus, truck'),
    (False, [('truck', )], 'no frame has an object of truck; choose a split with annotations')])
def test_a_split_without_objects_is_not_trained_on(spoiled, emptied, classes, message):
    path = spoiled / 'dur360bev_infos_train.pkl'
    infos = load_infos(str(path))
    for frame in infos['data_list'] if emptied else ():
        frame['instances'] = []
    path.write_bytes(pickle.dumps(infos))
    target = [dict(TARGET[0], classes=classes), TARGET[1]]
    with pytest.raises(UserError, match=f'no ground truth to train on: {message}'):
        build(spoiled, target)
    assert not build(spoiled, target, test_mode=True)[0]['data_samples'].gt_bev.seg.any()
