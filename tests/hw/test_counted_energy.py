"""The macro model against its sources; energies by hand; energy moves with the spikes."""

import numpy as np
import pytest

from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.shipped import load
from s2tdpt.hw.estimate.counted_energy import adder_energy, count_energy
from s2tdpt.hw.estimate.layers import image_traces
from s2tdpt.hw.estimate.macro_model import CACTI, HOROWITZ, access_energy, area, fits, leakage
from s2tdpt.hw.plan.machine import load_machine
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.hw.plan.widths import derive_widths
from s2tdpt.scripts.images import labelled_images


def test_macro_model_meets_its_sources():
    """As near as docs/energy.md says."""
    for words, bits, energy, leaks, size in CACTI:
        assert access_energy(words, bits) == pytest.approx(energy / 1e3, rel=0.34)
        assert leakage(words, bits) == pytest.approx(leaks, rel=0.14)
        assert area(words, bits) == pytest.approx(size, rel=0.25)
    for words, bits, energy in HOROWITZ:
        assert access_energy(words, bits) == pytest.approx(energy / 1e3, rel=0.13)
    assert fits()["energy"].depth == pytest.approx(0.5, abs=0.01)  # bit lines of half the words, as it were
    assert access_energy(256, 32, moved=8) == access_energy(256, 32) / 4


def test_adders_by_hand():
    assert [adder_energy(bits) for bits in (4, 8, 32, 64)] == pytest.approx([0.015, 0.03, 0.1, 0.2])
    assert adder_energy(20) == pytest.approx(0.065)


@pytest.fixture(scope="module")
def digits():
    golden = GoldenNetwork(load("digits"))
    widths = derive_widths(golden.params, golden.bounds)
    program = build_program(golden.config, load_machine("digits"), widths.head_sum)
    return golden, program, widths


def energy_of(digits, images):
    golden, program, widths = digits
    return count_energy(program, widths, golden.bounds, image_traces(golden, images))


def test_energy_rises_with_the_spikes(digits):
    """An all-zero frame, real ones, an all-one frame: in the additions and in the accesses."""
    real = labelled_images([digits[0].config], "digits", None, 8).images
    counts = [
        energy_of(digits, frame) for frame in (np.zeros_like(real[:1]), real, np.full_like(real[:1], 255))
    ]
    for figure in ("energy", "adders", "accesses"):
        zero, middle, one = (getattr(count, figure) for count in counts)
        assert zero < middle < one
    assert len({count.leakage for count in counts}) == 1


def test_layers_and_memories_add_up_to_the_same(digits):
    real = labelled_images([digits[0].config], "digits", None, 2).images
    count = energy_of(digits, real)
    assert sum(layer.energy for layer in count.layers) == pytest.approx(count.energy)
    weights = next(memory for memory in count.memories if memory.name == "weights")
    # A row of 8 weights of 8 bits in each of four groups for every event; by hand from the additions.
    assert weights.energy == pytest.approx(weights.reads * access_energy(weights.words, 64))
    assert count.leaked(100.0) == pytest.approx(count.leakage * count.cycles / 100)
