"""What the commands give: figures, classes, packages, reports; exit code 1 where something differs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from s2tdpt.golden.complexity import macs
from s2tdpt.golden.config import load_config
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.golden.shipped import FOLDER as MODELS
from s2tdpt.golden.shipped import shipped_models
from s2tdpt.hw.plan.machine import Machine, load_machine
from s2tdpt.sim import cosim as cosim_module
from s2tdpt.sim.cases import network
from s2tdpt.sim.design import generate as generate_design
from s2tdpt.sw.datasets import load_digits
from tests.hw.core_bench import build_case

FIELDS = {"lanes": 8, "banks": 2, "post_lanes": 4}
MACHINE = tuple(word for name, value in FIELDS.items() for word in ("--set", f"{name}={value}"))
QUICK = "icarus" if shutil.which("iverilog") else "verilator"
"""Simulator of these tests: Icarus builds in a moment."""


@pytest.fixture(scope="module")
def case():
    return build_case(network(), Machine(name="digits", **FIELDS), seed=3, frames=2)


@pytest.fixture
def files(shell, case):
    """A parameter file of a tiny network, and images for it."""
    case.params.save("tiny.safetensors")
    np.save("images.npy", case.images)
    return "--params", "tiny.safetensors"


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ("s2tdpt-4-384", 9_320_122),
        ("s2tdpt-4-384-cifar100", 9_354_772),
        ("s2tdpt-4-256", 4_152_106),
        ("s2tdpt-2-384", 5_762_746),
    ],
)
def test_info_as_json(shell, config, count):
    data = shell.json("info", config, "--machine", "ecp5-85k")
    assert data["parameters"] == count
    assert data["config"] == load_config(config).model_dump(mode="json")
    assert data["macs_per_step_total"] == sum(macs(load_config(config)).values())
    assert data["machine"] == load_machine("ecp5-85k").model_dump()
    assert config in data["named_configs"]


def test_info_as_table_and_file(shell):
    assert "LIF neurons" in shell.good("info")
    assert "digits: 16 tokens" in shell.good("info", "--json", "cost.json")
    assert json.loads((shell.folder / "cost.json").read_text()) == shell.json("info")


def test_settings_stand_over_the_machine(shell, write):
    path = write("machine.json", {"name": "mine", "lanes": 32, "post_lanes": 8})
    mine = Machine(name="mine", lanes=32, post_lanes=8)
    assert shell.json("info", "--machine", path)["machine"] == mine.model_dump()
    given = shell.json("info", "-m", path, "--set", "lanes=128", "--set", "weight_memory=stream")["machine"]
    assert given == mine.model_dump() | {"lanes": 128, "weight_memory": "stream"}


@pytest.mark.parametrize("name", shipped_models())
def test_evaluate_against_the_training_network(shell, name):
    data = shell.json("evaluate", "--params", name, "--limit", 16, "--qat")
    assert data["images"] == 16
    assert data["accuracy"] == data["correct"] / 16 >= (0.9 if name.startswith("digits") else 0.5)
    assert data["qat"]["difference"] is None
    assert data["qat"]["images"] == 16 and data["qat"]["values"] > 16 * data["qat"]["traces"]
    assert all(0 < rate < 1 for rate in data["firing_rates"].values())


def test_evaluate_notices_a_difference(shell, monkeypatch):
    """The training network is rebuilt from parameters in which one threshold differs."""
    import s2tdpt.sw.export

    rebuild = s2tdpt.sw.export.from_params

    def altered(params: Params):
        thresholds = params.threshold("block.0.q") + 30
        return rebuild(replace(params, tensors={**params.tensors, "block.0.q.threshold": thresholds}))

    monkeypatch.setattr(s2tdpt.sw.export, "from_params", altered)
    result = shell("evaluate", "--limit", 8, "--qat")
    assert result.exit_code == 1
    assert "first difference: block.0.q: image " in result.stdout


def test_evaluate_pictures_and_arrays(shell):
    images = load_digits().test_images[:3]
    for index, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(f"{index}.png")
    np.save("batch.npy", images)
    np.save("grey.npy", images[..., 0])
    np.save("one.npy", images[0])
    golden = GoldenNetwork(Params.load(MODELS / "digits.safetensors"))
    expected = {"classes": golden.classify(images).tolist(), "logits": golden.forward(images).tolist()}
    for name in ("batch.npy", "grey.npy"):
        assert shell.json("evaluate", "--images", name) == expected
    pictures = [word for index in range(3) for word in ("--images", f"{index}.png")]
    assert shell.json("evaluate", *pictures) == expected
    assert shell.json("evaluate", "--images", "one.npy")["logits"] == expected["logits"][:1]
    assert shell.good("evaluate", "--images", "0.png") == f"image 0: class {expected['classes'][0]}\n"


def test_generate(shell, files):
    text = shell.good("generate", *files, *MACHINE, "--out", "made")
    names = sorted(path.name for path in (shell.folder / "made").iterdir())
    endings = (".core", ".f", ".lpf", ".sdc", ".sv", "_inst.sv", "_tb.sv")
    plain = ("image.hex", "lint.vlt", "manifest.json", "result.hex")
    assert names == [*plain, *(f"s2tdpt_tiny{ending}" for ending in endings)]
    assert [line.split()[0] for line in text.splitlines()] == [f"made/{name}" for name in names]
    manifest = json.loads((shell.folder / "made" / "manifest.json").read_text())
    assert manifest["parameters"]["sha256"] == Params.load("tiny.safetensors").checksum()
    assert manifest["machine"]["lanes"] == 8 and manifest["top"] == "s2tdpt_tiny"
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((shell.folder / "made" / name).read_bytes()).hexdigest() == digest
    shell.good(
        "generate", *files, *MACHINE, "--set", "weight_memory=stream", "--out", "streamed", "--name", "core"
    )
    names = sorted(path.name for path in (shell.folder / "streamed").iterdir())
    assert names == [
        *("core.core", "core.f", "core.lpf", "core.sdc", "core.sv", "core_inst.sv", "core_tb.sv"),
        *("image.hex", "lint.vlt", "manifest.json", "result.hex", "weight_stream.hex"),
    ]


def test_generate_with_probes_and_another_clock(shell, files):
    shell.good("generate", *files, *MACHINE, "--out", "made", "--probes", "--frequency", 125)
    assert "probe_start" in (shell.folder / "made" / "s2tdpt_tiny_inst.sv").read_text()
    assert 'PORT "aclk" 125 MHZ;' in (shell.folder / "made" / "s2tdpt_tiny.lpf").read_text()
    assert "-period 8.0 " in (shell.folder / "made" / "s2tdpt_tiny.sdc").read_text()
    message = shell.refused("generate", *files, *MACHINE, "--out", "other", "--frequency", 0)
    assert message.startswith("the frequency is 0 MHz; expected 0.001 to 100000")


def test_generate_with_registers(shell, files):
    shell.good("generate", *files, *MACHINE, "--out", "made", "--registers")
    folder = shell.folder / "made"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["registers"]["frame_bytes"] == 20 and len(manifest["registers"]["config_hash"]) == 64
    made = {"registers.json", "s2tdpt_registers.h", "s2tdpt_registers.py"}
    assert made <= set(manifest["files"]) and "s_axi_awaddr" in {port["name"] for port in manifest["ports"]}
    sections = {key: manifest[key] for key in ("network", "machine")}
    sections["parameters"] = manifest["parameters"]["sha256"]
    text = json.dumps(sections, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == manifest["registers"]["config_hash"]


def test_generate_with_an_image_of_its_own(shell, files):
    image = np.arange(20, dtype=np.uint8).reshape(1, 5, 4)
    np.save(shell.folder / "mine.npy", image)
    shell.good("generate", *files, *MACHINE, "--out", "made", "--image", "mine.npy")
    assert (shell.folder / "made" / "image.hex").read_text() == "".join(f"{byte:02x}\n" for byte in range(20))
    message = shell.refused("generate", *files, *MACHINE, "--out", "other", "--image", "missing.npy")
    assert "missing.npy" in message


def test_generate_into_a_full_disk_of_its_own_output(shell, files):
    """What it prints cannot be written: exit code 2, and no package that nobody was told of."""
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "s2tdpt.scripts.cli", "generate", *files, *MACHINE, "--out", "made"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 2 and not (shell.folder / "made").exists()
    assert "cannot use the disk: No space left on device" in result.stderr.splitlines()[-1]


def test_cosim_of_own_images(shell, files, case):
    text = shell.good(
        "cosim",
        *files,
        *MACHINE,
        "--images",
        "images.npy",
        "--simulator",
        QUICK,
        "--json",
        "report.json",
        "--per-layer",
    )
    report = json.loads((shell.folder / "report.json").read_text())
    assert (report["images"], report["layer_images"], report["mismatches"]) == (2, 2, 0)
    assert report["classes"] == case.golden["head.class"].tolist()
    assert "mismatches" in text and "block.0.q" in text


def test_cosim_that_finds_a_difference_fails_and_names_it(shell, files, monkeypatch):
    def faulty(params: Params, machine: Machine):
        lut = params.tensors["stdp.lut"].copy()
        lut[len(lut) // 2] ^= 64
        return generate_design(replace(params, tensors={**params.tensors, "stdp.lut": lut}), machine)

    monkeypatch.setattr(cosim_module, "generate", faulty)
    arguments = ("cosim", *files, *MACHINE, "--images", "images.npy", "--simulator", QUICK)
    result = shell(*arguments)
    assert result.exit_code == 1
    assert "block.0.y: image " in result.stdout
    result = shell(*arguments, "--json", "-")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["differences"][0].startswith("block.0.y: image ")


def test_the_installed_command_keeps_to_its_streams(tmp_path):
    """In a process of its own: one line on standard error, no traceback, no warning."""
    arguments = [sys.executable, "-m", "s2tdpt.scripts.cli", "generate", "--out", str(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=MODELS.parents[1])
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("s2tdpt: error: ") and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
