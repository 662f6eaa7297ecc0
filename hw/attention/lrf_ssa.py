"""Spiking self-attention with a local receptive field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from amaranth import Cat, Module, Value
from amaranth.lib import data

from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.accesses import HeadAccesses
from s2tdpt.hw.attention.local_field import (
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
from s2tdpt.hw.attention.records import K, Q
from s2tdpt.hw.attention.sequencer import HeadSequencer
from s2tdpt.hw.attention.ssa import SelfAttention, SsaHardware, collect, round_done
from s2tdpt.hw.attention.state_issue import RoundReader, StateIssue
from s2tdpt.hw.attention.store import HeadStore, Hold
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes

if TYPE_CHECKING:
    from s2tdpt.golden.attention.lrf import LocalField as Options
    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.params import Params
    from s2tdpt.hw.plan.widths import Widths

__all__ = ["LrfSelfAttention", "LrfSsaHardware"]

PORTS = {"tokens": {"query": (Q, Hold.SPIKES), "key": (K, Hold.SPIKES)}, "values": VALUES}


class LrfSelfAttention(SelfAttention):
    """``Y = (Q (K^T V) << y_shift) + (field << tap_shift)``: the field beside the second pass.

    A round of the second pass lasts until rows and taps are added up.

    Latency and throughput: `LrfSsaHardware.head_cycles`, exact. Resources: those of `SelfAttention` and of
    `LocalField`, ``head_dim`` adders.

    Parameters
    ----------
    program, sizes, threshold, y
        As in `AttentionUnit`.
    options : golden.attention.lrf.LocalField
    taps : list of array of int
        Of every block, ``[D, taps]``.
    field : Interval
        Of the field's sums.

    References
    ----------
    arXiv 2603.19290. Software twin: `golden.attention.lrf_ssa`.
    """

    ports = PORTS

    def __init__(
        self,
        program: Program,
        sizes: Sizes,
        *,
        threshold: int,
        y: Interval,
        options: Options,
        taps: list[np.ndarray],
        field: Interval,
    ):
        super().__init__(program, sizes, threshold=threshold, y=y)
        self._options = options
        self._field = LocalField(program, options.lrf, taps, y_shape_of(field))

    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        m.submodules.reader = reader = RoundReader(self._program)
        m.submodules.issue = issue = StateIssue(self._program, partner=True)
        m.submodules.field = field = self._field
        m.d.comb += [
            *(store.tokens.address.eq(reader.tokens.address), store.tokens.en.eq(reader.tokens.en)),
            reader.tokens.query.eq(store.tokens.query),
            reader.tokens.key.eq(store.tokens.key),
            reader.tokens.value.eq(store.values.value),
            *(field.begin.eq(sequencer.scan), field.base.eq(sequencer.word), field.end.eq(issue.ended)),
            *(field.advance.eq(issue.advance), field.round.eq(issue.beside_round)),
            *(field.last.eq(issue.beside_last), issue.beside.eq(field.single)),
            field.clear.eq(self.clear),
        ]
        share_values(m, store, field, reader.tokens, ~reader.second)
        rows = self._state(m, sequencer, reader, issue)
        sums = [Cat(row, taps) for row, taps in zip(rows, field.sums, strict=True)]
        en, row = collect(m, self._sizes, *round_done(m, issue), sums)
        width = self._sizes.head_dim * self._sum_shape.width
        return en, joined(
            self._options,
            self.y_data.shape(),
            data.View(data.ArrayLayout(self._sum_shape, self._sizes.head_dim), row[:width]),
            data.View(field.sums[0].shape(), row[width:]),
        )


class LrfSsaHardware(SsaHardware):
    """`LrfSelfAttention` as the machine sees it."""

    ports = PORTS

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> LrfSelfAttention:
        return LrfSelfAttention(
            program,
            sizes,
            threshold=params.attention_threshold,
            y=bounds.attention,
            options=program.network.attention,
            taps=taps_of(params),
            field=bounds.attention_inner["field"],
        )

    def head_cycles(self, program: Program, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> int:
        """As `SsaHardware.head_cycles`; a round that reads has a cycle for each of the token's taps."""
        return self._head_cycles(program, q, k, v, taps_of_tokens(program, program.network.attention.lrf))

    def head_accesses(
        self, program: Program, widths: Widths, q: np.ndarray, k: np.ndarray, v: np.ndarray
    ) -> HeadAccesses:
        found = super().head_accesses(program, widths, q, k, v)
        found.reads["spikes of v"] -= program.network.tokens  # the second pass needs none
        add_field(found, program, v)
        found.additions[widths.attention] += program.network.tokens * v.shape[2] * v.shape[0]
        return found

    def own_memories(self, program: Program, bounds: Bounds) -> list[Memory]:
        return super().own_memories(program, bounds) + field_memories(program, program.network.attention.lrf)
