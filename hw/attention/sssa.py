"""Saccadic attention over the time steps: how much a token agrees with the image opens its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from amaranth import Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.attention.sssa import THRESHOLD, WEIGHT
from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.accesses import HeadAccesses
from s2tdpt.hw.attention.columns import steps_of_word
from s2tdpt.hw.attention.head_table import HeadTable, table_memory
from s2tdpt.hw.attention.latency import tree_sum
from s2tdpt.hw.attention.neurons import y_shape_of
from s2tdpt.hw.attention.reader import TokenRows, step_shift
from s2tdpt.hw.attention.records import HeadSizes, K, Q, V
from s2tdpt.hw.attention.sequencer import HeadSequencer
from s2tdpt.hw.attention.steady import SteadyHardware, SteadyUnit
from s2tdpt.hw.attention.store import Fields, HeadStore, Hold
from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.fixed import exact, index_shape, interval_shape
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes

if TYPE_CHECKING:
    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.params import Params
    from s2tdpt.hw.plan.widths import Widths

__all__ = ["KeyTotals", "SaccadicAttention", "Saccades", "SssaHardware"]

TOKENS: Fields = {"query": (Q, Hold.COUNTS), "key": (K, Hold.COUNTS), "value": (V, Hold.SPIKES)}

WORD_DELAY = 1
"""From a row of `TokenRows` to the words of its step."""

MASK_DELAY = 3
"""From the words of a step to its mask."""

TABLE = "weights of the saccades"


def reachable(threshold: int, sums: Interval) -> int:
    """A threshold as low as it can be: what lies above all sums is no more reached than their end and 1."""
    return min(threshold, max(0, sums.hi) + 1)


def word_layout(steps: int, sums: Interval) -> data.StructLayout:
    """A word of a head and step s: what it weighs in the steps s, s + 1 ..., and the threshold of step s."""
    threshold = interval_shape(0, max(0, sums.hi) + 1)
    return data.StructLayout({"weights": data.ArrayLayout(signed(8), steps), "threshold": threshold})


def table_words(blocks: Sequence[Mapping[str, np.ndarray]], steps: int, sums: Interval) -> list[int]:
    """Contents of the ROM: block by block, head by head, step by step."""
    layout, words = word_layout(steps, sums), []
    for block in blocks:
        for weight, thresholds in zip(block[WEIGHT].tolist(), block[THRESHOLD].tolist(), strict=True):
            for s in range(steps):
                column = [weight[t][s] for t in range(s, steps)] + [0] * s
                fields = {"weights": column, "threshold": reachable(thresholds[s], sums)}
                words.append(layout.const(fields).as_value().value)
    return words


def total_shape(sizes: HeadSizes) -> Shape:
    """Of the spikes of all keys of a head in a step."""
    return interval_shape(0, sizes.tokens * sizes.head_dim)


class KeyTotals(wiring.Component):
    """Spikes of all keys of a head in every step, and the largest power of two that is not above them.

    Latency: the powers are there 2 cycles after `last`. Throughput: a token a cycle. Resources: ``T`` adders
    and registers of a sum up to ``tokens * head_dim``, ``T`` priority encoders and registers of an exponent.

    Parameters
    ----------
    sizes : HeadSizes

    Members
    -------
    en : ``In(1)``, first : ``In(1)``, last : ``In(1)``
        A token; it is the head's first, its last one.
    counts : ``In(counts_bits)``
        Its spikes in every step.
    shift : ``In(1)``
        Go to the next step; after the last one comes the first.
    exponent : ``Out``, some : ``Out(1)``
        Of the lowest step: the power's; there is a spike at all.
    """

    def __init__(self, sizes: HeadSizes):
        self._sizes = sizes
        self._total = total_shape(sizes)
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "last": In(1),
                "counts": In(sizes.counts_bits),
                "shift": In(1),
                "exponent": Out(index_shape(self._total.width)),
                "some": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = data.StructLayout({"exponent": self.exponent.shape(), "some": 1})
        powers = [Signal(layout, name=f"power{t}") for t in range(self._sizes.steps)]
        complete = delayed(m, self.last, 1, "complete", init=0)
        with m.If(self.shift):
            for t, power in enumerate(powers):
                m.d.sync += power.eq(powers[(t + 1) % len(powers)])
        for t, power in enumerate(powers):
            total = Signal(self._total, name=f"total{t}")
            counted = self.counts.word_select(t, self._sizes.count.width)
            with m.If(self.en):
                # All tokens with all channels are as much as the shape holds.
                m.d.sync += total.eq(exact(Mux(self.first, 0, total) + counted, self._total))
            with m.If(complete):
                m.d.sync += power.some.eq(total.any())
                for bit in range(len(total)):  # the highest one counts
                    with m.If(total[bit]):
                        m.d.sync += power.exponent.eq(bit)
        m.d.comb += [self.exponent.eq(powers[0].exponent), self.some.eq(powers[0].some)]
        return m


class Saccades(wiring.Component):
    """Whether a token is looked at, step by step, from what it agreed in this step and those before.

    In each step what it agrees is added, weighted, to the sums of this step and of all that follow; the sum
    of this step is then complete. Products are shifted additions.

    Latency: `MASK_DELAY` cycles. Throughput: a step a cycle. Resources: ``T`` products of 8 bits and a count,
    ``T`` shifters, adders and registers of a sum, a comparator.

    Parameters
    ----------
    sizes : HeadSizes
    sums : Interval
        Of the sums (`golden.bounds`), partial ones included.

    Members
    -------
    en : ``In(1)``, count : ``In``, word : ``In(word_layout)``
        A step; the query's spikes; the words of `table_words`. The steps of a token come in order.
    exponent : ``In``, some : ``In(1)``
        Of `KeyTotals`, a cycle later.
    opened : ``Out(1)``
        The mask of the step `MASK_DELAY` cycles ago.
    """

    def __init__(self, sizes: HeadSizes, sums: Interval):
        self._sizes = sizes
        self._sum = y_shape_of(sums)
        super().__init__(
            {
                "en": In(1),
                "count": In(sizes.count),
                "word": In(word_layout(sizes.steps, sums)),
                "exponent": In(index_shape(total_shape(sizes).width)),
                "some": In(1),
                "opened": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        steps, width = self._sizes.steps, self._sizes.count.width
        en = delayed(m, self.en, 2, "en", init=0)
        threshold = delayed(m, self.word.threshold, 2, "threshold", init=0)
        # Of the steps from this one on; the last of them begins with nothing.
        sums = [Signal(self._sum, name=f"sum{j}") for j in range(steps - 1)]
        totals = []
        for j in range(steps):
            weight = self.word.weights[j]
            terms = [Mux(self.count[bit], weight << bit, 0) for bit in range(width)]
            product = Signal(signed(8 + width), name=f"product{j}")
            term = Signal(self._sum, name=f"term{j}")
            # At most 127 times a count of that width; the proven interval covers terms and partial sums.
            m.d.sync += product.eq(exact(tree_sum(terms), product.shape()))
            m.d.sync += term.eq(Mux(self.some, exact(product << self.exponent, self._sum), 0))
            totals.append(exact((sums[j] if j < steps - 1 else 0) + term, self._sum))
        m.d.sync += self.opened.eq(totals[0] >= threshold)
        with m.If(en):
            m.d.sync += [kept.eq(total) for kept, total in zip(sums, totals[1:], strict=True)]
        return m


class SaccadicAttention(SteadyUnit):
    """``Y_i[t] = V_i[t]`` where the weighted agreement of token i in the steps up to t reaches a threshold.

    1. Count the spikes of all keys, token by token.
    2. Token i, step by step: `Saccades` of the query's count, the value passes or not.

    Latency and throughput: a cycle a token, then ``max(T, parts)`` a token. Resources: a `HeadStore` of the
    values and of the counts of queries and keys, `KeyTotals`, `Saccades`, a `HeadTable`, registers of a token
    and of four rows of values.

    Parameters
    ----------
    program, sizes, threshold, y
        As in `AttentionUnit`.
    words : list of int
        Of `table_words`.
    sums : Interval
        Of the weighted sums.

    References
    ----------
    SNN-ViT, training form. Software twin: `golden.attention.sssa`.
    """

    ports = {"tokens": TOKENS}

    def __init__(
        self,
        program: Program,
        sizes: Sizes,
        *,
        threshold: int,
        y: Interval,
        words: list[int],
        sums: Interval,
    ):
        super().__init__(program, sizes, threshold=threshold, y=y)
        self._words, self._sums = words, sums

    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        sizes = self._sizes
        m.submodules.reader = reader = self._reader(m, store, sequencer, scans=True)
        m.submodules.totals = totals = KeyTotals(sizes)
        m.submodules.saccades = saccades = Saccades(sizes, self._sums)
        m.d.comb += [
            *(totals.en.eq(reader.counts), totals.first.eq(reader.first), totals.last.eq(reader.scanned)),
            *(totals.counts.eq(reader.tokens.key), reader.emit.eq(reader.scanned)),
            *(saccades.exponent.eq(totals.exponent), saccades.some.eq(totals.some)),
            saccades.word.eq(self._word(m, reader)),
        ]
        counts = [reader.tokens.query.word_select(t, sizes.count.width) for t in range(sizes.steps)]
        count = step_shift(m, reader.load, counts, "count")
        row_en = delayed(m, reader.row_en, WORD_DELAY, "due", init=0)
        m.d.comb += [
            saccades.en.eq(row_en),
            saccades.count.eq(delayed(m, count, WORD_DELAY, "counted", init=0)),
            totals.shift.eq(delayed(m, row_en, 1, "agrees", init=0)),
        ]
        value = step_shift(m, reader.load, steps_of_word(reader.tokens.value, sizes), "value")
        value = delayed(m, value, WORD_DELAY + MASK_DELAY, "value_late", init=0)
        opened = saccades.opened.replicate(sizes.head_dim)
        return delayed(m, row_en, MASK_DELAY, "masked", init=0), value & opened

    def _word(self, m: Module, reader: TokenRows) -> Value:
        """The words of the head's steps, `WORD_DELAY` cycles after the row is due."""
        steps = self._sizes.steps
        bits = word_layout(steps, self._sums).size
        m.submodules.table = table = HeadTable(self._words, steps, bits)
        following = Signal(index_shape(steps))
        m.d.comb += [
            table.clear.eq(self.clear),
            # The last step is asked for in the cycle after `emitted` at the latest.
            table.ended.eq(delayed(m, reader.emitted, 1, "ended", init=0)),
            table.en.eq(reader.load | (reader.row_en & ~reader.row_last)),
            table.index.eq(Mux(reader.load, 0, following)),
        ]
        with m.If(table.en):
            m.d.sync += following.eq((table.index + 1)[: len(following)])
        return table.word


class SssaHardware(SteadyHardware):
    """`SaccadicAttention` as the machine sees it: the rows begin with the last word of the first pass."""

    ports = SaccadicAttention.ports

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> SaccadicAttention:
        net, sums = program.network, bounds.attention_inner["saccade"]
        blocks = [params.attention(block) for block in range(net.depth)]
        return SaccadicAttention(
            program,
            sizes,
            threshold=params.attention_threshold,
            y=bounds.attention,
            words=table_words(blocks, net.timesteps, sums),
            sums=sums,
        )

    def first_pass(self, program: Program) -> int:
        return program.network.tokens + 1

    def output_delay(self, program: Program) -> int:
        return super().output_delay(program) + WORD_DELAY + MASK_DELAY

    def head_accesses(
        self, program: Program, widths: Widths, q: np.ndarray, k: np.ndarray, v: np.ndarray
    ) -> HeadAccesses:
        net, found = program.network, super().head_accesses(program, widths, q, k, v)
        found.reads[TABLE] += net.tokens * net.timesteps
        inner = widths.attention_inner
        found.additions[inner["total"]] += net.tokens * net.timesteps
        counted = net.attention.count(net, q[:, None], k[:, None], v[:, None])
        compared = net.tokens * net.timesteps
        found.additions[inner["saccade"]] += counted["terms"] + compared
        return found

    def additions(self, program: Program, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> Counter[int]:
        counted = int(np.count_nonzero(q) + np.count_nonzero(k))  # both pass the counters
        return Counter({HeadSizes(program).count.width: counted})

    def own_memories(self, program: Program, bounds: Bounds) -> list[Memory]:
        steps = program.network.timesteps
        bits = word_layout(steps, bounds.attention_inner["saccade"]).size
        return [table_memory(program, TABLE, steps, bits)]
