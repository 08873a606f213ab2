"""The presets of the detectors' releases: images, decoding and settings."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS, TRANSFORMS
from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/detection/release'
BEVDEPTH, BEVDET = 'bevdepth_student_r50_24e_nuscenes', 'bevdepth4d_student_r50_24e_nuscenes'


def config(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


@pytest.mark.parametrize('name, factor, corner', [(BEVDEPTH, 0.44, (0, 140)),
                                                  (BEVDET, 0.48, (32, 176))])
def test_matrices_of_test_images(name, factor, corner):
    cfg, = (t for t in config(name).val_dataloader.dataset.pipeline if t.type == 'ImageAug3D')
    image = np.zeros((900, 1600, 3), np.uint8)
    found = TRANSFORMS.build(cfg).transform(dict(img=[image], cameras=[dict(name='c')]))
    assert found['img'][0].shape == (256, 704, 3)
    np.testing.assert_allclose(found['cameras'][0]['img_aug'], [
        [factor, 0, -corner[0]], [0, factor, -corner[1]], [0, 0, 1]], atol=1e-12)


@pytest.mark.parametrize('name, order', [(BEVDEPTH, (2, 1, 0)), (BEVDET, (0, 1, 2))])
def test_channels_and_statistics(name, order):
    """BEVDepth's blue is normalised with the statistics of red."""
    normalize = MODELS.build(config(name).model.data_preprocessor)
    rgb = torch.tensor([10, 120, 250], dtype=torch.uint8)
    images = rgb[:, None, None].expand(6, 3, 4, 4).clone()
    batch = normalize.collate_data(dict(inputs=dict(img=[images])))['inputs']['imgs']
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    torch.testing.assert_close(batch[0, 0, :, 0, 0], (rgb.float()[list(order)] - mean) / std,
                               rtol=1e-4, atol=1e-4)


def decodings(name):
    cfg = config(name).model
    return MODELS.build(dict(cfg.head, grid=cfg.grid)).decodings


@pytest.mark.parametrize('name', [BEVDEPTH, 'centerpoint_teacher_hardpillar_20e_nuscenes'])
def test_circle_nms(name):
    tasks = decodings(name)
    assert [task.squared_radius for task in tasks] == [4, 12, 10, 1, 0.85, 0.175]
    assert {(task.nms_type, task.max_num, task.score_threshold, task.post_max_size)
            for task in tasks} == {('circle', 500, 0.1, 83)}
    assert tasks[0].post_center_range == (-61.2, -61.2, -10, 61.2, 61.2, 10)


def test_scale_nms():
    tasks = decodings(BEVDET)
    assert [task.nms_type for task in tasks] == ['rotate'] * 3 + ['circle'] + ['rotate'] * 2
    assert [task.nms_thr for task in tasks if task.nms_type == 'rotate'] == [.2, .2, .2, .2, .5]
    assert tasks[3].squared_radius == 1
    assert [dict(zip(task.classes, task.scale_factors)) for task in tasks] == [
        dict(car=1.0), dict(truck=0.7, construction_vehicle=0.7), dict(bus=0.4, trailer=0.55),
        dict(barrier=1.1), dict(motorcycle=1.0, bicycle=1.0),
        dict(pedestrian=4.5, traffic_cone=9.0)]
    assert {(task.max_num, task.pre_max_size, task.post_max_size) for task in tasks} == {
        (500, 1000, 83)}


def test_other_settings():
    bevdepth, bevdet = config(BEVDEPTH), config(BEVDET)
    assert bevdepth.train_dataloader.dataset.frame == 'ego_ground'
    assert bevdet.train_dataloader.dataset.dataset.frame == 'lidar'
    assert bevdet.model.head.velocity == 'displacement'
    assert 'velocity' not in bevdepth.model.head
    teacher = config('centerpoint_teacher_pillar_20e_nuscenes').model
    assert teacher.lidar_branch.max_points is None
    assert tuple(teacher.head.train_cfg.code_weights) == (1, ) * 8 + (0.2, 0.2)
    assert teacher.head.test_cfg.nms_type == 'rotate'
