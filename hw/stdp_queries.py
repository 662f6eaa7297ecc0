"""The queries of a head: which counts occur, and the order in which the rows leave."""

from __future__ import annotations

from amaranth import Array, Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, index_shape
from s2tdpt.hw.program import Program
from s2tdpt.hw.stdp_records import REUSE, CountList, HeadSizes, QueryPort, RowRequest

__all__ = ["CountLister", "QueryReader"]


class QueryReader(wiring.Component):
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
    queries : ``Out(QueryPort)``
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
        self._sizes = sizes = HeadSizes(program)
        super().__init__(
            {
                "base": In(sizes.word),
                "scan": In(1),
                "emit": In(1),
                "queries": Out(QueryPort(sizes)),
                "count": Out(sizes.count).array(sizes.steps),
                "count_en": Out(1),
                "scanned": Out(1),
                "rows": Out(RowRequest(sizes)),
                "emitted": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes = self._sizes
        period = max(sizes.steps, sizes.parts)
        active, emitting = Signal(), Signal()
        token, phase = Signal(sizes.token), Signal(index_shape(period))
        last_token, last_phase = Signal(), Signal()
        m.d.comb += [
            self.queries.en.eq(active & (phase == 0)),
            last_token.eq(token == sizes.tokens - 1),
            last_phase.eq(~emitting | (phase == period - 1)),
            self.emitted.eq(active & emitting & last_token & last_phase),
        ]
        with m.If(self.scan | self.emit):
            m.d.sync += [active.eq(1), emitting.eq(self.emit), token.eq(0), phase.eq(0)]
            m.d.sync += self.queries.address.eq(self.base)
        with m.Elif(active):
            m.d.sync += phase.eq(exact(phase + 1, phase.shape()))
            with m.If(last_phase):
                m.d.sync += [
                    phase.eq(0),
                    # The last increment is that of the last token; it may wrap, and is then not used.
                    token.eq((token + 1)[: len(token)]),
                    self.queries.address.eq((self.queries.address + 1)[: len(self.queries.address)]),
                    active.eq(~last_token),
                ]

        read, last_read = Signal(), Signal()  # a word arrives; it is the last one
        m.d.sync += [read.eq(self.queries.en), last_read.eq(last_token)]
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
