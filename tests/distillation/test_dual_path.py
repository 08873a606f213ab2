"""BridgeTA's terms: identities of Young's inequality, crossed heads, divergences."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet3d_plugin.distillation import (
    Context,
    CrossHeadTerm,
    DualPathTerm,
    FeatureTerm,
    PredictionKL,
    SquaredDistance,
    TaskTerm,
)
from mmdet3d_plugin.errors import UserError

TAPS = dict(student='student.a', assistant='assistant.a', teacher='teacher.a')


def maps(seed=0):
    torch.manual_seed(seed)
    return {TAPS[role]: torch.randn(3, 5, 4, 6).requires_grad_(role != 'teacher') for role in TAPS}


def dual(feats, **kwargs):
    return DualPathTerm(**TAPS, **kwargs)(feats, {})


def distances(feats):
    s, a, t = (x.detach() for x in feats.values())
    return [float((x - y).square().sum(1).mean()) for x, y in ((s, a), (a, t), (s, t))]


def test_loss_is_the_square_of_the_sum_of_both_distances():
    feats = maps()
    to_student, to_teacher, direct = distances(feats)
    out = dual(feats)
    assert float(out['loss']) == pytest.approx((to_student**0.5 + to_teacher**0.5)**2, rel=1e-6)
    assert float(out['epsilon']) == pytest.approx((to_teacher / to_student)**0.5, rel=1e-6)
    assert float(out['distance']) == pytest.approx(direct**0.5, rel=1e-6)
    assert out['loss'] >= direct and not out['epsilon'].requires_grad


@pytest.mark.parametrize('epsilon', [0.1, 0.7, 1.0, 3.0])
def test_no_other_epsilon_gives_a_tighter_bound(epsilon):
    feats = maps()
    loss = dual(feats, epsilon=epsilon)['loss']
    assert loss >= dual(feats)['loss']
    to_student, to_teacher, _ = distances(feats)
    assert float(loss) == pytest.approx((1 + epsilon) * to_student + (1 + 1 / epsilon) * to_teacher)


def test_equal_to_the_direct_distance_if_the_assistant_is_between():
    feats = maps()
    with torch.no_grad():
        feats['assistant.a'] = 0.3 * feats['student.a'] + 0.7 * feats['teacher.a']
    out = dual(feats)
    assert float(out['loss']) == pytest.approx(distances(feats)[2], rel=1e-6)
    assert float(out['epsilon']) == pytest.approx(3 / 7, rel=1e-6)


@pytest.mark.parametrize('scope', ['batch', 'sample'])
def test_gradient_is_that_of_the_live_epsilon(scope):
    feats = {tap: x.detach().double().requires_grad_(x.requires_grad) for tap, x in maps().items()}
    student, assistant, teacher = feats.values()
    axes = (0, 1) if scope == 'batch' else (1, )
    a, b = ((x - y).square().sum(1).flatten(1).mean(axes[-1])
            for x, y in ((student, assistant), (assistant, teacher)))
    a, b = (a.mean(), b.mean()) if scope == 'batch' else (a, b)
    live = (a.sqrt() + b.sqrt()).square().mean()
    expected = torch.autograd.grad(live, (student, assistant))
    out = dual(feats, scope=scope)['loss']
    assert float(out) == pytest.approx(float(live), rel=1e-6)
    for ours, theirs in zip(torch.autograd.grad(out, (student, assistant)), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_samples_give_a_bound_between_the_direct_and_the_batch():
    feats = maps()
    with torch.no_grad():
        feats['student.a'][0] *= 9
    loss, batch = dual(feats, scope='sample')['loss'], dual(feats)['loss']
    assert distances(feats)[2] < loss < batch


def test_mean_over_channels_divides_by_their_number():
    feats = maps()
    assert float(dual(feats, channels='mean')['loss']) == pytest.approx(
        float(dual(feats)['loss']) / 5, rel=1e-6)


def test_equal_tensors_give_zero_and_finite_gradients():
    feats = maps()
    feats['assistant.a'] = feats['teacher.a'].clone().requires_grad_()
    out = dual(feats)
    assert float(out['epsilon']) == pytest.approx(1e-3)  # kept within the limits
    out['loss'].backward()
    feats = {tap: torch.ones(1, 2, 3, 3, requires_grad=tap != 'teacher.a') for tap in feats}
    out = dual(feats)
    out['loss'].backward()
    assert out['loss'] == 0 and out['epsilon'] == 1 and feats['student.a'].grad.eq(0).all()


def test_the_assistant_as_a_fixed_target():
    feats = maps()
    student, assistant, teacher = feats.values()
    dual(feats, detach_assistant=True, epsilon=1.0)['loss'].backward()
    # from the path to the teacher alone: 2 (1 + 1/epsilon) (TA - T) / (cells and batch)
    torch.testing.assert_close(assistant.grad, 4 * (assistant - teacher).detach() / 72)
    torch.testing.assert_close(student.grad, 4 * (student - assistant).detach() / 72)


def test_errors():
    with pytest.raises(UserError, match="epsilon: expected 'optimal' or a positive number, got 0"):
        DualPathTerm(**TAPS, epsilon=0)
    with pytest.raises(UserError, match="scope: expected 'batch' or 'sample', got 'pixel'"):
        DualPathTerm(**TAPS, scope='pixel')
    feats = maps()
    feats['teacher.a'] = feats['teacher.a'][:, :4]
    with pytest.raises(UserError, match=r'teacher.a is \(3, 4, 4, 6\); the three need the same'):
        dual(feats)


# Criteria -----------------------------------------------------------------------------------------


def test_squared_distance_by_hand():
    student, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 0.0]], [[2.0, 3.0]]]])
    assert float(SquaredDistance()(student, teacher)) == 7.0  # (1 + 4 + 0 + 9) / 2
    assert float(SquaredDistance('mean')(student, teacher)) == 3.5
    weight = torch.tensor([[[[1.0, 0.0]]]])
    found = {name: float(SquaredDistance()(student, teacher, weight, name))
             for name in ('mean', 'batch', 'region')}
    assert found == dict(mean=2.5, batch=5.0, region=5.0)


def test_the_direct_term_logs_the_same_distance():
    """Curves with and without an assistant compare, whatever the criterion."""
    feats = maps()
    expected = dual(feats)['distance']
    for criterion in (dict(type='SquaredDistance', channels='mean'), dict(type='ChannelWiseKL')):
        term = FeatureTerm(TAPS['student'], TAPS['teacher'], criterion, log_distance=True)
        out = term(feats, {})
        assert set(out) == {'loss', 'distance'} and not out['distance'].requires_grad
        torch.testing.assert_close(out['distance'], expected)


def test_prediction_kl_and_its_gradient():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5) * 3
    p = teacher.sigmoid()
    bce = F.binary_cross_entropy_with_logits(student, p, reduction='none')
    entropy = F.binary_cross_entropy_with_logits(teacher, p, reduction='none')
    loss = PredictionKL()(student, teacher)
    torch.testing.assert_close(loss, (bce - entropy).sum(1).mean())
    gradient, = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, (student.sigmoid() - p).detach() / 40)
    assert float(PredictionKL()(teacher, teacher)) == 0


def test_prediction_kl_of_exclusive_classes():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    expected = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction='sum') / 40
    torch.testing.assert_close(PredictionKL('exclusive')(student, teacher), expected)
    extreme = torch.tensor([[[[200.0]]]])
    assert PredictionKL()(-extreme, extreme).isfinite()


def context(**changes):
    return Context(**{**dict(inputs={}, samples=[], roles={}, taps={}), **changes})


# Crossed heads ------------------------------------------------------------------------------------


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.segmentation = nn.Sequential(nn.Conv2d(5, 2, 1), nn.BatchNorm2d(2))

    def forward(self, features):
        return dict(segmentation=self.segmentation(features[-1]))


class Role(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = Head()


def crossed(role, frozen, **kwargs):
    torch.manual_seed(0)
    model = Role().train()
    if frozen:
        model.eval().requires_grad_(False)
    features = torch.randn(2, 5, 3, 3, requires_grad=True)
    feats = {'student.bev': features, f'{role}.head[segmentation]': torch.randn(2, 2, 3, 3)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    term = CrossHeadTerm('student.bev', role, dict(type='PredictionKL'), **kwargs)
    loss = term(feats, context(roles={role: model}))['loss']
    loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert features.grad.abs().sum() > 0
    return model, feats, loss, features


def test_a_frozen_head_passes_the_gradient_to_the_student():
    model, feats, loss, features = crossed('teacher', frozen=True, weight=2.0)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    logits = model.head((features, ))['segmentation']
    expected = 2 * PredictionKL()(logits, feats['teacher.head[segmentation]'])
    assert float(loss.detach()) == pytest.approx(float(expected))


@pytest.mark.parametrize('freeze', [False, True])
def test_an_assistants_head_learns_unless_frozen(freeze):
    model, *_ = crossed('assistant', frozen=False, freeze=freeze)
    assert all((p.grad is None) == freeze and p.requires_grad for p in model.parameters())
    assert model.head.segmentation[1].momentum == 0.1


def test_task_term_is_the_heads_loss():
    class Trained(Role):
        def __init__(self):
            super().__init__()
            self.head.loss = lambda outs, samples: dict(
                loss_a=outs['segmentation'].sum(), loss_b=torch.tensor(float(len(samples))))

    feats = {'assistant.head[segmentation]': torch.ones(2, 2)}
    out = TaskTerm(weight=0.5)(
        feats, context(roles=dict(assistant=Trained()), samples=[1, 2]))
    assert float(out['loss']) == 3.0


def test_whose_head():
    with pytest.raises(UserError, match="expected 'assistant' or a teacher, got 'student'"):
        CrossHeadTerm('student.bev', 'student', dict(type='PredictionKL'))
