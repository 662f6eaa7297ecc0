"""Frames of the serial link: bytes of the line to frames and back (docs/link.md). Twin: `golden.link`."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import crc, enum, stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.link import CRC_BYTES, ESCAPE, FLAG, FLIP, HEADER
from s2tdpt.hw.plan.records import LINK_BYTE, LINK_HEADER, UART_BYTE

__all__ = ["LinkReceiver", "LinkSender"]


def _crc() -> crc.Processor:
    return catalog.CRC32_ISO_HDLC(data_width=8).create()


class Part(enum.Enum, shape=2):
    """Where in a frame the next byte belongs; OVER: nowhere."""

    HEAD = 0
    PAYLOAD = 1
    CRC = 2
    OVER = 3


class LinkReceiver(wiring.Component):
    """Find frames between flags, undo the escapes, check length and CRC.

    A payload passes while it arrives; only `end` tells whether it counts. Bytes before the first flag are
    dropped. Whatever is wrong within a frame, the next flag begins a new one.

    Latency: `payload` is of the cycle of its byte, `end` of the one after the flag's. Throughput: a byte a
    cycle.
    Resources: about 140 flip-flops, the logic of a CRC-32 of 8 bits.

    Members
    -------
    i : ``In(stream.Signature(UART_BYTE, always_ready=True))``
    payload : ``Out(stream.Signature(8, always_ready=True))``
        Payload bytes, at most as many as the header announces.
    end : ``Out(1)``
        Pulse: a frame ends here, or something that is none.
    good : ``Out(1)``
        With `end`: it has its length and its CRC.
    header : ``Out(LINK_HEADER)``
        With `end` and `good`.
    crc : ``Out(32)``
        With `end` and `good`: its CRC.
    """

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(UART_BYTE, always_ready=True)),
                "payload": Out(stream.Signature(8, always_ready=True)),
                "end": Out(1),
                "good": Out(1),
                "header": Out(LINK_HEADER),
                "crc": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.checker = checker = _crc()
        synced, escaped, started, broken = Signal(), Signal(), Signal(), Signal()
        part, left = Signal(Part), Signal(16)
        byte, arrives = Signal(8), Signal()
        flag = Signal()
        received = self.i.payload
        m.d.comb += [
            flag.eq(self.i.valid & (received.data == FLAG) & ~received.error),
            arrives.eq(self.i.valid & ~flag & synced & (escaped | (received.data != ESCAPE))),
            byte.eq(received.data ^ Mux(escaped, FLIP, 0)),
            checker.start.eq(flag),
            checker.data.eq(byte),
            checker.valid.eq(arrives),
            self.payload.payload.eq(byte),
            self.payload.valid.eq(arrives & (part == Part.PAYLOAD)),
        ]
        # A cycle later the header and the CRC are still there: they change with the byte after the flag.
        m.d.sync += [
            self.end.eq(flag & synced & started),
            self.good.eq((part == Part.OVER) & ~escaped & ~broken & checker.match_detected),
        ]
        with m.If(flag):
            m.d.sync += [synced.eq(1), escaped.eq(0), started.eq(0), broken.eq(0)]
            m.d.sync += [part.eq(Part.HEAD), left.eq(HEADER.size - 1)]
        with m.Elif(self.i.valid):
            m.d.sync += [started.eq(1), escaped.eq(~escaped & (received.data == ESCAPE))]
            m.d.sync += broken.eq(broken | received.error)
        with m.If(arrives):
            self._follow(m, part, left, byte, broken)
        return m

    def _follow(self, m, part, left, byte, broken):
        """A byte takes its place in the frame."""
        head = Cat(self.header.as_value()[8:], byte)
        length = head[-16:]
        with m.If(part == Part.HEAD):
            m.d.sync += self.header.eq(head)
        with m.If(part == Part.CRC):
            m.d.sync += self.crc.eq(Cat(self.crc[8:], byte))
        with m.If(part == Part.OVER):
            m.d.sync += broken.eq(1)
        m.d.sync += left.eq(left - 1)
        with m.If(left == 0):
            with m.If((part == Part.HEAD) & (length != 0)):
                m.d.sync += [part.eq(Part.PAYLOAD), left.eq(length - 1)]
            with m.Elif((part == Part.HEAD) | (part == Part.PAYLOAD)):
                m.d.sync += [part.eq(Part.CRC), left.eq(CRC_BYTES - 1)]
            with m.Else():
                m.d.sync += part.eq(Part.OVER)


class LinkSender(wiring.Component):
    """Put a frame between flags, with its CRC, and escape what is a flag or an escape within.

    Latency: none; the opening flag is offered in the cycle in which a frame is. Throughput: a cycle for
    every byte that `golden.link.encode` gives.
    Resources: about 40 flip-flops, the logic of a CRC-32 of 8 bits.

    Members
    -------
    i : ``In(stream.Signature(LINK_BYTE))``
        Header and payload of one frame after the other.
    o : ``Out(stream.Signature(8))``
        Bytes of the line.
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(LINK_BYTE)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.checker = checker = _crc()
        byte, special, escaped, taken = Signal(8), Signal(), Signal(), Signal()
        index = Signal(range(CRC_BYTES))
        m.d.comb += [
            special.eq(((byte == FLAG) | (byte == ESCAPE)) & ~escaped),
            taken.eq(self.o.valid & self.o.ready & ~special),
            checker.data.eq(self.i.payload.data),
            checker.valid.eq(self.i.valid & self.i.ready),
        ]

        def send_byte(value):
            """Offer a byte of the frame, or first its escape; `taken` tells that it is gone."""
            m.d.comb += byte.eq(value)
            m.d.comb += self.o.payload.eq(Mux(special, ESCAPE, byte ^ Mux(escaped, FLIP, 0)))
            with m.If(self.o.valid & self.o.ready):
                m.d.sync += escaped.eq(special)

        with m.FSM():
            with m.State("OPEN"):
                m.d.comb += [self.o.payload.eq(FLAG), self.o.valid.eq(self.i.valid), checker.start.eq(1)]
                with m.If(self.o.valid & self.o.ready):
                    m.next = "BODY"
            with m.State("BODY"):
                m.d.comb += [self.o.valid.eq(self.i.valid), self.i.ready.eq(taken)]
                send_byte(self.i.payload.data)
                with m.If(taken & self.i.payload.last):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += self.o.valid.eq(1)
                send_byte(checker.crc.word_select(index, 8))
                with m.If(taken):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == CRC_BYTES - 1):
                        m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += [self.o.payload.eq(FLAG), self.o.valid.eq(1)]
                with m.If(self.o.ready):
                    m.next = "OPEN"
        return m
