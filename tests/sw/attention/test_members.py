"""Every trainable attention: the golden integers at any spikes, its gradients, export and back."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.attention.heads import split_heads
from s2tdpt.golden.attention.lrf import TAPS
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import random_params
from s2tdpt.sw.attention import MODULES, make_attention
from s2tdpt.sw.evaluate import verify_equal
from s2tdpt.sw.export import export, from_params
from s2tdpt.sw.fold import fold
from s2tdpt.sw.names import MEMBERS
from s2tdpt.sw.quantize import QatNetwork
from tests.golden.shapes import emitted
from tests.sw.helpers import images_for, lively, small

KINDS = list(MECHANISMS)
PROJECTIONS = (Kind.Q, Kind.K, Kind.V)


def config_of(kind, **options):
    return small(attention={"kind": kind, **options})


def spikes(config, seed, rate):
    generator = torch.Generator().manual_seed(seed)
    shape = (config.timesteps, 2, config.tokens, config.embed_dim)
    kinds = config.attention.projections
    drawn = [(torch.rand(shape, generator=generator) < rate).float() for _ in "qkv"]
    drawn = [s * emitted(config, kind, shape, generator) for s, kind in zip(drawn, PROJECTIONS, strict=True)]
    return [split_heads(s, config.heads) if k in kinds else None for k, s in zip("qkv", drawn, strict=True)]


def test_every_mechanism_has_a_module_and_a_case():
    assert set(MODULES) == set(MECHANISMS) == {"stdp", *MEMBERS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.7, 1.0])
def test_modules_compute_the_golden_integers(kind, rate):
    for options in (
        ({}, {"gate_threshold": 4}) if "gate_threshold" in MECHANISMS[kind].model_fields else ({},)
    ):
        config = config_of(kind, **options)
        values = random_params(config, 3).attention(1)
        module = make_attention(config)
        module.set_integers({name: torch.tensor(tensor).double() for name, tensor in values.items()})
        parts = spikes(config, 7, rate)
        y = module(*parts)
        exact = {name: torch.tensor(tensor).long() for name, tensor in values.items()}
        golden = config.attention.y(config, exact, *(None if s is None else s.long() for s in parts))
        assert torch.equal(y.long(), golden) and torch.equal(y, y.round())
        for name, tensor in module.integers().items():
            assert np.array_equal(tensor.detach().numpy(), values[name])


@pytest.mark.parametrize("kind", KINDS)
def test_integer_network_is_exported_and_read_back(kind):
    config = config_of(kind)
    qat = QatNetwork.from_folded(fold(lively(config))).eval()
    images = images_for(config, 6)
    params = export(qat)
    assert verify_equal(qat, GoldenNetwork(params), images).equal
    again = from_params(params)
    for name, value in qat.trace(torch.as_tensor(images)).items():
        assert torch.equal(again.trace(torch.as_tensor(images))[name], value), name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_projection_and_tap(kind):
    config = config_of(kind)
    module = make_attention(config)
    parts = [None if s is None else s.requires_grad_() for s in spikes(config, 1, 0.2)]
    y = module(*parts)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for part in parts:
        assert part is None or part.grad.abs().sum() > 0
    for parameter in module.parameters():
        assert parameter.grad.abs().sum() > 0


def test_a_gate_far_above_its_threshold_passes_little_gradient():
    """Ref: the surrogate falls off in units of the threshold; a higher threshold keeps it alive longer."""
    found = []
    for theta in (1, 8):
        config = config_of("qkca", gate_threshold=theta)
        q = torch.ones((1, 1, config.heads, config.tokens, config.head_dim), requires_grad=True)
        make_attention(config)(q, torch.ones_like(q), None).sum().backward()
        found.append(float(q.grad.abs().mean()))
    assert found[0] < 0.01 * found[1]


def test_taps_are_clamped_and_rounded():
    module = make_attention(config_of("lrf-ssa"))
    with torch.no_grad():
        module.taps.fill_(5.0)
    assert int(module.integers()[TAPS].max()) == 127
    module.taps.data.fill_(0.4 / 127)
    assert not module.integers()[TAPS].any()
