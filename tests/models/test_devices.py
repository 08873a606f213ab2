"""What a device other than the CPU runs: nothing there may wait for values or copy constants.

Tensors of the device ``meta`` have no values: an operator that waits for one fails.
"""
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet3d_plugin.deployment import DeployedStudent
from mmdet3d_plugin.geometry import CameraRig, PullMap
from mmdet3d_plugin.models import VoxelPulling
from tests.factories import CAMERA, LIDAR, batch, build


class Copies(TorchDispatchMode):
    """Counts constants that are made on the host in a pass (``torch.tensor``, ``new_tensor``)."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ('lift_fresh', '_to_copy')
        return func(*args, **(kwargs or {}))


def to_meta(value):
    if isinstance(value, torch.Tensor):
        return value.to('meta')
    if isinstance(value, CameraRig):
        tensors = {name: getattr(value, name).to('meta')
                   for name in ('lidar2cam', 'params', 'img_aug')}
        return CameraRig(**{**value.__dict__, **tensors})
    if isinstance(value, dict):
        return {key: to_meta(item) for key, item in value.items()}
    return [to_meta(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize('lidar', [None, LIDAR])
def test_a_pass_waits_for_nothing(lidar, monkeypatch):
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: nullcontext())  # none of meta
    model = build(CAMERA, lidar).eval()
    inputs = model.data_preprocessor(batch(lidar=lidar is not None), False)['inputs']
    maps, build_map = {}, VoxelPulling.pull_map
    monkeypatch.setattr(VoxelPulling, 'pull_map', lambda view, rig: maps.setdefault(
        (id(view), rig.lidar2cam.device.type == 'meta'), build_map(view, rig)
        if rig.lidar2cam.device.type == 'cpu' else PullMap(*map(to_meta, maps[id(view), False]))))
    expected = model(inputs, mode='tensor')
    model.to('meta')
    with torch.no_grad():
        outs = model(to_meta(inputs), mode='tensor')
    assert {name: out.shape for name, out in outs.items()} == {
        name: out.shape for name, out in expected.items()}


def test_constants_are_not_made_in_a_pass():
    model = build(CAMERA).eval()
    model.camera_branch.view_transform.order = 'sample_first'
    inputs = model.data_preprocessor(batch(lidar=False), False)['inputs']
    student = DeployedStudent(model, inputs['rig'], form='grid_sample')
    images = torch.zeros(2, 1, 3, 64, 128)
    for run in (lambda: model(inputs, mode='tensor'), lambda: student(images)):
        with torch.no_grad():
            run()
            with Copies() as copies:
                run()
        assert copies.count == 0
