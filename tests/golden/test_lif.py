"""The integer neuron against real-valued arithmetic: the floor-leak lemma."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from s2tdpt.golden.neuron.lif import lif

TYPES = [torch.int16, torch.int32, torch.int64, torch.float32, torch.float64]


def rational_spikes(inputs, threshold):
    """The neuron with an exact real-valued leak of 1/2 (paper Eqs. 7-9)."""
    h, spikes = Fraction(0), []
    for x in inputs:
        u = h + x
        spikes.append(int(u >= threshold))
        h = Fraction(0) if spikes[-1] else u / 2
    return spikes


@pytest.mark.parametrize("dtype", TYPES)
def test_floor_leak_changes_no_spike_exhaustively(dtype):
    sequences = list(itertools.product(range(-4, 6), repeat=3))
    current = torch.tensor(sequences, dtype=dtype).T.contiguous()
    for threshold in range(1, 9):
        expected = [rational_spikes(sequence, threshold) for sequence in sequences]
        assert lif(current, threshold).T.long().tolist() == expected


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_floor_leak_changes_no_spike_at_random(steps):
    rng = np.random.default_rng(steps)
    inputs = rng.integers(-1000, 1500, (steps, 400))
    thresholds = rng.integers(1, 2000, 400)
    pairs = zip(inputs.T.tolist(), thresholds.tolist(), strict=True)
    expected = [rational_spikes(sequence, threshold) for sequence, threshold in pairs]
    for dtype in TYPES:
        spikes = lif(torch.tensor(inputs).to(dtype), torch.tensor(thresholds).to(dtype))
        assert spikes.dtype == dtype and spikes.T.long().tolist() == expected


def test_a_rounding_leak_would_be_noticed():
    """Plant: halving towards zero instead of down differs, so the lemma is really being tested."""
    found = 0
    for sequence in itertools.product(range(-4, 6), repeat=3):
        h, spikes = 0, []
        for x in sequence:
            u = h + x
            spikes.append(int(u >= 2))
            h = 0 if spikes[-1] else int(u / 2)
        found += spikes != rational_spikes(sequence, 2)
    assert found > 0


def test_equality_fires_and_resets():
    assert lif(torch.tensor([[4], [3], [3]]), 4).flatten().tolist() == [1, 0, 1]  # 4 | 0+3 | 1+3


def test_constant_input_over_four_steps():
    """Thresholds 2, 4/3, 8/7, 16/15 of the input give the patterns 1111, 0101, 0010, 0001."""
    theta = 2 * 840
    cuts = {840 * 2: "1111", 840 * 4 // 3: "0101", 840 * 8 // 7: "0010", 840 * 16 // 15: "0001", 0: "0000"}
    for x in range(0, 1800):
        pattern = "".join(str(s) for s in lif(torch.full((4, 1), x), theta).flatten().tolist())
        assert pattern == next(p for cut, p in cuts.items() if x >= cut)


def test_output_may_be_a_view_of_another_type_and_input_stays():
    current = torch.randint(-9, 9, (4, 3, 5))
    before = current.clone()
    wide = torch.zeros((4, 5, 5), dtype=torch.float32)
    lif(current, 3, out=wide[:, 1:-1])
    assert torch.equal(current, before)
    assert torch.equal(wide[:, 1:-1].long(), lif(current, 3))
    assert not wide[:, 0].any() and not wide[:, -1].any()
