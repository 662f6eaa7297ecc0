"""What an attention costs: its rows of the cost tables, and the work of its streamed form on real spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from s2tdpt.golden.layers import Kind


class Row(NamedTuple):
    """A row of the cost tables: a product of the attention, in the literature's count.

    Attributes
    ----------
    name : str
        Behind ``block.{b}.``.
    reads : Kind
        The projection whose spikes drive it.
    macs : int
        Multiply-accumulates of one time step, as the matrix or elementwise product that it stands for.
    """

    name: str
    reads: Kind
    macs: int


@dataclass(frozen=True)
class Work:
    """Integer work of a row, whole numbers summed over whatever spikes were counted.

    Attributes
    ----------
    additions : int
        Of `bits` bits each.
    bits : int
    bit_operations : int
        ANDs and ORs of single bits.
    moved : int
        Bits read from and written to a memory.
    memory : int
        Bits of that memory, over all time steps.
    """

    additions: int = 0
    bits: int = 1
    bit_operations: int = 0
    moved: int = 0
    memory: int = 0
