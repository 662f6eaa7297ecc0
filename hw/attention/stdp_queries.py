"""The queries of a head: which counts occur, and the order in which the rows leave."""

from __future__ import annotations

from amaranth import Array, Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.reader import PassReader
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.stdp_records import QUERIES, REUSE, CountList, RowRequest
from s2tdpt.hw.plan.program import Program

__all__ = ["CountLister", "QueryReader"]


class QueryReader(PassReader):
    """Reads the query counts of a head twice: a token a cycle to see them, then for a row in every step.

    Latency: the first count of a pass is there 3 cycles after `scan` or `emit`; `scanned` comes
    ``tokens + 3`` cycles after `scan`, and `emitted` ``tokens * max(T, parts)`` after `emit`.
    Throughput: a token a cycle, then a token in ``max(T, parts)`` cycles (the output of a token has `parts`
    pieces). Resources: two registers of ``T`` counts, counters of tokens and addresses.

    Parameters
    ----------
    program : Program

    Members
    -------
    base : ``In``
        Address of the head's token 0.
    scan, emit : ``In(1)``
        Pulse: begin the first, the second pass.
    queries : ``Out(StorePort)``, `QUERIES`
    count : ``Out``, array of ``T``
        Counts of a token in the first pass, valid with `count_en`.
    count_en : ``Out(1)``
    scanned : ``Out(1)``
        Pulse: the last count has been given out one cycle ago.
    rows : ``Out(RowRequest)``
    emitted : ``Out(1)``
        Pulse: the head's last token has had its time.
    """

    def __init__(self, program: Program):
        sizes = HeadSizes(program)
        super().__init__(
            program,
            "queries",
            QUERIES,
            count=Out(sizes.count).array(sizes.steps),
            count_en=Out(1),
            scanned=Out(1),
            rows=Out(RowRequest(sizes)),
        )

    def elaborate(self, platform):
        m = Module()
        read, last_read, emitting = self._walk(m)
        last_count = Signal()
        m.d.sync += [
            self.count_en.eq(read & ~emitting),
            last_count.eq(read & ~emitting & last_read),
            self.scanned.eq(last_count),
        ]
        self._emit_rows(m, read, emitting)
        return m

    def _emit_rows(self, m: Module, read: Signal, emitting: Signal) -> None:
        """The counts move down by a step every cycle; the lowest one names a row."""
        sizes, rows = self._sizes, self.rows
        width = sizes.count.width
        busy, step = Signal(), Signal(sizes.step)
        for t, count in enumerate(self.count):
            following = self.count[t + 1] if t + 1 < sizes.steps else count
            m.d.sync += count.eq(following)
            with m.If(read):
                m.d.sync += count.eq(self.queries.counts.word_select(t, width))
        m.d.sync += step.eq((step + 1)[: len(step)])
        with m.If(read):
            m.d.sync += [busy.eq(emitting), step.eq(0)]
        with m.Elif(step == sizes.steps - 1):
            m.d.sync += busy.eq(0)
        m.d.comb += [
            rows.step.eq(Array(t // sizes.engines for t in range(sizes.steps))[step]),
            rows.count.eq(self.count[0]),
        ]
        for engine in range(sizes.engines):
            serves = Array(int(t % sizes.engines == engine) for t in range(sizes.steps))[step]
            m.d.comb += rows.en[engine].eq(busy & serves)


class CountLister(wiring.Component):
    """The different query counts of one step, in the order in which they first occur.

    Latency: a count is listed 2 cycles after `en`; reading is combinational. Throughput: a count a
    cycle. Resources: ``head_dim + 1`` flip-flops and a LUT memory of ``min(tokens, head_dim + 1)`` counts.

    Parameters
    ----------
    sizes : HeadSizes

    Members
    -------
    clear : ``In(1)``
        Pulse: empty the list.
    en : ``In(1)``, new : ``In``
        A count, listed unless it is already.
    list : ``In(CountList)``
        `top` speaks of a list that is not empty.
    """

    def __init__(self, sizes: HeadSizes):
        self._sizes = sizes
        super().__init__({"clear": In(1), "en": In(1), "new": In(sizes.count), "list": In(CountList(sizes))})

    def elaborate(self, platform):
        m = Module()
        sizes = self._sizes
        m.submodules.counts = counts = memory.Memory(
            shape=unsigned(sizes.count.width), depth=max(2, sizes.entries), init=[]
        )
        read, write = counts.read_port(domain="comb"), counts.write_port()
        seen = Signal(sizes.head_dim + 1)
        end = Signal(self.list.top.shape())  # one above `top`, modulo its range
        fresh, count = Signal(), Signal(sizes.count)
        m.d.sync += [fresh.eq(self.en & ~seen.bit_select(self.new, 1)), count.eq(self.new)]
        m.d.comb += [
            read.addr.eq(self.list.index),
            self.list.count.eq(read.data),
            write.addr.eq(end),
            write.data.eq(count),
            write.en.eq(fresh),
        ]
        with m.If(self.en):
            m.d.sync += seen.bit_select(self.new, 1).eq(1)
        with m.If(fresh):
            m.d.sync += [
                self.list.top.eq(end),
                self.list.single.eq(end == 0),
                self.list.few.eq(end < REUSE - 1),
                end.eq((end + 1)[: len(end)]),
            ]
        with m.If(self.clear):
            m.d.sync += [seen.eq(0), end.eq(0)]
        return m
