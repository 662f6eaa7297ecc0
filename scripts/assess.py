"""s2tdpt assess: all that follows a training run, in one command."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.tools.external import find_tool
from s2tdpt.scripts.cycles import CLOCK
from s2tdpt.scripts.cycles import totals as cycle_totals
from s2tdpt.scripts.energy import amount
from s2tdpt.scripts.hardware import NEEDED
from s2tdpt.scripts.images import Chosen, data_option, labelled_images
from s2tdpt.scripts.options import (
    console,
    folder_option,
    load_params,
    machine_options,
    machine_words,
    params_option,
    telling,
)
from s2tdpt.scripts.output import json_option, quiet, write_json
from s2tdpt.sim.build import SIMULATORS

if TYPE_CHECKING:
    from s2tdpt.golden.network import GoldenNetwork

PIECE = 256
"""Images that the golden model classifies at a time."""
LEFT_OUT = "left out on request"

Part = dict[str, Any]
"""Result of a part as JSON: its figures, `good`, `verdict` in words and `seconds`."""


@click.command(short_help="Everything about a trained network, from accuracy to co-simulation.")
@params_option
@machine_options
@data_option
@folder_option
@click.option("--limit", type=click.IntRange(1), default=None, help="Only the first test images.")
@click.option(
    "--values",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Images of which every value is compared; of all others the logits.",
)
@click.option(
    "--energy-images", type=click.IntRange(1), default=1000, show_default=True, help="Images for the energy."
)
@click.option(
    "--cycle-images",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Images for the cycle model.",
)
@click.option(
    "--count",
    "-n",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Images in co-simulation, every layer compared; 0: none.",
)
@click.option(
    "--simulator",
    type=click.Choice(list(SIMULATORS)),
    default=SIMULATORS[0],
    show_default=True,
    help="Of the co-simulation.",
)
@json_option
def assess(
    params, machine, data, data_dir, limit, values, energy_images, cycle_images, count, simulator, json_path
) -> None:
    """All that follows a training run: is the network what it claims, and what does it cost in hardware?

    Five parts, one after the other: accuracy of the golden model (and whether it is the one that the file
    records), equality with the training network, energy, cycles, co-simulation of the generated Verilog.
    --params also takes a run folder, whose parameter file is meant. A part that finds a difference ends with
    exit code 1, after the other parts.

    \b
    Examples:
      s2tdpt assess
      s2tdpt assess -p runs/cifar10 --data-dir ~/data --json assessed.json
      s2tdpt assess -p runs/cifar10 --data-dir ~/data --machine ecp5-85k --count 2
      s2tdpt assess -p cifar.safetensors --data-dir ~/data --count 0        (no simulator needed)
    """
    for tool in NEEDED[simulator] if count else ():
        find_tool(tool)
    numbers = load_params(parameter_file(params))
    chosen = labelled_images([numbers.config], data, data_dir, limit)
    from s2tdpt.golden.network import GoldenNetwork

    golden = GoldenNetwork(numbers)
    parts: dict[str, Part] = {}
    with telling("accuracy") as tell:

        def bar(words: str, total: int) -> Callable[[int], None]:
            seen = 0

            def advance(done: int) -> None:
                nonlocal seen
                seen += done
                tell(f"{words}: {seen:,} of {total:,} images")

            advance(0)
            return advance

        with timed(parts, "accuracy") as part:
            logits = classify(golden, chosen, bar, part)
        with timed(parts, "equality") as part:
            compare(golden, chosen, logits, values, bar, part)
        with timed(parts, "energy") as part:
            weigh(golden, chosen, energy_images, bar, part)
        with timed(parts, "cycles") as part:
            count_cycles(golden, machine, chosen, cycle_images, bar, part)
        with timed(parts, "cosim") as part:
            simulate(golden, machine, chosen, count, simulator, tell, part)
    good = all(part["good"] is not False for part in parts.values())
    if json_path is not None:
        heading = {
            "network": numbers.config.name,
            "weight_bits": numbers.config.weight_bits,
            "sha256": numbers.checksum(),
            "data": chosen.description,
            "machine": machine.model_dump(mode="json"),
            "good": good,
        }
        write_json(json_path, heading | parts | {"provenance": numbers.provenance})
    if not quiet(json_path):
        table = Table(title=f"{numbers.config.name}, {machine_words(machine)}")
        for name, kind in (("part", "left"), ("result", "left"), ("seconds", "right")):
            table.add_column(name, justify=kind)
        for name, part in parts.items():
            style = "red" if part["good"] is False else None
            table.add_row(name, part["verdict"], f"{part['seconds']:.1f}", style=style)
        console.print(table)
    if not good:
        raise click.exceptions.Exit(1)


def parameter_file(source: str) -> str:
    """`source` itself, or the parameter file in the run folder that it names.

    Raises
    ------
    UserError
        The folder holds none, or more than one.
    """
    folder = Path(source)
    if not folder.is_dir():
        return source
    stages = {"float.safetensors", "qat.safetensors", "teacher.safetensors"}
    found = sorted(p for p in folder.glob("*.safetensors") if p.name not in stages)
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise UserError(
            f"{folder} holds {len(found)} parameter files ({names}); expected the one of a finished run; "
            "finish it, or name the file"
        )
    return str(found[0])


@contextmanager
def timed(parts: dict[str, Part], name: str):
    """A part that is filled in meanwhile, and the seconds that it took."""
    part, started = {}, time.perf_counter()
    yield part
    part["seconds"] = round(time.perf_counter() - started, 2)
    parts[name] = part


def classify(golden: GoldenNetwork, chosen: Chosen, bar, part: Part):
    """Accuracy by the golden model, against what the file records; returns the logits [B, K]."""
    import torch

    from s2tdpt.golden.head import class_of

    images, advance, pieces = chosen.images, bar("classes", len(chosen.images)), []
    for start in range(0, len(images), PIECE):
        pieces.append(golden.forward(images[start : start + PIECE]))
        advance(len(pieces[-1]))
    logits = torch.cat(pieces)
    correct, total = int((class_of(logits).numpy() == chosen.labels).sum()), len(images)
    recorded = golden.params.recorded_accuracy(total)
    part |= {"images": total, "correct": correct, "accuracy": correct / total, "recorded": recorded}
    part["good"] = recorded is None or round(recorded * total) == correct
    said = "the file records no figure for these images" if recorded is None else "as the file records"
    if not part["good"]:
        said = f"the file records {100 * recorded:.2f} %"
    part["verdict"] = f"{100 * correct / total:.2f} % ({correct:,} of {total:,}); {said}"
    return logits


def compare(golden: GoldenNetwork, chosen: Chosen, logits, values: int, bar, part: Part) -> None:
    """The training network, rebuilt from the file, against the golden model."""
    from s2tdpt.sw.evaluate import verify_equal, verify_logits
    from s2tdpt.sw.export import from_params

    network, some = from_params(golden.params), chosen.images[:values]
    every = verify_equal(network, golden, some, progress=bar("every value", len(some)))
    last = verify_logits(network, logits, chosen.images, progress=bar("logits", len(chosen.images)))
    part["good"] = every.equal and last.equal
    for name, found in (("every_value", every), ("logits", last)):
        part[name] = {"images": found.images, "values": found.values, "difference": found.difference}
    part["verdict"] = every.difference or last.difference
    if part["good"]:
        part["verdict"] = (
            f"0 differences in {last.values:,} logits of {last.images:,} images and {every.values:,} values "
            f"of {every.images:,}"
        )


def weigh(golden: GoldenNetwork, chosen: Chosen, limit: int, bar, part: Part) -> None:
    """Energy and spikes of an inference."""
    from s2tdpt.golden.activity import measure
    from s2tdpt.golden.energy import energy_report

    images, labels = chosen.images[:limit], chosen.labels[:limit]
    activity = measure(golden, images, labels, bar("energy", len(images)))
    report = energy_report(golden, activity)
    part |= report.as_dict() | {"firing_rates": activity.rates, "good": None}
    totals = report.totals
    integer = totals["integer_adders"] + totals["integer_reads_shared"]
    part["verdict"] = (
        f"theory {amount(totals['theory'])}, integer with reads {amount(integer)} an image, mean of "
        f"{len(images):,}"
    )


def count_cycles(
    golden: GoldenNetwork, machine: Machine, chosen: Chosen, limit: int, bar, part: Part
) -> None:
    """Cycles by the model."""
    from s2tdpt.hw.estimate import layers as estimate

    images = chosen.images[:limit]
    result = estimate.count_cycles(golden.params, machine, images, bar("cycles", len(images)))
    figures = cycle_totals(result, CLOCK)
    part |= figures | {"images": len(images), "good": None}
    part["verdict"] = (
        f"{result.cycles:,.0f} an image, mean of {len(images)}; {figures['images_per_second']:,.1f} images/s "
        f"at an assumed {CLOCK:g} MHz"
    )


def simulate(
    golden: GoldenNetwork, machine: Machine, chosen: Chosen, count: int, simulator: str, tell, part: Part
) -> None:
    """The generated Verilog against the golden model and the cycle model."""
    if not count:
        part |= {"good": None, "verdict": LEFT_OUT}
        return
    from s2tdpt.sim.cosim import Options, cosimulate

    images = chosen.images[:count]
    report = cosimulate(golden.params, machine, images, Options(simulator=simulator), step=tell)
    part |= report.to_json() | {"good": report.ok}
    errors = [step.model_error for step in report.steps if step.model_error is not None]
    model = f"; cycle model off by {max(errors)} cycles" if errors else "; no cycle model for this machine"
    part["verdict"] = f"{report.mismatches:,} differences in {report.comparisons:,} values"
    part["verdict"] += model if report.ok else f"; {(report.differences + report.findings)[0]}"
