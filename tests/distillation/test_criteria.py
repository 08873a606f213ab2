import pytest
import torch

from mmdet3d_plugin.distillation import ChannelWiseKL, WindowAffinity


def ramp(*shape):
    count = torch.tensor(shape).prod()
    return (torch.arange(count) / count).reshape(shape)


def test_golden_channel_wise_kl_of_the_release():
    logits, teacher = 4 * ramp(2, 1, 8, 8) - 2, 3 * torch.sin(6 * ramp(2, 1, 8, 8))
    assert ChannelWiseKL(3.0)(logits, teacher).item() == pytest.approx(0.7245510, abs=1e-6)
    student = ramp(2, 3, 4, 4)
    teacher = torch.cos(9 * ramp(2, 3, 4, 4))
    assert ChannelWiseKL(3.0)(student, teacher).item() == pytest.approx(0.0513019, abs=1e-6)


def test_kl_is_zero_for_equal_maps_and_ignores_a_constant_per_channel():
    student = torch.randn(2, 3, 5, 5)
    shift = torch.randn(2, 3, 1, 1)
    assert ChannelWiseKL()(student, student + shift).item() == pytest.approx(0, abs=1e-6)
    assert ChannelWiseKL()(student, torch.randn(2, 3, 5, 5)).item() > 0.01


def test_kl_survives_extreme_logits():
    student = torch.zeros(1, 1, 4, 4, requires_grad=True)
    teacher = torch.zeros(1, 1, 4, 4)
    teacher[..., 0, 0] = 3e4
    (ChannelWiseKL(1.0)(student - 1e4 * teacher, teacher)).backward()
    assert student.grad.isfinite().all()


def test_kl_weight_is_normalised():
    student, teacher = torch.randn(2, 2, 3, 4, 4)
    plain = ChannelWiseKL()(student, teacher)
    assert ChannelWiseKL()(student, teacher, torch.full((2, 1, 4, 4), 7.0)).item() == pytest.approx(
        plain.item(), rel=1e-5)
    assert ChannelWiseKL()(student, teacher, torch.zeros(2, 1, 4, 4)).item() == 0


def test_kl_gradient():
    student, teacher = torch.randn(2, 1, 2, 3, 3, dtype=torch.float64)
    criterion = ChannelWiseKL(2.0)
    student.requires_grad_()
    # fp32 inside: a loose numeric check against the closed form T / (N C) (phi_S - phi_T)
    criterion(student, teacher).backward()
    phi = [(x.flatten(2) / 2).softmax(-1).reshape(x.shape) for x in (student.detach(), teacher)]
    torch.testing.assert_close(student.grad, 2.0 / 2 * (phi[0] - phi[1]), atol=1e-6, rtol=1e-4)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match='temperature'):
        ChannelWiseKL(0)


def test_golden_affinity_of_the_release():
    student, teacher = (f(k * ramp(2, 3, 8, 8)) for f, k in ((torch.cos, 9), (torch.sin, 5)))
    criterion = WindowAffinity(window=4, block=5, by_batch=True)
    assert criterion(student, teacher).item() == pytest.approx(0.0186568, abs=1e-6)
    assert criterion(teacher, student).item() == pytest.approx(0.0186568, abs=1e-6)
    assert WindowAffinity(window=4)(student, teacher).item() == pytest.approx(0.0373136, abs=2e-6)


def naive_affinity(student, teacher, window):
    total, count = 0, 0
    for top in range(0, student.shape[2], window):
        for left in range(0, student.shape[3], window):
            s, t = (x[..., top:top + window, left:left + window].flatten(2) for x in (
                student, teacher))
            s, t = (x / x.norm(dim=1, keepdim=True) for x in (s, t))
            difference = s.transpose(1, 2) @ s - t.transpose(1, 2) @ t
            total, count = total + difference.abs().sum(), count + difference.numel()
    return total / count


@pytest.mark.parametrize('block', [7, 16, 100])
def test_affinity_equals_the_naive_formula_forward_and_backward(block):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 8, 12, generator=generator)
    student.requires_grad_()
    losses = (WindowAffinity(window=4, block=block)(student, teacher),
              naive_affinity(student, teacher, 4))
    gradients = [torch.autograd.grad(3 * loss, student)[0] for loss in losses]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)
    assert gradients[1].abs().max() > 1e-3
    assert WindowAffinity(window=4)(teacher, teacher) == 0


_MEMORY = '''
import torch
from mmdet3d_plugin.distillation import WindowAffinity
from tests.helpers.memory import peak_mib
student, teacher = torch.randn(2, 1, 16, 100, 100)
student.requires_grad_()
before = peak_mib()
WindowAffinity(window=100, block=1000)(student, teacher).backward()
print(peak_mib() - before)
'''


def test_affinity_never_holds_the_matrix(run_command):
    # One 100 x 100 window: the matrix of 10 000 x 10 000 cosines alone takes 381 MiB.
    done = run_command('-c', _MEMORY)
    assert float(done.stdout.split()[-1]) < 100, done.stderr


def test_affinity_window_must_divide_the_map():
    with pytest.raises(ValueError, match='5 does not divide'):
        WindowAffinity(window=5)(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
