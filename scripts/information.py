"""s2tdpt info: what a configuration costs, before anything is trained or built."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.complexity import macs, memory, neurons, parameter_count
from s2tdpt.golden.config import load_config, named_configs
from s2tdpt.golden.params import random_params
from s2tdpt.hw.config import check_fit
from s2tdpt.hw.schedule import build_program
from s2tdpt.hw.widths import derive_widths
from s2tdpt.scripts.options import console, json_option, machine, machine_options, quiet, write_json


@click.command(short_help="Parameters, MACs, neurons and memory of a configuration.")
@click.argument("config", default="digits")
@machine_options
@json_option
def info(config: str, hardware, lanes, rows, post_lanes, weights, json_path: Path | None) -> None:
    """Parameters, MACs, neurons and memory of CONFIG (a name or a JSON file).

    \b
    Examples:
      s2tdpt info digits
      s2tdpt info s2tdpt-4-384 --lanes 128 --weights stream
      s2tdpt info my-network.json --json -
    """
    network = load_config(config)
    hw = machine(hardware, lanes, rows, post_lanes, weights)
    check_fit(network, hw)
    widths = derive_widths(worst := random_params(network, 0), derive_bounds(worst))
    program = build_program(network, hw, widths.head_sum)
    per_layer = macs(network)
    data = {
        "config": network.model_dump(mode="json"),
        "hardware": hw.model_dump(mode="json"),
        "named_configs": list(named_configs()),
        "parameters": parameter_count(network),
        "macs_per_step": per_layer,
        "macs_per_step_total": sum(per_layer.values()),
        "neurons": sum(neurons(network).values()),
        "tokens": network.tokens,
        "memory_bits": memory(network),
        "machine": {
            "spike_memory_bits": program.spike_words * hw.lanes * network.timesteps,
            "weight_rows": program.tile_words,
            "weight_memory_bits": hw.lanes
            * network.weight_bits
            * (program.tile_words if hw.weight_memory == "rom" else 2 * program.max_tile_rows),
            "tiles": program.tiles,
            "operations": len(program.ops),
        },
    }
    if json_path is not None:
        write_json(json_path, data)
    if quiet(json_path):
        return
    table = Table(
        title=f"{network.name}: {network.tokens} tokens, {network.embed_dim} channels, "
        f"{network.depth} blocks, T = {network.timesteps}"
    )
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_row("parameters (float network, BatchNorm included)", f"{data['parameters']:,}")
    table.add_row("MACs a time step", f"{data['macs_per_step_total']:,}")
    table.add_row("LIF neurons", f"{data['neurons']:,}")
    for name, bits in data["memory_bits"].items():
        table.add_row(f"network memory: {name.replace('_', ' ')}", f"{bits:,} bits")
    table.add_section()
    machine_text = f"{hw.lanes} lanes x {hw.rows} rows, weights: {hw.weight_memory}"
    table.add_row("machine", machine_text)
    table.add_row("spike memory", f"{data['machine']['spike_memory_bits']:,} bits")
    table.add_row("weight memory on chip", f"{data['machine']['weight_memory_bits']:,} bits")
    table.add_row("steps of the layer program", f"{data['machine']['operations']:,}")
    console.print(table)
    console.print(f"Named configurations: {', '.join(named_configs())}")
