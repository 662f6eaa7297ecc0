"""Running totals in a small memory, of which any may grow in every cycle."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import index_shape

__all__ = ["RunningTotals"]


class RunningTotals(wiring.Component):
    """Hands out a total and takes it back grown in the cycle after, the same one in every cycle if need be.

    The memory is read a cycle ahead, so that only a multiplexer and the user's adder lie between registers. A
    total that is asked for while it grows comes from the register of the last one instead.

    Latency: a cycle from `index` to `before`. Throughput: a total a cycle.
    Resources: depth x width bits of memory, distributed RAM up to some 32 totals and a block RAM above, as
    Yosys finds cheaper; 2 x width flip-flops; a LUT a bit. Depth 1: width flip-flops and nothing else.

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

        m.submodules.totals = totals = Memory(shape=self._width, depth=self._depth, init=[])
        read, write = totals.read_port(domain="comb"), totals.write_port()
        index, forward = Signal.like(self.index), Signal()
        held = Signal(self._width, reset_less=True)
        meets = growing & (index == self.index)
        m.d.sync += [
            index.eq(self.index),
            # What is written meanwhile is not read: so the mapping onto a block RAM, which Yosys prefers for
            # many totals, needs no bypass of its own.
            held.eq(Mux(self.restart | meets, 0, read.data)),
            newest.eq(self.after),
            forward.eq(meets & ~self.restart),
        ]
        m.d.comb += [
            read.addr.eq(self.index),
            write.addr.eq(index),
            write.en.eq(growing),
            write.data.eq(self.after),
            self.before.eq(Mux(forward, newest, held)),
        ]
        return m
