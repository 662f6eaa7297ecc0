"""Which images a command works on: the user's, a data set's test images, or what comes with the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.samples import SAMPLE_SETS, sample_images
from s2tdpt.scripts.image_files import load_images
from s2tdpt.scripts.options import notes

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params

DATASETS = ("digits", "cifar10", "cifar100")
"""Names of `sw.datasets`."""

DIGITS, SAMPLES = 20, 2
"""Images that a co-simulation takes unless told: digits, or of larger networks' samples."""

BUILT_IN = (8, 8, 1)
"""Shape of the digits, which scikit-learn brings along."""

data_option = click.option(
    "--data",
    type=click.Choice(DATASETS),
    default=None,
    help="Test images of this data set. Default: what comes with the project, digits or 16 of CIFAR-10; "
    "with --data-dir, the data set that fits.",
)
images_option = click.option(
    "--images",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Your own images: .npy (uint8 [B,H,W,C] or [B,H,W]) or PNG.",
)


def load_dataset(name: str, folder: Path | None = None):
    """`sw.datasets.load_dataset`, imported when it is needed."""
    from s2tdpt.sw import datasets

    return datasets.load_dataset(name, folder)


@dataclass(frozen=True)
class Chosen:
    """Images uint8 [B, H, W, C], their labels int64 [B] (None: unknown), data set, and what they are."""

    images: np.ndarray
    labels: np.ndarray | None
    data: str
    description: str


def labelled_images(
    configs: Sequence[NetworkConfig], data: str | None, folder: Path | None, limit: int | None = None
) -> Chosen:
    """The first `limit` test images with labels that fit all `configs`.

    Raises
    ------
    UserError
        The data set cannot be read, its images or classes are not those of a network, or nothing that comes
        with the project is labelled for it.
    """
    chosen = _come_with(configs[0], limit) if data is None and folder is None else None
    if chosen is None:
        data = data or fitting(configs[0], folder)
        dataset = load_dataset(data, folder)
        labels = np.asarray(dataset.test_labels)[:limit]
        chosen = Chosen(np.asarray(dataset.test_images)[:limit], labels, data, f"{data} test images")
        classes = dataset.num_classes
    else:
        classes = configs[0].num_classes
    for config in configs:
        if chosen.images.shape[1:] != shape_of(config):
            raise UserError(
                f"data set {chosen.data} has images {list(chosen.images.shape[1:])}; expected "
                f"{list(shape_of(config))} for {config.name}; choose another --data"
            )
        if classes != config.num_classes:
            raise UserError(
                f"data set {chosen.data} has {classes} classes; expected {config.num_classes} for "
                f"{config.name}; choose another --data"
            )
    return chosen


def choose_images(
    params: Params,
    paths: tuple[Path, ...],
    data: str | None,
    folder: Path | None,
    count: int | None,
    usual: tuple[int, int] = (DIGITS, SAMPLES),
) -> Chosen:
    """Images for a network: from files, from the test set of a data set, or those that come with the project.

    Parameters
    ----------
    paths, data, folder, count
        Options --images, --data, --data-dir and --count.
    usual : int, int
        Images without --count: of the digits, and of CIFAR.

    Raises
    ------
    UserError
        The options exclude each other, something cannot be read, or nothing that comes with the project fits.
    """
    config = params.config
    if paths:
        refuse_beside_images(("--data", data), ("--data-dir", folder), ("--count", count))
        return Chosen(load_images(paths, config), None, "", "your images")
    if data is not None or folder is not None:
        data = data or fitting(config, folder)
        return labelled_images([config], data, folder, count or usual[data != "digits"])
    found = sample_images(config)
    if found is not None:
        images, labels, description = found
        if count is not None and count > len(images):
            notes.print(f"only {len(images)} images come with the project; --data and --data-dir give more")
        limit = count or usual[1]
        return Chosen(images[:limit], None if labels is None else labels[:limit], "cifar10", description)
    known = [BUILT_IN, *(samples.shape for samples in SAMPLE_SETS)]
    if shape_of(config) != known[0]:
        raise UserError(
            f"{config.name} takes images {list(shape_of(config))}, the built-in ones are "
            f"{' or '.join(str(list(shape)) for shape in known)}; expected matching images; "
            "give them with --images"
        )
    return labelled_images([config], "digits", None, count or usual[0])


def played_image(params: Params, path: Path | None) -> np.ndarray | None:
    """The image that the testbench of a package plays, uint8 [H, W, C].

    The first one of a file; without a file a digit for networks of digits, and None, which is the choice of
    `hw.package.testbench`, for others.
    """
    if path is not None:
        return load_images((path,), params.config)[0]
    if shape_of(params.config) == BUILT_IN:
        return choose_images(params, (), None, None, 1).images[0]
    return None


def refuse_beside_images(*options: tuple[str, object]) -> None:
    """Options, as name and value, that choose among the images of a data set: none of them with --images.

    Raises
    ------
    UserError
        One of them is given.
    """
    given = [name for name, value in options if value is not None]
    if given:
        raise UserError(
            f"--images and {given[0]} exclude each other: all images of the files are taken; expected one of "
            "them; leave one out"
        )


def shape_of(config: NetworkConfig) -> tuple[int, int, int]:
    """Height, width and channels of a network's images."""
    return config.image_height, config.image_width, config.image_channels


def _come_with(config: NetworkConfig, limit: int | None) -> Chosen | None:
    """Labelled samples that fit, if there are any."""
    found = sample_images(config)
    if found is None:
        return None
    images, labels, description = found
    if labels is None:
        raise UserError(
            f"no images of {config.num_classes} classes come with the project; expected a data set; name its "
            "folder (--data-dir)"
        )
    notes.print(f"on {description}; --data-dir names the whole set")
    return Chosen(images[:limit], labels[:limit], "cifar10", description)


def fitting(config: NetworkConfig, folder: Path | None = None) -> str:
    """The data set that has the images and classes of a network; `folder` is where the user has it.

    Raises
    ------
    UserError
        There is a folder, and the data set needs none.
    """
    if shape_of(config) == (32, 32, 3):
        return "cifar100" if config.num_classes == 100 else "cifar10"
    if folder is not None:
        raise UserError(
            f"--data-dir names a folder, but {config.name} takes no CIFAR images; expected a network of "
            "32x32x3; leave it out"
        )
    return "digits"
