"""Keys and values of a head, one token after the other."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.stdp_records import TOKENS, KeyValue
from s2tdpt.hw.attention.store import StorePort
from s2tdpt.hw.plan.program import Program

__all__ = ["TokenReader"]


class TokenReader(wiring.Component):
    """Hands the tokens of a head to the row engines, which all work on the same one.

    The next two tokens are read ahead, so that a token can begin in the cycle after the one before ends.
    Key counts and value follow a cycle behind: what ends a token need not reach their registers at once.

    Latency: the first token can begin 4 cycles after `start`. Throughput: a token in two cycles. Resources:
    two registers of a token's key counts and value.

    Parameters
    ----------
    program : Program

    Members
    -------
    base : ``In``
        Address of the head's token 0.
    start : ``In(1)``
        Pulse: begin to read; nothing of the head before is left.
    enable : ``In(1)``
        Tokens may begin.
    tokens : ``Out(StorePort)``, `TOKENS`
    token : ``Out(KeyValue)``
    done : ``In(1)``
        No row engine has more to do for the token in work after this cycle.
    finished : ``Out(1)``
        Pulse: and it was the last token.
    """

    def __init__(self, program: Program):
        self._sizes = sizes = HeadSizes(program)
        super().__init__(
            {
                "base": In(sizes.word),
                "start": In(1),
                "enable": In(1),
                "tokens": Out(StorePort(sizes, TOKENS)),
                "token": Out(KeyValue(sizes)),
                "done": In(1),
                "finished": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, port, token = self._sizes, self.tokens, self.token
        index = Signal(sizes.token)
        more = Signal()  # tokens are left to be read
        read, waits, busy = Signal(), Signal(), Signal()  # a token is in the memory's output, next, in work
        read_first, read_last, next_last, last = Signal(), Signal(), Signal(), Signal()
        accept = Signal()
        m.d.comb += [
            token.load.eq(self.enable & waits & (~busy | self.done)),
            accept.eq(read & ~waits),
            port.en.eq(more & (~read | accept)),
            self.finished.eq(busy & self.done & last),
        ]
        with m.If(self.start):
            m.d.sync += [port.address.eq(self.base), index.eq(0), more.eq(1)]
        with m.If(port.en):
            m.d.sync += [
                # The last increments may wrap, and are then not used.
                port.address.eq((port.address + 1)[: len(port.address)]),
                index.eq((index + 1)[: len(index)]),
                more.eq(index != sizes.tokens - 1),
                read_first.eq(index == 0),
                read_last.eq(index == sizes.tokens - 1),
            ]
        m.d.sync += [
            read.eq(port.en | read & ~accept),
            waits.eq(accept | waits & ~token.load),
            busy.eq(token.load | busy & ~self.done),
        ]
        counts, value = Signal(sizes.counts_bits), Signal(len(token.value))
        with m.If(accept):
            m.d.sync += [
                counts.eq(port.counts),
                value.eq(port.value[: len(value)]),
                token.active.eq(port.active),
                Cat(token.first, next_last).eq(Cat(read_first, read_last)),
            ]
        loaded = Signal()
        m.d.sync += loaded.eq(token.load)
        with m.If(token.load):
            m.d.sync += last.eq(next_last)
        with m.If(loaded):
            m.d.sync += [
                token.counts.eq(counts),
                token.value.eq(value),
                token.defines.eq(token.first),
            ]
        return m
