"""AXI4-Lite, the end of a slave: one word written or read at a time.

References
----------
.. [1] Arm IHI 0022E, AMBA AXI Protocol Specification, chapter B1 (AXI4-Lite): 32 bits, ``valid`` never waits
       for ``ready``, a response for every transfer; 0 is OKAY, 2 is SLVERR.
"""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["AxiLite", "AxiLiteEnd", "WordRead", "WordWrite"]

DATA_BITS, STROBE_BITS = 32, 4
SLVERR_BIT = 1
"""Bit of a response that makes OKAY an SLVERR."""


class AxiLite(wiring.Signature):
    """AXI4-Lite with 32 data bits, seen from its master.

    Parameters
    ----------
    address_bits : int
        Of a byte address.
    """

    def __init__(self, address_bits: int):
        super().__init__(
            {
                "awaddr": Out(address_bits),
                "awprot": Out(3),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(DATA_BITS),
                "wstrb": Out(STROBE_BITS),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(address_bits),
                "arprot": Out(3),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(DATA_BITS),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class WordWrite(wiring.Signature):
    """A write in the cycle in which `en` is high; `fault` answers in the same cycle.

    Members
    -------
    en : Out(1)
    address : Out
        Of a word.
    data : Out(32)
    strobe : Out(4)
        Bit i: byte i counts.
    fault : In(1)
        There is nothing to write: SLVERR.
    """

    def __init__(self, address_bits: int):
        super().__init__(
            {
                "en": Out(1),
                "address": Out(address_bits - 2),
                "data": Out(DATA_BITS),
                "strobe": Out(STROBE_BITS),
                "fault": In(1),
            }
        )


class WordRead(wiring.Signature):
    """A read in the cycle in which `en` is high; `data` and `fault` answer in the same cycle.

    Members
    -------
    en : Out(1)
    address : Out
        Of a word.
    data : In(32)
    fault : In(1)
        There is nothing to read: SLVERR.
    """

    def __init__(self, address_bits: int):
        super().__init__(
            {
                "en": Out(1),
                "address": Out(address_bits - 2),
                "data": In(DATA_BITS),
                "fault": In(1),
            }
        )


class AxiLiteEnd(wiring.Component):
    """Takes the transfers of an AXI4-Lite bus one after the other, writes and reads beside each other.

    Address and data of a write come in any order. The two lowest bits of an address and the protection bits
    mean nothing. All ``ready`` are functions of registers.

    Latency: a write happens in the cycle after the later of address and data, its response follows in the
    next one; the data of a read are those of the cycle of its address, and follow in the next one.
    Throughput: a write and a read every two cycles.
    Resources: ``address_bits + 72`` flip-flops.

    Parameters
    ----------
    address_bits : int
        Of a byte address, at least 3.

    Members
    -------
    bus : In(AxiLite)
    write : Out(WordWrite)
    read : Out(WordRead)
    """

    def __init__(self, address_bits: int):
        if not isinstance(address_bits, int) or isinstance(address_bits, bool) or address_bits < 3:
            raise ValueError(f"Address width must be an integer of at least 3, not {address_bits!r}")
        super().__init__(
            {
                "bus": In(AxiLite(address_bits)),
                "write": Out(WordWrite(address_bits)),
                "read": Out(WordRead(address_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus, write, read = self.bus, self.write, self.read
        addressed, filled = Signal(), Signal()  # a write has its address, its data
        write_fault, read_fault = Signal(), Signal()
        m.d.comb += [
            *(bus.bresp.eq(write_fault << SLVERR_BIT), bus.rresp.eq(read_fault << SLVERR_BIT)),
            *(bus.awready.eq(~addressed), bus.wready.eq(~filled)),
            write.en.eq(addressed & filled & ~bus.bvalid),
        ]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [addressed.eq(1), write.address.eq(bus.awaddr[2:])]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [filled.eq(1), write.data.eq(bus.wdata), write.strobe.eq(bus.wstrb)]
        with m.If(write.en):
            m.d.sync += [addressed.eq(0), filled.eq(0)]
            m.d.sync += [bus.bvalid.eq(1), write_fault.eq(write.fault)]
        with m.Elif(bus.bready):
            m.d.sync += bus.bvalid.eq(0)

        m.d.comb += [
            bus.arready.eq(~bus.rvalid),
            read.en.eq(bus.arvalid & bus.arready),
            read.address.eq(bus.araddr[2:]),
        ]
        with m.If(read.en):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(read.data), read_fault.eq(read.fault)]
        with m.Elif(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        return m
