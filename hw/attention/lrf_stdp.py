"""STDP attention with a local receptive field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from amaranth import Array, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.attention.stdp import LUT, table_interval
from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.accesses import HeadAccesses
from s2tdpt.hw.attention.field_rounds import FieldRounds, least_round
from s2tdpt.hw.attention.local_field import (
    SUMS_DELAY,
    VALUES,
    LocalField,
    add_field,
    field_memories,
    joined,
    share_values,
    taps_of,
    taps_of_tokens,
)
from s2tdpt.hw.attention.neurons import y_shape_of
from s2tdpt.hw.attention.reader import PassReader
from s2tdpt.hw.attention.records import HeadSizes, K, V
from s2tdpt.hw.attention.sequencer import HeadSequencer
from s2tdpt.hw.attention.stdp import StdpAttention, StdpHardware
from s2tdpt.hw.attention.stdp_cycles import SCAN_DELAY, token_schedule
from s2tdpt.hw.attention.stdp_records import QUERIES, RowRequest
from s2tdpt.hw.attention.stdp_tokens import TokenReader
from s2tdpt.hw.attention.store import HeadStore, Hold
from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes

if TYPE_CHECKING:
    from s2tdpt.golden.attention.lrf import LocalField as Options
    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.params import Params
    from s2tdpt.hw.plan.widths import Widths

__all__ = ["LrfStdpAttention", "LrfStdpHardware", "PacedQueries"]

PORTS = {
    "queries": QUERIES,
    "tokens": {"counts": (K, Hold.COUNTS), "active": (V, Hold.STEPS)},
    "values": VALUES,
}


FETCH = 2
"""Cycles in which the query counts of the next token come."""


class PacedQueries(PassReader):
    """Reads the query counts of a head twice: a token a cycle to see them, then for the rows of every round.

    Latency: the first pass as in `stdp_queries.QueryReader`; the rows of a round are asked for in the cycles
    after its `over`. Throughput: a row a cycle. Resources: a register of ``T`` counts, counters.

    Parameters
    ----------
    program : Program

    Members
    -------
    over : ``In(1)``
        A round ends; its steps follow those of the round before. `next`: it is the last one of its token.
    queries, count, count_en, scanned, rows, emitted
        As in `QueryReader`.
    """

    def __init__(self, program: Program):
        sizes = HeadSizes(program)
        super().__init__(
            program,
            "queries",
            QUERIES,
            paced=True,
            over=In(1),
            count=Out(sizes.count).array(sizes.steps),
            count_en=Out(1),
            scanned=Out(1),
            rows=Out(RowRequest(sizes)),
        )

    def elaborate(self, platform):
        m = Module()
        sizes, rows = self._sizes, self.rows
        read, last_read, emitting = self._walk(m)
        last_count = Signal()
        m.d.sync += [
            self.count_en.eq(read & ~emitting),
            last_count.eq(read & ~emitting & last_read),
            self.scanned.eq(last_count),
        ]
        asks, step, last_step, round_ends = Signal(), Signal(sizes.step), Signal(), Signal()
        waits, held, held_last = (
            Signal(),
            Signal(),
            Signal(),
        )  # a word is at the port; counts are in registers
        load = Signal()
        ends = [t % sizes.engines == sizes.engines - 1 or t == sizes.steps - 1 for t in range(sizes.steps)]
        m.d.comb += [
            last_step.eq(asks & (step == sizes.steps - 1)),
            round_ends.eq(Array(int(end) for end in ends)[step]),
            load.eq((waits | (read & emitting)) & (~held | last_step)),
            self.emitted.eq(last_step & held_last),
            rows.step.eq(Array(t // sizes.engines for t in range(sizes.steps))[step]),
            rows.count.eq(self.count[0]),
        ]
        for engine in range(sizes.engines):
            serves = Array(int(t % sizes.engines == engine) for t in range(sizes.steps))[step]
            m.d.comb += rows.en[engine].eq(asks & serves)
        m.d.sync += [
            asks.eq(self.over | (asks & ~round_ends)),
            waits.eq((waits | (read & emitting)) & ~load),
            held.eq(load | (held & ~last_step)),
        ]
        with m.If(asks):
            m.d.sync += step.eq(Mux(last_step, 0, (step + 1)[: len(step)]))
            m.d.sync += [
                here.eq(after) for here, after in zip(self.count, list(self.count)[1:], strict=False)
            ]
        with m.If(load):
            m.d.sync += held_last.eq(last_read)
        with m.If(load | (read & ~emitting)):
            m.d.sync += [
                count.eq(self.queries.counts.word_select(t, sizes.count.width))
                for t, count in enumerate(self.count)
            ]
        return m


class LrfStdpAttention(StdpAttention):
    """``Y = (A(Q, K) V << y_shift) + (field << tap_shift)``: the field beside the third pass.

    The third pass goes in rounds: in each of them every engine adds up the taps of a step of the token, then
    the rows of these steps join the sums.

    Latency and throughput: `LrfStdpHardware.head_cycles`, exact. Resources: those of `StdpAttention` and of
    `LocalField`, ``head_dim`` adders.

    Parameters
    ----------
    program, sizes, lut, threshold, y
        As in `StdpAttention`.
    options : golden.attention.lrf.LocalField
    taps : list of array of int
        Of every block, ``[D, taps]``.
    field : Interval
        Of the field's sums.

    References
    ----------
    Software twin: `golden.attention.lrf_stdp`.
    """

    ports = PORTS

    def __init__(
        self,
        program: Program,
        sizes: Sizes,
        *,
        lut: Iterable[int],
        threshold: int,
        y: Interval,
        options: Options,
        taps: list[np.ndarray],
        field: Interval,
    ):
        super().__init__(program, sizes, lut=lut, threshold=threshold, y=y)
        self._sum_shape = y_shape_of(table_interval(self._lut, program.network.tokens))
        self._options = options
        self._field = LocalField(program, options.lrf, taps, y_shape_of(field))

    def _period(self, program: Program) -> None:
        return None

    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        m.submodules.queries = queries = PacedQueries(self._program)
        m.submodules.tokens = tokens = TokenReader(self._program)
        m.submodules.rounds = rounds = FieldRounds(self._program, FETCH)
        m.submodules.field = field = self._field
        wiring.connect(m, store.queries, queries.queries)
        m.d.comb += [
            *(store.tokens.address.eq(tokens.tokens.address), store.tokens.en.eq(tokens.tokens.en)),
            tokens.tokens.counts.eq(store.tokens.counts),
            tokens.tokens.active.eq(store.tokens.active),
            *(queries.over.eq(rounds.over), queries.next.eq(rounds.token_over)),
            *(rounds.begin.eq(tokens.finished), rounds.single.eq(field.single)),
            *(field.advance.eq(rounds.advance), field.round.eq(rounds.round), field.last.eq(rounds.last)),
            *(field.begin.eq(sequencer.scan), field.base.eq(sequencer.word), field.end.eq(queries.emitted)),
            field.clear.eq(self.clear),
        ]
        share_values(m, store, field, tokens.tokens)
        en, sums = self._rows(m, sequencer, queries, tokens)
        layout = data.ArrayLayout(self._sum_shape, self._sizes.head_dim)
        return en, joined(
            self._options, self.y_data.shape(), data.View(layout, sums), self._in_turn(m, rounds, field)
        )

    def _in_turn(self, m: Module, rounds: FieldRounds, field: LocalField) -> data.View:
        """The field's sums of a round step by step, each beside its row."""
        done = delayed(m, rounds.over, SUMS_DELAY, "done", init=0)
        held = None
        for engine, sums in reversed(list(enumerate(field.sums))):
            here = Signal(sums.shape(), name=f"held{engine}")
            m.d.sync += here.eq(Mux(done, sums.as_value(), 0 if held is None else held.as_value()))
            held = here
        return held


class LrfStdpHardware(StdpHardware):
    """`LrfStdpAttention` as the machine sees it."""

    ports = PORTS

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> LrfStdpAttention:
        return LrfStdpAttention(
            program,
            sizes,
            lut=params.attention(0)[LUT].tolist(),
            threshold=params.attention_threshold,
            y=bounds.attention,
            options=program.network.attention,
            taps=taps_of(params),
            field=bounds.attention_inner["field"],
        )

    def emission_reads(self, sizes: HeadSizes, engine: int) -> int:
        return 2 * sizes.tokens * len(sizes.steps_of(engine))  # no row follows at once

    def sums(self, program: Program, bounds: Bounds) -> Interval:
        options, field = program.network.attention, bounds.attention_inner["field"]
        lo, hi = bounds.attention.lo, bounds.attention.hi
        return Interval(
            (lo - (field.lo << options.tap_shift)) >> options.y_shift,
            (hi - (field.hi << options.tap_shift)) >> options.y_shift,
        )

    def head_cycles(self, program: Program, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> int:
        """The first two passes as in `stdp_cycles.head_cycles`, then a cycle a tap in every round."""
        sizes = HeadSizes(program)
        rounds = -(-sizes.steps // sizes.engines)
        updates = int(token_schedule(q, v, sizes.engines).period.sum())
        taps = np.maximum(taps_of_tokens(program, program.network.attention.lrf), least_round(sizes, FETCH))
        last_steps = sizes.steps - (rounds - 1) * sizes.engines
        return SCAN_DELAY + sizes.tokens + updates + rounds * int(taps.sum()) + last_steps + 1

    def output_delay(self, program: Program) -> int:
        return HeadSizes(program).parts + 5

    def period(self, program: Program) -> None:
        return None

    def head_accesses(
        self, program: Program, widths: Widths, q: np.ndarray, k: np.ndarray, v: np.ndarray
    ) -> HeadAccesses:
        found = super().head_accesses(program, widths, q, k, v)
        add_field(found, program, v)
        found.additions[widths.attention] += program.network.tokens * v.shape[2] * v.shape[0]
        return found

    def own_memories(self, program: Program, bounds: Bounds) -> list[Memory]:
        return super().own_memories(program, bounds) + field_memories(program, program.network.attention.lrf)
