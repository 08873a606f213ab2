"""The real nuScenes keyframe through BridgeTA's data and its full-size models; it has no map."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from data_converter.nuscenes_frame import convert
from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.geometry import CameraRig
from mmdet3d_plugin.structures import load_infos, load_plain
from mmdet3d_plugin.visualization.draw import map_colours
from mmdet3d_plugin.visualization.frames import draw_predictions

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/bridgeta'
MODELS = dict(student='student_swint', teacher='teacher_swint-voxel')


@pytest.fixture(scope='module')
def inferencers(real_data, tmp_path_factory):
    """Student and teacher with the weights they are built with, on the converted keyframe."""
    root = tmp_path_factory.mktemp('keyframe')
    convert(real_data / 'nuscenes_demo', root)
    found = {}
    for role, name in MODELS.items():
        config = Config.fromfile(CONFIGS / f'bridgeta_{name}_20e_nuscenes.py')
        config.test_dataloader.dataset.update(data_root=str(root),
                                              ann_file='nuscenes_frame_infos.pkl')
        torch.manual_seed(0)
        found[role] = BEVInferencer(config, None, 'cpu')
    return found


@pytest.fixture(scope='module')
def info(real_data):
    path, = (real_data / 'nuscenes_demo').glob('*.pkl')
    with open(path, 'rb') as file:
        return load_plain(file)['data_list'][0]


def test_points_are_where_the_files_matrices_put_them(inferencers, info, real_data):
    """The rig that the model sees against the raw scan and the matrices of the file."""
    packed = inferencers['teacher'].dataset[0]
    sample, points = packed['data_samples'], packed['inputs']['points']
    scan = np.fromfile(real_data / 'nuscenes_demo' / info['lidar_points']['lidar_path'],
                       '<f4').reshape(-1, 5)
    torch.testing.assert_close(points[:, :4], torch.from_numpy(scan[:, :4]), atol=1e-4, rtol=0)
    rig = CameraRig.from_dicts([sample.cameras])
    pixel, depth, valid = (found[0] for found in rig.project(points[:, :3]))
    seen = {}
    for n, camera in enumerate(sample.cameras):
        raw = info['images'][camera['name']]
        local = scan[:, :3] @ np.array(raw['lidar2cam'])[:3, :3].T + np.array(
            raw['lidar2cam'])[:3, 3]
        exact = local @ np.array(raw['cam2img'])[:3, :3].T
        # 0.48 of 1600 x 900 is 768 x 432: 32 columns on either side and 176 rows above are cut
        exact = (exact[:, :2] / exact[:, 2:] + 0.5) * 0.48 - 0.5 - (32, 176)
        inside = (local[:, 2] > 0.1) & (exact > -0.5).all(1) & (exact < (703.5, 255.5)).all(1)
        assert (valid[n].numpy() != inside).sum() <= 2  # on the border
        both = valid[n].numpy() & inside
        np.testing.assert_allclose(pixel[n][both], exact[both], atol=0.02)
        np.testing.assert_allclose(depth[n][both], local[both, 2], atol=1e-3)
        seen[camera['name']] = round(100 * both.mean(), 1)
    assert seen == dict(CAM_FRONT=7.0, CAM_FRONT_RIGHT=7.5, CAM_FRONT_LEFT=7.6, CAM_BACK=11.4,
                        CAM_BACK_LEFT=8.3, CAM_BACK_RIGHT=7.6)  # percent of the points


def test_a_frame_without_a_map_has_a_grid_and_no_truth(inferencers):
    for role, keys in (('student', {'img'}), ('teacher', {'img', 'points'})):
        packed = inferencers[role].dataset[0]
        assert set(packed['inputs']) == keys
        sample = packed['data_samples']
        assert 'gt_bev' not in sample and sample.map_classes[0] == 'drivable_area'
        assert sample.bev_grid['forward_axis'] == '+y' and packed['inputs']['img'].shape == (
            6, 3, 256, 704)


def test_frames_of_the_info_file_and_loose_images(inferencers):
    """Frames that are given are read as those of the test data; images alone need no scan."""
    student = inferencers['student']
    expected = student.dataset[0]
    given = load_infos(student.dataset.ann_file)['data_list'][0]
    loose = dict(images={camera['name']: {key: camera[key] for key in (
        'img_path', 'lens', 'lidar2cam', 'cam2img')} | dict(height=900, width=1600)
        for camera in expected['data_samples'].cameras})  # in the scanner's axes
    for frame in (given, loose):
        packed = student._load(frame)
        assert torch.equal(packed['inputs']['img'], expected['inputs']['img'])
        for one, other in zip(packed['data_samples'].cameras, expected['data_samples'].cameras):
            np.testing.assert_array_equal(one['lidar2cam'], other['lidar2cam'])


@pytest.mark.slow
@pytest.mark.parametrize('role', MODELS)
def test_full_size_predictions(role, inferencers):
    first, second = (inferencers[role](0).pred_bev.seg for _ in range(2))
    assert first.shape == (6, 200, 200) and first.isfinite().all()
    assert torch.equal(first, second) and first.std() > 0 and 0 <= first.min() < first.max() <= 1


@pytest.mark.slow
def test_the_image(inferencers, tmp_path):
    token, image = draw_predictions(0, inferencers, 900, [0.5])
    assert token == 'ca9a282c9e77460f8360f564131a8af5' and image.shape[1] == 900
    cv2.imwrite(str(tmp_path / 'keyframe.png'), image[..., ::-1])
    colours = set(map(tuple, image[-40:].reshape(-1, 3).tolist()))
    assert set(map(tuple, map_colours(6).tolist())) <= colours  # the legend
