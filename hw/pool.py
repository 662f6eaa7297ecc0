"""OR pooling: the max-pool of a spike map."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, interval_shape
from s2tdpt.hw.memory import SpikeMemoryClient

__all__ = ["OrPool", "pool_cycles"]


def _row_taps(size):
    """Valid taps of a 3-wide, stride-2, pad-1 window, summed over its ``(size + 1) // 2`` positions."""
    return sum(min(2 * out + 1, size - 1) - max(2 * out - 1, 0) + 1 for out in range((size + 1) // 2))


def pool_cycles(in_h, in_w, groups):
    """Cycles of `OrPool` from the cycle of `start` to the cycle of `done`, exact.

    ``in_w`` for the row stride, one for each word read, and the pipeline. Every word of an output row's
    input rows is read once for that row: ``1.5 * in_h * in_w`` reads a group instead of ``2.25``.
    """
    return in_w + groups * in_w * _row_taps(in_h) + 3


class OrPool(wiring.Component):
    """3x3, stride 2, pad 1 OR-pool of a spike map in the spike memory.

    A map of ``in_h x in_w`` positions and `groups` words a position becomes one of
    ``(in_h + 1) // 2 x (in_w + 1) // 2``. Only taps inside the map are read. A column that two
    neighbouring windows share is read once.

    Latency and throughput: `pool_cycles`, one read a cycle. Resources: two words of flip-flops, four
    address adders; no multiplier.

    Source and destination must not overlap. The fields stay stable from `start` to `done`.

    Parameters
    ----------
    max_height, max_width : int
        Largest input map.
    max_groups : int
        Most words a position.
    addr_width, lanes, timesteps, post_lanes : int
        As in `SpikeMemoryClient`.

    Members
    -------
    start : ``In(1)``
        Begins the operation; ignored while one runs.
    done : ``Out(1)``
        One cycle, when the last word has been written.
    src_base, dst_base : ``In(addr_width)``
        First word of the input and of the output map.
    in_h, in_w : ``In``, 1..max
        Size of the input map.
    groups : ``In``, 1..max_groups
        Words a position.
    mem : ``Out(SpikeMemoryClient(...))``
        The spike memory.

    References
    ----------
    Max-pool of the spiking patch splitting, arXiv 2304.11954, section 3; on binary maps it is an OR.
    Software twin: `golden.pool`.
    """

    def __init__(self, *, max_height, max_width, max_groups, addr_width, lanes, timesteps, post_lanes):
        for name, value in (("max_height", max_height), ("max_width", max_width), ("max_groups", max_groups)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"pool {name} must be a positive integer, not {value!r}")
        self._addr_width = addr_width
        self._height = interval_shape(0, max_height)
        self._width = interval_shape(0, max_width)
        self._groups = interval_shape(0, max_groups)
        # A row of the map, in words; it never exceeds the address space that holds the map.
        self._stride = interval_shape(0, min(max_width * max_groups, (1 << addr_width) - 1))
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "src_base": In(addr_width),
                "dst_base": In(addr_width),
                "in_h": In(self._height),
                "in_w": In(self._width),
                "groups": In(self._groups),
                "mem": Out(SpikeMemoryClient(addr_width, lanes, timesteps, post_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        mem = self.mem
        address = mem.rd_addr.shape()

        stride = Signal(self._stride)  # words of an input row
        group = Signal(self._groups)
        bottom = Signal(interval_shape(0, 2 * ((1 << self._height.width) - 1) + 1))  # 2 * oy + 1
        first_row = Signal()  # oy == 0: no row above the window
        column = Signal(self._width)
        tap = Signal(2)
        row_addr = Signal(address)  # first valid row of the window, column 0
        column_addr = Signal(address)  # first valid row of the window, this column
        read_addr = Signal(address)
        reading = Signal()
        out_addr = Signal(address)
        out_group = Signal(self._groups)
        finished = Signal()  # the last write is on its way

        below = Signal()
        last_tap = Signal()
        last_column = Signal()
        last_row = Signal()
        last_group = Signal()
        m.d.comb += [
            below.eq(bottom < self.in_h),
            last_tap.eq(tap == Mux(first_row, 0, 1) + below),
            last_column.eq(column + 1 == self.in_w),
            last_row.eq(bottom + 1 >= self.in_h),
            last_group.eq(group + 1 == self.groups),
        ]

        # The addresses below are those of words of the map, so they fit by the layout.
        next_column = exact(column_addr + self.groups, address)
        next_group = exact(self.src_base + group + 1, address)
        next_row = Signal(address)
        m.d.comb += next_row.eq(exact(row_addr + Mux(first_row, stride, stride << 1), address))

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [stride.eq(0), column.eq(0)]
                with m.If(self.start):
                    m.d.sync += [out_addr.eq(self.dst_base), out_group.eq(0)]
                    m.next = "STRIDE"
            with m.State("STRIDE"):
                # in_w additions instead of a multiplier.
                m.d.sync += [
                    stride.eq(exact(stride + self.groups, self._stride)),
                    column.eq(Mux(last_column, 0, exact(column + 1, self._width))),
                    group.eq(0),
                    bottom.eq(1),
                    first_row.eq(1),
                    tap.eq(0),
                    row_addr.eq(self.src_base),
                    column_addr.eq(self.src_base),
                    read_addr.eq(self.src_base),
                ]
                with m.If(last_column):
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += reading.eq(1)
                with m.If(~last_tap):
                    m.d.sync += [tap.eq(tap + 1), read_addr.eq(exact(read_addr + stride, address))]
                with m.Elif(~last_column):
                    m.d.sync += [
                        tap.eq(0),
                        column.eq(exact(column + 1, self._width)),
                        column_addr.eq(next_column),
                        read_addr.eq(next_column),
                    ]
                with m.Else():
                    m.d.sync += [tap.eq(0), column.eq(0)]
                    with m.If(~last_row):
                        m.d.sync += [
                            bottom.eq(exact(bottom + 2, bottom.shape())),
                            first_row.eq(0),
                            row_addr.eq(next_row),
                            column_addr.eq(next_row),
                            read_addr.eq(next_row),
                        ]
                    with m.Else():
                        m.d.sync += [
                            bottom.eq(1),
                            first_row.eq(1),
                            group.eq(exact(group + 1, self._groups)),
                            row_addr.eq(next_group),
                            column_addr.eq(next_group),
                            read_addr.eq(next_group),
                        ]
                        with m.If(last_group):
                            m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(finished):
                    m.next = "IDLE"
        m.d.comb += [mem.rd_en.eq(reading), mem.rd_addr.eq(read_addr)]

        # Second stage, on the word read: which column it belongs to and what it completes.
        word_valid = Signal()
        column_end = Signal()
        row_end = Signal()
        map_end = Signal()
        group_end = Signal()
        odd = Signal()
        m.d.sync += [
            word_valid.eq(reading),
            odd.eq(column[0]),
            column_end.eq(last_tap),
            row_end.eq(last_tap & last_column),
            group_end.eq(last_tap & last_column & last_row),
            map_end.eq(last_tap & last_column & last_row & last_group),
        ]

        window = Signal(len(mem.rd_data))  # OR of the window so far
        shared = Signal(len(mem.rd_data))  # OR of its last column, the first of the next window
        write = Signal()
        with m.If(word_valid):
            m.d.comb += write.eq(column_end & (odd | row_end))
            m.d.sync += [window.eq(window | mem.rd_data), shared.eq(shared | mem.rd_data)]
            with m.If(column_end):
                m.d.sync += shared.eq(0)
            with m.If(write):
                m.d.sync += [
                    window.eq(Mux(row_end, 0, shared | mem.rd_data)),
                    mem.wr_addr.eq(out_addr),
                    mem.wr_data.eq(window | mem.rd_data),
                    out_addr.eq(exact(out_addr + self.groups, address)),
                ]
                with m.If(group_end):
                    m.d.sync += [
                        out_addr.eq(exact(self.dst_base + out_group + 1, address)),
                        out_group.eq(exact(out_group + 1, self._groups)),
                    ]
        m.d.sync += [
            mem.wr_en.eq(write.replicate(len(mem.wr_en))),
            finished.eq(write & map_end),
            self.done.eq(finished),
        ]
        return m
