"""Sums over the tokens of a head, channel by channel, and gates that follow from them."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.blocks.lif import LifCell
from s2tdpt.hw.blocks.neuron import membrane_interval
from s2tdpt.hw.fixed import exact, interval_shape

__all__ = ["ColumnCounts", "ColumnGates", "gate_delay", "steps_of_word"]


def steps_of_word(word, sizes: HeadSizes, bits: int = 1) -> list:
    """Spikes of a head's word by step: ``head_dim`` bits each, or numbers of `bits` bits."""
    if bits == 1:
        return [word[t :: sizes.steps][: sizes.head_dim] for t in range(sizes.steps)]
    return [
        Cat(word.word_select(c * sizes.steps + t, bits) for c in range(sizes.head_dim))
        for t in range(sizes.steps)
    ]


class ColumnCounts(wiring.Component):
    """Spikes of every channel and step, counted over the tokens of a head.

    A count stops at `limit`: what lies above makes no difference to who reads it.

    Latency: a token counts in the cycle after `en`. Throughput: a token a cycle. Resources: ``T * head_dim``
    counters up to `limit` in flip-flops.

    Parameters
    ----------
    sizes : HeadSizes
    limit : int

    Members
    -------
    en : ``In(1)``, first : ``In(1)``
        A token; the counts begin with it.
    spikes : ``In(ArrayLayout(head_dim, T))``
    shift : ``In(1)``
        Go to the next step; after the last one comes the first.
    counts : ``Out(ArrayLayout(0..limit, head_dim))``
        Of the lowest step.
    """

    def __init__(self, sizes: HeadSizes, limit: int):
        self._sizes, self._limit = sizes, min(limit, sizes.tokens)
        self._shape = interval_shape(0, self._limit)
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "spikes": In(data.ArrayLayout(sizes.head_dim, sizes.steps)),
                "shift": In(1),
                "counts": Out(data.ArrayLayout(self._shape, sizes.head_dim)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, limit = self._sizes, self._limit
        steps = [Signal(self.counts.shape(), name=f"step{t}") for t in range(sizes.steps)]
        m.d.comb += self.counts.eq(steps[0])
        with m.If(self.shift):
            for t, counts in enumerate(steps):
                m.d.sync += counts.eq(steps[(t + 1) % sizes.steps])
        with m.Elif(self.en):
            for t, counts in enumerate(steps):
                for c in range(sizes.head_dim):
                    before = Mux(self.first, 0, counts[c])
                    total = before + self.spikes[t][c]
                    # At most `tokens` spikes: only a lower limit can be passed.
                    full = (before == limit) if limit < sizes.tokens else 0
                    m.d.sync += counts[c].eq(Mux(full, limit, exact(total, self._shape)))
        return m


class ColumnGates(wiring.Component):
    """A gate for every channel and step: neurons over the steps, driven by counts over the tokens.

    Latency: `done` comes `gate_delay` cycles after `last`; the gates are complete in the next cycle.
    Throughput: a token a cycle. Resources: `ColumnCounts` up to the threshold, a `LifCell` of ``head_dim``
    lanes, ``T * head_dim`` flip-flops.

    Parameters
    ----------
    sizes : HeadSizes
    threshold : int
        Of the neurons, in spikes.

    Members
    -------
    en : ``In(1)``, first : ``In(1)``, last : ``In(1)``
        A token; it is the head's first, its last one.
    spikes : ``In(ArrayLayout(head_dim, T))``
    done : ``Out(1)``
        Pulse: the gates are complete in the next cycle.
    shift : ``In(1)``
        Go to the next step; after the last one comes the first.
    gates : ``Out(head_dim)``
        Of the lowest step.
    """

    def __init__(self, sizes: HeadSizes, threshold: int):
        self._sizes = sizes
        self._counts = ColumnCounts(sizes, threshold)
        limit = min(threshold, sizes.tokens)
        # A count that stops at the threshold fires as one above it does, and leaves the same state.
        self._cell = LifCell(
            sizes.head_dim,
            interval_shape(0, limit),
            threshold=threshold,
            membrane=membrane_interval((0, limit), threshold, sizes.steps),
        )
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "last": In(1),
                "spikes": In(data.ArrayLayout(sizes.head_dim, sizes.steps)),
                "done": Out(1),
                "shift": In(1),
                "gates": Out(sizes.head_dim),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes = self._sizes
        m.submodules.counts = counts = self._counts
        m.submodules.cell = cell = self._cell
        firing, step, counted = Signal(), Signal(sizes.step), Signal()
        gates = [Signal(sizes.head_dim, name=f"gates{t}") for t in range(sizes.steps)]
        m.d.sync += [
            counts.en.eq(self.en),
            counts.first.eq(self.first),
            counts.spikes.eq(self.spikes),
            counted.eq(self.last),
            firing.eq(counted | firing & ~self.done),
            step.eq(Mux(firing, (step + 1)[: len(step)], 0)),
        ]
        m.d.comb += [
            counts.shift.eq(firing),
            cell.en.eq(firing),
            cell.last.eq(step == sizes.steps - 1),
            cell.x.eq(counts.counts),
            self.done.eq(firing & cell.last),
            self.gates.eq(gates[0]),
        ]
        with m.If(firing | self.shift):
            m.d.sync += [here.eq(above) for here, above in zip(gates, gates[1:], strict=False)]
            m.d.sync += gates[-1].eq(Mux(firing, cell.spikes, gates[0]))
        return m


def gate_delay(steps: int) -> int:
    """`ColumnGates`: from `last` to `done`."""
    return steps + 1
