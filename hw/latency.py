"""Rate to latency: how early a head fires, from how often its channels do."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth import Array, Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact
from s2tdpt.hw.program import Program
from s2tdpt.hw.records import ProjectionPort, Sizes
from s2tdpt.hw.stdp_records import HeadSizes, HeadWrite

__all__ = ["RateToLatency", "popcount"]

CHUNK = 4
"""Spikes that are counted before the first register."""


def popcount(bits: Iterable[Value]) -> Value:
    """Number of 1 bits: a balanced tree of adders, each as wide as its own sum."""
    return _tree(list(bits))


def _tree(terms: list[Value]) -> Value:
    """Sum of the terms; `sum` would be a chain, and every link of it a bit wider than the last."""
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(terms) & ~1 :]
    return terms[0]


class RateToLatency(wiring.Component):
    """Spike counts of every head, token and time step, from the pieces of q, k and v as they pass by.

    The paper codes a rate ``r / d_h`` as the time ``T_max * (1 - r / d_h)``; in units of ``T_max / d_h``
    that is the integer ``d_h - r``. Only differences of latencies reach the attention, so the count `r`
    itself is kept: exact, no division.

    A piece is counted and added to the parts of its head that came before. The pieces of a token come in
    rising order; those of a head may lie in two output tiles (or more), with other tokens in between, so
    that the sums of unfinished heads wait in a memory.

    Latency: 2 cycles from a piece to its `write`. Throughput: a piece a cycle. Resources: ``T`` counters of
    ``post_lanes`` bits, two registers of a piece, ``T`` adders; with heads that straddle tiles a memory of
    ``3 * tokens`` words of ``T`` counts.

    Parameters
    ----------
    program : Program
    sizes : Sizes

    Members
    -------
    projections : ``In(ProjectionPort(program, sizes))``
        `ready` and what belongs to it is not looked at.
    write : ``Out(HeadWrite(HeadSizes(program)))``

    References
    ----------
    S2TDPT (arXiv 2511.14691), section 3.2, rate to latency coding. Software twin: `golden.latency`.
    """

    def __init__(self, program: Program, sizes: Sizes):
        self._program = program
        self._sizes = HeadSizes(program)
        super().__init__(
            {
                "projections": In(ProjectionPort(program, sizes)),
                "write": Out(HeadWrite(self._sizes)),
            }
        )

    @property
    def straddles(self) -> bool:
        """A head can lie in two tiles."""
        return any(place["resumes"] for place in self._places())

    def _places(self) -> list[dict[str, int]]:
        """What every piece of a token is: its head's first word, its part, and how its count begins."""
        sizes, subgroups = self._sizes, self._program.machine.subgroups
        places = []
        for piece in range(sizes.heads * sizes.parts):
            head, part = divmod(piece, sizes.parts)
            places.append(
                {
                    "base": head * sizes.tokens,
                    "part": part,
                    "opens": int(part == 0),
                    "resumes": int(part > 0 and piece % subgroups == 0),
                    "closes": int(part == sizes.parts - 1),
                }
            )
        return places

    def elaborate(self, platform):
        m = Module()
        sizes, port = self._sizes, self.projections
        layout = data.StructLayout(
            {"base": sizes.word, "part": sizes.part, "opens": 1, "resumes": 1, "closes": 1}
        )
        place, placed = Signal(layout), Signal(layout)
        en, token, projection = Signal(), Signal(sizes.token), Signal(2)
        late_token = Signal(sizes.token)
        spikes = Signal(sizes.part_bits)
        m.d.comb += place.eq(Array(layout.const(fields).as_value() for fields in self._places())[port.piece])
        m.d.sync += [
            Cat(en, self.write.en).eq(Cat(port.en, en)),
            Cat(token, late_token).eq(Cat(port.token, token)),
            Cat(projection, self.write.projection).eq(Cat(port.projection, projection)),
            Cat(spikes, self.write.spikes).eq(Cat(port.spikes, spikes)),
            placed.eq(place),
            # Words of all heads and tokens lie in the store.
            self.write.address.eq(exact(placed.base + token, sizes.word)),
            self.write.part.eq(placed.part),
            self.write.closes.eq(placed.closes),
        ]
        resumed = self._unfinished(m, late_token) if self.straddles else None
        opens, resumes = Signal(), Signal()
        m.d.sync += [opens.eq(placed.opens), resumes.eq(placed.resumes)]
        self._count(m, opens, resumes, resumed)
        return m

    def _unfinished(self, m: Module, token: Signal) -> Signal:
        """The sums of the last piece of every token, and what they were for this token: read at once, since
        the same token and projection come back only after those of the other projections."""
        sizes, port, write = self._sizes, self.projections, self.write
        m.submodules.unfinished = unfinished = memory.Memory(
            shape=unsigned(sizes.counts_bits), depth=3 << sizes.token.width, init=[]
        )
        reads, writes = unfinished.read_port(), unfinished.write_port()
        resumed = Signal(sizes.counts_bits)
        m.d.comb += [
            reads.addr.eq(Cat(port.token, port.projection)),
            # Read and written in one cycle is a word that does not resume: its value is of no interest.
            reads.en.eq(port.en & ~(writes.en & (reads.addr == writes.addr))),
            writes.addr.eq(Cat(token, write.projection)),
            writes.data.eq(write.counts),
            writes.en.eq(write.en),
        ]
        m.d.sync += resumed.eq(reads.data)
        return resumed

    def _count(self, m: Module, opens: Signal, resumes: Signal, resumed: Signal | None) -> None:
        sizes, steps = self._sizes, self._sizes.steps
        width = sizes.count.width
        for t in range(steps):
            lanes = self.projections.spikes[t::steps]
            chunks = []
            for start in range(0, len(lanes), CHUNK):
                bits = lanes[start : start + CHUNK]
                chunk = Signal(range(len(bits) + 1), name=f"chunk{t}_{start}")
                m.d.sync += chunk.eq(exact(popcount(bits), chunk.shape()))
                chunks.append(chunk)
            piece = Signal(range(len(lanes) + 1), name=f"piece{t}")
            m.d.sync += piece.eq(exact(_tree(chunks), piece.shape()))

            running = Signal(sizes.count, name=f"running{t}")
            before = running
            if resumed is not None:
                before = Mux(resumes, resumed.word_select(t, width), running)
            total = self.write.counts.word_select(t, width)
            # Slots without a channel never spike, so a head's count is at most head_dim.
            m.d.comb += total.eq(exact(Mux(opens, 0, before) + piece, sizes.count))
            with m.If(self.write.en):
                m.d.sync += running.eq(total)
