"""The state of an engine: a row of sums for every channel of the key and step, and sums of rows."""

from __future__ import annotations

from amaranth import Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.operand import BINARY
from s2tdpt.hw.attention.records import BLOCK, HeadSizes, K, V
from s2tdpt.hw.attention.state_records import StateUse
from s2tdpt.hw.fixed import exact
from s2tdpt.hw.plan.memory import Memory

__all__ = ["SUM_DELAY", "StateRows", "state_depth", "state_memories"]

SUM_DELAY = 3
"""From a use of a row to the sums with it."""


def state_depth(sizes: HeadSizes, engine: int) -> int:
    """Rows of an engine."""
    return max(2, sizes.head_dim << sizes.local_step(engine))


def state_memories(sizes: HeadSizes, state: Shape) -> list[Memory]:
    """The rows of all engines, of numbers of the shape `state`."""
    bits = sizes.head_dim * state.width
    found = []
    for engine in range(sizes.engines):
        name = "rows of the attention" if sizes.engines == 1 else f"rows of the attention, {engine}"
        helps = ("attention_steps", "heads")
        found.append(Memory(name, state_depth(sizes, engine), bits, style="block", helps=helps))
    return found


class StateRows(wiring.Component):
    """Counts up the channels of a row, or adds a row to the sums.

    Where keys and values are no spikes, a channel of a row grows by the key's number where the value is 1,
    and falls by it where it is -1.

    Latency: a `use` 3 cycles after an update of the same row finds it; the sums are there `SUM_DELAY` cycles
    after the last row. Throughput: a row a cycle. Resources: ``head_dim`` rows a step of ``head_dim``
    numbers, as many incrementers, or adders of the key's number or its negative; ``head_dim`` adders and
    registers of a sum.

    Parameters
    ----------
    sizes : HeadSizes
    engine : int
    state : Shape
        Of a number of a row.
    y_shape : Shape
        Of a sum.

    Members
    -------
    use : ``In(StateUse)``
    sums : ``Out(ArrayLayout(y_shape, head_dim))``
    """

    def __init__(self, sizes: HeadSizes, engine: int, state: Shape, y_shape: Shape):
        self._sizes, self._engine = sizes, engine
        self._count = state
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
        fields = ("row", "mask", "update", "add", "first", "zero", *(["amount"] * hasattr(use, "amount")))
        layout = data.StructLayout({name: getattr(use, name).shape() for name in fields})
        fetched, ready = Signal(layout), Signal(layout)  # a row leaves the memory; it is in its register
        before = Signal(row)
        m.d.comb += [read.addr.eq(use.row), read.en.eq((use.update | use.add) & ~use.zero)]
        m.d.sync += [fetched[name].eq(getattr(use, name)) for name in fields]
        m.d.sync += [ready.eq(fetched), before.eq(read.data)]
        with m.If(fetched.zero):
            m.d.sync += before.eq(0)
        m.d.comb += [write.addr.eq(ready.row), write.en.eq(ready.update)]
        after = data.View(row, write.data)
        changes = self._changes(m, fetched, ready)
        for channel in range(sizes.head_dim):
            # A token is counted once: the proven interval covers all of them.
            m.d.comb += after[channel].eq(exact(before[channel] + changes[channel], self._count))
            with m.If(ready.add):
                # The proven interval of Y covers partial sums.
                total = Mux(ready.first, 0, self.sums[channel]) + before[channel]
                m.d.sync += self.sums[channel].eq(exact(total, self._y_shape))
        return m

    def _changes(self, m: Module, fetched: data.View, ready: data.View) -> list[Value]:
        """What an update adds to every channel of the row that is ready."""
        sizes = self._sizes
        key, value = sizes.operands[K], sizes.operands[V]
        if key == BINARY and value == BINARY:
            return list(ready.mask)
        amount = Const(1) if key == BINARY else ready.amount
        less = Signal(signed(key.bits + 1))  # one negative number for all channels
        m.d.sync += less.eq(-(Const(1) if key == BINARY else fetched.amount))
        changes = []
        for channel in range(sizes.head_dim):
            number = ready.mask.word_select(channel, value.bits)  # -1, 0 or 1
            up = Mux(number[-1], less, amount) if value.signed else amount
            changes.append(Mux(number[0], up, 0))
        return changes
