"""Deployed students that read past images: outputs of a frame are inputs of the next."""
import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample

from mmdet3d_plugin.deployment import DeployedStudent, exporting
from mmdet3d_plugin.deployment.export import open_exported
from mmdet3d_plugin.geometry.warping import motion
from tests.models.test_temporal import PRE, branch, rig, sequence

GRID = dict(x_range=(-16, 16), y_range=(-16, 16), resolution=1.0, rows='+y', cols='+x')


def model(align, pre_process=PRE, num_past=1):
    part = branch(align=align, pre_process=pre_process, num_past=num_past, keep=0)
    torch.manual_seed(1)
    built = MODELS.build(dict(
        type='BEVModel', grid=GRID, camera_branch=part,
        data_preprocessor=dict(type='BEVDataPreprocessor', mean=(0, 0, 0), std=(1 / 255, ) * 3),
        bev_encoder=dict(type='BEVDecoder', backbone=dict(
            type='BEVDetResNet', in_channels=4 * (1 + num_past), channels=(8, 8), strides=(2, 2)),
            neck=dict(type='BEVDetFPN', in_channels=(8, 8), mid_channels=8, out_channels=8)),
        head=dict(type='CenterPointHead', in_channels=8, shared_channels=8,
                  tasks=[['car'], ['truck', 'bus']])))
    return built.eval()


def past_inputs(deployed, kept, rigs):
    """Inputs of past frames: their outputs, and how the vehicle moved since."""
    count = len(deployed.view.state)
    state = [torch.cat([frame[k] for frame in kept]) for k in range(count)]
    if 'motion' in deployed.past:
        return *state, torch.cat([motion(rig(), past) for past in rigs])
    return *state, torch.cat([past.lidar2cam for past in rigs])


@pytest.mark.parametrize('form', ['embedding_bag', 'grid_sample', 'dynamic_calibration'])
@pytest.mark.parametrize('align', ['lift', 'warp'])
@torch.no_grad()
def test_a_sequence_equals_the_model(align, form):
    whole = model(align)
    deployed = DeployedStudent(whole, rig(), form=form)
    tasks = len(deployed.tasks)
    assert deployed.outputs[tasks:] == (
        ('next_context', 'next_depth') if align == 'lift' else ('next_bev', ))
    values = (rig().lidar2cam[0], rig().params[0], rig().img_aug[0])
    calibration = values if form == 'dynamic_calibration' else ()
    kept = None
    for frame in sequence():
        expected = whole(frame, mode='tensor')
        if kept is None:  # the first frame is its own past
            empty = [torch.zeros(shape) for shape in deployed.past.values()]
            kept = deployed(frame['imgs'][:, 0], *empty, *calibration)[tasks:]
        others = past_inputs(deployed, [kept], frame['past_rigs'])
        found = deployed(frame['imgs'][:, 0], *others, *calibration)
        for name, out in zip(deployed.tasks, found):
            torch.testing.assert_close(out, expected[name], rtol=1e-4, atol=1e-4)
        kept = found[tasks:]


@pytest.mark.parametrize('align', ['lift', pytest.param('warp', marks=pytest.mark.slow)])
@torch.no_grad()
def test_onnx_with_two_past_frames_equals_torch(align):
    pytest.importorskip('onnxscript')
    onnxruntime = pytest.importorskip('onnxruntime')
    assert onnxruntime
    whole = model(align, num_past=2)
    deployed = DeployedStudent(whole, rig(), form='block_dense')
    torch.manual_seed(2)
    images = torch.randint(0, 255, (1, 2, 3, 32, 64), dtype=torch.uint8)
    example = [torch.rand(shape) for shape in deployed.past.values()]
    moved = np.eye(4, dtype=np.float32)
    moved[:2, 3] = 1.5, -0.3
    example[-1] = torch.tensor(moved).expand(example[-1].shape).clone()
    if align == 'lift':
        example[-1] = (rig().lidar2cam[0] @ example[-1][:, :1])
    exported = exporting.to_onnx(deployed, (images, *example))
    run = open_exported(exported, 'onnx', deployed.outputs, 1)
    feed = dict(zip(deployed.inputs, (images, *example)))
    found = run({name: value.numpy() for name, value in feed.items()})
    for name, out, want in zip(deployed.outputs, found, deployed(images, *example)):
        assert out.shape == want.shape
        np.testing.assert_allclose(out, want.numpy(), atol=1e-3, err_msg=name)


def test_predict_still_works_with_past_images():
    whole, (frame, *_) = model('lift'), sequence()
    sample, = whole(frame, [Det3DDataSample(metainfo=dict(classes=('car', 'truck', 'bus')))],
                    mode='predict')
    assert sample.pred_instances_3d.bboxes_3d.tensor.shape[1] == 9
