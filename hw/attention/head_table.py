"""Constants of every block and head, on chip: what an attention adds to the parameters of a network."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, index_shape
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program

__all__ = ["HeadTable", "table_memory"]


def _depth(words: int) -> int:
    """Words of the ROM."""
    return max(2, words)


def table_memory(program: Program, name: str, count: int, bits: int) -> Memory:
    """What `HeadTable` takes."""
    return Memory(name, _depth(program.network.depth * program.network.heads * count), bits, rom=True)


class HeadTable(wiring.Component):
    """Some words for every head, head by head and block by block in the order in which they are worked on.

    Latency: 2 cycles. Throughput: a word a cycle. Resources: a ROM, an adder and a register of addresses.

    Parameters
    ----------
    words : sequence of int
        Of all heads one after the other.
    count : int
        Words of a head.
    bits : int
        Of a word.

    Members
    -------
    clear : ``In(1)``
        Pulse: a frame begins, the head is the first one of the first block.
    ended : ``In(1)``
        Pulse: the head has ended; what is asked for in this cycle is still its own.
    en : ``In(1)``, index : ``In``
        Which of the head's words.
    word : ``Out(bits)``
        Kept while nothing is asked for.
    """

    def __init__(self, words: Sequence[int], count: int, bits: int):
        self._words, self._count, self._bits = list(words), count, bits
        super().__init__(
            {
                "clear": In(1),
                "ended": In(1),
                "en": In(1),
                "index": In(index_shape(count)),
                "word": Out(bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = _depth(len(self._words))
        m.submodules.words = words = memory.Memory(shape=self._bits, depth=depth, init=self._words)
        port = words.read_port()
        head, asked, address = Signal(index_shape(depth)), Signal(), Signal(index_shape(depth))
        m.d.sync += [asked.eq(self.en), address.eq(exact(head + self.index, address.shape()))]
        m.d.comb += [port.en.eq(asked), port.addr.eq(address), self.word.eq(port.data)]
        with m.If(self.ended):
            # Behind the last head it may wrap, and is then not used.
            m.d.sync += head.eq((head + self._count)[: len(head)])
        with m.If(self.clear):
            m.d.sync += head.eq(0)
        return m
