"""Values a few cycles later; which of them a reset reaches."""

import pytest
from amaranth import ClockDomain, Module, Signal, signed
from amaranth.lib import data
from amaranth.sim import Simulator

from s2tdpt.hw.blocks.delay import delayed


def trace(build, values, resets=()):
    """What `build(m, value)` gives in each cycle, for a value a cycle; reset in the cycles `resets`."""
    m = Module()
    value, reset, seen = Signal(signed(4)), Signal(), []
    m.domains.sync = domain = ClockDomain()
    m.d.comb += domain.rst.eq(reset)
    result = Signal(signed(4))
    m.d.comb += result.eq(build(m, value))

    async def run(ctx):
        for cycle, number in enumerate(values):
            ctx.set(value, number)
            ctx.set(reset, cycle in resets)
            seen.append(ctx.get(result))
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()
    return seen


VALUES = [1, -2, 3, -4, 5, -6, 7]


@pytest.mark.parametrize("cycles", range(4))
def test_delay(cycles):
    expected = ([0] * cycles + VALUES)[: len(VALUES)]
    assert trace(lambda m, value: delayed(m, value, cycles), VALUES) == expected


def test_data_passes_a_reset():
    assert trace(lambda m, value: delayed(m, value, 2), VALUES, {3}) == [0, 0, 1, -2, 3, -4, 5]


@pytest.mark.parametrize("init", (0, -1))
def test_a_reset_fills_what_has_an_init(init):
    seen = trace(lambda m, value: delayed(m, value, 2, init=init), VALUES, {3})
    assert seen == [init, init, 1, -2, init, init, 5]


def test_shapes():
    m = Module()
    layout = data.ArrayLayout(signed(3), 2)
    assert delayed(m, Signal(layout)).shape() == layout
    assert delayed(m, Signal(3), shape=signed(5)).shape() == signed(5)
