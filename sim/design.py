"""A generated accelerator together with everything that is needed to check it."""

from dataclasses import dataclass

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.params import Params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.images import stream_beats
from s2tdpt.hw.schedule import Program, build_program
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.verilog import emit
from s2tdpt.hw.weights import stream_width
from s2tdpt.hw.widths import Widths, derive_widths

MODULE = "s2tdpt_accelerator"
"""Name of the top module."""


@dataclass(frozen=True)
class Design:
    """Verilog of one network on one machine.

    Parameters
    ----------
    params : Params
        Numbers that it was generated from.
    hardware : HardwareConfig
    verilog : str
        Text of the whole hierarchy; the top module is `MODULE`.
    program : Program
        Layer program that the hardware runs.
    widths : Widths
        Register widths.
    """

    params: Params
    hardware: HardwareConfig
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
        if self.hardware.weight_memory != "stream":
            return None
        width = stream_width(self.program)
        beats = stream_beats(params or self.params, self.program, self.widths, width)
        return b"".join(beat.to_bytes(width // 8, "little") for beat in beats)


def layer_program(params: Params, hardware: HardwareConfig) -> tuple[Program, Widths]:
    """Layer program and register widths of a network on a machine, without generating it.

    Raises
    ------
    UserError
        The network does not fit the machine.
    """
    widths = derive_widths(params, derive_bounds(params))
    return build_program(params.config, hardware, widths.head_sum), widths


def generate(params: Params, hardware: HardwareConfig) -> Design:
    """Generate the accelerator; takes a few seconds.

    Raises
    ------
    UserError
        The network does not fit the machine.
    """
    program, widths = layer_program(params, hardware)
    verilog = emit(Accelerator(params, hardware), MODULE)
    return Design(params, hardware, verilog, program, widths)
