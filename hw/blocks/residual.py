"""The residual membrane stream U: a memory of integers that every writer adds to."""

from __future__ import annotations

import functools
import operator

from amaranth import Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, index_shape

__all__ = ["ResidualStream"]

ROW_DEPTH = 1024
"""Words of a block RAM at its full width of 18 bits, a power of two."""


class ResidualStream(wiring.Component):
    """Adds a piece of values, all time steps at once, to U and returns the new U.

    Latency: `delay` = 1 cycle from `value` to `result`; the address comes `read_lead` = 3 cycles before the
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
        Add the old U to the value `read_lead` cycles later. Low for the writer that initialises U, and for
        values that have nothing to do with it.
    read_address : ``In``, index of depth
        Piece of U of the value `read_lead` cycles later, whether `read_en` or not.
    update : ``In(1)``
        With `value`: store the new U.
    value : ``In(ArrayLayout(ArrayLayout(signed(value_width), T), P))``
    result : ``Out(ArrayLayout(ArrayLayout(signed(value_width), T), P))``
        `delay` after `value`: ``value + U`` if `read_en` was high `read_lead` before it, else `value`.
    write_en, write_address, write_data : ``Out``
        With `result`: what is stored at the end of this cycle, for observation too;
        ``ArrayLayout(ArrayLayout(signed(width), T), P)``.

    References
    ----------
    Software twin: `golden.residual`.
    """

    delay = 1
    """Cycles from `value` to `result`."""

    read_lead = 3
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
        address = self.read_address
        for stage in range(self.read_lead):
            later = Signal.like(address, name=f"address_{stage + 1}", reset_less=True)
            m.d.sync += later.eq(address)
            address = later
        m.d.sync += [self.write_en.eq(self.update), self.write_address.eq(address)]

        words = [self._row(m, row, address) for row in range(-(-self._depth // ROW_DEPTH))]
        # Only the word that was read is not zero.
        old = Signal(self.write_data.shape(), reset_less=True)
        m.d.sync += old.eq(functools.reduce(operator.or_, words))
        for lane in range(self._lanes):
            for t in range(self._timesteps):
                value, result = self.value[lane][t], self.result[lane][t]
                m.d.sync += result.eq(exact(value + old[lane][t], value.shape()))
                # What is stored is U, whose bounds are those of `width`.
                m.d.comb += self.write_data[lane][t].eq(exact(result, self._stored))
        return m

    def _row(self, m, row, update_address):
        """`ROW_DEPTH` words of U, two cycles after their address; zero where they are not wanted.

        A row has address registers of its own, which only move when it is meant: one register for all block
        RAMs would have to reach across the chip in a cycle.
        """
        shape = unsigned(len(self.write_data.as_value()))
        words = max(2, min(ROW_DEPTH, self._depth - row * ROW_DEPTH))
        memory = Memory(shape=shape, depth=words, init=[], attrs={"ram_style": "block", "no_rw_check": 1})
        m.submodules[f"row_{row}"] = memory
        read, write = memory.read_port(domain="comb"), memory.write_port()
        reads, writes = Signal(name=f"reads_{row}"), Signal(name=f"writes_{row}")
        for strobe, enable, port, address in (
            (reads, self.read_en, read, self.read_address),
            (writes, self.update, write, update_address),
        ):
            held = Signal(len(port.addr), name=f"{strobe.name}_at", reset_less=True)
            here = address[ROW_DEPTH.bit_length() - 1 :] == row if self._depth > ROW_DEPTH else Const(1, 1)
            m.d.sync += strobe.eq(enable & here)
            with m.If(here):
                m.d.sync += held.eq(address[: len(held)])
            m.d.comb += port.addr.eq(held)
        m.d.comb += [write.en.eq(writes), write.data.eq(self.write_data)]
        # A reset of the block instead of a gate in front of every adder and a multiplexer of the rows.
        word = Signal(shape, name=f"word_{row}", reset_less=True)
        m.d.sync += word.eq(Mux(reads, read.data, 0))
        return word
