"""Where the pieces of q, k and v of a block go in the head store."""

from __future__ import annotations

from amaranth import Array, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import HeadSizes, HeadWrite
from s2tdpt.hw.fixed import exact
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import ProjectionPort, Sizes

__all__ = ["HeadPieces"]


class HeadPieces(wiring.Component):
    """Gives every piece of q, k and v its place in the head store.

    Latency: 3 cycles from a piece to its `write`. Throughput: a piece a cycle. Resources: three registers of
    a piece, a table of the pieces of a token, an adder of addresses.

    Parameters
    ----------
    program : Program
    sizes : Sizes

    Members
    -------
    projections : ``In(ProjectionPort(program, sizes))``
        `ready` and what belongs to it is not looked at.
    write : ``Out(HeadWrite(HeadSizes(program), counts))``
    """

    counts = False

    def __init__(self, program: Program, sizes: Sizes):
        self._program = program
        self._sizes = HeadSizes(program)
        super().__init__(
            {
                "projections": In(ProjectionPort(program, sizes)),
                "write": Out(HeadWrite(self._sizes, self.counts)),
            }
        )

    def _place(self, head: int, part: int) -> dict[str, int]:
        """What a piece of a token is."""
        return {"base": head * self._sizes.tokens, "part": part}

    def _place_layout(self) -> dict[str, object]:
        return {"base": self._sizes.word, "part": self._sizes.part}

    def elaborate(self, platform):
        m = Module()
        sizes, port, write = self._sizes, self.projections, self.write
        places = [self._place(*divmod(piece, sizes.parts)) for piece in range(sizes.heads * sizes.parts)]
        place = data.StructLayout(self._place_layout())
        flow = data.StructLayout(
            {"en": 1, "projection": 2, "token": sizes.token, "spikes": len(write.spikes), "place": place}
        )
        first, second = Signal(flow), Signal(flow)
        address = Signal(sizes.word)
        m.d.sync += [
            first.en.eq(port.en),
            first.projection.eq(port.projection),
            first.token.eq(port.token),
            first.spikes.eq(port.spikes),
            first.place.eq(Array(place.const(fields).as_value() for fields in places)[port.piece]),
            second.eq(first),
            # Words of all heads and tokens lie in the store.
            address.eq(exact(first.place.base + first.token, sizes.word)),
            write.en.eq(second.en),
            write.projection.eq(second.projection),
            write.address.eq(address),
            write.part.eq(second.place.part),
            write.spikes.eq(second.spikes),
        ]
        self._count(m, second)
        return m

    def _count(self, m: Module, piece: data.View) -> None:
        """For who counts spikes on the way: `piece` is written in the next cycle."""
