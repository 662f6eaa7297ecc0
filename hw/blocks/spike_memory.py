"""The spike memory: words of `lanes` channels at all time steps, written piece by piece."""

from __future__ import annotations

from amaranth import Cat, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from s2tdpt.hw.blocks.reader import ReadPort
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes, SpikeWrite


class SpikeMemory(wiring.Component):
    """Memory of all spike maps, with one read port and two writers that never write in the same cycle.

    The steps that run beside the attention hand their spikes to it and write none here (`program`).

    Latency: 1 cycle to read, `records.VISIBLE_DELAY` from a write until it can be read; throughput: a read
    and a write a cycle.
    Resources: `spike_words` x lanes x T bits; a word of flip-flops.

    Parameters
    ----------
    program : Program
    sizes : Sizes

    Members
    -------
    read : In(ReadPort)
    layers, attention : In(SpikeWrite)
    """

    def __init__(self, program: Program, sizes: Sizes):
        self._program, self._sizes = program, sizes
        super().__init__(
            {
                "read": In(ReadPort(sizes, program.machine.lanes * program.network.timesteps)),
                "layers": In(SpikeWrite(program, sizes)),
                "attention": In(SpikeWrite(program, sizes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program, machine = self._program, self._program.machine
        word = machine.lanes * program.network.timesteps
        m.submodules.words = words = Memory(
            shape=word, depth=program.spike_words, init=[], attrs={"ram_style": "block", "no_rw_check": 1}
        )
        read, write = words.read_port(), words.write_port(granularity=program.piece_bits)
        m.d.comb += [read.en.eq(self.read.en), read.addr.eq(self.read.address), self.read.data.eq(read.data)]
        layers, attention = self.layers, self.attention
        subgroup = Mux(attention.en, attention.subgroup, layers.subgroup)
        final = Mux(attention.en, attention.final, layers.final)
        spikes = Mux(attention.en, attention.spikes, layers.spikes)
        enables, pieces = [], []
        for s in range(machine.subgroups):
            own = subgroup == s
            # The last piece also clears what lies above it in the word, left from an older map.
            enables.append((layers.en | attention.en) & (own | (final & (subgroup < s))))
            pieces.append(Mux(own, spikes, 0)[: program.piece_bits])
        m.d.sync += [
            write.addr.eq(Mux(attention.en, attention.address, layers.address)),
            write.en.eq(Cat(enables)),
            write.data.eq(Cat(pieces)),
        ]
        return m
