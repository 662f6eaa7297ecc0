"""A generated accelerator together with everything that is needed to check it."""

from __future__ import annotations

from dataclasses import dataclass

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.params import Params
from s2tdpt.hw.blocks.images import stream_beats, stream_width
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import Widths, derive_widths
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.verilog import emit

MODULE = "s2tdpt_accelerator"
"""Name of the top module."""


@dataclass(frozen=True)
class Design:
    """Verilog of one network on one machine.

    Parameters
    ----------
    params : Params
        Numbers that it was generated from.
    machine : Machine
    verilog : str
        Text of the whole hierarchy; the top module is `MODULE`.
    program : Program
        Layer program that the hardware runs.
    widths : Widths
        Register widths.
    """

    params: Params
    machine: Machine
    verilog: str
    program: Program
    widths: Widths

    def weight_words(self, params: Params | None = None) -> bytes | None:
        """Contents of the weight stream for one frame, little-endian words; None with on-chip weights.

        Parameters
        ----------
        params : Params or None
            Other weights of the same configuration; they must lie within the widths of the design.
        """
        if self.machine.weight_memory != "stream":
            return None
        size = stream_width(self.program) // 8
        beats = stream_beats(params or self.params, self.program, self.widths)
        return b"".join(beat.to_bytes(size, "little") for beat in beats)


def layer_program(params: Params, machine: Machine) -> tuple[Program, Widths]:
    """Layer program and register widths of a network on a machine, without generating it."""
    widths = derive_widths(params, derive_bounds(params))
    return program_of(params, machine, widths.head_sum), widths


def generate(params: Params, machine: Machine, observed: bool = True) -> Design:
    """Generate the accelerator, with its observation ports unless told; takes seconds to a minute.

    Raises
    ------
    UserError
        It has more memory than can be generated.
    """
    accelerator = Accelerator(params, machine, observed=observed)
    verilog = emit(accelerator, MODULE, accelerator.ports())
    return Design(params, machine, verilog, accelerator.program, accelerator.widths)
