"""Contracts of the banks: slices through a queue, events out of a scanner, the end of a position."""

from __future__ import annotations

from amaranth import Mux, Signal
from amaranth.lib import data

from s2tdpt.hw.blocks.scanner import BankScanner, PositionEnd, SliceQueue
from s2tdpt.hw.blocks.skid import SkidBuffer
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.formal.prove import Contract, Fault

BANKS, CHANNELS, STEPS, DEPTH = 2, 3, 2, 2


def small_program() -> Program:
    """Two banks of three channels, two time steps, queues of two slices."""
    machine = Machine(lanes=BANKS * CHANNELS, banks=BANKS, post_lanes=3, queue=DEPTH)
    return build_program(network(timesteps=STEPS), machine, 20)


def slice_queue(fault: Fault | None = None) -> Contract:
    """A marked slice leaves after as many others as were before it, once, unaltered; depth 2, words of 3
    bits.
    """
    c = Contract(fault)
    unit = SliceQueue(data.StructLayout({"word": 3}), DEPTH)
    inside = c.add("queue", unit)
    for port in (unit.push, unit.data, unit.pop):
        c.free(port)
    level = Signal(range(DEPTH + 1))
    c.assume(unit.valid | ~unit.pop)
    c.assume(~unit.push | (level != DEPTH))  # the reader counts the room
    c.m.d.sync += level.eq(level + unit.push - unit.pop)
    # One slice, any, is marked as it enters; `ahead` slices leave before it.
    marks = c.free(name="marks")
    waits, done = c.signal(1, "waits"), c.signal(1, "done")
    mark, ahead = c.signal(3, "mark"), c.signal(range(DEPTH), "ahead")
    with c.m.If(unit.push & marks & ~waits & ~done):
        c.m.d.sync += [waits.eq(1), mark.eq(unit.data.word), ahead.eq((level - unit.pop)[:1])]
    with c.m.Elif(waits & unit.pop):
        c.m.d.sync += [waits.eq(ahead != 0), done.eq(ahead == 0), ahead.eq(ahead - 1)]
    c.check("valid_while_not_empty", unit.valid == (level != 0))
    c.check("order_and_content", ~(waits & (ahead == 0)) | (unit.valid & (unit.head.word == mark)))
    c.check_stable("head_waits", unit.valid, unit.pop, unit.head)
    first, last = inside["first"], inside["last"]
    place = c.signal(1, "place")
    c.m.d.comb += place.eq(first + ahead)
    c.check(
        "invariant_ring", (inside["level"] == level) & ((last - first)[:1] == level[:1]) & (level <= DEPTH)
    )
    c.check("invariant_mark", ~waits | ((ahead < level) & (inside.word("ring", place) == mark)))
    c.cover(done)
    return c


def skid_buffer(fault: Fault | None = None) -> Contract:
    """What is offered leaves at once or is kept until it may, in order, once, unaltered; words of 3 bits."""
    c = Contract(fault)
    unit = SkidBuffer(data.StructLayout({"word": 3}))
    inside = c.add("skid", unit)
    source, sink = unit.source, unit.sink
    for port in (source.valid, source.payload, sink.ready):
        c.free(port)
    c.assume_stable(source.valid, source.ready, source.payload)
    kept, word = c.signal(1, "kept_here"), c.signal(3, "word_here")
    enters, leaves = source.valid & source.ready, sink.valid & sink.ready
    c.m.d.sync += kept.eq(kept + enters - leaves)
    with c.m.If(enters):
        c.m.d.sync += word.eq(source.payload.word)
    c.check("ready_while_nothing_is_kept", source.ready == ~kept)
    c.check("offered_at_once", sink.valid == (kept | source.valid))
    c.check("order_and_content", ~sink.valid | (sink.payload.word == Mux(kept, word, source.payload.word)))
    c.check_stable("sink_waits", sink.valid, sink.ready, sink.payload)
    c.check("invariant_kept", (inside["full"] == kept) & (~kept | (inside["kept"].word == word)))
    c.cover(kept & leaves)
    return c


def bank_scanner(fault: Fault | None = None) -> Contract:
    """Every channel with a spike of every slice becomes one event, lowest first, with its row and mask.

    Three channels, two steps; the end of a position comes whenever the surroundings like.
    """
    c = Contract(fault)
    program = small_program()
    unit = BankScanner(program, Sizes(program))
    inside = c.add("scanner", unit)
    head, event = unit.head, unit.event
    for port in (unit.valid, head, unit.end):
        c.free(port)
    c.assume(unit.at_end | ~unit.end)
    # A slice without a spike is in the queue only if it ends its position.
    c.assume(~unit.valid | head.active.any() | head.mark.last)
    for channel in range(CHANNELS):
        c.assume(head.active[channel] == head.masks[channel].any())
    # What is left of the slice in work, kept beside the unit; `due` is what the event register must show.
    work, left, busy = c.signal(head.shape(), "work"), c.signal(CHANNELS, "left"), c.signal(1, "working")
    final, ending, fires, takes = (c.signal(1, name) for name in ("is_final", "is_ending", "fires", "takes"))
    rest, lowest, mask = c.signal(CHANNELS, "rest"), c.signal(2, "lowest"), c.signal(STEPS, "lowest_mask")
    c.m.d.comb += [
        rest.eq(left & (left - 1)[:CHANNELS]),
        lowest.eq(Mux(left[0], 0, Mux(left[1], 1, 2))),
        mask.eq(Mux(left[0], work.masks[0], Mux(left[1], work.masks[1], work.masks[2]))),
        final.eq(rest == 0),
        ending.eq(busy & final & work.mark.last),
        fires.eq(busy & (~ending | unit.end)),
        takes.eq(unit.valid & (~busy | (fires & final))),
    ]
    due = c.signal(event.shape(), "due")
    has = fires & (left != 0)
    c.m.d.sync += [due.en.eq(has), due.row.eq(work.row + lowest), due.mask.eq(Mux(has, mask, 0))]
    with c.m.If(takes):
        c.m.d.sync += [busy.eq(1), work.eq(head), left.eq(head.active)]
    with c.m.Elif(fires):
        c.m.d.sync += [left.eq(rest), busy.eq(~final)]
    c.check("a_slice_is_taken_when_the_last_is_done", unit.pop == takes)
    c.check("the_end_waits_for_its_last_event", unit.at_end == ending)
    c.check("an_event_a_channel", event.en == due.en)
    c.check("its_row", ~due.en | (event.row == due.row))
    c.check("its_mask", event.mask == due.mask)
    c.check("mark_of_the_slice_in_work", ~busy | (unit.mark == work.mark))
    held, pending, others, single = inside["held"], inside["pending"], inside["others"], inside["single"]
    same = (pending == left) & (others == rest) & (single == final) & (held == work)
    c.check("invariant_work", (inside["busy"] == busy) & (~busy | same))
    sound = (left == 0) | (work.masks[0].any() | ~left[0]) & (work.masks[1].any() | ~left[1])
    c.check("invariant_masks", sound & (work.masks[2].any() | ~left[2]))
    c.cover(unit.pop & c.past(unit.pop))
    c.cover(unit.at_end & unit.end)
    return c


def position_end(fault: Fault | None = None) -> Contract:
    """A position ends in the first cycle in which all banks are at its end and the cooldown is over."""
    c = Contract(fault)
    sizes = Sizes(small_program())
    unit = PositionEnd(sizes, BANKS)
    inside = c.add("end", unit)
    c.free(unit.at_end)
    c.free(unit.mark)
    since = Signal(4, init=15)
    asked = Signal(sizes.cooldown)
    c.m.d.sync += since.eq(Mux(unit.end, 0, Mux(since == 15, 15, since + 1)))
    with c.m.If(unit.end):
        c.m.d.sync += asked.eq(unit.mark.cooldown)
    c.check("ends_when_it_may", unit.end == (unit.at_end.all() & (since >= asked)))
    c.check("final_with_its_end", unit.final == (unit.end & unit.mark.final))
    left = Mux(since >= asked, 0, (asked - since)[: sizes.cooldown])
    c.check("invariant_cooldown", (inside["cooldown"] == left) & (inside["cool"] == (left == 0)))
    c.cover(unit.end & (asked == 2))
    return c
