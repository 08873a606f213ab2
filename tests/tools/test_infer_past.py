"""Inference without torch over a sequence: a network that reads past images."""
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.geometry import CameraRig
from mmdet3d_plugin.structures import fields, lidar2global
from tests.tools.test_export_onnx import start

STUDENT = Path(__file__).resolve().parents[2] / (
    'configs/detection/bevdepth4d_student_r18_500it_toytown.py')


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'infer', STUDENT.parents[2] / 'tools' / 'infer_onnx.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def world(toytown_nuscenes, tmp_path_factory):
    """A scene's images by camera, its poses, and the boxes that the model predicts in torch."""
    root = tmp_path_factory.mktemp('sequence')
    options = {'data_root': str(toytown_nuscenes), 'model.head.test_cfg.score_threshold': 0.05}
    torch.manual_seed(0)
    inferencer = BEVInferencer(load_config(str(STUDENT), options), None, 'cpu')
    model, data = inferencer.model, inferencer.dataset
    torch.save(dict(state_dict=model.state_dict()), root / 'student.pth')
    rig, kept, poses, expected = None, None, {}, {}
    for n in range(len(data)):
        info, packed = data.get_data_info(n), data[n]
        sample = packed['data_samples']
        cameras = fields.at_time(sample.metainfo[fields.CAMERAS])
        for camera in cameras:
            folder = root / 'images' / camera['name']
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(camera['img_path'], folder)
        name = Path(cameras[0]['img_path']).stem
        pose = lidar2global(info)
        poses[name] = dict(lidar2global=pose.tolist(), time=info['timestamp'])
        rig = rig or CameraRig.from_dicts([cameras])
        images = (packed['inputs']['img'][:1].float() - model.data_preprocessor.mean
                  ) / model.data_preprocessor.std
        before = kept or (images, pose, info['timestamp'])
        moved = torch.tensor(np.linalg.inv(before[1]) @ pose, dtype=torch.float32)
        inputs = dict(imgs=torch.stack([images, before[0]], 1), rig=rig,
                      past_rigs=[replace(rig, lidar2cam=rig.lidar2cam @ moved,
                                         fingerprint=(name, ))])  # the key of cached geometry
        empty = Det3DDataSample(metainfo=dict(
            classes=sample.metainfo['classes'],
            past_interval=(info['timestamp'] - before[2]) or 1 / 12))
        with torch.no_grad():
            outs = model(inputs, mode='tensor')
            found, = model.head.predict(outs, [empty])
        expected[name] = {key: out[0].numpy() for key, out in outs.items()}, found.pred_instances_3d
        kept = images, pose, info['timestamp']
    (root / 'poses.json').write_text(json.dumps(poses))
    return root, options, expected


@pytest.mark.slow
def test_a_sequence_gives_the_boxes_of_the_model(world, tool, monkeypatch, tmp_path):
    root, options, expected = world
    start('export_onnx', monkeypatch, STUDENT, root / 'student.pth', tmp_path / 's.onnx',
          '--cfg-options', *(f'{key}={value}' for key, value in options.items()))
    assert tool.Exported(tmp_path / 's.onnx', 1).past == ['past_context', 'past_depth',
                                                          'past_lidar2cam']
    out = tmp_path / 'out'
    run = ('infer_onnx', monkeypatch, tmp_path / 's.onnx', root / 'images', out, '--poses',
           root / 'poses.json', '--maps')
    start(*run)
    compare(out, expected)
    last = sorted(expected)[-1]
    (out / 'boxes' / f'{last}.json').unlink()  # its past was computed in another run
    start(*run)
    compare(out, expected)


def compare(out, expected):
    """Outputs are equal, and boxes but for some of nearly one score, of which NMS keeps either."""
    speeds = []
    for name, (outs, want) in expected.items():
        with np.load(out / 'maps' / f'{name}.npz') as maps:
            assert set(maps.files) == set(outs)
            for key, values in outs.items():
                np.testing.assert_allclose(maps[key], values, atol=1e-3, err_msg=key)
        boxes = json.loads((out / 'boxes' / f'{name}.json').read_text())['boxes']
        found = np.array([[*box['center'], *box['velocity'], box['score']] for box in boxes])
        wanted = np.concatenate([want.bboxes_3d.gravity_center, want.bboxes_3d.tensor[:, 7:9],
                                 want.scores_3d[:, None]], 1)
        assert len(found) == len(wanted) > 0
        apart = np.abs(found[:, None] - wanted).max(-1)
        assert (apart.min(0) < 2e-2).mean() > 0.95 and (apart.min(1) < 2e-2).mean() > 0.95
        speeds += np.hypot(*wanted[:, 3:5].T).tolist()
    assert max(speeds) > 0.01
