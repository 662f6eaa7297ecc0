"""s2tdpt energy --liberty: energy of the synthesised netlist with the activity of real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.hw.estimate.counted_energy import count_energy
from s2tdpt.hw.estimate.layers import image_traces
from s2tdpt.hw.netlist.gate_bench import measure_window
from s2tdpt.hw.netlist.liberty import read_liberty_text, read_library
from s2tdpt.hw.netlist.library_gates import GateModel
from s2tdpt.hw.netlist.mapping import map_to_cells
from s2tdpt.hw.netlist.netlist_power import NetlistPower, sum_power
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import derive_widths
from s2tdpt.sim.design import MODULE, generate


@dataclass(frozen=True)
class FrameEnergy:
    """One frame: what the netlist took for it, and what was counted, pJ."""

    name: str
    power: NetlistPower
    counted: float

    @property
    def energy(self) -> float:
        """pJ of everything but leakage."""
        return self.power.total("dynamic") / 1e3


def measure_netlist(
    golden: GoldenNetwork,
    machine: Machine,
    image: np.ndarray,
    liberty: Path,
    clock_mhz: float,
    tell: Callable[[str], None],
) -> list[FrameEnergy]:
    """Synthesise, simulate a black, a real and a white frame at gate level, and sum the power up.

    Raises
    ------
    UserError
        Streamed weights; a library that cannot be read, has no power tables or no fitting cells; the netlist
        computes other logits than the golden model.
    """
    if machine.weight_memory != "rom":
        raise UserError(
            f"machine {machine.name} streams its weights; expected weights on chip for the netlist's energy; "
            "add --set weight_memory=rom"
        )
    text = read_liberty_text(liberty)
    read_library(text, [])
    frames = {"black": np.zeros_like(image), "real": image, "white": np.full_like(image, 255)}
    expected = {name: _expect(golden, machine, frame) for name, frame in frames.items()}
    tell("generating Verilog")
    verilog = generate(golden.params, machine, observed=False).verilog
    mapped = map_to_cells(verilog, MODULE, text, step=tell)
    tell("reading the library")
    model = GateModel(mapped, read_library(text, [cell.kind for cell in mapped.cells]))
    found = []
    for name, frame in frames.items():
        tell(f"{name} frame through {len(model.gates):,} gates and {len(model.flops):,} flip-flops")
        cycles, counted = expected[name]
        run = measure_window(model, np.repeat(frame[None], 3, axis=0), 1, 8 * (cycles + frame.size) + 1000)
        check_words(run.words[1], golden, frame, len(mapped.ports["m_axis_tdata"][1]), name)
        found.append(FrameEnergy(name, sum_power(model, run.activity, clock_mhz), counted))
    return found


def _expect(golden: GoldenNetwork, machine: Machine, frame: np.ndarray) -> tuple[int, float]:
    """Cycles from image to image, and the counted energy in pJ."""
    widths = derive_widths(golden.params, golden.bounds)
    program = program_of(golden.params, machine, widths.head_sum)
    trace = next(image_traces(golden, frame[None]))
    counted = count_energy(program, widths, golden.bounds, [trace])
    return int(counted.cycles), counted.energy


def check_words(words: list[int], golden: GoldenNetwork, frame: np.ndarray, width: int, name: str) -> None:
    """Refuse a netlist that computes something else than the golden model.

    Raises
    ------
    UserError
        A logit or the class differs.
    """
    logits = golden.forward(frame[None]).numpy()[0]
    wanted = [*(int(logit) & ((1 << width) - 1) for logit in logits), int(logits.argmax())]
    if words != wanted:
        at = next((i for i, pair in enumerate(zip(words, wanted, strict=False)) if pair[0] != pair[1]), -1)
        raise UserError(
            f"the netlist differs from the golden model on the {name} frame at result word {at}; expected "
            "equal words; the synthesis is at fault, report it"
        )


PARTS = (
    ("clock", "clock"),
    ("internal", "cells"),
    ("switching", "nets"),
    ("macros", "macros"),
    ("leakage", "leakage"),
    ("macro_leakage", "macros\nleak"),
)


def block_table(frame: FrameEnergy) -> Table:
    """Energy of the blocks, largest first."""
    power = frame.power
    title = f"netlist, {frame.name} frame: nJ an image, {power.cycles:,} cycles at {power.clock_mhz:g} MHz"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)
    headings = ("block", "cells", "flip-\nflops", *(words for _, words in PARTS))
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "block" else "right", no_wrap=True)
    for name, block in power.blocks.items():
        parts = (f"{getattr(block, part) / 1e6:,.2f}" for part, _ in PARTS)
        table.add_row(name, f"{block.cells:,}", f"{block.flops:,}", *parts)
    table.add_section()
    totals = (f"{power.total(part) / 1e6:,.2f}" for part, _ in PARTS)
    table.add_row("total", f"{power.total('cells'):,}", f"{power.total('flops'):,}", *totals)
    return table


def frame_table(frames: list[FrameEnergy]) -> Table:
    """The frames beside each other, and what was counted."""
    table = Table(title="an image in nJ")
    table.add_column("")
    for frame in frames:
        table.add_column(f"{frame.name} frame", justify="right")

    def row(words: str, value: Callable[[FrameEnergy], float]) -> None:
        table.add_row(words, *(f"{value(frame) / 1e3:,.1f}" for frame in frames))

    row("netlist, all but leakage", lambda frame: frame.energy)
    row("  of it clock, nothing gated", lambda frame: frame.power.total("clock") / 1e3)
    row("  clock with perfect gates", lambda frame: frame.power.total("clock_gated") / 1e3)
    row("  of it macros", lambda frame: frame.power.total("macros") / 1e3)
    row("leakage of cells", lambda frame: frame.power.total("leakage") / 1e3)
    row("leakage of macros", lambda frame: frame.power.total("macro_leakage") / 1e3)
    row("counted: accesses and additions", lambda frame: frame.counted)
    share = frames[0].power.annotated / frames[0].power.pins
    table.caption = (
        f"{100 * share:.1f} % of {frames[0].power.pins:,} pins with simulated activity; no wires, "
        "clock tree or glitches"
    )
    return table


def as_dict(frames: list[FrameEnergy], liberty: Path) -> dict[str, Any]:
    """Plain values; energies of the frames in pJ, of the blocks in fJ."""
    return {
        "liberty": liberty.name,
        "frames": {
            frame.name: {"energy_pj": frame.energy, "counted_pj": frame.counted} | frame.power.as_dict()
            for frame in frames
        },
    }
