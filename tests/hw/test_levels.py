"""LevelsPipeline against `golden.neuron.graded`: every small input, the ends, pauses; planted faults."""

import pytest
import torch
from amaranth import signed

from s2tdpt.golden.neuron.graded import LevelsLaw
from s2tdpt.hw.blocks.levels import LEVELS_DELAY, LevelsPipeline
from s2tdpt.hw.fixed import interval_of
from tests.hw.pieces import GAPS, run_pieces
from tests.hw.util import state_of

STEPS = 2


def run(pieces, *, x_width=7, threshold_width=3, gap="back to back", factor=1):
    """Pieces ``(x[lanes][T], threshold[lanes])``; the golden model sees `factor` times the thresholds."""
    dut = LevelsPipeline(lanes=2, timesteps=STEPS, x_width=x_width, threshold_width=threshold_width)
    dut.delay = LEVELS_DELAY

    def drive(ctx, piece):
        ctx.set(dut.x, piece[0])
        ctx.set(dut.threshold, piece[1])

    def idle(ctx, rng):
        ctx.set(dut.x, rng.integers(*interval_of(signed(x_width)), (2, STEPS)).tolist())

    def check(ctx, piece):
        rows = [LevelsLaw().spikes(torch.tensor(x), factor * theta) for x, theta in zip(*piece, strict=True)]
        assert ctx.get(dut.levels.as_value()) == sum(
            int(level) << 4 * place for place, level in enumerate(torch.cat(rows).tolist())
        ), piece

    run_pieces(dut, pieces, drive=drive, idle=idle, check=check, gap=gap)


def every(x_width, thresholds):
    lo, hi = interval_of(signed(x_width))
    values = list(range(lo, hi + 1))
    return [
        ([[x, -x - 1], [hi - i % 5, x]], [theta, thresholds[i % len(thresholds)]])
        for theta in thresholds
        for i, x in enumerate(values)
    ]


def test_every_number_and_threshold():
    """-64 .. 63 by 1 .. 7: below 0, every level, far above the last one."""
    run(every(7, range(1, 8)))


def test_thresholds_that_no_input_reaches():
    run(every(4, (8, 9, 100, 127)), x_width=4, threshold_width=7)


@pytest.mark.parametrize("gap", GAPS)
def test_pauses(gap):
    run(every(7, (3,)), gap=gap)


def test_another_threshold_is_noticed():
    with pytest.raises(AssertionError):
        run(every(7, (3,)), factor=2)


@pytest.mark.parametrize("x_width, threshold_width", [(9, 5), (12, 4)])
def test_resources(x_width, threshold_width):
    """Flip-flops of the docstring: what is left three times, one to four bits; thresholds beside them."""
    dut = LevelsPipeline(lanes=3, timesteps=4, x_width=x_width, threshold_width=threshold_width)
    flops, memory = state_of(dut)
    assert memory == 0 and flops == 3 * (4 * (3 * x_width + 10) + 3 * threshold_width)


def test_messages():
    sizes = dict(lanes=1, timesteps=1, x_width=4, threshold_width=4)
    for name in sizes:
        with pytest.raises(ValueError, match=f"levels pipeline {name} must be a positive integer, not 0"):
            LevelsPipeline(**{**sizes, name: 0})
