"""STDP self-attention on spike counts, streamed: no N x N matrix exists at any time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_

from amaranth import Cat, Module, Shape, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.fixed import exact
from s2tdpt.hw.latency import RateToLatency
from s2tdpt.hw.program import Program
from s2tdpt.hw.records import ProjectionPort, Sizes, SpikeWrite, bits_for
from s2tdpt.hw.stdp_kernel import StdpKernel, checked_lut
from s2tdpt.hw.stdp_neurons import HeadWriter, RowNeurons, y_shape_of
from s2tdpt.hw.stdp_queries import CountLister, QueryReader
from s2tdpt.hw.stdp_records import HeadSizes
from s2tdpt.hw.stdp_rows import RowIssue, RowUpdate
from s2tdpt.hw.stdp_store import HeadStore
from s2tdpt.hw.stdp_tokens import TokenReader

__all__ = ["StdpAttention", "StdpKernel"]


class HeadSequencer(wiring.Component):
    """Takes the heads of a block through their passes, one after the other, as they become complete.

    Latency: a head begins 2 cycles after the `ready` that completes it, if the one before has ended.
    Resources: counters of heads and an adder of addresses.

    Parameters
    ----------
    program : Program
    sizes : Sizes

    Members
    -------
    ready : ``In(1)``, heads : ``In``, base : ``In``
        As in `ProjectionPort`.
    scan : ``Out(1)``
        Pulse: a head begins.
    word : ``Out``
        Address of its token 0 in the head store.
    scanned, updated, emitted : ``In(1)``
        Pulses: the ends of its three passes.
    updates : ``Out(1)``
        Second pass.
    destination : ``Out(spike_address)``
        Where the block's output goes.
    """

    def __init__(self, program: Program, sizes: Sizes):
        self._sizes = HeadSizes(program)
        super().__init__(
            {
                "ready": In(1),
                "heads": In(bits_for(program.network.heads)),
                "base": In(sizes.spike_address),
                "scan": Out(1),
                "word": Out(self._sizes.word),
                "scanned": In(1),
                "updated": In(1),
                "emitted": In(1),
                "updates": Out(1),
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
        with m.If(self.scanned):
            m.d.sync += self.updates.eq(1)
        with m.If(self.updated):
            m.d.sync += self.updates.eq(0)
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


class StdpAttention(wiring.Component):
    """Streaming STDP attention of all heads of a block: ``attn = LIF(A(Q, K) V)``, exactly.

    Row ``i`` of ``A V`` depends on token ``i`` only through its spike counts ``r_Q(i)``. So the unit keeps
    one row of ``head_dim`` sums for every count and time step, and makes three passes for a head:

    1. read the queries; list which counts occur in each step;
    2. read key and value of each token ``j``; for every step in which the value has a spike and every
       count ``q`` that occurs, ``row[t][q][c] += lut[r_K(j) - q]`` where ``V_j[c]`` is 1;
    3. read the query of each token ``i``; the row of its count is its ``Y``; LIF over the steps; write.

    Additions only. The state does not grow with the number of tokens but for the ``log2`` of the widths.
    A head begins as soon as its q, k and v are complete, while those of later heads arrive.

    Latency and throughput: `hw.stdp_cycles.head_cycles`, exact: about ``tokens`` cycles for the first pass,
    a row update a cycle in each of ``attention_steps`` engines for the second, ``max(T, parts)`` cycles a
    token for the third. Resources: a `HeadStore`; in each engine rows of ``head_dim`` sums for every count
    and step and ``head_dim`` adders of a sum's width; a `LifCell` of ``head_dim`` lanes.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    lut : iterable of int
        ``2 * head_dim + 1`` attention weights (`golden.attention.stdp`).
    threshold : int
        Firing threshold of the attention LIF, in the units of the weights.
    y : Interval
        Proven ends of ``Y`` and its partial sums (`golden.bounds`).

    Members
    -------
    projections : ``In(ProjectionPort(program, sizes))``
    write : ``Out(SpikeWrite(program, sizes))``
        The output in the head packing; slots without a channel get zeros.
    clear : ``In(1)``
        Pulse at the start of a frame, while nothing runs: `blocks` returns to 0.
    blocks : ``Out``
        Blocks of the frame whose output may be read. It counts `overlap.attention_lead` tokens before the
        last `write`.
    y_en : ``Out(1)``
        Observation: a row goes to the neurons.
    y_head, y_token, y_step : ``Out``
        Whose row it is.
    y_data : ``Out(ArrayLayout(y_shape, head_dim))``
        Its sums.

    References
    ----------
    S2TDPT (arXiv 2511.14691), spiking STDP self-attention. Software twin: `golden.attention.stdp`.
    """

    def __init__(self, program: Program, sizes: Sizes, *, lut: Iterable[int], threshold: int, y: Interval):
        self._program, self._port_sizes = program, sizes
        self._sizes = heads = HeadSizes(program)
        self._lut = checked_lut(lut, heads.head_dim)
        self._y_shape = y_shape_of(y)
        self._neurons = RowNeurons(program, threshold, y)
        super().__init__(
            {
                "projections": In(ProjectionPort(program, sizes)),
                "write": Out(SpikeWrite(program, sizes)),
                "clear": In(1),
                "blocks": Out(bits_for(program.network.depth)),
                "y_en": Out(1),
                "y_head": Out(heads.head),
                "y_token": Out(heads.token),
                "y_step": Out(heads.step),
                "y_data": Out(data.ArrayLayout(self._y_shape, heads.head_dim)),
            }
        )

    @property
    def y_shape(self) -> Shape:
        """Shape of one sum."""
        return self._y_shape

    def elaborate(self, platform):
        m = Module()
        program = self._program
        m.submodules.counter = counter = RateToLatency(program, self._port_sizes)
        m.submodules.store = store = HeadStore(program)
        m.submodules.sequencer = sequencer = HeadSequencer(program, self._port_sizes)
        m.submodules.queries = queries = QueryReader(program)
        m.submodules.tokens = tokens = TokenReader(program)
        wiring.connect(m, counter.write, store.write)
        wiring.connect(m, wiring.flipped(self.projections), counter.projections)
        wiring.connect(m, store.queries, queries.queries)
        wiring.connect(m, store.tokens, tokens.tokens)
        m.d.comb += [
            sequencer.ready.eq(self.projections.ready),
            sequencer.heads.eq(self.projections.heads),
            sequencer.base.eq(self.projections.base),
            queries.base.eq(sequencer.word),
            queries.scan.eq(sequencer.scan),
            queries.emit.eq(tokens.finished),
            tokens.base.eq(sequencer.word),
            tokens.start.eq(sequencer.scan),
            tokens.enable.eq(sequencer.updates),
            sequencer.scanned.eq(queries.scanned),
            sequencer.updated.eq(tokens.finished),
            sequencer.emitted.eq(queries.emitted),
        ]
        listers = self._list_counts(m, sequencer, queries)
        engines = self._update_rows(m, queries, tokens, listers)
        self._fire(m, engines, sequencer)
        return m

    def _list_counts(self, m: Module, sequencer: HeadSequencer, queries: QueryReader) -> list[CountLister]:
        """First pass: a list of counts for every step."""
        listers = [CountLister(self._sizes) for _ in range(self._sizes.steps)]
        for t, lister in enumerate(listers):
            m.submodules[f"list{t}"] = lister
            m.d.comb += [
                lister.clear.eq(sequencer.scan),
                lister.en.eq(queries.count_en),
                lister.new.eq(queries.count[t]),
            ]
        return listers

    def _update_rows(
        self, m: Module, queries: QueryReader, tokens: TokenReader, listers: list[CountLister]
    ) -> list[RowUpdate]:
        """Second and third pass: the row engines, all on the same token."""
        sizes = self._sizes
        engines, issues = [], []
        for engine in range(sizes.engines):
            m.submodules[f"issue{engine}"] = issue = RowIssue(sizes, engine)
            m.submodules[f"rows{engine}"] = rows = RowUpdate(sizes, engine, self._lut, self._y_shape)
            wiring.connect(m, issue.use, rows.use)
            for place, t in enumerate(sizes.steps_of(engine)):
                wiring.connect(m, issue.lists[place], listers[t].list)
            engines.append(rows)
            issues.append(issue)
        wiring.connect(m, tokens.token, *(issue.token for issue in issues))
        wiring.connect(m, queries.rows, *(issue.request for issue in issues))
        m.d.comb += tokens.done.eq(Cat(issue.done for issue in issues).all())
        return engines

    def _fire(self, m: Module, engines: list[RowUpdate], sequencer: HeadSequencer) -> None:
        """The rows' way through the neurons into the spike memory."""
        m.submodules.neurons = neurons = self._neurons
        m.submodules.writer = writer = HeadWriter(self._program, self._port_sizes)
        wiring.connect(m, neurons.word, writer.word)
        wiring.connect(m, writer.write, wiring.flipped(self.write))
        en, sums = Signal(), Signal(len(engines[0].sums))
        m.d.sync += [
            en.eq(Cat(rows.sums_en for rows in engines).any()),
            # At most one of them is not 0.
            sums.eq(reduce(or_, (rows.sums for rows in engines))),
        ]
        m.d.comb += [
            neurons.en.eq(en),
            neurons.sums.eq(sums),
            writer.base.eq(sequencer.destination),
            writer.clear.eq(self.clear),
            self.blocks.eq(writer.blocks),
            self.y_en.eq(en),
            self.y_head.eq(neurons.head),
            self.y_token.eq(neurons.token),
            self.y_step.eq(neurons.step),
            self.y_data.eq(sums),
        ]
