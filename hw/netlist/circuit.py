"""A netlist as `hw.netlist.gates` simulates it: truth tables, flip-flops of one clock, memories.

Whatever the cells of a technology are, their translation ends here: cells of a Liberty library
(`hw.netlist.library_gates`), cells of the ECP5 (`hw.netlist.ecp5_gates`).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bit", "Circuit", "Flop", "Gate", "LookUpRam", "Macro", "ReadPort", "WritePort"]

Bit = int | str
"""A net's number, or "0", "1", "x"."""


@dataclass(frozen=True)
class Gate:
    """An output with its truth table: bit i is the value where input k is bit k of i; at most `LARGEST`
    inputs (`hw.netlist.truth`)."""

    inputs: tuple[Bit, ...]
    table: int
    output: Bit


@dataclass(frozen=True)
class Flop:
    """A flip-flop of the rising edge.

    Attributes
    ----------
    inputs, table
        What it takes at the edge, as of a `Gate`.
    state, inverse : Bit or None
        Nets that show its state; None: none does.
    start : int or None
        State before the first edge; None: any.
    """

    inputs: tuple[Bit, ...]
    table: int
    state: Bit | None
    inverse: Bit | None = None
    start: int | None = None


@dataclass(frozen=True)
class LookUpRam:
    """Sixteen bits, written with the clock and read without: a gate whose table changes.

    Attributes
    ----------
    read, write : tuple of four Bit
        Addresses, lowest bit first.
    output, data, enable : Bit
    contents : int
    """

    read: tuple[Bit, ...]
    output: Bit
    write: tuple[Bit, ...]
    data: Bit
    enable: Bit
    contents: int


@dataclass(frozen=True)
class ReadPort:
    """Clocked read port; `data` is kept where neither `enable` nor `reset` is set.

    Attributes
    ----------
    meets : tuple of str
        What is read of a bit that a write port of the same memory writes in the same cycle, one word a
        write port: "old", "new", or "inverted", which stands for unknown. Empty: old.
    start : int or None
        Data before the first edge; None: any.
    """

    enable: Bit
    address: tuple[Bit, ...]
    data: tuple[Bit, ...]
    reset: Bit
    reset_value: int
    reset_needs_enable: bool
    meets: tuple[str, ...] = ()
    start: int | None = None


@dataclass(frozen=True)
class WritePort:
    """Clocked write port with an enable for every bit."""

    enable: tuple[Bit, ...]
    address: tuple[Bit, ...]
    data: tuple[Bit, ...]


@dataclass(frozen=True)
class Macro:
    """A memory that stays one; what is written in a cycle is read from the next one on.

    A port takes words of as many bits as its data; word k of it begins at bit k times as many.

    Attributes
    ----------
    name : str
    words, bits : int
    contents : int or None
        Before the first edge, word 0 lowest; None: anything.
    reads, writes : tuple
    """

    name: str
    words: int
    bits: int
    contents: int | None
    reads: tuple[ReadPort, ...]
    writes: tuple[WritePort, ...]


@dataclass(frozen=True)
class Circuit:
    """Attributes
    ----------
    ports : dict of str to (direction, bits)
    gates : tuple of Gate
    flops : tuple of Flop
    rams : tuple of LookUpRam
    macros : tuple of Macro
    """

    ports: dict[str, tuple[str, tuple[Bit, ...]]]
    gates: tuple[Gate, ...]
    flops: tuple[Flop, ...]
    rams: tuple[LookUpRam, ...] = ()
    macros: tuple[Macro, ...] = ()
