"""Starts the steps of the layer program, each as soon as what it reads is complete."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.step_rom import SourceField, StepRecords, StepRom
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes, TilePort, bits_for


class Sequencer(wiring.Component):
    """Hands the walkers one step after the other.

    A step starts when the walk of the one before has ended, what it reads is complete or will be in time (its
    record says when, see `overlap`), and its weights are there. A frame starts when an image is there
    and everything of the one before is complete.

    Latency: 1 cycle from the last condition to `start`; a record takes `records.FETCH_CYCLES` to fetch,
    during the walk before.
    Resources: a ROM of records, a record of flip-flops, two comparators.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    records : StepRecords

    Members
    -------
    frame_valid, frame_bank : In(1)
        An image waits in that bank of the pixel memory.
    frame_release : Out(1)
        Pulse: it was read to its end; with the `start` of the first step that reads something else.
    walking : In(1)
        A walk is going on.
    tile_ended : In(1)
        The last position of a step has ended: no event of it is left.
    tile_complete : In(1)
        A step is complete.
    results_busy : In(1)
        The logits of an earlier frame are still being sent: the head waits.
    blocks : In
        Blocks whose attention may be read.
    frame_start : Out(1)
        Pulse: nothing of an earlier frame is going on, a new one starts.
    frame_complete : Out(1)
        Pulse: the last step is complete.
    tiles : Out(TilePort)
        `release` is not driven here.
    step : Out(records.walk_layout)
        Stable from `start` to the next.
    index : Out
        Its number.
    row_base : Out
        Its first weight row.
    pixel_base : Out
        First pixel of the image being computed.
    start : Out(1)
    busy : Out(1)
        A frame is being computed.
    """

    def __init__(self, program: Program, sizes: Sizes, records: StepRecords):
        self._program, self._sizes, self._records = program, sizes, records
        super().__init__(
            {
                "frame_valid": In(1),
                "frame_bank": In(1),
                "frame_release": Out(1),
                "walking": In(1),
                "tile_ended": In(1),
                "tile_complete": In(1),
                "results_busy": In(1),
                "blocks": In(bits_for(program.network.depth)),
                "frame_start": Out(1),
                "frame_complete": Out(1),
                "tiles": Out(TilePort(sizes)),
                "step": Out(records.walk_layout),
                "index": Out(sizes.step),
                "row_base": Out(sizes.row),
                "pixel_base": Out(sizes.pixel),
                "start": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        net, records = self._program.network, self._records
        m.submodules.rom = rom = StepRom(records.walk_layout, records.walk_words)
        coming = rom.record
        last = len(self._program.steps)
        complete, ended = Signal(range(last + 1)), Signal(range(last + 1))  # steps of this frame
        since = Signal(coming.settle.shape(), init=1)  # cycles since the last one ended, and one, saturated
        # What the next cycle's decision depends on stands in registers.
        first, from_head, readable, all_complete = Signal(), Signal(), Signal(), Signal()
        then_complete, then_ended, then_since = Signal.like(complete), Signal.like(ended), Signal.like(since)
        fits, go = Signal(), Signal()
        from_pixels = coming.source == SourceField.PIXELS
        m.d.comb += [
            then_complete.eq(Mux(all_complete, 0, complete + self.tile_complete)),
            then_ended.eq(Mux(all_complete, 0, ended + self.tile_ended)),
            then_since.eq(Mux(self.tile_ended, 0, since)),
            self.frame_complete.eq(all_complete),
            go.eq(rom.valid & ~self.walking & self.tiles.ready & fits),
            fits.eq(
                Mux(
                    first,
                    ~self.busy & self.frame_valid,
                    readable & (self.blocks >= coming.after_attention) & ~(self.results_busy & from_head),
                )
            ),
            rom.advance.eq(go),
            self.frame_start.eq(go & first),
            self.tiles.start.eq(go),
            self.tiles.complete.eq(self.tile_complete),
        ]
        m.d.sync += [
            *(complete.eq(then_complete), ended.eq(then_ended)),
            since.eq(then_since + ~then_since.all()),
            all_complete.eq(then_complete == last),
            first.eq(rom.index == 0),
            from_head.eq(coming.source == SourceField.HEAD_SUM),
            readable.eq(
                (then_complete >= coming.after)
                | (coming.follows & (then_ended == rom.index) & (then_since >= coming.settle))
            ),
        ]
        m.d.sync += self.start.eq(go)
        reading_pixels = Signal()
        m.d.sync += self.frame_release.eq(go & reading_pixels & ~from_pixels)
        with m.If(go):
            m.d.sync += [
                self.step.eq(coming),
                self.index.eq(rom.index),
                reading_pixels.eq(from_pixels),
                self.row_base.eq(
                    coming.tile_base if self._program.machine.weight_memory == "rom" else self.tiles.base
                ),
            ]
        with m.If(self.frame_start):
            m.d.sync += [
                self.busy.eq(1),
                self.pixel_base.eq(Mux(self.frame_bank, net.image_height * net.image_width, 0)),
            ]
        with m.If(self.frame_complete):
            m.d.sync += self.busy.eq(0)
        return m
