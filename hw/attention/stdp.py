"""STDP self-attention on spike counts, streamed: no N x N matrix exists at any time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import numpy as np
from amaranth import Cat, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.attention.stdp import LUT, table_interval
from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.accesses import HeadAccesses, row_memory
from s2tdpt.hw.attention.neurons import y_shape_of
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.sequencer import HeadSequencer
from s2tdpt.hw.attention.stdp_cycles import head_cycles, output_delay, token_schedule
from s2tdpt.hw.attention.stdp_kernel import StdpKernel, checked_lut
from s2tdpt.hw.attention.stdp_queries import CountLister, QueryReader
from s2tdpt.hw.attention.stdp_records import QUERIES, TOKENS, row_depth
from s2tdpt.hw.attention.stdp_rows import RowIssue, RowUpdate
from s2tdpt.hw.attention.stdp_tokens import TokenReader
from s2tdpt.hw.attention.store import HeadStore
from s2tdpt.hw.attention.timeline import emission_period, head_parts
from s2tdpt.hw.attention.unit import AttentionHardware, AttentionUnit
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes

if TYPE_CHECKING:
    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.params import Params
    from s2tdpt.hw.plan.widths import Widths

__all__ = ["StdpAttention", "StdpHardware", "StdpKernel"]

PORTS = {"queries": QUERIES, "tokens": TOKENS}


class RowSequencer(HeadSequencer):
    """With the pass between the reading of the queries and that of the rows.

    Members
    -------
    scanned, updated : ``In(1)``
        Pulses: the first pass ends, the second.
    updates : ``Out(1)``
        Second pass.
    """

    def __init__(self, program: Program, sizes: Sizes):
        super().__init__(program, sizes, scanned=In(1), updated=In(1), updates=Out(1))

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.scanned):
            m.d.sync += self.updates.eq(1)
        with m.If(self.updated):
            m.d.sync += self.updates.eq(0)
        return m


class StdpAttention(AttentionUnit):
    """Streaming STDP attention of all heads of a block: ``attn = LIF(A(Q, K) V)``, exactly.

    Row ``i`` of ``A V`` depends on token ``i`` only through its spike counts ``r_Q(i)``. So the unit keeps
    one row of ``head_dim`` sums for every count and time step, and makes three passes for a head:

    1. read the queries; list which counts occur in each step;
    2. read key and value of each token ``j``; for every step in which the value has a spike and every
       count ``q`` that occurs, ``row[t][q][c] += lut[r_K(j) - q]`` where ``V_j[c]`` is 1;
    3. read the query of each token ``i``; the row of its count is its ``Y``; LIF over the steps; write.

    Additions only. The state does not grow with the number of tokens but for the ``log2`` of the widths.
    A head begins as soon as its q, k and v are complete, while those of later heads arrive.

    Latency and throughput: `stdp_cycles.head_cycles`, exact: about ``tokens`` cycles for the first pass,
    a row update a cycle in each of ``attention_steps`` engines for the second, ``max(T, parts)`` cycles a
    token for the third. Resources: a `HeadStore`; in each engine rows of ``head_dim`` sums for every count
    and step and ``head_dim`` adders of a sum's width; a `LifCell` of ``head_dim`` lanes.

    Parameters
    ----------
    program, sizes, threshold, y
        As in `AttentionUnit`.
    lut : iterable of int
        ``2 * head_dim + 1`` attention weights (`golden.attention.stdp`).

    References
    ----------
    S2TDPT (arXiv 2511.14691), spiking STDP self-attention. Software twin: `golden.attention.stdp`.
    """

    ports = PORTS

    def __init__(self, program: Program, sizes: Sizes, *, lut: Iterable[int], threshold: int, y: Interval):
        self._lut = checked_lut(lut, program.network.head_dim)
        super().__init__(program, sizes, threshold=threshold, y=y, period=self._period(program))
        self._sum_shape = self._y_shape

    def _period(self, program: Program) -> int | None:
        return emission_period(program)

    def _sequencer(self) -> RowSequencer:
        return RowSequencer(self._program, self._port_sizes)

    def _passes(self, m: Module, store: HeadStore, sequencer: RowSequencer) -> tuple[Value, Value]:
        program = self._program
        m.submodules.queries = queries = QueryReader(program)
        m.submodules.tokens = tokens = TokenReader(program)
        wiring.connect(m, store.queries, queries.queries)
        wiring.connect(m, store.tokens, tokens.tokens)
        return self._rows(m, sequencer, queries, tokens)

    def _rows(
        self, m: Module, sequencer: RowSequencer, queries: QueryReader, tokens: TokenReader
    ) -> tuple[Value, Value]:
        """The three passes: whether there is a row, and its sums."""
        m.d.comb += [
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
        # At most one of the sums is not 0.
        sums = reduce(or_, (rows.sums for rows in engines))
        return Cat(rows.sums_en for rows in engines).any(), sums

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
            m.submodules[f"rows{engine}"] = rows = RowUpdate(sizes, engine, self._lut, self._sum_shape)
            wiring.connect(m, issue.use, rows.use)
            for place, t in enumerate(sizes.steps_of(engine)):
                wiring.connect(m, issue.lists[place], listers[t].list)
            engines.append(rows)
            issues.append(issue)
        wiring.connect(m, tokens.token, *(issue.token for issue in issues))
        wiring.connect(m, queries.rows, *(issue.request for issue in issues))
        m.d.comb += tokens.done.eq(Cat(issue.done for issue in issues).all())
        return engines


class StdpHardware(AttentionHardware):
    """`StdpAttention` as the machine sees it."""

    ports = PORTS

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> StdpAttention:
        return StdpAttention(
            program,
            sizes,
            lut=params.attention(0)[LUT].tolist(),
            threshold=params.attention_threshold,
            y=bounds.attention,
        )

    def head_cycles(self, program: Program, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> int:
        return head_cycles(q, k, v, program)

    def output_delay(self, program: Program) -> int:
        return output_delay(program.network.timesteps, head_parts(program))

    def sums(self, program: Program, bounds: Bounds) -> Interval:
        """Interval of the rows' sums."""
        return bounds.attention

    def period(self, program: Program) -> int:
        return emission_period(program)

    def head_accesses(
        self, program: Program, widths: Widths, q: np.ndarray, k: np.ndarray, v: np.ndarray
    ) -> HeadAccesses:
        sizes, tokens = HeadSizes(program), program.network.tokens
        found, schedule = HeadAccesses(), token_schedule(q, v, sizes.engines)
        found.read_fields(QUERIES, 2 * tokens)
        found.read_fields(TOKENS, tokens)
        updates = int(schedule.updates.sum())
        found.writes["lists of counts"] += int(schedule.occurring.sum())
        found.reads["lists of counts"] += updates
        for engine in range(sizes.engines):
            name, used = row_memory(sizes.engines, engine), schedule.updates[:, engine]
            # A row of zeros is read behind every row that none follows at once.
            onwards = (used[:-1] == schedule.period[:-1]) & (used[1:] > 0)
            breaks = int((used > 0).sum() - (onwards & (used[:-1] > 0)).sum())
            found.reads[name] += int(used.sum()) + breaks + self.emission_reads(sizes, engine)
            found.writes[name] += int(used.sum())
        sums = v.sum(-1, dtype=np.int64).T  # [N, T]
        found.additions[sizes.count.width] += int(np.count_nonzero(q) + np.count_nonzero(k))
        found.additions[sizes.count.width + 1] += updates
        bits = y_shape_of(self.lut_sums(program)).width
        found.additions[bits] += int((sums @ schedule.occurring).sum())
        return found

    def lut_sums(self, program: Program) -> Interval:
        """Interval of the rows' sums, from the table that the options give."""
        return table_interval(program.network.attention.kernel(program.network), program.network.tokens)

    def emission_reads(self, sizes: HeadSizes, engine: int) -> int:
        """Reads of an engine's rows in the third pass, with those behind them that clear its sums."""
        period = max(sizes.steps, sizes.parts)
        emits = np.zeros((sizes.tokens, period), bool)
        emits[:, engine : sizes.steps : sizes.engines] = True
        emits = np.append(emits.reshape(-1), False)
        return int(emits.sum() + (emits[:-1] & ~emits[1:]).sum())

    def own_memories(self, program: Program, bounds: Bounds) -> list[Memory]:
        """Row engines, lists of counts."""
        sizes, found = HeadSizes(program), []
        for engine in range(sizes.engines):
            rows = row_depth(sizes, engine)
            name = row_memory(sizes.engines, engine)
            bits = sizes.head_dim * y_shape_of(self.sums(program, bounds)).width
            found.append(Memory(name, rows, bits, style="block", helps=("attention_steps", "heads")))
        lists = Memory("lists of counts", sizes.entries, sizes.count.width, sizes.steps, "distributed")
        return [*found, lists]
