"""A design after synthesis, as Verilog that a simulator runs: its cells with what they do.

What is synthesised here is what `hw.synthesis` reports, by the same scripts. Then every cell is replaced by
its function: cells of the ECP5 by Yosys' own simulation models (share/ecp5/cells_sim.v), its block RAM, which
has none, by ``cells/dp16kd.v``; cells of a Liberty library by their ``function`` and ``ff`` groups; memories
that stay macros there by their behaviour. Nothing is optimised behind the mapping but constants and wires.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from s2tdpt.hw.synthesis import MACRO_BITS, SYNTH_ECP5, map_to_library, read_library
from s2tdpt.hw.tools import run_tool

__all__ = ["mapped"]

DP16KD = Path(__file__).with_name("cells") / "dp16kd.v"

# Single bits, as in the device: a vector whose bits depend on each other would look like a loop.
_WRITE = """\
hierarchy -check -top {top}
proc
flatten
opt_expr
opt_clean
memory_collect
splitnets
write_verilog -sv -noattr -norename cells.sv
"""

_LINK_ECP5 = """\
read_rtlil netlist.il
delete =A:blackbox =A:whitebox =A:lib_whitebox
read_verilog -overwrite +/ecp5/cells_sim.v
read_verilog -overwrite dp16kd.v
"""

_LINK_LIBERTY = """\
read_rtlil netlist.il
delete =A:blackbox
read_liberty -overwrite -ignore_miss_func -ignore_miss_data_latch cells.lib
"""


def mapped(
    verilog: str,
    top: str,
    liberty: Path | None = None,
    *,
    change: Callable[[str], str] = lambda netlist: netlist,
    tell: Callable[[str], None] = lambda text: None,
) -> str:
    """The design in cells of the ECP5, or of a library, as SystemVerilog with the ports of `top`.

    Parameters
    ----------
    verilog : str
        Text of the design, as `hw.verilog.emit` writes it.
    top : str
    liberty : Path or None
        Cell library, plain or ``.gz``; None: the ECP5.
    change : callable
        Alters the netlist (RTLIL, cells not yet replaced): for planting faults.
    tell : callable
        Told in words what begins.

    Raises
    ------
    UserError
        The library cannot be read, or Yosys fails: also when a cell has no model.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "design.sv").write_text(verilog)
        tell("Yosys: mapping to cells, which takes minutes")
        if liberty is None:
            (work / "map.ys").write_text(SYNTH_ECP5.format(top=top, flags=""))
            run_tool("yosys", ["-q", "map.ys"], cwd=work)
            (work / "dp16kd.v").write_text(DP16KD.read_text(encoding="utf-8"))
        else:
            (work / "cells.lib").write_bytes(read_library(liberty))
            map_to_library(
                work, top, MACRO_BITS, lambda name: run_tool("yosys", ["-q", f"{name}.ys"], cwd=work)
            )
        netlist = work / "netlist.il"
        netlist.write_text(change(netlist.read_text()))
        tell("Yosys: giving the cells their functions")
        link = (_LINK_ECP5 if liberty is None else _LINK_LIBERTY) + _WRITE
        (work / "link.ys").write_text(link.format(top=top))
        run_tool("yosys", ["-q", "link.ys"], cwd=work)
        return (work / "cells.sv").read_text()
