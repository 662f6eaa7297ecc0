"""Long co-simulations: S2TDPT-4-384's encoder block at real width, and random networks under random stalls.

Run with ``scripts/test -m wide tests/sim``.
"""

import numpy as np
import pytest

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.config import load_config
from s2tdpt.golden.neuron import NEURONS
from s2tdpt.golden.params import random_params
from s2tdpt.hw.attention import HARDWARE
from s2tdpt.hw.plan.machine import load_machine
from s2tdpt.sim.cases import build_case, random_machine, random_network
from s2tdpt.sim.cosim import Options, cosimulate
from s2tdpt.sim.stalls import PATTERNS
from tests.sim.conftest import PRESENT


@pytest.mark.wide
@pytest.mark.parametrize("weights", ["rom", "stream"])
def test_encoder_block_at_real_width(weights):
    """One block of S2TDPT-4-384: 64 tokens, 384 channels, 12 heads, 4 steps, behind a one-layer stem."""
    paper = load_config("s2tdpt-4-384")
    network = paper.model_copy(
        update={
            "name": "s2tdpt-4-384-block",
            "image_height": 8,
            "image_width": 8,
            "sps_channels": (384,),
            "sps_pool": (False,),
            "depth": 1,
        }
    )
    assert (network.tokens, network.embed_dim, network.heads, network.timesteps) == (64, 384, 12, 4)
    machine = load_machine("digits").model_copy(update={"weight_memory": weights})
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    report = cosimulate(random_params(network, 1), machine, image)
    assert report.ok, report.first()
    assert report.tensors == 11
    assert report.utilisation > 0.5


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(100, 124))
def test_random_networks_on_random_machines(seed):
    """Any small network, any machine, any stall pattern, on all simulators."""
    config = random_network(seed)
    machine = random_machine(seed, config)
    case = build_case(config, machine, seed=seed)
    stall = PATTERNS[seed % len(PATTERNS)]
    simulator = PRESENT[seed // len(PATTERNS) % len(PRESENT)]
    options = Options(stall=stall, seed=seed, simulator=simulator)
    report = cosimulate(case.params, machine, case.images, options)
    assert report.ok, report.first()


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(200, 203))
@pytest.mark.parametrize("kind", [kind for kind in MECHANISMS if kind in HARDWARE])
def test_every_attention(kind, seed):
    """The Verilog of every attention on random machines, every tensor and cycle."""
    config = random_network(seed).model_copy(update={"attention": MECHANISMS[kind]()})
    machine = random_machine(seed, config)
    case = build_case(config, machine, seed=seed)
    report = cosimulate(case.params, machine, case.images, Options(stall=PATTERNS[seed % 2], seed=seed))
    assert report.ok, report.first()


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(300, 306))
@pytest.mark.parametrize("kind", [kind for kind in NEURONS if kind != "lif"])
def test_every_neuron(kind, seed):
    """The Verilog of every neuron on random machines, beside every attention, every tensor and cycle."""
    attention = list(HARDWARE)[seed % len(HARDWARE)]
    changes = {"neuron": NEURONS[kind](), "attention": MECHANISMS[attention]()}
    config = random_network(seed).model_copy(update=changes)
    machine = random_machine(seed, config)
    case = build_case(config, machine, seed=seed)
    report = cosimulate(case.params, machine, case.images, Options(stall=PATTERNS[seed % 2], seed=seed))
    assert report.ok, report.first()
