"""What passes between the stages of the attention unit, and the sizes that they share."""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from s2tdpt.hw.fixed import index_shape, interval_shape
from s2tdpt.hw.plan.program import PROJECTIONS, Program

Q, K, V = 0, 1, 2
"""Numbers of the projections."""

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
    operands : tuple of Operand
        What q, k and v are.
    emitted_bits : int
        Bits of one of their numbers on its way to the store.
    engines : int
        Row engines: time steps that a unit with rows works on in parallel.
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
        self.operands = tuple(net.attention.operand(kind) for kind in PROJECTIONS)
        self.emitted_bits = program.emitted_bits
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

    Parameters
    ----------
    sizes : HeadSizes
    counts : bool
        Spikes are counted.

    Members
    -------
    en : ``Out(1)``
    projection : ``Out(2)``
        `Q`, `K` or `V`.
    address, part : ``Out``
        Word ``head * tokens + token``, and which piece of it.
    spikes : ``Out(post_lanes * T * emitted_bits)``
    closes : ``Out(1)``
        Last piece of the word: `counts` is complete. Only with `counts`, like the next.
    counts : ``Out(T * count)``
        Spikes of this word so far, in every step.
    """

    def __init__(self, sizes: HeadSizes, counts: bool):
        members = {
            "en": Out(1),
            "projection": Out(2),
            "address": Out(sizes.word),
            "part": Out(sizes.part),
            "spikes": Out(sizes.part_bits * sizes.emitted_bits),
        }
        if counts:
            members |= {"closes": Out(1), "counts": Out(sizes.counts_bits)}
        super().__init__(members)
