"""The sample images that come with the project: whole, small, and those of the data set."""

import hashlib
import io
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from s2tdpt.golden import samples
from s2tdpt.golden.config import load_config, named_configs
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.samples import FOLDER, SAMPLE_SETS, sample_images
from tests.golden.shapes import make_config

CIFAR = load_config("s2tdpt-2-128")
DIGEST = "c7175c04e9f06d0c6ca8f83d8d02c1db503b0d9a3bcf16fabf35c649ae606301"
LABELS = [4, 9, 3, 9, 9, 4, 1, 2, 3, 3, 3, 2, 6, 4, 3, 5]


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()


def test_images_and_labels_are_the_data_sets():
    images, labels, description = sample_images(CIFAR)
    assert (images.shape, images.dtype, labels.dtype) == ((16, 32, 32, 3), np.uint8, np.int64)
    assert labels.tolist() == LABELS
    assert digest(images, labels) == DIGEST
    altered = images.copy()
    altered[7, 3, 2, 1] ^= 1
    assert digest(altered, labels) != DIGEST
    assert description == "the first 16 images of the test set of CIFAR-10 (JPEG q75)"


@pytest.mark.parametrize("name", named_configs())
def test_networks_that_they_fit(name):
    config = load_config(name)
    found = sample_images(config)
    if (config.image_height, config.image_width, config.image_channels) != (32, 32, 3):
        assert found is None
    else:
        images, labels, _ = found
        assert images.shape[1:] == (32, 32, 3)
        # Labels of ten classes say nothing to a network of a hundred.
        assert (labels is None) == (config.num_classes != 10)


def test_other_inputs_have_none():
    assert sample_images(make_config(image_height=32, image_width=32, image_channels=1)) is None
    assert sample_images(make_config(image_height=32, image_width=16, image_channels=3)) is None


@pytest.mark.parametrize("entry", SAMPLE_SETS, ids=lambda entry: entry.file)
def test_files_are_small_plain_and_packaged(entry):
    path = FOLDER / entry.file
    assert path.stat().st_size < 65536
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["images.npy", "labels.npy"]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert f"samples/*{path.suffix}" in project["tool"]["setuptools"]["package-data"]["s2tdpt.golden"]


def saved(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


PIXELS, CLASSES = np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2, np.uint8)
DAMAGED = {
    "empty": b"",
    "cut": (FOLDER / "cifar10.npz").read_bytes()[:-100],
    "one byte altered": (lambda data: data[:20000] + bytes([data[20000] ^ 1]) + data[20001:])(
        (FOLDER / "cifar10.npz").read_bytes()
    ),
    "no labels": saved(images=PIXELS),
    "another shape": saved(images=PIXELS[:, :16], labels=CLASSES),
    "fewer labels": saved(images=PIXELS, labels=CLASSES[:1]),
    "unknown class": saved(images=PIXELS, labels=CLASSES + 10),
    "pickled": saved(images=PIXELS, labels=np.array([{}, {}], object)),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused(case, tmp_path, monkeypatch):
    (tmp_path / "cifar10.npz").write_bytes(DAMAGED[case])
    monkeypatch.setattr(samples, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="^cannot read the sample images .*; expected the file that comes"):
        sample_images(CIFAR)


def test_missing_file(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="No such file or directory; expected the file"):
        sample_images(CIFAR)
