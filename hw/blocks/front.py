"""The event side of the machine: from a step of the program to the events of all banks."""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.reader import ReadPort, WordReader
from s2tdpt.hw.blocks.scanner import BankScanner, PositionEnd, SliceQueue
from s2tdpt.hw.blocks.skid import SkidBuffer
from s2tdpt.hw.blocks.step_rom import SourceField, StepRecords
from s2tdpt.hw.blocks.walker import PositionWalker, TapWalker
from s2tdpt.hw.blocks.window import PixelPort, PixelWindow
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes, event_layout


class EventSource(wiring.Component):
    """Walks a tile's words, reads them, and issues the events of every bank.

    Latency: 9 cycles from `start` to the first event where nothing waits, 13 where pixels are read;
    throughput: every bank a channel with spikes a cycle. `front_model.FrontModel` counts it exactly.
    Resources: those of the parts.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    records : StepRecords

    Members
    -------
    step, row_base, pixel_base, start
        From `sequencer.Sequencer`.
    walking : Out(1)
        Words of the tile remain to be asked for.
    spikes, head_sums : Out(ReadPort)
    pixels : Out(PixelPort)
    event : Out(event_layout).array(banks)
    end, final : Out(1)
        With the events: the last ones of a position, of a tile.
    """

    def __init__(self, program: Program, sizes: Sizes, records: StepRecords):
        net, machine = program.network, program.machine
        self._program, self._sizes, self._records = program, sizes, records
        super().__init__(
            {
                "step": In(records.walk_layout),
                "row_base": In(sizes.row),
                "pixel_base": In(sizes.pixel),
                "start": In(1),
                "walking": Out(1),
                "spikes": Out(ReadPort(sizes, machine.lanes * net.timesteps)),
                "pixels": Out(PixelPort(program, sizes)),
                "head_sums": Out(ReadPort(sizes, program.piece_bits)),
                "event": Out(event_layout(sizes, net.timesteps)).array(machine.banks),
                "end": Out(1),
                "final": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program, sizes = self._program, self._sizes
        m.submodules.positions = positions = PositionWalker(self._records, sizes)
        # Whether the taps move hangs on the whole walk; the positions need not know it in the same cycle.
        m.submodules.windows = windows = SkidBuffer(positions.window_layout)
        m.submodules.taps = taps = TapWalker(self._records, sizes, positions.window_layout)
        m.submodules.window = window = PixelWindow(program, sizes)
        m.submodules.reader = reader = WordReader(program, sizes)
        m.submodules.position_end = position_end = PositionEnd(sizes, program.machine.banks)
        wiring.connect(m, positions.window, windows.source)
        wiring.connect(m, windows.sink, taps.window)
        wiring.connect(m, taps.request, reader.request)
        wiring.connect(m, reader.pixels, window.words)
        for inner, outer in (
            (reader.spikes, self.spikes),
            (window.pixels, self.pixels),
            (reader.head_sums, self.head_sums),
        ):
            wiring.connect(m, inner, wiring.flipped(outer))
        m.d.comb += [
            positions.step.eq(self.step),
            positions.row_base.eq(self.row_base),
            positions.start.eq(self.start),
            window.start.eq(self.start),
            window.active.eq(self.step.source == SourceField.PIXELS),
            window.base.eq(self.pixel_base),
            taps.step.eq(self.step),
            reader.source.eq(self.step.source),
            self.walking.eq(positions.busy | windows.sink.valid | taps.request.valid),
        ]
        for bank in range(program.machine.banks):
            queue = SliceQueue(reader.slice_layout, program.machine.queue)
            scanner = BankScanner(program, sizes)
            m.submodules[f"queue_{bank}"], m.submodules[f"scanner_{bank}"] = queue, scanner
            m.d.comb += [
                queue.push.eq(reader.push[bank]),
                queue.data.eq(reader.slice[bank]),
                queue.pop.eq(scanner.pop),
                scanner.valid.eq(queue.valid),
                scanner.head.eq(queue.head),
                scanner.end.eq(position_end.end),
                reader.popped[bank].eq(scanner.pop),
                position_end.at_end[bank].eq(scanner.at_end),
                self.event[bank].eq(scanner.event),
            ]
            if bank == 0:
                m.d.comb += position_end.mark.eq(scanner.mark)
        m.d.sync += [self.end.eq(position_end.end), self.final.eq(position_end.final)]
        return m
