"""s2tdpt explain: files, numbers, refusals."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

import s2tdpt.scripts.images
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.shipped import FOLDER as MODELS
from s2tdpt.sim.cases import network
from s2tdpt.sw.datasets import Dataset, load_digits
from tests.cli.conftest import listing


def png_size(path: Path) -> tuple[int, int]:
    """Size of a picture that can be read and has many grey levels."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert np.count_nonzero(picture.convert("L").histogram()) > 20
        return picture.size


def test_digits_with_nothing_but_out(shell):
    text = shell.good("explain", "--out", "deep/seen")
    folder = shell.folder / "deep" / "seen"
    pictures = ["confusion.png", *(f"image-00{i}.png" for i in range(6)), "overview.png"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*pictures, "explanation.json"])
    for name in pictures:
        width, height = png_size(folder / name)
        assert width > 500 and height > 500
    data = json.loads((folder / "explanation.json").read_text())
    params, digits = Params.load(MODELS / "digits.safetensors"), load_digits()
    golden = GoldenNetwork(params)
    assert (data["format"], data["version"], data["network"]) == ("s2tdpt-explanation", 1, "digits")
    assert data["parameters"] == params.checksum() and data["classes"] == list("0123456789")
    classes = golden.classify(digits.test_images).numpy()
    confusion = data["confusion"]
    assert confusion["images"] == 360 and confusion["accuracy"] == confusion["correct"] / 360
    assert confusion["correct"] == (classes == digits.test_labels).sum() == 357
    counted = np.zeros((10, 10), int)
    for label, found in zip(digits.test_labels, classes, strict=True):
        counted[label, found] += 1
    assert confusion["matrix"] == counted.tolist()
    trace = golden.trace(digits.test_images[:6])
    assert data["layer"] == "block.1.u" and len(data["images"]) == 6
    for i, entry in enumerate(data["images"]):
        assert entry["file"] == f"image-00{i}.png"
        assert (entry["source"], entry["index"]) == ("digits test", i)
        assert entry["label"] == digits.test_labels[i]
        assert entry["predicted"] == entry["target"] == classes[i]
        assert entry["logits"] == trace["head.logits"][i].tolist()
        shares = entry["logits"][classes[i]] - int(params.bias("head")[classes[i]])
        assert sum(map(sum, entry["contribution"])) == shares
        assert set(entry["spikes"]) == set(data["maps"])
        for name, spikes in entry["spikes"].items():
            about = data["maps"][name]
            assert np.shape(spikes) == (about["height"], about["width"])
            steps, _, channels = trace[name].shape[1:]
            assert about["neurons"] == steps * channels
            assert np.array_equal(np.ravel(spikes), trace[name][i].sum(dim=(0, 2)).numpy())
    assert "right: 357 of 360 (99.17%)" in text and "digits test 0: 0, true 0" in text
    assert "deep/seen/overview.png  (" in text


@pytest.fixture
def quick(shell, tiny, images):
    """The command on two images of a tiny network."""
    return "explain", "--params", tiny, "--images", images


def test_own_images(shell, quick, tiny_params):
    Image.fromarray(np.full((5, 4), 200, np.uint8)).save("mine.png")
    data = shell.json(
        *quick, "--images", "mine.png", "--out", "seen", "--layer", "sps.0.spikes", "--class", 2
    )
    assert data == json.loads((shell.folder / "seen" / "explanation.json").read_text())
    names = {path.name for path in (shell.folder / "seen").iterdir()}
    assert names == {"overview.png", "image-000.png", "image-001.png", "image-002.png", "explanation.json"}
    pixels = np.concatenate([np.load("images.npy"), np.full((1, 5, 4, 1), 200, np.uint8)])
    golden = GoldenNetwork(tiny_params)
    assert data["confusion"] is None and data["layer"] == "sps.0.spikes"
    assert [entry["predicted"] for entry in data["images"]] == golden.classify(pixels).tolist()
    assert [entry["logits"] for entry in data["images"]] == golden.forward(pixels).tolist()
    assert [(entry["source"], entry["index"]) for entry in data["images"]] == [
        ("images.npy", 0),
        ("images.npy", 1),
        ("mine.png", 0),
    ]
    for entry in data["images"]:
        assert entry["label"] is None and entry["target"] == 2
        assert np.shape(entry["contribution"]) == (5, 4)


def test_same_bytes_again_and_what_stands_in_the_way(shell, quick):
    command = (*quick, "--count", 1, "--out", "seen")
    shell.good(*command)
    first = listing(shell.folder)
    assert "seen/image-000.png" in first and "seen/image-001.png" not in first
    assert shell.refused(*command).startswith(
        "seen exists; expected a new folder; choose another name or use"
    )
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 30}):
        shell.good(*command, "--force")  # the user's own settings stay out
    assert listing(shell.folder) == first
    (shell.folder / "mine").mkdir()
    (shell.folder / "mine" / "explanation.json").write_text('{"format": "mine"}')
    (shell.folder / "wall").write_text("")
    message = shell.refused(*quick, "--out", "mine", "--force")
    assert message.startswith("mine is not a folder of explanations; only such a folder is replaced; choose")
    for out in ("wall", "wall/seen"):
        assert "wall is no folder; expected one" in shell.refused(*quick, "--out", out, "--force")


def test_full_disk(shell, quick, monkeypatch):
    shell.good(*quick, "--count", 1, "--out", "seen")
    real = Path.write_bytes

    def full(path, content):
        if path.name == "overview.png":
            real(path, content[:10])
            raise OSError(28, os.strerror(28))
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    for out in ("deep/seen", "seen"):  # nothing is left, and what was there stays
        message = shell.refused(*quick, "--count", 1, "--out", out, "--force")
        assert message == (
            f"cannot write {out}: No space left on device; expected a writable place; choose another folder"
        )


def test_refusals(shell, quick, tiny):
    out = ("--out", "seen")
    message = shell.refused(*quick, *out, "--layer", "block.1.u")
    assert message.startswith(
        "unknown layer 'block.1.u'; expected sps.0.spikes, sps.1.pooled, sps.u, or block.B"
    )
    assert "--class 3 is no class of tiny; expected 0..2" in shell.refused(*quick, *out, "--class", 3)
    Image.new("L", (8, 8)).save("large.png")
    assert "image large.png is 8x8 pixels; expected 4x5" in shell.refused(
        *quick, "--images", "large.png", *out
    )
    np.save("bad.npy", np.zeros((2, 4, 5, 1), np.uint8))
    message = shell.refused("explain", "--params", tiny, "--images", "bad.npy", *out)
    assert "are uint8 [2, 4, 5, 1]; expected uint8 [batch, 5, 4, 1]" in message
    message = shell.refused("explain", "--params", tiny, *out)
    assert message == (
        "data set digits has images [8, 8, 1]; expected [5, 4, 1] for tiny; choose another --data"
    )
    assert "data set cifar10 needs its files" in shell.refused("explain", "--data", "cifar10", *out)
    assert "--count" in shell.refused("explain", "--count", 0, *out)
    assert "Missing option '--out'" in shell.refused("explain")


def test_a_difference_is_fatal_and_named(shell, quick, monkeypatch):
    import s2tdpt.sw.export

    rebuild = s2tdpt.sw.export.from_params

    def altered(params: Params):
        bias = params.bias("sps.1") + 1
        return rebuild(replace(params, tensors={**params.tensors, "sps.1.bias": bias}))

    monkeypatch.setattr(s2tdpt.sw.export, "from_params", altered)
    before = listing(shell.folder)
    result = shell(*quick, "--out", "seen")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(
        "s2tdpt: error: the training network differs from the golden model: sps.u: "
    )
    assert listing(shell.folder) == before


@pytest.fixture
def cifar(monkeypatch):
    """Four random test images of one label in the place of both CIFAR sets."""

    def load(name: str, directory: Path) -> Dataset:
        count, label = {"cifar10": (10, 3), "cifar100": (100, 98)}[name]
        assert directory == Path("data")
        images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        labels = np.full(4, label)
        return Dataset(name, images, labels, images, labels, count, f"{name} (binary layout)")

    monkeypatch.setattr(s2tdpt.scripts.images, "load_dataset", load)


def test_cifar_class_names(shell, cifar):
    config = network(
        name="colour",
        image_height=32,
        image_width=32,
        image_channels=3,
        num_classes=10,
        sps_channels=(3, 4),
        sps_pool=(False, True),
    )
    trained = {"data": "cifar10 (binary layout), 50000 training and 10000 test images"}
    replace(random_params(config, 1), provenance=trained).save("colour.safetensors")
    small = ("explain", "--params", "colour.safetensors", "--count", 1, "--data-dir", "data", "--out")
    text = shell.good(*small, "seen", "--limit", 3)  # the data set that fits
    assert "cifar10 test 0: " in text and ", true cat" in text and "of 3 (" in text
    data = json.loads((shell.folder / "seen" / "explanation.json").read_text())
    assert data["classes"][:4] == ["airplane", "automobile", "bird", "cat"]
    matrix = np.array(data["confusion"]["matrix"])
    assert matrix.sum() == matrix[3].sum() == data["confusion"]["images"] == 3
    message = shell.refused(*small, "more", "--data", "cifar100")
    assert message == ("data set cifar100 has 100 classes; expected 10 for colour; choose another --data")


def test_a_hundred_classes_and_no_stem_spikes(shell, cifar):
    config = network(
        name="many",
        image_height=32,
        image_width=32,
        image_channels=3,
        num_classes=100,
        sps_channels=(6,),
        sps_pool=(False,),
    )
    random_params(config, 1).save("many.safetensors")
    text = shell.good(
        "explain",
        "-p",
        "many.safetensors",
        "--data",
        "cifar100",
        "--data-dir",
        "data",
        "--count",
        1,
        "--limit",
        4,
        "--out",
        "seen",
    )
    assert ", true woman" in text
    assert png_size(shell.folder / "seen" / "confusion.png")[0] > 1000
