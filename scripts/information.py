"""s2tdpt info: what a configuration costs, before anything is trained or built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from s2tdpt.golden.config import NetworkConfig, load_config, named_configs
from s2tdpt.golden.errors import UserError
from s2tdpt.scripts.options import console, load_params, machine_options, machine_words
from s2tdpt.scripts.output import json_option, quiet, write_json

if TYPE_CHECKING:
    from s2tdpt.hw.estimate.memory_plan import MemoryPlan

DEVICES = ("ecp5-25k", "ecp5-45k", "ecp5-85k")


@click.command(short_help="Parameters, MACs, neurons and memory of a configuration.")
@click.argument("config", default=None, required=False)
@click.option("--config", "-c", "named", metavar="NAME|FILE", help="The same as the argument.")
@click.option(
    "--params",
    "-p",
    metavar="NAME|FILE",
    help="Parameter file instead of a configuration: its exact widths.",
)
@machine_options
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="ecp5-85k",
    show_default=True,
    help="FPGA whose block RAMs are counted.",
)
@json_option
def info(config, named, params, machine, device, json_path: Path | None) -> None:
    """Parameters, MACs, neurons and memory of CONFIG (a name or a JSON file; default digits).

    The memory plan lists every memory of the machine, block RAM by block RAM, before anything is synthesised.
    Without --params the widths are those of random weights, which are seldom exceeded and often not reached:
    `s2tdpt export --calibrated` makes parameters of a configuration, --params takes them.

    \b
    Examples:
      s2tdpt info digits
      s2tdpt info -c s2tdpt-4-384-int4 --machine ecp5-85k
      s2tdpt info -p mine.safetensors --machine ecp5-85k --set banks=4
      s2tdpt info my-network.json --json -
    """
    if sum(source is not None for source in (config, named, params)) > 1:
        raise UserError(
            "info takes one CONFIG, --config or --params; expected one of them; leave the rest out"
        )
    from s2tdpt.golden.complexity import macs, memory, neurons, parameter_count
    from s2tdpt.golden.params import random_params
    from s2tdpt.hw.estimate.memory_plan import plan_of

    numbers = load_params(params) if params is not None else None
    network = numbers.config if numbers is not None else load_config(config or named or "digits")
    plan = plan_of(numbers if numbers is not None else random_params(network, 0), machine)
    per_layer = macs(network)
    data = {
        "config": network.model_dump(mode="json"),
        "machine": machine.model_dump(mode="json"),
        "named_configs": list(named_configs()),
        "parameters": parameter_count(network),
        "macs_per_step": per_layer,
        "macs_per_step_total": sum(per_layer.values()),
        "neurons": sum(neurons(network).values()),
        "tokens": network.tokens,
        "memory_bits": memory(network),
        "memory_plan": plan.as_dict()
        | {
            "device": device,
            "fits": plan.fits(device),
            "verdict": plan.verdict(device),
            "exact": bool(params),
        },
    }
    if json_path is not None:
        write_json(json_path, data)
    if quiet(json_path):
        return
    console.print(network_table(network, data))
    console.print(plan_table(plan, network, machine_words(machine)))
    console.print(plan.verdict(device), highlight=False, soft_wrap=True)
    if numbers is None:
        console.print("Widths of random weights; --params FILE gives those of a parameter file.")
        console.print(f"Named configurations: {', '.join(named_configs())}")


def network_table(network: NetworkConfig, data: dict) -> Table:
    """What the network is, whatever computes it."""
    table = Table(
        title=f"{network.name}: {network.tokens} tokens, {network.embed_dim} channels, "
        f"{network.depth} blocks, T = {network.timesteps}"
    )
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_row("parameters (float network, BatchNorm included)", f"{data['parameters']:,}")
    table.add_row("MACs a time step", f"{data['macs_per_step_total']:,}")
    table.add_row("LIF neurons", f"{data['neurons']:,}")
    for name, amount in data["memory_bits"].items():
        unit = "values" if "residual" in name else "bits"
        table.add_row(f"network memory: {name.replace('_', ' ')}", f"{amount:,} {unit}")
    return table


def plan_table(plan: MemoryPlan, network: NetworkConfig, words: str) -> Table:
    """A line for every memory of the machine."""
    table = Table(title=f"memories of {network.name}, {words}", box=SIMPLE_HEAD, padding=0)
    table.add_column("memory", no_wrap=True)
    for heading in ("count", "words", "bits", "block RAMs", "of shape"):
        table.add_column(heading, justify="right", no_wrap=True)
    for memory in plan.memories:
        width, depth = memory.shape
        table.add_row(
            memory.name,
            str(memory.count),
            f"{memory.words:,}",
            f"{memory.bits:,}",
            f"{memory.blocks}" if memory.blocks else {"distributed": "LUT RAM"}.get(memory.kind, memory.kind),
            f"{depth} x {width}" if memory.blocks else "",
        )
    table.add_section()
    table.add_row("all", "", "", "", str(plan.blocks), "")
    return table
