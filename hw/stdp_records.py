"""What passes between the stages of the attention unit, and the sizes that they share."""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import index_shape, interval_shape
from s2tdpt.hw.program import Program

REUSE = 3
"""Cycles from an update of a row to the next one of the same row, at least."""


SEPARATE = {"no_rw_check": 1}
"""Memory attributes: no word is read while it is written, or what is read then does not matter."""

BLOCK = {"ram_style": "block", **SEPARATE}
"""The same, in block memory."""


class HeadSizes:
    """Numbers of one head, for one program.

    Attributes
    ----------
    steps, tokens, heads, head_dim : int
        T, N, heads of a block, channels of a head.
    parts, part_bits : int
        Pieces of a head's word and spikes of a piece.
    engines : int
        Row engines: time steps that are updated in parallel.
    entries : int
        Spike counts that the queries of a head can have in one step, at most.
    count, token, head, part, step, word : Shape
        Shapes of a spike count, of the indices of a token, head, part and step, and of the address of a
        head's token, ``head * tokens + token``.
    """

    def __init__(self, program: Program):
        net, machine = program.network, program.machine
        self.steps, self.tokens, self.heads = net.timesteps, net.tokens, net.heads
        self.head_dim = net.head_dim
        self.parts = program.head_packing.head_slots // machine.post_lanes
        self.part_bits = program.piece_bits
        self.engines = min(machine.attention_steps, net.timesteps)
        self.entries = min(net.tokens, net.head_dim + 1)
        self.count = interval_shape(0, net.head_dim)
        self.token, self.head = index_shape(net.tokens), index_shape(net.heads)
        self.part, self.step = index_shape(self.parts), index_shape(net.timesteps)
        self.word = index_shape(net.heads * net.tokens)

    @property
    def counts_bits(self) -> int:
        """The counts of all time steps, side by side."""
        return self.steps * self.count.width

    @property
    def value_bits(self) -> int:
        """The spikes of a head: channel ``c`` in step ``t`` is bit ``c * T + t``."""
        return self.parts * self.part_bits

    def steps_of(self, engine: int) -> range:
        """Time steps that a row engine serves."""
        return range(engine, self.steps, self.engines)

    def local_step(self, engine: int) -> int:
        """Bits that tell the steps of a row engine apart; may be none."""
        return (len(self.steps_of(engine)) - 1).bit_length()


class HeadWrite(wiring.Signature):
    """A piece of a head on its way into the head store, seen from its source.

    Members
    -------
    en : ``Out(1)``
    projection : ``Out(2)``
        0: q, 1: k, 2: v.
    address, part : ``Out``
        Word ``head * tokens + token``, and which piece of it.
    spikes : ``Out(post_lanes * T)``
    closes : ``Out(1)``
        Last piece of the word: `counts` is complete.
    counts : ``Out(T * count)``
        Spikes of this word so far, in every step.
    """

    def __init__(self, sizes: HeadSizes):
        super().__init__(
            {
                "en": Out(1),
                "projection": Out(2),
                "address": Out(sizes.word),
                "part": Out(sizes.part),
                "spikes": Out(sizes.part_bits),
                "closes": Out(1),
                "counts": Out(sizes.counts_bits),
            }
        )


class QueryPort(wiring.Signature):
    """Spike counts of the queries, seen from their reader; delay 1.

    Members
    -------
    en : ``Out(1)``
    address : ``Out``
    counts : ``In(T * count)``
        Kept while `en` is low.
    """

    def __init__(self, sizes: HeadSizes):
        super().__init__({"en": Out(1), "address": Out(sizes.word), "counts": In(sizes.counts_bits)})


class KeyValuePort(wiring.Signature):
    """Spike counts of the keys, and the values, seen from their reader; delay 1.

    Members
    -------
    en : ``Out(1)``
    address : ``Out``
    counts : ``In(T * count)``
        Of the key. Kept, like the others, while `en` is low.
    active : ``In(T)``
        Steps in which the value has a spike.
    value : ``In(value_bits)``
    """

    def __init__(self, sizes: HeadSizes):
        super().__init__(
            {
                "en": Out(1),
                "address": Out(sizes.word),
                "counts": In(sizes.counts_bits),
                "active": In(sizes.steps),
                "value": In(sizes.value_bits),
            }
        )


class RowRequest(wiring.Signature):
    """A row to be handed to the neurons, seen from who asks every row engine for it.

    Members
    -------
    en : ``Out(engines)``
        The engine of the step.
    step : ``Out``
        Which of the steps of that engine.
    count : ``Out``
        Spike count of the query.
    """

    def __init__(self, sizes: HeadSizes):
        super().__init__(
            {
                "en": Out(sizes.engines),
                "step": Out(index_shape(len(sizes.steps_of(0)))),
                "count": Out(sizes.count),
            }
        )


class KeyValue(wiring.Signature):
    """The token that the row engines work on, seen from its reader.

    Members
    -------
    load : ``Out(1)``
        A token begins in the next cycle; `active` and `first` speak of it.
    active : ``Out(T)``
        Steps in which its value has a spike.
    first : ``Out(1)``
        It is token 0.
    counts : ``Out(T * count)``, value : ``Out(head_dim * T)``
        Key counts and value of the token that was in work in the cycle before.
    defines : ``Out(1)``
        That was token 0: rows begin with it.
    """

    def __init__(self, sizes: HeadSizes):
        super().__init__(
            {
                "load": Out(1),
                "active": Out(sizes.steps),
                "first": Out(1),
                "counts": Out(sizes.counts_bits),
                "value": Out(sizes.head_dim * sizes.steps),
                "defines": Out(1),
            }
        )


class CountList(wiring.Signature):
    """The spike counts that occur in one step, seen from who reads them.

    Members
    -------
    index : ``Out``
        Which of them.
    count : ``In``
        The count, in the same cycle.
    top : ``In``
        Index of the last one.
    single, few : ``In(1)``
        There is only one; there are less than `REUSE`.
    """

    def __init__(self, sizes: HeadSizes):
        index = index_shape(sizes.entries)
        super().__init__(
            {"index": Out(index), "count": In(sizes.count), "top": In(index), "single": In(1), "few": In(1)}
        )


class RowUse(wiring.Signature):
    """A row on its way into the row memory of an engine, seen from who chose it.

    Members
    -------
    row : ``Out``
        Its address.
    en : ``Out(1)``
    emits : ``Out(1)``
        It is handed to the neurons, not added to.
    defines : ``Out(1)``
        It is zero before the addition.
    key, query : ``Out``
        Spike counts that the weight follows from.
    mask : ``Out(head_dim)``
        Channels of the value that spike.
    """

    def __init__(self, sizes: HeadSizes, engine: int):
        super().__init__(
            {
                "row": Out(sizes.local_step(engine) + sizes.count.width),
                "en": Out(1),
                "emits": Out(1),
                "defines": Out(1),
                "key": Out(sizes.count),
                "query": Out(sizes.count),
                "mask": Out(sizes.head_dim),
            }
        )


def zero_row(sizes: HeadSizes, engine: int) -> int:
    """Address of a row of an engine that stays zero, behind one row for every count and step.

    The step is in the lowest address bits.
    """
    return (sizes.head_dim + 1) << sizes.local_step(engine)


def row_depth(sizes: HeadSizes, engine: int) -> int:
    """Rows of an engine, the zero row included."""
    return zero_row(sizes, engine) + 1
