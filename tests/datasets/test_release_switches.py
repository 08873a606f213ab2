"""Switches of the pipeline that reproduce the authors' release of KD360-VoxelBEV."""
import math
from pathlib import Path

import numpy as np
import pytest
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[2]


def frame(toytown, **switches):
    init_default_scope('mmdet3d')
    cfg = Config.fromfile(ROOT / 'configs/kd360/kd360_teacher_r18_500it_toytown.py')
    pipeline = [dict(step) for step in cfg.fusion_pipeline]
    for step in pipeline:
        step.update(switches.get(step['type'], {}))
    dataset = DATASETS.build(dict(cfg.train_dataset, data_root=str(toytown), pipeline=pipeline))
    return dataset[0]['data_samples']


def test_release_switches_of_the_pipeline(toytown):
    ours = frame(toytown)
    assert not np.array_equal(ours.metainfo['cameras'][0]['lidar2cam'], np.eye(4))
    theirs = frame(toytown, LoadDualFisheyePanorama=dict(concentric=True),
                   BuildLiDARImage=dict(fov_deg=(20, -10)))
    np.testing.assert_array_equal(theirs.metainfo['cameras'][0]['lidar2cam'], np.eye(4))
    camera = theirs.metainfo['lidar_camera']
    assert (camera['fov_up'], camera['fov_down']) == pytest.approx(
        (math.radians(20), -math.radians(10)))
    assert ours.metainfo['lidar_camera']['fov_up'] == pytest.approx(math.radians(22.5))


def test_the_release_preset_uses_every_switch():
    cfg = Config.fromfile(ROOT / 'configs/kd360/release/kd360_teacher_r101-effb0_12k_dur360bev.py')
    steps = {step['type']: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['LoadDualFisheyePanorama']['sampling'] == 'release'
    assert steps['LoadDualFisheyePanorama']['concentric'] is True
    assert steps['LoadOusterScan']['drop_no_returns'] is False
    assert steps['BuildLiDARImage']['stateful'] is True
    assert steps['BuildLiDARImage']['fov_deg'] == (22.5, -22.5)
    assert steps['RasterizeBEV']['method'] == 'release'
    model = cfg.model
    assert model.camera_branch.encoder.backbone.fixed_padding is True
    for branch in (model.camera_branch, model.lidar_branch):
        assert (branch.view_transform.wrap, branch.view_transform.border) == (False, 'fade')
    assert model.fuser.bias is True and model.head.losses.offset.masked is False
    student = Config.fromfile(ROOT / 'configs/kd360/release/kd360_student_effb0_12k_dur360bev.py')
    assert student.model.flips.undo_late is True and student.train_dataloader.drop_last is True
    assert student.optim_wrapper.optimizer.weight_decay == 1e-7
