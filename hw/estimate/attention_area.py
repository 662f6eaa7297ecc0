"""Logic of every attention's unit alone, in a small network: what Yosys' ``synth_ecp5`` makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.params import Params, random_params
from s2tdpt.hw.attention import attention_of
from s2tdpt.hw.attention.unit import AttentionUnit
from s2tdpt.hw.estimate.area_table import cells_of
from s2tdpt.hw.estimate.cell_table import cell_table, read_cell_table
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import Sizes
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import derive_widths
from s2tdpt.hw.verilog import emit

__all__ = ["COLUMNS", "MACHINE", "TABLE", "markdown", "measure_unit", "read_units", "unit_of", "units_table"]

TABLE = Path(__file__).with_name("attention_units.json")
"""The committed rows, those of docs/attentions.md."""

FORMAT = "s2tdpt-attention-units"

MACHINE = Machine(name="unit", lanes=16, banks=4, post_lanes=4, queue=8, attention_steps=1)

COLUMNS = {
    "LUT4": "LUT4",
    "carry": "CCU2C",
    "distributed RAM": "TRELLIS_DPR16X4",
    "flip-flops": "TRELLIS_FF",
    "block RAM": "DP16KD",
    "multipliers": "MULT18X18D",
}
"""Headings of the table and types of cells."""


def small_params(kind: str) -> Params:
    """16 tokens, 2 heads of 16 channels, 4 steps, random weights; the options of `kind` as they come."""
    config = NetworkConfig(
        name="unit",
        image_height=8,
        image_width=8,
        image_channels=1,
        num_classes=10,
        timesteps=4,
        sps_channels=(16, 32),
        sps_pool=(False, True),
        depth=1,
        heads=2,
        mlp_ratio=2,
        attention=MECHANISMS[kind](),
    )
    return random_params(config, seed=0)


def unit_of(kind: str) -> AttentionUnit:
    """The unit of the small network."""
    params = small_params(kind)
    bounds = derive_bounds(params)
    program = program_of(params, MACHINE, derive_widths(params, bounds).head_sum)
    return attention_of(program).unit(params, program, Sizes(program), bounds)


def measure_unit(kind: str) -> dict[str, int]:
    """Cells by type; less than a minute on an idle core.

    Raises
    ------
    UserError
        Yosys is missing or fails.
    """
    return cells_of(emit(unit_of(kind), "unit"), "unit")


def markdown(kind: str, cells: dict[str, int]) -> str:
    """A row of the table in docs/attentions.md."""
    return f"| `{kind}` | " + " | ".join(f"{cells.get(cell, 0):,}" for cell in COLUMNS.values()) + " |"


def units_table(rows: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Cells by kind as plain values: the columns of `COLUMNS`, without those that are 0."""
    kept = {
        kind: {cell: cells[cell] for cell in COLUMNS.values() if cells.get(cell)}
        for kind, cells in rows.items()
    }
    return cell_table(FORMAT, kept)


def read_units(path: Path = TABLE) -> dict[str, dict[str, int]]:
    """Cells by kind of every unit that was measured; a UserError if the file is none of `units_table`."""
    return read_cell_table(path, FORMAT, "attention units", "s2tdpt estimate units --out")
