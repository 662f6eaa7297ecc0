"""The residual membrane stream U: a memory of integers that every writer adds to."""

from __future__ import annotations

import functools
import operator

from amaranth import Const, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, index_shape

__all__ = ["ResidualStream"]

ROW_DEPTH = 1024
"""Words of a block RAM at its full width of 18 bits."""


class ResidualStream(wiring.Component):
    """Adds a piece of values, all time steps at once, to U and returns the new U.

    Latency: `delay` = 1 cycle from `value` to `result`; the address comes `read_lead` = 2 cycles before the
    value. Throughput: a piece a cycle. U is stored one cycle after `result` appears, so an address may be
    read again 4 cycles after it was read.
    Resources: depth x P x T x width bits of block RAM; an adder of `value_width` bits a value and
    ``P x T x (width + value_width)`` flip-flops.

    Parameters
    ----------
    lanes, timesteps : int
        P, T.
    depth : int
        Pieces of U: tokens x pieces of a token.
    value_width, width : int
        Signed widths of the values and of U, proven; U is no wider than a value.

    Members
    -------
    read_en : ``In(1)``
        Add the old U to the value two cycles later; low for the writer that initialises U, and for values
        that have nothing to do with it.
    read_address : ``In``, index of depth
        Piece of U of the value two cycles later, whether `read_en` or not.
    update : ``In(1)``
        With `value`: store the new U.
    value : ``In(ArrayLayout(ArrayLayout(signed(value_width), T), P))``
    result : ``Out(ArrayLayout(ArrayLayout(signed(value_width), T), P))``
        The cycle after `value`: ``value + U`` where `read_en` was high three cycles earlier, else `value`.
    write_en, write_address, write_data : ``Out``
        With `result`: what is stored at the end of this cycle, for observation too;
        ``ArrayLayout(ArrayLayout(signed(width), T), P)``.

    References
    ----------
    Software twin: `golden.residual`.
    """

    delay = 1
    """Cycles from `value` to `result`."""

    read_lead = 2
    """Cycles from `read_address` to `value`."""

    def __init__(self, *, lanes: int, timesteps: int, depth: int, value_width: int, width: int):
        sizes = {"lanes": lanes, "timesteps": timesteps, "depth": depth}
        for name, number in (sizes | {"value_width": value_width, "width": width}).items():
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"residual {name} must be a positive integer, not {number!r}")
        if width > value_width:
            raise ValueError(f"residual width must be at most value_width {value_width}, not {width}")
        self._lanes, self._timesteps, self._depth = lanes, timesteps, depth
        self._stored = signed(width)
        values = data.ArrayLayout(data.ArrayLayout(signed(value_width), timesteps), lanes)
        stored = data.ArrayLayout(data.ArrayLayout(signed(width), timesteps), lanes)
        address = index_shape(depth)
        super().__init__(
            {
                "read_en": In(1),
                "read_address": In(address),
                "update": In(1),
                "value": In(values),
                "result": Out(values),
                "write_en": Out(1),
                "write_address": Out(address),
                "write_data": Out(stored),
            }
        )

    def elaborate(self, platform):
        m = Module()
        old = Signal(self.write_data.shape(), reset_less=True)
        m.d.sync += old.eq(self._read(m))

        address = self.read_address
        for stage in range(self.read_lead):
            following = Signal.like(address, name=f"address_{stage + 1}", reset_less=True)
            m.d.sync += following.eq(address)
            address = following
        m.d.sync += [self.write_en.eq(self.update), self.write_address.eq(address)]
        for lane in range(self._lanes):
            for t in range(self._timesteps):
                value, result = self.value[lane][t], self.result[lane][t]
                m.d.sync += result.eq(exact(value + old[lane][t], value.shape()))
                # What is stored is U, whose bounds are those of `width`.
                m.d.comb += self.write_data[lane][t].eq(exact(result, self._stored))
        return m

    def _read(self, m):
        """The old U a cycle after its address, zero where it is not wanted."""
        shape, depth = unsigned(Shape.cast(self.write_data.shape()).width), self._depth
        # Proof for the block RAM mapping that no word is ever read in the cycle in which it is written:
        # without it, Yosys adds a bypass register and a multiplexer to every bit, since it has to return
        # the old word. By the contract this never happens.
        meets = Signal()
        m.d.comb += meets.eq(self.write_en & (self.write_address == self.read_address))
        words = []
        for row, base in enumerate(range(0, depth, ROW_DEPTH)):
            rows = min(ROW_DEPTH, depth - base)
            memory = m.submodules[f"row_{row}"] = Memory(shape=shape, depth=max(2, rows), init=[])
            read, write = memory.read_port(domain="comb"), memory.write_port()
            local = index_shape(memory.depth)
            reads, writes = Const(1, 1), Const(1, 1)
            if depth > ROW_DEPTH:
                reads = self.read_address[local.width :] == row
                writes = self.write_address[local.width :] == row
            # Reset instead of a gate in front of every adder: rows and unwanted words need no multiplexer.
            word = Signal(shape, name=f"word_{row}", reset_less=True)
            m.d.sync += word.eq(Mux(self.read_en & reads & ~meets, read.data, 0))
            m.d.comb += [
                read.addr.eq(self.read_address),
                write.en.eq(self.write_en & writes),
                write.addr.eq(self.write_address),
                write.data.eq(self.write_data),
            ]
            words.append(word)
        return functools.reduce(operator.or_, words)
