"""Bit planes back to numbers: the multiplier-free product of conv 0 and of the head."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class PlaneCombiner(wiring.Component):
    """Horner's scheme over bit planes: ``total = 2 * total +- sums``, highest plane first, per lane.

    With x = sum_b 2^b x_b the sum over channels of w x equals sum_b 2^b (sum over channels of w x_b): the
    spike-driven accumulators compute the inner sums, this unit the outer one. A number of more than 8 bits
    takes several slices of 8 planes; the total of a lane group waits in a small memory meanwhile.

    Latency: 1 cycle; throughput: one plane of all lanes a cycle.
    Resources: lanes adders of `width` bits and `groups` words of lanes x `width` bits.

    Parameters
    ----------
    lanes : int
    groups : int
        Lane groups whose totals are kept between slices.
    sum_width, bias_width, width : int
        Signed widths of the plane sums, of the bias and of the total (proven).

    Members
    -------
    en : In(1)
        Take `sums`; otherwise the total is kept.
    first : In(1)
        First plane of a slice: the total starts from zero, or with `resume` from the saved one.
    resume, negate : In(1)
        `negate`: the plane is the sign of two's complement numbers.
    add_bias : In(1)
        Instead of a plane, add `bias` without doubling.
    save : In(1)
        Save the total of `group`, as it is before this cycle's edge.
    group : In
    sums, bias : In
    total : Out(lanes * width)
    """

    def __init__(self, *, lanes: int, groups: int, sum_width: int, bias_width: int, width: int):
        self._lanes, self._groups = lanes, groups
        self._sum_width, self._bias_width, self._width = sum_width, bias_width, width
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "resume": In(1),
                "negate": In(1),
                "add_bias": In(1),
                "save": In(1),
                "group": In(range(max(2, groups))),
                "sums": In(lanes * sum_width),
                "bias": In(lanes * bias_width),
                "total": Out(lanes * width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, width = self._lanes, self._width
        m.submodules.saved = saved = Memory(shape=lanes * width, depth=max(2, self._groups), init=[])
        read = saved.read_port(domain="comb")
        write = saved.write_port()
        m.d.comb += [
            read.addr.eq(self.group),
            write.addr.eq(self.group),
            write.data.eq(self.total),
            write.en.eq(self.save),
        ]
        totals = []
        for lane in range(lanes):
            total = Signal(signed(width), name=f"total_{lane}")
            old = read.data.word_select(lane, width).as_signed()
            start = Mux(self.first, Mux(self.resume, old, 0), total)
            plane = self.sums.word_select(lane, self._sum_width).as_signed()
            bias = self.bias.word_select(lane, self._bias_width).as_signed()
            term = Mux(self.add_bias, bias, Mux(self.negate, -plane, plane))
            with m.If(self.en):
                # Every prefix of the scheme is within the proven bounds, so nothing is lost here.
                m.d.sync += total.eq(Mux(self.add_bias, total, start << 1) + term)
            totals.append(total)
        m.d.comb += self.total.eq(Cat(totals))
        return m
