"""The only place where rounding, wrapping, saturation and bit widths are defined; ``hw.fixed`` is its twin.

Every function takes Python integers, NumPy arrays or integer tensors and is exact.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

IntLike = Any


def unsigned_bits(hi: int) -> int:
    """Bits of an unsigned field that holds 0..`hi`; at least 1.

    Raises
    ------
    ValueError
        `hi` is negative.
    """
    if hi < 0:
        raise ValueError(f"an unsigned field cannot hold {hi}")
    return max(1, int(hi).bit_length())


def signed_bits(lo: int, hi: int) -> int:
    """Bits of a two's-complement field that holds `lo`..`hi`; at least 1.

    Raises
    ------
    ValueError
        `lo` is above `hi`.
    """
    if lo > hi:
        raise ValueError(f"empty interval {lo}..{hi}")
    below = (-int(lo) - 1).bit_length() if lo < 0 else 0
    above = int(hi).bit_length() if hi > 0 else 0
    return max(below, above) + 1


def signed_range(bits: int) -> tuple[int, int]:
    """Smallest and largest value of a two's-complement field of `bits` bits."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def wrap(value: IntLike, bits: int) -> IntLike:
    """`value` modulo 2^bits, read as two's complement: what a register of `bits` bits keeps."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


def saturate(value: IntLike, bits: int) -> IntLike:
    """`value` clamped to the two's-complement range of `bits` bits."""
    lo, hi = signed_range(bits)
    if isinstance(value, int):
        return min(max(value, lo), hi)
    return value.clip(lo, hi)


def shift_right_floor(value: IntLike, shift: int) -> IntLike:
    """floor(value / 2^shift): the arithmetic right shift, towards minus infinity for negative values."""
    return value >> shift


def round_half_even(value: Any) -> Any:
    """Nearest integer, ties to the even neighbour.

    Parameters
    ----------
    value : int, float, Fraction or floating NumPy array
        Finite.

    Returns
    -------
    int, or an int64 array for an array
    """
    if isinstance(value, np.ndarray):
        if not np.isfinite(value).all():
            raise ValueError("cannot round a value that is not finite")
        return np.rint(value).astype(np.int64)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("cannot round a value that is not finite")
    return round(value if isinstance(value, (int, Fraction)) else float(value))
