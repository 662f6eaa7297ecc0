"""s2tdpt explain: what a network looks at, as pictures and as the numbers behind them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.progress import track

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.folders import check_replaceable, make_folder
from s2tdpt.scripts.hardware import parents
from s2tdpt.scripts.image_files import load_images
from s2tdpt.scripts.images import Chosen, data_option, fitting, labelled_images, refuse_beside_images
from s2tdpt.scripts.options import folder_option, force_option, load_params, notes, params_option
from s2tdpt.scripts.output import check_folder, json_option, quiet, write_json

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params

FORMAT = "s2tdpt-explanation"
NUMBERS = "explanation.json"
COUNT = 6
"""Images of a data set that are explained unless told otherwise."""
OVERVIEW_ROWS = 8
CLASSIFIED = 250
"""Images classified between two steps of the progress bar."""


@dataclass(frozen=True)
class Subjects:
    """Images to explain: uint8 [B, H, W, C], for each a source and its number there, labels if known.

    `labelled` holds the whole labelled set (images, labels) for the confusion matrix.
    """

    images: np.ndarray
    sources: list[tuple[str, int]]
    labels: list[int] | None = None
    labelled: tuple[np.ndarray, np.ndarray] | None = None


@click.command(short_help="What the network looks at: Grad-CAM, firing-rate maps, confusion matrix.")
@params_option
@data_option
@folder_option
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Explain these images (.npy, PNG) instead; may be repeated. No confusion matrix then.",
)
@click.option(
    "--count",
    "-n",
    type=click.IntRange(1),
    default=None,
    help=f"Explain the first N images; by default {COUNT} of a data set, all of --images.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=None,
    help="Confusion matrix of the first N test images instead of all.",
)
@click.option(
    "--layer",
    default=None,
    metavar="NAME",
    help="Map for Grad-CAM, e.g. sps.0.spikes or block.1.attn; by default the last block's output.",
)
@click.option(
    "--class",
    "target",
    type=click.IntRange(0),
    default=None,
    metavar="INDEX",
    help="Explain the logit of this class instead of the predicted one.",
)
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True, help="New folder.")
@force_option
@json_option
def explain(params, data, data_dir, images, count, limit, layer, target, out, force, json_path) -> None:
    """Show what a network looks at: Grad-CAM, firing rates of every layer, confusion matrix.

    Classes and spikes are those of the integer golden model, and so of the hardware. Gradients are taken in
    the training network, after every value of it was found equal; a difference ends with exit code 1.

    \b
    Writes into --out:
      overview.png      image, Grad-CAM and firing-rate maps of the first images, a row each
      image-000.png     one image: Grad-CAM, logits, firing-rate map of every layer
      confusion.png     true against predicted class, over the whole test set
      explanation.json  the numbers

    \b
    Examples:
      s2tdpt explain --out seen
      s2tdpt explain --images my-digit.png --layer sps.0.spikes --out seen
      s2tdpt explain -p cifar10.safetensors --data-dir ~/data --limit 1000 --out seen
    """
    from s2tdpt.golden.network import GoldenNetwork
    from s2tdpt.sw.explain import Disagreement, check_layer, class_names, confusion_matrix, default_layer
    from s2tdpt.sw.explain import explain as explanations
    from s2tdpt.sw.export import from_params

    numbers = load_params(params)
    config = numbers.config
    layer = check_layer(layer or default_layer(config), config)
    if target is not None and target >= config.num_classes:
        raise UserError(
            f"--class {target} is no class of {config.name}; expected 0..{config.num_classes - 1}; choose one"
        )
    check_folder(out)
    check_place(out, force)
    if images:
        refuse_beside_images(("--data-dir", data_dir), ("--limit", limit))
        subjects = own_images(images, numbers, count)
    else:
        chosen = labelled_images([config], data, data_dir)
        subjects, data = data_images(chosen, count), chosen.data
    names = class_names(data or fitting(config), config.num_classes)
    golden, network = GoldenNetwork(numbers), from_params(numbers)

    found = []
    try:
        targets = None if target is None else np.full(len(subjects.images), target)
        steps = explanations(network, golden, subjects.images, layer, targets)
        for one in progress(steps, "explaining", len(subjects.images)):
            found.append(one)
    except Disagreement as difference:
        click.echo(f"s2tdpt: error: {difference}", err=True)
        raise click.exceptions.Exit(1) from None
    matrix = None
    if subjects.labelled is not None:
        tested, labels = (values[:limit] for values in subjects.labelled)
        pieces = [tested[start : start + CLASSIFIED] for start in range(0, len(tested), CLASSIFIED)]
        classes = [golden.classify(piece).numpy() for piece in progress(pieces, "classifying", len(pieces))]
        matrix = confusion_matrix(labels, np.concatenate(classes), config.num_classes)

    result = as_json(found, subjects, matrix, numbers, layer, names)
    files = {NUMBERS: (json.dumps(result, indent=None, separators=(",", ":")) + "\n").encode()}
    files |= pictures(found, subjects, matrix, numbers, names)
    with parents(out):
        write_folder(out, files, force)
    if json_path is not None:
        write_json(json_path, result)
    if quiet(json_path):
        return
    for entry in result["images"]:
        truth = "" if entry["label"] is None else f", true {names[entry['label']]}"
        click.echo(f"{entry['source']} {entry['index']}: {names[entry['predicted']]}{truth}")
    if matrix is not None:
        confusion = result["confusion"]
        click.echo(f"right: {confusion['correct']} of {confusion['images']} ({confusion['accuracy']:.2%})")
    for name in sorted(files):
        click.echo(f"{out / name}  ({len(files[name]):,} bytes)")


def progress(steps, text: str, total: int):
    """`steps` behind a bar on standard error; a log gets none."""
    return track(steps, text, total, console=notes, transient=True, disable=not notes.is_terminal)


# Images ----------------------------------------------------------------------------------------------------


def own_images(paths: tuple[Path, ...], params: Params, count: int | None) -> Subjects:
    """The user's images, in the order of the files."""
    batches = [load_images((path,), params.config) for path in paths]
    sources = [(path.name, i) for path, batch in zip(paths, batches, strict=True) for i in range(len(batch))]
    return Subjects(np.concatenate(batches)[:count], sources[:count])


def data_images(chosen: Chosen, count: int | None) -> Subjects:
    """The first test images of a data set, and all of them for the confusion matrix."""
    first = chosen.images[: count or COUNT]
    sources = [(f"{chosen.data} test", i) for i in range(len(first))]
    return Subjects(first, sources, chosen.labels[: len(first)].tolist(), (chosen.images, chosen.labels))


# Files -----------------------------------------------------------------------------------------------------


def as_json(found, subjects: Subjects, matrix, params: Params, layer: str, names: list[str]) -> dict:
    """What explanation.json holds; docs/explain.md describes it."""
    first = found[0]
    confusion = None
    if matrix is not None:
        total, correct = int(matrix.sum()), int(np.trace(matrix))
        confusion = {
            "images": total,
            "correct": correct,
            "accuracy": correct / total,
            "matrix": matrix.tolist(),
        }
    return {
        "format": FORMAT,
        "version": 1,
        "network": params.config.name,
        "parameters": params.checksum(),
        "classes": names,
        "layer": layer,
        "maps": {
            name: {"height": spikes.shape[0], "width": spikes.shape[1], "neurons": first.neurons[name]}
            for name, spikes in first.spikes.items()
        },
        "confusion": confusion,
        "images": [
            {
                "file": picture_name(i),
                "source": subjects.sources[i][0],
                "index": subjects.sources[i][1],
                "label": subjects.labels[i] if subjects.labels is not None else None,
                "predicted": one.predicted,
                "target": one.target,
                "logits": one.logits.tolist(),
                "contribution": one.contribution.tolist(),
                "spikes": {name: spikes.tolist() for name, spikes in one.spikes.items()},
            }
            for i, one in enumerate(found)
        ],
    }


def picture_name(index: int) -> str:
    """File of the explained image number `index`."""
    return f"image-{index:03d}.png"


def check_place(folder: Path, force: bool) -> None:
    """Refuse an output folder that exists, unless with `force` an earlier run made it."""
    check_replaceable(folder, FORMAT, "folder of explanations", force, NUMBERS)


def write_folder(folder: Path, files: dict[str, bytes], force: bool) -> None:
    """Make `folder` with `files`, whole or not at all; with `force` in the place of an earlier one."""
    check_place(folder, force)

    def fill(place: Path) -> None:
        for name, content in files.items():
            (place / name).write_bytes(content)

    make_folder(folder, fill, force)


def pictures(found, subjects: Subjects, matrix, params: Params, names: list[str]) -> dict[str, bytes]:
    """All PNG files, by name."""
    from s2tdpt.scripts.pictures import draw_confusion, draw_image, draw_overview

    titles = [
        f"{source} {index}" + ("" if subjects.labels is None else f"\ntrue: {names[subjects.labels[i]]}")
        for i, (source, index) in enumerate(subjects.sources)
    ]
    right = [
        None if subjects.labels is None else one.predicted == subjects.labels[i]
        for i, one in enumerate(found)
    ]
    files = {"overview.png": draw_overview(found[:OVERVIEW_ROWS], titles, right, params.config, names)}
    for i in progress(range(len(found)), "drawing", len(found)):
        files[picture_name(i)] = draw_image(found[i], titles[i], right[i], params.config, names)
    if matrix is not None:
        files["confusion.png"] = draw_confusion(matrix, names)
    return files
