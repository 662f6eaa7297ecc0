"""The attentions in hardware: units that share their stages, with cycles, memories and leads of each.

A network's attention has a name; `attention_of` finds its hardware. Nothing else asks for the name.
"""

from __future__ import annotations

from s2tdpt.hw.attention.stdp import StdpHardware
from s2tdpt.hw.attention.unit import AttentionHardware
from s2tdpt.hw.program import Program

__all__ = ["HARDWARE", "attention_of"]

HARDWARE: dict[str, AttentionHardware] = {"stdp": StdpHardware()}
"""By the kind of the golden mechanism."""


def attention_of(program: Program) -> AttentionHardware:
    """The hardware of a network's attention."""
    return HARDWARE["stdp"]
