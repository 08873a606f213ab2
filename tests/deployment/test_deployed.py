"""A deployed student equals its model, in every form and every runtime."""
from collections import Counter
from functools import lru_cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmdet3d_plugin.deployment import DeployedStudent, exporting
from mmdet3d_plugin.deployment.packaging import calibration_of
from mmdet3d_plugin.deployment.views import dense_blocks, padded_bags
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import CameraRig
from mmdet3d_plugin.geometry.lifting import LiftMap
from mmdet3d_plugin.geometry.reordered import CSRMatrix
from tests import factories

SIZE = (32, 64)
FORMS = ('embedding_bag', 'block_dense', 'grid_sample', 'dynamic_calibration')


def pinholes(forward=0.0):
    """Two cameras that look ahead and back, as far apart as cars are long."""
    intrinsics = np.array([[40.0, 0, 31.5], [0, 40, 15.5], [0, 0, 1]])
    turns = [np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]),
             np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]])]
    cameras = []
    for n, turn in enumerate(turns):
        lidar2cam = np.eye(4)
        lidar2cam[:3, :3], lidar2cam[2, 3] = turn, forward
        cameras.append(dict(name=f'c{n}', lens='pinhole', lidar2cam=lidar2cam, cam2img=intrinsics,
                            height=SIZE[0], width=SIZE[1]))
    return cameras


def panorama(origin=(0.0, 0.0, 0.0)):
    """A camera at ``origin`` of the LiDAR frame."""
    camera = dict(factories.camera(*SIZE, 90), lidar2cam=np.eye(4))
    camera['lidar2cam'][:3, 3] = -np.array(origin)
    return [camera]


def lift_branch():
    resnet = dict(type='mmdet.ResNet', depth=18, base_channels=8, num_stages=3, strides=(1, 2, 2),
                  dilations=(1, 1, 1), out_indices=(1, 2), norm_eval=False)
    neck = dict(type='GeneralizedLSSFPN', in_channels=(16, 32), out_channels=8)
    return dict(type='CameraBranch', encoder=dict(type='ImageEncoder', backbone=resnet, neck=neck),
                view_transform=dict(type='LiftSplat', in_channels=8, channels=8, depth=(1, 14, 1),
                                    x_range=(-16, 16), y_range=(-16, 16), resolution=1.0,
                                    z_range=(-3, 3), num_levels=1,
                                    compressor=dict(type='BEVDownsample', channels=8)))


@lru_cache
def build(kind):
    """A student with norms that are not trivial: a puller of a panorama, or a lifter of two."""
    extra = {}
    if kind == 'lift':
        source = dict(x_range=(-16, 16), y_range=(-16, 16), resolution=2.0)
        extra = dict(camera_branch=lift_branch(), head=dict(
            type='BEVMapHead', in_channels=8, classes=('road', 'walk'), grid=factories.GRID,
            source=source))
    torch.manual_seed(0)
    model = MODELS.build(factories.model_config(**extra)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def rig_of(kind, **where):
    return CameraRig.from_dicts([(pinholes if kind == 'lift' else panorama)(**where)])


def images_of(kind, batch=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 2 if kind == 'lift' else 1, 3, *SIZE), dtype=torch.uint8,
                         generator=generator)


@torch.no_grad()
def predicted(kind, rig, images):
    """The model's own way: preprocessor, network, prediction; (B, K, R, C)."""
    model = build(kind)
    preprocessor = model.data_preprocessor
    imgs = (images.float() - preprocessor.mean) / preprocessor.std
    samples = model(dict(imgs=imgs, rig=rig), [Det3DDataSample() for _ in imgs], mode='predict')
    return torch.stack([sample.pred_bev.seg for sample in samples])


def calibration(rig):
    return tuple(map(torch.from_numpy, calibration_of(rig).values()))


@pytest.mark.parametrize('kind', ['pull', 'lift'])
@pytest.mark.parametrize('form', FORMS)
def test_it_equals_predict(kind, form):
    rig, images = rig_of(kind), images_of(kind)
    deployed = DeployedStudent(build(kind), rig, form=form)
    out, = deployed(images, *calibration(rig) if form == 'dynamic_calibration' else ())
    expected = predicted(kind, rig, images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    if form != 'dynamic_calibration':
        torch.testing.assert_close(deployed(images.float())[0], out)  # float images likewise
        assert deployed.inputs == ('images', )


@pytest.mark.parametrize('kind, where', [('pull', dict(origin=(2.0, -1.0, 0.5))),
                                         ('lift', dict(forward=1.5))])
def test_a_calibration_that_is_an_input(kind, where):
    images, other = images_of(kind, 1), rig_of(kind, **where)
    deployed = DeployedStudent(build(kind), rig_of(kind), form='dynamic_calibration')
    out, = deployed(images, *calibration(other))
    torch.testing.assert_close(out, predicted(kind, other, images), rtol=0, atol=1e-5)
    assert (out - predicted(kind, rig_of(kind), images)).abs().max() > 1e-3


def test_nothing_of_training_is_left():
    deployed = DeployedStudent(build('pull'), rig_of('pull'))
    assert deployed.outputs == ('segmentation', )
    assert not any(isinstance(m, nn.BatchNorm2d) for m in deployed.modules())
    assert not any(p.requires_grad for p in deployed.parameters())
    assert [name for name, _ in deployed.head.named_children()] == ['segmentation']
    every = DeployedStudent(build('pull'), rig_of('pull'), ('offset', 'centerness', 'segmentation'))
    assert every.outputs == ('segmentation', 'centerness', 'offset')
    shapes = [tuple(out.shape) for out in every(images_of('pull', 2))]
    assert shapes == [(2, 1, 32, 32), (2, 1, 32, 32), (2, 2, 32, 32)]
    assert build('pull').head.losses is not None  # the model itself is as it was


def test_tasks_of_a_head_that_groups_instances():
    head = dict(type='BEVSegHead', in_channels=8, instances=dict(type='CenterGrouping'))
    model = MODELS.build(factories.model_config(head=head))
    assert DeployedStudent(model, rig_of('pull')).outputs == (
        'segmentation', 'centerness', 'offset')


def test_what_cannot_be_deployed():
    with pytest.raises(UserError, match="no task 'segmentations'; did you mean 'segmentation'"):
        DeployedStudent(build('pull'), rig_of('pull'), ['segmentations'])
    fused = MODELS.build(factories.model_config(lidar_branch=factories.LIDAR))
    with pytest.raises(UserError, match='only models that read images alone'):
        DeployedStudent(fused, rig_of('pull'))


def test_padded_bags_sum_each_cell_once():
    counts = torch.tensor([0, 3, 1, 0, 200, 4, 0])
    start = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    pair = torch.randperm(1000)[:208]
    groups, place = padded_bags(LiftMap(pair, pair // 2, start), channels=4)
    values = torch.cat([torch.rand(1000), torch.zeros(1)])
    sums = torch.cat([*(values[pairs].sum(1) for _, pairs in groups), torch.zeros(1)])[place]
    expected = torch.stack([values[pair[a:b]].sum() for a, b in zip(start[:-1], start[1:])])
    torch.testing.assert_close(sums, expected)
    for pixels, pairs in groups:
        assert (pixels == torch.where(pairs >= 0, pairs // 2, 0)).all()
    assert sum(pairs.numel() for _, pairs in groups) <= 1.2 * 208 + 4


# ONNX -------------------------------------------------------------------------------------------


@lru_cache
def exported(kind, form):
    """The network in torch, its ONNX model and a session."""
    rig = rig_of(kind)
    deployed = DeployedStudent(build(kind), rig, form=form)
    example = (images_of(kind, 1), *(calibration(rig) if form == 'dynamic_calibration' else ()))
    model = exporting.to_onnx(deployed, example)
    return deployed, model, onnxruntime.InferenceSession(model.SerializeToString())


def test_dense_blocks_are_the_sparse_matrix():
    """A plane of 5 x 3 cells in tiles of 2 x 2: 3 x 2 of them, some cut off, one without rows."""
    counts = torch.tensor([3, 0, 1, 2, 1, 0, 0, 0, 4, 5, 1, 2, 0, 2, 1])
    counts[[8, 11]] = 0  # the middle tile of the right column
    start = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    total = int(start[-1])
    generator = torch.Generator().manual_seed(0)
    rows = CSRMatrix(torch.randint(0, 7, (total, ), generator=generator, dtype=torch.int32),
                  torch.rand(total, generator=generator), start.int(), 7)
    groups, place = dense_blocks(rows, (5, 3), channels=4, side=2)
    assert sum(len(index) for index, _ in groups) == 5 and place[[8, 11]].tolist() == [20, 20]
    table = torch.rand(7, 4, generator=generator)
    sums = torch.cat([(weight @ table[index]).flatten(0, 1) for index, weight in groups])
    sums = torch.cat([sums, torch.zeros(1, 4)])[place]
    torch.testing.assert_close(sums, rows(table))


def onnx_out(session, deployed, images, rig):
    feed = dict(zip(deployed.inputs, (images.numpy(), *calibration_of(rig).values())))
    out, = session.run(None, feed)
    return torch.from_numpy(out)


@pytest.mark.parametrize('kind, form', [
    ('pull', 'block_dense'), ('pull', 'grid_sample'), ('pull', 'dynamic_calibration'),
    ('lift', 'grid_sample'),
    pytest.param('lift', 'dynamic_calibration', marks=pytest.mark.slow)])
def test_onnx_equals_torch_for_any_batch(kind, form):
    deployed, model, session = exported(kind, form)
    for batch in (1, 3):
        out = onnx_out(session, deployed, images_of(kind, batch), rig_of(kind))
        expected = predicted(kind, rig_of(kind), images_of(kind, batch))
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    assert {node.domain for node in model.graph.node} == {''}
    assert [(o.domain, o.version) for o in model.opset_import] == [('', 18)]
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assert dims[0].dim_param == 'batch' and [d.dim_value for d in dims[2:]] == [32, 32]


@pytest.mark.parametrize('origin', [(0.5, 0.5, 0), (0.5, 0.5, 1), (-3.5, 2.5, -1)])
def test_voxels_at_the_camera_and_on_its_axis(origin):
    """Voxel centres are at half metres, and at heights of -3, -1, 1 and 3 m."""
    deployed, _, session = exported('pull', 'dynamic_calibration')
    rig, images = rig_of('pull', origin=origin), images_of('pull', 1)
    out = onnx_out(session, deployed, images, rig)
    assert out.isfinite().all()
    torch.testing.assert_close(out, predicted('pull', rig, images), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_lift_with_another_calibration():
    deployed, _, session = exported('lift', 'dynamic_calibration')
    rig, images = rig_of('lift', forward=1.5), images_of('lift', 2)
    out = onnx_out(session, deployed, images, rig)
    torch.testing.assert_close(out, predicted('lift', rig, images), rtol=0, atol=1e-4)


def macs(model):
    """Of convolutions and matrix products for one frame."""
    one = onnx.ModelProto.FromString(model.SerializeToString())
    one.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del one.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(one, data_prop=True)
    sizes = {value.name: [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
             for part in (inferred.graph.value_info, inferred.graph.output, inferred.graph.input)
             for value in part}
    sizes.update({w.name: list(w.dims) for w in model.graph.initializer})
    total = 0
    for node in model.graph.node:
        if node.op_type == 'Conv':
            total += np.prod(sizes[node.output[0]]) * np.prod(sizes[node.input[1]][1:])
        elif node.op_type in ('MatMul', 'Gemm'):
            total += np.prod(sizes[node.output[0]]) * sizes[node.input[0]][-1]
    return int(total)


@pytest.mark.parametrize('kind, form, samplings', [
    ('pull', 'grid_sample', 1), ('pull', 'block_dense', 0), ('lift', 'grid_sample', 0)])
def test_nothing_is_computed_twice(kind, form, samplings):
    deployed, model, _ = exported(kind, form)
    count = Counter(node.op_type for node in model.graph.node)
    layers = list(deployed.modules())
    assert count['Conv'] == sum(isinstance(layer, nn.Conv2d) for layer in layers)
    assert count['InstanceNormalization'] == sum(
        isinstance(layer, nn.InstanceNorm2d) for layer in layers)
    assert count['GridSample'] == samplings and count['BatchNormalization'] == 0
    assert not {'ScatterND', 'ScatterElements', 'NonZero', 'Loop', 'If'} & set(count)
    assert not any(a.s == b'wrap' for node in model.graph.node for a in node.attribute)  # opset 19
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        deployed(images_of(kind, 1))
    assert macs(model) == counter.get_total_flops() // 2


def test_half_precision_and_eight_bits():
    deployed, model, session = exported('pull', 'grid_sample')
    images = images_of('pull', 4)
    expected = onnx_out(session, deployed, images, rig_of('pull'))
    half = exporting.half_precision(onnx.ModelProto.FromString(model.SerializeToString()))
    onnx.checker.check_model(half)
    frames = ({'images': images[n:n + 1].numpy()} for n in range(4))
    bits = exporting.quantised(model, frames)
    assert max(half.ByteSize(), bits.ByteSize()) < 0.8 * model.ByteSize()
    for changed, apart in ((half, 0.01), (bits, 0.1)):
        session = onnxruntime.InferenceSession(changed.SerializeToString())
        out = onnx_out(session, deployed, images, rig_of('pull'))
        assert 1e-6 < (out - expected).abs().max() < apart
    quantised = Counter(node.op_type for node in bits.graph.node)
    assert quantised['QuantizeLinear'] >= quantised['Conv'] > 0


def test_a_file_is_checked_and_whole(tmp_path):
    _, model, _ = exported('pull', 'grid_sample')
    exporting.save_onnx(model, tmp_path / 'a' / 'student.onnx')
    assert onnx.load(tmp_path / 'a' / 'student.onnx') == model
    foreign = onnx.ModelProto.FromString(model.SerializeToString())
    foreign.graph.node[0].domain = 'com.microsoft'
    foreign.opset_import.add(domain='com.microsoft', version=1)
    with pytest.raises(ValueError, match='operators beyond the standard'):
        exporting.save_onnx(foreign, tmp_path / 'b.onnx')
    assert not (tmp_path / 'b.onnx').exists()


# OpenVINO ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind, form', [
    ('pull', 'embedding_bag'), ('lift', 'embedding_bag'), ('pull', 'dynamic_calibration')])
def test_openvino_equals_torch(kind, form, tmp_path):
    openvino = pytest.importorskip('openvino')
    rig, images = rig_of(kind), images_of(kind, 2)
    deployed = DeployedStudent(build(kind), rig, form=form)
    example = (images[:1], *(calibration(rig) if form == 'dynamic_calibration' else ()))
    exporting.save_openvino(exporting.to_openvino(deployed, example), tmp_path / 's.xml')
    model = openvino.Core().read_model(tmp_path / 's.xml')
    types = Counter(node.get_type_name() for node in model.get_ops())
    assert types['EmbeddingBagOffsets'] == (form == 'embedding_bag')
    model.reshape({'images': [2, *images.shape[1:]]})
    compiled = openvino.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    feed = dict(zip(deployed.inputs, (images.numpy(), *calibration_of(rig).values())))
    out = torch.from_numpy(compiled(feed)['segmentation'])
    torch.testing.assert_close(out, predicted(kind, rig, images), rtol=0, atol=1e-4)
