"""Every student of the repository as ONNX computes in onnxruntime what it does in torch.

The full-size ones take half an hour: EVERY_STUDENT=1 pytest tests/deployment/test_every_student.py
"""
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from mmengine.config import Config

from mmdet3d_plugin.apis import init_model
from mmdet3d_plugin.deployment import DeployedStudent, exporting
from mmdet3d_plugin.deployment.export import example_of
from mmdet3d_plugin.deployment.packaging import calibration_of, first_frame
from mmdet3d_plugin.deployment.preprocessing import recipe_of
from mmdet3d_plugin.geometry import CameraRig

ROOT = Path(__file__).resolve().parents[2]
STUDENTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/*.py')
                  if '_student_' in path.name and not {'_base_', 'experiments'} & set(path.parts))


def pinholes(names, size):
    """Cameras around the car, each with the network's view of nuScenes' images."""
    images = {}
    for n, name in enumerate(names):
        turn = 2 * np.pi * n / len(names)
        lidar2cam = np.eye(4)
        lidar2cam[:3, :3] = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]) @ np.array([
            [np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        images[name] = dict(
            lens='pinhole', height=size[0], width=size[1], lidar2cam=lidar2cam,
            cam2img=[[0.8 * size[1], 0, size[1] / 2], [0, 0.8 * size[1], size[0] / 2], [0, 0, 1]])
    return dict(images=images)


def rig_of(config):
    """The rig of a config without its data."""
    pipeline = config.test_dataloader.dataset.pipeline
    if 'DualFisheye' in pipeline[0].type:
        config.test_dataloader.dataset.data_root = 'none'
        frame = first_frame(SimpleNamespace(dataset_cfg=config.test_dataloader.dataset))
    else:
        size = (108, 192) if 'toytown' in config.filename else (900, 1600)
        frame = pinholes(pipeline[0].get('cameras') or ['a', 'b', 'c', 'd'], size)
    return CameraRig.from_dicts([recipe_of(pipeline, frame)[0]])


@pytest.mark.parametrize('form', ['grid_sample', 'dynamic_calibration'])
@pytest.mark.parametrize('name', STUDENTS)
def test_export(name, form):
    if 'toytown' not in name and not os.environ.get('EVERY_STUDENT'):
        pytest.skip('a full-size student; EVERY_STUDENT=1 exports it')
    torch.manual_seed(0)
    model = init_model(ROOT / name, None, 'cpu')
    rig = rig_of(Config.fromfile(ROOT / name))
    deployed = DeployedStudent(model, rig, form=form)
    values = calibration_of(rig) if form == 'dynamic_calibration' else {}
    example = example_of(deployed, rig, values)
    model = exporting.to_onnx(deployed, example)
    assert {node.domain for node in model.graph.node} == {''}
    with torch.no_grad():
        expected = deployed(*example)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = dict(zip(deployed.inputs, (x.numpy() for x in example)))
    for out, want in zip(session.run(None, feed), expected):
        torch.testing.assert_close(torch.from_numpy(out), want, rtol=0, atol=1e-3)
