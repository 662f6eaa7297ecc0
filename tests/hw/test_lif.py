"""LifCell against `golden.neuron`: all sequences at small widths, the ends of the bounds, idle cycles."""

import itertools
import random

import pytest
import torch
from amaranth import signed, unsigned

from s2tdpt.golden.neuron.lif import lif
from s2tdpt.hw.blocks.lif import LifCell
from s2tdpt.hw.blocks.neuron import carried_interval, membrane_interval
from s2tdpt.hw.fixed import interval_of, interval_shape
from tests.hw.util import simulate


def run(dut, sequences, thresholds, biases=None, *, idle=0, restart="first"):
    """Drives ``sequences [S, T, lanes]`` one after the other and compares every spike.

    `thresholds` and `biases`, ``[S, lanes]``, are driven where the cell has the inputs; `restart` is the
    input that separates the sequences.
    """
    current = torch.tensor(sequences)
    if biases is not None:
        current = current + torch.tensor(biases)[:, None]
    theta = torch.tensor(thresholds)
    expected = lif(current.transpose(0, 1).contiguous(), theta).transpose(0, 1).tolist()
    rng = random.Random(1)

    async def testbench(ctx):
        for s, steps in enumerate(sequences):
            for lane in range(dut.lanes):
                if hasattr(dut, "threshold"):
                    ctx.set(dut.threshold[lane], thresholds[s][lane])
                if biases is not None:
                    ctx.set(dut.bias[lane], biases[s][lane])
            for t, values in enumerate(steps):
                while rng.random() < idle:
                    ctx.set(dut.en, 0)
                    ctx.set(dut.first, rng.getrandbits(1))
                    ctx.set(dut.last, rng.getrandbits(1))
                    await ctx.tick()
                ctx.set(dut.en, 1)
                ctx.set(dut.first, t == 0 and restart == "first")
                ctx.set(dut.last, t == len(steps) - 1 and restart == "last")
                for lane, value in enumerate(values):
                    ctx.set(dut.x[lane], value)
                spikes = ctx.get(dut.spikes)
                assert [spikes >> i & 1 for i in range(dut.lanes)] == expected[s][t], (s, t)
                await ctx.tick()

    simulate(dut, testbench, deadline=40 * len(sequences) * len(sequences[0]) + 10)


@pytest.mark.parametrize("shape", [unsigned(2), signed(2), signed(3)], ids=repr)
@pytest.mark.parametrize("threshold", [1, 2, 3, 4, 5])
def test_every_sequence_with_a_constant_threshold(shape, threshold):
    lo, hi = interval_of(shape)
    steps = 3
    membrane = membrane_interval((lo, hi), threshold, steps)
    every = list(itertools.product(range(lo, hi + 1), repeat=steps))
    lanes = 8
    sequences = [
        [[every[(s + lane) % len(every)][t] for lane in range(lanes)] for t in range(steps)]
        for s in range(0, len(every), lanes)
    ]
    dut = LifCell(lanes, shape, membrane=membrane, threshold=threshold)
    run(dut, sequences, [[threshold] * lanes] * len(sequences))


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("idle", [0, 0.5])
@pytest.mark.parametrize("restart", ["first", "last"])
def test_threshold_and_bias_inputs(steps, idle, restart):
    rng = random.Random(steps)
    x_shape, bias_shape, threshold_shape = signed(9), signed(6), unsigned(8)
    drive = (
        interval_of(x_shape)[0] + interval_of(bias_shape)[0],
        interval_of(x_shape)[1] + interval_of(bias_shape)[1],
    )
    lanes, count = 3, 40
    dut = LifCell(
        lanes,
        x_shape,
        membrane=membrane_interval(drive, 255, steps),
        threshold=threshold_shape,
        bias_shape=bias_shape,
    )
    # Half of the sequences keep to the ends of the input, where the bounds are tight.
    sequences = [
        [
            [rng.choice(interval_of(x_shape)) if s % 2 else rng.randint(-256, 255) for _ in range(lanes)]
            for _ in range(steps)
        ]
        for s in range(count)
    ]
    thresholds = [[rng.choice((1, 255, rng.randint(1, 255))) for _ in range(lanes)] for _ in range(count)]
    biases = [[rng.randint(-32, 31) for _ in range(lanes)] for _ in range(count)]
    run(dut, sequences, thresholds, biases, idle=idle, restart=restart)


def test_begins_with_nothing():
    """Before its first sequence, as after any other: an input just below the threshold does not fire."""
    dut = LifCell(2, unsigned(2), membrane=membrane_interval((0, 3), 3, 3), threshold=3)
    run(dut, [[[2, 2], [1, 1], [1, 2]]] * 2, [[3, 3]] * 2, restart="last")


def test_attention_membrane_is_narrow():
    """The state of a neuron with a constant threshold stays below half of it."""
    dut = LifCell(2, unsigned(14), membrane=membrane_interval((0, 64 * 240), 1024, 4), threshold=1024)
    assert dut.u_shape == unsigned(14)
    assert dut.h_shape == unsigned(9)


@pytest.mark.parametrize("drive", [(-3, 2), (0, 3), (-4, -1), (2, 5), (-1, 7)])
@pytest.mark.parametrize("threshold", [1, 3, 6])
def test_intervals_hold_and_are_reached(drive, threshold):
    """`membrane_interval` against every sequence: no value outside, both ends occur."""
    seen = set()
    states = {0}
    for _ in range(4):
        u = {h + x for h in states for x in range(drive[0], drive[1] + 1)}
        seen |= u
        states = {0 if v >= threshold else v >> 1 for v in u}
        lo, hi = carried_interval((min(u), max(u)), threshold)
        assert lo <= min(states) and max(states) <= hi
    lo, hi = membrane_interval(drive, threshold, 4)
    assert lo <= min(seen) and max(seen) <= hi
    assert interval_shape(lo, hi).width <= interval_shape(min(seen), max(seen)).width + 1


def test_messages():
    with pytest.raises(ValueError, match=r"^LIF lanes must be a positive integer, not 0$"):
        LifCell(0, signed(4), membrane=(-8, 7), threshold=1)
    with pytest.raises(ValueError, match=r"^LIF threshold must be at least 1, not 0$"):
        LifCell(1, signed(4), membrane=(-8, 7), threshold=0)


def test_comparison_notices_a_wrong_threshold():
    dut = LifCell(1, unsigned(3), membrane=membrane_interval((0, 7), 4, 2), threshold=4)
    with pytest.raises(AssertionError):
        run(dut, [[[3], [2]]], [[3]])


def test_comparison_notices_a_missing_reset():
    """A membrane interval that is too small must be caught: u wraps."""
    dut = LifCell(1, unsigned(3), membrane=(0, 7), threshold=7)
    with pytest.raises(AssertionError):
        run(dut, [[[6], [6]]], [[7]])
