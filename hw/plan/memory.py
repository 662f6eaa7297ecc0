"""One memory of an accelerator, and what it becomes in an FPGA.

How many block RAMs it takes follows Yosys (`memory_libmap` for the ECP5): among the shapes of a block the one
of the lowest cost, and small memories in distributed RAM or logic where that is cheaper.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
"""Bits and words of a block RAM; a write enable governs 9 bits."""
LUTRAM_WORDS, LUTRAM_BITS = 16, 4
"""Of a distributed RAM, which takes two LUTs for its bits and two for the writing."""

# Yosys' costs: of a block and of a distributed RAM, of a bit of a multiplexer between blocks, of a bit of a
# small ROM or RAM in logic.
_BLOCK_COST, _LUTRAM_COST, _MUX_COST, _ROM_COST, _RAM_COST = 128.0, 4.0, 0.5, 1 / 16, 1.0


@dataclass(frozen=True)
class Memory:
    """One memory, or several that are alike.

    Attributes
    ----------
    name : str
    words, bits : int
    count : int
        So many of them.
    style : {"block", "auto", "distributed"}
        Demanded, left to the synthesis, or read without a clock.
    granularity : int
        Bits that are written together; 0: the word.
    rom : bool
    helps : tuple of str
        Fields of the machine, or of the configuration, that make it smaller.
    """

    name: str
    words: int
    bits: int
    count: int = 1
    style: str = "auto"
    granularity: int = 0
    rom: bool = False
    helps: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Bits and words of the block RAMs that it would be made of: those of the lowest cost."""
        return min(SHAPES, key=self._block_cost)

    @property
    def kind(self) -> str:
        """What it becomes: "block", "distributed" or "logic"."""
        if self.style == "block":
            return "block"
        logic = self.words * self.bits * (_ROM_COST if self.rom else _RAM_COST)
        costs = {"logic": logic}
        if not self.rom:
            rows = -(-self.words // LUTRAM_WORDS)
            columns = -(-self.bits // LUTRAM_BITS)
            costs["distributed"] = _LUTRAM_COST * rows * columns + _MUX_COST * self.bits * (rows - 1)
        if self.style == "auto":
            costs["block"] = self._block_cost(self.shape)
        return min(costs, key=lambda kind: costs[kind])

    @property
    def blocks(self) -> int:
        """Block RAMs of all of them."""
        return self.count * self._units(self.shape) if self.kind == "block" else 0

    @property
    def total_bits(self) -> int:
        return self.count * self.words * self.bits

    def _units(self, shape: tuple[int, int]) -> int:
        width, depth = shape
        if not self.granularity or self.granularity == self.bits:
            columns = -(-self.bits // width)
        elif width < 9:
            columns = self.bits // self.granularity * -(-self.granularity // width)
        else:
            columns = -(-(self.bits // self.granularity * -(-self.granularity // 9)) // (width // 9))
        return columns * -(-self.words // depth)

    def _block_cost(self, shape: tuple[int, int]) -> float:
        rows = -(-self.words // shape[1])
        return _BLOCK_COST * self._units(shape) + _MUX_COST * self.bits * (rows - 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        width, depth = self.shape
        found = asdict(self) | {"kind": self.kind, "blocks": self.blocks}
        found["helps"] = list(self.helps)
        return found | {"shape": [depth, width] if self.kind == "block" else None}
