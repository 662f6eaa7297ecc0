"""What a neuron carries from one time step into the next, in gates, from the laws of a network's neurons.

Neurons of one accelerator share their hardware; where their laws differ, `select` says which one holds. Only
what some law asks for is built: of one law nothing is selected, and LIF neurons are a shift and a reset.

Ref: golden.neuron (`Law`: what it is made of), the software twin.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from amaranth import Const, Mux, Shape, Value

from s2tdpt.golden import bounds
from s2tdpt.golden.bounds import Interval
from s2tdpt.golden.neuron import LIF, Law
from s2tdpt.hw.fixed import exact, shift_right_floor

__all__ = ["Carry", "carried_interval", "membrane_interval"]

Key = TypeVar("Key", bound=Hashable)


def carried_interval(
    membrane: tuple[int, int], threshold_max: int, laws: Sequence[Law] = (LIF,)
) -> tuple[int, int]:
    """Interval of the state ``h`` carried to the next step, from that of ``u`` before the threshold.

    Parameters
    ----------
    membrane : (int, int)
        Ends of ``u``.
    threshold_max : int
        Largest threshold; a membrane at or above it has fired.
    laws : sequence of Law
    """
    found = bounds.union(bounds.carried_interval(Interval(*membrane), threshold_max, law) for law in laws)
    return found.lo, found.hi


def membrane_interval(
    drive: tuple[int, int], threshold_max: int, timesteps: int, laws: Sequence[Law] = (LIF,)
) -> tuple[int, int]:
    """Interval of ``u = h + x`` over `timesteps` steps from ``h = 0``, for a drive within ``drive``.

    Parameters
    ----------
    drive : (int, int)
        Ends of the input of a step, bias included.
    threshold_max : int
        Largest threshold.
    timesteps : int
        Steps, at least 1.
    laws : sequence of Law
    """
    found = bounds.union(
        bounds.neuron_interval(Interval(*drive), threshold_max, timesteps, law) for law in laws
    )
    return found.lo, found.hi


class Carry:
    """Drive and carried state of neurons that follow one of `laws`.

    Latency: none. Resources a neuron and step: a subtractor three bits wider than ``u`` where some law keeps
    3/4 or 7/8, one subtractor (two if resets are soft) where some law takes parts of the threshold, an adder
    where some fire downwards, and selections between what the laws differ in; nothing but a reset for LIF
    neurons.

    Parameters
    ----------
    laws : sequence of Law
        Of different forms; `select` counts them.
    """

    def __init__(self, laws: Sequence[Law]):
        if not laws or len({law.form for law in laws}) != len(laws):
            raise ValueError(f"laws must be of different forms, at least one, not {tuple(laws)!r}")
        self.laws = tuple(laws)

    @property
    def select_bits(self) -> int:
        """Bits of `select`; 0 for one law."""
        return (len(self.laws) - 1).bit_length()

    @property
    def conducts(self) -> bool:
        """Whether inputs depend on the step."""
        return any(any(law.conduct) for law in self.laws)

    def drive(self, x: Value, t: int, select: Value) -> Value:
        """What an input adds to the membrane in step `t`."""
        return self._pick(lambda law: law.conduct[t] if law.conduct else 0, self._shift(x), select)

    @property
    def signed(self) -> bool:
        """Whether neurons of some law fire downwards, too."""
        return any(law.emits.signed for law in self.laws)

    def below(self, u: Value, threshold: Value, select: Value) -> Value:
        """Whether a neuron fires downwards: its membrane is below the negative threshold."""
        total = u + threshold
        under = total[-1] if total.shape().signed else Const(0)
        return self._pick(lambda law: law.emits.signed, lambda may: under if may else Const(0), select)

    def carried(self, u: Value, fired: Value, threshold: Value | int, select: Value, shape: Shape) -> Value:
        """The state behind a step, in `shape`, which the bounds prove (`carried_interval`)."""
        decayed = self._decayed(u, select)
        if not any(law.subtracts for law in self.laws):
            return Mux(fired, 0, exact(decayed, shape))
        linear = self._pick(lambda law: law.linear, self._part(threshold), select)
        step = self._pick(lambda law: law.soft or None, self._part(threshold, 1), select)
        kept = decayed - linear
        hard = [law.soft == 0 for law in self.laws]
        left = Const(0) if all(hard) else decayed - step
        if any(hard) and not all(hard):
            left = self._pick(lambda law: law.soft == 0, lambda reset: Const(0) if reset else left, select)
        return Mux(fired, exact(left - linear, shape), exact(kept, shape))

    def _decayed(self, u: Value, select: Value) -> Value:
        """The part of a membrane that stays."""
        steep = {law.leak for law in self.laws} & {6, 7}
        less = u
        if steep:  # both are one subtraction: (8 u - 2 u) / 8 and (8 u - u) / 8
            taken = self._pick(
                lambda law: law.leak if law.leak in steep else min(steep),
                lambda leak: u if leak == 7 else u << 1,
                select,
            )
            less = shift_right_floor((u << 3) - taken, 3)

        def part(leak: int) -> Value:
            match leak:
                case 0:
                    return Const(0)
                case 2 | 4:
                    return shift_right_floor(u, 2 if leak == 2 else 1)
                case 6:
                    return less
            return u

        # 6 stands for both of the subtraction.
        decayed = self._pick(lambda law: 6 if law.leak in steep else law.leak, part, select)
        if u.shape().signed and any(law.rectified for law in self.laws):
            decayed = Mux(u[-1], 0, decayed[: len(u) - 1])  # all laws of a model are, or none is
        return decayed

    @staticmethod
    def _part(threshold: Value | int, less: int = 0) -> Callable[[int | None], Value]:
        """threshold >> (n - less) of n; 0 of None."""

        def part(number: int | None) -> Value:
            if number is None:
                return Const(0)
            return shift_right_floor(Value.cast(threshold), number - less)

        return part

    @staticmethod
    def _shift(x: Value) -> Callable[[int], Value]:
        return lambda amount: shift_right_floor(x, amount) if amount else x

    def _pick(self, key: Callable[[Law], Key], value: Callable[[Key], Value], select: Value) -> Value:
        """`value` of the `key` of the law that `select` counts; laws of one key share it."""
        keys = [key(law) for law in self.laws]
        first, *others = dict.fromkeys(keys)
        picked = value(first)
        for other in others:
            places = [number for number, found in enumerate(keys) if found == other]
            picked = Mux(select.matches(*places), value(other), picked)
        return picked
