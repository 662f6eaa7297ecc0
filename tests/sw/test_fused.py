"""The compiled neuron and the attention by counts against their plain references."""

import pytest
import torch

from s2tdpt.golden.config import load_config
from s2tdpt.sw import fused
from s2tdpt.sw.attention.stdp import StdpAttention, _LookUp
from s2tdpt.sw.names import STDP_GRADIENTS, KernelGradient
from s2tdpt.sw.network import Network
from s2tdpt.sw.neuron import lif, use_fused
from tests.sw.helpers import images_for, lively, small


def both(current, threshold, scale=1.0, **options):
    """(spikes, gradient) of the plain and of the fused neuron for the same random gradient of the spikes."""
    results = []
    for enabled in (False, True):
        x = current.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        with use_fused(enabled):
            spikes = lif(x, threshold, scale, **options)
        weight = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)).to(spikes.dtype)
        spikes.backward(weight)
        results.append((spikes.detach(), x.grad))
    return results


def currents(shape, dtype, seed=0):
    draw = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2.5
    return draw.to(dtype)


LAYOUTS = {
    "tokens": lambda x: x,
    "channels last": lambda x: x.movedim(-1, -3),
    "transposed": lambda x: x.transpose(-1, -2),
}


# Each line compiles two kernels of its own; together they cover every choice.
@pytest.mark.parametrize(
    "dtype, repeated, channels, layout",
    [
        (torch.float32, False, False, "tokens"),
        (torch.float32, False, False, "transposed"),  # the first line's kernels again
        (torch.float32, True, True, "channels last"),
        (torch.bfloat16, True, False, "channels last"),
        (torch.bfloat16, False, True, "transposed"),
    ],
)
def test_fused_neuron_is_the_plain_one(dtype, repeated, channels, layout):
    x = LAYOUTS[layout](currents(((3, 5, 6, 7) if repeated else (4, 3, 5, 6, 7)), dtype))
    axis = {"tokens": -1, "channels last": -3, "transposed": -2}[layout]
    threshold, scale = 2.0, 1.0
    if channels:
        shape = [1] * 3
        shape[axis] = 7
        threshold, scale = (
            torch.linspace(0.5, 3.0, 7).reshape(shape),
            torch.linspace(0.5, 1.5, 7).reshape(shape),
        )
    (spikes, grad), (fused_spikes, fused_grad) = both(x, threshold, scale, steps=4 if repeated else None)
    assert torch.equal(spikes, fused_spikes) and 0.05 < spikes.float().mean() < 0.95
    assert fused_spikes.dtype == dtype and fused_grad.dtype == dtype and fused_grad.shape == x.shape
    # bfloat16: the repeated input's gradient is a sum over steps, rounded at each in the plain form
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    assert torch.allclose(grad, fused_grad, **close)


def test_fused_neuron_on_the_integer_grid_with_ties_is_exact():
    current = torch.randint(-30, 40, (4, 2000), generator=torch.Generator().manual_seed(2)).float()
    threshold = torch.randint(1, 30, (2000,), generator=torch.Generator().manual_seed(3)).float()
    (spikes, _), (fused_spikes, _) = both(current, threshold, floor_leak=True)
    assert torch.equal(spikes, fused_spikes)
    carried, expected = torch.zeros(2000), []
    for x in current:
        u = carried + x
        expected.append(u >= threshold)
        carried = torch.where(expected[-1], torch.zeros(()), torch.floor(u / 2))
    assert torch.equal(fused_spikes.bool(), torch.stack(expected))


def test_the_comparison_can_fail(monkeypatch):
    """A fused neuron with another leak is not the plain one."""
    plain = fused._membranes

    def leakless(current, threshold, floor_leak, steps, repeated):
        found = plain(current, threshold, floor_leak, 1, repeated)
        return found + [found[0] + (current if repeated else current[t]) for t in range(1, steps)]

    monkeypatch.setattr(fused, "_membranes", leakless)
    monkeypatch.setattr(fused, "_run", lambda name, function, *arguments: function(*arguments))
    (spikes, _), (fused_spikes, _) = both(currents((4, 500), torch.float32), 2.0)
    assert not torch.equal(spikes, fused_spikes)


def test_spikes_take_autocasts_type():
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16), use_fused(enabled):
            assert lif(currents((4, 10), torch.float32), 2.0).dtype == torch.bfloat16


def test_a_network_trains_the_same_fused_and_plain():
    config = small()
    network = lively(config).double().train()
    images = torch.as_tensor(images_for(config, 6))
    outputs, gradients = [], []
    for enabled in (False, True):
        network.zero_grad()
        with use_fused(enabled):
            outputs.append(network(images))
        outputs[-1].square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert torch.equal(*outputs)
    largest = max(float(g.abs().max()) for g in gradients[0])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-11 * largest)


# ------------------------------------------------------------------------------ attention by counts


def by_matrix(attention, q, k, v):
    """A looked up for every pair of tokens: the definition."""
    d = k.sum(-1).unsqueeze(-2) - q.sum(-1).unsqueeze(-1)
    return _LookUp.apply(d, attention.table, attention.slope) @ v


@pytest.mark.parametrize("gradient", STDP_GRADIENTS)
@pytest.mark.parametrize("rate", [0.02, 0.3, 1.0])
def test_attention_by_counts_is_the_matrix_form(gradient, rate):
    config = small(sps_channels=(4, 6, 8), heads=2)
    attention, draw = StdpAttention(config, KernelGradient(gradient)), torch.Generator().manual_seed(5)
    shape = (3, 2, 2, 30, config.head_dim)  # 30 tokens, d_h 4: more tokens than counts
    results = []
    for form in (attention, lambda *x: by_matrix(attention, *x)):
        draw.manual_seed(5)
        q, k, v = (
            (torch.rand(shape, generator=draw, dtype=torch.float64) < rate).double().requires_grad_()
            for _ in range(3)
        )
        y = form(q, k, v)
        y.backward(torch.randn(y.shape, generator=draw, dtype=torch.float64))
        results.append((y.detach(), q.grad, k.grad, v.grad))
    assert torch.equal(results[0][0], results[1][0])
    for mine, theirs in zip(results[0][1:], results[1][1:], strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max() + 1))
    assert results[0][3].abs().sum() > 0


def test_attention_by_counts_holds_no_matrix_of_tokens(monkeypatch):
    """State does not grow with N x N: nothing that large is allocated at 4096 tokens."""
    config = small(heads=2)
    attention = StdpAttention(config, KernelGradient())
    sizes = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    spikes = torch.zeros(1, 1, 1, 4096, config.head_dim)
    with Watch():
        attention(spikes, spikes, spikes)
    assert sizes and max(sizes) <= 4096 * (config.head_dim + 1)


def test_half_precision_network_keeps_attention_and_residual_exact():
    config = load_config("s2tdpt-2-128").model_copy(
        update={"image_height": 16, "image_width": 16, "sps_channels": (8, 8, 32), "heads": 8, "depth": 1}
    )
    torch.manual_seed(0)
    network, record = Network(config).train(), {}
    images = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        network(images, record)
    assert record["block.0.y"].dtype == record["block.0.u"].dtype == torch.float32
    assert record["block.0.x"].dtype == torch.bfloat16
    y, q, k, v = (record[f"block.0.{name}"].double() for name in "yqkv")
    split = lambda x: x.unflatten(-1, (config.heads, -1)).transpose(-2, -3)  # noqa: E731
    expected = by_matrix(network.blocks[0].attention, split(q), split(k), split(v))
    assert torch.equal(split(y), expected)
