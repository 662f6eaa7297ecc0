"""Spiking self-attention with a local receptive field: ``Y = (Q K^T V << 4) + field``, units of 1/16 count.

Ref: LRF-SSA, "Neural Dynamics Self-Attention" (ICLR 2026, arXiv 2603.19290).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from s2tdpt.golden.attention.lrf import LocalField
from s2tdpt.golden.attention.ssa import Ssa


class LrfSsa(LocalField, Ssa):
    """SSA and a local receptive field; the options of both."""

    y_shift: ClassVar[int] = 4
    kind: Literal["lrf-ssa"] = "lrf-ssa"
