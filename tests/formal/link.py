"""Contracts of the serial link: bytes on the line, frames, images that wait, replies."""

from __future__ import annotations

from amaranth import Array, Cat, Mux

from s2tdpt.golden.link import ESCAPE, FLAG, FLIP, HEADER, Identity
from s2tdpt.hw.board.image_buffer import ImageBuffer
from s2tdpt.hw.board.link import LinkReceiver, LinkSender
from s2tdpt.hw.board.responder import Reply
from s2tdpt.hw.board.uart import PHASE_BITS, UartReceiver, UartTransmitter
from tests.formal.prove import Contract, Fault

WORD_BYTES = 4

CYCLES = 4
"""Of a bit, on the line that is proven."""


def uart_line(fault: Fault | None = None) -> Contract:
    """Every byte that the sender takes comes out of the receiver once, unaltered; the first one, any, at four
    cycles a bit, with any pause before it and anything offered behind it."""
    c = Contract(fault)
    step = (1 << PHASE_BITS) // CYCLES
    sender, receiver = UartTransmitter(step), UartReceiver(step)
    c.add("sender", sender)
    c.add("receiver", receiver)
    c.free(sender.i.valid)
    c.free(sender.i.payload)
    c.assume_stable(sender.i.valid, sender.i.ready, sender.i.payload)
    c.m.d.comb += receiver.rx.eq(sender.tx)
    byte, taken, since = c.signal(8, "byte"), c.signal(2, "taken"), c.signal(7, "since")
    takes, out = sender.i.valid & sender.i.ready, receiver.o
    arrived = c.signal(1, "arrived")
    with c.m.If(takes):
        c.m.d.sync += taken.eq(taken + 1)
        with c.m.If(taken == 0):
            c.m.d.sync += [byte.eq(sender.i.payload), since.eq(0)]
    with c.m.Else():
        c.m.d.sync += since.eq(since + 1)
    c.m.d.sync += arrived.eq(arrived | out.valid)
    first = out.valid & ~arrived
    c.check("nothing_invented", ~first | (taken != 0))
    c.check("unaltered", ~first | ((out.payload.data == byte) & ~out.payload.error))
    c.check("not_doubled", ~(out.valid & arrived) | (taken > 1))
    c.check("not_lost", (taken == 0) | arrived | (since < 10 * CYCLES + 2))
    c.check("idle_line_is_high", (taken != 0) | sender.tx)
    c.check("ready_between_bytes", sender.i.ready | (taken != 0))
    c.cover(first)
    return c


def link_sender(fault: Fault | None = None) -> Contract:
    """A frame is a flag, its bytes, four of a CRC, a flag; within it flags and escapes are escaped, and what
    the escapes stand for are the bytes that were taken, in order. What the CRC is, the unit's tests show."""
    c = Contract(fault)
    unit = LinkSender()
    c.add("sender", unit)
    for port in (unit.i.valid, unit.i.payload, unit.o.ready):
        c.free(port)
    c.assume_stable(unit.i.valid, unit.i.ready, unit.i.payload)
    part, left, escaped = c.signal(2, "part"), c.signal(2, "crc_left"), c.signal(1, "escaped")
    moves, takes = unit.o.valid & unit.o.ready, unit.i.valid & unit.i.ready
    escape = (unit.o.payload == ESCAPE) & ~escaped
    whole = moves & ~escape  # a byte of the frame is complete
    meant = unit.o.payload ^ Mux(escaped, FLIP, 0)
    inside = (part == 1) | (part == 2)
    with c.m.If(moves):
        c.m.d.sync += escaped.eq(escape & inside)
        with c.m.Switch(part):
            with c.m.Case(0):
                c.m.d.sync += part.eq(1)
            with c.m.Case(1):
                with c.m.If(whole & unit.i.payload.last):
                    c.m.d.sync += [part.eq(2), left.eq(3)]
            with c.m.Case(2):
                with c.m.If(whole):
                    c.m.d.sync += [left.eq(left - 1), part.eq(Mux(left == 0, 3, 2))]
            with c.m.Case(3):
                c.m.d.sync += part.eq(0)
    c.check("flags_at_both_ends", ~(moves & ~inside) | (unit.o.payload == FLAG))
    c.check("no_flag_within", ~(moves & inside) | (unit.o.payload != FLAG))
    c.check("a_byte_is_taken_when_it_is_gone", takes == (whole & (part == 1)))
    c.check("unaltered", ~takes | (meant == unit.i.payload.data))
    c.check("escapes_stand_for_what_needs_them", ~(whole & escaped) | (meant == FLAG) | (meant == ESCAPE))
    c.check_stable("byte_waits", unit.o.valid, unit.o.ready, unit.o.payload)
    c.check("offers_what_it_has", unit.o.valid == (((part == 2) | (part == 3)) | unit.i.valid))
    c.cover(moves & (part == 3))
    return c


def link_receiver(fault: Fault | None = None) -> Contract:
    """Behind any flag a frame begins anew: its payload is the bytes behind five of a header, as many as that
    says, whatever came before the flag. What a good CRC is, the unit's tests show."""
    c = Contract(fault)
    unit = LinkReceiver()
    c.add("receiver", unit)
    c.free(unit.i.valid)
    c.free(unit.i.payload)
    got = unit.i.payload
    flag = unit.i.valid & (got.data == FLAG) & ~got.error
    synced, escaped, count = c.signal(1, "synced"), c.signal(1, "escaped"), c.signal(4, "count")
    length, any_ = c.signal(16, "length"), c.signal(1, "something")
    arrives = unit.i.valid & ~flag & synced & (escaped | (got.data != ESCAPE))
    byte = got.data ^ Mux(escaped, FLIP, 0)
    with c.m.If(flag):
        c.m.d.sync += [synced.eq(1), escaped.eq(0), count.eq(0), any_.eq(0)]
    with c.m.Elif(unit.i.valid):
        c.m.d.sync += [escaped.eq(~escaped & (got.data == ESCAPE)), any_.eq(1)]
    with c.m.If(arrives):
        c.m.d.sync += count.eq(Mux(count.all(), count, count + 1))
        with c.m.If(count == HEADER.size - 2):
            c.m.d.sync += length[:8].eq(byte)
        with c.m.If(count == HEADER.size - 1):
            c.m.d.sync += length[8:].eq(byte)
    due = arrives & (count >= HEADER.size) & (count < HEADER.size + length)
    c.check("payload_is_what_the_header_says", unit.payload.valid == due)
    c.check("unaltered", ~due | (unit.payload.payload == byte))
    c.check("a_frame_ends_once", unit.end == c.past(flag & synced & any_))
    c.cover(due & (length == 2) & (count == HEADER.size + 1))
    return c


def image_buffer(fault: Fault | None = None) -> Contract:
    """Images that were kept come out in order, each byte once and unaltered, `tlast` with the last; what was
    dropped leaves nothing. Two images of two bytes, written and read at any pace."""
    c = Contract(fault)
    images, size = 2, 2
    unit = ImageBuffer(images, size)
    c.add("buffer", unit)
    for port in (unit.i.valid, unit.i.payload, unit.keep, unit.drop, unit.o.tready):
        c.free(port)
    written, kept = c.signal(2, "written"), c.signal(3, "kept")
    read, first = c.signal(4, "read"), c.signal(3, "done")
    content = [c.signal(8, f"byte_{number}") for number in range(images * size)]
    moves = unit.o.tvalid & unit.o.tready
    c.assume(~unit.keep | ((written == size) & ~unit.i.valid))
    c.assume(~unit.drop | (~unit.keep & ~unit.i.valid))
    c.assume(~unit.i.valid | ((kept - first)[:3] < images))
    accepted = unit.i.valid & (written != size)
    c.m.d.sync += [kept.eq(kept + unit.keep), read.eq(read + moves), first.eq(first + (moves & unit.o.tlast))]
    with c.m.If(unit.keep | unit.drop):
        c.m.d.sync += written.eq(0)
    with c.m.Elif(accepted):
        c.m.d.sync += [written.eq(written + 1), Array(content)[Cat(written[0], kept[0])].eq(unit.i.payload)]
    c.check("nothing_invented", ~unit.o.tvalid | ((kept - first)[:3] != 0))
    c.check("order_and_content", ~unit.o.tvalid | (unit.o.tdata == Array(content)[read[:2]]))
    c.check("last_byte_of_an_image", ~unit.o.tvalid | (unit.o.tlast == read[0]))
    c.check_stable("byte_waits", unit.o.tvalid, unit.o.tready, unit.o.tdata)
    waits = c.signal(2, "waits")
    some = (kept - first)[:3] != 0
    c.m.d.sync += waits.eq(Mux(unit.o.tvalid | ~some, 0, waits + ~waits.all()))
    c.check("offered_in_three_cycles", waits < 3)
    c.cover(moves & (read == 5))
    return c


def reply(fault: Fault | None = None) -> Contract:
    """A refusal is one frame of a header and a code, whatever else could be sent; a byte waits until it is
    taken.

    The words of a result are taken one after the other, each with its last byte.
    """
    c = Contract(fault)
    unit = Reply(Identity(1, 1, 1, 2, WORD_BYTES, 1, 1_000_000, bytes(32)))
    c.add("reply", unit)
    words, out = unit.words, unit.o
    for port in (unit.refusal, unit.greeting, unit.result, unit.code, words.tvalid, words.tdata, words.tlast):
        c.free(port)
    c.free(out.ready)
    c.assume_stable(words.tvalid, words.tready, words.tdata)
    asked = Cat(unit.refusal, unit.greeting, unit.result)
    c.assume((c.past(asked) == 0) | c.past(unit.done) | (asked == c.past(asked)))
    moves, count = out.valid & out.ready, c.signal(5, "count")
    c.m.d.sync += count.eq(Mux(moves, Mux(out.payload.last, 0, count + 1), count))
    c.check_stable("byte_waits", out.valid, out.ready, out.payload)
    refuses = unit.refusal & c.past(unit.refusal)
    c.check("a_refusal_has_its_length", ~(moves & refuses) | (out.payload.last == (count == HEADER.size)))
    c.check("no_word_for_a_refusal", ~(unit.refusal & c.past(unit.refusal)) | ~words.tready)
    c.cover(moves & out.payload.last)
    return c
