"""Control and status registers of an accelerator on AXI4-Lite. Twin: `golden.registers`."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden import register_map as names
from s2tdpt.golden.register_map import MAP, WORD_BITS, WORD_BYTES, Access, Field, Register
from s2tdpt.golden.registers import Constants
from s2tdpt.hw.bus.axi_lite import AxiLite, AxiLiteEnd
from s2tdpt.hw.fixed import saturate, wrap
from s2tdpt.hw.plan.records import Bus, FrameEvents

__all__ = ["FrameGate", "RegisterBlock"]

WORD = unsigned(WORD_BITS)


class FrameGate(wiring.Component):
    """Lets images in: all of them while `enable`, one for every `start`, and each to its end.

    Latency: none. Throughput: a byte a cycle. Resources: 2 flip-flops.

    Members
    -------
    i : In(Bus(8))
    o : Out(Bus(8))
    enable : In(1)
    start : In(1)
        Pulse: let one image in, the next that begins. At most one waits.
    pending : Out(1)
        Such a one has not begun.
    receiving : Out(1)
        The first byte of an image has been offered, and its last not been taken.
    """

    def __init__(self):
        super().__init__(
            {
                "i": In(Bus(8)),
                "o": Out(Bus(8)),
                "enable": In(1),
                "start": In(1),
                "pending": Out(1),
                "receiving": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Registers alone decide: a path from tvalid to tready could close a loop outside.
        is_open = Signal()
        m.d.comb += [
            is_open.eq(self.enable | self.pending | self.receiving),
            *(self.o.tdata.eq(self.i.tdata), self.o.tlast.eq(self.i.tlast)),
            *(self.o.tvalid.eq(self.i.tvalid & is_open), self.i.tready.eq(self.o.tready & is_open)),
        ]
        with m.If(self.o.tvalid):
            m.d.sync += self.receiving.eq(~(self.o.tready & self.o.tlast))
        with m.If(self.start):
            m.d.sync += self.pending.eq(1)
        with m.Elif(self.o.tvalid & ~self.receiving):
            m.d.sync += self.pending.eq(0)
        return m


class RegisterBlock(wiring.Component):
    """The registers of `golden.register_map.MAP`, and the gate of the images that they control.

    A read of no register, and a write of none that can be written, is answered with SLVERR and does nothing.

    Latency and throughput: those of `AxiLiteEnd` and `FrameGate`; what happens in a cycle is read from the
    next one on.
    Resources: those of the two, ``5 * 32 + 1`` flip-flops, four incrementers, a multiplexer of words.

    Parameters
    ----------
    constants : Constants

    Members
    -------
    bus : In(AxiLite)
    pixels : In(Bus(8)), gated : Out(Bus(8))
        Images on their way to the accelerator.
    events : In(FrameEvents)
    busy, error_short, error_long, error_weights : In(1)
        Of the accelerator.
    """

    def __init__(self, constants: Constants):
        self._constants = constants
        super().__init__(
            {
                "bus": In(AxiLite(MAP.address_bits)),
                "pixels": In(Bus(8)),
                "gated": Out(Bus(8)),
                "events": In(FrameEvents()),
                "busy": In(1),
                "error_short": In(1),
                "error_long": In(1),
                "error_weights": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.end = end = AxiLiteEnd(MAP.address_bits)
        m.submodules.gate = gate = FrameGate()
        wiring.connect(m, wiring.flipped(self.bus), end.bus)
        wiring.connect(m, wiring.flipped(self.pixels), gate.i)
        wiring.connect(m, gate.o, wiring.flipped(self.gated))
        enable = Signal()
        m.d.comb += gate.enable.eq(enable)
        with m.If(end.write.en & (end.write.address == names.CONTROL.offset // WORD_BYTES)):
            with m.If(end.write.strobe[0]):
                m.d.sync += enable.eq(end.write.data[names.ENABLE.low])
                m.d.comb += gate.start.eq(end.write.data[names.START.low])
        frames, cycles, short_frames, long_frames = self._count(m)
        state = {
            names.CONTROL: {names.ENABLE: enable},
            names.STATUS: {
                names.BUSY: self.busy,
                names.RECEIVING: gate.receiving,
                names.PENDING: gate.pending,
                names.ERROR_SHORT: self.error_short,
                names.ERROR_LONG: self.error_long,
                names.ERROR_WEIGHTS: self.error_weights,
            },
            names.FRAMES: {names.FRAMES.fields[0]: frames},
            names.CYCLES: {names.CYCLES.fields[0]: cycles},
            names.SHORT_FRAMES: {names.SHORT_FRAMES.fields[0]: short_frames},
            names.LONG_FRAMES: {names.LONG_FRAMES.fields[0]: long_frames},
        }
        self._answer(m, end, state)
        return m

    def _count(self, m) -> tuple[Signal, Signal, Signal, Signal]:
        """Images computed, cycles of the last of them, images dropped as too short and as too long."""
        events = self.events
        frames, cycles, elapsed = Signal(WORD), Signal(WORD), Signal(WORD)
        short_frames, long_frames = Signal(WORD), Signal(WORD)
        m.d.sync += elapsed.eq(Mux(events.start, 0, saturate(elapsed + 1, WORD)))
        with m.If(events.complete):
            m.d.sync += [frames.eq(wrap(frames + 1, WORD)), cycles.eq(elapsed)]
        with m.If(events.short):
            m.d.sync += short_frames.eq(wrap(short_frames + 1, WORD))
        with m.If(events.long):
            m.d.sync += long_frames.eq(wrap(long_frames + 1, WORD))
        return frames, cycles, short_frames, long_frames

    def _answer(self, m, end, state: dict[Register, dict[Field, Value]]) -> None:
        """What is read at every address, and where there is nothing to read or to write."""
        m.d.comb += [end.read.fault.eq(1), end.write.fault.eq(1)]
        with m.Switch(end.read.address):
            for register in MAP.registers:
                for word in range(register.words):
                    with m.Case(register.offset // WORD_BYTES + word):
                        m.d.comb += [
                            end.read.fault.eq(0),
                            end.read.data.eq(self._word(register, word, state.get(register, {}))),
                        ]
        with m.Switch(end.write.address):
            for register in MAP.registers:
                if register.writable:
                    with m.Case(register.offset // WORD_BYTES):
                        m.d.comb += end.write.fault.eq(0)

    def _word(self, register: Register, word: int, state: dict[Field, Value]) -> Value | int:
        """Content of a register."""
        value = 0
        for field in register.fields:
            if field in state:
                part = Cat(Value.cast(state[field]))[: field.width]
            elif field.access is Access.PULSE:
                continue
            else:
                part = self._constants.word(register, word) if field.reset is None else field.reset
            value |= part << field.low
        return value
