"""Neural dynamics with a local receptive field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from amaranth import Cat, Module, Signal, Value
from amaranth.lib import data, wiring

from s2tdpt.golden.attention.lrf_dyn import DENDRITES, FINE
from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.accesses import HeadAccesses, row_memory
from s2tdpt.hw.attention.dendrites import (
    SOMA_DELAY,
    DendriteIssue,
    DendriteRows,
    coefficient_words,
    dendrite_memories,
)
from s2tdpt.hw.attention.field_rounds import FieldRounds, least_round
from s2tdpt.hw.attention.local_field import (
    SUMS_DELAY,
    VALUES,
    LocalField,
    add_field,
    field_memories,
    joined,
    taps_of,
    taps_of_tokens,
)
from s2tdpt.hw.attention.neurons import y_shape_of
from s2tdpt.hw.attention.records import HeadSizes, K, Q
from s2tdpt.hw.attention.sequencer import HeadSequencer
from s2tdpt.hw.attention.ssa import collect
from s2tdpt.hw.attention.state_records import Rounds
from s2tdpt.hw.attention.store import HeadStore, Hold
from s2tdpt.hw.attention.unit import AttentionHardware, AttentionUnit
from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes

if TYPE_CHECKING:
    from s2tdpt.golden.attention.lrf import LocalField as Options
    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.params import Params
    from s2tdpt.hw.plan.widths import Widths

__all__ = ["LrfDynHardware", "LrfDynamics"]

PORTS = {"tokens": {"query": (Q, Hold.SPIKES), "key": (K, Hold.SPIKES)}, "values": VALUES}

ROW_DELAY = SOMA_DELAY
"""From the end of a round to its rows: the last dendrite of the shortest round is used in its last cycle."""


class LrfDynamics(AttentionUnit):
    """Dendrites from token to token, and a field beside them: one pass.

    It goes in rounds: in each of them every engine takes one step of the token, its dendrites one after the
    other and its taps one after the other. The first tap is the token's own value, which the dendrites take,
    too, so that no value is read twice.

    Latency and throughput: `LrfDynHardware.head_cycles`, exact. Resources: a `HeadStore` of the spikes,
    `DendriteIssue`, in each engine a `DendriteRows`; `LocalField`; a register of a row of each.

    Parameters
    ----------
    program, sizes, threshold, y
        As in `AttentionUnit`.
    options : golden.attention.lrf.LocalField
    taps : list of array of int
        Of every block, ``[D, taps]``.
    coefficients : list of int
        Of `dendrites.coefficient_words`.
    inner : mapping of str to Interval
        Of the field's sums, of a dendrite and of the soma's sums.

    References
    ----------
    arXiv 2603.19290. Software twin: `golden.attention.lrf_dyn`.
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
        coefficients: list[int],
        inner: dict[str, Interval],
    ):
        super().__init__(program, sizes, threshold=threshold, y=y, period=None)
        self._options = options
        self._field = LocalField(program, options.lrf, taps, y_shape_of(inner["field"]))
        self._issue = DendriteIssue(program, coefficients)
        self._dendrite, self._soma = (y_shape_of(inner[name]) for name in ("dendrite", "soma"))

    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        m.submodules.rounds = rounds = FieldRounds(self._program, DENDRITES)
        m.submodules.field = field = self._field
        m.submodules.issue = issue = self._issue
        m.d.comb += [
            *(
                rounds.begin.eq(delayed(m, sequencer.scan, 1, "begin", init=0)),
                rounds.single.eq(field.single),
            ),
            *(field.advance.eq(rounds.advance), field.round.eq(rounds.round), field.last.eq(rounds.last)),
            *(field.begin.eq(sequencer.scan), field.base.eq(sequencer.word), field.end.eq(rounds.ended)),
            *(issue.begin.eq(rounds.begin), issue.advance.eq(rounds.advance), issue.round.eq(rounds.round)),
            *(issue.ended.eq(rounds.ended), issue.load.eq(delayed(m, field.own, 1, "load", init=0))),
            *(field.clear.eq(self.clear), issue.clear.eq(self.clear)),
            *(store.tokens.address.eq(field.values.address), store.tokens.en.eq(field.own)),
            *(issue.query.eq(store.tokens.query), issue.key.eq(store.tokens.key)),
            issue.value.eq(store.values.value),
            sequencer.emitted.eq(rounds.ended),
        ]
        wiring.connect(m, store.values, field.values)
        done, short = rounds.over, rounds.token_over
        taken, done = (
            delayed(m, done, cycles, f"done{cycles}_", init=0) for cycles in (SUMS_DELAY, ROW_DELAY)
        )
        sums = []
        for engine, local in enumerate(field.sums):
            m.submodules[f"rows{engine}"] = rows = DendriteRows(
                self._sizes, engine, self._dendrite, self._soma
            )
            wiring.connect(m, getattr(issue, f"use{engine}"), rows.use)
            held = Signal.like(local, name=f"field{engine}")  # its sums come earlier
            with m.If(taken):
                m.d.sync += held.eq(local)
            sums.append(Cat(rows.sums, held))
        en, row = collect(m, self._sizes, done, delayed(m, short, ROW_DELAY, "short", init=0), sums)
        layout = data.ArrayLayout(self._soma, self._sizes.head_dim)
        somas = [soma >> FINE for soma in data.View(layout, row[: layout.size])]
        taps = data.View(field.sums[0].shape(), row[layout.size :])
        return en, joined(self._options, self.y_data.shape(), somas, taps)


class LrfDynHardware(AttentionHardware):
    """`LrfDynamics` as the machine sees it."""

    ports = PORTS

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> LrfDynamics:
        blocks = [params.attention(block) for block in range(program.network.depth)]
        return LrfDynamics(
            program,
            sizes,
            threshold=params.attention_threshold,
            y=bounds.attention,
            options=program.network.attention,
            taps=taps_of(params),
            coefficients=coefficient_words(blocks),
            inner=bounds.attention_inner,
        )

    def head_cycles(self, program: Program, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> int:
        """``2 + rounds``: each as long as the token has taps on the map, and as its dendrites at least.

        Spikes do not matter.
        """
        sizes = HeadSizes(program)
        taps = taps_of_tokens(program, program.network.attention.lrf)
        least = least_round(sizes, DENDRITES)
        return 2 + Rounds(sizes).count * int(np.maximum(taps, least).sum())

    def output_delay(self, program: Program) -> int:
        sizes = HeadSizes(program)
        return Rounds(sizes).last_steps + sizes.parts + ROW_DELAY

    def period(self, program: Program) -> None:
        return None

    def head_accesses(
        self, program: Program, widths: Widths, q: np.ndarray, k: np.ndarray, v: np.ndarray
    ) -> HeadAccesses:
        sizes, found = HeadSizes(program), HeadAccesses()
        rounds = Rounds(sizes).count * sizes.tokens
        found.read_fields(self.ports["tokens"], rounds)
        found.reads["coefficients of the dendrites"] += rounds * DENDRITES
        for engine in range(sizes.engines):
            name, steps = row_memory(sizes.engines, engine), len(sizes.steps_of(engine))
            found.reads[name] += DENDRITES * steps * (sizes.tokens - 1)  # all are zero at first
            found.writes[name] += DENDRITES * steps * sizes.tokens
        add_field(found, program, v)
        inner = widths.attention_inner
        meetings = int(np.count_nonzero(k & v))
        found.additions[inner["dendrite"]] += DENDRITES * (3 * v.size + meetings)
        found.additions[inner["soma"]] += DENDRITES * int(np.count_nonzero(q))
        found.additions[widths.attention] += v.size
        return found

    def own_memories(self, program: Program, bounds: Bounds) -> list[Memory]:
        dendrite = y_shape_of(bounds.attention_inner["dendrite"])
        field = field_memories(program, program.network.attention.lrf)
        return [*dendrite_memories(program, dendrite), *field]
