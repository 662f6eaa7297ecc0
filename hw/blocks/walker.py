"""Walks the words that a tile reads: every position, pass, valid tap and word of input channels."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.counting import CountTo
from s2tdpt.hw.blocks.step_rom import StepRecords
from s2tdpt.hw.plan.records import Sizes, request_layout


def window_layout(sizes: Sizes) -> data.StructLayout:
    """A position's window: address and weight row of its first valid tap, which taps lie in the map, and
    whether it is the tile's last."""
    return data.StructLayout(
        {
            "address": sizes.address,
            "row": sizes.row,
            "first_y": 2,
            "last_y": 2,
            "first_x": 2,
            "last_x": 2,
            "final": 1,
        }
    )


class PositionWalker(wiring.Component):
    """Streams the windows of a tile's positions in raster order.

    Latency: 2 cycles from `start` to the first window; throughput: one window a cycle.
    Resources: two counters, two address registers, a handful of adders; no multiplier.

    Parameters
    ----------
    records : StepRecords
    sizes : Sizes

    Members
    -------
    step : In(records.walk_layout)
        Stable from `start` until `busy` falls.
    row_base : In
        First weight row of the tile.
    start : In(1)
    busy : Out(1)
        Positions remain.
    window : Out(stream)
    """

    def __init__(self, records: StepRecords, sizes: Sizes):
        self._layout = records.walk_layout
        self._sizes = sizes
        self.window_layout = window_layout(sizes)
        super().__init__(
            {
                "step": In(self._layout),
                "row_base": In(sizes.row),
                "start": In(1),
                "busy": Out(1),
                "window": Out(stream.Signature(self.window_layout)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step, window = self.step, self.window
        x, y = Signal(self._layout["last_x"].width), Signal(self._layout["last_y"].width)
        address = Signal(self._sizes.address)
        last_x, last_y, above, left = Signal(), Signal(), Signal(), Signal()
        ready = Signal()
        m.d.comb += [
            last_x.eq(x == step.last_x),
            last_y.eq(y == step.last_y),
            above.eq(step.kernel3 & (y != 0)),
            left.eq(step.kernel3 & (x != 0)),
            ready.eq(~window.valid | window.ready),
        ]
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), x.eq(0), y.eq(0), address.eq(step.src_base)]
        with m.Elif(self.busy & ready):
            m.d.sync += [
                x.eq(Mux(last_x, 0, x + 1)),
                y.eq(y + last_x),
                address.eq(address + step.stride),
                self.busy.eq(~(last_x & last_y)),
            ]
        with m.If(ready):
            m.d.sync += [
                window.valid.eq(self.busy),
                window.payload.final.eq(last_x & last_y),
                window.payload.first_y.eq(Mux(above, 0, 1)),
                window.payload.last_y.eq(Mux(step.kernel3 & ~last_y, 2, 1)),
                window.payload.first_x.eq(Mux(left, 0, 1)),
                window.payload.last_x.eq(Mux(step.kernel3 & ~last_x, 2, 1)),
                window.payload.address.eq(address - Mux(above, step.line, 0) - Mux(left, step.stride, 0)),
                window.payload.row.eq(
                    self.row_base
                    + Mux(step.kernel3 & ~above, step.line_rows, 0)
                    + Mux(step.kernel3 & ~left, step.tap_rows, 0)
                ),
            ]
        return m


class TapWalker(wiring.Component):
    """Streams the words of each window: passes, rows of taps, taps, words of input channels.

    Latency: 1 cycle; throughput: one request a cycle, without a gap between windows.
    Resources: three address and three row registers, an adder each; no multiplier.

    Parameters
    ----------
    records : StepRecords
    sizes : Sizes
    layout : data.StructLayout
        Of the windows.

    Members
    -------
    step : In(records.walk_layout)
        Stable while windows or requests of a tile are on their way.
    window : In(stream)
    request : Out(stream)
        `records.request_layout`.
    """

    def __init__(self, records: StepRecords, sizes: Sizes, layout: data.StructLayout):
        self._layout, self._window, self._sizes = records.walk_layout, layout, sizes
        super().__init__(
            {
                "step": In(self._layout),
                "window": In(stream.Signature(layout)),
                "request": Out(stream.Signature(request_layout(sizes))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step, window, request = self.step, self.window, self.request
        held = Signal(self._window)  # the window being walked, for its further passes
        ky, kx = CountTo(2, "ky"), CountTo(2, "kx")
        word = CountTo(self._layout["last_word"].width, "word")
        plane_pass = CountTo(self._sizes.plane_pass, "plane_pass")
        address, row = Signal(self._sizes.address), Signal(self._sizes.row)
        places = data.StructLayout({"address": self._sizes.address, "row": self._sizes.row})
        line, tap = Signal(places), Signal(places)  # first word of this row of taps, of this tap
        word_end, tap_end, pass_end, end = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            word_end.eq(word.last),
            tap_end.eq(word_end & kx.last),
            pass_end.eq(tap_end & ky.last),
            end.eq(pass_end & plane_pass.last),
            request.payload.address.eq(address),
            request.payload.row.eq(row),
            request.payload.plane_pass.eq(plane_pass.value),
            request.payload.mark.last.eq(pass_end),
            request.payload.mark.final.eq(end & held.final),
            request.payload.mark.cooldown.eq(
                Mux(request.payload.mark.final, step.final_cooldown, step.cooldown)
            ),
            window.ready.eq(~request.valid | (request.ready & end)),
        ]

        def begin(source):
            first = [target.eq(source.address) for target in (address, line.address, tap.address)]
            first += [target.eq(source.row) for target in (row, line.row, tap.row)]
            first += [*ky.begin(source.last_y, source.first_y), *kx.begin(source.last_x, source.first_x)]
            return [*first, *word.begin(step.last_word)]

        with m.If(window.ready):
            m.d.sync += [request.valid.eq(window.valid), held.eq(window.payload)]
            m.d.sync += [*begin(window.payload), *plane_pass.begin(step.last_pass)]
        with m.Elif(request.ready):
            with m.If(pass_end):
                m.d.sync += [*begin(held), *plane_pass.step(step.last_pass)]
            with m.Elif(tap_end):
                next_address, next_row = line.address + step.line, line.row + step.line_rows
                m.d.sync += [
                    *(target.eq(next_address) for target in (address, line.address, tap.address)),
                    *(target.eq(next_row) for target in (row, line.row, tap.row)),
                    *ky.step(held.last_y),
                    *kx.begin(held.last_x, held.first_x),
                    *word.begin(step.last_word),
                ]
            with m.Elif(word_end):
                next_address, next_row = tap.address + step.stride, tap.row + step.tap_rows
                m.d.sync += [
                    *(target.eq(next_address) for target in (address, tap.address)),
                    *(target.eq(next_row) for target in (row, tap.row)),
                    *(*kx.step(held.last_x), *word.begin(step.last_word)),
                ]
            with m.Else():
                m.d.sync += [address.eq(address + 1), row.eq(row + step.word_rows)]
                m.d.sync += word.step(step.last_word)
        return m
