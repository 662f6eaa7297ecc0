"""Memory accesses and additions of an attention, counted without simulation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from s2tdpt.hw.attention.store import Fields

__all__ = ["HeadAccesses", "row_memory"]


@dataclass
class HeadAccesses:
    """What a unit does for one head, beyond the neurons behind it.

    Attributes
    ----------
    reads, writes : Counter
        Words, by the name of the memory (`hw.estimate.memory_plan`).
    additions : Counter
        By bits.
    """

    reads: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    additions: Counter[int] = field(default_factory=Counter)

    def read_fields(self, fields: Fields, times: int) -> None:
        """All fields of a port of the head store."""
        for projection, hold in fields.values():
            self.reads[f"{hold.value} of {'qkv'[projection]}"] += times


def row_memory(engines: int, engine: int) -> str:
    """Name of the rows of an engine."""
    return "rows of the attention" if engines == 1 else f"rows of the attention, {engine}"
