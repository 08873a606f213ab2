import math

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.structures import InstanceData

from mmdet3d_plugin.deployment import DeployedStudent
from mmdet3d_plugin.errors import UserError, build_from
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.models.heads import BEVHead
from mmdet3d_plugin.models.taps import Tap, TapRecorder, record_taps
from tests.factories import CAMERA, batch, build
from tests.helpers.detection import (
    CLASSES,
    GRID,
    TASKS,
    head,
    instances,
    mmdet3d_head,
    random_boxes,
    sample,
    to_mmdet3d,
)

WEIGHTS = [1.0] * 8 + [0.2] * 2
DETECTOR = dict(type='CenterPointHead', in_channels=8, tasks=[['car']])


def features(batch=2, channels=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, channels, 32, 32, generator=generator), )


def scenes(batch=2, count=40):
    return [sample(*random_boxes(count, seed)) for seed in range(batch)]


def total(losses):
    return sum(losses.values())


def without_gradient(made):
    """The signs of an L1 loss may cancel in a bias."""
    return [name for name, parameter in made.named_parameters()
            if not name.endswith('bias') and not parameter.grad.abs().sum() > 0]


def test_what_the_head_says_of_itself():
    made = head()
    assert isinstance(made, BEVHead) and made.class_names == tuple(CLASSES)
    assert made.gt_fields == ('gt_instances_3d.bboxes_3d', 'gt_instances_3d.labels_3d')
    assert made.pred_fields == ('pred_instances_3d', )
    outs = made(features())
    assert {name: tuple(out.shape[1:]) for name, out in outs.items()} == {
        name: output.shape for name, output in made.outputs().items()}
    assert len(outs) == 36 and made.outputs()['task1.heatmap'].shape == (2, 32, 32)
    assert made.outputs()['task1.dim'].meaning == (
        'truck, construction_vehicle: length, width, height')


@pytest.mark.parametrize('weights', [[1.0] * 10, WEIGHTS])
def test_same_parameters_outputs_and_loss_as_mmdet3d(weights):
    ours = head(train_cfg=dict(code_weights=weights))
    theirs = mmdet3d_head(code_weights=weights)
    theirs.load_state_dict(ours.state_dict())
    samples = scenes()
    outs, other = ours(features()), theirs(list(features()))
    for t, task in enumerate(other):
        for name, out in task[0].items():
            assert torch.equal(out, outs[f'task{t}.{name}'])
    losses = ours.loss(outs, samples)
    reference = theirs.loss_by_feat(to_mmdet3d(outs), [one.gt_instances_3d for one in samples])
    assert losses.keys() == reference.keys() and len(losses) == 12
    for name, loss in losses.items():
        torch.testing.assert_close(loss, reference[name], rtol=1e-6, atol=0)
    parameters = list(ours.parameters())
    gradient = torch.autograd.grad(total(losses), parameters)
    theirs(list(features()))
    wanted = torch.autograd.grad(total(theirs.loss_by_feat(
        theirs(list(features())), [one.gt_instances_3d for one in samples])),
        list(theirs.parameters()))
    for (name, _), mine, other in zip(ours.named_parameters(), gradient, wanted):
        assert (mine - other).abs().max() <= 1e-4 * other.abs().max() + 1e-6, name


def test_names_of_the_parameters():
    names = set(head().state_dict())
    assert {'shared_conv.conv.weight', 'shared_conv.bn.running_var', 'task_heads.5.vel.1.bias',
            'task_heads.0.reg.0.conv.weight', 'task_heads.5.heatmap.0.bn.weight'} <= names
    assert len(names) == 6 + 6 * 6 * 8
    assert head().state_dict()['task_heads.1.heatmap.1.weight'].shape == (2, 64, 3, 3)
    alone = head(shared_channels=None).state_dict()
    assert not any(name.startswith('shared_conv') for name in alone)
    assert alone['task_heads.0.reg.0.conv.weight'].shape == (64, 16, 3, 3)


def dcn():
    return dict(type='DCNSeparateHead', final_kernel=3, dcn_config=dict(
        type='DCN', in_channels=64, out_channels=64, kernel_size=3, padding=1, groups=4))


def test_deformable_convolutions_and_other_branches():
    made = head(tasks=[['car'], ['bus', 'truck']], separate_head=dcn())
    outs = made(tuple(x.to(memory_format=torch.channels_last) for x in features()))
    assert outs['task1.heatmap'].shape == (2, 2, 32, 32) and len(outs) == 12
    assert {'task_heads.0.feature_adapt_cls.weight', 'task_heads.1.task_head.dim.1.bias',
            'task_heads.0.cls_head.1.bias'} <= set(made.state_dict())
    total(made.loss(outs, scenes())).backward()
    assert without_gradient(made) == []
    found = made.predict(outs, scenes())[0].pred_instances_3d
    assert found.bboxes_3d.tensor.shape[1] == 9


def test_a_head_without_velocity():
    heads = dict(reg=(2, 1), height=(1, 2), dim=(3, 2), rot=(2, 2))
    made = head(common_heads=heads, split_bbox_loss=True)
    outs = made(features())
    losses = made.loss(outs, scenes())
    assert len(outs) == 30 and len(losses) == 6 * 5 and 'task0.loss_vel' not in losses
    assert made.predict(outs, scenes())[0].pred_instances_3d.bboxes_3d.tensor.shape[1] == 7
    with pytest.raises(UserError, match='common_heads: expected the branches and channels'):
        head(common_heads=dict(heads, rot=(1, 2)))


@pytest.mark.parametrize('separate', [None, dcn()])
def test_the_bias_of_the_heatmaps_before_training(separate):
    """mmdet3d's CenterHead has the same ``init_bias``, but never sets it."""
    made = head(separate_head=separate)
    made.init_weights()
    made.eval()
    outs = made(features())
    assert abs(outs['task1.heatmap'].mean() + 2.19) < 0.5
    last = made.task_heads[3].cls_head if separate else made.task_heads[3].heatmap
    assert last[-1].bias.tolist() == [pytest.approx(-2.19)]


def test_the_parts_of_the_box_loss_add_up():
    made = head(train_cfg=dict(code_weights=WEIGHTS))
    outs, samples = made(features()), scenes()
    whole = made.loss(outs, samples)
    made.split_bbox_loss = True
    parts = made.loss(outs, samples)
    assert {name.split('_')[1] for name in parts} == {'heatmap', 'xy', 'z', 'whl', 'yaw', 'vel'}
    for t in range(6):
        own = [parts[f'task{t}.loss_{name}'] for name in ('xy', 'z', 'whl', 'yaw', 'vel')]
        torch.testing.assert_close(sum(own), whole[f'task{t}.loss_bbox'])
        assert min(own) > 0


def test_the_loss_changes_no_output():
    made = head()
    with torch.no_grad():
        outs = made(features())
    kept = {name: out.clone() for name, out in outs.items()}
    made.loss(outs, scenes())
    made.predict(outs, scenes())
    assert list(outs) == list(kept) and all(torch.equal(outs[name], kept[name]) for name in kept)


def test_an_unknown_velocity_changes_nothing_else():
    made = head(split_bbox_loss=True)
    samples, batch = scenes(), features()
    boxes = samples[0].gt_instances_3d.bboxes_3d.tensor
    usual = made.loss(made(batch), samples)
    boxes[7, 7:] = math.nan
    hurt = made.loss(made(batch), samples)
    changed = [name for name in usual if not torch.equal(usual[name], hurt[name])]
    task = next(t for t, names in enumerate(TASKS)
                if CLASSES[samples[0].gt_instances_3d.labels_3d[7]] in names)
    assert changed == [f'task{task}.loss_vel'] and hurt[changed[0]] < usual[changed[0]]
    total(hurt).backward()
    assert all(p.grad.isfinite().all() for p in made.parameters())


def test_boxes_without_velocity_have_no_loss_of_it():
    made = head(split_bbox_loss=True)
    boxes, labels = random_boxes(20)
    losses = made.loss(made(features(1)), [sample(boxes[:, :7], labels)])
    assert all((losses[f'task{t}.loss_vel'] == 0) and losses[f'task{t}.loss_xy'] > 0
               for t in (0, 1, 5))


@pytest.mark.parametrize('labels', [[], [0, 0, 0]])
def test_empty_scenes_and_classes_without_objects(labels):
    made = head()
    boxes = random_boxes(len(labels))[0]
    losses = made.loss(made(features()), [sample(boxes, torch.tensor(labels).long()),
                                          sample(torch.zeros(0, 9), torch.zeros(0).long())])
    assert len(losses) == 12 and total(losses).isfinite()
    assert losses['task3.loss_bbox'] == 0 and losses['task3.loss_heatmap'] > 0
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


def test_gradients_of_every_branch():
    made = head()
    total(made.loss(made(features()), scenes())).backward()
    assert without_gradient(made) == []


def test_half_precision_outputs_have_a_loss_in_float32():
    made = head()
    with torch.autocast('cpu', torch.bfloat16):
        outs = made(features())
        losses = made.loss(outs, scenes())
    assert outs['task0.reg'].dtype == torch.bfloat16
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert total(losses).isfinite()
    assert {out.dtype for out in made.decode(outs).values()} == {torch.float32}


def test_the_loss_of_another_models_boxes():
    """A teacher's predictions, in m/s, through a frozen head of displacements."""
    teacher = head(tasks=[['car'], ['pedestrian']], test_cfg=dict(nms_type=None, max_num=20))
    student = head(velocity='displacement').train()
    samples = [sample(past_interval=0.5) for _ in range(2)]
    with torch.no_grad():
        labels = [one.pred_instances_3d for one in teacher.predict(teacher(features()), samples)]
    assert [len(one.labels_3d) for one in labels] == [40, 40]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    bev = features(seed=1)[0].requires_grad_()
    losses = student.frozen_loss((bev, ), labels, samples)
    total(losses).backward()
    assert losses['task0.loss_bbox'] > 0 and losses['task1.loss_bbox'] == 0
    assert bev.grad.isfinite().all() and bev.grad.abs().sum() > 0
    assert all(p.grad is None for p in student.parameters())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    truth = [sample(one.bboxes_3d.tensor, one.labels_3d, past_interval=0.5) for one in labels]
    with torch.no_grad():
        assert total(student.loss(student(features(seed=1)), truth)) == pytest.approx(
            float(total(losses)))


def test_taps():
    made = head()
    tap = Tap.parse('student.head[task1.heatmap]')
    model = torch.nn.ModuleDict(dict(head=made))
    recorder = TapRecorder()
    with record_taps('student', model, [tap], recorder):
        outs = made(features())
        made.loss(outs, scenes())
    assert recorder[tap.address] is outs['task1.heatmap']


def test_deployment_keeps_what_is_asked_for():
    made = head()
    assert len(made.keep_outputs()) == 36 and made.loss_cls is None
    names = ('task0.heatmap', 'task2.dim')
    assert made.keep_outputs(names) == names and tuple(made(features())) == names
    assert tuple(made.outputs()) == names
    with pytest.raises(UserError, match="no task 'task0.hetmap'; did you mean 'task0.heatmap'"):
        head().keep_outputs(('task0.hetmap', ))
    with pytest.raises(UserError, match='boxes need all outputs of the head, but there is no '
                                        'task0.reg'):
        made.predict(made(features()), scenes())


@pytest.mark.parametrize('settings, message', [
    (dict(tasks=['car', 'truck']), r"expected a list of class names for each, .* got 'car'"),
    (dict(tasks=[['car'], ['car']]), 'expected each class once'),
    (dict(tasks=[dict(num_class=1, class_names=['car'])]), 'expected a list of class names'),
    (dict(tasks=[]), 'expected each class once and one at least'),
    (dict(z='centre'), "z: expected 'center' or 'bottom', got 'centre'"),
    (dict(velocity='m/s'), "velocity: expected 'speed' or 'displacement', got 'm/s'"),
    (dict(train_cfg=dict(max_obj=3)), "train_cfg.max_obj: .* did you mean 'max_objs'"),
    (dict(train_cfg=dict(code_weights=[1] * 8)), 'code_weights: expected 10 values'),
    (dict(separate_head=dict(type='SeparatHead')), "separate_head.type: 'SeparatHead' is not")])
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        head(**settings)


def test_wrong_samples():
    made = head()
    outs = made(features())
    with pytest.raises(UserError, match='the sample has no gt_instances_3d.bboxes_3d'):
        made.loss(outs, [sample()] * 2)
    bad = sample(*random_boxes(3))
    bad.gt_instances_3d = InstanceData(labels_3d=torch.zeros(3))
    with pytest.raises(UserError, match='the sample has no gt_instances_3d.bboxes_3d'):
        made.loss(outs, [bad] * 2)
    with pytest.raises(UserError, match=r'the BEV encoder gives maps of \(32, 32\) cells, but '
                                        r'model.grid has \(16, 16\)'):
        head(dict(GRID, resolution=1.6))(features())


def train(rank, folder):
    """One of two processes; the second has no objects at all."""
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    made = head()
    samples = scenes(1, 200) if rank == 0 else [sample(torch.zeros(0, 9), torch.zeros(0).long())]
    losses = {}
    for name, average in (('mean', True), ('own', False)):
        made.average_over_processes = average
        losses[name] = {key: float(loss) for key, loss in
                        made.loss(made(features(1)), samples).items()}
    torch.save(losses, f'{folder}/{rank}.pth')


def test_two_processes_of_which_one_has_no_objects(tmp_path):
    torch.multiprocessing.start_processes(train, (str(tmp_path), ), 2, start_method='fork')
    full, empty = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    made, samples = head(), scenes(1, 200)
    full_targets = made.targets([samples[0].gt_instances_3d], samples)
    for t in range(6):
        for name in (f'task{t}.loss_heatmap', f'task{t}.loss_bbox'):
            assert full['mean'][name] == pytest.approx(2 * full['own'][name], rel=1e-3)
        assert empty['mean'][f'task{t}.loss_bbox'] == 0
        peaks = full_targets.heatmap.split(made.num_classes, 1)[t].eq(1).sum()
        assert empty['mean'][f'task{t}.loss_heatmap'] == pytest.approx(
            empty['own'][f'task{t}.loss_heatmap'] * 2 / float(peaks), rel=1e-3)


def test_it_is_called_as_a_head():
    model = build(CAMERA, head=DETECTOR)
    data = batch()
    for one in data['data_samples']:
        one.set_metainfo(dict(classes=['car']))
        one.gt_instances_3d = instances(*random_boxes(6, half=15, classes=1))
    data = model.data_preprocessor(data, True)
    losses = model(**data, mode='loss')
    total(losses).backward()
    assert set(losses) == {'task0.loss_heatmap', 'task0.loss_bbox'}
    assert all(p.grad is not None for p in model.head.parameters())
    found = model.eval()(**data, mode='predict')
    assert all('bboxes_3d' in one.pred_instances_3d for one in found)


def test_the_deployed_network_has_the_raw_outputs():
    model = build(CAMERA, head=DETECTOR).eval()
    data = model.data_preprocessor(batch(), False)
    deployed = DeployedStudent(model, data['inputs']['rig'])
    outs = model(**data)
    assert deployed.outputs == tuple(model.head.outputs())
    with torch.no_grad():
        found = deployed(torch.stack(batch()['inputs']['img']))
    for name, out in zip(deployed.outputs, found):
        torch.testing.assert_close(out, outs[name], atol=1e-4, rtol=1e-4)


def test_one_of_several_tasks():
    made = build_from(MODELS, dict(type='MultiTaskHead', heads=dict(
        boxes=dict(DETECTOR, in_channels=16), vehicles=dict(
            type='BEVSegHead', in_channels=16, tasks=('segmentation', )))),
        'model.head', grid=BEVGrid(**GRID))
    assert set(made.decoding()) == {'boxes.'} and made.pred_fields == (
        'pred_instances_3d', 'pred_bev')
    outs = made(features())
    assert 'boxes.task0.heatmap' in outs and 'vehicles.segmentation' in outs
    found = made.predict(outs, scenes())[0]
    assert found.pred_bev.seg.shape == (1, 32, 32) and 'bboxes_3d' in found.pred_instances_3d
    kept = made.keep_outputs(('vehicles.segmentation', ))
    assert kept == ('vehicles.segmentation', ) and made.decoding() == {}
