"""Backends give the outputs of the model; the official baseline those of the release's settings."""
import copy
import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch._inductor.config
from mmdet3d.structures import Det3DDataSample

from mmdet3d_plugin.benchmark.backends import Eager, build_backend
from mmdet3d_plugin.benchmark.official_baseline import OfficialBaseline
from mmdet3d_plugin.benchmark.reports import in_backends
from mmdet3d_plugin.errors import UserError
from tests.factories import CAMERA, LIDAR, batch, build, camera

RELEASE = copy.deepcopy(CAMERA)
RELEASE['view_transform'].update(wrap=False, border='fade')


def student(camera_branch=CAMERA):
    """With norms that are not the identity."""
    model = build(camera_branch=camera_branch)
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
            norm.weight.data.uniform_(0.5, 1.5)
    return model.eval()


def frames(size=2):
    generator = np.random.default_rng(0)
    sample = Det3DDataSample(metainfo=dict(cameras=[camera(64, 128, 90)], bev_aug=np.eye(4)))
    images = [torch.from_numpy(generator.integers(0, 256, (1, 3, 64, 128), dtype=np.uint8))
              for _ in range(size)]
    return dict(inputs=dict(img=images), data_samples=[sample] * size)


@torch.no_grad()
def outputs(backend, packed):
    return backend.run(backend.preprocess(packed))


def test_the_official_baseline_computes_what_the_model_does_with_the_releases_settings():
    model = student(RELEASE)
    data = model.data_preprocessor(batch(2, lidar=False), False)
    with torch.no_grad():
        ours, theirs = model(**data, mode='tensor'), OfficialBaseline(model)(**data)
    for task, values in theirs.items():
        torch.testing.assert_close(ours[task], values, atol=1e-4, rtol=0)


def test_the_official_baseline_in_a_process_of_its_own_is_the_same():
    model, packed = student(RELEASE), frames()
    here, there = (build_backend(name, model, packed) for name in ('official-kept', 'official'))
    found = [backend.decode(outputs(backend, packed))['segmentation'] for backend in (here, there)]
    torch.testing.assert_close(*found)
    assert there.process.is_alive() and there.postprocess(None) is None
    there.process.kill()
    with pytest.raises(UserError, match="the official baseline's process ended"):
        there.preprocess(packed)


def test_the_official_baseline_is_of_one_model_only():
    with pytest.raises(UserError, match='this is another model'):
        OfficialBaseline(build(lidar_branch=LIDAR))


@pytest.mark.parametrize('name, tolerance', [
    ('deployed', 1e-4), ('onnxruntime', 1e-3), ('openvino', 1e-3), ('eager-bf16', 0.1),
    ('deployed-bf16', 0.1)])
def test_backends_agree(name, tolerance):
    if name == 'openvino':
        pytest.importorskip('openvino')
    model, packed = student(), frames()
    eager = build_backend('eager', model, packed)
    expected = eager.decode(outputs(eager, packed))['segmentation']
    backend = build_backend(name, model, packed)
    found = outputs(backend, packed)
    assert expected.std() > 0.01
    torch.testing.assert_close(backend.decode(found)['segmentation'], expected, atol=tolerance,
                               rtol=0)
    assert set(found) == {'segmentation', 'centerness', 'offset'}


@pytest.mark.slow
@pytest.mark.parametrize('name', ['eager-compiled', 'deployed-compiled'])
def test_compiled_backends_agree(name):
    model, packed = student(), frames()
    before = copy.deepcopy(model.state_dict())
    eager = build_backend('eager', model, packed)
    expected = eager.decode(outputs(eager, packed))['segmentation']
    backend = build_backend(name, model, packed)
    found = backend.decode(outputs(backend, packed))['segmentation']
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert not torch._inductor.config.freezing  # a setting of the whole process
    assert all(values.equal(before[key]) for key, values in model.state_dict().items())


@pytest.mark.parametrize('name', ['onnx', 'eager-fast', 'eager-kept', 'openvino-compiled',
                                  'onnxruntime-bf16'])
def test_unknown_backends(name):
    with pytest.raises(UserError, match=f"backend '{name}': "):
        build_backend(name, student(), frames())


def test_compiling_freezes_weights_and_leaves_the_setting_of_the_process(monkeypatch):
    config, seen = torch._inductor.config, []
    run = Eager.run
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda module: seen.append(config.freezing))
    monkeypatch.setattr(Eager, 'run', lambda *args: seen.append(config.freezing) or run(*args))
    build_backend('eager-compiled', student(), frames())
    assert seen == [False] * 3 + [True] and not config.freezing


def test_a_missing_package_is_named_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, find=importlib.util.find_spec: (
        None if name == 'openvino' else find(name)))
    for name in ('openvino', 'openvino-bf16'):
        settings = SimpleNamespace(official=False, backends=['eager', name])
        with pytest.raises(UserError, match=f"backend '{name}' needs openvino; pip install openv"):
            in_backends([None], settings)
