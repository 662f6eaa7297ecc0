"""Contract of the whole event side: a walk that was started comes to its end."""

from __future__ import annotations

from amaranth import Mux

from s2tdpt.hw.blocks.front import EventSource
from s2tdpt.hw.blocks.step_rom import SourceField, StepRecords
from s2tdpt.hw.plan.records import Sizes
from tests.formal.prove import Contract, Fault
from tests.formal.queues import small_program

BOUND = 17
"""Cycles from the start to the end of a walk over two words of three channels a bank, at most: 9 to the first
event and one to the end behind it, 2 of each cooldown, and the 5 events that follow the first one."""


def event_source(fault: Fault | None = None) -> Contract:
    """Two banks of three channels, two time steps, queues of two slices; two positions of one word, one
    behind the other, whatever spikes. No bank waits for ever for another, and no position ends twice."""
    c = Contract(fault)
    program = small_program()
    sizes, records = Sizes(program), StepRecords(program)
    unit = EventSource(program, sizes, records)
    c.add("events", unit)
    c.free(unit.start)
    c.free(unit.spikes.data)
    step = unit.step
    c.m.d.comb += [
        step.source.eq(SourceField.SPIKES),
        step.last_x.eq(1),
        step.stride.eq(1),
        step.word_rows.eq(3),
        step.cooldown.eq(1),
        step.final_cooldown.eq(1),
    ]
    begun, since = c.signal(1, "begun"), c.signal(6, "since")
    ends, finals = c.signal(3, "ends"), c.signal(3, "finals")
    c.assume(~unit.start | ~begun)
    c.m.d.sync += [
        begun.eq(begun | unit.start),
        since.eq(Mux(unit.start, 0, since + ~since.all())),
        ends.eq(ends + unit.end),
        finals.eq(finals + unit.final),
    ]
    c.check("ends_in_time", ~begun | (since < BOUND) | (finals == 1))
    c.check("a_position_ends_once", (ends <= 2) & (~unit.end | begun))
    c.check("the_last_end_is_final", ~unit.final | (unit.end & (ends == 1)))
    c.check("no_event_without_a_walk", begun | ~(unit.event[0].en | unit.event[1].en))
    c.cover(finals == 1)
    return c
