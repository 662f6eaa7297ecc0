"""s2tdpt bench training: images a second of whole training steps, fused and plain neurons in one run."""

from __future__ import annotations

import os
import platform
import statistics
import time
from dataclasses import replace

import click
import numpy as np
from rich.progress import Progress
from rich.table import Table

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.hw.tools.external import versions
from s2tdpt.scripts.options import console, notes
from s2tdpt.scripts.output import json_option, quiet, write_json

GOAL = "5,000 images/s at s2tdpt-4-384 and 5 times the plain neuron, on one H200-class GPU"


@click.command(short_help="Images a second of training, and what the fused neuron gains.")
@click.option(
    "--config",
    "-c",
    default="s2tdpt-2-128",
    show_default=True,
    metavar="NAME|FILE",
    help="Network: the name of a configuration, or a JSON file.",
)
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True, help="Images a step.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="bfloat16",
    show_default=True,
    help="Layers of the float network.",
)
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="Steps in a measurement.")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Measurements of each variant, in alternation; the median counts.",
)
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 for torch's own choice.")
@json_option
def training(config, batch_size, precision, steps, repeats, threads, json_path) -> None:
    """Time whole training steps (augmentation, forward, backward, optimiser, average) on random images.

    The fused neuron and the plain one run in alternation in one process, everything else equal. The cost of a
    step does not depend on the images, so no data set is needed.

    \b
    Examples:
      s2tdpt bench training
      s2tdpt bench training -c s2tdpt-4-384 --batch-size 256       (on a GPU)
    """
    import torch

    from s2tdpt.sw.distributed import local_device
    from s2tdpt.sw.memory import keep_freed_memory
    from s2tdpt.sw.settings import default_settings
    from s2tdpt.sw.stage import deterministic

    network = load_config(config)
    device = local_device()
    settings = replace(default_settings("cifar10"), batch_size=batch_size, precision=precision)
    keep_freed_memory()
    times: dict[str, list[float]] = {"fused": [], "plain": []}
    with deterministic(threads):
        cores = torch.get_num_threads()
        variants = {name: _steps(network, replace(settings, fused=name == "fused"), device) for name in times}
        with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
            task = progress.add_task("training steps", total=2 * (repeats + 1))
            for repeat in range(repeats + 1):
                for name, take in variants.items():
                    seconds = _clock(take, steps, device)
                    if repeat:  # the first of each compiles and warms up
                        times[name].append(seconds)
                    progress.advance(task)
    speed = {name: steps * batch_size / statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(p / f for f, p in zip(times["fused"], times["plain"], strict=True))
    result = {
        "format": "s2tdpt-bench-training",
        "version": 1,
        "config": network.name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": cores,
        "cores": os.cpu_count(),
        "batch_size": batch_size,
        "precision": precision,
        "steps": steps,
        "repeats": repeats,
        "images_per_second": speed,
        "plain_to_fused_time": ratio,
        "seconds": times,
        "goal": GOAL,
        "tools": versions(),
    }
    if json_path is not None:
        write_json(json_path, result)
    if quiet(json_path):
        return
    table = Table(title=f"training {network.name}, batch {batch_size}, {precision}, {result['device']}")
    table.add_column("neuron")
    table.add_column("images/s", justify="right")
    for name, value in speed.items():
        table.add_row(name, f"{value:,.1f}")
    console.print(table)
    click.echo(f"fused: {ratio:.2f} times the speed of the plain neuron (goal: {GOAL})")


def _steps(network, settings, device):
    """A function that takes one training step of a fresh network on random images."""
    import torch

    from s2tdpt.sw.augment import augment
    from s2tdpt.sw.average import Average
    from s2tdpt.sw.network import Network
    from s2tdpt.sw.optimise import make_optimizer
    from s2tdpt.sw.step import Batch, Stepper

    def refuse(text: str) -> None:
        raise UserError(f"{text}; expected a batch that fits, for a comparison; lower --batch-size")

    torch.manual_seed(0)
    made = Network(network).to(device).train()
    if settings.precision != "float32":
        made.to(memory_format=torch.channels_last)
    stepper = Stepper(made, make_optimizer(made, settings.lr, settings.weight_decay), settings, refuse)
    average, generator = Average(made, settings.ema), torch.Generator(device).manual_seed(0)
    shape = (settings.batch_size, network.image_height, network.image_width, network.image_channels)
    rng = np.random.default_rng(0)
    images = torch.as_tensor(rng.integers(0, 256, shape, dtype=np.uint8)).to(device)
    labels = torch.as_tensor(rng.integers(0, network.num_classes, settings.batch_size)).to(device)

    def take() -> None:
        changed = augment(
            images, generator, "cifar10", network.pixel_zero_point, settings.randaugment, settings.erasing
        )
        stepper.step(Batch(changed, labels, labels), settings.lr)
        average.update(made)

    return take


def _clock(take, steps: int, device) -> float:
    import torch

    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    wait()
    started = time.perf_counter()
    for _ in range(steps):
        take()
    wait()
    return time.perf_counter() - started
