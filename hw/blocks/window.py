"""The 3x3 window of pixels around every position, from a memory that holds one pixel a word."""

from __future__ import annotations

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.reader import WindowPort
from s2tdpt.hw.fixed import index_shape, wrap
from s2tdpt.hw.plan.machine import PIXEL_BITS
from s2tdpt.hw.plan.program import WINDOW, Program
from s2tdpt.hw.plan.records import Sizes, pixel_word_bits

COLUMN_CYCLES = WINDOW
"""A column is read a pixel a cycle, and no window is there earlier after the one before it."""

FIRST_WINDOW = 1 + 2 * COLUMN_CYCLES
"""From `start` to the cycle in which the first word may be asked for: its left column lies outside."""


class PixelPort(wiring.Signature):
    """Read port of the pixel memory, seen from the reader; delay 1.

    Members
    -------
    en : ``Out(1)``
    address : ``Out(pixel)``
    data : ``In(channels * 8)``
        A pixel; kept where `en` was low.
    """

    def __init__(self, program: Program, sizes: Sizes):
        super().__init__(
            {"en": Out(1), "address": Out(sizes.pixel), "data": In(pixel_word_bits(program))},
        )


def column_layout(program: Program) -> data.StructLayout:
    """Three pixels one below the other, and whether a row of the map begins with them."""
    return data.StructLayout(
        {"pixels": data.ArrayLayout(unsigned(pixel_word_bits(program)), WINDOW), "begins": 1}
    )


def padding(program: Program) -> Value:
    """A pixel outside of the map: the zero point, which contributes nothing."""
    channels = program.network.image_channels
    return Cat(Const(program.network.pixel_zero_point, PIXEL_BITS) for _ in range(channels))


class ColumnReader(wiring.Component):
    """Streams the columns of a map in raster order: the pixels above, at and below every position.

    Behind the last position comes one more column, which begins a row and holds nothing. Pixels outside of
    the map are never read.

    Latency: `COLUMN_CYCLES` + 1 cycles from `start` to the first column; throughput: a column every
    `COLUMN_CYCLES` cycles. Resources: two pixels of flip-flops, the third waits in the memory's output; a
    counter each for row, column and address.

    Parameters
    ----------
    program : Program
    sizes : Sizes

    Members
    -------
    start : In(1)
        Begin anew, whatever is going on.
    base : In(pixel)
        Address of the first pixel, with `start`.
    pixels : Out(PixelPort)
    column : Out(stream)
        `column_layout`.
    follows : Out(1)
        `column.valid` of the next cycle.
    """

    def __init__(self, program: Program, sizes: Sizes):
        self._program, self._layout = program, column_layout(program)
        super().__init__(
            {
                "start": In(1),
                "base": In(sizes.pixel),
                "pixels": Out(PixelPort(program, sizes)),
                "column": Out(stream.Signature(self._layout)),
                "follows": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        net, port, column = self._program.network, self.pixels, self.column
        x, y = Signal(index_shape(net.image_width)), Signal(index_shape(net.image_height))
        over = Signal(init=1)  # behind the last position
        row = Signal(range(WINDOW))  # of the window, to be read next
        top, bottom, last_x, last_row, step = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            *(top.eq(y == 0), bottom.eq(y == net.image_height - 1), last_x.eq(x == net.image_width - 1)),
            last_row.eq(row == WINDOW - 1),
            # The memory keeps the column's last pixel until the column is taken.
            step.eq(~column.valid | column.ready),
            port.en.eq(step & ~over & ~(top & (row == 0)) & ~(bottom & last_row)),
            self.follows.eq(Mux(step, last_row, 1) & ~self.start),
        ]
        m.d.sync += column.valid.eq(self.follows)
        with m.If(step):
            m.d.sync += [
                row.eq(Mux(last_row, 0, row + 1)),
                # From the pixel below to the one above the next position.
                port.address.eq(wrap(port.address + self._jump(last_row), port.address.shape())),
            ]
        with m.If(step & last_row):
            m.d.sync += [x.eq(Mux(last_x, 0, x + 1)), y.eq(y + last_x), over.eq(over | last_x & bottom)]
        with m.If(self.start):
            above = wrap(self.base - net.image_width, port.address.shape())
            m.d.sync += [port.address.eq(above), *(s.eq(0) for s in (x, y, row, over))]
        self._assemble(m, top, bottom, x == 0, step & last_row)
        return m

    def _jump(self, last_row):
        """Address step to the next pixel: one row down, or to the next column's first."""
        width = self._program.network.image_width
        return Mux(last_row, 1 - (WINDOW - 1) * width, width)

    def _assemble(self, m, top, bottom, begins, complete):
        """The column from what the memory answers; what is said of it holds when its last pixel is read."""
        earlier = Signal(data.ArrayLayout(unsigned(len(self.pixels.data)), WINDOW - 1), reset_less=True)
        no_top, no_bottom, payload = Signal(), Signal(), self.column.payload
        with m.If(~self.column.valid):
            m.d.sync += earlier.eq(Cat(earlier[1], self.pixels.data))
        with m.If(complete):
            m.d.sync += [no_top.eq(top), no_bottom.eq(bottom), payload.begins.eq(begins)]
        outside = padding(self._program)
        m.d.comb += [
            payload.pixels[0].eq(Mux(no_top, outside, earlier[0])),
            payload.pixels[1].eq(earlier[1]),
            payload.pixels[2].eq(Mux(no_bottom, outside, self.pixels.data)),
        ]


class PixelWindow(wiring.Component):
    """Holds the window of one position after the other, and hands out its words in every pass.

    Columns move through three registers; the column behind the window is read while the window is in use.
    Beyond the ends of a row stands the zero point. The channels of a window are ``tap * C + c``, cut into
    words of `lanes`; the window moves on with the last word of the last pass.

    Latency: `FIRST_WINDOW` cycles from `start` to the first `ready`, a cycle from a word's question to its
    bytes. Throughput: a word a cycle, a window every `COLUMN_CYCLES` cycles: with E(p) the cycle in which the
    last word of window p is asked for, the first one of the next may be asked for in cycle

        ready(p + 1) = max(E(p) + 1, ready(p) + COLUMN_CYCLES)

    Resources: 9 pixels of flip-flops, the `ColumnReader`, multiplexers for words and borders.

    Parameters
    ----------
    program : Program
    sizes : Sizes

    Members
    -------
    start : In(1)
        A walk starts.
    active : In(1)
        With `start`: it reads windows. Otherwise the unit has nothing to do and does not hold the walk.
    base : In(pixel)
        With `start`: address of the image's first pixel.
    pixels : Out(PixelPort)
    words : In(WindowPort)
    """

    def __init__(self, program: Program, sizes: Sizes):
        self._program, self._sizes = program, sizes
        super().__init__(
            {
                "start": In(1),
                "active": In(1),
                "base": In(sizes.pixel),
                "pixels": Out(PixelPort(program, sizes)),
                "words": In(WindowPort(program, sizes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program, words = self._program, self.words
        m.submodules.columns = columns = ColumnReader(program, self._sizes)
        wiring.connect(m, columns.pixels, wiring.flipped(self.pixels))
        left, middle, right = (
            Signal(column_layout(program), name=name, reset_less=True) for name in ("left", "middle", "right")
        )
        waits, fills = Signal(), Signal()  # for a column; it will not complete the first window yet
        will_wait, will_fill, moves, used = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            *(columns.start.eq(self.start & self.active), columns.base.eq(self.base)),
            *(columns.column.ready.eq(waits), moves.eq(waits & columns.column.valid)),
            used.eq(
                words.en
                & (words.address == program.window_packing.groups - 1)
                & (words.plane_pass == program.pixel_passes - 1)
            ),
            will_wait.eq(Mux(self.start, self.active, used | (waits & ~(moves & ~fills)))),
            will_fill.eq(Mux(self.start, 1, fills & ~moves)),
        ]
        m.d.sync += [
            waits.eq(will_wait),
            fills.eq(will_fill),
            # The window may be asked for while its last column moves in.
            words.ready.eq(~will_wait | (columns.follows & ~will_fill)),
        ]
        with m.If(moves):
            m.d.sync += [left.eq(middle), middle.eq(right), right.eq(columns.column.payload)]
        self._cut(m, left, middle, right)
        return m

    def _cut(self, m, left, middle, right):
        """The word that was asked for in the cycle before."""
        packing, words = self._program.window_packing, self.words
        outside = padding(self._program)
        taps = [
            pixel
            for row in range(WINDOW)
            for pixel in (
                Mux(middle.begins, outside, left.pixels[row]),
                middle.pixels[row],
                Mux(right.begins, outside, right.pixels[row]),
            )
        ]
        missing = packing.groups * packing.lanes - packing.channels if packing.groups > 1 else 0
        zero = Const(self._program.network.pixel_zero_point, PIXEL_BITS)
        window = Cat(*taps, *[zero] * missing)
        asked = Signal(index_shape(packing.groups))
        m.d.sync += asked.eq(words.address)
        size = len(words.data)
        cut = Array(window[word * size : (word + 1) * size] for word in range(packing.groups))
        m.d.comb += words.data.eq(cut[asked])
