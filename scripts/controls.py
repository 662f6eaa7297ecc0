"""s2tdpt controls and ablate: attentions trained alike and compared; a trained one taken away."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.strictjson import LARGEST_RESULT, read
from s2tdpt.scripts.images import data_option as images_data_option
from s2tdpt.scripts.images import labelled_images
from s2tdpt.scripts.options import (
    console,
    data_option,
    folder_option,
    load_params,
    notes,
    params_option,
    trial_options,
)
from s2tdpt.scripts.output import check_file, json_option, quiet, write_bytes, write_json
from s2tdpt.sw.names import NAMED_CASES
from s2tdpt.sw.settings import default_settings

if TYPE_CHECKING:
    from s2tdpt.sw.controls import Case
    from s2tdpt.sw.datasets import Dataset

FORMAT = "s2tdpt-controls"
PLAIN = {
    "rate_weight": 0.0,
    "count_weight": 0.0,
    "ema": 0.0,
    "randaugment": 0.0,
    "erasing": 0.0,
    "mixup": 0.0,
    "precision": "float32",
    "fused": False,
}
"""Off unless --set or a case turns it on: what asks for other spikes than the classification does, and what
only pays in long runs."""
DEFAULT_CASES = ("window", "autodiff", "detached", "ssa", "random")


@click.command(short_help="Is the attention needed? Controls, trained alike.")
@click.option(
    "--config",
    "-c",
    default="digits",
    show_default=True,
    metavar="NAME|FILE",
    help="Network: the name of a configuration, or a JSON file.",
)
@data_option
@folder_option
@click.option(
    "--case",
    "cases",
    multiple=True,
    metavar="CASE",
    help=f"NAME or NAME:FIELD=VALUE,...; NAME is one of {', '.join(NAMED_CASES)}. Repeatable; "
    f"default: {', '.join(DEFAULT_CASES)}.",
)
@click.option(
    "--set",
    "base",
    multiple=True,
    metavar="FIELD=VALUE",
    help="A field of the network or of the training, for all cases. Repeatable.",
)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Seeds 0, 1, ... a case.")
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True, help="Epochs a run.")
@trial_options
@click.option("--augment/--no-augment", default=None, help="Move (digits) or flip and crop (CIFAR) images.")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    callback=check_file,
    metavar="FILE",
    help="JSON of all runs, written after each; runs that it holds are not repeated.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    callback=check_file,
    metavar="PNG",
    help="Also draw accuracies and what is left after ablation.",
)
def controls(
    config, data, data_dir, cases, base, seeds, epochs, images, test_images, stem, times, augment, out, plot
) -> None:
    """Train the same network alike with several attentions, and take each attention away again.

    Accuracy alone does not show that an attention works. Beside each accuracy stands how much of it is
    lost when, in the trained network, Y is 0, A is constant, or A belongs to other tokens or another
    image. The case `zero` is trained without attention, `none` without mixing tokens, `uniform` with equal
    weights.

    --out may be interrupted and extended: with more cases or seeds, only what is missing is run.

    \b
    Examples:
      s2tdpt controls --out controls.json --seeds 3
      s2tdpt controls --out controls.json --seeds 3 --case window+counts --case zero --plot controls.png
      s2tdpt controls --out kappa.json --case window:attention.kappa=0.25 --case window:heads=4
      s2tdpt controls --out weak.json --data cifar10 --data-dir ~/data --stem weak --shrink 2
               --images 20000 --epochs 2 --set depth=1
    """
    from s2tdpt.sw.controls import Case, check_fit, parse_case, parse_field, shrink, split_fields, weak_stem
    from s2tdpt.sw.datasets import load_dataset
    from s2tdpt.sw.export import tool_versions

    chosen = [parse_case(text) for text in dict.fromkeys(cases or DEFAULT_CASES)]
    of_training, of_network = split_fields(dict(parse_field(text) for text in base))
    settings = replace(default_settings(data), float_epochs=epochs, threads=1, **PLAIN)
    if augment is not None:
        settings = replace(settings, augment=augment)
    settings = replace(settings, **of_training)
    network = load_config(config)
    network = Case("--set", config=of_network).apply(network, settings)[0]
    dataset = cut(shrink(load_dataset(data, data_dir), times), images, test_images)
    if stem == "weak":
        network = weak_stem(network, dataset)
    check_fit(network, dataset)
    for case in chosen:  # refused before anything is trained
        case.apply(network, settings)
    head = {
        "format": FORMAT,
        "version": 1,
        "network": network.model_dump(mode="json"),
        "settings": {name: value for name, value in settings.to_json().items() if name != "seed"},
        "data": {
            "source": dataset.source,
            "train_images": len(dataset.train_images),
            "test_images": len(dataset.test_images),
        },
        "tools": tool_versions(),
    }
    result = read_result(out, head)
    result["commands"] = list(dict.fromkeys([*result["commands"], command_line()]))
    train_missing(result, chosen, seeds, network, settings, dataset, out)
    if plot is not None:
        draw(result["summary"], plot)
    for table in result_tables(result["summary"], f"{network.name} on {dataset.name}"):
        console.print(table)


def command_line() -> str:
    """The command as it was typed, for provenance; the program by its name alone."""
    typed = click.get_current_context().find_root().command.typed
    return " ".join(["s2tdpt", *map(shlex.quote, typed)])


def cut(dataset: Dataset, images: int | None, test_images: int | None) -> Dataset:
    """The first images of each part; more than there are is refused."""
    for name, wanted, there in (
        ("--images", images, len(dataset.train_images)),
        ("--test-images", test_images, len(dataset.test_images)),
    ):
        if wanted is not None and wanted > there:
            raise UserError(f"{name} {wanted} of {there} images; expected at most {there}; lower it")
    return replace(
        dataset,
        train_images=dataset.train_images[:images],
        train_labels=dataset.train_labels[:images],
        test_images=dataset.test_images[:test_images],
        test_labels=dataset.test_labels[:test_images],
    )


def read_result(path: Path, head: dict[str, Any]) -> dict[str, Any]:
    """The earlier runs of this experiment, or none.

    Raises
    ------
    UserError
        The file is something else, or holds runs on another base, which must not be mixed.
    """
    if not path.exists() or not path.is_file():
        return head | {"commands": [], "runs": [], "summary": {}}
    try:
        data = read(path, LARGEST_RESULT)
        if data["format"] != FORMAT:
            raise ValueError
        [(run["case"], run["seed"], run["correct"], run["images"]) for run in data["runs"]]
        data["commands"] = list(data["commands"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--out {path} is no file of this command; expected JSON that `s2tdpt controls` wrote; "
            "name another file"
        ) from None
    check_base(f"--out {path}", "file", head, data)
    return data


def check_base(place: str, what: str, head: dict[str, Any], data: dict[str, Any]) -> None:
    """UserError unless `data`, which a `what` (file or folder) at `place` holds, has the base of `head`."""
    for part in ("network", "settings", "data", "tools"):
        mine, theirs = head[part], data.get(part)
        theirs = theirs if isinstance(theirs, dict) else {}
        differing = [name for name in (*mine, *theirs) if mine.get(name) != theirs.get(name)]
        if differing:
            name = differing[0]
            raise UserError(
                f"{place} holds runs with {part} {name} {theirs.get(name)}, not {mine.get(name)}; "
                f"expected the same base for all runs of a {what}; name another {what}"
            )


def train_missing(
    result: dict[str, Any], cases: list[Case], seeds: int, network, settings, dataset: Dataset, out: Path
) -> None:
    """Run what `result` lacks, seed by seed, so that an interruption leaves all cases alike."""
    from s2tdpt.sw.controls import run_case, summarise

    known = {(run["case"], run["seed"]) for run in result["runs"]}
    missing = [(case, seed) for seed in range(seeds) for case in cases if (case.label, seed) not in known]
    if not missing:
        result["summary"] = summarise(result["runs"])
        write_json(out, result)
        return
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as progress:
        task = progress.add_task("runs", total=len(missing), note="")
        for case, seed in missing:
            progress.update(task, note=f"{case.label}, seed {seed}")
            before = set(progress.task_ids)
            run = run_case(case, seed, network, settings, dataset, progress=progress)
            for finished in set(progress.task_ids) - before:
                progress.remove_task(finished)
            result["runs"].append(run)
            result["summary"] = summarise(result["runs"])
            write_json(out, result)
            progress.advance(task)
            notes.print(
                f"{case.label}, seed {seed}: {100 * run['correct'] / run['images']:.2f} %, "
                f"{run['seconds']:.0f} s",
                highlight=False,
            )


def percent(value: float | None) -> str:
    """Per cent with two digits, or a dash."""
    return "-" if value is None else f"{100 * value:.2f}"


def result_tables(summary: dict[str, dict[str, Any]], title: str) -> list[Table]:
    """Accuracy and what each ablation takes away; rates, spreads of counts and LTP share. A row a case."""
    narrow = {"box": SIMPLE_HEAD, "padding": (0, 1, 0, 0)}  # ten columns in eighty characters
    worth = Table(title=title, caption="right in %, ablations in points lost, mean over seeds", **narrow)
    alive = Table(title="neurons of the attention", caption="rates and share of LTP pairs in %", **narrow)
    names = list(dict.fromkeys(name for row in summary.values() for name in row["drops"]))
    for table, columns in (
        (worth, ("right", "+-", "seeds", *(name.replace("_", "\n") for name in names))),
        (alive, ("q", "k", "v", "attn", "spread\nq", "spread\nk", "LTP")),
    ):
        table.add_column("case", overflow="fold")
        for column in columns:
            table.add_column(column, justify="right")
    for label, row in summary.items():
        drops = (percent(row["drops"].get(name)) for name in names)
        worth.add_row(label, percent(row["mean"]), percent(row["deviation"]), str(len(row["seeds"])), *drops)
        rates = (percent(row["rates"].get(part)) for part in (".q", ".k", ".v", ".attn"))
        spread = (f"{row['spread'][part]:.2f}" if part in row["spread"] else "-" for part in (".q", ".k"))
        alive.add_row(label, *rates, *spread, percent(row["ltp_share"]))
    return [worth, alive]


def draw(summary: dict[str, dict[str, Any]], path: Path) -> None:
    """Accuracy of every seed and its mean; below it, the mean that is left after each ablation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8.0, 1.2 + 0.45 * len(summary)), layout="constrained")
    names = list(dict.fromkeys(name for row in summary.values() for name in row["drops"]))
    markers = dict(zip(names, "xv^<>s*d", strict=False))
    for y, row in enumerate(summary.values()):
        axes.plot(
            [100 * a for a in row["accuracies"]],
            [y] * len(row["accuracies"]),
            "o",
            color="tab:blue",
            alpha=0.5,
            label="trained, each seed" if y == 0 else None,
        )
        axes.plot([100 * row["mean"]], [y], "|", color="black", markersize=16, label=None if y else "mean")
    for name in names:
        places = [(y, row) for y, row in enumerate(summary.values()) if name in row["drops"]]
        left = [100 * (row["mean"] - row["drops"][name]) for _, row in places]
        words = f"{name.replace('_', ' ')} instead"
        axes.plot(left, [y for y, _ in places], markers.get(name, "."), linestyle="", label=words)
    axes.set_yticks(range(len(summary)), list(summary))
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, %")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    plt.close(figure)
    write_bytes(path, picture.getvalue())


@click.command(short_help="What the attention of a trained network contributes.")
@params_option
@images_data_option
@folder_option
@click.option("--limit", type=click.IntRange(2), default=None, help="Only the first test images.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the shuffles.")
@json_option
def ablate(params, data, data_dir, limit, seed, json_path) -> None:
    """Replace the attention inside a trained integer network and classify the test images again.

    Nothing is trained. One row a replacement: Y = 0, two constants for A, counts shuffled between tokens,
    A of another image; each with the images that are lost and gained by it.

    \b
    Examples:
      s2tdpt ablate
      s2tdpt ablate -p digits-int4 --json -
      s2tdpt ablate -p cifar.safetensors --data cifar10 --data-dir ~/data --limit 1000
    """
    numbers = load_params(params)
    chosen = labelled_images([numbers.config], data, data_dir, limit)
    pictures, labels = chosen.images, chosen.labels
    from s2tdpt.sw.ablation import ablate as ablate_attention
    from s2tdpt.sw.export import from_params

    report = ablate_attention(from_params(numbers), pictures, labels, seed=seed)
    if json_path is not None:
        write_json(json_path, {"params": numbers.checksum(), "seed": seed, **report.to_json()})
    if quiet(json_path):
        return
    title = f"{numbers.config.name}: {report.correct} of {report.images} right, {percent(report.accuracy)} %"
    table = Table(title=title, caption="points of accuracy lost, with one standard error")
    table.add_column("replacement")
    for column in ("right", "lost", "gained", "points lost"):
        table.add_column(column, justify="right")
    for name, a in report.ablations.items():
        points = f"{percent(a.drop)} +- {percent(a.error)}"
        table.add_row(name.replace("_", " "), str(a.correct), str(a.lost), str(a.gained), points)
    console.print(table)
    alive = Table(title="neurons of the attention", caption="rates and share of LTP pairs in %")
    alive.add_column("block")
    for column in ("q", "k", "v", "attn", "spread q", "spread k", "LTP"):
        alive.add_column(column, justify="right")
    for b in range(numbers.config.depth):
        rates = (percent(report.rates.get(f"block.{b}.{part}")) for part in ("q", "k", "v", "attn"))
        spread = (report.spread.get(f"block.{b}.{part}") for part in "qk")
        words = ("-" if value is None else f"{value:.2f}" for value in spread)
        alive.add_row(str(b), *rates, *words, percent(report.ltp_share[b] if report.ltp_share else None))
    console.print(alive)
