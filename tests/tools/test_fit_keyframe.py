"""A real keyframe through both configs, and real boxes on the objects of the real images."""
import sys

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config

from data_converter.nuscenes_frame import convert
from mmdet3d_plugin.datasets import NuScenesBEVDataset
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import CameraRig, rigid
from tools import fit_keyframe


def test_one_iteration_of_both_and_the_images(real_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [
        'fit_keyframe.py', '--root-path', str(real_data / 'nuscenes_demo'), '--out-dir',
        str(tmp_path), '--cfg-options', 'train_cfg.max_iters=1', 'train_cfg.val_interval=1'])
    with pytest.raises(UserError, match='teacher and student: IoU100 below 90 %'):
        fit_keyframe.main()
    assert (tmp_path / 'teacher' / 'iter_1.pth').is_file()
    assert (tmp_path / 'student' / 'iter_1.pth').is_file()
    dumped = Config.fromfile(tmp_path / 'teacher' / 'kd360_teacher_r18_150it_nuscenes_keyframe.py')
    sizes = {loader.dataset.pipeline[0].size for loader in (dumped.train_dataloader,
                                                            dumped.val_dataloader)}
    assert sizes == {(128, 1024)}  # drawing at a higher resolution leaves the training alone
    table = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[0] for line in table] == ['IoU100', 'teacher', 'student']
    sizes = {path.name: cv2.imread(str(path)).shape[1] for path in tmp_path.glob('*.png')}
    kitti = {'kitti.png': 1440} if any(real_data.glob('kitti*/*.bin')) else {}
    assert sizes == {'sensors.png': 2064, 'predictions.png': 1440, **kitti}


@pytest.fixture(scope='module')
def converted(real_data, tmp_path_factory):
    out = tmp_path_factory.mktemp('keyframe')
    convert(real_data / 'nuscenes_demo', out / 'data')
    return out


def test_drawing_leaves_the_config_as_it_is(converted):
    config = fit_keyframe.read_config('segmentation', 'teacher', converted, {})
    before = config.pretty_text
    assert fit_keyframe.draw_sensors_of(config, 256).shape[1] == 272
    assert config.pretty_text == before


@pytest.fixture(scope='module')
def frame(converted):
    """The teacher's frame before packing, with a panorama of 5.7 pixels a degree."""
    config = fit_keyframe.read_config('segmentation', 'teacher', converted, {})
    dataset = config.train_dataloader.dataset
    dataset.pipeline[0].size = (256, 2048)
    dataset.pipeline = dataset.pipeline[:2]
    return DATASETS.build(dataset)[0]


def test_points_of_vehicles_lie_in_their_projected_boxes(frame):
    rig = CameraRig.from_dicts([frame['cameras']])
    boxes = frame['ann_info']['gt_bboxes_3d']
    boxes = np.c_[boxes.gravity_center, boxes.tensor[:, 3:7]]
    boxes = boxes[np.isin(frame['ann_info']['gt_labels_3d'], NuScenesBEVDataset.vehicle_labels())]
    inside = rigid.points_in_boxes(frame['points'].tensor, boxes)
    seen = np.flatnonzero(inside.sum(1) >= 5)
    assert len(seen) == 6 and inside.sum() > 500
    for n in seen:
        corners = torch.from_numpy(rigid.box_corners(boxes[n:n + 1])[0])
        outline = cv2.convexHull(rig.project(corners)[0][0, 0].float().contiguous().numpy())
        for pixel in rig.project(frame['points'].tensor[inside[n]])[0][0, 0].tolist():
            assert cv2.pointPolygonTest(outline, pixel, True) > -0.5


def test_edges_of_the_scan_lie_on_edges_of_the_images(frame):
    """Where a beam leaves a near object for a far one, the panorama has an edge, not beside it."""
    scan = frame['scan'][(frame['scan'][:, 2] > -1.5) & (np.abs(frame['scan'][:, :3]).max(1) > 2.5)]
    scan = scan[np.lexsort([np.arctan2(scan[:, 1], scan[:, 0]), scan[:, 4]])]
    distance, near = np.linalg.norm(scan[:, :3], axis=1), []
    for ring in range(32):
        index = np.flatnonzero(scan[:, 4] == ring)
        for one, other in ((index[:-1], index[1:]), (index[1:], index[:-1])):
            apart = np.linalg.norm(scan[one, :2] / distance[one, None]
                                   - scan[other, :2] / distance[other, None], axis=1)
            near.append(one[(distance[other] > 1.3 * distance[one]) & (apart < 0.02)])
    points = torch.from_numpy(scan[np.concatenate(near), :3])
    pixel, _, valid = CameraRig.from_dicts([frame['cameras']]).project(points)
    col, row = np.round(pixel[0, 0][valid[0, 0]].numpy()).astype(int).T
    assert len(col) > 300
    image = cv2.GaussianBlur(frame['img'][0], (0, 0), 1).astype(int)
    edge = np.log1p(np.abs(np.roll(image, -1, 1) - np.roll(image, 1, 1)).max(-1))
    shifts = np.arange(-16, 17, 2)                                   # up to 2.8 degrees
    strength = np.array([edge[row, (col + shift) % 2048].mean() for shift in shifts])
    assert abs(shifts[strength.argmax()]) <= 4
    assert strength[shifts == 0] > 1.1 * strength[np.abs(shifts) >= 8].mean()
