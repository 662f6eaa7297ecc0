"""s2tdpt cycles: how long images take on a machine, without simulating it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.progress import Progress
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.layers import Kind
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.scripts.images import choose_images, data_option, images_option
from s2tdpt.scripts.options import (
    console,
    folder_option,
    load_params,
    machine_options,
    machine_words,
    notes,
    params_option,
)
from s2tdpt.scripts.output import json_option, quiet, write_json

if TYPE_CHECKING:
    from s2tdpt.hw.estimate.layers import Estimate

CLOCK = 100.0
"""MHz; an assumption, since the count of cycles knows no clock."""
COUNT = 16
"""Images unless told."""


@click.command(short_help="Cycles of every layer on real images, without simulation.")
@params_option
@machine_options
@images_option
@data_option
@folder_option
@click.option(
    "--count",
    "-n",
    type=click.IntRange(1),
    default=None,
    help=f"Images from the data set; by default {COUNT}.",
)
@click.option(
    "--mhz",
    "--clock-mhz",
    "clock_mhz",
    type=float,
    default=CLOCK,
    show_default=True,
    help="Clock that images a second are given for; an assumption (`s2tdpt synth` measures it).",
)
@json_option
def cycles(params, machine, images, data, data_dir, count, clock_mhz, json_path) -> None:
    """Exact cycles of every layer on real images, in seconds and without simulation.

    The golden model gives the spikes, the cycle model counts what the hardware takes for them; `s2tdpt cosim`
    checks that count, step by step. Beside it: the same machine if every neuron always fired.

    \b
    Examples:
      s2tdpt cycles
      s2tdpt cycles --machine wide --mhz 500
      s2tdpt cycles -p cifar.safetensors --machine ecp5-85k --set banks=4
      s2tdpt cycles -p cifar.safetensors --data cifar10 --data-dir ~/data -n 200 --json -
    """
    if not 0 < clock_mhz < math.inf:
        raise UserError(f"--mhz is {clock_mhz:g}; expected a positive number of MHz; for instance 100")
    numbers = load_params(params)
    chosen = choose_images(numbers, images, data, data_dir, count, (COUNT, COUNT))
    pictures, words = chosen.images, chosen.description
    from s2tdpt.hw.estimate.layers import count_cycles

    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("images", total=len(pictures))
        result = count_cycles(numbers, machine, pictures, lambda done: progress.advance(task, done))
    name = numbers.config.name
    if json_path is not None:
        setting = {
            "network": name,
            "machine": machine.model_dump(mode="json"),
            "images": len(pictures),
            "source": words,
        }
        write_json(json_path, setting | result.as_dict() | totals(result, clock_mhz))
    if not quiet(json_path):
        console.print(layer_table(result))
        console.print(total_table(result, name, machine, words, clock_mhz))


def totals(result: Estimate, clock_mhz: float) -> dict[str, float | None]:
    """What follows from the cycles and a clock."""
    rate = clock_mhz * 1e6 / result.interval
    stream = result.stream
    return {
        "cycles": result.cycles,
        "cycles_minimum": min(result.frames),
        "cycles_maximum": max(result.frames),
        "interval": result.interval,
        "clock_mhz": clock_mhz,
        "images_per_second": rate,
        "dense_images_per_second": clock_mhz * 1e6 / result.dense_interval,
        "dense_ratio": result.dense / result.cycles,
        "stream_bytes_per_second": rate * stream.words * stream.bits / 8 if stream else None,
    }


def layer_table(result: Estimate) -> Table:
    """A line for every layer, the attention of a block behind what it reads."""
    title = f"cycles of the layers, mean of {len(result.frames)} images"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)
    table.add_column("layer", no_wrap=True)
    headings = ("tiles", "cycles", "share", "adds", "adds a\ncycle", "input\nrate", "dense\ncycles")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for layer, following in zip(result.layers, [*result.layers[1:], None], strict=True):
        table.add_row(
            layer.name,
            str(layer.tiles),
            f"{layer.cycles:,.0f}",
            f"{100 * layer.share:.1f} %",
            f"{layer.accumulates:,.0f}",
            f"{layer.accumulates_per_cycle:,.1f}",
            f"{100 * layer.rate:.1f} %",
            f"{layer.dense:,}",
        )
        block = layer.name.rpartition(".")[0]
        if following is not None and following.name == f"{block}.{Kind.PROJECTION}":
            attention = result.attention[int(block.removeprefix("block."))]
            words = f"{attention.cycles:,.0f} beside"
            table.add_row(f"{block}.attention", "", f"[dim]{words}[/dim]", *[""] * 5)
    table.add_row(
        "tail", "", f"{result.tail:,.0f}", f"{100 * result.tail / result.interval:.1f} %", *[""] * 4
    )
    return table


def total_table(result: Estimate, name: str, machine: Machine, words: str, clock_mhz: float) -> Table:
    """Cycles and speed of an image."""
    figures = totals(result, clock_mhz)
    table = Table(title=f"{name}, {machine_words(machine)}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("images", f"{len(result.frames)}, {words}")
    table.add_row("cycles an image, mean", f"{result.cycles:,.0f}")
    table.add_row("smallest to largest", f"{min(result.frames):,} to {max(result.frames):,}")
    table.add_row("from image to image, mean", f"{result.interval:,.0f}")
    table.add_row("every neuron firing in every step", f"{result.dense:,}")
    table.add_row("fewer cycles than that", f"{figures['dense_ratio']:.2f} x")
    table.add_row("useful accumulates a cycle", f"{result.accumulates_per_cycle:,.1f}")
    table.add_row("lanes of all banks in use", f"{100 * result.utilisation:.1f} %")
    table.add_row("cycles without an accumulate", f"{100 * result.idle_share:.1f} %")
    waits = sum(attention.waits for attention in result.attention)
    table.add_row("of these waiting for attention", f"{100 * waits / result.interval:.1f} %")
    speed = figures["images_per_second"]
    table.add_row(f"images/s at an assumed {clock_mhz:g} MHz", f"{speed:,.{2 if speed < 100 else 0}f}")
    stream = result.stream
    if stream is not None:
        table.add_section()
        table.add_row("weight words streamed an image", f"{stream.words:,} of {stream.bits} bits")
        table.add_row(f"stream at {clock_mhz:g} MHz", f"{figures['stream_bytes_per_second'] / 1e6:,.1f} MB/s")
        table.add_row("cycles waiting for weights, mean", f"{stream.waits:,.0f}")
    return table
