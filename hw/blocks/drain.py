"""Goes through the pieces of every position whose sums are complete, and says what becomes of each."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.counting import CountTo
from s2tdpt.hw.blocks.step_rom import SinkField, StepRecords, StepRom
from s2tdpt.hw.fixed import wrap
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import STREAM_CONSTANT_TILES, Sizes, constant_words


def tag_layout(sizes: Sizes) -> data.StructLayout:
    """What travels beside a piece through the post-processing.

    step
        Number of its step.
    sink, by_planes, signed_planes, first_writer, writes_spikes, sums_head, pooled, projection
        As in `step_rom.drain_fields`.
    first_pass, last_pass
        Of the planes of a number; both for spikes.
    first_position
        Of the tile.
    position
        Of the map, in raster order: the token.
    piece, subgroup, final
        Number among the pieces of the position, within its word, and whether no later piece of the position
        exists in any tile.
    address, residual_address
        Spike word it is written to; word of U.
    column, odd_x, last_x, first_y, odd_y, last_y
        Place in the map, for pooling: `column` is half of x.
    tile_end
        Last piece of the tile.
    heads_ready
        With `tile_end`: as in `program.Step`.
    law
        The same; only where there is more than one.
    """
    law = {"law": sizes.law} if sizes.law else {}
    return data.StructLayout(
        {
            "step": sizes.step,
            "sink": SinkField,
            "by_planes": 1,
            "signed_planes": 1,
            "first_writer": 1,
            "writes_spikes": 1,
            "sums_head": 1,
            "pooled": 1,
            "projection": 2,
            "first_pass": 1,
            "last_pass": 1,
            "first_position": 1,
            "position": sizes.position,
            "piece": sizes.piece,
            "subgroup": sizes.subgroup,
            "final": 1,
            "address": sizes.spike_address,
            "residual_address": sizes.residual_address,
            "column": sizes.column,
            "odd_x": 1,
            "last_x": 1,
            "first_y": 1,
            "odd_y": 1,
            "last_y": 1,
            "tile_end": 1,
            "heads_ready": sizes.heads,
            "base": sizes.spike_address,
        }
        | law
    )


OF_STEP = (
    "sink",
    "by_planes",
    "signed_planes",
    "first_writer",
    "writes_spikes",
    "sums_head",
    "pooled",
    "projection",
    "heads_ready",
)
"""Fields of a tag that are the step's."""


class DrainSequencer(wiring.Component):
    """From the arrival of a position's sums to a tag for each of its pieces.

    Latency: none; the first piece is named in the cycle of `arrived`. Throughput: one piece a cycle.
    Resources: a ROM of records, a dozen counters.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    records : StepRecords

    Members
    -------
    arrived : In(1)
        A position's sums can be read; at least as many cycles apart as its tile has pieces.
    valid : Out(1)
        A piece is named in this cycle.
    tag : Out(tag_layout)
    constant : Out
        Constant word of the piece.
    """

    def __init__(self, program: Program, sizes: Sizes, records: StepRecords):
        self._program, self._sizes, self._records = program, sizes, records
        super().__init__(
            {
                "arrived": In(1),
                "valid": Out(1),
                "tag": Out(tag_layout(sizes)),
                "constant": Out(sizes.constant),
            }
        )

    def elaborate(self, platform):
        m = Module()
        records = self._records
        m.submodules.rom = rom = StepRom(records.drain_layout, records.drain_words)
        step, number = Signal(records.drain_layout), Signal(self._sizes.step)
        loaded = Signal()  # `step` is the record of the step being drained
        busy, subgroup = Signal(), CountTo(self._sizes.subgroup, "subgroup")
        piece_end, tile_end, refill = Signal(), Signal(), Signal()
        m.d.comb += [
            self.valid.eq(self.arrived | busy),
            piece_end.eq(self.valid & subgroup.last),
            refill.eq(~loaded | tile_end),
            rom.advance.eq(refill & rom.valid),
        ]
        with m.If(refill):
            m.d.sync += [step.eq(rom.record), number.eq(rom.index), loaded.eq(rom.valid)]
        with m.If(self.valid):
            m.d.sync += busy.eq(~piece_end)
        with m.If(refill):
            m.d.sync += subgroup.begin(rom.record.last_subgroup)
        with m.Elif(piece_end):
            m.d.sync += subgroup.begin(step.last_subgroup)
        with m.Elif(self.valid):
            m.d.sync += subgroup.step(step.last_subgroup)
        self._walk(m, step, number, rom.record, refill, subgroup, piece_end, tile_end)
        return m

    def _walk(self, m, step, number, following, refill, subgroup, piece_end, tile_end):
        """Counters over passes and positions, and the tag that they make."""
        sizes, tag = self._sizes, self.tag
        pieces = self._program.residual_pieces
        layout = self._records.drain_layout
        plane_pass = CountTo(sizes.plane_pass, "plane_pass")
        columns, rows = CountTo(layout["last_x"].width, "x"), CountTo(layout["last_y"].width, "y")
        x, y, last_x, last_y = columns.value, rows.value, columns.last, rows.last
        position, address, row = (
            Signal(sizes.position),
            Signal(sizes.spike_address),
            Signal(sizes.residual_address),
        )
        last_pass, emits = plane_pass.last, Signal()
        m.d.comb += [
            emits.eq(~step.pooled | ((x[0] | last_x) & (y[0] | last_y))),
            tile_end.eq(piece_end & last_pass & last_x & last_y),
        ]
        with m.If(refill):
            m.d.sync += [
                *plane_pass.begin(following.last_pass),
                *columns.begin(following.last_x),
                *rows.begin(following.last_y),
            ]
        with m.Elif(piece_end & ~last_pass):
            m.d.sync += plane_pass.step(step.last_pass)
        with m.Elif(piece_end):
            m.d.sync += plane_pass.begin(step.last_pass)
            with m.If(last_x):
                m.d.sync += [*columns.begin(step.last_x), *rows.step(step.last_y)]
            with m.Else():
                m.d.sync += columns.step(step.last_x)
        with m.If(piece_end & last_pass):
            m.d.sync += [
                position.eq(Mux(tile_end, 0, position + 1)),
                row.eq(Mux(tile_end, 0, row + pieces)),
                address.eq(address + Mux(emits, step.dst_stride, 0)),
            ]
        with m.If(refill):
            m.d.sync += address.eq(following.dst_base)
        first_piece = step.first_piece
        m.d.comb += [
            *(tag[name].eq(step[name]) for name in OF_STEP),
            tag.step.eq(number),
            tag.first_pass.eq(plane_pass.value == 0),
            tag.last_pass.eq(last_pass),
            tag.first_position.eq(position == 0),
            tag.position.eq(position),
            tag.piece.eq(wrap(first_piece + subgroup.value, tag.piece.shape())),
            tag.subgroup.eq(subgroup.value),
            tag.final.eq(step.last_group & subgroup.last),
            tag.address.eq(address),
            tag.base.eq(step.dst_base),
            tag.residual_address.eq(wrap(row + first_piece + subgroup.value, row.shape())),
            tag.column.eq(x >> 1),
            tag.odd_x.eq(x[0]),
            tag.last_x.eq(last_x),
            tag.first_y.eq(y == 0),
            tag.odd_y.eq(y[0]),
            tag.last_y.eq(last_y),
            tag.tile_end.eq(tile_end),
        ]
        if self._sizes.law:
            m.d.comb += tag.law.eq(step.law)
        constant = self._constant_base(m, step, tile_end) + subgroup.value
        m.d.comb += self.constant.eq(wrap(constant, self.constant.shape()))

    def _constant_base(self, m, step, tile_end):
        """First constant word of the tile: known to the program, or the next slot of the ring."""
        machine = self._program.machine
        if machine.weight_memory == "rom":
            return step.const_base
        slot = Signal(range(constant_words(self._program)))
        last = (STREAM_CONSTANT_TILES - 1) * machine.subgroups
        with m.If(tile_end):
            m.d.sync += slot.eq(Mux(slot == last, 0, slot + machine.subgroups))
        return slot
