"""Heads own their task: what they need, predict, export; several of them; auxiliary losses."""
import pytest
import torch
from mmdet3d.registry import MODELS

from mmdet3d_plugin.deployment import DeployedStudent
from mmdet3d_plugin.errors import UserError, build_from
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.models.heads import BEVHead
from tests.factories import CAMERA, GRID, batch, build

SEG = dict(type='BEVSegHead', in_channels=8, tasks=('segmentation', ))


def features():
    torch.manual_seed(0)
    return (torch.randn(2, 8, 32, 32), )


def build_head(cfg):
    torch.manual_seed(1)
    return build_from(MODELS, cfg, 'model.head', grid=BEVGrid(**GRID))


def test_what_a_head_says_of_itself():
    head = build_head(dict(type='BEVSegHead', in_channels=8, num_classes=3))
    assert isinstance(head, BEVHead)
    assert head.gt_fields == ('gt_bev.seg', 'gt_bev.centerness', 'gt_bev.offset')
    assert head.pred_fields == ('pred_bev', )
    assert {name: out.shape for name, out in head.outputs().items()} == dict(
        segmentation=(3, 32, 32), centerness=(1, 32, 32), offset=(2, 32, 32))
    decoded = head.decode(head(features()))
    assert {name: tuple(out.shape[1:]) for name, out in decoded.items()} == {
        name: out.shape for name, out in head.outputs().items()}
    assert 0 < decoded['segmentation'].min() and decoded['segmentation'].max() < 1


def test_prediction_is_the_decoded_output():
    model = build(CAMERA, head=dict(type='BEVSegHead', in_channels=8)).eval()
    data = model.data_preprocessor(batch(), False)
    samples = model(**data, mode='predict')
    assert samples is data['data_samples']
    decoded = model.head.decode(model(data['inputs']))
    for n, sample in enumerate(samples):
        assert set(sample.pred_bev.keys()) == {'seg', 'centerness', 'offset'}
        torch.testing.assert_close(sample.pred_bev.seg, decoded['segmentation'][n])
        torch.testing.assert_close(sample.pred_bev.offset, decoded['offset'][n])


def test_deployment_keeps_what_is_asked_for():
    head = build_head(dict(type='BEVSegHead', in_channels=8))
    with pytest.raises(UserError, match="no task 'offsets'; did you mean 'offset'"):
        head.keep_outputs(('offsets', ))
    with pytest.raises(UserError, match='tasks: none is named; the head has segmentation'):
        head.keep_outputs(())
    assert head.keep_outputs(('offset', )) == ('offset', )
    assert set(head(features())) == {'offset'} and not hasattr(head, 'segmentation')
    assert list(head.outputs()) == ['offset'] and not list(head.losses or ())


@pytest.mark.parametrize('cfg, message', [
    (dict(tasks=('offset', )), 'the task offset and prior_prob need the task segmentation'),
    (dict(tasks=('centerness', ), prior_prob=0.1), 'prior_prob need the task segmentation'),
    (dict(tasks=('segmentation', 'segmentation')), 'expected each once and one at least'),
    (dict(tasks=()), 'expected each once and one at least')])
def test_tasks_that_cannot_be_learned(cfg, message):
    with pytest.raises(UserError, match=message):
        build_head(dict(type='BEVSegHead', in_channels=8, **cfg))


# Several heads ------------------------------------------------------------------------------------

MULTI = dict(type='MultiTaskHead', heads=dict(road=SEG, off=None), loss_weights=dict(road=0.5))


def test_a_multi_task_head_of_one_is_that_head():
    multi, single = build_head(MULTI), build_head(SEG)
    single.load_state_dict(multi.heads['road'].state_dict())
    outs = multi(features())
    assert list(outs) == ['road.segmentation'] and multi.gt_fields == ('gt_bev.seg', )
    torch.testing.assert_close(outs['road.segmentation'], single(features())['segmentation'])
    samples = batch()['data_samples']
    expected = single.loss(single(features()), samples)
    assert {key: float(value) for key, value in multi.loss(outs, samples).items()} == {
        f'road.{key}': pytest.approx(0.5 * float(value)) for key, value in expected.items()}
    assert {name: output.shape for name, output in multi.outputs().items()} == {
        'road.segmentation': (1, 32, 32)}


class Scores(BEVHead):
    """A second task for the tests: one score of a sample."""

    gt_fields, pred_fields = ('eval_ann_info', ), ('pred_score', )

    def __init__(self, grid=None):
        super().__init__(grid)
        self.linear = torch.nn.Linear(8, 1)

    def forward(self, features):
        return dict(score=self.linear(features[-1].mean((2, 3))))

    def loss(self, outs, samples):
        return dict(loss_score=outs['score'].square().mean(), score=outs['score'].mean())

    def fill(self, decoded, samples):
        for sample, score in zip(samples, decoded['score']):
            sample.set_field(score, 'pred_score')
        return samples

    def decode(self, outs):
        return outs

    def outputs(self):
        from mmdet3d_plugin.models.heads import HeadOutput
        return dict(score=HeadOutput((1, ), 'a score'))

    def keep_outputs(self, names=None):
        return ('score', )


@pytest.fixture
def two_tasks():
    MODELS.register_module(module=Scores, name='ScoresForTest', force=True)
    return dict(type='MultiTaskHead', heads=dict(road=SEG, score=dict(type='ScoresForTest')))


def test_two_tasks_train_predict_and_deploy(two_tasks):
    model = build(CAMERA, head=two_tasks)
    data = model.data_preprocessor(batch(), True)
    losses = model(**data, mode='loss')
    assert set(losses) == {'road.loss_segmentation', 'score.loss_score', 'score.score'}
    total, logged = model.parse_losses(losses)
    total.backward()
    assert float(total) == pytest.approx(
        logged['road.loss_segmentation'].item() + logged['score.loss_score'].item())
    assert all(p.grad is not None for p in model.parameters())
    samples = model.eval()(**data, mode='predict')
    assert samples[1].pred_bev.seg.shape == (1, 32, 32) and samples[1].pred_score.shape == (1, )
    rig = data['inputs']['rig']
    deployed = DeployedStudent(model, rig)
    assert deployed.outputs == ('road.segmentation', 'score.score')
    images = torch.zeros(1, 1, 3, *rig.size, dtype=torch.uint8)
    assert [tuple(out.shape) for out in deployed(images)] == [(1, 1, 32, 32), (1, 1)]
    assert DeployedStudent(model, rig, ('score.score', )).outputs == ('score.score', )


@pytest.mark.parametrize('cfg, message', [
    (dict(heads=dict(a=SEG, b=SEG)), 'two heads fill the same field'),
    (dict(heads=dict(a=SEG), loss_weights=dict(b=1)), "there is no head 'b'; the heads are a"),
    (dict(heads=dict(a=dict(SEG, num_class=2))), 'model.head.heads.a.num_class: .*num_classes')])
def test_bad_multi_task_heads(cfg, message):
    with pytest.raises(UserError, match=message):
        build_head(dict(type='MultiTaskHead', **cfg))


# Auxiliary losses ---------------------------------------------------------------------------------

DEEP = dict(type='AuxHeadLoss', tap='model.camera_branch', head=SEG, weight=0.25)


def test_an_auxiliary_head_trains_with_the_model_and_changes_no_prediction():
    model, plain = build(CAMERA, aux_losses=dict(deep=DEEP, off=None)), build(CAMERA)
    plain.load_state_dict({key: value for key, value in model.state_dict().items()
                           if not key.startswith('aux_losses')})
    data = model.data_preprocessor(batch(), True)
    losses = model(**data, mode='loss')
    expected = plain(**data, mode='loss')
    assert set(losses) == {*expected, 'loss_segmentation_deep'}
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value)
    losses['loss_segmentation_deep'].backward()
    assert model.camera_branch.encoder.backbone.conv1.weight.grad.abs().sum() > 0
    assert model.aux_losses['deep'].head.segmentation[-1].weight.grad.abs().sum() > 0
    assert model.bev_encoder.stem.conv.weight.grad is None
    for one in (model, plain):
        one.eval()
    torch.testing.assert_close(model(data['inputs']), plain(data['inputs']))
    assert not any(module._forward_hooks for module in model.modules())


def test_two_auxiliary_losses_on_one_tap():
    model = build(CAMERA, aux_losses=dict(one=DEEP, two=dict(DEEP, weight=0.5)))
    losses = model(**model.data_preprocessor(batch(), True), mode='loss')
    assert {'loss_segmentation_one', 'loss_segmentation_two'} <= set(losses)


@pytest.mark.parametrize('cfg, message', [
    (dict(DEEP, tap='model.camera_brunch'), "has no module 'camera_brunch'; did you mean"),
    (dict(DEEP, tap='student.camera_branch'), 'expected an address inside the model'),
    (dict(DEEP, wieght=1), "model.aux_losses.deep.wieght: .*did you mean 'weight'")])
def test_bad_auxiliary_losses(cfg, message):
    with pytest.raises(UserError, match=message):
        build(CAMERA, aux_losses=dict(deep=cfg))
