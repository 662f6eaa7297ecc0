"""Neurons that emit other numbers than spikes, for the attentions that read them.

Ternary: the LIF neuron with a spike of either sign. On its lower side a tie does not fire:

    s = 1 if u >= threshold,  -1 if u < -threshold,  else 0;    h = 0 if s, else floor(u / 2)

With that, the floor changes no spike of the real-valued leak on either side, because y >= n is floor(y) >= n
and y < -n is floor(y) < -n for whole n. (u <= -threshold would need a bit that remembers what was cut off.)

Levels: a ReLU of four bits, without a membrane:

    s = floor(x / threshold), but 0 below 0 and 15 above 15

Ref: A2OS2A (arXiv 2503.00226), of which no public code is known: binary Q, Q = LIF; K = ReLU, not quantised
there; ternary V. The bits of K and the tie are chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from s2tdpt.golden.neuron.base import Law, Number, limited, shifted
from s2tdpt.golden.operand import LEVELS, TERNARY, Operand

__all__ = ["PRESCRIBED", "LevelsLaw", "TernaryLaw"]


@dataclass(frozen=True)
class TernaryLaw(Law):
    """h = floor(u / 2), 0 after a spike of either sign."""

    leak: ClassVar[int] = 4
    emits: ClassVar[Operand] = TERNARY

    def keep(self, u: Number, threshold: Number) -> Number:
        return shifted(u, 1)

    def fires(self, u: Number, threshold: Number) -> Number:
        return 1 * (u >= threshold) - 1 * (u < -threshold)

    def least_quiet(self, threshold: Number) -> Number:
        return -threshold

    @property
    def additions(self) -> int:
        return 3  # input to membrane, membrane to either threshold


@dataclass(frozen=True)
class LevelsLaw(Law):
    """Nothing is carried; a threshold is what a level takes: an eighth of that of a neuron that spikes."""

    leak: ClassVar[int] = 0
    emits: ClassVar[Operand] = LEVELS

    def keep(self, u: Number, threshold: Number) -> Number:
        return u * 0

    def fires(self, u: Number, threshold: Number) -> Number:
        return limited(u // threshold, LEVELS.lo, LEVELS.hi)

    @property
    def factor(self) -> tuple[int, int]:
        return 1, 8

    def growth(self, steps: int) -> int:
        return 1

    @property
    def additions(self) -> int:
        return LEVELS.bits  # a comparison or subtraction for each bit


PRESCRIBED: dict[Operand, Law] = {TERNARY: TernaryLaw(), LEVELS: LevelsLaw()}
"""By what they emit: laws that hold whatever neurons the network has."""
