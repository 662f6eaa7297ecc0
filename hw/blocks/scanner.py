"""Turns slices of spikes into accumulate events, a channel a cycle and bank: what makes the machine
event-driven."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, onehot_index, without_lowest, wrap
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes, event_layout, mark_layout, slice_layout


def or_tree(values: list[Value]) -> Value:
    """OR of all values as a balanced tree."""
    while len(values) > 1:
        pairs = [a | b for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(pairs) * 2 :]
    return values[0]


class SliceQueue(wiring.Component):
    """Slices that wait in front of a bank.

    Latency: 1 cycle from `push` to `valid`; throughput: one in and one out a cycle. Never full: the reader
    counts the room (`reader.WordReader`).
    Resources: `depth` words in LUT RAM.

    Parameters
    ----------
    layout : data.StructLayout
    depth : int
        A power of two.

    Members
    -------
    push : In(1)
    data : In(layout)
    valid : Out(1)
    head : Out(layout)
    pop : In(1)
        Take the head; only while `valid`.
    """

    def __init__(self, layout, depth: int):
        self._layout, self._depth = layout, depth
        super().__init__(
            {"push": In(1), "data": In(layout), "valid": Out(1), "head": Out(layout), "pop": In(1)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.ring = ring = Memory(shape=self._layout.size, depth=self._depth, init=[])
        read, write = ring.read_port(domain="comb"), ring.write_port()
        first, last = Signal(range(self._depth)), Signal(range(self._depth))
        level = Signal(range(self._depth + 1))
        m.d.comb += [
            read.addr.eq(first),
            self.head.as_value().eq(read.data),
            write.addr.eq(last),
            write.data.eq(self.data),
            write.en.eq(self.push),
        ]
        stays = Signal.like(level)  # unless its head leaves, which is known last in the cycle
        m.d.comb += stays.eq(exact(level + self.push, level.shape()))
        m.d.sync += [
            first.eq(first + self.pop),
            last.eq(last + self.push),
            level.eq(wrap(stays - self.pop, level.shape())),
            self.valid.eq(Mux(self.pop, stays != 1, stays != 0)),
        ]
        return m


class BankScanner(wiring.Component):
    """Issues one event a cycle for every channel with a spike, all its time steps at once.

    The last event of a position waits until all banks have come to theirs (`at_end`, `end`); a position
    without a spike in this bank has one event with an empty mask.

    Latency: 1 cycle from the queue's head to `at_end`, 1 more to `event`. Throughput: a slice with S active
    channels takes max(1, S) cycles, without a gap to the next one.
    Resources: a slice of flip-flops, a priority tree over its channels.

    Parameters
    ----------
    program : Program
    sizes : Sizes

    Members
    -------
    valid, head, pop
        The queue.
    at_end : Out(1)
        The last event of a position is next.
    mark : Out(mark_layout)
        What ends with the slice being scanned.
    end : In(1)
        All banks are at their position's last event: issue it.
    event : Out(event_layout)
        Registered.
    """

    def __init__(self, program: Program, sizes: Sizes):
        self._channels, self._steps = program.machine.slice_channels, program.network.timesteps
        self._layout = slice_layout(sizes, self._channels, self._steps)
        super().__init__(
            {
                "valid": In(1),
                "head": In(self._layout),
                "pop": Out(1),
                "at_end": Out(1),
                "mark": Out(mark_layout(sizes)),
                "end": In(1),
                "event": Out(event_layout(sizes, self._steps)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        busy, held = Signal(), Signal(self._layout)
        pending, others = Signal(self._channels), Signal(self._channels)  # to do; all of it but the lowest
        single = Signal()  # no others
        fire, load = Signal(), Signal()
        m.d.comb += [
            self.mark.eq(held.mark),
            fire.eq(busy & (~self.at_end | self.end)),
            load.eq(~busy | (fire & single)),
            self.pop.eq(self.valid & load),
        ]
        # Both outcomes of `load`, which is known last in the cycle: it hangs on all banks.
        head_rest, held_rest = without_lowest(self.head.active), without_lowest(others)
        head_ends = self.valid & self.head.mark.last & ~head_rest.any()
        held_ends = held.mark.last & ~held_rest.any()
        with m.If(load):
            m.d.sync += [busy.eq(self.valid), held.eq(self.head), pending.eq(self.head.active)]
        with m.Else():
            with m.If(fire):
                m.d.sync += pending.eq(others)
        with m.If(load | fire):
            m.d.sync += [
                others.eq(Mux(load, head_rest, held_rest)),
                single.eq(Mux(load, ~head_rest.any(), ~held_rest.any())),
                self.at_end.eq(Mux(load, head_ends, held_ends)),
            ]
        chosen = pending & ~others
        masks = [held.masks[c] & chosen[c].replicate(self._steps) for c in range(self._channels)]
        offset = onehot_index(chosen) if self._channels > 1 else 0
        m.d.sync += [
            self.event.en.eq(fire & chosen.any()),
            # The rows of a tile lie in the weight memory; a ring wraps.
            self.event.row.eq((held.row + offset)[: len(self.event.row)]),
            self.event.mask.eq(Mux(fire, or_tree(masks), 0)),
        ]
        return m


class PositionEnd(wiring.Component):
    """Ends a position when every bank is at its last event and the drain has time for its sums.

    Latency: none; the pulses are for the same cycle.
    Resources: an AND over the banks and a counter.

    Parameters
    ----------
    sizes : Sizes
    banks : int

    Members
    -------
    at_end : In(banks)
    mark : In(mark_layout)
        Of any bank.
    end, final : Out(1)
        A position ends; it is its tile's last.
    """

    def __init__(self, sizes: Sizes, banks: int):
        super().__init__(
            {
                "at_end": In(banks),
                "mark": In(mark_layout(sizes)),
                "end": Out(1),
                "final": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cooldown = Signal(self.mark.cooldown.shape())
        cool = Signal(init=1)
        m.d.comb += [self.end.eq(self.at_end.all() & cool), self.final.eq(self.end & self.mark.final)]
        following = Signal.like(cooldown)
        m.d.comb += following.eq(Mux(self.end, self.mark.cooldown, exact(cooldown - ~cool, cooldown.shape())))
        m.d.sync += [cooldown.eq(following), cool.eq(following == 0)]
        return m
