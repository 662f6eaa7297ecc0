"""Rate to latency: how early a head fires, from how often its channels do."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth import Cat, Const, Module, Signal, Value, unsigned
from amaranth.lib import data, memory

from s2tdpt.hw.attention.pieces import HeadPieces
from s2tdpt.hw.attention.records import SEPARATE, HeadSizes
from s2tdpt.hw.fixed import exact
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program

__all__ = ["RateToLatency", "popcount", "straddles", "tree_sum", "unfinished_memories"]

CHUNK = 4
"""Spikes that are counted before the first register."""


def popcount(bits: Iterable[Value]) -> Value:
    """Number of 1 bits: a balanced tree of adders, each as wide as its own sum."""
    return tree_sum(list(bits))


def tree_sum(terms: list[Value]) -> Value:
    """Sum of the terms; `sum` would be a chain, and every link of it a bit wider than the last."""
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(terms) & ~1 :]
    return terms[0]


def _resumes(program: Program, piece: int) -> bool:
    """A piece of a token begins a tile, but not its head."""
    parts = program.head_packing.head_slots // program.machine.post_lanes
    return piece % parts > 0 and piece % program.machine.subgroups == 0


def straddles(program: Program) -> bool:
    """A head can lie in two tiles."""
    pieces = program.network.embed_dim // program.network.head_dim * program.head_packing.head_slots
    return any(_resumes(program, piece) for piece in range(pieces // program.machine.post_lanes))


def unfinished_memories(program: Program) -> list[Memory]:
    """What `RateToLatency` takes."""
    sizes = HeadSizes(program)
    if not straddles(program):
        return []
    return [Memory("unfinished counts", 3 << sizes.token.width, sizes.counts_bits)]


class RateToLatency(HeadPieces):
    """Spike counts of every head, token and time step, from the pieces of q, k and v as they pass by.

    The paper codes a rate ``r / d_h`` as the time ``T_max * (1 - r / d_h)``; in units of ``T_max / d_h``
    that is the integer ``d_h - r``. Only differences of latencies reach the attention, so the count `r`
    itself is kept: exact, no division.

    A piece is counted and added to the parts of its head that came before. The pieces of a token come in
    rising order; those of a head may lie in two output tiles (or more), with other tokens in between, so
    that the sums of unfinished heads wait in a memory.

    Latency: 3 cycles from a piece to its `write`. Throughput: a piece a cycle. Resources: ``T`` counters of
    ``post_lanes`` bits, three registers of a piece, ``T`` adders; with heads that straddle tiles a memory of
    ``3 * tokens`` words of ``T`` counts.

    Parameters
    ----------
    program : Program
    sizes : Sizes

    Members
    -------
    projections : ``In(ProjectionPort(program, sizes))``
        `ready` and what belongs to it is not looked at.
    write : ``Out(HeadWrite(HeadSizes(program), counts=True))``

    References
    ----------
    S2TDPT (arXiv 2511.14691), section 3.2, rate to latency coding. Software twin: `golden.latency`.
    """

    counts = True

    def _place(self, head: int, part: int) -> dict[str, int]:
        """How the count of a piece begins, and whether it is then complete."""
        sizes = self._sizes
        return super()._place(head, part) | {
            "opens": int(part == 0),
            "resumes": int(_resumes(self._program, head * sizes.parts + part)),
            "closes": int(part == sizes.parts - 1),
        }

    def _place_layout(self) -> dict[str, object]:
        return super()._place_layout() | {"opens": 1, "resumes": 1, "closes": 1}

    def _count(self, m: Module, piece: data.View) -> None:
        sizes, write = self._sizes, self.write
        m.d.sync += write.closes.eq(piece.place.closes)
        totals = Signal(sizes.counts_bits)
        with m.If(piece.en):
            m.d.sync += write.counts.eq(totals)
        resumed = (
            self._unfinished(m, piece, totals) if straddles(self._program) else Const(0, sizes.counts_bits)
        )
        self._add(m, piece.place, resumed, totals)

    def _unfinished(self, m: Module, piece: data.View, totals: Signal) -> Signal:
        """The sums of the last piece of every token, and what they were for this token.

        They are read at once: token and projection come back only after those of the other projections, or in
        a piece that does not resume, for which they do not matter.
        """
        sizes, port = self._sizes, self.projections
        m.submodules.unfinished = unfinished = memory.Memory(
            shape=unsigned(sizes.counts_bits), depth=3 << sizes.token.width, init=[], attrs=SEPARATE
        )
        reads, writes = unfinished.read_port(), unfinished.write_port()
        resumed = Signal(sizes.counts_bits)
        m.d.comb += [
            reads.addr.eq(Cat(port.token, port.projection)),
            reads.en.eq(port.en),
            writes.addr.eq(Cat(piece.token, piece.projection)),
            writes.data.eq(totals),
            writes.en.eq(piece.en),
        ]
        m.d.sync += resumed.eq(reads.data)
        return resumed

    def _add(self, m: Module, place: data.View, resumed: Value, totals: Signal) -> None:
        """Sums of the head so far, with this piece."""
        sizes, steps = self._sizes, self._sizes.steps
        for t in range(steps):
            lanes = self.projections.spikes[t::steps]
            chunks = []
            for start in range(0, len(lanes), CHUNK):
                bits = lanes[start : start + CHUNK]
                chunk = Signal(range(len(bits) + 1), name=f"chunk{t}_{start}")
                m.d.sync += chunk.eq(exact(popcount(bits), chunk.shape()))
                chunks.append(chunk)
            piece = Signal(range(len(lanes) + 1), name=f"piece{t}")
            m.d.sync += piece.eq(exact(tree_sum(chunks), piece.shape()))
            before = Signal(sizes.count, name=f"before{t}")
            with m.If(place.resumes):
                m.d.comb += before.eq(resumed.word_select(t, sizes.count.width))
            with m.Elif(~place.opens):
                m.d.comb += before.eq(self.write.counts.word_select(t, sizes.count.width))
            # Slots without a channel never spike, so a head's count is at most head_dim.
            total = totals.word_select(t, sizes.count.width)
            m.d.comb += total.eq(exact(before + piece, sizes.count))
