"""Size and speed of generated Verilog: place and route for an ECP5, or mapping to a cell library.

Nothing here needs a board. For an FPGA every port gets a pin, wherever nextpnr likes, in the device's largest
package, so that the clock is distributed by the device's clock tree. A design with more ports than pins is
placed out of context; its clock then goes through the fabric, which takes wires and time from everything
else. The clock frequency that nextpnr reaches depends on its seed by some 15 %, so the median of several
seeds counts. For a cell library (Liberty) Yosys maps the logic and adds up the cell areas; memories above
a size limit are left as macros and reported in bits.
"""

from __future__ import annotations

import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.estimate.macro_model import MACRO_BITS
from s2tdpt.hw.netlist.liberty import read_liberty_text
from s2tdpt.hw.netlist.synthesis_run import SynthesisRun
from s2tdpt.hw.tools.external import find_tool

__all__ = ["Report", "synthesize", "TARGETS"]


@dataclass(frozen=True)
class Device:
    """A device in its largest package.

    Attributes
    ----------
    option, package : str
        For nextpnr.
    pins : int
        Input and output cells that nextpnr counts.
    """

    option: str
    package: str
    pins: int


TARGETS = {
    "ecp5-25k": Device("--25k", "CABGA381", 197),
    "ecp5-45k": Device("--45k", "CABGA554", 245),
    "ecp5-85k": Device("--85k", "CABGA756", 365),
    "liberty": None,
}

ROUTER = ("--router", "router2")
"""On the digits accelerator the default router had not ended after 13 minutes, this one takes two."""

# nextpnr's names of the ECP5's resources.
ECP5_CELLS = {
    "lut": "TRELLIS_COMB",
    "ff": "TRELLIS_FF",
    "lutram": "TRELLIS_RAMW",
    "bram": "DP16KD",
    "dsp": "MULT18X18D",
}

SYNTH_ECP5 = """\
read_verilog -sv design.sv
synth_ecp5 -top {top} {flags} -json design.json
write_rtlil netlist.il
"""

# synth's own steps up to its "fine" part, which would turn every memory into flip-flops.
_COARSE = """\
read_verilog -sv design.sv
synth -top {top} -flatten -run begin:fine
write_rtlil coarse.il
json -noscopeinfo -o memories.json t:$mem_v2
"""

# Cell libraries have no flip-flop with an initial value; the reset gives every register its value.
_FINE = """\
read_rtlil coarse.il
setattr -unset init w:*
opt -fast -full
{memory_map}
opt -undriven -fine
techmap
opt -fast
dfflibmap -liberty cells.lib
opt -fast
abc -liberty cells.lib
opt_clean
tee -q -o stat.json stat -json -liberty cells.lib
write_rtlil netlist.il
"""


@dataclass(frozen=True)
class Report:
    """Result of a synthesis run.

    Attributes
    ----------
    top, target : str
        What was built for what.
    used, available : dict of str to int
        Resources: lut, ff, lutram, bram (18 kbit), dsp for an FPGA; cells, ff, macro_bits for a library.
    fmax : dict of int to float
        Seed to MHz (FPGA).
    frequency : float or None
        Frequency asked for, MHz (FPGA).
    critical_path : dict
        Slowest register-to-register path of the slowest seed (FPGA): from, to, logic and routing in ns,
        nets in order.
    out_of_context : bool
        Without pins and clock tree (FPGA): more ports than pins.
    macros : dict of str to int
        Memories that were left as macros: name to bits (cell library).
    area : float or None
        Sum of the cell areas in the library's unit, usually square micrometres; macros excluded.
    seconds : dict of str to float
        Run time of each step.
    tools : dict of str to str
        Versions.
    """

    top: str
    target: str
    used: dict[str, int]
    available: dict[str, int] = field(default_factory=dict)
    fmax: dict[int, float] = field(default_factory=dict)
    frequency: float | None = None
    critical_path: dict[str, Any] = field(default_factory=dict)
    out_of_context: bool = False
    macros: dict[str, int] = field(default_factory=dict)
    area: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)

    @property
    def fmax_median(self) -> float | None:
        """Median over the seeds in MHz, None for a cell library."""
        return statistics.median(self.fmax.values()) if self.fmax else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **asdict(self),
            "fmax": {str(seed): mhz for seed, mhz in self.fmax.items()},
            "fmax_median": self.fmax_median,
        }

    def table(self) -> Table:
        """The same for people."""
        table = Table(title=f"{self.top} on {self.target}")
        table.add_column("resource")
        table.add_column("used", justify="right")
        table.add_column("available", justify="right")
        for name, used in self.used.items():
            table.add_row(name, f"{used:,}", f"{self.available[name]:,}" if name in self.available else "")
        for seed, mhz in self.fmax.items():
            table.add_row(f"Fmax, seed {seed}", f"{mhz:.1f} MHz", "")
        if self.fmax:
            table.add_row("Fmax, median", f"{self.fmax_median:.1f} MHz", "")
        if self.critical_path:
            table.caption = "slowest path: {from} to {to}, {logic} ns logic, {routing} ns routing".format(
                **self.critical_path
            )
        if self.area is not None:
            table.add_row("cell area", f"{self.area:,.1f}", "")
        if self.out_of_context:
            table.add_row("pins", "none: more ports than pins, the clock goes through the fabric", "")
        table.add_row("run time", f"{sum(self.seconds.values()):.0f} s", "")
        return table


def synthesize(
    verilog: Path | str,
    top: str,
    *,
    target: str = "ecp5-85k",
    seeds: Sequence[int] = (1, 2, 3),
    frequency: float = 50.0,
    lpf: Path | str | None = None,
    liberty: Path | str | None = None,
    macro_bits: int = MACRO_BITS,
    flags: Sequence[str] = (),
    log_folder: Path | str | None = None,
    work: Path | str | None = None,
    step: Callable[[str], None] | None = None,
) -> Report:
    """Synthesise a design and measure it.

    Parameters
    ----------
    verilog : path
        File with the whole design, as `hw.verilog.emit` writes it.
    top : str
        Top module.
    target : str
        One of `TARGETS`.
    seeds : sequence of int
        Placement seeds (FPGA), at least one.
    frequency : float
        Clock frequency to aim for in MHz (FPGA).
    lpf : path, optional
        Constraint file for nextpnr (FPGA), such as the package's ``NAME.lpf``. Its frequency
        counts.
    liberty : path
        Cell library, plain or ``.gz``; needed for the target "liberty" and only there.
    macro_bits : int
        Memories above this many bits stay macros (cell library).
    flags : sequence of str
        More options for ``synth_ecp5``.
    log_folder : path, optional
        Folder that gets the tools' logs as they are written; created if needed.
    work : path, optional
        Folder to work in, which is kept: steps that it holds from an earlier run on the same input are not
        run again, so that a run goes on where it was stopped, or with more seeds.
    step : callable, optional
        Told in words what begins and, once a second, where it is, for a progress display.

    Raises
    ------
    UserError
        If an argument does not fit, a file cannot be read, or a tool fails (then `ToolError`).
    """
    if target not in TARGETS:
        raise UserError(f"Unknown target {target!r}; expected one of {', '.join(TARGETS)}; choose one")
    if target == "liberty" and liberty is None:
        raise UserError(
            "Target 'liberty' needs a Liberty file; expected a path to one; give it with the target"
        )
    if target != "liberty" and liberty is not None:
        raise UserError(
            f"Target {target!r} takes no Liberty file; expected the target 'liberty'; leave one of them out"
        )
    if target != "liberty" and not seeds:
        raise UserError("No placement seed given; expected at least one; name a seed such as 1")
    text = _read(verilog)
    library = None if liberty is None else read_liberty_text(liberty)
    if log_folder is not None:
        Path(log_folder).mkdir(parents=True, exist_ok=True)
    # A private folder and relative paths: the tools' sandbox hides the system's temporary folder.
    with tempfile.TemporaryDirectory() if work is None else nullcontext(work) as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        logs = None if log_folder is None else Path(log_folder).resolve()
        run = SynthesisRun(Path(folder).resolve(), logs, step)
        (run.work / "design.sv").write_bytes(text)
        if target == "liberty":
            return _cell_library(run, top, library, macro_bits)
        (run.work / "design.lpf").unlink(missing_ok=True)  # an earlier run's
        if lpf is not None:
            (run.work / "design.lpf").write_bytes(_read(lpf))
        return _ecp5(run, top, target, list(seeds), frequency, flags)


def _read(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error}; expected a readable file; check the path") from error


def _ecp5(
    run: SynthesisRun, top: str, target: str, seeds: list[int], frequency: float, flags: Sequence[str]
) -> Report:
    device = TARGETS[target]
    run.yosys("synth_ecp5", SYNTH_ECP5.format(top=top, flags=" ".join(flags)), ["design.sv"], "design.json")
    ports = run.load("design.json")["modules"][top]["ports"].values()
    out_of_context = sum(len(port["bits"]) for port in ports) > device.pins
    constraints = []
    if (run.work / "design.lpf").exists():
        constraints = ["--lpf", "design.lpf"]
    fmax: dict[int, float] = {}
    asked = frequency  # a constraint file's counts
    path: dict[str, Any] = {}
    used: dict[str, int] = {}
    available: dict[str, int] = {}
    for seed in seeds:
        name = f"nextpnr_seed{seed}"
        run.step(
            name,
            "nextpnr-ecp5",
            [
                *(device.option, "--package", device.package, "--json", "design.json"),
                *(("--out-of-context",) if out_of_context else ()),
                *("--report", f"{name}.json", "--seed", str(seed), "--freq", str(frequency)),
                *("--timing-allow-fail", "--lpf-allow-unconstrained"),
                *ROUTER,
                *constraints,
            ],
            reads=["design.json", *constraints[1:2]],
            makes=f"{name}.json",
        )
        report = run.load(f"{name}.json")
        # There is one clock, the design's own; a design without registers has none.
        for clock in report["fmax"].values():
            fmax[seed], asked = round(clock["achieved"], 2), clock["constraint"]
            if fmax[seed] == min(fmax.values()):
                path = _critical_path(report["critical_paths"])
        counts = report["utilization"]
        used = {name: counts.get(cell, {}).get("used", 0) for name, cell in ECP5_CELLS.items()}
        available = {name: counts[cell]["available"] for name, cell in ECP5_CELLS.items() if cell in counts}
    return Report(
        top,
        target,
        used,
        available,
        fmax,
        asked,
        path,
        out_of_context,
        seconds=run.seconds,
        tools={name: find_tool(name).version for name in ("yosys", "nextpnr-ecp5")},
    )


def _critical_path(paths: list[dict[str, Any]]) -> dict[str, Any]:
    """The path from clock edge to clock edge in nextpnr's list, in short."""
    for path in paths:
        if path["from"] == path["to"]:
            steps = path["path"]
            ends = [f"{pin['cell']}.{pin['port']}" for pin in (steps[0]["from"], steps[-1]["to"])]
            routing = sum(step["delay"] for step in steps if step["type"] == "routing")
            return {
                "from": ends[0],
                "to": ends[1],
                "routing": round(routing, 2),
                "logic": round(sum(step["delay"] for step in steps) - routing, 2),
                "nets": [step["net"] for step in steps if "net" in step],
            }
    return {}


def _cell_library(run: SynthesisRun, top: str, library: str, macro_bits: int) -> Report:
    (run.work / "cells.lib").write_text(library, encoding="utf-8")
    macros = map_to_library(run, top, macro_bits)
    stat = run.load("stat.json")
    totals = stat["design"]
    cells = {name: count for name, count in totals["num_cells_by_type"].items() if not name.startswith("$")}
    flip_flops = _flip_flops(library)
    used = {
        "cells": sum(cells.values()),
        "ff": sum(count for name, count in cells.items() if name in flip_flops),
        "macro_bits": sum(macros.values()),
    }
    return Report(
        top,
        "liberty",
        used,
        macros=macros,
        area=float(totals["area"]),
        seconds=run.seconds,
        tools={"yosys": find_tool("yosys").version},
    )


def map_to_library(run: SynthesisRun, top: str, macro_bits: int) -> dict[str, int]:
    """Map ``design.sv`` to the cells of ``cells.lib``, both in the run's folder.

    It makes ``netlist.il`` and ``stat.json`` there.

    Returns
    -------
    dict of str to int
        Memories that stay macros, and their bits.
    """
    run.yosys("coarse", _COARSE.format(top=top), ["design.sv"], "memories.json")
    modules = run.load("memories.json")["modules"]
    cells = modules[top]["cells"] if top in modules else {}
    memories = {
        name: int(cell["parameters"]["WIDTH"], 2) * int(cell["parameters"]["SIZE"], 2)
        for name, cell in cells.items()
    }
    macros = {name: bits for name, bits in memories.items() if bits > macro_bits}
    small = [f"memory_map {top}/{name}" for name in memories if name not in macros]
    run.yosys("fine", _FINE.format(memory_map="\n".join(small)), ["coarse.il", "cells.lib"], "stat.json")
    return macros


def _flip_flops(liberty: str) -> set[str]:
    """Names of the sequential cells: those with an `ff` group."""
    found = set()
    for cell in re.split(r"\n\s*cell\s*\(", liberty)[1:]:
        if re.search(r"\n\s*ff\s*\(", cell):
            found.add(cell.split(")", 1)[0].strip().strip('"'))
    return found
