"""Which head an attention unit works on."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.fixed import exact
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes, bits_for

__all__ = ["HeadSequencer"]


class HeadSequencer(wiring.Component):
    """Takes the heads of a block through a unit, one after the other, as they become complete.

    Latency: a head begins `timeline.READY_DELAY` cycles after the `ready` that completes it, if the one
    before has ended. Resources: counters of heads and an adder of addresses.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    more : wiring.Member
        Members that a derived class has besides.

    Members
    -------
    ready : ``In(1)``, heads : ``In``, base : ``In``
        As in `ProjectionPort`.
    scan : ``Out(1)``
        Pulse: a head begins.
    word : ``Out``
        Address of its token 0 in the head store.
    emitted : ``In(1)``
        Pulse: it ends, the next one can begin in the next cycle.
    destination : ``Out(spike_address)``
        Where the block's output goes.
    """

    def __init__(self, program: Program, sizes: Sizes, **more: wiring.Member):
        self._sizes = HeadSizes(program)
        super().__init__(
            {
                "ready": In(1),
                "heads": In(bits_for(program.network.heads)),
                "base": In(sizes.spike_address),
                "scan": Out(1),
                "word": Out(self._sizes.word),
                **more,
                "emitted": In(1),
                "destination": Out(sizes.spike_address),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes = self._sizes
        head, heads, announced = Signal(sizes.head), Signal(self.heads.shape()), Signal(self.heads.shape())
        arrives, busy = Signal(), Signal()
        m.d.comb += self.scan.eq(~busy & (head < heads))
        # The last piece can be read 3 cycles after the pulse, 1 after the beginning: when it first is.
        m.d.sync += arrives.eq(self.ready)
        with m.If(self.ready):
            m.d.sync += [announced.eq(self.heads), self.destination.eq(self.base)]
        with m.If(arrives):
            m.d.sync += heads.eq(announced)
        with m.If(self.scan):
            m.d.sync += busy.eq(1)
        with m.If(self.emitted):
            m.d.sync += [
                busy.eq(0),
                head.eq(exact(head + 1, head.shape())),
                # Behind the last head it may wrap, and is then not used.
                self.word.eq((self.word + sizes.tokens)[: len(self.word)]),
            ]
            with m.If(head == sizes.heads - 1):
                m.d.sync += [head.eq(0), heads.eq(0), self.word.eq(0)]
        return m
