"""A few real images that come with the project, so that a network can be shown at work without a data set.

References
----------
CIFAR-10: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError

FOLDER = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class SampleSet:
    """A file of `FOLDER`: arrays ``images`` (uint8 [B, H, W, C]) and ``labels`` (uint8 [B]), no pickle.

    `data` is the data set's name on the command line, `classes` how many it has.
    """

    file: str
    data: str
    shape: tuple[int, int, int]
    classes: int
    description: str


SAMPLE_SETS = (
    SampleSet(
        "cifar10.npz",
        "cifar10",
        (32, 32, 3),
        10,
        "the first 16 images of the test set of CIFAR-10 (JPEG q75)",
    ),
)


def sample_images(config: NetworkConfig) -> tuple[np.ndarray, np.ndarray | None, str] | None:
    """Sample images that fit the input of `config`; None if there are none.

    Returns
    -------
    images : uint8 [B, H, W, C]
    labels : int64 [B] or None
        None where the network has other classes than the images.
    description : str
        What they are, in words.

    Raises
    ------
    UserError
        The file is missing or damaged.
    """
    shape = (config.image_height, config.image_width, config.image_channels)
    for samples in SAMPLE_SETS:
        if samples.shape == shape:
            images, labels = _read(samples)
            return images, labels if config.num_classes == samples.classes else None, samples.description
    return None


def _read(samples: SampleSet) -> tuple[np.ndarray, np.ndarray]:
    path = FOLDER / samples.file
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
        plain = images.dtype == labels.dtype == np.uint8 and labels.ndim == 1 and len(labels) > 0
        if not plain or images.shape != (len(labels), *samples.shape) or labels.max() >= samples.classes:
            raise ValueError("arrays of another kind")
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = getattr(error, "strerror", None) or "damaged"
        raise UserError(
            f"cannot read the sample images {path}: {reason}; expected the file that comes with the project; "
            "install it again"
        ) from None
    return images, labels.astype(np.int64)
