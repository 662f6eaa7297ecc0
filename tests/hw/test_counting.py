"""CountTo: `last` says in a register what a comparator would say of the count."""

import random

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.counting import CountTo
from tests.hw.util import simulate


class Walk(wiring.Component):
    """Begins anew on `restart` and at the bound, else goes on while `step`."""

    restart: In(1)
    step: In(1)
    first: In(1)
    bound: In(3)
    value: Out(3)
    last: Out(1)

    def elaborate(self, platform):
        m = Module()
        count, held = CountTo(3, "count"), Signal(3)
        m.d.comb += [self.value.eq(count.value), self.last.eq(count.last)]
        with m.If(self.restart):
            m.d.sync += [*count.begin(self.bound, self.first), held.eq(self.bound)]
        with m.Elif(self.step & count.last):
            m.d.sync += count.begin(held)
        with m.Elif(self.step):
            m.d.sync += count.step(held)
        return m


def test_last_is_a_comparator_ahead():
    dut, rng = Walk(), random.Random(1)

    async def testbench(ctx):
        value, bound, lasts = 0, 0, 0
        for cycle in range(2000):
            restart, step = cycle == 0 or rng.random() < 0.05, rng.random() < 0.7
            first = rng.randrange(2)
            wanted = rng.randrange(first, 8)
            for name, setting in dict(restart=restart, step=step, first=first, bound=wanted).items():
                ctx.set(getattr(dut, name), setting)
            if cycle:
                assert ctx.get(dut.value) == value
                assert ctx.get(dut.last) == (value == bound)
            lasts += value == bound
            if restart:
                value, bound = first, wanted
            elif step:
                value = 0 if value == bound else value + 1
            await ctx.tick()
        assert 100 < lasts < 1900

    simulate(dut, testbench, deadline=2100)
