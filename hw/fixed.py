"""Narrowing of integers, by name: nothing in the generator gets shorter without saying how.

Amaranth widens every sum and product to its exact width and then truncates at the assignment without a
word. Here the truncation has one of four names:

================ ==================================================================================
`exact`          the value is *proven* to fit (interval bounds of the real parameters); bits are
                 dropped that are always copies of the sign
`wrap`           modulo ``2**width``, on purpose
`saturate`       clamped to the ends of the shape
`fits`           the predicate itself, for tests and sticky flags
================ ==================================================================================

`shift_right_floor` and `round_half_even` drop fraction bits. `golden.arith` holds the software twins.
"""

from amaranth import Cat, Const, Mux, Shape, Value, signed, unsigned

__all__ = [
    "exact",
    "fits",
    "index_shape",
    "interval_of",
    "interval_shape",
    "onehot_index",
    "round_half_even",
    "saturate",
    "shift_right_floor",
    "without_lowest",
    "wrap",
]


def interval_shape(lo, hi):
    """Smallest shape that holds every integer of ``lo..hi``: unsigned when ``lo >= 0``, at least 1 bit."""
    if lo > hi:
        raise ValueError(f"interval {lo}..{hi} is empty")
    if lo >= 0:
        return unsigned(max(1, hi.bit_length()))
    return signed(1 + max((-lo - 1).bit_length(), hi.bit_length() if hi > 0 else 0))


def index_shape(count):
    """Shape of an index ``0..count - 1``; one bit where `range` would have none."""
    return interval_shape(0, count - 1)


def interval_of(shape):
    """``(lo, hi)`` of the integers that a shape holds."""
    shape = Shape.cast(shape)
    if shape.signed:
        return -(1 << (shape.width - 1)), (1 << (shape.width - 1)) - 1
    return 0, (1 << shape.width) - 1


def wrap(value, shape):
    """`value` modulo ``2**width``, read in `shape`; a wider shape extends by the value's own sign."""
    value, shape = Value.cast(value), Shape.cast(shape)
    missing = shape.width - len(value)
    if missing > 0:
        fill = value[-1] if value.shape().signed else Const(0, 1)
        value = Cat(value, fill.replicate(missing))
    else:
        value = value[: shape.width]
    return value.as_signed() if shape.signed else value


def exact(value, shape):
    """`value` in `shape`, where bounds prove that it fits.

    The caller owes the proof: interval bounds of the parameters (`golden.bounds`) or of the construction.
    The hardware is that of `wrap`: no gate is spent on cases that cannot happen. Tests check the claim
    with `fits` or against the integer model at the ends of the interval.
    """
    return wrap(value, shape)


def fits(value, shape):
    """1 where `value` is one of the integers of `shape`."""
    value = Value.cast(value)
    lo, hi = interval_of(shape)
    have_lo, have_hi = interval_of(value.shape())
    inside = Const(1, 1)
    if have_hi > hi:
        inside = inside & (value <= hi)
    if have_lo < lo:
        inside = inside & (value >= lo)
    return inside


def saturate(value, shape):
    """`value` clamped to the integers of `shape`."""
    value = Value.cast(value)
    lo, hi = interval_of(shape)
    have_lo, have_hi = interval_of(value.shape())
    result = wrap(value, shape)
    if have_hi > hi:
        result = Mux(value > hi, Const(hi, shape), result)
    if have_lo < lo:
        result = Mux(value < lo, Const(lo, shape), result)
    return wrap(result, shape)


def shift_right_floor(value, amount):
    """``floor(value / 2**amount)``, `amount` a Python integer; the arithmetic shift of the leak."""
    if amount < 0:
        raise ValueError(f"shift amount must be a non-negative integer, not {amount!r}")
    return Value.cast(value) >> amount


def round_half_even(value, amount):
    """``value / 2**amount`` rounded to the nearest integer, ties to the even one."""
    if amount < 0:
        raise ValueError(f"shift amount must be a non-negative integer, not {amount!r}")
    value = Value.cast(value)
    if amount == 0:
        return value
    # A tie moves up only when the floor is odd: add half minus one, plus the lowest kept bit.
    odd = value[amount] if amount < len(value) else _sign(value)
    return (value + (1 << (amount - 1)) - 1 + odd) >> amount


def _sign(value):
    return value[-1] if value.shape().signed else Const(0, 1)


def without_lowest(mask):
    """`mask` with its lowest 1 cleared: a 1 stays if there is another one below it. No carry chain."""
    return Cat(mask[i] & mask[:i].any() for i in range(len(mask)))


def onehot_index(onehot):
    """Position of the only 1 of a value; 0 where there is none."""
    bits = []
    for place in range(index_shape(len(onehot)).width):
        chosen = [onehot[i] for i in range(len(onehot)) if i >> place & 1]
        bits.append(Cat(chosen).any() if chosen else Const(0, 1))
    return Cat(bits)
