"""Simulation helpers: Amaranth's simulator with a watchdog; the memories of a design."""

import warnings

from amaranth.hdl._mem import MemoryInstance
from amaranth.sim import Simulator

from s2tdpt.hw.state import state_of as state_of

PERIOD = 20e-9


def simulate(dut, testbench, *, deadline, background=()):
    """Runs ``testbench(ctx)`` on a clocked `dut`.

    Parameters
    ----------
    dut : Elaboratable
    testbench : async callable
    deadline : int
        Cycles after which the watchdog raises `TimeoutError`: a hanging handshake fails, never blocks.
    background : iterable of async callables
        Monitors that run beside it.
    """
    sim = Simulator(dut)
    sim.add_clock(PERIOD)

    async def watchdog(ctx):
        await ctx.delay(deadline * PERIOD)
        raise TimeoutError(f"testbench did not end within {deadline} cycles")

    sim.add_testbench(watchdog, background=True)
    sim.add_testbench(testbench)
    for monitor in background:
        sim.add_testbench(monitor, background=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sim.run()


def evaluate(dut, testbench):
    """Runs ``testbench(ctx)`` on a combinational `dut`, which has no clock and cannot hang."""
    sim = Simulator(dut)
    sim.add_testbench(testbench)
    sim.run()


def memories_of(fragment, path=()):
    """Every memory of an elaborated design with its path."""
    for child, name, _ in fragment.subfragments:
        where = (*path, str(name))
        if isinstance(child, MemoryInstance):
            yield "/".join(where), child
        yield from memories_of(child, where)
