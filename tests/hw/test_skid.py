"""A skid buffer: no payload is lost or late, and `ready` does not hang on the receiver."""

import random

from amaranth.lib import data

from s2tdpt.hw.blocks.skid import SkidBuffer
from tests.hw.util import simulate, state_of

WORDS = 400


def test_every_word_in_order_and_at_once():
    """Latency 0, a word a cycle while both sides are willing; any pauses on both sides."""
    dut, found, late = SkidBuffer(16), [], []
    draw = random.Random(1)

    async def bench(ctx):
        sent = 0
        while len(found) < WORDS:
            # A word that waits stays; so does the wish of the first half to stand still for nobody.
            free = len(found) < WORDS // 2
            if not ctx.get(dut.source.valid) and sent < WORDS and (free or draw.random() < 0.6):
                ctx.set(dut.source.payload, sent * 37 & 0xFFFF)
                ctx.set(dut.source.valid, 1)
            before = ctx.get(dut.source.ready)
            ctx.set(dut.sink.ready, free or draw.random() < 0.5)
            assert ctx.get(dut.source.ready) == before  # only a clock edge changes it
            entered = ctx.get(dut.source.valid) and ctx.get(dut.source.ready)
            if ctx.get(dut.sink.valid) and ctx.get(dut.sink.ready):
                found.append(ctx.get(dut.sink.payload))
                late.append(not entered)
            await ctx.tick()
            sent += entered
            if entered:
                ctx.set(dut.source.valid, 0)

    simulate(dut, bench, deadline=10 * WORDS)
    assert found == [word * 37 & 0xFFFF for word in range(WORDS)]
    assert not any(late[: WORDS // 2]) and any(late)


def test_state():
    """A payload and one bit."""
    assert state_of(SkidBuffer(data.StructLayout({"a": 5, "b": 3}))) == (8 + 1, 0)
