"""Bit planes back to numbers: the multiplier-free product of conv 0 and of the head."""

from __future__ import annotations

from itertools import zip_longest

from amaranth import Cat, Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.blocks.totals import RunningTotals
from s2tdpt.hw.fixed import index_shape, wrap

__all__ = ["PlaneCombiner"]


def combiner_delay(planes: int) -> int:
    """Cycles from the input of `PlaneCombiner` to its output."""
    return max(1, (planes - 1).bit_length()) + 1


class PlaneCombiner(wiring.Component):
    """Horner's scheme over passes of T bit planes: ``total = total * 2^T + sum_t +-2^(T-1-t) sums[t]``.

    With x = sum_b 2^b x_b the sum over channels of w x equals sum_b 2^b (sum over channels of w x_b): the
    spike-driven accumulators compute the inner sums, this unit the outer one. The highest planes come
    first; the total of a subgroup waits in a small memory for the next pass.

    Latency: `delay` = max(1, ceil(log2 T)) + 1 cycles. Throughput: a piece a cycle, subgroups in any order;
    the same one may come again in the next cycle.
    Resources: P x (T - 1 adders of the planes, one of ``width - T`` bits for the total) and
    `totals.RunningTotals` for G x P x (width - T) bits.

    Parameters
    ----------
    lanes, planes, subgroups : int
        P, T, and G: pieces whose totals are kept.
    sum_width, width : int
        Signed widths of the plane sums and of the total. Every total, after each pass, is proven to fit.

    Members
    -------
    en : ``In(1)``
        A pass of a piece.
    first : ``In(1)``
        First pass of a number: the total starts from zero.
    negate : ``In(1)``
        Slot 0 of this pass is the sign plane of two's complement numbers and weighs -2^(T-1).
    subgroup : ``In``, index of G
        Whose total.
    sums : ``In(ArrayLayout(ArrayLayout(signed(sum_width), T), P))``
        Plane sums, the highest plane in slot 0.
    total : ``Out(ArrayLayout(signed(width), P))``
        `delay` cycles after `en`: the total with this pass. At other times it means nothing.
    """

    def __init__(self, *, lanes: int, planes: int, subgroups: int, sum_width: int, width: int):
        sizes = {"lanes": lanes, "planes": planes, "subgroups": subgroups}
        for name, value in (sizes | {"sum_width": sum_width, "width": width}).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"combiner {name} must be a positive integer, not {value!r}")
        self._lanes, self._planes, self._subgroups = lanes, planes, subgroups
        self._sum_width, self._width = sum_width, width
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "negate": In(1),
                "subgroup": In(index_shape(subgroups)),
                "sums": In(data.ArrayLayout(data.ArrayLayout(signed(sum_width), planes), lanes)),
                "total": Out(data.ArrayLayout(signed(width), lanes)),
            }
        )

    @property
    def delay(self) -> int:
        """Cycles from `sums` to `total`: the levels of the sum over planes and Horner's step."""
        return combiner_delay(self._planes)

    def elaborate(self, platform):
        m = Module()
        planes, width = self._planes, self._width
        parts = [self._pass_sum(m, self.sums[lane]) for lane in range(self._lanes)]
        en, first, subgroup = self.en, self.first, self.subgroup
        en, first, subgroup = (delayed(m, value, self.delay - 2) for value in (en, first, subgroup))

        # Horner. The lowest T bits of total * 2^T are zero and need no adder; what leaves at its top
        # are copies of the sign.
        kept = max(1, width - planes)
        m.submodules.totals = totals = RunningTotals(width=self._lanes * kept, depth=self._subgroups)
        m.d.comb += [totals.en.eq(en), totals.restart.eq(first), totals.index.eq(subgroup)]
        for lane, part in enumerate(parts):
            before = totals.before.word_select(lane, kept).as_signed()
            after = wrap(Cat(part[:planes], before + (part >> planes)).as_signed(), signed(width))
            m.d.comb += totals.after.word_select(lane, kept).eq(wrap(after, signed(kept)))
            m.d.comb += self.total[lane].eq(delayed(m, after))
        return m

    def _pass_sum(self, m, sums):
        """Weighted sum of the planes of a lane: a tree of adders, a register behind each.

        Without the registers Yosys would make carry-save adders of it, four times the size.
        """
        planes, negate = self._planes, self.negate

        def register(value, span):
            # Only the total is proven to fit, so everything on the way to it may be modulo 2^width.
            shape = signed(min(self._sum_width + span, self._width))
            return delayed(m, wrap(value, shape)), span

        # The sign plane: -2 s = 2 ~s + 1 + 1. The shift leaves room for the first 1, and a place below the
        # units, dropped from the sum, makes a carry of the second.
        inverted = (sums[0].as_unsigned() ^ negate.replicate(self._sum_width)).as_signed()
        if planes == 1:
            return register((Cat(negate, inverted).as_signed() + negate) >> 1, 1)[0]
        top = Cat(negate, negate, inverted).as_signed() + Cat(negate, sums[1]).as_signed()
        terms = [register(top >> 1, 2)]
        terms += _add_neighbours([(sums[t], 1) for t in range(2, planes)], register)
        while len(terms) > 1:
            terms = _add_neighbours(terms, register)
        return terms[0][0]


def _add_neighbours(terms, register):
    """A level of the tree. A term is ``(value, planes in it)``, the highest first."""
    added = []
    for (high, span), low in zip_longest(terms[::2], terms[1::2]):
        if low is not None:
            low, below = low
            # The lowest bits meet zeros.
            high, span = Cat(low[:below], high + (low >> below)).as_signed(), span + below
        added.append(register(high, span))
    return added
