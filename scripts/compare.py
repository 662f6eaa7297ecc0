"""s2tdpt compare: every attention in the same network, trained alike, counted alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.strictjson import LARGEST_RESULT, read
from s2tdpt.scripts.controls import check_base, cut
from s2tdpt.scripts.energy import check_plot
from s2tdpt.scripts.estimate import check_kinds, read_tokens
from s2tdpt.scripts.options import (
    command_line,
    console,
    data_option,
    folder_option,
    machine_options,
    notes,
    positive,
    telling,
    trial_options,
)
from s2tdpt.scripts.output import check_file, check_folder, json_option, quiet, write_json, write_text

if TYPE_CHECKING:
    from s2tdpt.hw.plan.machine import Machine
    from s2tdpt.sw.comparison import Base

FORMAT = "s2tdpt-comparison"
MANIFEST = "comparison.json"
"""What the runs of a folder share."""
CONFIGS = {"digits": "digits", "cifar10": "s2tdpt-2-128", "cifar100": "s2tdpt-4-384-cifar100"}
"""Network of a data set unless told."""
IMAGES = 16
"""Images whose cycles and energy are counted."""
TOKENS = "16,64,256,1024"


@click.command(short_help="All attentions trained, quantised and counted alike.")
@click.option(
    "--config",
    "-c",
    metavar="NAME|FILE",
    help=f"Network around the attentions; default by data: {', '.join(CONFIGS.values())}.",
)
@data_option
@folder_option
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", help="Only this attention; repeatable; default: all."
)
@click.option("--seeds", default="0", show_default=True, help="Seeds of every attention, with commas.")
@click.option("--float-epochs", type=click.IntRange(1), help="Epochs of a float network.")
@click.option("--qat-epochs", type=click.IntRange(1), help="Epochs of an integer network.")
@click.option("--budget-minutes", type=float, callback=positive, help="CPU minutes a run instead of epochs.")
@trial_options
@machine_options
@click.option(
    "--cost-images",
    type=click.IntRange(1),
    default=IMAGES,
    show_default=True,
    help="First test images whose cycles and energy are counted.",
)
@click.option(
    "--tokens", default=TOKENS, show_default=True, help="Cycles and state of a head for so many tokens."
)
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder of all runs."
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=check_plot,
    help="Draw accuracies, ablations, cycles and state (PNG, SVG or PDF).",
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=check_file,
    help="Also write the tables as Markdown.",
)
@json_option
def compare(
    config,
    data,
    data_dir,
    kinds,
    seeds,
    float_epochs,
    qat_epochs,
    budget_minutes,
    images,
    test_images,
    stem,
    times,
    machine,
    cost_images,
    tokens,
    out,
    plot,
    markdown,
    json_path,
) -> None:
    """Which attention? The same network with each of them, trained, quantised and counted alike.

    For every attention and seed: float training, quantisation-aware training, export, proof against the
    golden model, ablations of the integers; exact cycles, state and energy on --machine; LUTs of the unit.
    --out keeps finished runs, which are never repeated, with their parameter files; interrupted ones go on.
    `s2tdpt controls` varies gradients and options instead, in float alone.

    \b
    Examples:
      s2tdpt compare --out runs/digits --seeds 0,1,2 --plot runs/digits.svg
      s2tdpt compare --out runs/cifar --data cifar10 --data-dir ~/data --budget-minutes 2 --seeds 0,1
      s2tdpt compare --out runs/weak --data cifar10 --data-dir ~/data --budget-minutes 2 --seeds 0,1
               -c digits --stem weak --shrink 2
      s2tdpt compare --out runs/two --kind ssa --kind stdp --json -
    """
    from s2tdpt.hw.attention import HARDWARE
    from s2tdpt.scripts.compare_results import draw, markdown_tables, result_of, tables
    from s2tdpt.sw.comparison import Base, alike
    from s2tdpt.sw.controls import check_fit, shrink, weak_stem
    from s2tdpt.sw.datasets import load_dataset
    from s2tdpt.sw.stage import deterministic

    check_kinds(kinds)
    chosen, numbers, counts = list(dict.fromkeys(kinds or HARDWARE)), read_seeds(seeds), read_tokens(tokens)
    check_folder(out)
    network = load_config(config or CONFIGS[data])
    given = {"float_epochs": float_epochs, "qat_epochs": qat_epochs, "budget_minutes": budget_minutes}
    if budget_minutes is not None:
        given["budget_clock"] = "cpu"
        if float_epochs is not None or qat_epochs is not None:
            raise UserError("--budget-minutes and epochs are given; expected one of them; leave one out")
    settings = replace(alike(data), **{name: value for name, value in given.items() if value is not None})
    dataset = cut(shrink(load_dataset(data, data_dir), times), images, test_images)
    if stem == "weak":
        network = weak_stem(network, dataset)
    check_fit(network, dataset)
    base = Base(network, settings, dataset)
    for kind in chosen:  # refused before anything is trained
        base.network(kind)
    open_folder(out, base)
    runs = train_missing(out, base, chosen, numbers, command_line())
    with telling("costs") as tell, deterministic(settings.threads):
        weigh_runs(out, base, runs, machine, cost_images, tell)
        units = weigh_units(out, chosen, machine, counts, tell)
    setting = {"command": command_line(), "machine": machine.model_dump(mode="json"), "images": cost_images}
    result = {"format": FORMAT, "version": 1} | base.to_json() | result_of(runs, units, setting)
    if plot is not None:
        draw(result, plot)
    if markdown is not None:
        write_text(markdown, markdown_tables(result))
    if json_path is not None:
        write_json(json_path, result)
    if not quiet(json_path):
        for table in tables(result, f"{network.name} on {dataset.name}"):
            console.print(table)


def read_seeds(text: str) -> list[int]:
    """Seeds from "0,1,2".

    Raises
    ------
    UserError
        They are no different whole numbers from 0 on.
    """
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts) or len(
        set(map(int, parts))
    ) < len(parts):
        raise UserError(
            f"--seeds is {text[:60]!r}; expected different whole numbers with commas; give for instance 0,1,2"
        )
    return [int(part) for part in parts]


def open_folder(out: Path, base: Base) -> None:
    """Begin a comparison in `out`, or find that it is the same one.

    Raises
    ------
    UserError
        The folder holds something else, or runs on another base, which must not be mixed.
    """
    place, head = out / MANIFEST, {"format": FORMAT, "version": 1} | base.to_json()
    if not place.exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(
                f"--out {out} holds other files and no {MANIFEST}; expected a new folder or one of this "
                "command; name another one"
            )
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write {out}: {error.strerror}; expected a writable place; choose another folder"
            ) from None
        write_json(place, head)
        return
    try:
        found = read(place, LARGEST_RESULT)
        if found["format"] != FORMAT:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{place} does not describe a comparison; expected JSON that `s2tdpt compare` wrote; name "
            "another folder"
        ) from None
    check_base(f"--out {out}", "folder", head, found)


def train_missing(
    out: Path, base: Base, kinds: list[str], seeds: list[int], command: str
) -> list[dict[str, Any]]:
    """All runs; what the folder lacks is trained, seed by seed: an interruption leaves all kinds alike."""
    from s2tdpt.sw.comparison import train_run

    wanted, runs = [(kind, seed) for seed in seeds for kind in kinds], []
    for number, (kind, seed) in enumerate(wanted, 1):
        folder = out / f"{kind}-{seed}"
        place = folder / "run.json"
        if not place.exists():
            said = f"run {number} of {len(wanted)}: {kind}, seed {seed}"
            click.echo(f"s2tdpt: {said}", err=True)
            run, _ = train_run(base, kind, seed, folder, command, notes)
            write_json(place, run)
            right = f"{100 * run['correct'] / run['images']:.2f} % as integers"
            click.echo(f"s2tdpt: {said}: {right}, {run['minutes']:g} min", err=True)
        runs.append(read_run(place, kind, seed))
    return runs


def read_run(place: Path, kind: str, seed: int) -> dict[str, Any]:
    """Figures of a finished run; UserError if the file is something else."""
    try:
        run = read(place, LARGEST_RESULT)
        if (run["kind"], run["seed"]) == (kind, seed) and run["images"] and run["ablations"]:
            return run
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f"{place} does not hold the run {kind}, seed {seed}; expected JSON that `s2tdpt compare` wrote; "
        "remove the file, and the run's end is made again"
    )


def weigh_runs(out: Path, base: Base, runs: list[dict[str, Any]], machine: Machine, limit: int, tell) -> None:
    """Give every run its cycles, state and energy as ``cost``, measured where the folder lacks them."""
    from s2tdpt.golden.params import Params
    from s2tdpt.scripts.compare_costs import kept, network_costs

    images = base.dataset.test_images[:limit]
    for run in runs:
        name = f"{run['kind']}-{run['seed']}"
        tell(f"costs: {name}")
        path = out / name / run["file"]
        key = {"machine": machine.model_dump(mode="json"), "images": len(images), "sha256": run["sha256"]}

        def measured(path=path, run=run):
            params = Params.load(path)
            if params.checksum() != run["sha256"]:
                raise UserError(
                    f"{path} is not the network that {path.parent / 'run.json'} describes; expected its "
                    "integers; remove that folder, and the run is made again"
                )
            return network_costs(params, machine, images)

        run["cost"] = kept(out / name / "cost.json", key, measured)


def weigh_units(
    out: Path, kinds: list[str], machine: Machine, tokens: list[int], tell
) -> dict[str, dict[str, Any]]:
    """Cells of every attention's unit, and its cycles and state by tokens."""
    from s2tdpt.scripts.compare_costs import kept, unit_costs

    found = {}
    for kind in kinds:
        tell(f"units: {kind}")
        key = {"machine": machine.model_dump(mode="json"), "tokens": tokens}
        found[kind] = kept(
            out / f"unit-{kind}.json", key, lambda kind=kind: unit_costs(kind, machine, tokens)
        )
    return found
