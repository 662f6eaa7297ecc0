"""Turns words of spikes into single events: the part that makes the machine event-driven."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.arith import unsigned_bits


def or_tree(values: list[Value]) -> Value:
    """OR of all values as a balanced tree."""
    while len(values) > 1:
        pairs = [a | b for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(pairs) * 2 :]
    return values[0]


def lowest_set(mask: Value) -> Value:
    """One-hot of the lowest set bit; zero for zero."""
    return (mask & ~(mask - 1)[: len(mask)])[: len(mask)]


def encode(one_hot: Value) -> Value:
    """Index of the set bit of a one-hot value."""
    width = max(1, unsigned_bits(len(one_hot) - 1))
    bits = []
    for b in range(width):
        members = [one_hot[i] for i in range(len(one_hot)) if i >> b & 1]
        bits.append(or_tree(members) if members else Value.cast(0))
    return Cat(bits)[:width]


class SpikeScanner(wiring.Component):
    """Issues one event (channel, plane) a cycle for every spike in the words it reads.

    A plane is a time step, or a bit of a pixel or head sum. Channels without a spike cost no cycle; the
    planes of one channel follow each other, so that its weights are read once for all of them.

    Latency: 3 cycles from `request` to its first event. Throughput: a word of S spikes takes exactly
    max(1, S) cycles, with no gap to the next word; a word without a spike costs one cycle with ``fire`` low.
    Resources: lanes x planes + lanes registers, a priority tree over the lanes.

    Parameters
    ----------
    lanes, planes : int
        Channels in a word and planes of a channel; bit ``lane * planes + plane``.
    request_layout : data.StructLayout
        Payload of the request stream (`window.WindowWalker`).

    Members
    -------
    request : In(stream)
    read_en, read_address : Out
        To a memory with one cycle of latency that keeps its output while `read_en` is low.
    read_x : Out
        Column of the position whose word is on `read_data`.
    read_data : In(lanes * planes)
    event : Out(stream)
        row (weight row), plane, fetch (first plane of its channel), fire (a spike: accumulate),
        end (nothing more for this position).
    """

    def __init__(self, *, lanes: int, planes: int, request_layout: data.StructLayout):
        self._lanes, self._planes = lanes, planes
        self._request = request_layout
        self.event_layout = data.StructLayout(
            {
                "row": request_layout["row"].width,
                "plane": max(1, unsigned_bits(planes - 1)),
                "fetch": 1,
                "fire": 1,
                "end": 1,
            }
        )
        super().__init__(
            {
                "request": In(stream.Signature(request_layout)),
                "read_en": Out(1),
                "read_address": Out(request_layout["address"].width),
                "read_x": Out(request_layout["x"].width),
                "read_data": In(lanes * planes),
                "event": Out(stream.Signature(self.event_layout)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, planes = self._lanes, self._planes
        request = self.request

        # Read stage: the memory's own output register holds the word until it is loaded.
        word_valid, word_last = Signal(), Signal()
        word_row = Signal(self._request["row"].width)
        load = Signal()
        m.d.comb += [
            request.ready.eq(~word_valid | load),
            self.read_en.eq(request.valid & request.ready),
            self.read_address.eq(request.payload.address),
        ]
        with m.If(request.ready):
            m.d.sync += [
                word_valid.eq(request.valid),
                word_last.eq(request.payload.last),
                word_row.eq(request.payload.row),
                self.read_x.eq(request.payload.x),
            ]

        # Channel stage: pick the lowest channel that still has a spike.
        chunk_valid, chunk_last = Signal(), Signal()
        chunk_row = Signal(self._request["row"].width)
        masks = Signal(lanes * planes)
        pending = Signal(lanes)
        chosen, rest = Signal(lanes), Signal(lanes)
        take, exhausted = Signal(), Signal()
        m.d.comb += [
            chosen.eq(lowest_set(pending)),
            rest.eq(pending & ~chosen),
            exhausted.eq(~rest.any()),
            load.eq(word_valid & (~chunk_valid | (take & exhausted))),
        ]
        with m.If(~chunk_valid | (take & exhausted)):
            m.d.sync += [
                chunk_valid.eq(word_valid),
                chunk_last.eq(word_last),
                chunk_row.eq(word_row),
                masks.eq(self.read_data),
                pending.eq(Cat(self.read_data.word_select(i, planes).any() for i in range(lanes))),
            ]
        with m.Elif(take):
            m.d.sync += pending.eq(rest)

        # Plane stage: one event a cycle for the chosen channel.
        event_valid, fetch, end = Signal(), Signal(), Signal()
        event_row = Signal(self._request["row"].width)
        index = Signal(max(1, unsigned_bits(lanes - 1)))
        planes_left = Signal(planes)
        now, later = Signal(planes), Signal(planes)
        chosen_planes = or_tree([Mux(chosen[i], masks.word_select(i, planes), 0) for i in range(lanes)])
        finished = Signal()
        m.d.comb += [
            now.eq(lowest_set(planes_left)),
            later.eq(planes_left & ~now),
            finished.eq(~later.any()),
            take.eq(~event_valid | (self.event.ready & finished)),
            self.event.valid.eq(event_valid),
            self.event.payload.row.eq(event_row + index),
            self.event.payload.plane.eq(encode(now)),
            self.event.payload.fetch.eq(fetch),
            self.event.payload.fire.eq(planes_left.any()),
            self.event.payload.end.eq(end & finished),
        ]
        with m.If(take):
            m.d.sync += [
                event_valid.eq(chunk_valid),
                event_row.eq(chunk_row),
                index.eq(encode(chosen)),
                planes_left.eq(chosen_planes),
                fetch.eq(1),
                end.eq(chunk_last & exhausted),
            ]
        with m.Elif(self.event.ready):
            m.d.sync += [planes_left.eq(later), fetch.eq(0)]
        return m
