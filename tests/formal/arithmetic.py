"""`hw.fixed` is its specification, for all inputs: the narrowings of 12-bit numbers, signed and unsigned, to
shapes that are narrower, as wide, and wider."""

from __future__ import annotations

from collections.abc import Iterator

from amaranth import Const, Mux, Shape, Value, signed, unsigned

from s2tdpt.hw import fixed
from tests.formal.prove import Contract, Fault

SOURCES = (unsigned(12), signed(12))
TARGETS = (unsigned(5), signed(5), unsigned(12), signed(12), unsigned(14), signed(14))
WIDE = 20
"""Bits in which the specification computes: enough for every number here."""


def _name(shape: Shape) -> str:
    return f"{'signed' if shape.signed else 'unsigned'}_{shape.width}"


def _wide(value: Value) -> Value:
    """The number itself, in more bits than any shape here has."""
    return (value + Const(0, signed(WIDE)))[:WIDE].as_signed()


def _pairs(c: Contract) -> Iterator[tuple[str, Value, Value, Shape]]:
    for source in SOURCES:
        value = c.constant(source, f"value_{_name(source)}")
        for target in TARGETS:
            yield f"{_name(source)}_to_{_name(target)}", value, _wide(value), target


def narrowing(fault: Fault | None = None) -> Contract:
    """`wrap`: modulo a power of two, in the shape. `saturate`: the nearest number of the shape. `fits`: it is
    one.
    """
    c = Contract(fault)
    for name, value, number, target in _pairs(c):
        lo, hi = fixed.interval_of(target)
        inside = (number >= lo) & (number <= hi)
        wrapped = _wide(c.built(fixed.wrap, value, target))
        congruent = (wrapped - number)[: target.width] == 0
        c.check(f"wrap_{name}", congruent & (wrapped >= lo) & (wrapped <= hi))
        c.check(f"exact_{name}", ~inside | (_wide(c.built(fixed.exact, value, target)) == number))
        nearest = Mux(number < lo, Const(lo, signed(WIDE)), Mux(number > hi, Const(hi, signed(WIDE)), number))
        c.check(f"saturate_{name}", _wide(c.built(fixed.saturate, value, target)) == nearest)
        c.check(f"fits_{name}", c.built(fixed.fits, value, target) == inside)
    c.cover(Const(1))
    return c


def rounding(fault: Fault | None = None) -> Contract:
    """`shift_right_floor`: the largest integer not above. `round_half_even`: none is nearer, and a tie is
    even.
    """
    c = Contract(fault)
    for source in SOURCES:
        value = c.constant(source, f"value_{_name(source)}")
        number = _wide(value)
        for amount in (1, 2, 5, 13):
            name, unit = f"{_name(source)}_by_{amount}", 1 << amount
            down = number - (_wide(c.built(fixed.shift_right_floor, value, amount)) << amount)
            c.check(f"floor_{name}", (down >= 0) & (down < unit))
            result = _wide(c.built(fixed.round_half_even, value, amount))
            off = number - (result << amount)
            tie = (off == unit // 2) | (off == -(unit // 2))
            c.check(f"round_{name}", (off >= -(unit // 2)) & (off <= unit // 2) & (~tie | ~result[0]))
    c.cover(Const(1))
    return c


def selecting(fault: Fault | None = None) -> Contract:
    """`without_lowest` clears the lowest 1 alone; `onehot_index` is the place of the only 1; 11 bits."""
    c = Contract(fault)
    mask = c.constant(11, "mask")
    rest = c.built(fixed.without_lowest, mask)
    lowest = c.signal(11, "lowest")
    c.m.d.comb += lowest.eq(mask & ~rest)
    index = c.built(fixed.onehot_index, lowest)
    c.check("nothing_is_added", (rest & ~mask) == 0)
    for place in range(11):
        is_lowest = mask[place] & ~mask[:place].any()
        c.check(f"lowest_{place}", lowest[place] == is_lowest)
        c.check(f"index_{place}", ~is_lowest | (index == place))
    c.check("index_of_nothing", mask.any() | (index == 0))
    c.cover(Const(1))
    return c
