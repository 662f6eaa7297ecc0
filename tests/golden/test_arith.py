"""Rounding, wrapping, saturation and widths, exhaustively over small widths."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from s2tdpt.golden.arith import (
    round_half_even,
    saturate,
    shift_right_floor,
    signed_bits,
    signed_range,
    unsigned_bits,
    wrap,
)

VALUES = range(-300, 301)


def apply(function, values, *arguments):
    """Results of `function` for a list, an array and a tensor of `values`; all three must agree."""
    single = [function(v, *arguments) for v in values]
    assert function(np.array(values), *arguments).tolist() == single
    assert function(torch.tensor(list(values)), *arguments).tolist() == single
    return single


@pytest.mark.parametrize("bits", range(1, 10))
def test_wrap_and_saturate(bits):
    lo, hi = signed_range(bits)
    assert (lo, hi) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for value, wrapped in zip(VALUES, apply(wrap, VALUES, bits), strict=True):
        assert lo <= wrapped <= hi and (wrapped - value) % 2**bits == 0
    for value, saturated in zip(VALUES, apply(saturate, VALUES, bits), strict=True):
        assert saturated == sorted((lo, value, hi))[1]


@pytest.mark.parametrize("shift", range(6))
def test_shift_is_floor(shift):
    for value, shifted in zip(VALUES, apply(shift_right_floor, VALUES, shift), strict=True):
        assert shifted == Fraction(value, 2**shift).__floor__()


def test_round_half_even():
    quarters = [Fraction(n, 4) for n in range(-41, 42)]
    for q in quarters:
        expected = min((q.__floor__(), q.__floor__() + 1), key=lambda n: (abs(q - n), n % 2))
        assert round_half_even(q) == round_half_even(float(q)) == expected
    array = np.array([float(q) for q in quarters])
    assert round_half_even(array).tolist() == [round_half_even(q) for q in quarters]
    assert round_half_even(array).dtype == np.int64 and round_half_even(7) == 7
    for bad in (float("nan"), float("inf"), np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match="not finite"):
            round_half_even(bad)


def test_widths_are_the_smallest_that_hold():
    for lo in range(-20, 21):
        for hi in range(lo, 21):
            bits = signed_bits(lo, hi)
            assert signed_range(bits)[0] <= lo and hi <= signed_range(bits)[1]
            assert bits == 1 or lo < signed_range(bits - 1)[0] or hi > signed_range(bits - 1)[1]
    for hi in range(40):
        bits = unsigned_bits(hi)
        assert hi < 2**bits and (bits == 1 or hi >= 2 ** (bits - 1))
    with pytest.raises(ValueError):
        signed_bits(1, 0)
    with pytest.raises(ValueError):
        unsigned_bits(-1)
