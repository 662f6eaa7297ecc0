"""A machine that the search tries is counted as `s2tdpt energy` and `s2tdpt estimate` count it."""

import numpy as np
import pytest

from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import random_params
from s2tdpt.hw.estimate.candidate import Contender, Limits, estimate_candidate
from s2tdpt.hw.estimate.counted_energy import count_energy
from s2tdpt.hw.estimate.layers import count_cycles, image_traces
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.schedule import build_program, program_of
from s2tdpt.sim.cases import network

MACHINE = Machine(lanes=4, banks=2, post_lanes=2)


@pytest.mark.parametrize("kind", ["lif", "glif"])
def test_counts_are_those_of_the_other_commands(kind):
    """Also those of neurons that add more than LIF's."""
    params = random_params(network(neuron={"kind": kind}), 3)
    config = params.config
    shape = (2, config.image_height, config.image_width, config.image_channels)
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    traces = tuple(image_traces(GoldenNetwork(params), images))
    contender = Contender("small", params, traces)
    found = estimate_candidate(contender, MACHINE, Limits(clock_mhz=50.0))
    assert found.cycles == np.mean(count_cycles(params, MACHINE, images).intervals)
    widths, bounds = contender.widths, contender.bounds
    programs = (
        program_of(params, MACHINE, widths.head_sum),
        build_program(config, MACHINE, widths.head_sum),  # the laws that training begins with
    )
    energies = [count_energy(program, widths, bounds, traces) for program in programs]
    assert (found.energy, found.adders) == (energies[0].energy, energies[0].adders)
    assert (energies[0].adders == energies[1].adders) == (kind == "lif")
