"""The residual membrane stream U: a memory of integers that every writer adds to."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class ResidualStream(wiring.Component):
    """Adds a scaled layer output to U and returns the new U.

    Latency: the address is given one cycle before the value; the updated value is available in the cycle
    of `value` and stored at its end. Throughput: one word of `lanes` channels a cycle, to changing
    addresses (an address must not return within two cycles).
    Resources: tokens x groups x subgroups x T words of lanes x `width` bits; lanes adders.

    Parameters
    ----------
    lanes, depth : int
    value_width, width : int
        Signed widths of the values and of U, proven.

    Members
    -------
    read_en, address : In
        Fetch U[address].
    update : In(1)
        In the next cycle: store the new U.
    keep : In(1)
        Add to the old U; low for the writer that initialises it.
    value : In(lanes * value_width)
    result : Out(lanes * value_width)
        value + U for an update with `keep`, value otherwise.
    write_address : Out
        Address stored to (for observation).
    """

    def __init__(self, *, lanes: int, depth: int, value_width: int, width: int):
        self._lanes, self._depth = lanes, depth
        self._value_width, self._width = value_width, width
        super().__init__(
            {
                "read_en": In(1),
                "address": In(range(max(2, depth))),
                "update": In(1),
                "keep": In(1),
                "value": In(lanes * value_width),
                "result": Out(lanes * value_width),
                "write_address": Out(range(max(2, depth))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.stream = memory = Memory(
            shape=self._lanes * self._width, depth=max(2, self._depth), init=[]
        )
        read, write = memory.read_port(), memory.write_port()
        with m.If(self.read_en):
            m.d.sync += self.write_address.eq(self.address)
        results, stored = [], []
        for lane in range(self._lanes):
            value = self.value.word_select(lane, self._value_width).as_signed()
            old = read.data.word_select(lane, self._width).as_signed()
            result = Signal(signed(self._value_width), name=f"result_{lane}")
            m.d.comb += result.eq(value + Mux(self.update & self.keep, old, 0))
            results.append(result)
            # The residual interval is part of the value interval and proven to fit `width` bits.
            stored.append(result[: self._width])
        m.d.comb += [
            read.en.eq(self.read_en),
            read.addr.eq(self.address),
            write.addr.eq(self.write_address),
            write.data.eq(Cat(stored)),
            write.en.eq(self.update),
            self.result.eq(Cat(results)),
        ]
        return m
