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
from s2tdpt.hw import cycles
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.cycles import SEQUENCER_CYCLES
from s2tdpt.hw.estimate import estimate, interval
from s2tdpt.scripts.images import choose_images
from s2tdpt.sim.cosim import cosimulate
from s2tdpt.sim.design import layer_program
from s2tdpt.sw.datasets import load_digits
from tests.hw.core_bench import build_case, network

QUICK = "icarus" if shutil.which("iverilog") else "verilator"
"""Simulator of these tests: Icarus builds in a moment."""
MACHINES = {
    "rom": HardwareConfig(lanes=8, rows=2, post_lanes=4),
    "stream": HardwareConfig(lanes=4, rows=2, post_lanes=4, weight_memory="stream"),  # with late tiles
}
COLOUR = network(name="colour", image_height=32, image_width=32, image_channels=3, num_classes=10)


@pytest.fixture(scope="module")
def case():
    return build_case(network(), MACHINES["rom"], seed=3, frames=3)


def options(hw: HardwareConfig) -> tuple:
    return (
        "--lanes",
        hw.lanes,
        "--rows",
        hw.rows,
        "--post-lanes",
        hw.post_lanes,
        "--weights",
        hw.weight_memory,
    )


@pytest.fixture
def files(shell, case):
    case.params.save("tiny.safetensors")
    np.save("images.npy", case.images)
    return "--params", "tiny.safetensors", "--images", "images.npy"


@pytest.mark.parametrize("weights", MACHINES)
def test_cycles_are_those_of_the_simulated_hardware(shell, files, case, weights):
    """Every operation of every image: 0 cycles difference between counting and simulating."""
    hw = MACHINES[weights]
    counted = shell.json("cycles", *files, *options(hw))
    report = cosimulate(case.params, hw, case.images, simulator=QUICK, jobs=1)
    assert report.ok, report.first()
    # Streamed weights: a run begins with empty banks, an image that is counted does not.
    first = 1 if weights == "stream" else 0
    assert counted["frames"][first:] == report.frame_cycles[first:]
    assert report.interval == np.mean(counted["intervals"][1:])
    if weights == "stream":
        assert counted["stream"]["waits"] > 0
        return
    assert counted["stream"] is None and counted["stream_bytes_per_second"] is None
    assert [op["cycles"] for op in counted["operations"]] == [layer.cycles for layer in report.layers]
    utilisation = [layer.utilisation for layer in report.layers]
    assert [op["utilisation"] for op in counted["operations"]] == pytest.approx(utilisation)
    assert counted["utilisation"] == pytest.approx(report.utilisation)


def test_a_wrong_count_is_noticed(case, monkeypatch):
    """A drain that may begin a cycle later than it does: the simulation contradicts."""
    monkeypatch.setattr(cycles, "EVENT_TO_SUM", cycles.EVENT_TO_SUM + 1)
    report = cosimulate(case.params, MACHINES["rom"], case.images[:1], simulator=QUICK)
    assert not report.ok and not report.differences
    assert re.match(r"image 0: sps\.0 took \d+ cycles; the cycle model says \d+$", report.findings[0])


def test_figures_follow_from_the_frames(shell, files, case):
    data = shell.json("cycles", *files, *options(MACHINES["stream"]), "--clock-mhz", 100)
    frames = data["frames"]
    assert (len(frames), data["images"], data["source"], data["network"]) == (3, 3, "your images", "tiny")
    assert data["hardware"] == MACHINES["stream"].model_dump(mode="json")
    assert (data["cycles_minimum"], data["cycles_maximum"]) == (min(frames), max(frames))
    assert data["cycles"] == np.mean(frames)
    assert data["intervals"] == [frame + SEQUENCER_CYCLES + 1 for frame in frames]
    assert data["images_per_second"] == pytest.approx(100e6 / np.mean(data["intervals"]))
    assert data["dense"] > max(frames) and data["dense_ratio"] == pytest.approx(
        data["dense"] / data["cycles"]
    )
    stream = data["stream"]
    assert data["stream_bytes_per_second"] == pytest.approx(
        data["images_per_second"] * stream["words"] * stream["bits"] / 8
    )
    gaps = SEQUENCER_CYCLES * (len(data["operations"]) - 1)
    assert sum(op["cycles"] for op in data["operations"]) + gaps == pytest.approx(data["cycles"])
    for op in data["operations"]:
        assert op["minimum"] <= op["cycles"] <= op["maximum"]
        assert op["share"] == pytest.approx(op["cycles"] / data["cycles"]) and 0 <= op["rate"] <= 1


def test_tables(shell, files, case):
    text = shell.good("cycles", *files, *options(MACHINES["rom"]), "--json", "cycles.json")
    data = json.loads((shell.folder / "cycles.json").read_text())
    for op in data["operations"]:
        assert f" {op['name']} " in text and f"{op['cycles']:,.0f}" in text
    assert "assumed 50 MHz" in text and f"{data['cycles']:,.0f}" in text and "streamed" not in text
    assert "weight words streamed" in shell.good("cycles", *files, *options(MACHINES["stream"]))


def test_the_pixels_can_be_what_takes_longest():
    """A large image and next to nothing to compute: the machine is free before the next image is there."""
    program, _ = layer_program(random_params(COLOUR, 0), MACHINES["rom"])
    assert interval(program, 5000) == 5000 + SEQUENCER_CYCLES + 1
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
    result = shell("cycles", "-p", "colour.safetensors", "-n", 17, "--lanes", 8, "--json", "-")
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
    expected = estimate(Params.load(shipped("digits")), HardwareConfig(), dataset.test_images[:3])
    assert data["frames"] == expected.frames


def shipped(name: str):
    from s2tdpt.golden.shipped import FOLDER as MODELS

    return MODELS / f"{name}.safetensors"


REFUSED = {
    "no clock": (["--clock-mhz", 0], "--clock-mhz is 0; expected a positive number of MHz"),
    "endless clock": (["--clock-mhz", "inf"], "--clock-mhz is inf; expected a positive number of MHz"),
    "no images": (["-n", 0], "0 is not in the range x>=1"),
    "folder alone": (["--data-dir", "."], "--data-dir names a folder, but digits takes no CIFAR images"),
    "files and data": (["--images", "a.npy", "--data", "digits"], "--images and --data exclude each other"),
    "no files": (["--data", "cifar10", "--data-dir", "."], "no cifar10 files in .; expected one of"),
    "no folder": (["--data", "cifar10"], "data set cifar10 needs its files; expected a folder with"),
    "heads": (["--lanes", 16], "expected lanes >= 32"),
}


@pytest.mark.parametrize("command", ["cycles", "cosim"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(shell, command, case):
    arguments, message = REFUSED[case]
    if command == "cosim" and arguments[0] == "--clock-mhz":
        message = "No such option"
    assert message in shell.refused(command, *arguments)


def test_data_of_another_shape(shell, tiny):
    assert "expected [5, 4, 1] for tiny; choose another --data" in shell.refused(
        "cycles", "--params", tiny, "--data", "digits"
    )
