"""The command line: help that teaches, results for programs, and mistakes that cost one line and exit code
2."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from golden.config import load_config
from golden.params import Params
from hw.config import HardwareConfig
from scripts.cli import main
from scripts.options import MODELS
from sim import cosim as cosim_module
from sim.design import generate as generate_design
from tests.hw.core_bench import build_case, network

COMMANDS = sorted(main.commands)
MACHINE = ["--lanes", "8", "--rows", "2", "--post-lanes", "4"]
# A refused command drops the accelerator that it had described.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
QUICK = "icarus" if shutil.which("iverilog") else "verilator"


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments) -> str:
    """The one line on standard error of a command that a user got wrong."""
    result = call(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("s2tdpt: error: ")
    assert result.stdout == ""
    return lines[0].removeprefix("s2tdpt: error: ")


@pytest.fixture(scope="module")
def case():
    return build_case(network(), HardwareConfig(lanes=8, rows=2, post_lanes=4), seed=3, frames=2)


@pytest.fixture
def files(case, tmp_path):
    """A parameter file of a tiny network, and images for it."""
    case.params.save(tmp_path / "tiny.safetensors")
    np.save(tmp_path / "images.npy", case.images)
    return tmp_path


def test_help_names_every_command():
    text = call("--help").stdout
    assert all(f"s2tdpt {name}" in text or f"\n  {name} " in text for name in COMMANDS)
    assert COMMANDS == ["bench", "cosim", "evaluate", "export", "generate", "info", "synth", "train"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_teaches_by_example(name):
    result = call(name, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout and f"s2tdpt {name}" in result.stdout


@pytest.mark.parametrize(
    ("config", "count"),
    [("s2tdpt-4-384", 9_320_122), ("s2tdpt-4-384-cifar100", 9_354_772), ("s2tdpt-4-256", 4_152_106)],
)
def test_info_as_json(config, count):
    data = json.loads(call("info", config, "--json", "-").stdout)
    assert data["parameters"] == count
    assert data["config"] == load_config(config).model_dump(mode="json")


def test_info_as_table():
    assert "LIF neurons" in call("info").stdout


def test_evaluate_data_set_and_pictures(tmp_path):
    data = json.loads(call("evaluate", "--limit", 20, "--json", "-").stdout)
    assert data["images"] == 20
    assert data["accuracy"] == data["correct"] / 20 >= 0.9
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    data = json.loads(call("evaluate", "--images", tmp_path / "black.png", "--json", "-").stdout)
    assert len(data["classes"]) == 1 and len(data["logits"][0]) == 10


def test_generate_is_reproducible_and_never_overwrites_unasked(files):
    arguments = ["generate", "-p", files / "tiny.safetensors", *MACHINE]
    assert call(*arguments, "--out", files / "one").exit_code == 0
    assert call(*arguments, "--out", files / "two").exit_code == 0
    names = sorted(path.name for path in (files / "one").iterdir())
    assert names == sorted(path.name for path in (files / "two").iterdir())
    assert all((files / "one" / name).read_bytes() == (files / "two" / name).read_bytes() for name in names)
    assert any(name.endswith(".v") for name in names) and "manifest.json" in names
    assert str(files / "one") in refused(*arguments, "--out", files / "one")
    assert call(*arguments, "--out", files / "one", "--force").exit_code == 0


def test_cosim_of_own_images(files, case):
    result = call(
        "cosim", "-p", files / "tiny.safetensors", *MACHINE, "--images", files / "images.npy",
        "--simulator", QUICK, "--json", files / "report.json", "--per-layer",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((files / "report.json").read_text())
    assert (report["images"], report["layer_images"], report["mismatches"]) == (2, 2, 0)
    assert report["classes"] == case.golden["head.class"].tolist()
    assert "mismatches" in result.stdout and "block.0.q" in result.stdout


def test_cosim_that_finds_a_difference_fails_and_names_it(files, case, monkeypatch):
    def faulty(params: Params, hardware: HardwareConfig):
        lut = params.lut.copy()
        lut[len(lut) // 2] ^= 64
        return generate_design(replace(params, tensors={**params.tensors, "stdp.lut": lut}), hardware)

    monkeypatch.setattr(cosim_module, "generate", faulty)
    result = call(
        "cosim",
        "-p",
        files / "tiny.safetensors",
        *MACHINE,
        "--images",
        files / "images.npy",
        "--simulator",
        QUICK,
    )
    assert result.exit_code == 1
    assert "block.0.y: image " in result.stdout


def test_unknown_and_damaged_parameter_files(tmp_path):
    assert refused("evaluate", "-p", "nothing").startswith(
        "no parameter file nothing; expected a path or one of digits"
    )
    data = (MODELS / "digits.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    assert "is damaged: it is truncated" in refused("evaluate", "-p", tmp_path / "cut.safetensors")
    altered = bytearray(data)
    altered[-1] ^= 1
    (tmp_path / "altered.safetensors").write_bytes(altered)
    assert "checksum" in refused("cosim", "-p", tmp_path / "altered.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, this is no parameter file")
    assert "is not a safetensors file" in refused(
        "generate", "-p", tmp_path / "text.safetensors", "-o", tmp_path / "x"
    )


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 8, 8), np.float32), "float32"),
        (np.zeros((2, 9, 8, 1), np.uint8), "[2, 9, 8, 1]"),
        (np.zeros((0, 8, 8, 1), np.uint8), "[0, 8, 8, 1]"),
        (np.zeros((), np.uint8), "[]"),
    ],
)
def test_images_of_the_wrong_shape_or_type(tmp_path, array, said):
    np.save(tmp_path / "wrong.npy", array)
    line = refused("evaluate", "--images", tmp_path / "wrong.npy")
    assert said in line and "expected uint8 [batch, 8, 8, 1]" in line


def test_files_that_hold_no_image(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    assert "not a picture" in refused("evaluate", "--images", tmp_path / "text.png")
    (tmp_path / "text.npy").write_text("no array")
    assert "not a plain NumPy array" in refused("evaluate", "--images", tmp_path / "text.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "not a plain NumPy array" in refused("evaluate", "--images", tmp_path / "objects.npy")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "large.png")
    assert "is 8x9 pixels; expected 8x8" in refused("evaluate", "--images", tmp_path / "large.png")
    assert "No such file" in refused("evaluate", "--images", tmp_path / "absent.png")


def test_places_that_cannot_be_written(files):
    # A path below a plain file can be written by nobody, the superuser included.
    arguments = ["-p", files / "tiny.safetensors", *MACHINE]
    blocked = files / "images.npy" / "below"
    assert str(blocked) in refused("generate", *arguments, "--out", blocked)
    assert str(blocked) in refused("info", "--json", blocked)


def test_machines_that_cannot_be(tmp_path):
    assert "post_lanes must divide lanes" in refused("info", "--post-lanes", 7)
    assert "16 lanes" in refused("info", "--lanes", 16, "--post-lanes", 8)
    (tmp_path / "machine.json").write_text('{"lanes": 64, "columns": 2}')
    assert "columns" in refused("info", "--hardware", tmp_path / "machine.json")


def test_networks_that_cannot_be(tmp_path):
    assert "no configuration 'digit'" in refused("info", "digit")
    (tmp_path / "net.json").write_text("{")
    assert "is not valid JSON at line 1" in refused("info", tmp_path / "net.json")


def test_export_wants_a_checkpoint(tmp_path):
    line = refused("export", tmp_path / "none.safetensors", "--out", tmp_path / "x.safetensors")
    assert line.startswith("no checkpoint ")


def test_training_needs_matching_data(tmp_path):
    line = refused("train", "-c", "s2tdpt-4-256", "--out", tmp_path / "run")
    assert line.startswith("data set digits has images ")
    assert "needs its files" in refused("train", "--data", "cifar10", "--out", tmp_path / "run")
