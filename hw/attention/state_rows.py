"""The state of an engine: a row of counts for every channel of the key and step, and sums of rows."""

from __future__ import annotations

from amaranth import Module, Mux, Shape, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import BLOCK, HeadSizes
from s2tdpt.hw.attention.state_records import StateUse
from s2tdpt.hw.fixed import exact, interval_shape
from s2tdpt.hw.memory import Memory

__all__ = ["SUM_DELAY", "StateRows", "state_depth", "state_memories"]

SUM_DELAY = 3
"""From a use of a row to the sums with it."""


def state_depth(sizes: HeadSizes, engine: int) -> int:
    """Rows of an engine."""
    return max(2, sizes.head_dim << sizes.local_step(engine))


def state_memories(sizes: HeadSizes) -> list[Memory]:
    """The rows of all engines."""
    bits = sizes.head_dim * interval_shape(0, sizes.tokens).width
    found = []
    for engine in range(sizes.engines):
        name = "rows of the attention" if sizes.engines == 1 else f"rows of the attention, {engine}"
        helps = ("attention_steps", "heads")
        found.append(Memory(name, state_depth(sizes, engine), bits, style="block", helps=helps))
    return found


class StateRows(wiring.Component):
    """Counts up the channels of a row, or adds a row to the sums.

    Latency: a `use` 3 cycles after an update of the same row finds it; the sums are there `SUM_DELAY` cycles
    after the last row. Throughput: a row a cycle. Resources: ``head_dim`` rows a
    step of ``head_dim`` counts up to the number of tokens, as many incrementers; ``head_dim`` adders and
    registers of a sum.

    Parameters
    ----------
    sizes : HeadSizes
    engine : int
    y_shape : Shape
        Of a sum.

    Members
    -------
    use : ``In(StateUse)``
    sums : ``Out(ArrayLayout(y_shape, head_dim))``
    """

    def __init__(self, sizes: HeadSizes, engine: int, y_shape: Shape):
        self._sizes, self._engine = sizes, engine
        self._count = interval_shape(0, sizes.tokens)
        self._y_shape = y_shape
        super().__init__(
            {"use": In(StateUse(sizes, engine)), "sums": Out(data.ArrayLayout(y_shape, sizes.head_dim))}
        )

    def elaborate(self, platform):
        m = Module()
        sizes, use = self._sizes, self.use
        row = data.ArrayLayout(self._count, sizes.head_dim)
        m.submodules.rows = rows = memory.Memory(
            shape=unsigned(row.size), depth=state_depth(sizes, self._engine), init=[], attrs=BLOCK
        )
        read, write = rows.read_port(), rows.write_port()
        layout = data.StructLayout(
            {"row": use.row.shape(), "mask": sizes.head_dim, "update": 1, "add": 1, "first": 1, "zero": 1}
        )
        fetched, ready = Signal(layout), Signal(layout)  # a row leaves the memory; it is in its register
        before = Signal(row)
        m.d.comb += [read.addr.eq(use.row), read.en.eq((use.update | use.add) & ~use.zero)]
        m.d.sync += [
            fetched[name].eq(getattr(use, name)) for name in ("row", "mask", "update", "add", "first", "zero")
        ]
        m.d.sync += [ready.eq(fetched), before.eq(read.data)]
        with m.If(fetched.zero):
            m.d.sync += before.eq(0)
        m.d.comb += [write.addr.eq(ready.row), write.en.eq(ready.update)]
        after = data.View(row, write.data)
        for channel in range(sizes.head_dim):
            # A token is counted once: at most `tokens`.
            m.d.comb += after[channel].eq(exact(before[channel] + ready.mask[channel], self._count))
            with m.If(ready.add):
                # The proven interval of Y covers partial sums.
                total = Mux(ready.first, 0, self.sums[channel]) + before[channel]
                m.d.sync += self.sums[channel].eq(exact(total, self._y_shape))
        return m
