"""The authors' checkpoints of KD360-VoxelBEV: every entry, both ways, and the whole networks."""
import importlib.util
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from mmdet3d_plugin.errors import UserError
from tests.helpers import kd360_release

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = 'projects/kd360_voxelbev/convert_checkpoint.py'


def load_script():
    spec = importlib.util.spec_from_file_location('convert_checkpoint', ROOT / SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


converter = load_script()


@pytest.mark.parametrize('model, entries, converted', [
    ('student', 474, 466), ('teacher', 1049, 1044), ('ta', 596, 571)])
def test_every_entry_is_accounted_for_and_comes_back(model, entries, converted):
    source = kd360_release.release(model)
    assert len(source) == entries
    ours, report = converter.convert(dict(model_state_dict=source), model)
    assert len(ours['state_dict']) == converted
    assert len(ours['set_aside']) == entries - converted
    assert f'{entries} entries, {converted} converted' in report
    back, _ = converter.revert(ours, model)
    assert back['model_state_dict'].keys() == source.keys()
    assert all(torch.equal(back['model_state_dict'][name], value)
               for name, value in source.items())


def test_names_are_those_of_the_release():
    names = converter.layouts('teacher')['teacher (effb0_ori)'].names
    assert names['encoder_l.backbone.4.0.downsample.0.weight'] == (
        'lidar_branch.encoder.backbone.layer1.0.downsample.0.weight')
    assert names['encoder_l.layer3.22.bn3.running_var'] == (
        'lidar_branch.encoder.backbone.layer3.22.bn3.running_var')
    assert names['encoder_e.backbone._blocks.15._project_conv.weight'] == (
        'camera_branch.encoder.backbone.layers.5.4.linear_conv.conv.weight')
    assert names['gatefusion.fuse_conv.1.running_mean'] == 'fuser.refine.bn.running_mean'
    assert names['decoder.up1_skip.upsample_layer.1.weight'] == 'bev_encoder.up1.conv.weight'
    assert names['decoder.instance_center_head.3.bias'] == 'head.centerness.1.bias'
    assert names['ce_weight'] == 'head.weights.log_variance.segmentation'


@pytest.mark.parametrize('encoder, parameters', [
    ('r101', 42_048_714), ('r50', 23_056_586), ('effb0-s8', 6_201_322), ('effb4-s8', 9_059_226),
    ('effb0', 10_462_958 - 1_281_000)])
def test_student_encoders(encoder, parameters):
    model = MODELS.build(Config.fromfile(converter.config_of('student', encoder)).model)
    # The release also counts its feature head and three unused scalars.
    assert sum(p.numel() for p in model.parameters()) == parameters - 163_968 - 3
    state = model.state_dict()
    theirs, _ = converter.revert(dict(state_dict=state), 'student')
    assert len(theirs['model_state_dict']) == len(state) + 6 + 2 * (encoder == 'effb0')
    ours, report = converter.convert(theirs, 'student')
    assert {v: k for k, v in converter.ENCODERS.items()}[encoder] in report
    assert all(torch.equal(ours['state_dict'][name], value) for name, value in state.items())


def test_a_student_comes_back_from_a_distillers_checkpoint():
    source = kd360_release.release('ta')
    ours, _ = converter.convert(dict(model_state_dict=source), 'ta')
    back, report = converter.revert(dict(state_dict=ours['state_dict']), 'student')
    assert len(back['model_state_dict']) == 474 and 'zeros' in report
    assert torch.equal(back['model_state_dict']['bev_compressor.0.weight'],
                       source['bev_compressor.0.weight'])
    assert back['model_state_dict']['encoder.backbone._fc.weight'].count_nonzero() == 0


def spoil(how):
    source = kd360_release.release('student')
    if how == 'missing':
        del source['bev_compressor.0.weight']
    elif how == 'unknown':
        source['encoder.extra'] = torch.zeros(1)
    elif how == 'shape':
        source['bev_compressor.0.weight'] = torch.zeros(128, 512, 3, 3)
    elif how == 'nan':
        source['bev_compressor.0.weight'][0, 0, 0, 0] = float('nan')
    return source


@pytest.mark.parametrize('how, message', [
    ('missing', 'bev_compressor.0.weight is missing'), ('unknown', 'encoder.extra is unexpected'),
    ('shape', r'bev_compressor.0.weight is \(128, 512, 3, 3\), expected \(128, 1024, 3, 3\)'),
    ('nan', 'bev_compressor.0.weight holds NaN')])
def test_what_does_not_fit_is_refused(how, message):
    with pytest.raises(UserError, match=message):
        converter.convert(dict(model_state_dict=spoil(how)), 'student')


def test_the_command_and_a_wrong_model(tmp_path, run_command):
    torch.save(dict(model_state_dict=kd360_release.release('student'), global_step=1),
               tmp_path / 'theirs.pth')
    done = run_command(SCRIPT, tmp_path / 'theirs.pth', tmp_path / 'ours.pth', '--model',
                       'student')
    assert done.returncode == 0 and '474 entries, 466 converted' in done.stdout
    done = run_command(SCRIPT, tmp_path / 'theirs.pth', tmp_path / 'x.pth', '--model',
                       'teacher')
    assert done.returncode == 2 and 'not a checkpoint of teacher' in done.stderr
    assert 'Traceback' not in done.stderr and not (tmp_path / 'x.pth').exists()


def test_imagenet_weights_of_torchvision(tmp_path):
    theirs = MODELS.build(dict(type='mmdet.ResNet', depth=50)).state_dict()  # torchvision's names
    theirs.update({'fc.weight': torch.zeros(1000, 2048), 'fc.bias': torch.zeros(1000)})
    ours, report = converter.convert(theirs, 'resnet50')
    assert '320 entries, 318 converted' in report
    torch.save(ours, tmp_path / 'resnet50.pth')
    backbone = MODELS.build(dict(
        type='mmdet.ResNet', depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
        out_indices=(2, ), init_cfg=dict(type='Pretrained',
                                         checkpoint=str(tmp_path / 'resnet50.pth'))))
    backbone.init_weights()
    state = backbone.state_dict()
    assert len(state) == 318 - 60 and all(torch.equal(v, theirs[k]) for k, v in state.items())


# efficientnet-pytorch 0.7.1 filled with kd360_release.fill, on kd360_release.image(97, 211, 0):
# mean, deviation, first and last value of extract_features (b0) and of reduction_3 and _4 (b4).
@pytest.mark.parametrize('arch, outs, golden', [
    ('b0', (6, ), [(0.004166941, 0.06515809, 0.02497297, -0.006351778)]),
    ('b4', (3, 4), [(0.14375594, 9.3164892, -4.3593206, 3.9025807),
                    (-48.474434, 964.48499, 755.01770, -97.046432)])])
def test_efficientnet_equals_its_original(arch, outs, golden):
    layout = converter.layouts(f'efficientnet-{arch}')[f'efficientnet-{arch}']
    source = {name: kd360_release.fill(name, layout.shapes[ours])
              for name, ours in layout.names.items()}
    ours, _ = converter.convert(source, f'efficientnet-{arch}')
    network = MODELS.build(dict(type='EfficientNet', arch=arch, out_indices=outs,
                                fixed_padding=True)).eval()
    missing = network.load_state_dict(ours['state_dict'], strict=False).missing_keys
    with torch.no_grad():
        maps = network(kd360_release.image(97, 211, 0)[None])
    assert not missing
    for features, values in zip(maps, golden):
        flat = features.flatten()
        assert [flat.mean().item(), flat.std().item(), flat[0].item(),
                flat[-1].item()] == pytest.approx(values, rel=1e-3)


# mean, deviation, mean of absolute values, first and last value; from the release on a CPU.
STUDENT = dict(
    encoder=(-50.838, 2299.14, 1758.02, 143.84, -395.22),
    feat_bev=(0.160494, 0.651872, 0.264354, 2.9083, 0.4800),
    encoder_feature=(3.63672, 6.91818, 3.63672, 3.9814, 2.0499),
    raw_feat=(0.160494, 1.188306, 0.708458, 3.1318, -1.1056),
    segmentation=(0.482336, 1.184762, 0.665997, 1.9599, -2.7350),
    centerness=(0.385568, 0.154446, 0.385568, 0.04543, 3.8e-5),
    offset=(-0.207312, 1.119546, 0.634109, -3.0451, 12.2514))
TEACHER = dict(
    lidar_encoder=(-0.00669, 0.83171, 0.52253, -0.0493, 0.0353),
    lidar_voxels=(-0.00151, 0.22307, 0.04301, 0, 0),
    lidar_bev=(0.22460, 0.63482, 0.30794, -0.00166, -0.00048),
    fused=(0.25308, 0.67550, 0.25308, 0, 0),
    encoder_feature=(4.3338, 6.3021, 4.3338, 2.8536, 4.61),
    raw_feat=(0.25308, 1.19992, 0.83982, -0.794, -2.220),
    segmentation=(0.51240, 1.17410, 0.81299, -2.151, 1.519),
    centerness=(0.37509, 0.18327, 0.37509, 0.1057, 0.0122),
    offset=(-0.23565, 1.14273, 0.75036, -2.135, 1.364))
TA = dict(fused=(0.25920, 0.66712, 0.25920, 0, 0),
          segmentation=(-0.69209, 1.34171, 0.98005, 0.0248, -5.572))


def converted(model):
    built = MODELS.build(Config.fromfile(converter.config_of(model)).model).eval()
    ours, _ = converter.convert(kd360_release.release(model), model)
    built.load_state_dict(ours['state_dict'])
    return built


def record(found, name, part):
    part.register_forward_hook(lambda _module, _inputs, out: found.update({name: out}))


def compare(found, golden, rel, single):
    for name, values in golden.items():
        flat = found[name].flatten()
        measured = [flat.mean(), flat.std(), flat.abs().mean()]
        assert [v.item() for v in measured] == pytest.approx(values[:3], rel=rel, abs=2e-5), name
        assert [flat[0].item(), flat[-1].item()] == pytest.approx(
            values[3:], rel=single, abs=max(1e-4, single * values[1] / 20)), name


@pytest.mark.slow
def test_whole_networks_compute_what_the_release_computes():
    inputs, student, teacher = kd360_release.inputs(), {}, {}
    with torch.no_grad():
        model = converted('ta')
        record(student, 'encoder', model.student.camera_branch.encoder)
        record(student, 'feat_bev', model.student.camera_branch)
        record(student, 'levels', model.student.bev_encoder)
        student.update(model.student(inputs))
        student.update(encoder_feature=student['levels'][2], raw_feat=student['levels'][3])
        compare(student, STUDENT, rel=1e-4, single=1e-3)

        whole = converted('teacher')
        lidar = whole.lidar_branch
        for name, part in dict(lidar_encoder=lidar.encoder, lidar_bev=lidar, fused=whole.fuser,
                               levels=whole.bev_encoder).items():
            record(teacher, name, part)
        teacher.update(whole(inputs))
        lidar.view_transform.order = 'sample_first'
        teacher.update(lidar_voxels=lidar.view_transform.to_voxels(
            (teacher['lidar_encoder'][:, None], ), inputs['lidar_rig'], inputs['points']))
        teacher.update(encoder_feature=teacher['levels'][2], raw_feat=teacher['levels'][3])
        compare(teacher, TEACHER, rel=1e-3, single=2e-2)

        ta = {}
        record(ta, 'fused', model.assistant.fuser)
        record(ta, 'head', model.assistant.head)
        model.assistant({model.assistant.camera: student['feat_bev'],
                         model.assistant.lidar: teacher['lidar_bev']})
        compare(dict(ta, **ta['head']), TA, rel=1e-3, single=2e-2)


def test_the_student_alone_and_within_the_auxiliary_network_are_one_network():
    ours = {model: converter.convert(kd360_release.release(model), model)[0]['state_dict']
            for model in ('student', 'ta')}
    inner = {key.removeprefix('student.'): value for key, value in ours['ta'].items()
             if key.startswith('student.')}
    assert inner.keys() == ours['student'].keys()
    assert all(torch.equal(inner[key], value) for key, value in ours['student'].items())
