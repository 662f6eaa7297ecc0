"""Spiking self-attention without softmax, streamed: a state of d_h rows instead of an N x N matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import wiring

from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.accesses import HeadAccesses, row_memory
from s2tdpt.hw.attention.neurons import y_shape_of
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.sequencer import HeadSequencer
from s2tdpt.hw.attention.state_issue import RoundReader, StateIssue
from s2tdpt.hw.attention.state_records import TOKENS, Rounds
from s2tdpt.hw.attention.state_rows import SUM_DELAY, StateRows, state_memories
from s2tdpt.hw.attention.store import HeadStore
from s2tdpt.hw.attention.unit import AttentionHardware, AttentionUnit
from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes

if TYPE_CHECKING:
    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.params import Params
    from s2tdpt.hw.plan.widths import Widths

__all__ = ["SelfAttention", "SsaHardware"]

PORTS = {"tokens": TOKENS}

FIRST_ROUND = 5
"""From the beginning of a head to its first round."""


class SelfAttention(AttentionUnit):
    """``Y = Q (K^T V)``: two passes over the tokens of a head, additions only.

    1. Token ``j`` counts up, in every step, the channels of ``V_j`` in the rows ``c`` with ``K_jc = 1``.
       Steps in which the value has no spike have no rows.
    2. ``Y_i`` is the sum of the rows with ``Q_ic = 1``, as far as they are not empty.

    Where K and V are other numbers than spikes (`a2os2a`), token ``j`` adds ``K_jc`` to the channels of row
    ``c`` with ``V_j = 1``, and takes it from those with ``V_j = -1``.

    Every engine works on one time step of a token, all engines on the same token.

    Latency and throughput: `SsaHardware.head_cycles`, exact: a row a cycle and engine. Resources: a
    `HeadStore` of the spikes; `StateIssue`; in each engine a `StateRows`.

    Parameters
    ----------
    program, sizes, threshold, y
        As in `AttentionUnit`.

    References
    ----------
    Spikformer (arXiv 2209.15425), Spikingformer (arXiv 2304.11954), A2OS2A (arXiv 2503.00226). Software
    twins: `golden.attention.ssa`, `golden.attention.a2os2a`.
    """

    ports = PORTS

    def __init__(self, program: Program, sizes: Sizes, *, threshold: int, y: Interval):
        super().__init__(program, sizes, threshold=threshold, y=y, period=None)
        self._state_shape, self._sum_shape = state_shape(program), y_shape_of(_product(program))

    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        m.submodules.reader = reader = RoundReader(self._program)
        m.submodules.issue = issue = StateIssue(self._program)
        wiring.connect(m, store.tokens, reader.tokens)
        sums = self._state(m, sequencer, reader, issue)
        return collect(m, self._sizes, *round_done(m, issue), sums)

    def _state(
        self, m: Module, sequencer: HeadSequencer, reader: RoundReader, issue: StateIssue
    ) -> list[Value]:
        """Both passes; the sums of every engine."""
        m.d.comb += [
            reader.base.eq(sequencer.word),
            reader.start.eq(sequencer.scan),
            reader.take.eq(issue.take),
            issue.clear.eq(sequencer.scan),
            issue.valid.eq(reader.valid),
            issue.round.eq(reader.round),
            issue.flags.eq(reader.flags),
            sequencer.emitted.eq(issue.ended),
            *(a.eq(b) for a, b in zip(issue.query, reader.query, strict=True)),
            *(a.eq(b) for a, b in zip(issue.key, reader.key, strict=True)),
            *(a.eq(b) for a, b in zip(issue.value, reader.value, strict=True)),
        ]
        sums = []
        for engine in range(self._sizes.engines):
            m.submodules[f"rows{engine}"] = rows = StateRows(
                self._sizes, engine, self._state_shape, self._sum_shape
            )
            wiring.connect(m, getattr(issue, f"use{engine}"), rows.use)
            sums.append(rows.sums.as_value())
        return sums


def _product(program: Program) -> Interval:
    """Of a sum of rows."""
    return program.network.attention.product(program.network)


def state_shape(program: Program) -> Shape:
    """Of a number of a row."""
    return y_shape_of(program.network.attention.state(program.network))


def round_done(m: Module, issue: StateIssue) -> tuple[Value, Value]:
    """The sums of a round that reads are there; it is the last one of a token."""
    done = delayed(m, Cat(issue.done, issue.short), SUM_DELAY, "done", init=0)
    return done[0], done[1]


def collect(m: Module, sizes: HeadSizes, done: Value, short: Value, sums: list[Value]) -> tuple[Value, Value]:
    """The sums of a round, engine by engine, so that the steps of a token come in order.

    Parameters
    ----------
    done : Value
        The sums of a round are there, for this cycle at least.
    short : Value
        It is the last round of a token.
    sums : list of Value
        Of every engine.

    Returns
    -------
    (Value, Value)
        Whether there are sums; the sums.
    """
    last_steps = Rounds(sizes).last_steps
    valid = [done & ~(short if engine >= last_steps else 0) for engine in range(len(sums))]
    # The first leaves at once, the others wait for their turn.
    held, held_en = Const(0, len(sums[0])), Const(0, 1)
    for engine in reversed(range(1, len(sums))):
        here, here_en = Signal(len(sums[0]), name=f"held{engine}"), Signal(name=f"held{engine}_en")
        m.d.sync += [here.eq(Mux(done, sums[engine], held)), here_en.eq(Mux(done, valid[engine], held_en))]
        held, held_en = here, here_en
    if len(sums) == 1:
        return done, sums[0]
    return Mux(done, valid[0], held_en), Mux(done, sums[0], held)


class SsaHardware(AttentionHardware):
    """`SelfAttention` as the machine sees it."""

    ports = PORTS

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> SelfAttention:
        return SelfAttention(program, sizes, threshold=params.attention_threshold, y=bounds.attention)

    def head_cycles(self, program: Program, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> int:
        """``5 + (updates) + (reads)``: rounds, each as long as its longest step (`Rounds`).

        A step of a token updates the rows of its key's channels if its value has a spike, and reads those of
        its query's channels to which some token of the head has added.
        """
        return self._head_cycles(program, q, k, v, np.zeros(program.network.tokens, int))

    def _head_cycles(self, program: Program, q, k, v, beside: np.ndarray) -> int:
        """With cycles that every round of a token's reads takes at least, int [N]."""
        sizes = HeadSizes(program)
        rounds = Rounds(sizes)
        q, k, v = (np.asarray(spikes, bool) for spikes in (q, k, v))
        keys = k & v.any(-1, keepdims=True)
        filled = keys.any(1, keepdims=True)
        updates, reads = _longest(keys, sizes), _longest(q & filled, sizes)
        update = np.maximum(updates, rounds.update).sum() + rounds.update_idle * updates.size + rounds.turn
        reads = np.maximum(np.maximum(reads, beside), rounds.read)
        return FIRST_ROUND + int(update + reads.sum())

    def head_accesses(
        self, program: Program, widths: Widths, q: np.ndarray, k: np.ndarray, v: np.ndarray
    ) -> HeadAccesses:
        sizes, found = HeadSizes(program), HeadAccesses()
        for fields in self.ports.values():
            found.read_fields(fields, 2 * sizes.tokens)
        q, k, v = (np.asarray(spikes, bool) for spikes in (q, k, v))
        keys = k & v.any(-1, keepdims=True)
        filled = keys.any(1, keepdims=True)
        updates, reads = keys.sum((1, 2)), (q & filled).sum((1, 2))  # of every step
        begun = filled.sum((1, 2))  # rows that are zero before: not read
        for t in range(sizes.steps):
            name = row_memory(sizes.engines, t % sizes.engines)
            found.reads[name] += int(updates[t] - begun[t] + reads[t])
            found.writes[name] += int(updates[t])
        counted = int((keys.sum(-1, dtype=np.int64) * v.sum(-1, dtype=np.int64)).sum())
        found.additions[state_shape(program).width] += counted
        found.additions[y_shape_of(_product(program)).width] += int(reads.sum()) * sizes.head_dim
        return found

    def output_delay(self, program: Program) -> int:
        sizes = HeadSizes(program)
        return Rounds(sizes).last_steps + sizes.parts + SUM_DELAY + 1

    def period(self, program: Program) -> None:
        return None

    def own_memories(self, program: Program, bounds: Bounds) -> list[Memory]:
        return state_memories(HeadSizes(program), state_shape(program))


def _longest(rows: np.ndarray, sizes: HeadSizes) -> np.ndarray:
    """Most rows that a step of a round has, int [rounds, N]."""
    counts = rows.sum(-1)
    rest = -len(counts) % sizes.engines
    padded = np.pad(counts, ((0, rest), (0, 0)))
    return padded.reshape(-1, sizes.engines, sizes.tokens).max(1)
