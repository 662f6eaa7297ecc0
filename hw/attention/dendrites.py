"""Dendrites in hardware: one a cycle, of all channels of a head, with shifts and additions (`lrf-dyn`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from amaranth import Array, Cat, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.attention.lrf_dyn import COUPLING, DENDRITES, INPUT, LARGEST_INPUT, LEAK, SHIFT, SIGN
from s2tdpt.hw.attention.accesses import row_memory
from s2tdpt.hw.attention.columns import steps_of_word
from s2tdpt.hw.attention.head_table import HeadTable, table_memory
from s2tdpt.hw.attention.records import SEPARATE, HeadSizes
from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.fixed import exact, index_shape, interval_shape
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program

__all__ = ["SOMA_DELAY", "DendriteIssue", "DendriteRows", "DendriteUse", "dendrite_memories"]

WINDOW_DELAY = 3
"""From a use to the dendrite and its two neighbours in registers."""

SOMA_DELAY = WINDOW_DELAY + 4
"""From the use of the last dendrite to the soma's sums, which stay for ``cycles of a round - 7`` cycles."""

COEFFICIENTS = data.StructLayout(
    {
        "leak": unsigned(2),  # e - 1
        "gain": interval_shape(0, LARGEST_INPUT),
        "shift": unsigned(3),
        "sign": signed(2),
    }
)
"""Of a dendrite."""


def coefficient_words(blocks: Sequence[Mapping[str, np.ndarray]]) -> list[int]:
    """Contents of the ROM: block by block, head by head, dendrite by dendrite."""
    words = []
    for block in blocks:
        columns = (block[name].reshape(-1).tolist() for name in (LEAK, INPUT, SHIFT, SIGN))
        for leak, gain, shift, sign in zip(*columns, strict=True):
            fields = {"leak": leak - 1, "gain": gain, "shift": shift, "sign": sign}
            words.append(COEFFICIENTS.const(fields).as_value().value)
    return words


def _depth(sizes: HeadSizes, engine: int) -> int:
    """Rows of an engine."""
    return DENDRITES << sizes.local_step(engine)


def dendrite_memories(program: Program, dendrite: Shape) -> list[Memory]:
    """Rows of all engines, and the coefficients."""
    sizes = HeadSizes(program)
    rows = [
        Memory(row_memory(sizes.engines, engine), _depth(sizes, engine), sizes.head_dim * dendrite.width)
        for engine in range(sizes.engines)
    ]
    return [*rows, table_memory(program, "coefficients of the dendrites", DENDRITES, COEFFICIENTS.size)]


class DendriteUse(wiring.Signature):
    """A use of a dendrite of an engine, seen from who chose it.

    Members
    -------
    en : ``Out(1)``
    row : ``Out``
        Its address: dendrite, and the step of the engine in the lowest bits.
    first : ``Out(1)``
        Of the head's first token: all are zero before.
    begins, ends : ``Out(1)``
        It is the first, the last one of its step.
    coefficients : ``Out(COEFFICIENTS)``
        Like the next, of the use `WINDOW_DELAY` cycles ago.
    meets : ``Out(head_dim)``, asks : ``Out(head_dim)``
        Channels with a spike of key and value; of the query.
    """

    def __init__(self, sizes: HeadSizes, engine: int):
        super().__init__(
            {
                "en": Out(1),
                "row": Out(index_shape(_depth(sizes, engine))),
                "first": Out(1),
                "begins": Out(1),
                "ends": Out(1),
                "coefficients": Out(COEFFICIENTS),
                "meets": Out(sizes.head_dim),
                "asks": Out(sizes.head_dim),
            }
        )


class DendriteIssue(wiring.Component):
    """Goes through the dendrites of a round: the same one in every engine.

    Latency: the first use comes in the cycle after `advance`. Throughput: a dendrite a cycle; a round takes
    `DENDRITES` cycles at least. Resources: a `HeadTable`, counters, ``2 * head_dim`` flip-flops an engine.

    Parameters
    ----------
    program : Program
    words : list of int
        Of `coefficient_words`.

    Members
    -------
    clear : ``In(1)``, ended : ``In(1)``
        As in `HeadTable`.
    begin : ``In(1)``
        The round that begins is the first one of a head.
    advance : ``In(1)``, round : ``In``
        A round begins in the next cycle; which of its token.
    load : ``In(1)``
        The round's token is at the port: `WINDOW_DELAY` cycles after `advance`.
    query, key, value : ``In(value_bits)``
        Its spikes.
    use0, use1 ... : ``Out(DendriteUse)``
        One an engine; no array, since an engine with fewer steps has fewer rows.
    """

    def __init__(self, program: Program, words: list[int]):
        self._sizes, self._words = HeadSizes(program), words
        sizes = self._sizes
        self._count = -(-sizes.steps // sizes.engines)
        super().__init__(
            {
                "clear": In(1),
                "ended": In(1),
                "begin": In(1),
                "advance": In(1),
                "round": In(index_shape(self._count)),
                "load": In(1),
                "query": In(sizes.value_bits),
                "key": In(sizes.value_bits),
                "value": In(sizes.value_bits),
                **{f"use{engine}": Out(DendriteUse(sizes, engine)) for engine in range(sizes.engines)},
            }
        )

    def elaborate(self, platform):
        m = Module()
        active, first, ends = Signal(), Signal(), Signal()
        index, number = Signal(range(DENDRITES)), Signal(self.round.shape())
        m.d.comb += ends.eq(index == DENDRITES - 1)
        with m.If(self.advance):
            m.d.sync += [active.eq(1), index.eq(0), number.eq(self.round)]
            m.d.sync += first.eq(self.begin | (first & (self.round != 0)))
        with m.Elif(active):
            m.d.sync += [active.eq(~ends), index.eq((index + 1)[: len(index)])]
        m.submodules.coefficients = table = HeadTable(self._words, DENDRITES, COEFFICIENTS.size)
        coefficients = Signal(COEFFICIENTS)
        m.d.comb += [
            *(table.clear.eq(self.clear), table.ended.eq(self.ended)),
            *(table.en.eq(active), table.index.eq(index)),
        ]
        m.d.sync += coefficients.eq(table.word)
        for engine in range(self._sizes.engines):
            use = getattr(self, f"use{engine}")
            m.d.comb += [
                use.en.eq(active & self._works(engine, number)),
                use.row.eq(Cat(number[: self._sizes.local_step(engine)], index)),
                *(use.first.eq(first), use.begins.eq(index == 0), use.ends.eq(ends)),
                use.coefficients.eq(coefficients),
            ]
            self._spikes(m, engine, number, use)
        return m

    def _works(self, engine: int, number: Signal) -> Value | int:
        """Whether an engine has a step in this round."""
        missing = len(self._sizes.steps_of(engine)) < self._count
        return number != self._count - 1 if missing else 1

    def _spikes(self, m: Module, engine: int, number: Signal, use: wiring.PureInterface) -> None:
        """Those of the engine's step, kept for the round."""
        query, key, value = (steps_of_word(word, self._sizes) for word in (self.query, self.key, self.value))
        steps = self._sizes.steps_of(engine)
        meets, asks = ([word(t) for t in steps] for word in (lambda t: key[t] & value[t], lambda t: query[t]))
        with m.If(self.load):
            for kept, words in ((use.meets, meets), (use.asks, asks)):
                m.d.sync += kept.eq(Array(words + [0] * (self._count - len(words)))[number])


class DendriteRows(wiring.Component):
    """The dendrites of an engine, and the sums at the soma.

    A dendrite waits until both of its neighbours are there as they were, is updated, written back and, where
    the channel's query spikes, added to the soma.

    Latency: the sums are there `SOMA_DELAY` cycles after the use of the last dendrite; a dendrite can be used
    again 6 cycles later. Throughput: a dendrite a cycle. Resources: ``steps * 8`` rows of ``head_dim``
    dendrites, whatever the number of tokens; for every channel four shifters, four adders and seven registers
    of a dendrite, an adder and a register of a sum, four flip-flops of its spikes; six registers of a row's
    address with three flags, and 25 flip-flops.

    Parameters
    ----------
    sizes : HeadSizes
    engine : int
    dendrite, soma : Shape
        Of a dendrite, unsigned, and of a sum.

    Members
    -------
    use : ``In(DendriteUse)``
    sums : ``Out(ArrayLayout(soma, head_dim))``
    """

    def __init__(self, sizes: HeadSizes, engine: int, dendrite: Shape, soma: Shape):
        self._sizes, self._engine = sizes, engine
        self._dendrite, self._soma = dendrite, soma
        super().__init__(
            {"use": In(DendriteUse(sizes, engine)), "sums": Out(data.ArrayLayout(soma, sizes.head_dim))}
        )

    def elaborate(self, platform):
        m = Module()
        sizes, use = self._sizes, self.use
        row = data.ArrayLayout(self._dendrite, sizes.head_dim)
        m.submodules.rows = rows = memory.Memory(
            shape=unsigned(row.size), depth=_depth(sizes, self._engine), init=[], attrs=SEPARATE
        )
        read, write = rows.read_port(), rows.write_port()
        place = Cat(use.en, use.begins, use.ends, use.row)  # of a dendrite on its way
        m.d.comb += [read.addr.eq(use.row), read.en.eq(use.en & ~use.first)]
        fetched = delayed(m, Cat(use.first, place), 1, "fetched", init=0)
        window = delayed(m, place, 3, "window", init=0)

        # The dendrite between its neighbours, all as the token before left them.
        above, here, below = (Signal(row, name=name) for name in ("above", "here", "below"))
        begins = delayed(m, fetched[2], 1, "begins", init=0)
        m.d.sync += [above.eq(Mux(fetched[0], 0, read.data)), here.eq(above)]
        m.d.sync += below.eq(Mux(begins, 0, here.as_value()))
        beside = Signal(row)
        m.d.comb += beside.eq(Mux(window[2], 0, above.as_value()))

        after = self._update(m, below, here, beside)
        written = delayed(m, window, 2, "written", init=0)
        m.d.comb += [write.addr.eq(written[3:]), write.en.eq(written[0]), write.data.eq(after)]
        self._add(m, after, written)
        return m

    def _update(self, m: Module, below: data.View, here: data.View, above: data.View) -> data.View:
        """The dendrite behind the token, two cycles later."""
        use = self.use
        kept, passed, after = (Signal(here.shape(), name=name) for name in ("kept", "passed", "after"))
        gain, meets = Signal.like(use.coefficients.gain), Signal.like(use.meets)
        m.d.sync += [gain.eq(use.coefficients.gain), meets.eq(use.meets)]
        leak = use.coefficients.leak
        for channel in range(self._sizes.head_dim):
            leaks = (here[channel] >> 1) >> leak
            flows = [(x[channel] >> (1 + COUPLING)) >> leak for x in (below, above)]
            received = Mux(meets[channel], gain, 0)
            # All terms add up to a dendrite of the proven interval, and none but the leak is negative.
            m.d.sync += [
                kept[channel].eq(exact(here[channel] - leaks, self._dendrite)),
                passed[channel].eq(exact(sum(flows), self._dendrite)),
                after[channel].eq(exact(kept[channel] + passed[channel] + received, self._dendrite)),
            ]
        return after

    def _add(self, m: Module, after: data.View, written: Value) -> None:
        """The soma: a dendrite is added to it or subtracted, shifted, where the query has a spike."""
        use = self.use
        shift = delayed(m, use.coefficients.shift, 2, "shift", init=0)
        sign = delayed(m, use.coefficients.sign, 2, "sign", init=0)
        asks = delayed(m, use.asks, 2, "asks", init=0)
        terms = Signal(after.shape())
        adds, first, negative = Signal(), Signal(), Signal(self._sizes.head_dim)
        m.d.sync += [
            *(adds.eq(written[0]), first.eq(written[1])),
            negative.eq(asks & sign[1].replicate(len(asks))),
        ]
        for channel in range(self._sizes.head_dim):
            counts = asks[channel] & sign.any()
            m.d.sync += terms[channel].eq(Mux(counts, after[channel] >> shift, 0))
        with m.If(adds):
            for channel, total in enumerate(self.sums):
                before = Mux(first, 0, total)
                # The proven interval covers partial sums.
                summed = _plus_minus(before, terms[channel], negative[channel])
                m.d.sync += total.eq(exact(summed, self._soma))


def _plus_minus(total: Value, term: Value, negative: Value) -> Value:
    """``total - term`` where `negative`, else ``total + term``: one adder, its carry from a bit below."""
    term = Cat(negative, term ^ negative.replicate(len(term)), negative).as_signed()
    low = Cat(negative, total)
    return ((low.as_signed() if total.shape().signed else low) + term) >> 1
