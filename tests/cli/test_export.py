"""s2tdpt export --calibrated."""

import json

import numpy as np
import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.golden.params import Params
from s2tdpt.golden.rates import Rates
from tests.golden.shapes import make_config


def test_digits(shell):
    text = shell.good("export", "--calibrated", "-c", "digits", "--out", "d.safetensors")
    mean = 100 * Rates().synaptic(load_config("digits"))
    assert f"Mean over multiply-accumulates: {mean:.2f} %" in text
    assert text.endswith("wrote d.safetensors (random weights: it classifies nothing)\n")
    known = Params.load(shell.folder / "d.safetensors", load_config("digits")).provenance
    assert known["command"] == "s2tdpt export --calibrated -c digits --out d.safetensors"
    assert known["images"] == "the first 64 test digits" and "never trained" in known["purpose"]
    again = ("export", "--calibrated", "-c", "digits", "--out", "d.safetensors")
    assert shell.refused(*again).startswith("d.safetensors exists already; expected a new file")


def test_own_network_images_rate_and_seed(shell):
    config = make_config(image_height=8, image_width=8, sps_channels=[8, 16])
    (shell.folder / "own.json").write_text(config.model_dump_json())
    np.save(shell.folder / "own.npy", np.random.default_rng(1).integers(0, 256, (16, 8, 8, 2), np.uint8))
    command = ["export", "--calibrated", "-c", "own.json", "--rate", "0.1", "--seed", "5", "--json", "-"]
    data = json.loads(shell.good(*command, "--images", "own.npy", "--out", "a.safetensors"))
    assert data["synaptic_rate"] == pytest.approx(0.1, rel=0.05) and data["images"] == "given"
    again = json.loads(shell.good(*command, "--images", "own.npy", "--out", "b.safetensors"))
    assert again["firing_rates"] == data["firing_rates"] and again["widths"] == data["widths"]
    other = json.loads(shell.good(*command, "--out", "c.safetensors"))
    assert other["images"] == "16 of random bytes" and other["sha256"] != data["sha256"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--calibrated"], "--calibrated without a network; expected --config"),
        ([], "export takes one CHECKPOINT or --calibrated"),
        (["qat.safetensors", "--calibrated"], "export takes one CHECKPOINT or --calibrated"),
        (["qat.safetensors", "--rate", "0.1"], "--rate belongs to --calibrated"),
        (["qat.safetensors", "-c", "digits"], "--config belongs to --calibrated"),
        (["--calibrated", "-c", "digit"], "no configuration 'digit'"),
        (
            ["--calibrated", "-c", "digits", "--rate", "0.8"],
            "mean rate 0.8; expected more than 0 and at most",
        ),
        (["--calibrated", "-c", "digits", "--rate", "nan"], "mean rate nan; expected"),
        (["--calibrated", "-c", "digits", "--images", "no.npy"], "cannot read images no.npy"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(shell, arguments, words):
    assert words in shell.refused("export", *arguments, "--out", "x.safetensors")
    assert not (shell.folder / "x.safetensors").exists()
