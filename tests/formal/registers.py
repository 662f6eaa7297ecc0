"""Contracts of the registers' bus and of the gate that lets images in."""

from __future__ import annotations

from amaranth import Cat, Mux

from s2tdpt.hw.bus.axi_lite import AxiLiteEnd
from s2tdpt.hw.bus.registers import FrameGate
from tests.formal.prove import Contract, Fault


def axi_lite_end(fault: Fault | None = None) -> Contract:
    """Every write has one address and one piece of data, unaltered, and one response; every read
    one, with the data of its cycle. Responses wait unaltered. A transfer is taken as soon as the one before
    it has found its partner, and happens as soon as the response before it is taken. One bit of word address.
    """
    c = Contract(fault)
    unit = AxiLiteEnd(3)
    inside = c.add("end", unit)
    bus, write, read = unit.bus, unit.write, unit.read
    for port in (bus.awaddr, bus.awvalid, bus.wdata, bus.wstrb, bus.wvalid, bus.bready):
        c.free(port)
    for port in (bus.araddr, bus.arvalid, bus.rready, write.fault, read.data, read.fault):
        c.free(port)
    # Of a write: its address and its data, once they have come.
    addressed, filled = c.signal(1, "addressed"), c.signal(1, "filled")
    address, data = c.signal(1, "address"), c.signal(36, "data")
    owed, denied = c.signal(1, "owed"), c.signal(1, "denied")
    with c.m.If(bus.awvalid & bus.awready):
        c.m.d.sync += [addressed.eq(1), address.eq(bus.awaddr[2])]
    with c.m.Elif(write.en):
        c.m.d.sync += addressed.eq(0)
    with c.m.If(bus.wvalid & bus.wready):
        c.m.d.sync += [filled.eq(1), data.eq(Cat(bus.wdata, bus.wstrb))]
    with c.m.Elif(write.en):
        c.m.d.sync += filled.eq(0)
    with c.m.If(write.en):
        c.m.d.sync += [owed.eq(1), denied.eq(write.fault)]
    with c.m.Elif(bus.bready):
        c.m.d.sync += owed.eq(0)
    c.check("a_write_has_both", ~write.en | (addressed & filled))
    c.check("where_it_was_addressed", ~write.en | (write.address == address))
    c.check("what_was_sent", ~write.en | (Cat(write.data, write.strobe) == data))
    c.check("a_response_for_every_write", bus.bvalid == owed)
    c.check("it_says_how_it_went", ~owed | (bus.bresp == Mux(denied, 2, 0)))
    c.check("addresses_are_taken_one_ahead", bus.awready == ~addressed)
    c.check("data_are_taken_one_ahead", bus.wready == ~filled)
    c.check("a_write_waits_for_nothing_else", write.en | ~(addressed & filled & ~owed))
    # Of a read: its data, from the cycle of its address.
    asked = c.signal(1, "asked")
    kept = c.past(Cat(read.data, read.fault))
    fresh = c.past(read.en)
    with c.m.If(bus.arvalid & bus.arready):
        c.m.d.sync += asked.eq(1)
    with c.m.Elif(bus.rready):
        c.m.d.sync += asked.eq(0)
    c.check("reads_when_asked", read.en == (bus.arvalid & bus.arready))
    c.check("where_it_is_asked", ~read.en | (read.address == bus.araddr[2]))
    c.check("an_answer_for_every_read", bus.rvalid == asked)
    answer = Cat(bus.rdata, bus.rresp[1])
    c.check("data_of_that_cycle", ~fresh | ((answer == kept) & ~bus.rresp[0]))
    c.check_stable("answer_waits", bus.rvalid, bus.rready, Cat(bus.rdata, bus.rresp))
    c.check("reads_are_taken_one_ahead", bus.arready == ~asked)
    held = (inside["addressed"] == addressed) & (inside["filled"] == filled)
    kept_write = (~addressed | (write.address == address)) & (
        ~filled | (Cat(write.data, write.strobe) == data)
    )
    c.check("invariant_write", held & kept_write)
    c.cover(bus.bvalid & bus.bready & denied & c.past(bus.bvalid & ~bus.bready))
    c.cover(bus.rvalid & bus.rready & bus.rresp[1])
    return c


def frame_gate(fault: Fault | None = None) -> Contract:
    """Bytes pass unaltered or wait; an image begins only while images are taken or a START waits for one, and
    then comes to its end, whatever else is switched. A START lets exactly one image in.
    """
    c = Contract(fault)
    unit = FrameGate()
    c.add("gate", unit)
    i, o = unit.i, unit.o
    for port in (i.tdata, i.tvalid, i.tlast, o.tready, unit.enable, unit.start):
        c.free(port)
    c.assume_stable(i.tvalid, i.tready, Cat(i.tdata, i.tlast))
    begun, waits = c.signal(1, "begun"), c.signal(1, "start_waits")
    moves = o.tvalid & o.tready
    with c.m.If(o.tvalid):
        c.m.d.sync += begun.eq(~(moves & o.tlast))
    first = o.tvalid & ~begun
    c.m.d.sync += waits.eq(unit.start | (waits & ~first))
    c.check("nothing_invented", ~o.tvalid | (i.tvalid & (Cat(o.tdata, o.tlast) == Cat(i.tdata, i.tlast))))
    c.check("taken_once", (i.tvalid & i.tready) == moves)
    c.check("begins_when_it_may", ~first | unit.enable | waits)
    c.check("comes_to_its_end", ~(begun & i.tvalid) | o.tvalid)
    c.check("passes_at_once", ~(i.tvalid & (unit.enable | waits)) | o.tvalid)
    c.check_stable("byte_waits", o.tvalid, o.tready, Cat(o.tdata, o.tlast))
    c.check("says_what_it_does", (unit.receiving == begun) & (unit.pending == waits))
    c.cover(first & waits & ~unit.enable & c.past(begun))
    c.cover(begun & ~unit.enable & moves & o.tlast)
    return c
