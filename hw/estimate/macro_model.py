"""What a memory macro costs at 45 nm: energy of an access, leakage, area, by its words and bits.

Power laws in the number of words and the bits of a word, fitted to published figures. Two sources that agree
where they meet (10 kB: 176 and 156 fJ a bit):

- SRAM macros of the NanGate 45 nm platform of OpenROAD-flow-scripts, which bsg_fakeram makes from CACTI (HP
  Labs): 64 x 7 to 2048 x 39 bits, one port, 1.1 V, typical, 25 C; energy of a clock edge with an access.
- M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014: 64 bits from caches of
  8 kB, 32 kB and 1 MB, 45 nm, 0.9 V; energy only.

Neither knows a second port, and a ROM is taken as a RAM: an upper bound. docs/energy.md has the fit beside
the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

__all__ = ["CACTI", "HOROWITZ", "MACRO_BITS", "PowerLaw", "area", "fits", "leakage", "access_energy"]

MACRO_BITS = 2048
"""Memories above this many bits are macros; the others are flip-flops and logic of the netlist."""

CACTI = (
    (64, 7, 261.529, 26.746, 387.296),
    (64, 32, 795.762, 81.6272, 1240.624),
    (32, 64, 1498.65, 78.5249, 1754.536),
    (256, 16, 1359.06, 169.783, 3155.026),
    (256, 96, 5756.55, 697.753, 13701.66),
    (1024, 32, 3566.4, 797.666, 16406.082),
    (512, 64, 5300.43, 823.237, 17301.438),
    (128, 256, 15691.4, 1023.89, 23378.74),
    (2048, 39, 6855.19, 1876.6, 45478.818),
)
"""Words, bits, fJ an access, uW of leakage, um2."""

HOROWITZ = ((1024, 64, 10e3), (4096, 64, 20e3), (131072, 64, 100e3))
"""Words, bits, fJ an access."""


@dataclass(frozen=True)
class PowerLaw:
    """``scale x words ** depth x bits ** width``.

    Attributes
    ----------
    scale, depth, width : float
    error : float
        Largest relative deviation from the figures that it was fitted to.
    """

    scale: float
    depth: float
    width: float
    error: float

    def __call__(self, words: int, bits: int) -> float:
        return self.scale * words**self.depth * bits**self.width


def _fit(rows: list[tuple[int, int, float]]) -> PowerLaw:
    """Least squares of the logarithms."""
    words, bits, value = (np.log(column) for column in np.array(rows, float).T)
    matrix = np.stack([np.ones_like(words), words, bits], axis=1)
    solution = np.linalg.lstsq(matrix, value, rcond=None)[0]
    error = float(np.abs(np.exp(matrix @ solution - value) - 1).max())
    return PowerLaw(math.exp(solution[0]), float(solution[1]), float(solution[2]), error)


@cache
def fits() -> dict[str, PowerLaw]:
    """``energy`` in fJ, ``leakage`` in uW, ``area`` in um2."""
    return {
        "energy": _fit([(row[0], row[1], row[2]) for row in CACTI] + list(HOROWITZ)),
        "leakage": _fit([(row[0], row[1], row[3]) for row in CACTI]),
        "area": _fit([(row[0], row[1], row[4]) for row in CACTI]),
    }


def access_energy(words: int, bits: int, moved: int | None = None) -> float:
    """pJ of reading or writing a word, or `moved` bits of it."""
    share = 1.0 if moved is None else moved / bits
    return fits()["energy"](words, bits) / 1e3 * share


def leakage(words: int, bits: int) -> float:
    """uW of a macro that is switched on."""
    return fits()["leakage"](words, bits)


def area(words: int, bits: int) -> float:
    """um2 of a macro."""
    return fits()["area"](words, bits)
