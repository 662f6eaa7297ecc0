"""The attentions in hardware: units that share their stages, with cycles, memories and leads of each.

A network's attention has a name; `attention_of` finds its hardware. Nothing else asks for the name.
"""

from __future__ import annotations

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.attention.gates import QkcaHardware, QktaHardware, SdsaHardware
from s2tdpt.hw.attention.lrf_dyn import LrfDynHardware
from s2tdpt.hw.attention.lrf_ssa import LrfSsaHardware
from s2tdpt.hw.attention.lrf_stdp import LrfStdpHardware
from s2tdpt.hw.attention.plain import NoMixingHardware, UniformHardware
from s2tdpt.hw.attention.ssa import SsaHardware
from s2tdpt.hw.attention.sssa import SssaHardware
from s2tdpt.hw.attention.stdp import StdpHardware
from s2tdpt.hw.attention.unit import AttentionHardware
from s2tdpt.hw.plan.program import Program

__all__ = ["HARDWARE", "attention_of"]

HARDWARE: dict[str, AttentionHardware] = {
    "none": NoMixingHardware(),
    "uniform": UniformHardware(),
    "stdp": StdpHardware(),
    "sdsa": SdsaHardware(),
    "qkca": QkcaHardware(),
    "qkta": QktaHardware(),
    "sssa": SssaHardware(),
    "ssa": SsaHardware(),
    "lrf-ssa": LrfSsaHardware(),
    "lrf-dyn": LrfDynHardware(),
    "lrf-stdp": LrfStdpHardware(),
    "a2os2a": SsaHardware(),
}
"""By the kind of the golden mechanism."""


def attention_of(program: Program) -> AttentionHardware:
    """The hardware of a network's attention.

    Raises
    ------
    UserError
        It has none.
    """
    kind = program.network.attention.kind
    if kind not in HARDWARE:
        raise UserError(
            f"attention {kind} of {program.network.name} has no hardware; expected one of "
            f"{', '.join(HARDWARE)}; choose another attention"
        )
    return HARDWARE[kind]
