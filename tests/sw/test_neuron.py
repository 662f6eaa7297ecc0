"""The neuron against the paper's real-valued equations, and its surrogate gradient."""

from fractions import Fraction

import pytest
import torch

from s2tdpt.sw.names import ALPHA
from s2tdpt.sw.neuron import lif


def paper_spikes(inputs, threshold, reset=Fraction(0), beta=Fraction(1, 2)):
    """Eqs. 7-9 word for word in exact rational arithmetic, one neuron."""
    carried, spikes = Fraction(0), []
    for x in inputs:
        membrane = carried + x  # Eq. 7
        spike = 1 if membrane >= threshold else 0  # Eq. 8
        carried = reset * spike + beta * membrane * (1 - spike)  # Eq. 9
        spikes.append(spike)
    return spikes


def spikingjelly_spikes(inputs, threshold):
    """tau = 2, decay_input, v_reset = 0: the public code's neuron, exact."""
    v, spikes = Fraction(0), []
    for x in inputs:
        v = v + (x - v) / 2
        spikes.append(1 if v >= threshold else 0)
        v = Fraction(0) if spikes[-1] else v
    return spikes


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_spikes_are_those_of_the_paper_and_of_the_public_code(steps):
    generator = torch.Generator().manual_seed(3)
    grid = torch.randint(-192, 320, (steps, 400), generator=generator)  # in 1/64, ties included
    spikes = lif(grid.double() / 64, 2.0)
    for n in range(grid.shape[1]):
        inputs = [Fraction(int(x), 64) for x in grid[:, n]]
        assert spikes[:, n].int().tolist() == paper_spikes(inputs, Fraction(2))
        assert spikes[:, n].int().tolist() == spikingjelly_spikes(inputs, Fraction(1))
    assert 0 < spikes.mean() < 1


def test_tie_fires_and_reset_is_hard():
    assert lif(torch.tensor([2.0, 1.9, 1.0]), 2.0).tolist() == [1.0, 0.0, 0.0]
    assert lif(torch.tensor([1.0, 1.5]), 2.0).tolist() == [0.0, 1.0]  # 0.5 + 1.5 = 2: a tie


@pytest.mark.parametrize("steps", [2, 4, 8])
def test_floor_leak_gives_the_spikes_of_the_real_leak(steps):
    generator = torch.Generator().manual_seed(5)
    current = torch.randint(-300, 300, (steps, 5000), generator=generator).double()
    threshold = torch.randint(1, 400, (5000,), generator=generator).double()
    assert torch.equal(lif(current, threshold, floor_leak=True), lif(current, threshold))


def test_floor_leak_needs_an_integer_grid():
    """The lemma's condition matters: off the grid the two leaks part, so the test above can fail."""
    current = torch.tensor([1.5, 1.3]).double()[:, None]
    assert not torch.equal(lif(current, 2.0, floor_leak=True), lif(current, 2.0))


class _Step(torch.autograd.Function):
    """Heaviside with the public code's surrogate on the halved membrane."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        gate = torch.sigmoid(ALPHA * ctx.saved_tensors[0])
        return grad * ALPHA * gate * (1 - gate)


def test_gradient_is_bptt_with_sigmoid_surrogate_and_detached_reset():
    generator = torch.Generator().manual_seed(7)
    current = (torch.randn(4, 200, generator=generator, dtype=torch.float64) * 2).requires_grad_()
    weight = torch.randn(4, 200, generator=generator, dtype=torch.float64)
    (lif(current, 2.0) * weight).sum().backward()
    mine, current.grad = current.grad.clone(), None
    v, spikes = 0.0, []
    for t in range(4):
        v = v + (current[t] - v) / 2
        spikes.append(_Step.apply(v - 1.0))
        v = v * (1 - spikes[-1].detach())
    (torch.stack(spikes) * weight).sum().backward()
    assert torch.allclose(mine, current.grad, rtol=1e-12, atol=1e-15)


def test_gradient_in_integer_units_is_the_real_one_times_the_scale():
    generator = torch.Generator().manual_seed(9)
    steps = torch.randint(-60, 90, (4, 50), generator=generator).double().requires_grad_()
    scale = 0.03125
    real = (steps.detach() * scale).requires_grad_()
    lif(steps, 2.0 / scale, scale, floor_leak=False).sum().backward()
    lif(real, 2.0).sum().backward()
    assert torch.allclose(steps.grad, real.grad * scale, rtol=1e-12, atol=0)
