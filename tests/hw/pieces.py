"""Pieces through a pipeline of constant delay: sent with and without pauses, checked in the very cycle."""

import numpy as np

from tests.hw.util import simulate

GAPS = {"back to back": 0.0, "random": 0.5, "sparse": 0.9}
"""Share of cycles without a piece."""


def run_pieces(dut, pieces, *, drive, idle, check, gap, seed=0):
    """Sends `pieces` in order and checks each `dut.delay` cycles later.

    Parameters
    ----------
    drive, check : callable(ctx, piece)
        Set the inputs; look at the outputs.
    idle : callable(ctx, rng)
        Called in a cycle without a piece; sets junk that must not matter.
    gap : str
        Key of `GAPS`.
    """
    rng = np.random.default_rng(seed)
    due = {}
    cycles = 0

    async def testbench(ctx):
        nonlocal cycles
        waiting = list(reversed(pieces))
        while waiting or due:
            if waiting and rng.random() >= GAPS[gap]:
                piece = waiting.pop()
                drive(ctx, piece)
                due[cycles + dut.delay] = piece
            else:
                idle(ctx, rng)
            if cycles in due:
                check(ctx, due.pop(cycles))
            await ctx.tick()
            cycles += 1

    simulate(dut, testbench, deadline=int(3 * len(pieces) / (1 - GAPS[gap])) + 200)
    if gap == "back to back":
        assert cycles == len(pieces) + dut.delay, "a piece a cycle"
