"""Synthesis runs that the area model is fitted to: which machines, how one is measured, the committed table.

The machines are small, so that the whole table takes an hour or two, and differ in every field and in the
widths that weights bring. Each row is what Yosys' ``synth_ecp5`` makes of a whole accelerator, flat.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.params import Params, random_params
from s2tdpt.hw.estimate.cell_table import cell_table, read_cell_table
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.tools.external import run_tool
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.verilog import emit

__all__ = ["CASES", "TABLE", "Case", "Counts", "cells_of", "count_cells", "measure", "read_table"]

TABLE = Path(__file__).with_name("area_ecp5.json")
"""The committed table."""

FORMAT = "s2tdpt-area"


@dataclass(frozen=True)
class Case:
    """One machine of the table.

    Attributes
    ----------
    timesteps, weight_bits, dim, heads : int
        Of the network: 8x8 pixels, two stem convolutions of dim / 2 and dim channels, one block.
    lanes, banks, post_lanes, queue, attention_steps, weight_memory
        Of the machine.
    """

    timesteps: int
    weight_bits: int
    dim: int
    heads: int
    lanes: int
    banks: int
    post_lanes: int
    queue: int
    attention_steps: int
    weight_memory: str

    @property
    def name(self) -> str:
        return "-".join(str(value) for value in asdict(self).values())

    def params(self) -> Params:
        """Random weights, the same ones every time."""
        config = NetworkConfig(
            name="area",
            image_height=8,
            image_width=8,
            image_channels=1,
            num_classes=10,
            timesteps=self.timesteps,
            sps_channels=(self.dim // 2, self.dim),
            sps_pool=(False, True),
            depth=1,
            heads=self.heads,
            mlp_ratio=2,
            weight_bits=self.weight_bits,
        )
        return random_params(config, seed=0)

    def machine(self) -> Machine:
        fields = ("lanes", "banks", "post_lanes", "queue", "attention_steps", "weight_memory")
        return Machine(name="area", **{name: getattr(self, name) for name in fields})


CASES = tuple(
    Case(*fields)
    for fields in (
        (4, 4, 32, 2, 16, 4, 4, 8, 1, "stream"),
        (4, 8, 32, 2, 16, 4, 4, 8, 1, "stream"),
        (4, 4, 32, 2, 16, 4, 4, 8, 1, "rom"),
        (4, 4, 16, 2, 8, 2, 2, 4, 1, "rom"),
        (2, 8, 16, 2, 8, 4, 4, 8, 2, "stream"),
        (1, 4, 16, 2, 16, 4, 4, 8, 1, "rom"),
        (4, 8, 16, 1, 4, 2, 2, 8, 1, "stream"),
        (2, 4, 24, 2, 12, 4, 2, 4, 1, "rom"),
        (3, 4, 24, 3, 6, 3, 3, 8, 1, "stream"),
        (1, 8, 32, 2, 8, 8, 8, 8, 1, "stream"),
        (8, 4, 8, 1, 4, 2, 2, 2, 2, "rom"),
        (4, 4, 16, 1, 8, 8, 2, 8, 1, "stream"),
        (2, 8, 32, 4, 8, 2, 2, 8, 2, "rom"),
        (4, 4, 16, 2, 8, 1, 4, 8, 2, "stream"),
        (2, 4, 16, 2, 8, 2, 8, 16, 1, "stream"),
        (1, 4, 48, 3, 24, 8, 6, 8, 1, "stream"),
        (4, 8, 12, 3, 6, 2, 1, 8, 1, "rom"),
        (3, 8, 12, 1, 12, 4, 4, 2, 3, "stream"),
        (2, 4, 32, 1, 16, 8, 2, 8, 1, "rom"),
        (8, 8, 8, 2, 4, 1, 1, 8, 4, "stream"),
        (4, 4, 24, 1, 8, 4, 2, 8, 4, "rom"),
        (5, 4, 16, 4, 4, 4, 4, 8, 1, "stream"),
        (2, 4, 64, 2, 32, 4, 4, 8, 1, "stream"),
        (4, 4, 48, 2, 24, 8, 4, 8, 1, "stream"),
    )
)
"""In this order they are measured."""


@dataclass(frozen=True)
class Counts:
    """What a design takes of an ECP5.

    Attributes
    ----------
    lut : int
        LUTs as nextpnr will place them: LUT4 + 2 for a carry cell + 6 for a distributed RAM.
    ff, bram : int
        Flip-flops; block RAMs of 18 kbit.
    """

    lut: int
    ff: int
    bram: int


def count_cells(cells: Mapping[str, int]) -> Counts:
    """From the cells that Yosys counts, by type."""
    lut = cells.get("LUT4", 0) + 2 * cells.get("CCU2C", 0) + 6 * cells.get("TRELLIS_DPR16X4", 0)
    return Counts(lut=lut, ff=cells.get("TRELLIS_FF", 0), bram=cells.get("DP16KD", 0))


def cells_of(design: str, top: str) -> dict[str, int]:
    """Cells by type that ``synth_ecp5`` makes of SystemVerilog, flat."""
    script = f"read_verilog -sv design.sv\nsynth_ecp5 -top {top}\ntee -q -o stat.json stat -json\n"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "design.sv").write_text(design)
        (work / "area.ys").write_text(script)
        run_tool("yosys", ["-q", "area.ys"], cwd=work)
        cells = json.loads((work / "stat.json").read_text())["design"]["num_cells_by_type"]
    return {name: count for name, count in sorted(cells.items()) if not name.startswith("$")}


def measure(params: Params, machine: Machine) -> dict[str, int]:
    """Cells by type of a whole accelerator; one to a few minutes."""
    accelerator = Accelerator(params, machine)
    return cells_of(emit(accelerator, "s2tdpt", accelerator.ports()), "s2tdpt")


def table_of(rows: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The table as plain values, rows in the order of `CASES`."""
    return cell_table(FORMAT, {case.name: rows[case.name] for case in CASES if case.name in rows})


def read_table(path: Path = TABLE) -> dict[str, dict[str, int]]:
    """Cells by type of every case that was measured; a UserError if the file is none of `table_of`."""
    return read_cell_table(path, FORMAT, "synthesis runs", "s2tdpt estimate table")
