"""s2tdpt evaluate and energy, and the comparisons behind them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import s2tdpt.sw.evaluate
import s2tdpt.sw.export
from s2tdpt.golden import energy as constants
from s2tdpt.golden.activity import Activity, measure
from s2tdpt.golden.complexity import trace_bytes
from s2tdpt.golden.config import load_config
from s2tdpt.golden.energy import energy_report
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params, random_params
from s2tdpt.hw.attention.stdp_cycles import row_updates
from s2tdpt.hw.estimate.cycles import frame_cycles
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.scripts.energy import amount
from s2tdpt.scripts.options import load_params
from s2tdpt.sw.datasets import load_dataset
from s2tdpt.sw.evaluate import compare_speed, verify_equal, verify_logits
from s2tdpt.sw.export import from_params
from tests.golden.shapes import SHAPES, images_for, params_for

GUIDE = (Path(__file__).parents[2] / "docs" / "energy.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def digits() -> tuple[GoldenNetwork, np.ndarray, np.ndarray]:
    data = load_dataset("digits")
    return GoldenNetwork(load_params("digits")), data.test_images, data.test_labels


# ---------------------------------------------------------------------------------------------------- energy


def test_energy_is_that_of_the_counts(shell, digits):
    golden, images, labels = digits
    report = energy_report(golden, measure(golden, images[:30], labels[:30]))
    data = shell.json("energy", "--limit", 30, "--counted", 0)
    assert (
        data
        == {"counted": None, "netlist": None}
        | {"params": "digits", "data": "digits test images", "against": []}
        | report.as_dict()
    )
    table = shell.good("energy", "--limit", 30)
    for name in ("theory", "dense_float", "integer_adders", "integer_reads_each", "integer_reads_shared"):
        assert amount(report.totals[name]) in table
    assert "490 uJ" in table and "digits: accuracy 100.00 %" in table


def test_accesses_are_counted_on_the_machine(shell):
    command = ("energy", "--limit", 3, "--counted", 2, "--machine", "small")
    counted = shell.json(*command, "--mhz", 50)["counted"]
    assert counted["machine"] == "small" and counted["images"] == 2 and counted["fields"]["lanes"] == 8
    assert counted["leaked_pj"] == pytest.approx(counted["leakage_uw"] * counted["cycles"] / 50)
    table = shell.good(*command)
    assert amount(counted["energy_pj"]) in table and "counted on machine small" in table
    assert "expected a positive number of MHz" in shell.refused("energy", "--mhz", 0)


def test_energy_against_other_networks(shell, digits):
    command = ("energy", "--limit", 40, "--against", "digits-sparse", "--against", "digits-int4")
    data = shell.json(*command, "--plot", "curve.png")
    assert (shell.folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    sparse, four = data["against"]
    assert (sparse["params"], four["params"]) == ("digits-sparse", "digits-int4")
    assert sparse["totals_pj"]["theory"] < data["totals_pj"]["theory"]
    assert four["weight_bytes"] * 2 == data["weight_bytes"]
    alone = shell.json("energy", "-p", "digits-sparse", "--limit", 40)
    assert sparse == {key: alone[key] for key in sparse}
    lines = shell.good(*command, "--plot", "curve.svg").splitlines()
    assert (shell.folder / "curve.svg").read_text().startswith("<?xml")
    start = next(i for i, line in enumerate(lines) if "accuracy against energy" in line)
    order = [word for line in lines[start:] for word in re.findall(r"│ (digits\S*) ", line)]
    energies = {entry["params"]: entry["totals_pj"]["theory"] for entry in (data, sparse, four)}
    assert order == sorted(energies, key=energies.get)


def test_amounts_have_units():
    assert [amount(value) for value in (0.0, 1.0, 999.0, 1e3, 5.5e5, 4.9e8, 4.3e9)] == [
        "0 pJ",
        "1 pJ",
        "999 pJ",
        "1 nJ",
        "550 nJ",
        "490 uJ",
        "4.3 mJ",
    ]


def test_energy_mistakes_are_named(shell, tiny):
    assert shell.refused("energy", "--plot", "curve.gif").startswith(
        "--plot curve.gif has no known format; expected a name that ends in .png, .svg, .pdf"
    )
    assert "is in no folder" in shell.refused("energy", "--plot", "nowhere/curve.png")
    assert "expected [5, 4, 1] for tiny; choose another --data" in shell.refused("energy", "-p", tiny)
    assert "expected [5, 4, 1] for tiny" in shell.refused("energy", "--against", tiny)
    assert shell.refused("energy", "--against", "digit").startswith("no parameter file digit; expected")
    assert "expected a folder with cifar-10-binary" in shell.refused("energy", "--data", "cifar10")


@pytest.mark.parametrize("name", ["base", "odd-pooled", "zero-point", "head-dim-5"])
def test_counts_are_those_of_the_machine(name):
    """Additions of every layer and row updates of the attention, as the cycle model counts them."""
    config = SHAPES[name]
    golden = GoldenNetwork(params_for(config, 4))
    program = build_program(
        config, Machine(lanes=16, banks=2, post_lanes=8), golden.bounds.head_sum.signed_bits
    )
    image = images_for(config, 1)
    trace = {key: value.numpy() for key, value in golden.trace(image).items()}
    activity = Activity(config, golden.bounds.head_sum.signed_bits)
    activity.add(image, trace)
    sources = {"pixels": image[0]} | {key: value[0] for key, value in trace.items()}
    machine = dict.fromkeys(config.layer_names(), 0)
    for step, count in zip(program.steps, frame_cycles(program, sources).steps, strict=True):
        machine[step.layer] += count.accumulates
    mine = {layer: count * config.weight_shape(layer)[0] for layer, count in activity.events.items()}
    assert mine == machine
    for block, counts in activity.attention.items():
        q, k, v = (sources[f"block.{block}.{part}"] for part in "qkv")
        assert counts["updates"] == row_updates(q, k, v, heads=config.heads).sum()


def test_the_guide_has_the_constants_of_the_program():
    numbers = {
        "E_MAC": constants.E_MAC,
        "E_AC": constants.E_AC,
        "E_ADD8": constants.E_ADD8,
        "E_ADD32": constants.E_ADD32,
        "E_MULT8": constants.E_MULT8,
    }
    for name, value in numbers.items():
        assert re.search(rf"\| `{name}` \| {value:g} pJ \|", GUIDE), name
    for size, value in constants.SRAM:
        text = f"{size >> 10} kB" if size < 1 << 20 else f"{size >> 20} MB"
        assert f"| 64 bits of {text} | {value:g} pJ |" in GUIDE


# -------------------------------------------------------------------------------------------------- evaluate


def test_a_data_set_with_other_classes_is_refused(shell):
    config = load_config("digits").model_copy(update={"num_classes": 7})
    random_params(config).save(shell.folder / "seven.safetensors")
    for command in (("evaluate", "-p"), ("energy", "--against")):
        assert shell.refused(*command, "seven.safetensors") == (
            "data set digits has 10 classes; expected 7 for digits; choose another --data"
        )


def test_evaluate_counts_all_images(shell, digits, monkeypatch):
    golden, images, labels = digits
    monkeypatch.setattr("s2tdpt.scripts.evaluation.RATE_IMAGES", 50)
    data = shell.json("evaluate", "--limit", 130)
    assert data["images"] == 130
    assert data["correct"] == int((golden.classify(images[:130]).numpy() == labels[:130]).sum())
    assert data["firing_rates"] == measure(golden, images[:50]).rates


def test_logits_of_every_image_are_compared(shell):
    data = shell.json("evaluate", "--limit", 150, "--qat-logits")
    assert data["qat"] == {
        "compared": "logits",
        "images": 150,
        "traces": 1,
        "values": 1500,
        "difference": None,
    }
    text = shell.good("evaluate", "--limit", 20, "--qat-logits")
    assert "training network against golden model: 200 logits, 0 differences" in text
    assert shell.refused("evaluate", "--images", "x.npy", "--qat-logits").startswith(
        "--images are not compared"
    )


def test_one_differing_logit_is_fatal_and_named(shell, monkeypatch):
    """The training network is rebuilt with another bias of class 7: its logit differs by 1."""
    rebuild = s2tdpt.sw.export.from_params

    def altered(params: Params):
        bias = params.bias("head").copy()
        bias[7] += 1
        return rebuild(replace(params, tensors={**params.tensors, "head.bias": bias}))

    monkeypatch.setattr(s2tdpt.sw.export, "from_params", altered)
    golden = GoldenNetwork(load_params("digits"))
    right = int(golden.forward(load_dataset("digits").test_images[:1])[0, 7])
    place = f"head.logits: image 0, class 7: {right + 1} in training, {right} in golden"
    for option in ("--qat", "--qat-logits"):
        result = shell("evaluate", "--limit", 5, option)
        assert result.exit_code == 1
        assert f"first difference: {place}" in " ".join(result.stdout.split())


@pytest.fixture
def pair():
    """Golden and training network of the same integers, and images."""
    params = params_for(SHAPES["odd-pooled"], 3)
    return GoldenNetwork(params), from_params(params), images_for(SHAPES["odd-pooled"], 7)


class Altered:
    """A golden network of which one number of one image is another."""

    def __init__(self, golden: GoldenNetwork, name: str, place: tuple[int, ...]):
        self.golden, self.name, self.place, self.seen = golden, name, place, 0

    def alter(self, value: torch.Tensor) -> torch.Tensor:
        image = self.place[0] - self.seen
        self.seen += len(value)
        if 0 <= image < len(value):
            value[(image, *self.place[1:])] ^= 1
        return value

    def trace(self, images):
        trace = self.golden.trace(images)
        return trace | {self.name: self.alter(trace[self.name])}


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_a_differing_logit_of_any_image_is_found(pair, size):
    golden, network, images = pair
    logits, done = golden.forward(images), []
    result = verify_logits(network, logits, images, size, done.append)
    assert result.equal and result.images == 7 and result.values == 35 and sum(done) == 7
    for place in ((0, 0), (3, 4), (6, 2)):
        altered = logits.clone()
        altered[place] ^= 1
        assert verify_logits(network, altered, images, size).difference == (
            f"head.logits: image {place[0]}, class {place[1]}: {logits[place]} in training, "
            f"{altered[place]} in golden"
        )
    assert not verify_logits(network, logits[:6], images, size).equal
    network.train()
    assert verify_logits(network, logits, images, size).equal and network.training


@pytest.mark.parametrize(
    "name, place, words",
    [
        ("block.0.k", (5, 1, 2, 3), "block.0.k: image 5, step 1, token 2, channel 3: "),
        ("sps.0.spikes", (0, 0, 30, 1), "sps.0.spikes: image 0, step 0, token 30, channel 1: "),
        ("head.sum", (6, 4), "head.sum: image 6, channel 4: "),
        ("head.class", (2,), "head.class: image 2: "),
    ],
)
def test_every_value_is_compared_in_bounded_pieces(pair, monkeypatch, name, place, words):
    golden, network, images = pair
    sizes = []
    for room, expected in ((1000, [7]), (2, [2, 2, 2, 1]), (0, [1] * 7)):
        budget = room * s2tdpt.sw.evaluate.BYTES_A_TRACED_BYTE * trace_bytes(golden.config)
        monkeypatch.setattr(s2tdpt.sw.evaluate, "TRACE_BUDGET", budget)
        sizes.clear()
        result = verify_equal(network, golden, images, progress=sizes.append)
        assert result.equal and sizes == expected and result.images == 7
        found = verify_equal(network, Altered(golden, name, place), images)
        assert found.difference.startswith(words) and found.values <= result.values


def test_speed_is_measured_in_alternation(monkeypatch):
    """A clock that only the networks move: seconds are known exactly."""
    now, calls = [0.0], []
    golden_costs, float_costs = iter([99.0, 2.0, 3.0, 10.0]), iter([99.0, 4.0, 4.0, 5.0])

    class Golden:
        def forward(self, images):
            assert isinstance(images, np.ndarray) and images.dtype == np.uint8
            calls.append("golden")
            now[0] += next(golden_costs)

    class Float(torch.nn.Module):
        def forward(self, images):
            assert not self.training and not torch.is_grad_enabled()
            calls.append("float")
            now[0] += next(float_costs)

    monkeypatch.setattr(s2tdpt.sw.evaluate.time, "perf_counter", lambda: now[0])
    network = Float().train()
    speed = compare_speed(Golden(), network, np.zeros((12, 2, 2, 1), np.uint8), repeats=3)
    assert calls == ["golden", "float"] * 4 and network.training
    assert speed.runs == ((2.0, 4.0), (3.0, 4.0), (10.0, 5.0))  # the first pair warms up
    assert (speed.golden_seconds, speed.float_seconds, speed.time_ratio) == (3.0, 4.0, 0.75)
    assert (speed.golden_images_per_second, speed.float_images_per_second) == (4.0, 3.0)
    assert speed.images == 12 and speed.threads == torch.get_num_threads()
