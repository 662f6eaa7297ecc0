"""s2tdpt run: classify images on a board."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from s2tdpt.golden.link import BAUD
from s2tdpt.scripts.images import Chosen, choose_images, data_option
from s2tdpt.scripts.options import console, folder_option, load_params, notes, params_option
from s2tdpt.scripts.output import json_option, quiet, write_json

if TYPE_CHECKING:
    import numpy as np

    from s2tdpt.golden.params import Params
    from s2tdpt.host.accelerator import Accelerator, Inference

SHOWN = 20
"""Classes of images that the table shows one by one."""


@click.command(short_help="Classify images on a board.")
@params_option
@click.option("--port", required=True, metavar="PORT", help="Serial port of the board, such as /dev/ttyUSB0.")
@click.option(
    "--baud", type=click.IntRange(300), default=BAUD, show_default=True, help="Of the board's link."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.001, 3600),
    default=1.0,
    show_default=True,
    help="Seconds that the board may take for an answer, beside the bytes' own time.",
)
@click.option("--verify", is_flag=True, help="Compare every logit with the golden model.")
@data_option
@folder_option
@click.option("--count", "-n", type=click.IntRange(1), default=None, help="Images from the data set.")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@json_option
def run(params, port, baud, timeout, verify, data, data_dir, count, images, json_path) -> None:
    """Send images to a board and print what it says they are.

    IMAGES are files, .npy (uint8 [B,H,W,C] or [B,H,W]) or PNG; without any, those that come with the project.
    The board must hold the parameters of --params. A damaged or lost frame is sent again, and no result is
    shown that the board did not give for that very image (docs/link.md).

    \b
    Exit code 1: --verify found a difference. 2: the board does not answer or is not the right one.

    \b
    Examples:
      s2tdpt run --port /dev/ttyUSB0 --verify
      s2tdpt run --port /dev/ttyUSB0 -p digits-int4 seven.png mine.npy
      s2tdpt run --port COM3 --count 360 --json result.json
    """
    from s2tdpt.host.accelerator import Accelerator

    numbers = load_params(params)
    chosen = choose_images(numbers, images, data, data_dir, count)
    with Accelerator.open(port, params=numbers, baud=baud, timeout=timeout) as board:
        inference = infer(board, chosen.images)
        report(board, numbers, chosen, inference, verify, json_path)


def infer(board: Accelerator, images: np.ndarray) -> Inference:
    """`Accelerator.infer` with a progress bar."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task("on the board", total=len(images))
        return board.infer(images, lambda done: progress.update(task, completed=done))


def report(
    board: Accelerator,
    params: Params,
    chosen: Chosen,
    inference: Inference,
    verify: bool,
    json_path: Path | None,
) -> None:
    """Tables or JSON; exit code 1 if a logit differs from the golden model."""
    count, classes = len(chosen.images), inference.classes
    correct = None if chosen.labels is None else int((classes == chosen.labels).sum())
    differences = difference_lines(params, chosen.images, inference) if verify else None
    if json_path is not None:
        result = {
            "network": params.config.name,
            "parameters": params.checksum(),
            "classes": classes,
            "logits": inference.logits,
            "correct": correct,
            "differing_images": None if differences is None else len(differences),
            "seconds": inference.seconds,
            "images_per_second": count / inference.seconds,
            "link": asdict(board.statistics),
        }
        write_json(json_path, result)
    if not quiet(json_path):
        if chosen.labels is None or count <= SHOWN:
            for number, found in enumerate(classes):
                console.print(f"image {number}: class {found}")
        console.print(summary(board, params, chosen, inference, correct, differences))
        for line in (differences or [])[:10]:
            click.secho(line, fg="red")
    if differences:
        raise click.exceptions.Exit(1)


def difference_lines(params: Params, images: np.ndarray, inference: Inference) -> list[str]:
    """A line for every image whose logits or class are not those of the golden model."""
    from s2tdpt.golden.network import GoldenNetwork

    expected = GoldenNetwork(params).forward(images).numpy()
    lines = []
    for number, (found, wanted) in enumerate(zip(inference.logits, expected, strict=True)):
        if (found != wanted).any() or inference.classes[number] != wanted.argmax():
            lines.append(
                f"image {number}: the board says class {inference.classes[number]}, logits {found.tolist()}; "
                f"the golden model class {wanted.argmax()}, logits {wanted.tolist()}"
            )
    return lines


def summary(board, params, chosen, inference, correct, differences) -> Table:
    """The short table at the end."""
    count, statistics = len(chosen.images), board.statistics
    table = Table(title=f"{params.config.name} on {board.port_name}, {chosen.description}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("images", f"{count:,}")
    if correct is not None:
        table.add_row("accuracy", f"{correct} of {count} ({100 * correct / count:.2f} %)")
    if differences is not None:
        table.add_row("images that differ from the golden model", f"{len(differences):,}")
    table.add_row("time", f"{inference.seconds:.3f} s")
    table.add_row("images/s", f"{count / inference.seconds:,.1f}")
    table.add_row("frames sent again", f"{statistics.repeats:,}")
    table.add_row("damaged frames", f"{statistics.damaged:,}")
    table.add_row("clock of the board", f"{board.identity.clock / 1e6:g} MHz")
    return table
