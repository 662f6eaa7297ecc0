"""s2tdpt evaluate: what a parameter file reaches, by the integer golden model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.progress import Progress
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.scripts.image_files import load_images
from s2tdpt.scripts.images import data_option, labelled_images, refuse_beside_images
from s2tdpt.scripts.options import console, folder_option, load_params, notes, params_option
from s2tdpt.scripts.output import json_option, quiet, write_json

if TYPE_CHECKING:
    from s2tdpt.golden.network import GoldenNetwork

RATE_IMAGES = 256
"""Images whose firing rates are shown."""


@click.command(short_help="Accuracy and firing rates of a parameter file.")
@params_option
@data_option
@folder_option
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Classify these images (.npy, PNG) instead of a data set.",
)
@click.option("--limit", type=click.IntRange(1), default=None, help="Only the first images.")
@click.option(
    "--qat/--no-qat",
    default=False,
    help="Also rebuild the training network and compare every value with the golden model.",
)
@click.option(
    "--qat-logits",
    is_flag=True,
    help="The same with the logits alone: every image of a large set in a short time.",
)
@json_option
def evaluate(params, data, data_dir, images, limit, qat, qat_logits, json_path) -> None:
    """Accuracy and firing rates of a parameter file, by the integer golden model.

    A value in which the training network and the golden model differ is an error: exit code 1, with the image
    and the place.

    \b
    Examples:
      s2tdpt evaluate
      s2tdpt evaluate --qat                      (0 differences expected, else exit code 1)
      s2tdpt evaluate -p cifar.safetensors --data cifar10 --data-dir ~/data --qat-logits
      s2tdpt evaluate --images my-digit.png --json -
    """
    if images:
        if qat or qat_logits:
            raise UserError("--images are not compared; expected no --qat or --qat-logits; leave one out")
        refuse_beside_images(("--data", data), ("--data-dir", data_dir), ("--limit", limit))
    import torch

    from s2tdpt.golden.activity import measure
    from s2tdpt.golden.head import class_of
    from s2tdpt.golden.network import GoldenNetwork

    numbers = load_params(params)
    golden = GoldenNetwork(numbers)
    if images:
        classify_files(golden, images, json_path)
        return
    chosen = labelled_images([numbers.config], data, data_dir, limit)
    pictures, labels = chosen.images, chosen.labels
    equality = None
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:

        def bar(words: str, total: int):
            task = progress.add_task(words, total=total)
            return lambda done: progress.advance(task, done)

        rated = pictures[:RATE_IMAGES]
        activity = measure(golden, rated, progress=bar("firing rates", len(rated)))
        advance, parts = bar("classes", len(pictures)), []
        for start in range(0, len(pictures), RATE_IMAGES):
            parts.append(golden.forward(pictures[start : start + RATE_IMAGES]))
            advance(len(parts[-1]))
        logits = torch.cat(parts)
        correct = int((class_of(logits).numpy() == labels).sum())
        if qat or qat_logits:
            from s2tdpt.sw.evaluate import verify_equal, verify_logits
            from s2tdpt.sw.export import from_params

            network = from_params(numbers)
            if qat:
                equality = verify_equal(network, golden, pictures, progress=bar("every value", len(pictures)))
            else:
                equality = verify_logits(network, logits, pictures, progress=bar("logits", len(pictures)))
    result = {
        "images": len(labels),
        "correct": correct,
        "accuracy": correct / len(labels),
        "firing_rates": activity.rates,
        "provenance": numbers.provenance,
    }
    if equality is not None:
        result["qat"] = {
            "compared": "every value" if qat else "logits",
            "images": equality.images,
            "traces": equality.traces,
            "values": equality.values,
            "difference": equality.difference,
        }
    if json_path is not None:
        write_json(json_path, result)
    if not quiet(json_path):
        title = f"{numbers.config.name}: {100 * result['accuracy']:.2f} % of {len(labels)} images"
        table = Table(title=title)
        table.add_column("spikes")
        table.add_column("firing rate", justify="right")
        for name, rate in activity.rates.items():
            table.add_row(name, f"{100 * rate:.2f} %")
        console.print(table)
    if equality is None:
        return
    if not quiet(json_path):
        what = "values" if qat else "logits"
        click.echo(
            f"training network against golden model: {equality.values:,} {what}, "
            + ("0 differences" if equality.equal else f"first difference: {equality.difference}")
        )
    if not equality.equal:
        raise click.exceptions.Exit(1)


def classify_files(golden: GoldenNetwork, paths: tuple[Path, ...], json_path: Path | None) -> None:
    """Logits and classes of images in files."""
    from s2tdpt.golden.head import class_of

    pictures = load_images(paths, golden.config)
    logits = golden.forward(pictures)
    classes = class_of(logits).tolist()
    if json_path is not None:
        write_json(json_path, {"classes": classes, "logits": np.asarray(logits).tolist()})
    if not quiet(json_path):
        for index, name in enumerate(classes):
            click.echo(f"image {index}: class {name}")
