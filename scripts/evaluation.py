"""s2tdpt evaluate: what a parameter file reaches, by the integer golden model."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from rich.table import Table

from golden.errors import UserError
from golden.network import GoldenNetwork
from scripts.options import (
    console,
    data_option,
    folder_option,
    json_option,
    load_images,
    load_params,
    params_option,
    quiet,
    write_json,
)
from sw.datasets import load_dataset


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
@json_option
def evaluate(params, data, data_dir, images, limit, qat, json_path) -> None:
    """Accuracy and firing rates of a parameter file, by the integer golden model.

    \b
    Examples:
      s2tdpt evaluate
      s2tdpt evaluate --qat                      (0 differences expected, else exit code 1)
      s2tdpt evaluate --images my-digit.png --json -
    """
    numbers = load_params(params)
    golden = GoldenNetwork(numbers)
    if images:
        pictures = load_images(images, numbers.config)
        logits = golden.forward(pictures)
        classes = golden.classify(pictures).tolist()
        result = {"classes": classes, "logits": np.asarray(logits).tolist()}
        if json_path is not None:
            write_json(json_path, result)
        if not quiet(json_path):
            for index, name in enumerate(classes):
                click.echo(f"image {index}: class {name}")
        return
    dataset = load_dataset(data, data_dir)
    pictures, labels = np.asarray(dataset.test_images)[:limit], np.asarray(dataset.test_labels)[:limit]
    shape = (numbers.config.image_height, numbers.config.image_width, numbers.config.image_channels)
    if pictures.shape[1:] != shape:
        raise UserError(
            f"data set {data} has images {list(pictures.shape[1:])}; expected {list(shape)} for "
            f"{numbers.config.name}; choose another --data"
        )
    correct = int((np.asarray(golden.classify(pictures)) == labels).sum())
    trace = golden.trace(pictures[:256])
    rates = {
        name: float(np.asarray(value).mean())
        for name, value in trace.items()
        if np.asarray(value).dtype == np.uint8 and name != "pixels"
    }
    result = {
        "images": len(labels), "correct": correct, "accuracy": correct / len(labels),
        "firing_rates": rates, "provenance": numbers.provenance,
    }  # fmt: skip
    if qat:
        from sw.evaluate import verify_equal
        from sw.export import from_params

        equality = verify_equal(from_params(numbers), golden, pictures)
        result["qat"] = {
            "images": equality.images, "traces": equality.traces, "values": equality.values,
            "difference": equality.difference,
        }  # fmt: skip
    if json_path is not None:
        write_json(json_path, result)
    if not quiet(json_path):
        title = f"{numbers.config.name}: {100 * result['accuracy']:.2f} % of {len(labels)} images"
        table = Table(title=title)
        table.add_column("spikes")
        table.add_column("firing rate", justify="right")
        for name, rate in rates.items():
            table.add_row(name, f"{100 * rate:.2f} %")
        console.print(table)
        if qat:
            first = result["qat"]["difference"]
            click.echo(
                f"training network against golden model: {result['qat']['values']:,} values, "
                + ("0 differences" if first is None else f"first difference: {first}")
            )
    if qat and result["qat"]["difference"] is not None:
        raise click.exceptions.Exit(1)
