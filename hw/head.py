"""The head's input: U summed over time steps and tokens, read back as bit planes."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.config import PIXEL_PLANES


class HeadSum(wiring.Component):
    """Sums of U per channel over all steps and tokens of an image.

    Latency: a value is in its sum at the end of its cycle; reads take one cycle. Throughput: one word of
    `lanes` channels a cycle, any address order.
    Resources: `depth` words of lanes x `width` bits in distributed RAM; lanes adders.

    Parameters
    ----------
    lanes, depth : int
    value_width, width : int
        Signed widths of U and of the sums, proven.
    slices : int
        8-bit slices of a sum; slice 0 is the highest.
    read_ports : int

    Members
    -------
    add, clear : In(1)
        Add `value` to the sum at `address`; with `clear` to zero instead.
    address, value : In
    read_en_{r}, read_address_{r}, read_slice_{r}, read_data_{r}
        Slice of the sums of a word as lanes x 8 bit planes; `read_slice` counts one cycle after `read_en`.
    """

    def __init__(self, *, lanes: int, depth: int, value_width: int, width: int, slices: int, read_ports: int):
        self._lanes, self._depth = lanes, depth
        self._value_width, self._width, self._slices = value_width, width, slices
        self._read_ports = read_ports
        members = {
            "add": In(1),
            "clear": In(1),
            "address": In(range(max(2, depth))),
            "value": In(lanes * value_width),
        }
        for r in range(read_ports):
            members |= {
                f"read_en_{r}": In(1),
                f"read_address_{r}": In(range(max(2, depth))),
                f"read_slice_{r}": In(range(max(2, slices))),
                f"read_data_{r}": Out(lanes * PIXEL_PLANES),
            }
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        width, value_width = self._width, self._value_width
        m.submodules.sums = sums = Memory(shape=self._lanes * width, depth=max(2, self._depth), init=[])
        old, write = sums.read_port(domain="comb"), sums.write_port()
        totals = []
        for lane in range(self._lanes):
            total = Signal(signed(width), name=f"total_{lane}")
            held = old.data.word_select(lane, width).as_signed()
            m.d.comb += total.eq(
                Mux(self.clear, 0, held) + self.value.word_select(lane, value_width).as_signed()
            )  # every partial sum is within the proven bounds
            totals.append(total)
        m.d.comb += [
            old.addr.eq(self.address),
            write.addr.eq(self.address),
            write.data.eq(Cat(totals)),
            write.en.eq(self.add),
        ]
        for r in range(self._read_ports):
            port = sums.read_port()
            m.d.comb += [
                port.en.eq(getattr(self, f"read_en_{r}")),
                port.addr.eq(getattr(self, f"read_address_{r}")),
            ]
            planes = []
            for lane in range(self._lanes):
                value = Signal(signed(self._slices * PIXEL_PLANES), name=f"value_{r}_{lane}")
                m.d.comb += value.eq(port.data.word_select(lane, width).as_signed())
                planes.append(
                    [value.word_select(self._slices - 1 - s, PIXEL_PLANES) for s in range(self._slices)]
                )
            with m.Switch(getattr(self, f"read_slice_{r}")):
                for s in range(self._slices):
                    with m.Case(s):
                        m.d.comb += getattr(self, f"read_data_{r}").eq(Cat(lane[s] for lane in planes))
        return m
