"""Both ends of a serial line: a start bit, eight data bits, the lowest first, a stop bit; no parity.

The bit clock is the overflow of a phase accumulator, so that every baud rate up to a quarter of the clock is
met on average, to 1 % or better, and every edge to a cycle.
"""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.plan.records import UART_BYTE

__all__ = ["UartReceiver", "UartTransmitter", "baud_step"]

PHASE_BITS = 16
FEWEST_CYCLES = 4
"""Cycles of a bit: fewer leave no room for the middle of it."""


def baud_step(clock: float, baud: float) -> int:
    """What the phase accumulator adds in a cycle.

    Parameters
    ----------
    clock, baud : float
        Hz, bits a second.

    Raises
    ------
    ValueError
        The baud rate is above a quarter of the clock, or so low that the accumulator misses it by 1 %.
    """
    step = round((1 << PHASE_BITS) * baud / clock)
    if baud * FEWEST_CYCLES > clock:
        raise ValueError(f"Baud rate must be at most a quarter of the clock, {clock:g} Hz, not {baud:g}")
    if step < 50:
        raise ValueError(f"Baud rate must be at least a 1300th of the clock, {clock:g} Hz, not {baud:g}")
    return step


class UartReceiver(wiring.Component):
    """Bytes from a line.

    Every bit is sampled once, in its middle. A start bit that is over by then was a disturbance. After a
    reset, and after a stop bit that is low, the line must be high before a start bit counts.

    From 8 cycles a bit on, the sender's clock may be 2 % off; with 4 it has to be the same one.

    Latency: a byte is valid for a cycle, 9.5 bits and a cycle after the falling edge of its start bit.
    Resources: about 40 flip-flops, an adder of 16 bits.

    Parameters
    ----------
    step : int
        See `baud_step`.

    Members
    -------
    rx : ``In(1)``
        The line, synchronised to the clock; high when idle.
    o : ``Out(stream.Signature(UART_BYTE, always_ready=True))``
    """

    def __init__(self, step: int):
        self._step = step
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(UART_BYTE, always_ready=True))})

    def elaborate(self, platform):
        m = Module()
        phase = Signal(PHASE_BITS)
        total = Signal(PHASE_BITS + 1)
        bits = Signal(9)  # stop bit first: what has arrived, from the top
        left = Signal(range(11))  # bits to come, the start bit included; 0: none
        high = Signal()  # the line has been high since the last byte
        strobe = total[-1] & (left != 0)
        m.d.comb += [
            total.eq(phase + self._step),
            self.o.payload.data.eq(bits[:8]),
            self.o.payload.error.eq(~bits[8]),
        ]
        m.d.sync += [phase.eq(total), high.eq(high | self.rx), self.o.valid.eq(strobe & (left == 1))]
        with m.If(left == 0):
            with m.If(~self.rx & high):
                m.d.sync += [left.eq(10), phase.eq(1 << (PHASE_BITS - 1))]
        with m.Elif(strobe):
            m.d.sync += [left.eq(left - 1), bits.eq(Cat(bits[1:], self.rx))]
            with m.If((left == 10) & self.rx):
                m.d.sync += left.eq(0)
            with m.If(left == 1):
                m.d.sync += high.eq(self.rx)
        return m


class UartTransmitter(wiring.Component):
    """Bytes to a line.

    Latency: the start bit begins in the cycle after the transfer. Throughput: a byte every 10 bits and a
    cycle.
    Resources: about 30 flip-flops, an adder of 16 bits.

    Parameters
    ----------
    step : int
        See `baud_step`.

    Members
    -------
    i : ``In(stream.Signature(8))``
    tx : ``Out(1)``
        The line, a register; high when idle.
    """

    def __init__(self, step: int):
        self._step = step
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        phase = Signal(PHASE_BITS)
        total = Signal(PHASE_BITS + 1)
        bits = Signal(9, init=0x1FF)  # what follows the bit on the line
        left = Signal(range(11))
        m.d.comb += [total.eq(phase + self._step), self.i.ready.eq(left == 0)]
        with m.If(left == 0):
            with m.If(self.i.valid):
                m.d.sync += [self.tx.eq(0), bits.eq(Cat(self.i.payload, 1)), left.eq(10), phase.eq(0)]
        with m.Else():
            m.d.sync += phase.eq(total)
            with m.If(total[-1]):
                m.d.sync += [self.tx.eq(bits[0]), bits.eq(Cat(bits[1:], 1)), left.eq(left - 1)]
        return m
