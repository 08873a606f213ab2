import copy

import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.hooks import EMAHook  # noqa: F401  (registers the EMA wrappers)
from mmengine.model import ExponentialMovingAverage
from mmengine.structures import InstanceData
from torch import nn

from mmdet3d_plugin.engine import PluginRunner
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.models.taps import Tap, TapRecorder, record_taps
from tests.factories import CAMERA, LIDAR, batch, build, model_config
from tests.helpers.syncs import Syncs

KL = dict(type='ChannelWiseKL', temperature=3.0)
LOGITS = 'head.segmentation'
ASSISTANT = dict(
    type='AuxiliaryModule', fuser=dict(type='SGFM', channels=8),
    bev_encoder=dict(type='BEVUNet', in_channels=8, channels=(8, 8, 8)),
    head=dict(type='BEVSegHead', in_channels=8, tasks=('segmentation', ), learn_weights=False))

PARTS = ['assistant']


def term(student=f'student.{LOGITS}', teacher=f'teacher.{LOGITS}', **extra):
    return dict(dict(type='FeatureTerm', student=student, teacher=teacher, criterion=KL), **extra)


@pytest.fixture
def teacher_files(tmp_path):
    torch.manual_seed(7)
    config = tmp_path / 'teacher.py'
    Config(dict(model=model_config(CAMERA, LIDAR))).dump(config)
    model = build(CAMERA, LIDAR)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'teacher.pth')
    return dict(config=str(config), checkpoint=str(tmp_path / 'teacher.pth'))


def distiller(teacher, **extra):
    cfg = dict(type='Distiller', student=model_config(flips=dict(image=0.5, rows=0.5, cols=0.5)),
               teacher=teacher, assistant=ASSISTANT,
               terms=dict(student=term(), assistant=term(student=f'assistant.{LOGITS}')))
    return MODELS.build(copy.deepcopy({**cfg, **extra}))


def run(model, data=None):
    return model(**model.data_preprocessor(data or batch(), True), mode='loss')


def test_losses_of_student_and_terms(teacher_files):
    model = distiller(teacher_files)
    model.init_weights()
    losses = run(model)
    assert set(losses) == {'loss_segmentation', 'loss_centerness', 'loss_offset', 'loss_student',
                           'loss_assistant'}
    sum(losses.values()).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []


def test_each_term_alone_reaches_the_student(teacher_files):
    model = distiller(teacher_files)
    model.init_weights()
    for name in ('student', 'assistant'):
        model.zero_grad()
        run(model)[f'loss_{name}'].backward()
        gradient = model.student.camera_branch.encoder.backbone.conv1.weight.grad
        assert gradient.abs().sum() > 0


def test_the_teacher_is_frozen_and_invisible(teacher_files):
    model = distiller(teacher_files)
    model.init_weights()
    before = copy.deepcopy(model.teacher.model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        sum(run(model).values()).backward()
        optimizer.step()
    after = model.teacher.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module.training for module in model.teacher.model.modules())
    assert not any('teacher' in key for key in model.state_dict())
    assert not any('teacher' in name for name, _ in model.named_parameters())


def test_copies_share_the_teacher(teacher_files):
    model = distiller(teacher_files)
    model.init_weights()
    averaged = ExponentialMovingAverage(model, update_buffers=True)
    assert averaged.module.teacher.model is model.teacher.model
    assert not any('teacher' in key for key in averaged.state_dict())


def test_prediction_needs_neither_teacher_nor_lidar_files():
    missing = dict(config='nowhere.py', checkpoint='nowhere.pth')
    model = distiller(missing).eval()
    sample = model.test_step(batch(lidar=False))[0]
    assert sample.pred_bev.seg.shape == (1, 32, 32)


def test_distilled_weights_load_strictly_into_the_plain_student(teacher_files):
    model = distiller(teacher_files)
    student = build()
    student.load_state_dict({key[len('student.'):]: value for key, value in
                             model.state_dict().items() if key.startswith('student.')})


def test_taps_of_a_flipped_student_are_in_the_true_frame(teacher_files):
    model = distiller(teacher_files, student=model_config(flips=dict(image=0, rows=1, cols=0)),
                      assistant=None, terms=dict(student=term()))
    model.init_weights()
    data = model.data_preprocessor(batch(), True)
    taps = [Tap.parse('student.bev_encoder[-1]'), Tap.parse('student.camera_branch')]
    for module in model.modules():  # a network of symmetric kernels does not care about flips
        if isinstance(module, nn.Conv2d):
            module.weight.data = (module.weight.data + module.weight.data.flip(-2)) / 2
    feats = []
    for train in (True, False):
        model.student.train(train)
        model.student.apply(lambda m: m.eval() if isinstance(m, nn.BatchNorm2d) else None)
        recorded = TapRecorder()
        with record_taps('student', model.student, taps, recorded), torch.no_grad():
            model.student(data['inputs'])
        feats.append([recorded[tap.address] for tap in taps])
    bev = [pair[1] for pair in feats]
    torch.testing.assert_close(bev[0], bev[1], atol=1e-4, rtol=1e-4)


def test_init_from_teacher_copies_the_teacher(teacher_files):
    model = distiller(teacher_files, init_from_teacher=PARTS)
    model.init_weights()
    torch.testing.assert_close(model.assistant.fuser.gate.weight,
                               model.teacher.model.fuser.gate.weight)
    wrong = dict(ASSISTANT, bev_encoder=dict(type='BEVUNet', in_channels=8, channels=(4, 8, 8)))
    model = distiller(teacher_files, assistant=wrong, init_from_teacher=PARTS)
    with pytest.raises(UserError, match='init_from_teacher: assistant.bev_encoder is not as'):
        model.init_weights()


def test_what_each_role_makes_of_a_batch(teacher_files):
    model = distiller(teacher_files)
    model.init_weights()
    model.eval()
    before, data = copy.deepcopy(model.state_dict()), batch()
    roles = {name: torch.stack([sample.pred_bev.seg for sample in found])
             for name, found in model.predict_roles(data).items()}
    assert list(roles) == ['teacher', 'assistant', 'student']
    inputs = model.data_preprocessor(data)['inputs']
    teacher, student, assistant = model.teacher.model, model.student, model.assistant
    with torch.no_grad():
        expected = {name: role(inputs)['segmentation']
                    for name, role in dict(teacher=teacher, student=student).items()}
        fused = assistant.fuser(student.camera_branch(inputs, None),
                                teacher.lidar_branch(inputs, None))
        expected['assistant'] = assistant.head(assistant.bev_encoder(fused))['segmentation']
    for name, logits in expected.items():
        torch.testing.assert_close(roles[name], logits.sigmoid())
    assert len({float(maps.mean()) for maps in roles.values()}) == 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_training_starts_from_a_checkpoint_of_the_student_alone(teacher_files, tmp_path):
    trained = build(CAMERA)
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'student.pth')
    runner = PluginRunner(distiller(teacher_files), str(tmp_path), default_scope='mmdet3d',
                          log_level='ERROR')
    before = copy.deepcopy(runner.model.assistant.state_dict())
    runner.load_checkpoint(str(tmp_path / 'student.pth'))
    for found, expected in ((runner.model.student.state_dict(), trained.state_dict()),
                            (runner.model.assistant.state_dict(), before)):
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    with pytest.raises(UserError, match='not of this model .* entries missing'):
        runner.load_checkpoint(teacher_files['checkpoint'])


@pytest.mark.parametrize('address, message', [
    ('student.head.segmentaton', "no module 'head.segmentaton'; did you mean 'head.segmentation"),
    ('pupil.head', "no role 'pupil'"),
    ('student', 'expected role.module'),
])
def test_wrong_student_tap_fails_when_built(address, message):
    with pytest.raises(UserError, match=message):
        distiller(dict(config='x.py'), terms=dict(bad=term(student=address)))


def test_wrong_teacher_tap_fails_before_training(teacher_files):
    model = distiller(teacher_files, terms=dict(bad=term(teacher='teacher.fusser')))
    with pytest.raises(UserError, match="did you mean 'fuser'"):
        model.init_weights()


def test_tap_on_a_tuple_without_index(teacher_files):
    model = distiller(teacher_files, assistant=None,
                      terms=dict(bad=term('student.bev_encoder', 'teacher.bev_encoder')))
    model.init_weights()
    with pytest.raises(UserError, match='add an index'):
        run(model)


def test_different_shapes_ask_for_an_adapter(teacher_files):
    terms = dict(bad=term('student.bev_encoder[2]', 'teacher.bev_encoder[-1]'))
    model = distiller(teacher_files, assistant=None, terms=terms)
    model.init_weights()
    with pytest.raises(UserError, match='add an adapter'):
        run(model)
    terms['bad']['adapter'] = dict(type='ConvAdapter', in_channels=8, out_channels=8)
    model = distiller(teacher_files, assistant=None, terms=terms)
    model.init_weights()
    run(model)['loss_bad'].backward()
    assert model.terms.bad.adapter.conv.weight.grad.abs().sum() > 0


def test_learned_weight(teacher_files):
    model = distiller(teacher_files, assistant=None, terms=dict(a=term(), b=term(weight='learned')))
    model.init_weights()
    losses = run(model)
    assert losses['loss_b'].item() == pytest.approx(losses['loss_a'].item() / 2, rel=1e-5)
    losses['loss_b'].backward()
    expected = (1 - losses['loss_a'].item()) / 2  # d/dk of (e^-k L + k) / 2 at k = 0
    assert model.terms.b.log_variance.grad.item() == pytest.approx(expected, rel=1e-4)


def test_term_set_to_none_is_off(teacher_files):
    model = distiller(teacher_files, terms=dict(a=term(), b=None))
    assert set(model.terms) == {'a'}


@pytest.mark.parametrize('change, message', [
    (dict(config='no/such.py'), 'teacher.config: no/such.py does not exist'),
    (dict(checkpoint='no/such.pth'), 'teacher.checkpoint: no/such.pth does not exist; train'),
    (dict(checkpoint=None), 'teacher.checkpoint is not set; train the teacher first'),
])
def test_missing_teacher_files_stop_training_with_the_next_step(teacher_files, change, message):
    model = distiller({**teacher_files, **change})
    with pytest.raises(UserError, match=message):
        model.init_weights()


def test_foreign_and_truncated_teacher_checkpoints(teacher_files, tmp_path):
    foreign = tmp_path / 'student.pth'
    torch.save(dict(state_dict=build().state_dict()), foreign)
    with pytest.raises(UserError, match=r'not a checkpoint of .*entries missing'):
        distiller(dict(teacher_files, checkpoint=str(foreign))).init_weights()
    cut = tmp_path / 'cut.pth'
    cut.write_bytes(open(teacher_files['checkpoint'], 'rb').read()[:5000])
    with pytest.raises(UserError, match='cut.pth'):
        distiller(dict(teacher_files, checkpoint=str(cut))).init_weights()


def test_teacher_of_another_grid(teacher_files):
    student = model_config(grid=dict(x_range=(-16, 16), y_range=(-16, 16), resolution=1.0,
                                     rows='+x',
                                     cols='-y'))
    with pytest.raises(UserError, match='both need the same grid'):
        distiller(teacher_files, student=student).init_weights()


@torch.no_grad()
def test_a_teacher_of_another_normalisation_gets_renormalised_inputs(teacher_files):
    """It predicts what it predicts behind its own preprocessor."""
    statistics = dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), lidar_mean=(0.1, 0.2, 0.3))
    model = distiller(teacher_files, data_preprocessor=dict(type='BEVDataPreprocessor',
                                                            **statistics))
    model.init_weights()
    teacher, recorded = model.teacher, TapRecorder()
    own = teacher.model(teacher.model.data_preprocessor(batch(), False)['inputs'])
    inputs = model.data_preprocessor(batch(), False)['inputs']
    found = teacher.run(inputs, None, (), recorded, torch.device('cpu'), complete=True)
    torch.testing.assert_close(found, own, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(teacher.model(inputs)['segmentation'], own['segmentation'], atol=1e-2)


def test_a_teacher_of_other_channels_is_refused(teacher_files):
    preprocessor = dict(type='BEVDataPreprocessor', lidar_mean=(0.1, 0.2), lidar_std=(1, 1))
    with pytest.raises(UserError, match='lidar_mean has 2 channels, but 3 in the teacher'):
        distiller(teacher_files, data_preprocessor=preprocessor).init_weights()


def test_tap_without_teacher():
    with pytest.raises(UserError, match='model.teacher is not set'):
        distiller(None)


def test_in_place_rewrite_of_a_tapped_tensor_is_an_error():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(inplace=True))
    tap, recorded = Tap.parse('student.0'), TapRecorder()
    with record_taps('student', network, [tap], recorded):
        network(torch.randn(1, 1, 2, 2))
    with pytest.raises(UserError, match='in place'):
        recorded[tap.address]
    assert not network[0]._forward_hooks


def test_fp32_terms_under_autocast(teacher_files):
    model = distiller(teacher_files)
    model.init_weights()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = run(model)
    assert losses['loss_student'].dtype == torch.float32
    assert all(value.isfinite() for value in losses.values())


def test_the_teacher_runs_as_far_as_its_last_tap(teacher_files):
    """Its head has two more tasks; with a tap in the middle, neither its decoder nor its head."""
    for taps, runs, rests in ((), ('head.segmentation', ), ('head.centerness', )), (
            ('student.camera_branch', 'teacher.fuser'), ('fuser', ), ('bev_enc', 'head')):
        model = distiller(teacher_files, assistant=None, terms=dict(student=term(*taps)))
        model.init_weights()
        ran = []
        for name, module in model.teacher.model.named_modules():
            module.register_forward_hook(lambda *_, name=name, ran=ran: ran.append(name))
        run(model)
        assert 'head.offset' in ran  # the first run is complete: what runs twice is noticed
        ran.clear()
        assert run(model)['loss_student'].isfinite()
        assert set(runs) <= set(ran) and not [name for name in ran if name.startswith(rests)]
        assert not any(module._forward_hooks for module in model.student.modules())


def test_a_teacher_in_bfloat16_teaches_nearly_the_same(teacher_files):
    exact, short = (distiller(dict(teacher_files, bf16=on)) for on in (False, True))
    short.load_state_dict(exact.state_dict())
    losses = []
    for model in (exact, short):
        model.init_weights()
        model.load_state_dict(exact.state_dict())
        torch.manual_seed(0)
        losses.append(run(model.eval()))
    assert torch.equal(losses[0]['loss_segmentation'], losses[1]['loss_segmentation'])
    for name in ('loss_student', 'loss_assistant'):
        one, other = (float(loss[name].detach()) for loss in losses)
        assert losses[1][name].dtype == torch.float32 and one != other
        assert other == pytest.approx(one, rel=0.2)


def test_the_detector_sees_every_way():
    x = torch.arange(3.0)
    for read in (lambda: x[0].item(), lambda: bool(x[0] > 1), lambda: float(x.sum()),
                 lambda: x.tolist(), lambda: x.nonzero(), lambda: x[x > 1],
                 lambda: torch.equal(x, x)):
        with Syncs() as syncs:
            read()
        assert syncs.functions
    with Syncs() as syncs:
        ((x - 1).abs().mean() + x.index_select(0, torch.tensor([1]))).sum()
    assert not syncs.functions


def test_a_distillation_step_reads_no_value(teacher_files):
    parts = dict(criterion=dict(type='SquaredDistance'), reduction='region')
    model = distiller(teacher_files, terms=dict(
        student=term(weight='learned'), assistant=term(student=f'assistant.{LOGITS}'),
        region=term(**parts, regions=[dict(type='GTForeground', background=0.1)],
                    weight=dict(value=2.0, ramp=10)),
        points=term(**parts, sampler=dict(type='BoxPoints'))))
    model.init_weights()
    model.train()
    data = model.data_preprocessor(batch(), True)
    for n, sample in enumerate(data['data_samples']):  # one box, two boxes
        boxes = torch.tensor([[3.0, 1, 0, 4, 2, 1.5, 0.3]] * (n + 1))
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(boxes), labels_3d=torch.zeros(n + 1))
    sum(model(**data, mode='loss').values()).backward()  # builds the constant geometry
    with Syncs() as syncs:
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
    # how many voxels hold a point decides on the size of what the teacher's LiDAR branch makes
    assert syncs.functions <= {'occupied_voxels', 'pull_occupied_fused'}
