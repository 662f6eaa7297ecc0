"""Reads the words that the walk asks for and hands every bank its slice."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.step_rom import SourceField
from s2tdpt.hw.fixed import wrap
from s2tdpt.hw.plan.machine import PIXEL_BITS
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes, bits_for, request_layout, slice_layout


class ReadPort(wiring.Signature):
    """Read port of a source memory, seen from the reader; delay 1.

    Members
    -------
    en : ``Out(1)``
    address : ``Out``
    plane_pass : ``Out``
        Planes wanted, where the memory holds head sums.
    data : ``In(width)``
    """

    def __init__(self, sizes: Sizes, width: int):
        super().__init__(
            {
                "en": Out(1),
                "address": Out(sizes.address),
                "plane_pass": Out(sizes.plane_pass),
                "data": In(width),
            }
        )


class WindowPort(wiring.Signature):
    """Read port of a window of pixels, seen from the reader; delay 1.

    Members
    -------
    ready : ``In(1)``
        A word may be asked for; high where pixels are not what the walk reads.
    en : ``Out(1)``
    address : ``Out``
        Word of the window; the last one of the last pass moves it on.
    plane_pass : ``Out``
    data : ``In``
        Bytes of the word's channels.
    """

    def __init__(self, program: Program, sizes: Sizes):
        packing = program.window_packing
        super().__init__(
            {
                "ready": In(1),
                "en": Out(1),
                "address": Out(sizes.address),
                "plane_pass": Out(sizes.plane_pass),
                "data": In(min(packing.channels, packing.lanes) * PIXEL_BITS),
            }
        )


class WordReader(wiring.Component):
    """From requests to slices: spikes, pixels' bit planes or head sums' bit planes, cut up by banks.

    A slice without a spike is not handed on, unless a position ends with it. A request is taken only while
    every bank is sure to have room for its slice, and the window of pixels is there if it is one of it.

    Latency: 3 cycles from a request to its slices; throughput: one word a cycle.
    Resources: four words of flip-flops, a counter a bank.

    Parameters
    ----------
    program : Program
    sizes : Sizes

    Members
    -------
    source : In(SourceField)
        Of the requests.
    request : In(stream)
    spikes, head_sums : Out(ReadPort)
    pixels : Out(WindowPort)
    push : Out(1).array(banks)
        The slice goes into the bank's queue.
    slice : Out(slice_layout).array(banks)
    popped : In(1).array(banks)
        A slice left the bank's queue.
    """

    def __init__(self, program: Program, sizes: Sizes):
        net, machine = program.network, program.machine
        self._program, self._sizes = program, sizes
        self.slice_layout = slice_layout(sizes, machine.slice_channels, net.timesteps)
        super().__init__(
            {
                "source": In(SourceField),
                "request": In(stream.Signature(request_layout(sizes))),
                "spikes": Out(ReadPort(sizes, machine.lanes * net.timesteps)),
                "pixels": Out(WindowPort(program, sizes)),
                "head_sums": Out(ReadPort(sizes, machine.post_lanes * net.timesteps)),
                "push": Out(1).array(machine.banks),
                "slice": Out(self.slice_layout).array(machine.banks),
                "popped": In(1).array(machine.banks),
            }
        )

    def _pixel_planes(self, plane_pass):
        """The T planes of a pass of every channel, highest plane in slot 0."""
        net, passes = self._program.network, self._program.pixel_passes
        steps = net.timesteps
        # A zero point of 128 turns the byte into two's complement: its top bit inverts and is extended.
        pad = passes * steps - PIXEL_BITS
        planes = []
        for channel in range(len(self.pixels.data) // PIXEL_BITS):
            byte = self.pixels.data.word_select(channel, PIXEL_BITS) ^ net.pixel_zero_point
            sign = byte[-1] if net.pixel_zero_point else 0
            falling = [*[sign] * pad, *reversed(list(byte))]
            planes.append(Array(Cat(falling[p * steps : (p + 1) * steps]) for p in range(passes))[plane_pass])
        return Cat(planes)

    def elaborate(self, platform):
        m = Module()
        program, machine = self._program, self._program.machine
        request = self.request
        fire, room = Signal(), Signal(init=1)
        dropped = Signal(machine.banks)  # a slice without a spike is not handed on
        m.d.comb += [request.ready.eq(room & self.pixels.ready), fire.eq(request.valid & request.ready)]
        # Room in each bank's queue, less the slices that are on their way to it. That a slice leaves is known
        # last in the cycle: both outcomes are ready for it.
        room_bits, full = bits_for(machine.queue), []
        counts = [Signal(room_bits, init=machine.queue, name=f"room_{b}") for b in range(machine.banks)]
        for bank, (count, popped) in enumerate(zip(counts, self.popped, strict=True)):
            stays = Signal.like(count, name=f"room_stays_{bank}")
            m.d.comb += stays.eq(wrap(count + dropped[bank] - fire, count.shape()))
            m.d.sync += count.eq(Mux(popped, wrap(stays + 1, count.shape()), stays))
            full.append(Mux(popped, stays.all(), ~stays.any()))
        # Looked up a cycle ahead: the walk stands or moves as a whole, with many registers.
        m.d.sync += room.eq(~Cat(full).any())
        for port, source in (
            (self.spikes, SourceField.SPIKES),
            (self.pixels, SourceField.PIXELS),
            (self.head_sums, SourceField.HEAD_SUM),
        ):
            m.d.comb += [
                port.en.eq(fire & (self.source == source)),
                port.address.eq(request.payload.address),
                port.plane_pass.eq(request.payload.plane_pass),
            ]

        # Stage 1: the memories answer. Stage 2: their answers, zero where not asked. Stage 3: slices.
        valid_1, request_1, source_1 = Signal(), Signal(request.payload.shape()), Signal(SourceField)
        valid_2, request_2 = Signal(), Signal(request.payload.shape())
        m.d.sync += [
            *(valid_1.eq(fire), request_1.eq(request.payload), source_1.eq(self.source)),
            *(valid_2.eq(valid_1), request_2.eq(request_1)),
        ]
        # A block memory answers late in the cycle: nothing but a register lies behind it.
        spikes, numbers = (
            Signal(machine.lanes * program.network.timesteps, name=n) for n in ("spikes", "numbers")
        )
        with m.Switch(source_1):
            with m.Case(SourceField.PIXELS):
                m.d.sync += [spikes.eq(0), numbers.eq(self._pixel_planes(request_1.plane_pass))]
            with m.Case(SourceField.HEAD_SUM):
                m.d.sync += [spikes.eq(0), numbers.eq(self.head_sums.data)]
            with m.Default():
                m.d.sync += [spikes.eq(self.spikes.data), numbers.eq(0)]
        self._cut(m, valid_2, request_2, spikes | numbers, dropped)
        return m

    def _cut(self, m, valid, request, word, dropped):
        """Slices of a word, with the channels that have a spike."""
        machine, steps = self._program.machine, self._program.network.timesteps
        channels = data.View(data.ArrayLayout(steps, machine.lanes), word)
        for bank in range(machine.banks):
            slots = range(bank, machine.lanes, machine.banks)
            active = Signal(machine.slice_channels, name=f"active_{bank}")
            wanted = Signal(name=f"wanted_{bank}")
            out = self.slice[bank]
            m.d.comb += [
                active.eq(Cat(channels[slot].any() for slot in slots)),
                wanted.eq(active.any() | request.mark.last),
            ]
            m.d.sync += [
                self.push[bank].eq(valid & wanted),
                dropped[bank].eq(valid & ~wanted),
                out.masks.eq(Cat(channels[slot] for slot in slots)),
                out.active.eq(active),
                out.row.eq(request.row),
                out.mark.eq(request.mark),
            ]
