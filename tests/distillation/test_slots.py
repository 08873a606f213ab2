"""The slots of a term: regions, samplers, reductions, adapters, weights; and several teachers."""
import copy

import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData, PixelData

from mmdet3d_plugin.distillation import (
    Adapter,
    BoxPoints,
    ChannelWiseKL,
    Context,
    FeatureTerm,
    GTForeground,
    Region,
    SquaredDistance,
    WeightSchedule,
    WindowAffinity,
)
from mmdet3d_plugin.distillation.criteria import reduce_cells
from mmdet3d_plugin.distillation.regions import multiply_regions
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import BEVGrid
from tests.distillation.test_distiller import (
    PARTS,
    distiller,
    run,
    teacher_files,  # noqa: F401  (a fixture)
    term,
)
from tests.factories import CAMERA, build

SQUARED = dict(type='SquaredDistance')
GRID = BEVGrid((-4, 4), (-4, 4), 1.0, rows='-x', cols='-y')


def sample(boxes=(), seg=None):
    out = Det3DDataSample()
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 7)
    out.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(boxes, origin=(0.5, 0.5, 0.5)),
        labels_3d=torch.zeros(len(boxes), dtype=torch.long))
    if seg is not None:
        out.gt_bev = PixelData(seg=seg)
    return out


def context(*samples, **changes):
    return Context(**{**dict(inputs={}, samples=samples, roles={}, taps={}, grid=GRID), **changes})


def feature_term(**kwargs):
    return FeatureTerm('student.a', 'teacher.a', **{'criterion': SQUARED, **kwargs})


def feats(channels=2, size=8, batch=1):
    torch.manual_seed(0)
    return {'student.a': torch.randn(batch, channels, size, size, requires_grad=True),
            'teacher.a': torch.randn(batch, channels, size, size)}


# Reductions ---------------------------------------------------------------------------------------


def test_reductions_by_hand():
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])                 # one sample, four cells
    weight = torch.tensor([[[[1.0, 0], [0, 1]], [[0, 0.5], [0, 0]]]])  # two regions
    found = {name: float(reduce_cells(values, weight, name)) for name in (
        'mean', 'batch', 'region')}
    assert found == dict(mean=(1 + 4 + 1) / 4, batch=6.0, region=((1 + 4) / 2 + 1 / 0.5) / 2)
    assert [float(reduce_cells(values, None, name)) for name in found] == [2.5, 10.0, 2.5]


def test_an_empty_region_gives_zero_and_no_nan():
    values = torch.ones(2, 3, 3, requires_grad=True)
    for reduction in ('mean', 'batch', 'region'):
        loss = reduce_cells(values, torch.zeros(2, 1, 3, 3), reduction)
        gradient, = torch.autograd.grad(loss, values)
        assert float(loss.detach()) == 0 and gradient.abs().sum() == 0


def test_the_batch_reduction_does_not_depend_on_the_map():
    student, teacher = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    assert float(SquaredDistance()(student, teacher, None, 'batch')) == 16.0
    kl = ChannelWiseKL()
    one, other = torch.randn(2, 2, 3, 4, 4)
    assert float(kl(one, other, None, 'batch')) == pytest.approx(3 * float(kl(one, other)))


def test_regions_of_channel_wise_kl_are_averaged():
    one, other = torch.randn(2, 1, 3, 4, 4)
    kl, weight = ChannelWiseKL(), torch.rand(1, 2, 4, 4)
    each = [float(kl(one, other, weight[:, n:n + 1])) for n in range(2)]
    assert float(kl(one, other, weight)) == pytest.approx(sum(each) / 2, rel=1e-5)


def test_channel_wise_kl_of_a_region_is_that_of_its_cells():
    one, other = torch.randn(2, 1, 3, 4, 4)
    weight = torch.zeros(1, 1, 4, 4)
    weight[..., :2, :2] = 1
    expected = ChannelWiseKL()(one[..., :2, :2], other[..., :2, :2])
    torch.testing.assert_close(ChannelWiseKL()(one, other, weight), expected)
    student = other.clone().requires_grad_()
    loss = ChannelWiseKL()(student, other, torch.rand(1, 2, 4, 4))
    gradient, = torch.autograd.grad(loss, student)
    assert abs(float(loss.detach())) < 1e-6 and gradient.abs().max() < 1e-6
    assert all(float(ChannelWiseKL()(one, other, torch.rand(1, 1, 4, 4))) > 0 for _ in range(5))


def test_affinity_teaches_an_adapter_of_the_teacher_of_other_channels():
    student, teacher = (torch.randn(1, c, 4, 4, dtype=torch.float64, requires_grad=True)
                        for c in (2, 3))
    criterion = WindowAffinity(4, block=5)
    assert torch.autograd.gradcheck(criterion, (student, teacher))
    maps = {'student.a': torch.randn(1, 2, 4, 4, requires_grad=True),
            'teacher.a': torch.randn(1, 3, 4, 4)}
    adapter = dict(type='ConvAdapter', in_channels=3, out_channels=5)
    one = feature_term(criterion=dict(type='WindowAffinity', window=4), teacher_adapter=adapter)
    one(maps, context())['loss'].backward()
    assert one.teacher_adapter.conv.weight.grad.abs().sum() > 0


def test_what_a_criterion_cannot_do():
    with pytest.raises(UserError, match='takes no regions'):
        WindowAffinity(2)(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    with pytest.raises(UserError, match="reduction: expected 'mean', 'batch', 'region', got 'sum'"):
        feature_term(reduction='sum')


# Regions ------------------------------------------------------------------------------------------


def test_foreground_counts_cells_by_their_part():
    seg = torch.zeros(2, 8, 8)
    seg[1, :2, :3] = 1
    ctx = context(sample(seg=seg), sample(seg=torch.zeros(2, 8, 8)))
    assert GTForeground()(ctx, (8, 8)).sum((1, 2, 3)).tolist() == [6.0, 0.0]
    assert GTForeground()(ctx, (4, 4))[0, 0, 0].tolist() == [1.0, 0.5, 0.0, 0.0]
    assert GTForeground(1.0, 0.25)(ctx, (4, 4))[1].unique().tolist() == [0.25]


def test_a_region_without_its_truth():
    with pytest.raises(UserError, match='GTForeground: a sample has no gt_bev.seg; put Rasterize'):
        GTForeground()(context(sample()), (4, 4))


class Counted(Region):
    calls = 0

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, ctx, size):
        type(self).calls += 1
        return torch.full((1, 2, *size), self.factor)


def test_regions_multiply_and_are_computed_once():
    ctx = context()
    found = multiply_regions([Counted(2.0), Counted(3.0)], ctx, (2, 2))
    assert found.shape == (1, 2, 2, 2) and found.unique().tolist() == [6.0]
    multiply_regions([Counted(2.0)], ctx, (2, 2))
    assert Counted.calls == 2
    multiply_regions([Counted(2.0)], ctx, (4, 4))
    assert Counted.calls == 3 and multiply_regions([], ctx, (2, 2)) is None


def test_a_term_with_regions_ignores_the_rest():
    seg = torch.zeros(1, 8, 8)
    seg[0, 2:4, 2:4] = 1
    maps = feats()
    out = feature_term(regions=[dict(type='GTForeground')], reduction='region')(
        maps, context(sample(seg=seg)))
    difference = (maps['student.a'] - maps['teacher.a'])[0, :, 2:4, 2:4]
    torch.testing.assert_close(out['loss'], difference.square().sum(0).mean())
    gradient, = torch.autograd.grad(out['loss'], maps['student.a'])
    assert (gradient[0].abs().sum(0) > 0).nonzero().tolist() == seg[0].nonzero().tolist()


# Samplers -----------------------------------------------------------------------------------------


def test_points_of_a_turned_box():
    """A 4 x 2 m box at (1, 0.5), turned by a quarter: along y."""
    box = [1.0, 0.5, 0, 4, 2, 1, torch.pi / 2]
    xy, mask = BoxPoints().points(context(sample([box]), sample()))
    assert xy.shape == (2, 1, 9, 2) and mask.tolist() == [[[True] * 9], [[False] * 9]]
    corners = {tuple(place) for place in xy[0, 0].round(decimals=4).tolist()}
    assert corners == {(x, y) for x in (0.0, 1.0, 2.0) for y in (-1.5, 0.5, 2.5)}


def test_sampled_features_are_those_of_the_cells():
    centers = GRID.centers_2d().float().permute(2, 0, 1)[None]  # each cell holds its own x, y
    ctx = context(sample([[1.5, -0.5, 0, 2, 2, 1, 0.0], [100, 0, 0, 2, 2, 1, 0]]))
    sampler = BoxPoints(scale=0.5)
    xy, mask = sampler.points(ctx)
    torch.testing.assert_close(sampler(ctx, centers)[0, 0], xy[0, 0], atol=1e-5, rtol=0)
    assert mask[0, 0].all() and not mask[0, 1].any()  # the second is outside the grid


def test_a_sampler_on_the_whole_batch():
    ctx = context(sample([[0, 0, 0, 2, 2, 1, 0.0]]), sample())
    maps = feats(batch=2)
    loss = feature_term(sampler=dict(type='BoxPoints'), reduction='region')(maps, ctx)['loss']
    gradient, = torch.autograd.grad(loss, maps['student.a'])
    assert loss > 0 and gradient[0].abs().sum() > 0 and gradient[1].abs().sum() == 0
    empty = feature_term(sampler=dict(type='BoxPoints'), reduction='region')(
        feats(), context(sample()))
    assert float(empty['loss'].detach()) == 0


@pytest.mark.parametrize('reduction', ['mean', 'region', 'batch'])
@pytest.mark.parametrize('criterion', ['SquaredDistance', 'ChannelWiseKL'])
def test_padded_points_do_not_count(criterion, reduction):
    """A second sample with more boxes pads the first; the first's boxes alone differ."""
    boxes = [[1.5, -0.5, 0, 2, 2, 1, 0.0], [-2, 2, 0, 1, 2, 1, 0.3]]
    options = dict(criterion=dict(type=criterion), sampler=dict(type='BoxPoints'),
                   reduction=reduction, log_distance=True)
    alone = feature_term(**options)(feats(), context(sample(boxes)))
    maps = {key: torch.cat([value, feats()['teacher.a']]) for key, value in feats().items()}
    padded = feature_term(**options)(maps, context(sample(boxes), sample(boxes * 10)))
    shares = dict(mean=1 / 11, region=1 / 11, batch=1 / 2)  # of 22 boxes, of two samples
    share = 1 / 2 if criterion == 'ChannelWiseKL' else shares[reduction]
    assert float(padded['loss'].detach()) == pytest.approx(
        share * float(alone['loss'].detach()), rel=1e-4)
    assert float(padded['distance']) == pytest.approx(float(alone['distance']) / 11**0.5, rel=1e-4)


def test_a_sampler_without_boxes():
    with pytest.raises(UserError, match='the sample has no gt_instances_3d'):
        BoxPoints().points(context(Det3DDataSample()))


# Adapters -----------------------------------------------------------------------------------------


class Masked(Region):
    def __init__(self, mask):
        self.mask = mask

    def __call__(self, ctx, size):
        return self.mask


def test_regions_that_differ_in_a_large_mask_are_two():
    masks = [torch.zeros(1, 1, 40, 40) for _ in range(2)]
    masks[1][0, 0, 20, 20] = 5
    ctx = context()
    assert [float(multiply_regions([Masked(mask)], ctx, (40, 40)).sum()) for mask in masks] == [
        0.0, 5.0]


class AddOne(Adapter):
    def forward(self, feature, target):
        assert not target.requires_grad
        return feature + 1


def test_a_list_of_adapters_and_one_on_the_teachers_side():
    MODELS.register_module(module=AddOne, name='AddOneForTest', force=True)
    maps = dict(feats(), **{'teacher.a': torch.randn(1, 5, 4, 4)})
    conv = dict(type='ConvAdapter', in_channels=2, out_channels=5)
    one = feature_term(adapter=[conv, dict(type='AddOneForTest')],
                       teacher_adapter=dict(type='AddOneForTest'))
    same = feature_term(adapter=conv)
    same.adapter.load_state_dict(one.adapter[0].state_dict())
    ctx = context()
    torch.testing.assert_close(one(maps, ctx)['loss'], same(maps, ctx)['loss'])
    back = feature_term(teacher_adapter=dict(type='ConvAdapter', in_channels=5, out_channels=2))
    loss = back(maps, ctx)['loss']
    loss.backward()
    assert back.teacher_adapter.conv.weight.grad.abs().sum() > 0
    assert maps['teacher.a'].grad is None


# Weights ------------------------------------------------------------------------------------------


def test_schedules():
    assert [WeightSchedule(3.0)(i) for i in (0, 1e9)] == [3.0, 3.0]
    assert [WeightSchedule(1.0, start=2, stop=4)(i) for i in range(6)] == [0, 0, 1, 1, 0, 0]
    fade = WeightSchedule(4.0, stop=8, decay=4)
    assert [fade(i) for i in (0, 4, 5, 7, 8)] == [4.0, 4.0, 3.0, 1.0, 0.0]


@pytest.mark.parametrize('weight, message', [
    (dict(value=1, ramp=-1), 'expected start, ramp and decay >= 0'),
    (dict(value=1, decay=5), 'and stop with a decay'),
    (dict(value=1, start=5, ramp=5, stop=8), 'stop=8 is before the end of start'),
    ('lerned', "expected a number, 'learned', or a schedule"),
    (dict(value=1, begin=5), "unexpected keyword argument 'begin'; a schedule is dict"),
    (dict(start=5), "missing .* 'value'; a schedule is dict")])
def test_bad_weights(weight, message):
    with pytest.raises(UserError, match=message):
        feature_term(weight=weight)


def test_a_weight_follows_the_iteration_of_the_runner(teacher_files):  # noqa: F811
    schedule = dict(value=2.0, start=10, ramp=10)
    model = distiller(teacher_files, terms=dict(student=term(weight=schedule)), assistant=None)
    model.init_weights()
    model.eval()
    losses = []
    for iteration in (0, 15, 100):
        MessageHub.get_current_instance().update_info('iter', iteration)
        losses.append(float(run(model)['loss_student'].detach()))
    assert losses[0] == 0 and losses[2] == pytest.approx(2 * losses[1])


# Teachers -----------------------------------------------------------------------------------------


@pytest.fixture
def two_teachers(teacher_files, tmp_path):  # noqa: F811
    from mmengine.config import Config

    from tests.factories import model_config
    config = tmp_path / 'camera.py'
    Config(dict(model=model_config(CAMERA))).dump(config)
    torch.manual_seed(8)
    torch.save(dict(state_dict=build(CAMERA).state_dict()), tmp_path / 'camera.pth')
    return dict(lidar=teacher_files,
                camera=dict(config=str(config), checkpoint=str(tmp_path / 'camera.pth')))


def test_two_teachers_teach_together(two_teachers):
    terms = {name: term(teacher=f'{name}.head.segmentation') for name in two_teachers}
    model = distiller(None, teachers=two_teachers, assistant=None, terms=terms)
    model.init_weights()
    losses = run(model)
    assert {'loss_lidar', 'loss_camera'} <= set(losses)
    for name in two_teachers:
        single = distiller(two_teachers[name], assistant=None, terms=dict(student=term()))
        single.student.load_state_dict(model.student.state_dict())
        single.init_weights()
        single.student.load_state_dict(model.student.state_dict())
        model.eval(), single.eval()
        assert float(run(single)['loss_student']) == pytest.approx(
            float(run(model)[f'loss_{name}']))
    assert not any('lidar.' in key or 'camera.' in key for key in model.state_dict())


@pytest.mark.parametrize('extra, message', [
    (dict(teacher=dict(config='a', chekpoint='b')),
     "model.teacher.chekpoint: a teacher has no such argument; did you mean 'checkpoint'"),
    (dict(teacher=dict(checkpoint='b')), 'model.teacher.config: missing'),
    (dict(teacher=dict(config='a'), teachers=dict(b=dict(config='b'))), 'not both'),
    (dict(teachers=dict(student=dict(config='a'))), "'student' is the name of another role"),
    (dict(teachers=dict(a=dict(config='a'), b=dict(config='b')), assistant=None,
          terms=dict(x=term(teacher='a.head.segmentation')), init_from_teacher=PARTS),
     'a list needs exactly one teacher, there are 2'),
    (dict(teachers=dict(lidar=dict(config='a')), assistant=None,
          terms=dict(x=term(teacher='lidra.head'))), "no role 'lidra'; did you mean 'lidar'"),
    (dict(teachers=dict(a=dict(config='a')), assistant=None,
          terms=dict(x=term(teacher='a.head.segmentation')),
          init_from_teacher={'student.head': 'b.head'}), 'expected a module of student'),
])
def test_bad_teachers(extra, message):
    with pytest.raises(UserError, match=message):
        distiller(**{'teacher': None, **extra})


def test_modules_start_from_any_teacher(two_teachers):
    terms = {name: term(teacher=f'{name}.head.segmentation') for name in two_teachers}
    model = distiller(None, teachers=two_teachers, assistant=None, terms=terms,
                      init_from_teacher={'student.head': 'lidar.head',
                                         'student.camera_branch': 'camera.camera_branch'})
    model.init_weights()
    lidar, camera = (model.teachers[name].model for name in ('lidar', 'camera'))
    for own, its in ((model.student.head, lidar.head),
                     (model.student.camera_branch, camera.camera_branch)):
        assert all(torch.equal(value, its.state_dict()[key])
                   for key, value in own.state_dict().items())


def test_a_teacher_reads_inputs_of_its_own(teacher_files):  # noqa: F811
    model = distiller(dict(teacher_files, inputs=dict(points='points_sweeps')))
    model.init_weights()
    with pytest.raises(UserError, match="teacher.inputs: the batch has no 'points_sweeps'"):
        run(model)
    data = model.data_preprocessor(copy.deepcopy(_batch()), True)
    data['inputs']['points_sweeps'] = data['inputs'].pop('points')
    assert model(**data, mode='loss')['loss_student'].isfinite()


def test_the_pipeline_brings_a_teachers_points():
    from mmdet3d.structures import LiDARPoints

    from mmdet3d_plugin.datasets.transforms import (
        GlobalRotScaleTransFlip,
        KeepPoints,
        PackBEVInputs,
    )
    results = dict(points=LiDARPoints(torch.rand(5, 4), points_dim=4))
    results = KeepPoints(name='sweeps')(results)
    results['points'] = results['points'][:2]
    results = GlobalRotScaleTransFlip(flip=(0, 0), translation_std=9.0)(results)
    packed = PackBEVInputs(keys=('points', 'points_sweeps'))(results)
    assert torch.equal(packed['inputs']['points_sweeps'][:2], packed['inputs']['points'])
    data = dict(inputs={key: [value] for key, value in packed['inputs'].items()},
                data_samples=[packed['data_samples']])
    inputs = MODELS.build(dict(type='BEVDataPreprocessor'))(data, False)['inputs']
    assert [cloud.shape for cloud in inputs['points_sweeps']] == [(5, 4)]


def test_a_distilled_student_teaches(teacher_files, tmp_path):  # noqa: F811
    first = distiller(teacher_files)
    first.init_weights()
    torch.save(dict(state_dict=first.state_dict()), tmp_path / 'distilled.pth')
    from mmengine.config import Config

    from tests.factories import model_config
    Config(dict(model=model_config())).dump(tmp_path / 'student.py')
    second = distiller(dict(config=str(tmp_path / 'student.py'),
                            checkpoint=str(tmp_path / 'distilled.pth')),
                       assistant=None, terms=dict(student=term()))
    second.init_weights()
    for key, value in first.student.state_dict().items():
        assert torch.equal(second.teacher.model.state_dict()[key], value)


def test_a_teacher_that_nobody_taps_does_not_run(teacher_files):  # noqa: F811
    model = distiller(teacher_files, assistant=None, terms={}, init_from_teacher=['student.head'])
    model.init_weights()
    ran = []
    model.teacher.model.register_forward_hook(lambda *_: ran.append(1))
    assert set(run(model)) == {'loss_segmentation', 'loss_centerness', 'loss_offset'} and not ran


@pytest.mark.parametrize('terms, message', [
    ({'segmentation': term()}, "has a loss 'loss_segmentation' already"),
    ({'kd_loss': term()}, "model.terms: 'kd_loss' cannot be a name here"),
    ({'a.b': term()}, "model.terms: 'a.b' cannot be a name here"),
    ({'items': term()}, "model.terms: 'items' cannot be a name here")])
def test_names_of_terms(teacher_files, terms, message):  # noqa: F811
    with pytest.raises(UserError, match=message):
        model = distiller(teacher_files, assistant=None, terms=terms)
        model.init_weights()
        run(model)


def test_a_missing_student_is_one_line():
    with pytest.raises(UserError, match='student: nope.py does not exist'):
        distiller(None, student='nope.py', terms={}, assistant=None)


def _batch():
    from tests.factories import batch
    return batch()
