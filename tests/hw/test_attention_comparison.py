"""Units against explicit N x N engines: the formulas against loops that go through the pairs."""

import numpy as np
import pytest

from s2tdpt.golden.rates import Rates
from s2tdpt.hw.attention.comparison import ENGINES, compare, draw_spikes
from s2tdpt.hw.plan.machine import Machine


def machine(engines: int) -> Machine:
    return Machine(lanes=8, banks=1, post_lanes=8, attention_steps=engines)


@pytest.mark.parametrize("engines, timesteps", [(1, 4), (2, 3), (4, 4), (8, 2)])
def test_explicit_engines_are_what_loops_count(engines, timesteps):
    tokens, head_dim = 16, 8
    _, _, v = draw_spikes(tokens, head_dim, timesteps, Rates())
    made = added = 0
    for first in range(0, timesteps, engines):
        longest = 0
        for step in range(first, min(first + engines, timesteps)):
            longest = max(longest, sum(1 for _ in range(tokens) for j in range(tokens) if v[step, j].any()))
        made += sum(1 for _ in range(tokens) for _ in range(tokens))
        added += longest
    found = {cost.engine: cost for cost in compare(tokens, machine(engines), head_dim, timesteps)}
    assert list(found) == list(ENGINES)
    assert [cost.formula for cost in found.values()] == [False, False, True, True]
    assert found["explicit matrix"].cycles == made + added
    assert found["explicit, on the fly"].cycles == added
    held = found["explicit matrix"].state_bits - found["explicit, on the fly"].state_bits
    assert held == min(engines, timesteps) * tokens**2 * 8  # the table's weights have 8 bits


def test_growth():
    """Four times the tokens: units about four times the cycles, explicit engines sixteen times."""
    few, many = (compare(tokens, machine(2), 8, 2) for tokens in (256, 1024))
    ratios = np.array([b.cycles / a.cycles for a, b in zip(few, many, strict=True)])
    assert (ratios[:2] < 6).all() and (ratios[2:] > 14).all()
    assert [b.state_bits / a.state_bits > 2 for a, b in zip(few, many, strict=True)] == [0, 0, 1, 0]
