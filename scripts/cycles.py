"""s2tdpt cycles: how long images take on a machine, without simulating it."""

from __future__ import annotations

import math

import click
from rich.box import SIMPLE_HEAD
from rich.progress import Progress
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.estimate import Estimate, estimate
from s2tdpt.scripts.images import choose_images, data_option, images_option
from s2tdpt.scripts.options import (
    console,
    folder_option,
    json_option,
    load_params,
    machine,
    machine_options,
    notes,
    params_option,
    quiet,
    write_json,
)

CLOCK = 50.0
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
    "--clock-mhz",
    type=float,
    default=CLOCK,
    show_default=True,
    help="Clock that images a second are given for; an assumption.",
)
@json_option
def cycles(
    params, hardware, lanes, rows, post_lanes, weights, images, data, data_dir, count, clock_mhz, json_path
) -> None:
    """Exact cycles of every operation on real images, in seconds and without simulation.

    The golden model gives the spikes, the cycle model counts what the hardware takes for them; `s2tdpt cosim`
    checks that count, operation by operation. Beside it: the same machine if every neuron always fired.

    \b
    Examples:
      s2tdpt cycles
      s2tdpt cycles --lanes 128 --rows 2 --clock-mhz 100
      s2tdpt cycles -p cifar.safetensors --weights stream
      s2tdpt cycles -p cifar.safetensors --data cifar10 --data-dir ~/data -n 200 --json -
    """
    if not 0 < clock_mhz < math.inf:
        raise UserError(f"--clock-mhz is {clock_mhz:g}; expected a positive number of MHz; for instance 50")
    numbers = load_params(params)
    hw = machine(hardware, lanes, rows, post_lanes, weights)
    chosen = choose_images(numbers, images, data, data_dir, count, (COUNT, COUNT))
    pictures, words = chosen.images, chosen.description
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("images", total=len(pictures))
        result = estimate(numbers, hw, pictures, lambda done: progress.advance(task, done))
    name = numbers.config.name
    if json_path is not None:
        setting = {
            "network": name,
            "hardware": hw.model_dump(mode="json"),
            "images": len(pictures),
            "source": words,
        }
        write_json(json_path, setting | result.as_dict() | totals(result, clock_mhz))
    if not quiet(json_path):
        console.print(operation_table(result))
        console.print(total_table(result, name, hw, words, clock_mhz))


def totals(result: Estimate, clock_mhz: float) -> dict[str, float | None]:
    """What follows from the cycles and a clock."""
    rate = clock_mhz * 1e6 / result.interval
    stream = result.stream
    return {
        "cycles": result.cycles,
        "cycles_minimum": min(result.frames),
        "cycles_maximum": max(result.frames),
        "clock_mhz": clock_mhz,
        "images_per_second": rate,
        "dense_images_per_second": clock_mhz * 1e6 / result.dense_interval,
        "dense_ratio": result.dense / result.cycles,
        "stream_bytes_per_second": rate * stream.words * stream.bits / 8 if stream else None,
    }


def operation_table(result: Estimate) -> Table:
    """A line for every operation."""
    title = f"cycles of the layer program, mean of {len(result.frames)} images"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)
    for heading in ("step", "limited by"):
        table.add_column(heading, no_wrap=True)
    for heading in ("cycles", "share", "lanes\nin use", "input\nrate", "dense", "of\ndense"):
        table.add_column(heading, justify="right", no_wrap=True)
    for op in result.operations:
        table.add_row(
            op.name,
            op.bound,
            f"{op.cycles:,.0f}",
            f"{100 * op.share:.1f} %",
            f"{100 * op.utilisation:.1f} %" if op.kind == "accumulate" else "",
            f"{100 * op.rate:.1f} %",
            f"{op.dense:,}",
            f"{100 * op.cycles / op.dense:.3g} %",
        )
    return table


def total_table(result: Estimate, name: str, hw: HardwareConfig, words: str, clock_mhz: float) -> Table:
    """Cycles and speed of an image."""
    figures = totals(result, clock_mhz)
    table = Table(title=f"{name} on {hw.lanes} lanes x {hw.rows} rows, weights: {hw.weight_memory}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("images", f"{len(result.frames)}, {words}")
    table.add_row("cycles an image, mean", f"{result.cycles:,.0f}")
    table.add_row("smallest to largest", f"{min(result.frames):,} to {max(result.frames):,}")
    table.add_row("every neuron firing in every step", f"{result.dense:,}")
    table.add_row("fewer cycles than that", f"{figures['dense_ratio']:.2f} x")
    table.add_row("lanes in use, conv and linear", f"{100 * result.layer_utilisation:.1f} %")
    table.add_row("lanes in use, whole image", f"{100 * result.utilisation:.1f} %")
    speed = figures["images_per_second"]
    table.add_row(f"images/s at an assumed {clock_mhz:g} MHz", f"{speed:,.{2 if speed < 100 else 0}f}")
    stream = result.stream
    if stream is not None:
        table.add_section()
        table.add_row("weight words streamed an image", f"{stream.words:,} of {stream.bits} bits")
        table.add_row(f"stream at {clock_mhz:g} MHz", f"{figures['stream_bytes_per_second'] / 1e6:,.1f} MB/s")
        table.add_row("cycles waiting for weights, mean", f"{stream.waits:,.0f}")
    return table
