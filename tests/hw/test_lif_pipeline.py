"""LifPipeline against `golden.neuron`: all sequences at small widths, the ends of the bounds, pauses."""

import itertools
import random

import pytest
import torch
from amaranth import signed

from s2tdpt.golden.neuron.lif import lif
from s2tdpt.hw.blocks.lif_pipeline import LifPipeline
from s2tdpt.hw.blocks.neuron import membrane_interval
from s2tdpt.hw.fixed import interval_of
from tests.hw.pieces import GAPS, run_pieces


def run(pieces, *, x_width, threshold_width, gap="back to back", membrane=None, shown=None):
    """Compares the spikes of `pieces`: ``(x[lanes][T], threshold[lanes])``, each with thresholds of its own.

    `shown`: thresholds that the golden model gets instead.
    """
    lanes, steps = len(pieces[0][0]), len(pieces[0][0][0])
    drive_interval = interval_of(signed(x_width))
    dut = LifPipeline(
        lanes=lanes,
        timesteps=steps,
        x_width=x_width,
        threshold_width=threshold_width,
        membrane=membrane or membrane_interval(drive_interval, (1 << threshold_width) - 1, steps),
    )
    assert dut.delay == 2 * steps - 1
    current = torch.tensor([x for x, _ in pieces]).permute(2, 0, 1).contiguous()
    expected = lif(current, torch.tensor(shown or [threshold for _, threshold in pieces])).permute(1, 2, 0)
    expected = expected.reshape(len(pieces), lanes * steps).tolist()

    def drive(ctx, numbered):
        _, (x, threshold) = numbered
        ctx.set(dut.x, x)
        ctx.set(dut.threshold, threshold)

    def idle(ctx, rng):
        ctx.set(dut.x, rng.integers(*drive_interval, (lanes, steps)).tolist())
        ctx.set(dut.threshold, rng.integers(1 << threshold_width, size=lanes).tolist())

    def check(ctx, numbered):
        spikes = ctx.get(dut.spikes)
        got = [spikes >> bit & 1 for bit in range(lanes * steps)]
        assert got == expected[numbered[0]], numbered

    run_pieces(dut, list(enumerate(pieces)), drive=drive, idle=idle, check=check, gap=gap, seed=steps)


def in_lanes(cases, lanes):
    """Cases ``(x[T], threshold)`` side by side, the last piece filled up."""
    cases = cases + cases[: -len(cases) % lanes]
    groups = [cases[i : i + lanes] for i in range(0, len(cases), lanes)]
    return [([list(x) for x, _ in group], [threshold for _, threshold in group]) for group in groups]


@pytest.mark.parametrize(
    "x_width, threshold_width, steps", [(2, 2, 4), (3, 2, 3), (3, 3, 3), (4, 3, 2), (2, 3, 1)]
)
def test_every_sequence(x_width, threshold_width, steps):
    low, high = interval_of(signed(x_width))
    sequences = itertools.product(range(low, high + 1), repeat=steps)
    cases = [(x, threshold) for x in sequences for threshold in range(1, 1 << threshold_width)]
    run(in_lanes(cases, 8), x_width=x_width, threshold_width=threshold_width)


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_random_pieces(steps, gap):
    rng = random.Random(steps)
    ends = interval_of(signed(9))
    pieces = []
    for number in range(60):
        # Half of the pieces keep to the ends of the input, where the bounds are tight.
        x = [[rng.choice(ends) if number % 2 else rng.randint(*ends) for _ in range(steps)] for _ in range(3)]
        pieces.append((x, [rng.choice((1, 255, rng.randint(1, 255))) for _ in range(3)]))
    run(pieces, x_width=9, threshold_width=8, gap=gap)


def test_ties_fire_and_negative_membranes_round_down():
    """u = 5 meets a threshold of 5; -1 >> 1 stays -1 and leaves 5 - 1 just below."""
    run([([[5, 5], [-1, 5]], [5, 5])], x_width=5, threshold_width=3)


def test_membrane_of_one_sign():
    """Inputs that are known not to be negative: u and h are unsigned."""
    run(
        in_lanes([(x, 6) for x in itertools.product(range(8), repeat=3)], 4),
        x_width=4,
        threshold_width=3,
        membrane=(0, 10),
    )


def test_messages():
    sizes = dict(lanes=2, timesteps=4, x_width=8, threshold_width=7, membrane=(-256, 255))
    for name in ("lanes", "timesteps", "x_width", "threshold_width"):
        with pytest.raises(ValueError, match=rf"^LIF pipeline {name} must be a positive integer, not 0$"):
            LifPipeline(**{**sizes, name: 0})


def test_comparison_notices_a_wrong_threshold():
    with pytest.raises(AssertionError):
        run([([[3, 2]], [4])], x_width=4, threshold_width=3, shown=[[3]])


def test_comparison_notices_a_membrane_that_is_too_narrow():
    with pytest.raises(AssertionError):
        run([([[6, 6]], [7])], x_width=4, threshold_width=3, membrane=(-8, 7))
