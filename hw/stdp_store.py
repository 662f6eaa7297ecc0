"""Where q, k and v of a block wait for their head's turn."""

from __future__ import annotations

from amaranth import Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from s2tdpt.hw.program import Program
from s2tdpt.hw.stdp_records import BLOCK, SEPARATE, HeadSizes, HeadWrite, KeyValuePort, QueryPort

__all__ = ["HeadStore"]


class HeadStore(wiring.Component):
    """Spike counts of q and k, spikes of v, of all heads and tokens of a block.

    Address ``head * tokens + token``; a word that is being written must not be read. Heads are read once they
    are complete.

    Latency: read data in the cycle after the address; a word may be read in the cycle after its write.
    Throughput: a write and two reads (`queries`, `tokens`) a cycle. Resources: ``heads * tokens`` words of
    ``2 * T`` counts, ``T`` bits and ``head_slots * T`` spikes, in block memories where they are large.

    Parameters
    ----------
    program : Program

    Members
    -------
    write : ``In(HeadWrite)``
    queries : ``In(QueryPort)``
    tokens : ``In(KeyValuePort)``
    """

    def __init__(self, program: Program):
        self._sizes = HeadSizes(program)
        super().__init__(
            {
                "write": In(HeadWrite(self._sizes)),
                "queries": In(QueryPort(self._sizes)),
                "tokens": In(KeyValuePort(self._sizes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, write = self._sizes, self.write
        depth = sizes.heads * sizes.tokens
        counts = unsigned(sizes.counts_bits)
        m.submodules.query_counts = query_counts = memory.Memory(
            shape=counts, depth=max(2, depth), init=[], attrs=SEPARATE
        )
        m.submodules.key_counts = key_counts = memory.Memory(
            shape=counts, depth=max(2, depth), init=[], attrs=SEPARATE
        )
        m.submodules.value_steps = value_steps = memory.Memory(
            shape=unsigned(sizes.steps), depth=max(2, depth), init=[], attrs=SEPARATE
        )
        m.submodules.values = values = memory.Memory(
            shape=unsigned(sizes.value_bits), depth=max(2, depth), init=[], attrs=BLOCK
        )

        width = sizes.count.width
        for projection, store in enumerate((query_counts, key_counts, value_steps)):
            port = store.write_port()
            m.d.comb += [
                port.addr.eq(write.address),
                port.data.eq(write.counts),
                port.en.eq(write.en & write.closes & (write.projection == projection)),
            ]
            if store is value_steps:
                m.d.comb += [
                    port.data[t].eq(write.counts.word_select(t, width).any()) for t in range(sizes.steps)
                ]
        port = values.write_port(granularity=sizes.part_bits)
        m.d.comb += [port.addr.eq(write.address), port.data.eq(write.spikes.replicate(sizes.parts))]
        m.d.comb += [
            port.en[part].eq(write.en & (write.projection == 2) & (write.part == part))
            for part in range(sizes.parts)
        ]

        for reader, store, read_data in (
            (self.queries, query_counts, self.queries.counts),
            (self.tokens, key_counts, self.tokens.counts),
            (self.tokens, value_steps, self.tokens.active),
            (self.tokens, values, self.tokens.value),
        ):
            port = store.read_port()
            m.d.comb += [port.addr.eq(reader.address), port.en.eq(reader.en), read_data.eq(port.data)]
        return m
