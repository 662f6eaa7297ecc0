"""Every narrowing against `golden.arith` or plain Python integers, for all values of small shapes."""

from fractions import Fraction

import pytest
from amaranth import Module, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden import arith
from s2tdpt.hw import fixed
from tests.hw.util import evaluate

SHAPES = [unsigned(1), unsigned(3), unsigned(5), signed(1), signed(3), signed(5), signed(7)]


class Applied(wiring.Component):
    """``o = function(i)``, with a result shape of its own."""

    def __init__(self, shape, function):
        self.function = function
        self.result = Value.cast(function(Signal(shape))).shape()
        super().__init__({"i": In(shape), "o": Out(self.result)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(self.function(self.i))
        return m


def compare(shape, function, expected, values=None):
    """The hardware of `function` equals `expected` on all (given) values of `shape`."""
    dut = Applied(shape, function)
    lo, hi = fixed.interval_of(shape)

    async def testbench(ctx):
        for value in range(lo, hi + 1) if values is None else values:
            ctx.set(dut.i, value)
            assert ctx.get(dut.o) == expected(value), f"{shape} {value}"

    evaluate(dut, testbench)
    return dut


def modulo(value, shape):
    return arith.wrap(value, shape.width) if shape.signed else value % (1 << shape.width)


@pytest.mark.parametrize("source", SHAPES, ids=repr)
@pytest.mark.parametrize("target", SHAPES, ids=repr)
class TestNarrowing:
    def test_wrap(self, source, target):
        dut = compare(source, lambda v: fixed.wrap(v, target), lambda v: modulo(v, target))
        assert dut.result == target

    def test_saturate(self, source, target):
        lo, hi = fixed.interval_of(target)
        dut = compare(source, lambda v: fixed.saturate(v, target), lambda v: min(max(v, lo), hi))
        assert dut.result == target
        if target.signed:
            assert all(arith.saturate(v, target.width) == min(max(v, lo), hi) for v in range(-200, 200))

    def test_fits(self, source, target):
        lo, hi = fixed.interval_of(target)
        compare(source, lambda v: fixed.fits(v, target), lambda v: int(lo <= v <= hi))

    def test_exact_keeps_every_value_that_fits(self, source, target):
        lo, hi = fixed.interval_of(target)
        have_lo, have_hi = fixed.interval_of(source)
        dut = compare(
            source,
            lambda v: fixed.exact(v, target),
            lambda v: v,
            values=range(max(lo, have_lo), min(hi, have_hi) + 1),
        )
        assert dut.result == target


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
@pytest.mark.parametrize("amount", [0, 1, 2, 3, 6])
class TestShifts:
    def test_floor(self, shape, amount):
        compare(
            shape, lambda v: fixed.shift_right_floor(v, amount), lambda v: arith.shift_right_floor(v, amount)
        )

    def test_round_half_even(self, shape, amount):
        compare(
            shape,
            lambda v: fixed.round_half_even(v, amount),
            lambda v: arith.round_half_even(Fraction(v, 1 << amount)),
        )


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_lowest_bit(width):
    def index(v):
        return (v & -v).bit_length() - 1 if v else 0

    compare(unsigned(width), fixed.without_lowest, lambda v: v & (v - 1) if v else 0)
    compare(unsigned(width), lambda v: fixed.onehot_index(v & ~fixed.without_lowest(v)), index)


def test_interval_shape_is_the_smallest():
    for lo in range(-20, 21):
        for hi in range(lo, 21):
            shape = fixed.interval_shape(lo, hi)
            have_lo, have_hi = fixed.interval_of(shape)
            assert have_lo <= lo and hi <= have_hi
            assert shape.signed == (lo < 0)
            width = arith.signed_bits(lo, hi) if lo < 0 else arith.unsigned_bits(hi)
            assert shape.width == width
    assert fixed.index_shape(1) == unsigned(1)
    assert fixed.index_shape(16) == unsigned(4)
    assert fixed.index_shape(17) == unsigned(5)


def test_messages():
    with pytest.raises(ValueError, match=r"^interval 2\.\.1 is empty$"):
        fixed.interval_shape(2, 1)
    for function in fixed.shift_right_floor, fixed.round_half_even:
        with pytest.raises(ValueError, match=r"^shift amount must be a non-negative integer, not -1$"):
            function(Signal(4), -1)


def test_comparison_notices_a_wrong_rounding():
    """Ties away from the even neighbour must be caught."""
    with pytest.raises(AssertionError, match="signed"):
        compare(signed(5), lambda v: (v + 1) >> 1, lambda v: arith.round_half_even(Fraction(v, 2)))
