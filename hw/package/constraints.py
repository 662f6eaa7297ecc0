"""Timing constraints of a generated design: its clock, and the delays outside its ports.

One clock, no multicycle path, no clock crossing; a reset is sampled by the clock, so it is timed like any
input. Pins belong to a board, not to the design: its own constraint file names them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from s2tdpt.golden.errors import UserError

if TYPE_CHECKING:
    from s2tdpt.hw.verilog import Port

CLOCKS = ("aclk", "clk")
"""Names of a clock port."""

FREQUENCY = 50.0
"""MHz unless told."""

OUTSIDE = 0.2
"""Share of the period that the logic in front of an input, or behind an output, has for itself."""


def check_frequency(frequency: float) -> None:
    """Refuse a frequency that no constraint can ask for, in MHz.

    Raises
    ------
    UserError
        Not a number from 0.001 to 100,000.
    """
    if not (math.isfinite(frequency) and 1e-3 <= frequency <= 1e5):
        raise UserError(
            f"the frequency is {frequency:g} MHz; expected 0.001 to 100000; choose for instance {FREQUENCY:g}"
        )


def constraint_files(name: str, ports: Sequence[Port], frequency: float = FREQUENCY) -> dict[str, str]:
    """Constraints of a module with the clock ``aclk`` or ``clk``: file name to text; nothing without one.

    Parameters
    ----------
    name : str
        The module; the files are named after it.
    ports : sequence of Port
    frequency : float
        Of the clock, MHz.

    Returns
    -------
    dict of str to str
        ``NAME.sdc`` (Synopsys Design Constraints, which Vivado reads too) and ``NAME.lpf`` (nextpnr, ECP5).
    """
    check_frequency(frequency)
    clock = next((port.name for port in ports if port.name in CLOCKS), None)
    if clock is None:
        return {}
    period = round(1000 / frequency, 3)
    outside = round(OUTSIDE * period, 3)
    lines = [
        f"# Clock of {name} and delays outside its ports, times in nanoseconds.",
        f"create_clock -name {clock} -period {period} [get_ports {clock}]",
    ]
    for direction in ("input", "output"):
        for port in ports:
            if port.direction == direction and port.name != clock:
                bits = f"{{{port.name}[*]}}" if port.width > 1 else port.name
                lines.append(f"set_{direction}_delay {outside} -clock {clock} [get_ports {bits}]")
    lpf = f'# Clock of {name}, no pins.\nFREQUENCY PORT "{clock}" {frequency:g} MHZ;\n'
    return {f"{name}.sdc": "\n".join(lines) + "\n", f"{name}.lpf": lpf}
