"""Running totals in a small memory, of which any may grow in every cycle."""

from __future__ import annotations

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import index_shape

__all__ = ["RunningTotals"]

ROW_DEPTH = 16
"""Words of a distributed RAM, a power of two."""


class RunningTotals(wiring.Component):
    """Hands out a total and takes it back grown in the cycle after, the same one in every cycle if need be.

    The memory is read a cycle ahead, so that only a multiplexer and the user's adder lie between registers. A
    total that is asked for while it grows comes from the register of the last one instead.

    Latency: a cycle from `index` to `before`. Throughput: a total a cycle.
    Resources: depth x width bits of distributed RAM; 2 x width flip-flops; a LUT a bit. Depth 1: width
    flip-flops and nothing else.

    Parameters
    ----------
    width, depth : int
        Bits of a total (of several numbers side by side), how many there are.

    Members
    -------
    en : ``In(1)``
        In the next cycle `after` is the new value of this total.
    index : ``In``, index of depth
    restart : ``In(1)``
        Hand out zero.
    before : ``Out(width)``
        The total, in the next cycle.
    after : ``In(width)``
        Its new value, in the same cycle.
    """

    def __init__(self, *, width: int, depth: int):
        for name, value in (("width", width), ("depth", depth)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"totals {name} must be a positive integer, not {value!r}")
        self._width, self._depth = width, depth
        super().__init__(
            {
                "en": In(1),
                "index": In(index_shape(depth)),
                "restart": In(1),
                "before": Out(width),
                "after": In(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        growing = Signal()
        newest = Signal(self._width, reset_less=True)
        m.d.sync += growing.eq(self.en)
        if self._depth == 1:
            restart = Signal()
            m.d.sync += restart.eq(self.restart)
            with m.If(growing):
                m.d.sync += newest.eq(self.after)
            m.d.comb += self.before.eq(Mux(restart, 0, newest))
            return m

        index, forward = Signal.like(self.index), Signal()
        held = Signal(self._width, reset_less=True)
        m.d.sync += [
            index.eq(self.index),
            held.eq(Mux(self.restart, 0, self._stored(m, growing, index))),
            newest.eq(self.after),
            forward.eq(growing & (index == self.index) & ~self.restart),
        ]
        m.d.comb += self.before.eq(Mux(forward, newest, held))
        return m

    def _stored(self, m, write_en, write_index):
        """The total at `index` in the memory; stores `after`."""
        # Rows of distributed RAM. Yosys would take a block RAM for many totals, whose output comes so late
        # that the adder behind it sets the clock.
        words = []
        for row, base in enumerate(range(0, self._depth, ROW_DEPTH)):
            depth = min(ROW_DEPTH, self._depth - base)
            memory = m.submodules[f"row_{row}"] = Memory(shape=self._width, depth=max(2, depth), init=[])
            read, write = memory.read_port(domain="comb"), memory.write_port()
            here = write_index[ROW_DEPTH.bit_length() - 1 :] == row
            m.d.comb += [
                read.addr.eq(self.index[: len(read.addr)]),
                write.addr.eq(write_index[: len(write.addr)]),
                write.en.eq(write_en & here),
                write.data.eq(self.after),
            ]
            words.append(read.data)
        return Array(words)[self.index[ROW_DEPTH.bit_length() - 1 :]]
