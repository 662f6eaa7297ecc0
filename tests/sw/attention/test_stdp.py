"""STDP attention: one forward, three gradients that differ in the way that is claimed; a random control."""

import math

import numpy as np
import pytest
import torch

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.sw.attention import make_attention
from s2tdpt.sw.attention.controls import RandomAttention
from s2tdpt.sw.attention.stdp import kernel_slope
from s2tdpt.sw.names import STDP_GRADIENTS, KernelGradient

CONFIG = load_config("digits")
D_H = CONFIG.head_dim
STDP = CONFIG.attention


def attention(variant, half_width=3.0):
    return make_attention(CONFIG, KernelGradient(variant, half_width))


def slope_of(variant, half_width=3.0):
    return kernel_slope(STDP, D_H, KernelGradient(variant, half_width))


def spikes(seed, rate=0.3, batch=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (CONFIG.timesteps, batch, CONFIG.heads, CONFIG.tokens, D_H)
    return (torch.rand(shape, generator=generator) < rate).double()


def test_every_gradient_variant_computes_the_formula():
    q, k, v = spikes(1), spikes(2, 0.2), spikes(3)
    t_q = [[[[4.0 * (1 - float(n.sum()) / D_H) for n in h] for h in b] for b in t] for t in q]
    lut = STDP.table(D_H)
    results = [attention(variant)(q, k, v) for variant in STDP_GRADIENTS]
    assert all(torch.equal(results[0], other) for other in results[1:])
    kappa = STDP.kappa * D_H / 4.0  # per unit of latency, T_max = 4
    for i in range(CONFIG.tokens):  # Ref: sections 2.1, 2.3, from latencies
        row = torch.zeros(D_H, dtype=torch.float64)
        for j in range(CONFIG.tokens):
            dt = t_q[0][0][0][i] - 4.0 * (1 - float(k[0, 0, 0, j].sum()) / D_H)
            e = round(STDP.amplitude * math.exp(-kappa * abs(dt)))
            a = STDP.offset + (e if dt < 0 else -e)
            assert a == lut[int(k[0, 0, 0, j].sum() - q[0, 0, 0, i].sum()) + D_H]
            row += a * v[0, 0, 0, j]
        assert torch.equal(row, results[0][0, 0, 0, i])


def test_autodiff_never_changes_sign_and_misses_the_step():
    slope = slope_of("autodiff").double()
    assert (slope > 0).all()
    table = torch.as_tensor(STDP.table(D_H).astype(np.float64))
    fall = float(table[D_H] - table[D_H - 1])  # the tie minus the last LTP entry
    assert fall < -14 * float(slope.max())  # opposite sign and far larger than any slope


def test_autodiff_is_the_derivative_of_both_branches():
    d = torch.arange(-D_H, D_H + 1, dtype=torch.float64, requires_grad=True)
    e = STDP.amplitude * torch.exp(-STDP.kappa * d.abs())
    torch.where(d < 0, STDP.offset + e, STDP.offset - e).sum().backward()
    away = torch.arange(-D_H, D_H + 1) != 0  # |d| has no derivative at 0: take the LTD side
    assert torch.allclose(d.grad[away], slope_of("autodiff").double()[away], rtol=1e-6)
    assert slope_of("autodiff")[D_H] == STDP.kappa * STDP.amplitude


@pytest.mark.parametrize("half_width", [2.0, 3.0, 8.0])
def test_window_adds_the_whole_step_near_the_tie_and_nothing_elsewhere(half_width):
    difference = (slope_of("window", half_width) - slope_of("autodiff")).double()
    d = torch.arange(-D_H, D_H + 1)
    assert (difference[(d + 0.5).abs() < half_width] < 0).all()
    assert (difference[(d + 0.5).abs() >= half_width] == 0).all()
    assert slope_of("window", half_width)[D_H] < 0  # the sign at the tie is turned round
    assert abs(float(difference.sum()) + 2 * STDP.amplitude) < 0.1 * STDP.amplitude


def gradients(variant, seed=4):
    q, k, v = (spikes(seed + n).requires_grad_() for n in range(3))
    generator = torch.Generator().manual_seed(11)
    y = attention(variant)(q, k, v)
    (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum().backward()
    return q.grad, k.grad, v.grad


def test_variants_differ_in_q_and_k_only():
    auto, window, detached = (gradients(variant) for variant in ("autodiff", "window", "detached"))
    assert torch.equal(auto[2], window[2]) and torch.equal(auto[2], detached[2])
    assert auto[2].abs().sum() > 0
    assert detached[0].abs().sum() == 0 and detached[1].abs().sum() == 0
    assert auto[0].abs().sum() > 0 and not torch.equal(auto[0], window[0])


def test_autodiff_pushes_every_query_count_the_same_way():
    """More V is always reached by fewer query spikes under autodiff, by more of them under the window."""
    for variant, sign in (("autodiff", -1.0), ("window", 1.0)):
        q, k, v = (spikes(seed, 0.1).requires_grad_() for seed in (1, 2, 3))
        attention(variant)(q, k, v).sum().backward()
        share = (q.grad.mul(sign) > 0).double().mean()
        assert share > (0.999 if variant == "autodiff" else 0.9), (variant, share)


def test_the_random_control_ignores_queries_and_keys():
    q, k, v = spikes(1), spikes(2), spikes(3)
    random = RandomAttention(CONFIG, seed=5)
    assert torch.equal(random(q, k, v), random(k, q, v))
    assert torch.equal(random.matrix, RandomAttention(CONFIG, seed=5).matrix)
    assert not torch.equal(random.matrix, RandomAttention(CONFIG, seed=6).matrix)
    assert 1 <= random.matrix.min() and random.matrix.max() <= 255


def test_mistakes_are_named():
    with pytest.raises(UserError, match="unknown STDP gradient 'softmax'.*autodiff"):
        attention("softmax")
    with pytest.raises(UserError, match="half-width"):
        attention("window", half_width=0.0)
