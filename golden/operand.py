"""What neurons hand on: spikes, or for some attentions a few numbers more."""

from __future__ import annotations

from dataclasses import dataclass

from s2tdpt.golden.arith import signed_bits, unsigned_bits

__all__ = ["BINARY", "LEVELS", "TERNARY", "Operand"]


@dataclass(frozen=True)
class Operand:
    """The numbers lo..hi, 0 among them: what a neuron can emit in a step. Other than 0 it has fired.

    Attributes
    ----------
    lo, hi : int
    """

    lo: int
    hi: int

    @property
    def signed(self) -> bool:
        """Whether some are negative."""
        return self.lo < 0

    @property
    def bits(self) -> int:
        """Width in two's complement, without a sign where none is negative."""
        return signed_bits(self.lo, self.hi) if self.signed else unsigned_bits(self.hi)

    @property
    def dtype(self) -> str:
        """Name of the type of a byte that holds them, numpy's and torch's."""
        return "int8" if self.signed else "uint8"


BINARY = Operand(0, 1)
"""A spike or none."""
TERNARY = Operand(-1, 1)
"""A spike of either sign or none."""
LEVELS = Operand(0, 15)
"""A number of four bits."""
