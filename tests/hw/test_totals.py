"""RunningTotals: sums of single totals in any order, the same one in every cycle included."""

import numpy as np
import pytest

from s2tdpt.hw.blocks.totals import RunningTotals
from tests.hw.pieces import GAPS
from tests.hw.util import simulate

WIDTH = 16


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("depth", [1, 2, 3, 16, 17, 40])
def test_any_order(depth, gap):
    rng = np.random.default_rng(depth)
    dut = RunningTotals(width=WIDTH, depth=depth)
    totals = [0] * depth
    zero = [True] * depth  # the first use restarts

    async def testbench(ctx):
        asked = None
        for _ in range(500):
            index, use = int(rng.integers(depth)), rng.random() >= GAPS[gap]
            restart = zero[index] or rng.random() < 0.1
            ctx.set(dut.en, use)
            ctx.set(dut.index, index)
            ctx.set(dut.restart, restart)
            if asked is not None:
                number, before = asked
                assert ctx.get(dut.before) == before
                after = (before + int(rng.integers(1 << WIDTH))) % (1 << WIDTH)
                ctx.set(dut.after, after)
                totals[number] = after
            else:
                ctx.set(dut.after, int(rng.integers(1 << WIDTH)))  # of nobody
            await ctx.tick()
            asked = (index, 0 if restart else totals[index]) if use else None
            if use:
                zero[index] = False

    simulate(dut, testbench, deadline=600)


@pytest.mark.parametrize("depth", [2, 4])
def test_reads_need_no_enable(depth):
    """A total may be looked at without growing, also in the cycle in which it grows."""
    dut = RunningTotals(width=WIDTH, depth=depth)

    async def testbench(ctx):
        for restart, after in ((1, 7), (0, 9)):
            ctx.set(dut.en, 1)
            ctx.set(dut.index, 1)
            ctx.set(dut.restart, restart)
            await ctx.tick()
            ctx.set(dut.en, 0)
            ctx.set(dut.restart, 0)
            ctx.set(dut.after, after)
            for _ in range(3):
                await ctx.tick()
                assert ctx.get(dut.before) == after
                ctx.set(dut.after, 1)

    simulate(dut, testbench, deadline=20)


def test_messages():
    with pytest.raises(ValueError, match=r"^totals width must be a positive integer, not 0$"):
        RunningTotals(width=0, depth=1)
    with pytest.raises(ValueError, match=r"^totals depth must be a positive integer, not 0$"):
        RunningTotals(width=1, depth=0)
