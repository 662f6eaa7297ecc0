"""Where q, k and v of a block wait for their head's turn: exactly what the attention reads of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from amaranth import Cat, Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import BLOCK, SEPARATE, HeadSizes, HeadWrite
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program

__all__ = ["Fields", "HeadStore", "Hold", "StorePort", "counts_spikes", "store_memories"]


class Hold(enum.Enum):
    """What is kept of the spikes of a head's token."""

    COUNTS = "counts"  # their number in every step
    STEPS = "steps"  # in which steps there is one
    SPIKES = "spikes"  # all of them, or the numbers in their place


Fields = Mapping[str, tuple[int, Hold]]
"""What a reader reads at an address, by name: of which projection, and what of it."""

_NAMES = {
    Hold.COUNTS: ("query_counts", "key_counts", "value_counts"),
    Hold.STEPS: ("query_steps", "key_steps", "value_steps"),
    Hold.SPIKES: ("queries", "keys", "values"),
}


def _bits(sizes: HeadSizes, projection: int, hold: Hold) -> int:
    numbers = sizes.value_bits * sizes.operands[projection].bits
    return {Hold.COUNTS: sizes.counts_bits, Hold.STEPS: sizes.steps, Hold.SPIKES: numbers}[hold]


def counts_spikes(ports: Mapping[str, Fields]) -> bool:
    """Whether spikes have to be counted for these readers."""
    return any(hold is not Hold.SPIKES for fields in ports.values() for _, hold in fields.values())


class StorePort(wiring.Signature):
    """What a reader reads, seen from the reader; delay 1.

    Members
    -------
    en : ``Out(1)``
    address : ``Out``
        ``head * tokens + token``.
    others : ``In``
        One of every field's name; kept while `en` is low. Counts lie step by step; of spikes channel ``c`` in
        step ``t`` is bit ``c * T + t``, or the number at this place.
    """

    def __init__(self, sizes: HeadSizes, fields: Fields):
        read = {name: In(_bits(sizes, *place)) for name, place in fields.items()}
        super().__init__({"en": Out(1), "address": Out(sizes.word), **read})


class HeadStore(wiring.Component):
    """What an attention reads of q, k and v, of all heads and tokens of a block.

    Address ``head * tokens + token``; a word that is being written must not be read. Heads are read once they
    are complete.

    Latency: read data in the cycle after the address; a word may be read in the cycle after its write.
    Throughput: a write and a read of every port a cycle. Resources: ``heads * tokens`` words of every field,
    ``T`` counts, ``T`` bits or ``head_slots * T`` spikes (or numbers as wide as the operand), in block
    memories where they are large.

    Parameters
    ----------
    program : Program
    ports : mapping of str to Fields
        The readers, by name. No field is read by two of them.

    Members
    -------
    write : ``In(HeadWrite)``
    others : ``In(StorePort)``
        One of every reader's name.
    """

    def __init__(self, program: Program, ports: Mapping[str, Fields]):
        self._sizes = HeadSizes(program)
        self._ports = ports
        counts = counts_spikes(ports)
        readers = {name: In(StorePort(self._sizes, fields)) for name, fields in ports.items()}
        super().__init__({"write": In(HeadWrite(self._sizes, counts)), **readers})

    def elaborate(self, platform):
        m = Module()
        depth = max(2, self._sizes.heads * self._sizes.tokens)
        stores = {}
        for fields in self._ports.values():
            for projection, hold in fields.values():
                attrs = BLOCK if hold is Hold.SPIKES else SEPARATE
                shape = unsigned(_bits(self._sizes, projection, hold))
                store = memory.Memory(shape=shape, depth=depth, init=[], attrs=attrs)
                m.submodules[_NAMES[hold][projection]] = stores[projection, hold] = store
        for (projection, hold), store in stores.items():
            if hold is not Hold.SPIKES:
                self._write_counts(m, projection, hold, store)
        for (projection, hold), store in stores.items():
            if hold is Hold.SPIKES:
                self._write_spikes(m, projection, store)
        for name, fields in self._ports.items():
            reader = getattr(self, name)
            for field, place in fields.items():
                port = stores[place].read_port()
                m.d.comb += [
                    port.addr.eq(reader.address),
                    port.en.eq(reader.en),
                    getattr(reader, field).eq(port.data),
                ]
        return m

    def _write_counts(self, m: Module, projection: int, hold: Hold, store: memory.Memory) -> None:
        sizes, write = self._sizes, self.write
        port = store.write_port()
        width = sizes.count.width
        m.d.comb += [
            port.addr.eq(write.address),
            port.data.eq(write.counts),
            port.en.eq(write.en & write.closes & (write.projection == projection)),
        ]
        if hold is Hold.STEPS:
            m.d.comb += [
                port.data[t].eq(write.counts.word_select(t, width).any()) for t in range(sizes.steps)
            ]

    def _write_spikes(self, m: Module, projection: int, store: memory.Memory) -> None:
        sizes, write = self._sizes, self.write
        bits = sizes.operands[projection].bits
        port = store.write_port(granularity=sizes.part_bits * bits)
        numbers = write.spikes
        if bits < sizes.emitted_bits:
            numbers = Cat(numbers.word_select(n, sizes.emitted_bits)[:bits] for n in range(sizes.part_bits))
        m.d.comb += [port.addr.eq(write.address), port.data.eq(numbers.replicate(sizes.parts))]
        m.d.comb += [
            port.en[part].eq(write.en & (write.projection == projection) & (write.part == part))
            for part in range(sizes.parts)
        ]


def store_memories(program: Program, ports: Mapping[str, Fields]) -> list[Memory]:
    """What `HeadStore` takes."""
    sizes = HeadSizes(program)
    depth = max(2, sizes.heads * sizes.tokens)
    found = []
    for fields in ports.values():
        for projection, hold in fields.values():
            name, bits = f"{hold.value} of {'qkv'[projection]}", _bits(sizes, projection, hold)
            if hold is Hold.SPIKES:
                found.append(Memory(name, depth, bits, style="block", granularity=bits // sizes.parts))
            else:
                found.append(Memory(name, depth, bits))
    return found
