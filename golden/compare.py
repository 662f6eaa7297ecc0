"""Where two sets of traces differ first, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Difference:
    """The first differing element of one trace, and how many differ.

    Attributes
    ----------
    name : str
        Trace name.
    image, step, token, channel : int or None
        Place of the first difference; None where the trace has no such axis.
    expected, got : int
    count, total : int
        Differing elements and elements of the trace.
    """

    name: str
    image: int | None
    step: int | None
    token: int | None
    channel: int | None
    expected: int
    got: int
    count: int
    total: int

    def __str__(self) -> str:
        axes = ("image", "step", "token", "channel")
        place = ", ".join(f"{axis} {getattr(self, axis)}" for axis in axes if getattr(self, axis) is not None)
        return (
            f"{self.name}: {place}: expected {self.expected}, got {self.got} "
            f"({self.count} of {self.total} values differ)"
        )


def compare_trace(name: str, expected: Any, got: Any) -> Difference | None:
    """First difference in one trace.

    Parameters
    ----------
    name : str
        Of the trace, for the report.
    expected, got : array or tensor
        ``[B, T, N, C]``; ``[B, C]`` for head.sum and head.logits; ``[B]`` for head.class.

    Raises
    ------
    ValueError
        The shapes differ or are those of no trace.
    """
    expected, got = np.asarray(expected), np.asarray(got)
    axes = {4: (0, 1, 2, 3), 2: (0, 3), 1: (0,)}.get(expected.ndim)
    if expected.shape != got.shape or axes is None:
        raise ValueError(
            f"{name}: shapes {list(expected.shape)} and {list(got.shape)} cannot be compared; "
            "expected two equal shapes of 4, 2 or 1 axes"
        )
    differs = expected != got
    count = int(np.count_nonzero(differs))
    if not count:
        return None
    index = np.unravel_index(int(differs.argmax()), differs.shape)
    place: list[int | None] = [None] * 4
    for axis, value in zip(axes, index, strict=True):
        place[axis] = int(value)
    return Difference(name, *place, int(expected[index]), int(got[index]), count, differs.size)


def compare_traces(
    expected: Mapping[str, Any], got: Mapping[str, Any], names: Iterable[str] | None = None
) -> list[Difference]:
    """The first difference of every trace that has one, in the order of `expected`; empty if all are equal.

    The golden model gives its traces in network order, so that the first difference is where things went
    wrong.

    Parameters
    ----------
    expected, got : mapping of trace name to array or tensor
    names : iterable of str, optional
        What to compare; without it, every trace of either side, and both must have the same ones.

    Raises
    ------
    ValueError
        A trace is absent on one side, or shapes differ.
    """
    names = set(expected) | set(got) if names is None else set(names)
    absent = sorted(name for name in names if name not in expected or name not in got)
    if absent:
        raise ValueError(f"traces present on one side only: {', '.join(absent)}")
    found = (compare_trace(name, value, got[name]) for name, value in expected.items() if name in names)
    return [difference for difference in found if difference is not None]


def first_difference(
    expected: Mapping[str, Any], got: Mapping[str, Any], names: Iterable[str] | None = None
) -> Difference | None:
    """The first of all differences, or None; arguments as for :func:`compare_traces`."""
    differences = compare_traces(expected, got, names)
    return differences[0] if differences else None
