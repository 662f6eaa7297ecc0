"""s2tdpt cycles against the simulated hardware, and the images that it and cosim choose."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.samples import sample_images
from s2tdpt.hw.estimate import cycles
from s2tdpt.hw.estimate.layers import count_cycles, interval
from s2tdpt.hw.plan.machine import Machine, load_machine
from s2tdpt.scripts.images import choose_images
from s2tdpt.sim.cases import network
from s2tdpt.sim.cosim import Options, cosimulate
from s2tdpt.sim.design import layer_program
from s2tdpt.sw.datasets import load_digits
from tests.hw.core_bench import build_case

QUICK = "icarus" if shutil.which("iverilog") else "verilator"
"""Simulator of these tests: Icarus builds in a moment."""
MACHINES = {
    "rom": Machine(name="digits", lanes=8, banks=2, post_lanes=4),
    "stream": Machine(name="digits", lanes=4, banks=2, post_lanes=2, weight_memory="stream"),
}
COLOUR = network(name="colour", image_height=32, image_width=32, image_channels=3, num_classes=10)


@pytest.fixture(scope="module")
def case():
    return build_case(network(), MACHINES["rom"], seed=3, frames=3)


def options(machine: Machine) -> tuple:
    fields = machine.model_dump(exclude={"name"})
    return tuple(word for name, value in fields.items() for word in ("--set", f"{name}={value}"))


@pytest.fixture
def files(shell, case):
    case.params.save("tiny.safetensors")
    np.save("images.npy", case.images)
    return "--params", "tiny.safetensors", "--images", "images.npy"


@pytest.mark.parametrize("weights", MACHINES)
def test_cycles_are_those_of_the_simulated_hardware(shell, files, case, weights):
    """Every image: 0 cycles difference between counting and simulating."""
    machine = MACHINES[weights]
    counted = shell.json("cycles", *files, *options(machine))
    report = cosimulate(case.params, machine, case.images, Options(simulator=QUICK, jobs=1))
    assert report.ok, report.first()
    # Streamed weights: a run begins with empty rings, an image that is counted does not.
    first = 1 if weights == "stream" else 0
    assert counted["frames"][first:] == report.frame_cycles[first:]
    # From start to start, hence not of the last image; three cycles lie between the end of one and the next.
    spans = [report.frame_cycles[0] + 3, *counted["intervals"][1:-1]]
    assert report.interval == np.mean(spans)
    if weights == "stream":
        assert counted["stream"]["waits"] > 0
        return
    assert counted["stream"] is None and counted["stream_bytes_per_second"] is None
    ends = {}
    for step in report.steps:
        layer = step.name.split("[")[0]
        ends[layer] = ends.get(layer, 0) + step.accumulates
    assert {layer["name"]: layer["accumulates"] for layer in counted["layers"]} == pytest.approx(ends)
    intervals = np.mean(counted["intervals"])
    assert counted["utilisation"] * intervals == pytest.approx(report.utilisation * report.cycles)
    assert counted["accumulates_per_cycle"] * intervals == pytest.approx(
        report.accumulates_per_cycle * report.interval
    )


def test_a_wrong_count_is_noticed(case, monkeypatch):
    """A record that is fetched a cycle later than it is: the simulation contradicts."""
    monkeypatch.setattr(cycles, "FETCH_CYCLES", cycles.FETCH_CYCLES + 1)
    report = cosimulate(case.params, MACHINES["rom"], case.images[:1], Options(simulator=QUICK))
    assert not report.ok and not report.differences
    assert re.match(r"image 0: (start|complete) of .* in cycle \d+; the cycle model says", report.findings[0])


@pytest.mark.parametrize("weights", MACHINES)
def test_figures_follow_from_the_frames(shell, files, case, weights):
    data = shell.json("cycles", *files, *options(MACHINES[weights]), "--mhz", 100)
    frames = data["frames"]
    assert (len(frames), data["images"], data["source"], data["network"]) == (3, 3, "your images", "tiny")
    assert data["machine"] == MACHINES[weights].model_dump(mode="json")
    assert (data["cycles_minimum"], data["cycles_maximum"]) == (min(frames), max(frames))
    assert data["cycles"] == np.mean(frames) and data["interval"] == np.mean(data["intervals"])
    assert all(i >= f + 3 for i, f in zip(data["intervals"], frames, strict=True))
    assert data["images_per_second"] == pytest.approx(100e6 / data["interval"])
    assert data["dense_ratio"] == pytest.approx(data["dense"] / data["cycles"])
    assert 0 <= data["idle_share"] < 1
    layers = data["layers"]
    assert sum(layer["cycles"] for layer in layers) + data["tail"] == pytest.approx(data["interval"])
    added = sum(layer["accumulates"] for layer in layers)
    assert data["accumulates_per_cycle"] == pytest.approx(added / data["interval"])
    for layer in layers:
        assert layer["minimum"] <= layer["cycles"] <= layer["maximum"]
        assert layer["share"] == pytest.approx(layer["cycles"] / data["interval"])
        assert 0 <= layer["rate"] <= 1
        assert layer["accumulates_per_cycle"] == pytest.approx(layer["accumulates"] / layer["cycles"])
    if weights == "stream":
        stream = data["stream"]
        rate = data["images_per_second"]
        assert data["stream_bytes_per_second"] == pytest.approx(rate * stream["words"] * stream["bits"] / 8)


def test_a_silent_image_distorts_nothing(shell, case):
    """Black pixels: hardly any accumulate, and figures that say so."""
    case.params.save("tiny.safetensors")
    np.save("images.npy", np.zeros_like(case.images))
    data = shell.json("cycles", "-p", "tiny.safetensors", "--images", "images.npy", *options(MACHINES["rom"]))
    first = data["layers"][0]
    assert (first["rate"], first["accumulates"], first["accumulates_per_cycle"]) == (0, 0, 0)
    assert first["cycles"] > 0
    added = sum(layer["accumulates"] for layer in data["layers"])
    busiest = MACHINES["rom"].lanes * MACHINES["rom"].banks * case.params.config.timesteps
    assert data["accumulates_per_cycle"] == pytest.approx(added / data["interval"])
    assert added <= busiest * (1 - data["idle_share"]) * data["interval"]


def test_tables(shell, files, case):
    text = shell.good("cycles", *files, *options(MACHINES["rom"]), "--json", "cycles.json")
    data = json.loads((shell.folder / "cycles.json").read_text())
    for layer in data["layers"]:
        assert f" {layer['name']} " in text and f"{layer['cycles']:,.0f}" in text
    assert "assumed 100 MHz" in text and f"{data['cycles']:,.0f}" in text and "streamed" not in text
    assert "weight words streamed" in shell.good("cycles", *files, *options(MACHINES["stream"]))


def test_the_pixels_can_be_what_takes_longest():
    """A large image and next to nothing to compute: the machine is free before the next image is there."""
    program, _ = layer_program(random_params(COLOUR, 0), MACHINES["rom"])
    assert interval(program, 5000) == 5000
    assert interval(program, 100) == 32 * 32 * 3


def test_default_images(shell):
    """Digits for digits, samples for CIFAR's shape, fewer where a simulation takes longer."""
    digits, small = random_params(load_config("digits"), 0), random_params(COLOUR, 0)
    chosen = choose_images(digits, (), None, None, None)
    assert np.array_equal(chosen.images, load_digits().test_images[:20])
    assert np.array_equal(chosen.labels, load_digits().test_labels[:20])
    assert chosen.description == "digits test images"
    samples, classes, description = sample_images(COLOUR)
    chosen = choose_images(small, (), None, None, None)
    assert np.array_equal(chosen.images, samples[:2]) and np.array_equal(chosen.labels, classes[:2])
    assert chosen.description == description
    assert len(choose_images(small, (), None, None, None, (5, 7)).images) == 7
    assert len(choose_images(small, (), None, None, 3).images) == 3
    hundred = random_params(COLOUR.model_copy(update={"num_classes": 100}), 0)
    assert choose_images(hundred, (), None, None, None).labels is None


def test_more_images_than_there_are(shell):
    random_params(COLOUR, 0).save("colour.safetensors")
    result = shell("cycles", "-p", "colour.safetensors", "-n", 17, "--machine", "small", "--json", "-")
    assert result.exit_code == 0 and len(json.loads(result.stdout)["frames"]) == 16
    assert "only 16 images come with the project; --data and --data-dir give more" in result.stderr


def test_images_of_a_data_set(shell, monkeypatch):
    """--data and --data-dir reach the loader, and its images the count."""
    from s2tdpt.scripts import images

    asked, dataset = [], load_digits()

    def load(name, folder):
        asked.append((name, folder))
        return dataset

    monkeypatch.setattr(images, "load_dataset", load)
    data = shell.json("cycles", "--data", "digits", "--data-dir", "here", "-n", 3)
    assert [(name, str(folder)) for name, folder in asked] == [("digits", "here")]
    assert (data["images"], data["source"]) == (3, "digits test images")
    expected = count_cycles(Params.load(shipped("digits")), load_machine(), dataset.test_images[:3])
    assert data["frames"] == expected.frames


def shipped(name: str):
    from s2tdpt.golden.shipped import FOLDER as MODELS

    return MODELS / f"{name}.safetensors"


REFUSED = {
    "no clock": (["--mhz", 0], "--mhz is 0; expected a positive number of MHz"),
    "endless clock": (["--mhz", "inf"], "--mhz is inf; expected a positive number of MHz"),
    "no images": (["-n", 0], "0 is not in the range x>=1"),
    "folder alone": (["--data-dir", "."], "--data-dir names a folder, but digits takes no CIFAR images"),
    "files and data": (["--images", "a.npy", "--data", "digits"], "--images and --data exclude each other"),
    "no files": (["--data", "cifar10", "--data-dir", "."], "no cifar10 files in .; expected one of"),
    "no folder": (["--data", "cifar10"], "data set cifar10 needs its files; expected a folder with"),
}


@pytest.mark.parametrize("command", ["cycles", "cosim"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(shell, command, case):
    arguments, message = REFUSED[case]
    if command == "cosim" and arguments[0] == "--mhz":
        message = "No such option"
    assert message in shell.refused(command, *arguments)


def test_data_of_another_shape(shell, tiny):
    assert "expected [5, 4, 1] for tiny; choose another --data" in shell.refused(
        "cycles", "--params", tiny, "--data", "digits"
    )
