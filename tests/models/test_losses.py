"""Golden values of facts measured on the authors' release; L(shape) = arange / numel."""
import pytest
import torch

from mmdet3d_plugin.models.losses import (
    BalancedMSELoss,
    BEVFocalLoss,
    OffsetL1Loss,
    UncertaintyWeights,
)


def ramp(*shape):
    count = torch.tensor(shape).prod()
    return (torch.arange(count) / count).reshape(shape)


LOGIT = 4 * ramp(2, 1, 8, 8) - 2
GT = torch.zeros(2, 1, 8, 8)
GT[0, 0, 2:4, 2:5] = 1
BUMP = torch.exp(-(torch.arange(8) - 3) ** 2 / 8)
CENTER = torch.zeros(2, 1, 8, 8)
CENTER[0, 0] = BUMP[:, None] * BUMP
INSIDE = GT[:, 0] > 0


def test_golden_focal():
    assert BEVFocalLoss(2.0)(LOGIT, GT).item() == pytest.approx(0.4454865, abs=1e-6)
    assert BEVFocalLoss(1.0)(LOGIT, GT).item() == pytest.approx(0.6097693, abs=1e-6)


def test_golden_balanced_mse():
    assert BalancedMSELoss()(ramp(2, 1, 8, 8), CENTER).item() == pytest.approx(0.3103997, abs=1e-6)


def test_golden_weighted_sum_of_the_release():
    weights = UncertaintyWeights(dict(segmentation=10.0, centerness=0.5, offset=0.5))
    log_variance = dict(segmentation=0.3, centerness=-0.2, offset=0.1)
    for task, value in log_variance.items():
        weights.log_variance[task].data.fill_(value)
    pred, zero = ramp(2, 2, 8, 8), torch.zeros(2, 2, 8, 8)

    def terms(gt, center, inside):
        losses = weights(dict(
            segmentation=BEVFocalLoss()(LOGIT, gt),
            centerness=BalancedMSELoss()(ramp(2, 1, 8, 8), center),
            offset=OffsetL1Loss(masked=False)(pred, zero, inside)))
        return [losses[task].item() - log_variance[task] / 2 for task in log_variance]

    assert terms(GT, CENTER, INSIDE) == pytest.approx([3.3002450, 0.1895615, 0.4506513], abs=2e-6)
    empty = torch.zeros_like(GT)
    found = terms(empty, empty, empty[:, 0] > 0)
    assert found == pytest.approx([2.9787061, 0.1005939, 0], abs=2e-6)


def test_masked_offset_loss_averages_over_object_cells_only():
    pred = torch.ones(1, 2, 4, 4)
    target = torch.zeros(1, 2, 4, 4)
    inside = torch.zeros(1, 4, 4, dtype=torch.bool)
    inside[0, 1, 1:3] = True
    pred[..., 3] = 100
    assert OffsetL1Loss()(pred, target, inside).item() == pytest.approx(2.0, abs=1e-5)
    assert OffsetL1Loss()(pred, target, inside & False).item() == 0


def test_fixed_weights_have_no_parameters():
    weights = UncertaintyWeights(dict(segmentation=10.0), learn=False)
    assert not list(weights.parameters())
    assert weights(dict(segmentation=torch.tensor(0.5)))['segmentation'] == 5


def test_focal_gradient():
    logits = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(1, 1, 2, 4).requires_grad_()
    target = (torch.arange(8).reshape(1, 1, 2, 4) % 2).double()
    assert torch.autograd.gradcheck(lambda x: BEVFocalLoss()(x, target), logits)
