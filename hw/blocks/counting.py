"""Counters that know a cycle ahead when they are at their end."""

from __future__ import annotations

from amaranth import Signal, Value


class CountTo:
    """A counter to a bound with `last` in a register: no comparator lies between it and what it decides.

    Resources: a register of the count, one flip-flop, an adder and a comparator.

    Parameters
    ----------
    width : int
        Bits of the count.
    name : str

    Attributes
    ----------
    value : Signal
    last : Signal
        It is at the bound that the last `begin` or `step` was given.
    """

    def __init__(self, width: int, name: str):
        self.value, self.last = Signal(width, name=name), Signal(name=f"{name}_last")

    def begin(self, bound: Value, first: Value | int = 0) -> list:
        """Assignments of a cycle: start from `first`, at most `bound`."""
        return [self.value.eq(first), self.last.eq(bound == first)]

    def step(self, bound: Value) -> list:
        """Assignments of a cycle: one further; only where `last` is low."""
        return [self.value.eq(self.value + 1), self.last.eq(self.value + 1 == bound)]
