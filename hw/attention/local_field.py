"""Local receptive field in hardware: depthwise 3x3 kernels, dilated, on the spikes of V."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from amaranth import Array, Cat, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.attention.lrf import TAPS, offsets
from s2tdpt.hw.attention.accesses import HeadAccesses
from s2tdpt.hw.attention.columns import steps_of_word
from s2tdpt.hw.attention.head_table import HeadTable, table_memory
from s2tdpt.hw.attention.records import HeadSizes, V
from s2tdpt.hw.attention.store import HeadStore, Hold, StorePort
from s2tdpt.hw.fixed import exact, index_shape, onehot_index, without_lowest
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program

if TYPE_CHECKING:
    from s2tdpt.golden.attention.lrf import LocalField as Options
    from s2tdpt.golden.params import Params

__all__ = [
    "SUMS_DELAY",
    "TAP_BITS",
    "VALUES",
    "LocalField",
    "add_field",
    "field_memories",
    "joined",
    "share_values",
    "taps_of",
    "taps_of_tokens",
]

VALUES = {"value": (V, Hold.SPIKES)}
"""What is read of a token."""

TAP_BITS = 8
"""Of a tap."""

SUMS_DELAY = 4
"""From the last tap of a round to its sums."""


def _on_map(program: Program, dilations: Sequence[int]) -> np.ndarray:
    """bool [N, taps]: which taps of every token lie on the map."""
    height, width = program.network.map_size(-1)
    row, column = np.divmod(np.arange(height * width), width)
    rows, columns = np.array(offsets(tuple(dilations))).T
    row, column = row[:, None] + rows, column[:, None] + columns
    return (row >= 0) & (row < height) & (column >= 0) & (column < width)


def taps_of_tokens(program: Program, dilations: Sequence[int]) -> np.ndarray:
    """Taps of every token that lie on the map, int [N]; at least one, its own."""
    return _on_map(program, dilations).sum(1)


def taps_of(params: Params) -> list[np.ndarray]:
    """Taps of every block, ``[D, taps]``."""
    return [params.attention(block)[TAPS] for block in range(params.config.depth)]


def joined(options: Options, layout: data.ArrayLayout, y: data.View, field: data.View) -> Value:
    """``(Y << y_shift) + (field << tap_shift)`` of every channel, in `layout`."""
    pairs = zip(y, field, strict=True)
    # The proven interval of Y covers both.
    return Cat(exact((a << options.y_shift) + (b << options.tap_shift), layout.elem_shape) for a, b in pairs)


def share_values(
    m: Module, store: HeadStore, field: LocalField, reader: wiring.PureInterface, wanted: Value | int = 1
) -> None:
    """The values are read by a `reader` of tokens first, as long as they are `wanted`, then by the field: one
    port serves both."""
    m.d.comb += [
        store.values.address.eq(Mux(field.values.en, field.values.address, reader.address)),
        store.values.en.eq(field.values.en | (reader.en & wanted)),
        field.values.value.eq(store.values.value),
        reader.value.eq(store.values.value),
    ]


def add_field(found: HeadAccesses, program: Program, v: np.ndarray) -> None:
    """Accesses and additions of the field for a head whose V is given, ``[T, N, d_h]``."""
    sizes, dilations = HeadSizes(program), program.network.attention.lrf
    inside = _on_map(program, dilations)
    rounds = -(-sizes.steps // sizes.engines)
    for name in ("spikes of v", "taps of the field"):
        found.reads[name] += rounds * int(inside.sum())
    # A spike is added to every token on whose field it lies: as many as lie on its own, mirrored.
    _, width = program.network.map_size(-1)
    tokens, taps = np.nonzero(inside)
    rows, columns = np.array(offsets(tuple(dilations))).T
    seen = tokens + rows[taps] * width + columns[taps]
    found.additions[TAP_BITS + 4] += int(v.sum((0, 2), dtype=np.int64)[seen].sum())


def field_memories(program: Program, dilations: Sequence[int]) -> list[Memory]:
    """The taps of all blocks and heads."""
    bits = program.network.head_dim * TAP_BITS
    return [table_memory(program, "taps of the field", len(offsets(tuple(dilations))), bits)]


class LocalField(wiring.Component):
    """Adds up the taps of a token, one a cycle and engine; those outside of the map take no cycle.

    It works in rounds like the engines of `ssa`: in each of them every engine adds up the taps of one step of
    the token. The centre always lies on the map, so that every round has a tap.

    Latency: the sums of a round are there `SUMS_DELAY` cycles after its last tap, for one cycle at least.
    Throughput: a tap a cycle. Resources: a ROM of a word of ``head_dim`` taps for every block, head and tap;
    in each engine ``head_dim`` adders and registers of a sum; comparators of rows and columns, a priority
    tree.

    Parameters
    ----------
    program : Program
    dilations : sequence of int
    taps : list of array of int
        Of every block, ``[D, taps]``, in the order of `golden.attention.lrf.offsets`.
    sum_shape : Shape
        Of the sums (`golden.attention.lrf.field_interval`).

    Members
    -------
    clear : ``In(1)``
        Pulse: a frame begins, the taps are those of the first block.
    begin : ``In(1)``, base : ``In``
        Pulse: a head begins, whose token 0 has that address.
    end : ``In(1)``
        Pulse, in the cycle of the last tap or after it: the head has ended.
    advance : ``In(1)``, round : ``In``, last : ``In(1)``
        A round begins in the next cycle; which of its token, and that it is the last one: the next round is
        that of the next token.
    single : ``Out(1)``
        Its round has no tap after this cycle's.
    values : ``Out(StorePort)``, `VALUES`
    own : ``Out(1)``
        What is asked for is the token's own value: the first of every round.
    sums : ``Out(ArrayLayout(sum_shape, head_dim))``, array, one an engine

    References
    ----------
    arXiv 2603.19290, local receptive field. Software twin: `golden.attention.lrf`.
    """

    def __init__(self, program: Program, dilations: Sequence[int], taps: list[np.ndarray], sum_shape: Shape):
        self._program, self._dilations, self._taps = program, tuple(dilations), taps
        self._sizes = sizes = HeadSizes(program)
        self._sum_shape = sum_shape
        rounds = -(-sizes.steps // sizes.engines)
        sums = data.ArrayLayout(sum_shape, sizes.head_dim)
        super().__init__(
            {
                "clear": In(1),
                "begin": In(1),
                "base": In(sizes.word),
                "end": In(1),
                "advance": In(1),
                "round": In(index_shape(rounds)),
                "last": In(1),
                "single": Out(1, init=1),
                "values": Out(StorePort(sizes, VALUES)),
                "own": Out(1),
                "sums": Out(sums).array(sizes.engines),
            }
        )

    def _words(self) -> list[int]:
        """Contents of the ROM: block by block, head by head, tap by tap; channel 0 lowest."""
        words = []
        for block in self._taps:
            for head in np.split(np.asarray(block, np.int8), self._sizes.heads):
                for tap in head.T:
                    words.append(int.from_bytes(tap.astype(np.int8).tobytes(), "little"))
        return words

    def elaborate(self, platform):
        m = Module()
        sizes, count = self._sizes, len(offsets(self._dilations))
        token = self._place(m)
        pending, others, first = Signal(count), Signal(count), Signal()
        todo, step = Signal(count), Signal(self.round.shape())
        m.d.comb += todo.eq(Mux(self.advance, self._valid(m), others))
        m.d.sync += [
            pending.eq(todo),
            others.eq(without_lowest(todo)),
            self.single.eq(without_lowest(todo) == 0),
            first.eq(self.advance),
        ]
        with m.If(self.advance):
            m.d.sync += step.eq(self.round)

        # The tap of this cycle; its addresses, its words, the spikes and taps in registers, the sums.
        chosen, place = Signal(count), Signal(sizes.word)
        m.d.comb += chosen.eq(pending & ~others)
        _, width = self._program.network.map_size(-1)
        distances = Array([rows * width + columns for rows, columns in offsets(self._dilations)])
        tap = Signal(index_shape(count))
        m.d.comb += tap.eq(onehot_index(chosen))
        with m.If(self.advance):
            m.d.sync += place.eq(token)
        layout = data.StructLayout({"en": 1, "first": 1, "step": self.round.shape()})
        asked, fetched, ready = Signal(layout), Signal(layout), Signal(layout)
        m.submodules.taps = taps = HeadTable(self._words(), count, sizes.head_dim * TAP_BITS)
        m.d.comb += [
            *(taps.clear.eq(self.clear), taps.ended.eq(self.end)),
            *(taps.en.eq(pending.any()), taps.index.eq(tap)),
        ]
        m.d.sync += [
            asked.en.eq(pending.any()),
            asked.first.eq(first),
            asked.step.eq(step),
            # Taps on the map lie in the head.
            self.values.address.eq((place + distances[tap])[: len(place)]),
            fetched.eq(asked),
            ready.eq(fetched),
        ]
        m.d.comb += [self.values.en.eq(asked.en), self.own.eq(asked.en & asked.first)]
        weights = Signal(data.ArrayLayout(signed(TAP_BITS), sizes.head_dim))
        m.d.sync += weights.eq(taps.word)
        for engine in range(sizes.engines):
            self._add(m, engine, fetched, ready, weights)
        return m

    def _place(self, m: Module) -> Signal:
        """Address of the token whose round begins next."""
        height, width = self._program.network.map_size(-1)
        token = Signal(self._sizes.word)
        self._row, self._column = Signal(index_shape(height)), Signal(index_shape(width))
        with m.If(self.begin):
            m.d.sync += [token.eq(self.base), self._row.eq(0), self._column.eq(0)]
        with m.Elif(self.advance & self.last):
            m.d.sync += [
                # Behind the last token they may wrap, and are then not used.
                token.eq((token + 1)[: len(token)]),
                self._column.eq((self._column + 1)[: len(self._column)]),
            ]
            with m.If(self._column == width - 1):
                m.d.sync += [self._column.eq(0), self._row.eq((self._row + 1)[: len(self._row)])]
        return token

    def _valid(self, m: Module) -> Signal:
        """The taps of that token that lie on the map."""
        height, width = self._program.network.map_size(-1)

        def inside(place, distance, size):
            if distance >= 0:
                return place < max(0, size - distance)
            return place >= -distance

        pairs = offsets(self._dilations)
        valid = Signal(len(pairs))
        for tap, (rows, columns) in enumerate(pairs):
            m.d.comb += valid[tap].eq(inside(self._row, rows, height) & inside(self._column, columns, width))
        return valid

    def _add(self, m: Module, engine: int, fetched: data.View, ready: data.View, weights: data.View) -> None:
        sizes, sums = self._sizes, self.sums[engine]
        steps = steps_of_word(self.values.value, sizes)
        mine = [steps[t] for t in sizes.steps_of(engine)]
        mine += [0] * ((1 << len(fetched.step)) - len(mine))
        spikes = Signal(sizes.head_dim, name=f"spikes{engine}")
        m.d.sync += spikes.eq(Array(mine)[fetched.step])
        with m.If(ready.en):
            for channel in range(sizes.head_dim):
                tap = Mux(spikes[channel], weights[channel], 0)
                # The proven interval covers partial sums.
                total = Mux(ready.first, 0, sums[channel]) + tap
                m.d.sync += sums[channel].eq(exact(total, self._sum_shape))
