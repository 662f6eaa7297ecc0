"""Walks the words that an accumulate operation reads: every group, position, valid tap and chunk."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


class WindowWalker(wiring.Component):
    """Streams the read addresses of one row of an accumulate operation, one a cycle.

    The order is: output groups; positions ``row, row + rows, ...`` in raster order; taps inside the map;
    chunks of input channels. Taps outside the map (zero padding) cost nothing. A linear layer is a map
    with a single tap.

    Latency: 3 cycles from `start` to the first request; throughput: one request a cycle, without a gap
    between positions or groups.
    Resources: about 10 address registers and as many adders; no multiplier.

    Parameters
    ----------
    layout : OperationLayout
    row, rows : int
        This row takes every `rows`-th position, starting with `row`.
    chunk_rows : int
        Weight rows of a full chunk of a spike word (the lanes).
    slice_rows : int
        Weight rows of a chunk of head sums (the post-processing lanes).
    address_width, weight_width, tile_width : int
        Bits of read addresses, weight rows and tile numbers.
    bank_rows : int, optional
        Streamed weights: rows of a bank; even tiles start at row 0, odd ones at `bank_rows`.

    Members
    -------
    op : In(layout)
        Stable from `start` until the operation is done.
    src_base : In(address_width)
        Added to every address.
    tile_base : In(weight_width)
        First weight row of the operation (on-chip weights).
    by_slices : In(1)
        Chunks are `slice_rows` long.
    start : In(1)
    tile : Out(tile_width)
        Number of the tile now needed, counted from reset modulo 2^tile_width.
    tile_ready : In(1)
        That tile may be read.
    request : Out(stream)
        address, row (weight row of the chunk's first channel), x (column of the position), last (of the
        position).
    """

    def __init__(
        self,
        layout,
        *,
        row: int,
        rows: int,
        chunk_rows: int,
        slice_rows: int,
        address_width: int,
        weight_width: int,
        tile_width: int,
        bank_rows: int | None = None,
    ):
        self._bank_rows = bank_rows
        self._row, self._rows = row, rows
        self._chunk_rows, self._slice_rows = chunk_rows, slice_rows
        self._address_width, self._weight_width = address_width, weight_width
        self._layout = layout
        self.request_layout = data.StructLayout(
            {"address": address_width, "row": weight_width, "x": layout["width"].width, "last": 1}
        )
        super().__init__(
            {
                "op": In(layout),
                "src_base": In(address_width),
                "tile_base": In(weight_width),
                "by_slices": In(1),
                "start": In(1),
                "tile": Out(tile_width),
                "tile_ready": In(1),
                "request": Out(stream.Signature(self.request_layout)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        op, layout = self.op, self._layout
        grid_x, grid_y = layout["width"].width + 1, layout["height"].width + 1

        # Position stage: (group, y, x) and the address of the position, one position ahead of the taps.
        position_valid = Signal()
        position_ready = Signal()
        group = Signal(layout["out_groups"].width)
        x, y = Signal(grid_x), Signal(grid_y)
        position = Signal(self._address_width)
        tile_row = Signal(self._weight_width)
        first_position = sum([op.pos_stride] * self._row) if self._row else 0
        row_stride = sum([op.pos_stride] * self._rows)
        next_x = Signal(grid_x + 1)
        wraps = Signal()
        next_y = Signal(grid_y)
        m.d.comb += [
            next_x.eq(x + self._rows),
            wraps.eq(next_x >= op.width),
            next_y.eq(y + wraps),
        ]
        following_tile = Signal.like(self.tile)
        m.d.comb += following_tile.eq(self.tile + 1)
        if self._bank_rows is None:
            first_tile_row, next_tile_row = self.tile_base, tile_row + op.tile_rows
        else:
            first_tile_row = Mux(self.tile[0], self._bank_rows, 0)
            next_tile_row = Mux(following_tile[0], self._bank_rows, 0)
        idle_row = Signal()  # fewer positions than rows: nothing to do here
        m.d.comb += idle_row.eq((op.height == 1) & (self._row >= op.width))
        exhausted = Signal()
        m.d.comb += exhausted.eq((next_y == op.height) | idle_row)
        with m.If(self.start):
            m.d.sync += [
                group.eq(0),
                x.eq(self._row),
                y.eq(0),
                position.eq(first_position),
                tile_row.eq(first_tile_row),
                position_valid.eq(1),
            ]
        with m.Elif(position_valid & (idle_row | (position_ready & self.tile_ready))):
            m.d.sync += [
                x.eq(Mux(wraps, next_x - op.width, next_x)),
                y.eq(next_y),
                position.eq(position + row_stride),
            ]
            with m.If(exhausted):
                m.d.sync += [
                    x.eq(self._row),
                    y.eq(0),
                    position.eq(first_position),
                    group.eq(group + 1),
                    tile_row.eq(next_tile_row),
                    self.tile.eq(following_tile),
                    position_valid.eq(group != op.out_groups - 1),
                ]

        # Window stage: tap range and first addresses of the next position.
        window_valid, window_ready = Signal(), Signal()
        tap_y, last_y, tap_x, first_x, last_x = Signal(2), Signal(2), Signal(2), Signal(2), Signal(2)
        window_address = Signal(self._address_width)
        window_row = Signal(self._weight_width)
        window_column = Signal(layout["width"].width)
        above, left = Signal(), Signal()
        m.d.comb += [
            above.eq(op.kernel3 & (y != 0)),
            left.eq(op.kernel3 & (x != 0)),
            position_ready.eq(~window_valid | window_ready),
        ]
        with m.If(position_ready):
            m.d.sync += window_valid.eq(position_valid & self.tile_ready & ~idle_row)
            m.d.sync += [
                tap_y.eq(Mux(above, 0, 1)),
                last_y.eq(Mux(op.kernel3 & (y != op.height - 1), 2, 1)),
                first_x.eq(Mux(left, 0, 1)),
                last_x.eq(Mux(op.kernel3 & (x != op.width - 1), 2, 1)),
                window_address.eq(
                    self.src_base + position - Mux(above, op.line, 0) - Mux(left, op.pos_stride, 0)
                ),
                window_row.eq(
                    tile_row
                    + Mux(op.kernel3 & ~above, op.rows_line, 0)
                    + Mux(op.kernel3 & ~left, op.rows_tap, 0)
                ),
                window_column.eq(x),
            ]
        m.d.comb += tap_x.eq(first_x)

        # Tap stage: one request a cycle.
        active = Signal()
        ky, kx, ky_last, kx_first, kx_last = (
            Signal(2, name=n) for n in ("ky", "kx", "ky_last", "kx_first", "kx_last")
        )
        chunk = Signal(layout["groups"].width)
        line_address, tap_address, address = (
            Signal(self._address_width, name=n) for n in ("line_address", "tap_address", "address")
        )
        line_row, tap_row, row = (Signal(self._weight_width, name=n) for n in ("line_row", "tap_row", "row"))
        column = Signal(layout["width"].width)
        chunk_end, tap_end, last = Signal(), Signal(), Signal()
        m.d.comb += [
            chunk_end.eq(chunk == op.groups - 1),
            tap_end.eq(chunk_end & (kx == kx_last)),
            last.eq(tap_end & (ky == ky_last)),
            self.request.valid.eq(active),
            self.request.payload.address.eq(address),
            self.request.payload.row.eq(row),
            self.request.payload.x.eq(column),
            self.request.payload.last.eq(last),
            window_ready.eq(~active | (self.request.ready & last)),
        ]
        with m.If(window_ready):
            m.d.sync += [
                active.eq(window_valid),
                ky.eq(tap_y),
                ky_last.eq(last_y),
                kx.eq(tap_x),
                kx_first.eq(first_x),
                kx_last.eq(last_x),
                chunk.eq(0),
                column.eq(window_column),
                line_address.eq(window_address),
                tap_address.eq(window_address),
                address.eq(window_address),
                line_row.eq(window_row),
                tap_row.eq(window_row),
                row.eq(window_row),
            ]
        with m.Elif(self.request.ready):
            next_line, next_tap = Signal(self._address_width), Signal(self._address_width)
            next_line_row, next_tap_row = Signal(self._weight_width), Signal(self._weight_width)
            m.d.comb += [
                next_line.eq(line_address + op.line),
                next_tap.eq(tap_address + op.pos_stride),
                next_line_row.eq(line_row + op.rows_line),
                next_tap_row.eq(tap_row + op.rows_tap),
            ]
            with m.If(tap_end):
                m.d.sync += [
                    ky.eq(ky + 1),
                    kx.eq(kx_first),
                    chunk.eq(0),
                    line_address.eq(next_line),
                    tap_address.eq(next_line),
                    address.eq(next_line),
                    line_row.eq(next_line_row),
                    tap_row.eq(next_line_row),
                    row.eq(next_line_row),
                ]
            with m.Elif(chunk_end):
                m.d.sync += [
                    kx.eq(kx + 1),
                    chunk.eq(0),
                    tap_address.eq(next_tap),
                    address.eq(next_tap),
                    tap_row.eq(next_tap_row),
                    row.eq(next_tap_row),
                ]
            with m.Else():
                m.d.sync += [
                    chunk.eq(chunk + 1),
                    address.eq(address + 1),
                    row.eq(row + Mux(self.by_slices, self._slice_rows, self._chunk_rows)),
                ]
        return m
