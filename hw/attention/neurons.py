"""From rows to spikes: the neurons of the attention, and the words they make."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Shape, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.blocks.lif import LifCell
from s2tdpt.hw.blocks.neuron import membrane_interval
from s2tdpt.hw.fixed import exact, interval_shape
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes, SpikeWrite, bits_for

__all__ = ["HeadWord", "HeadWriter", "RowNeurons", "y_shape_of"]


def y_shape_of(interval: Interval) -> Shape:
    """Shape of a sum, 0 included."""
    return interval_shape(min(0, interval.lo), max(0, interval.hi))


class HeadWord(wiring.Signature):
    """Output spikes of one token in one head, seen from the neurons.

    Members
    -------
    en : ``Out(1)``
    spikes : ``Out(head_dim * T)``
        Channel ``c`` in step ``t`` is bit ``c * T + t``.
    token, head : ``Out``
    """

    def __init__(self, sizes: HeadSizes):
        super().__init__(
            {
                "en": Out(1),
                "spikes": Out(sizes.head_dim * sizes.steps),
                "token": Out(sizes.token),
                "head": Out(sizes.head),
            }
        )


class RowNeurons(wiring.Component):
    """LIF over the time steps of every token's rows, which come step by step, token by token, head by head.

    Latency: combinational from the row of the last step to `word`. Throughput: a row a cycle. Resources: a
    `LifCell` of ``head_dim`` lanes (none where the rows are spikes and the neurons pass them on),
    ``head_dim * (T - 1)`` flip-flops, counters; where blocks differ in the neurons' law, its number.

    Parameters
    ----------
    program : Program
    threshold : int
        Firing threshold, in the units of the weights; the law of a block may change it.
    y : Interval
        Of the sums.

    Members
    -------
    en : ``In(1)``
    sums : ``In(ArrayLayout(y, head_dim))``
        A row.
    token, head, step : ``Out``
        Whose row is next.
    word : ``Out(HeadWord)``
    """

    def __init__(self, program: Program, threshold: int, y: Interval):
        self._sizes = sizes = HeadSizes(program)
        self._y_shape = y_shape_of(y)
        ends = min(0, y.lo), max(0, y.hi)
        self._laws = laws = program.attention_laws
        self._forms = {law.form: law for law in reversed(laws)}
        self._thresholds = thresholds = [law.threshold(threshold) for law in laws]
        blocks = list(zip(laws, thresholds, strict=True))
        self._cell = None
        if ends != (0, 1) or not all(law.passes_spikes(theta) for law, theta in blocks):
            membranes = [membrane_interval(ends, theta, sizes.steps, [law]) for law, theta in blocks]
            alike = len(set(thresholds)) == 1
            self._cell = LifCell(
                sizes.head_dim,
                self._y_shape,
                threshold=thresholds[0] if alike else unsigned(bits_for(max(thresholds))),
                membrane=(min(lo for lo, _ in membranes), max(hi for _, hi in membranes)),
                laws=tuple(self._forms.values()),
            )
        super().__init__(
            {
                "en": In(1),
                "sums": In(data.ArrayLayout(self._y_shape, sizes.head_dim)),
                "token": Out(sizes.token),
                "head": Out(sizes.head),
                "step": Out(sizes.step),
                "word": Out(HeadWord(sizes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, word = self._sizes, self.word
        steps, width = sizes.steps, sizes.head_dim
        last = Signal(init=steps == 1)  # `step` is the last one
        spikes = self.sums.as_value()
        if self._cell is not None:
            m.submodules.cell = cell = self._cell
            m.d.comb += [cell.en.eq(self.en), cell.last.eq(last), cell.x.eq(self.sums)]
            spikes = cell.spikes
            self._choose_law(m, cell)
        m.d.comb += [
            word.en.eq(self.en & last),
            word.token.eq(self.token),
            word.head.eq(self.head),
        ]
        before = width * (steps - 1)
        earlier = Signal(max(1, before))  # spikes of the steps before, the oldest lowest
        history = Cat(earlier[:before], spikes)
        m.d.comb += word.spikes.eq(Cat(history[t * width + c] for c in range(width) for t in range(steps)))
        with m.If(self.en):
            m.d.sync += [
                earlier.eq(history[width:]),
                self.step.eq(exact(self.step + 1, self.step.shape())),
                last.eq(self.step == steps - 2),
            ]
        with m.If(word.en):
            m.d.sync += [last.eq(steps == 1), self.step.eq(0)]
            m.d.sync += self.token.eq(exact(self.token + 1, self.token.shape()))
            with m.If(self.token == sizes.tokens - 1):
                m.d.sync += [self.token.eq(0), self.head.eq(exact(self.head + 1, self.head.shape()))]
                with m.If(self.head == sizes.heads - 1):
                    m.d.sync += self.head.eq(0)
        return m

    def _choose_law(self, m: Module, cell: LifCell) -> None:
        """The law and the threshold of the block whose rows come, where blocks differ in them."""
        if hasattr(cell, "step"):
            m.d.comb += cell.step.eq(self.step)
        if not hasattr(cell, "law") and not hasattr(cell, "threshold"):
            return
        block = Signal(range(len(self._laws)))  # blocks come in order, image after image
        if hasattr(cell, "law"):
            forms = list(self._forms)
            m.d.comb += cell.law.eq(Array(forms.index(law.form) for law in self._laws)[block])
        if hasattr(cell, "threshold"):
            theta = Array(self._thresholds)[block]
            m.d.comb += [threshold.eq(theta) for threshold in cell.threshold]
        ends = self.word.en & (self.token == self._sizes.tokens - 1) & (self.head == self._sizes.heads - 1)
        with m.If(ends):
            following = exact(block + 1, block.shape())
            m.d.sync += block.eq(Mux(block == len(self._laws) - 1, 0, following))


class HeadWriter(wiring.Component):
    """Writes the words of the heads into the spike memory, piece by piece.

    A head lies beside the one before it in the words of a token. Addresses are counted, not computed: the
    first token of a head begins where that of the head before ended.

    Latency: the first piece is at `write` in the cycle after `word`; `blocks` counts in the cycle after the
    last piece of the token that is `lead` tokens before the last one. Throughput: a piece a cycle, a word not
    before ``parts`` cycles. Resources: a register of a word, three addresses, an adder.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    lead : int
        Tokens that may still be on their way when the block counts (`timeline.attention_lead`).

    Members
    -------
    clear : ``In(1)``
        Pulse: no block is complete. Nothing is written then.
    base : ``In(spike_address)``
        Of the block, stable from its first to its last word.
    word : ``In(HeadWord)``
    write : ``Out(SpikeWrite)``
    blocks : ``Out``
        Blocks that may be read.
    """

    def __init__(self, program: Program, sizes: Sizes, lead: int):
        self._program, self._lead = program, lead
        self._sizes = HeadSizes(program)
        super().__init__(
            {
                "clear": In(1),
                "base": In(sizes.spike_address),
                "word": In(HeadWord(self._sizes)),
                "write": Out(SpikeWrite(program, sizes)),
                "blocks": Out(bits_for(program.network.depth)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, word, write = self._sizes, self.word, self.write
        place = data.StructLayout({"address": write.address.shape(), "subgroup": write.subgroup.shape()})
        here, after = Signal(place), Signal(place)  # of a piece, and of the piece behind it
        begins = Signal(place)  # of the word that arrives
        left = Signal(sizes.part)  # pieces behind this one
        pieces = Signal(sizes.value_bits)
        first_token, readable_token, last_head, last_piece = Signal(), Signal(), Signal(), Signal()
        readable = sizes.tokens - 1 - self._lead
        self._begin(m, place, begins, after, last_piece & first_token)
        m.d.comb += [
            last_piece.eq(write.en & (left == 0)),
            write.address.eq(here.address),
            write.subgroup.eq(here.subgroup),
            write.spikes.eq(pieces[: sizes.part_bits]),
            write.final.eq(last_piece & last_head),
            after.address.eq(here.address),
            after.subgroup.eq(exact(here.subgroup + 1, write.subgroup.shape())),
        ]
        with m.If(here.subgroup == self._program.machine.subgroups - 1):
            m.d.comb += [
                # Behind the last piece there may be no word; the address is then not used.
                after.address.eq((here.address + 1)[: len(write.address)]),
                after.subgroup.eq(0),
            ]
        m.d.sync += [here.eq(after), pieces.eq(pieces >> sizes.part_bits), left.eq((left - 1)[: len(left)])]
        with m.If(last_piece):
            m.d.sync += write.en.eq(0)
        with m.If(word.en):
            m.d.sync += [
                write.en.eq(1),
                here.eq(begins),
                pieces.eq(word.spikes),
                left.eq(sizes.parts - 1),
                first_token.eq(word.token == 0),
                readable_token.eq(word.token == readable),
                last_head.eq(word.head == sizes.heads - 1),
            ]
        with m.If(last_piece & readable_token & last_head):
            m.d.sync += self.blocks.eq(exact(self.blocks + 1, self.blocks.shape()))
        with m.If(self.clear):
            m.d.sync += self.blocks.eq(0)
        return m

    def _begin(self, m: Module, place: data.StructLayout, begins: Signal, after: Signal, head_ends: Signal):
        """Where the word that arrives begins: at the block's base, behind the head before, or a token on."""
        word, groups = self.word, self._program.head_packing.groups
        next_head, next_token = Signal(place), Signal(place)
        with m.If(word.token != 0):
            m.d.comb += begins.eq(next_token)
        with m.Elif(word.head != 0):
            m.d.comb += begins.eq(next_head)
        with m.Else():
            m.d.comb += [begins.address.eq(self.base), begins.subgroup.eq(0)]
        with m.If(word.en):
            m.d.sync += [
                # Behind the last token there may be no word; the address is then not used.
                next_token.address.eq((begins.address + groups)[: len(begins.address)]),
                next_token.subgroup.eq(begins.subgroup),
            ]
        with m.If(head_ends):
            m.d.sync += next_head.eq(after)
