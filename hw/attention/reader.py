"""The tokens of a head, read once a cycle each and then again at the pace of the neurons."""

from __future__ import annotations

from amaranth import Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.store import Fields, StorePort
from s2tdpt.hw.fixed import exact, index_shape
from s2tdpt.hw.plan.program import Program

__all__ = ["PassReader", "TokenRows", "step_shift"]


class PassReader(wiring.Component):
    """Base of the readers: goes through the addresses of a head.

    Throughput: a token a cycle in the first pass; in the second one a token in ``max(T, parts)`` cycles (its
    ``T`` rows go to the neurons one by one, its output has `parts` pieces). `emitted` comes
    ``tokens * max(T, parts)`` cycles after `emit`. Resources: counters of tokens and addresses.

    Parameters
    ----------
    program : Program
    port : str
        Name of the member to the head store.
    fields : Fields
        What is read.
    scans : bool
        There is a first pass.
    paced : bool
        In the second pass a token has its time until `next`.
    more : wiring.Member
        Other members of a reader.

    Members
    -------
    base : ``In``
        Address of the head's token 0.
    scan, emit : ``In(1)``
        Pulse: begin the first, the second pass. `scan` only with `scans`.
    next : ``In(1)``
        The next token. Only with `paced`.
    emitted : ``Out(1)``
        Pulse: the head's last token has had its time.
    """

    def __init__(
        self,
        program: Program,
        port: str,
        fields: Fields,
        scans: bool = True,
        paced: bool = False,
        **more: wiring.Member,
    ):
        self._sizes = sizes = HeadSizes(program)
        self._port, self._scans, self._paced = port, scans, paced
        members = {"base": In(sizes.word), "scan": In(1), "emit": In(1), port: Out(StorePort(sizes, fields))}
        if not scans:
            del members["scan"]
        if paced:
            members["next"] = In(1)
        super().__init__({**members, **more, "emitted": Out(1)})

    def _walk(self, m: Module) -> tuple[Signal, Signal, Value]:
        """A word arrives from the store; it is the head's last one; the second pass is on."""
        sizes, port = self._sizes, getattr(self, self._port)
        period = 2 if self._paced else max(sizes.steps, sizes.parts)
        begin = self.scan | self.emit if self._scans else self.emit
        active, emitting = Signal(), Signal() if self._scans else Const(1, 1)
        token, phase = Signal(sizes.token), Signal(index_shape(period))
        last_token, last_phase = Signal(), Signal()
        m.d.comb += [
            port.en.eq(active & (phase == 0)),
            last_token.eq(token == sizes.tokens - 1),
            last_phase.eq(~emitting | (self.next if self._paced else phase == period - 1)),
        ]
        if not self._paced:
            m.d.comb += self.emitted.eq(active & emitting & last_token & last_phase)
        with m.If(begin):
            m.d.sync += [active.eq(1), token.eq(0), phase.eq(0), port.address.eq(self.base)]
            if self._scans:
                m.d.sync += emitting.eq(self.emit)
        with m.Elif(active):
            m.d.sync += phase.eq(1 if self._paced else exact(phase + 1, phase.shape()))
            with m.If(last_phase):
                m.d.sync += [
                    phase.eq(0),
                    # The last increment is that of the last token; it may wrap, and is then not used.
                    token.eq((token + 1)[: len(token)]),
                    port.address.eq((port.address + 1)[: len(port.address)]),
                    active.eq(~last_token),
                ]
        read, last_read = Signal(), Signal()
        m.d.sync += [read.eq(port.en), last_read.eq(last_token)]
        return read, last_read, emitting


class TokenRows(PassReader):
    """Says when a word of either pass is at the port, and which step of it is due.

    Latency: the first word of a pass is at the port 2 cycles after `scan` or `emit`, its first row due in the
    cycle after.

    Parameters
    ----------
    program, fields, scans
        As in `PassReader`.

    Members
    -------
    tokens : ``Out(StorePort)``
    counts : ``Out(1)``, first : ``Out(1)``, scanned : ``Out(1)``
        A word of the first pass is at the port; it is token 0; it is the last token. Only with `scans`.
    load : ``Out(1)``
        A word of the second pass is at the port.
    row_en : ``Out(1)``, row_last : ``Out(1)``
        The row of a step is due, beginning with step 0; it is that of the last step.
    """

    def __init__(self, program: Program, fields: Fields, scans: bool = True):
        scan = {"counts": Out(1), "first": Out(1), "scanned": Out(1)} if scans else {}
        super().__init__(
            program, "tokens", fields, scans, **scan, load=Out(1), row_en=Out(1), row_last=Out(1)
        )

    def elaborate(self, platform):
        m = Module()
        sizes = self._sizes
        read, last_read, emitting = self._walk(m)
        m.d.comb += self.load.eq(read & emitting)
        if self._scans:
            m.d.comb += [self.counts.eq(read & ~emitting), self.scanned.eq(self.counts & last_read)]
            begun = Signal()  # a word of this pass has come
            m.d.comb += self.first.eq(self.counts & ~begun)
            m.d.sync += begun.eq(~self.scan & (begun | self.counts))
        step = Signal(sizes.step)
        m.d.comb += self.row_last.eq(step == sizes.steps - 1)
        with m.If(self.load):
            m.d.sync += [self.row_en.eq(1), step.eq(0)]
        with m.Elif(self.row_last):
            m.d.sync += self.row_en.eq(0)
        with m.Else():
            m.d.sync += step.eq((step + 1)[: len(step)])
        return m


def step_shift(m: Module, load: Value, words: list[Value], name: str) -> Signal:
    """Registers of a word for every step, loaded at once, that move down by a step a cycle: the lowest."""
    held = [Signal(len(word), name=f"{name}{t}") for t, word in enumerate(words)]
    for register, following in zip(held, held[1:], strict=False):
        m.d.sync += register.eq(following)
    with m.If(load):
        m.d.sync += [register.eq(word) for register, word in zip(held, words, strict=True)]
    return held[0]
