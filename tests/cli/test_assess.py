"""s2tdpt assess: the five parts, and a planted fault in each that can fail."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.shipped import load
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.scripts import hardware
from s2tdpt.scripts.assess import LEFT_OUT, parameter_file
from s2tdpt.sim import cosim as cosim_module
from s2tdpt.sim.cases import network
from s2tdpt.sim.design import generate as generate_design
from s2tdpt.sw.datasets import load_digits
from s2tdpt.sw.quantize import QatNetwork

QUICK = "icarus" if shutil.which("iverilog") else "verilator"
MACHINE = ("--set", "lanes=8", "--set", "banks=2", "--set", "post_lanes=4")
FEW = ("--limit", 6, "--values", 3, "--energy-images", 4, "--cycle-images", 2)


@pytest.fixture
def little(shell) -> str:
    """A parameter file of random integers for digits, in a run folder."""
    (shell.folder / "run").mkdir()
    numbers = random_params(network(image_height=8, image_width=8, num_classes=10), 3)
    numbers.save(shell.folder / "run" / "tiny.safetensors")
    for stage in ("float", "qat", "teacher"):
        (shell.folder / "run" / f"{stage}.safetensors").write_bytes(b"")
    return "run"


def test_everything_about_a_network(shell, little):
    text = shell.good("assess", "-p", little, *FEW, *MACHINE, "--simulator", QUICK, "--json", "all.json")
    result = json.loads((shell.folder / "all.json").read_text())
    assert result["good"] and result["sha256"] == Params.load("run/tiny.safetensors").checksum()
    assert result["machine"]["lanes"] == 8
    parts = {name: result[name] for name in ("accuracy", "equality", "energy", "cycles", "cosim")}
    for name, part in parts.items():
        assert part["seconds"] >= 0 and name in text
    alone = shell.json("evaluate", "-p", "run/tiny.safetensors", "--limit", 6, "--qat")
    assert parts["accuracy"]["correct"] == alone["correct"] and parts["accuracy"]["recorded"] is None
    assert parts["equality"]["logits"] == {"images": 6, "values": 60, "difference": None}
    assert parts["equality"]["every_value"]["values"] * 2 == alone["qat"]["values"]
    spent = shell.json("energy", "-p", "run/tiny.safetensors", "--limit", 4)
    assert parts["energy"]["totals_pj"] == spent["totals_pj"]
    counted = shell.json("cycles", "-p", "run/tiny.safetensors", "-n", 2, *MACHINE)
    assert parts["cycles"]["cycles"] == counted["cycles"]
    assert parts["cosim"]["images"] == 1 and parts["cosim"]["mismatches"] == 0
    assert "cycle model off by 0 cycles" in parts["cosim"]["verdict"]


def test_what_is_left_out_is_said(shell, little):
    result = shell.json("assess", "-p", little, *FEW, "--count", 0)
    assert result["good"] and result["cosim"]["verdict"] == LEFT_OUT and result["cosim"]["good"] is None


def test_a_false_record_is_noticed(shell):
    numbers = load("digits")
    record = numbers.provenance["accuracy"] | {"integer": 0.5, "test_images": 6}
    false = replace(numbers, provenance=numbers.provenance | {"accuracy": record})
    false.save(shell.folder / "false.safetensors")
    result = shell("assess", "-p", "false.safetensors", *FEW, "--count", 0, "--json", "-")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["good"] and found["accuracy"]["good"] is False and found["equality"]["good"]
    assert "the file records 50.00 %" in found["accuracy"]["verdict"]
    true = replace(false, provenance=numbers.provenance | {"accuracy": record | {"integer": 1.0}})
    true.save(shell.folder / "true.safetensors")
    assert "as the file records" in shell.good("assess", "-p", "true.safetensors", *FEW, "--count", 0)


@pytest.mark.parametrize(("images", "place"), [(slice(0, 3), "head.sum"), (slice(3, 6), "head.logits")])
def test_a_difference_of_the_training_network_is_noticed(shell, monkeypatch, images, place):
    """One that every image shows ends the comparison of all values, one after them that of the logits."""
    plain, odd = QatNetwork.forward, load_digits().test_images[images]

    def altered(self, pixels, record=None):
        logits = plain(self, pixels, record)
        hit = [any(np.array_equal(mine, other) for other in odd) for mine in pixels.numpy()]
        for index in np.flatnonzero(hit):
            logits[index, 0] += 1
            if record is not None:
                record["head.sum"][index, 0] += 1
        return logits

    monkeypatch.setattr(QatNetwork, "forward", altered)
    result = shell("assess", *FEW, "--count", 0)
    assert result.exit_code == 1
    assert place in result.stdout.replace("\n", "")


def test_a_difference_of_the_hardware_is_noticed(shell, little, monkeypatch):
    def faulty(params: Params, machine: Machine):
        bias = params.bias("head") + 1
        return generate_design(replace(params, tensors={**params.tensors, "head.bias": bias}), machine)

    monkeypatch.setattr(cosim_module, "generate", faulty)
    result = shell("assess", "-p", little, *FEW, *MACHINE, "--simulator", QUICK)
    assert result.exit_code == 1
    assert "head.logits" in result.stdout and "0 differences in 60 logits" in " ".join(result.stdout.split())


def test_a_run_folder_means_its_parameter_file(shell, little):
    assert parameter_file(little) == "run/tiny.safetensors"
    assert parameter_file("digits") == "digits"
    (shell.folder / "run" / "other.safetensors").write_bytes(b"")
    message = shell.refused("assess", "-p", little)
    assert "holds 2 parameter files (other.safetensors, tiny.safetensors); expected the one" in message
    for name in ("other", "tiny"):
        (shell.folder / "run" / f"{name}.safetensors").unlink()
    assert "holds 0 parameter files (none)" in shell.refused("assess", "-p", little)


def test_a_missing_simulator_is_an_error_before_the_work(shell, monkeypatch):
    def missing(tool):
        raise UserError(f"{tool} is missing; expected it on the path; install it")

    monkeypatch.setattr("s2tdpt.scripts.assess.find_tool", missing)
    assert hardware.NEEDED["verilator"][0] in shell.refused("assess")
    shell.good("assess", *FEW, "--count", 0)
