"""OR pooling: the max-pool of a spike map on its way into the memory."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import index_shape

__all__ = ["OrPool"]


class OrPool(wiring.Component):
    """3x3, stride 2, pad 1 OR-pool of a map whose pieces arrive in raster order.

    All pieces of a position come together, subgroups 0 .. g-1, then those of the next position; pauses may be
    anywhere. Neither the size of the map nor g is told: a map may follow another of any other size.

    A window covers columns 2j-1 .. 2j+1. A running OR for every subgroup closes it at an odd column, which
    also is the first of the next window, or at the last one. Closed windows are ORed in the same way over
    rows 2i-1 .. 2i+1, in a buffer of one row of them.

    Latency: `delay` = 2 cycles. Throughput: a piece a cycle.
    Resources: G pieces of distributed RAM (flip-flops for G = 1), two pieces of flip-flops, a buffer of
    ceil(max_width / 2) x G pieces with registered read; two gates a spike.

    Parameters
    ----------
    piece_bits : int
        Spikes of a piece.
    subgroups : int
        G, most pieces of a position.
    max_width : int
        Columns of the widest map.
    min_width : int
        Columns of the narrowest map that is pooled. From 2 on, spares a bypass of the row buffer.

    Members
    -------
    en : ``In(1)``
        A piece.
    subgroup : ``In``, index of G
        Which piece of its position.
    column : ``In``, index of ceil(max_width / 2)
        Pooled column: half of the column, rounded down.
    odd_x, last_x : ``In(1)``
        The column is odd; is the last.
    first_y, odd_y, last_y : ``In(1)``
        The row is 0; is odd; is the last.
    spikes : ``In(piece_bits)``
    out_en : ``Out(1)``
        A pooled piece, `delay` cycles after the piece that completes it, the one with
        ``(odd_x | last_x) & (odd_y | last_y)``: so pooled pieces leave in raster order too.
    out : ``Out(piece_bits)``
        With `out_en`.

    References
    ----------
    Max-pool of the spiking patch splitting, arXiv 2304.11954, section 3; on binary maps it is an OR.
    Software twin: `golden.pool`.
    """

    delay = 2
    """Cycles from the last piece of a window to the pooled one."""

    def __init__(self, *, piece_bits: int, subgroups: int, max_width: int, min_width: int = 1):
        sizes = {"piece_bits": piece_bits, "subgroups": subgroups, "max_width": max_width}
        for name, value in (sizes | {"min_width": min_width}).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"pool {name} must be a positive integer, not {value!r}")
        if min_width > max_width:
            raise ValueError(f"pool min_width must be at most max_width {max_width}, not {min_width}")
        self._piece_bits, self._subgroups = piece_bits, subgroups
        self._columns, self._one_column = (max_width + 1) // 2, min_width == 1
        super().__init__(
            {
                "en": In(1),
                "subgroup": In(index_shape(subgroups)),
                "column": In(index_shape(self._columns)),
                "odd_x": In(1),
                "last_x": In(1),
                "first_y": In(1),
                "odd_y": In(1),
                "last_y": In(1),
                "spikes": In(piece_bits),
                "out_en": Out(1),
                "out": Out(piece_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Stage 1, along the row.
        before = Signal(self._piece_bits)
        # A window starts anew at an odd column and at column 0, which closes one only if it is the last.
        goes_on = (self.column != 0) & ~self.odd_x
        self._running(m, before, Mux(goes_on, before, 0) | self.spikes)
        fresh = (self.column == 0) & ~self.odd_x if self._one_column else Const(0, 1)
        window = Mux(fresh, 0, before) | self.spikes
        closes = Signal()
        m.d.comb += closes.eq(self.en & (self.odd_x | self.last_x))

        closed = Signal()
        row_window, place = Signal(self._piece_bits, reset_less=True), Signal(index_shape(self._words))
        first_y, odd_y, last_y = Signal(), Signal(), Signal()
        m.d.sync += [
            closed.eq(closes),
            row_window.eq(window),
            place.eq(self._place),
            first_y.eq(self.first_y),
            odd_y.eq(self.odd_y),
            last_y.eq(self.last_y),
        ]

        # Stage 2, down the column. Row 0 starts anew, so nothing of an earlier map is left. A place comes
        # back after a row: in the very cycle in which it is written only if a row is one column, and then
        # the word has to be handed on.
        attrs = {} if self._one_column else {"no_rw_check": 1}
        m.submodules.rows = rows = Memory(shape=self._piece_bits, depth=self._words, init=[], attrs=attrs)
        write = rows.write_port()
        read = rows.read_port(transparent_for=[write] if self._one_column else [])
        total = Mux(first_y, 0, read.data) | row_window
        m.d.comb += [
            read.en.eq(closes),
            read.addr.eq(self._place),
            write.en.eq(closed),
            write.addr.eq(place),
            write.data.eq(Mux(odd_y, row_window, total)),
        ]
        m.d.sync += [self.out_en.eq(closed & (odd_y | last_y)), self.out.eq(total)]
        return m

    @property
    def _words(self):
        """Words of the row buffer; a power of two for each column, so that an address is no sum."""
        return max(2, self._columns << self._subgroup_bits)

    @property
    def _subgroup_bits(self):
        return (self._subgroups - 1).bit_length()

    @property
    def _place(self):
        """Address in the row buffer of the piece that comes in."""
        return Cat(self.subgroup[: self._subgroup_bits], self.column)

    def _running(self, m, before, after):
        """Keeps the running OR of every subgroup: reads `before`, stores `after`."""
        if self._subgroups == 1:
            with m.If(self.en):
                m.d.sync += before.eq(after)
            return
        m.submodules.running = running = Memory(shape=self._piece_bits, depth=self._subgroups, init=[])
        read, write = running.read_port(domain="comb"), running.write_port()
        m.d.comb += [
            read.addr.eq(self.subgroup),
            before.eq(read.data),
            write.en.eq(self.en),
            write.addr.eq(self.subgroup),
            write.data.eq(after),
        ]
