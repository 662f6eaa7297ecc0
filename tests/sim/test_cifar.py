"""Networks on colour images of CIFAR's size: every value of every layer of the hardware, on real images.

The long ones run with ``scripts/test -m wide tests/sim``.
"""

from pathlib import Path

import numpy as np
import pytest

import s2tdpt.golden
from s2tdpt.golden.config import load_config
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.samples import sample_images
from s2tdpt.hw.plan.machine import Machine, load_machine
from s2tdpt.sim.cases import build_case, liveliness
from s2tdpt.sim.cosim import Options, cosimulate
from s2tdpt.sim.report import CosimReport

FOLDER = Path(s2tdpt.golden.__file__).parent / "models"
SCALED = load_config("s2tdpt-2-128").model_copy(
    update={"name": "scaled", "sps_channels": (4, 6, 8), "heads": 2, "depth": 1, "mlp_ratio": 2}
)
"""The architecture of s2tdpt-2-128 with a sixteenth of its channels and one block, on as many tokens."""


def cifar_models(folder: Path) -> list[Path]:
    """Parameter files of networks that the sample images fit."""
    files = sorted(folder.glob("*.safetensors"))
    return [path for path in files if sample_images(Params.load(path).config) is not None]


def check_all(params: Params, machine: Machine, count: int) -> CosimReport:
    """Co-simulate `count` sample images; everything is compared, equal, and takes the counted cycles."""
    images = sample_images(params.config)[0][:count]
    trace = {name: value.numpy() for name, value in GoldenNetwork(params).trace(images).items()}
    # Nothing is proven about what lies behind a layer that is silent.
    assert liveliness(params.config, trace) == 1
    report = cosimulate(params, machine, images, Options(jobs=1))
    assert report.ok, report.first()
    assert (report.images, report.layer_images) == (count, count)
    observed = [value for name, value in trace.items() if name != "head.sum"]
    assert report.tensors == len(observed) - 2  # without logits and class
    events = count * (2 * len(report.steps) + 1)
    assert report.comparisons == sum(value.size for value in observed) + events
    assert report.classes.tolist() == trace["head.class"].tolist()
    assert {step.model_error for step in report.steps} == {0}
    return report


def test_scaled_network_on_a_real_image_with_streamed_weights():
    assert SCALED.tokens == 64 and SCALED.map_size(0) == (32, 32)
    machine = Machine(lanes=8, banks=2, post_lanes=8, weight_memory="stream")
    report = check_all(build_case(SCALED, machine, frames=1).params, machine, 1)
    assert report.comparisons > 50_000


def test_models_are_chosen_by_their_images(tmp_path):
    random_params(SCALED, 0).save(tmp_path / "colour.safetensors")
    random_params(load_config("digits"), 0).save(tmp_path / "digits.safetensors")
    assert [path.name for path in cifar_models(tmp_path)] == ["colour.safetensors"]
    shipped = {path.name for path in FOLDER.glob("*.safetensors")}
    assert {path.name for path in cifar_models(FOLDER)} == {
        name for name in shipped if not name.startswith("digits")
    }


@pytest.mark.wide
@pytest.mark.parametrize("weights", ["rom", "stream"])
@pytest.mark.parametrize("path", cifar_models(FOLDER), ids=lambda path: path.stem)
def test_shipped_models(path, weights):
    """Both weight memories, two images, all layers, 0 differences."""
    machine = load_machine("digits").model_copy(update={"weight_memory": weights})
    report = check_all(Params.load(path), machine, 2)
    assert 0.3 < report.utilisation < 1


@pytest.mark.wide
def test_whole_paper_network():
    """All of S2TDPT-4-384, with random weights, streamed: 9.3 M weights, half a million cycles."""
    network = load_config("s2tdpt-4-384")
    machine = Machine(lanes=128, banks=8, post_lanes=16, weight_memory="stream")
    report = check_all(build_case(network, machine, frames=1).params, machine, 1)
    assert report.tensors == 47
    assert report.utilisation > 0.5
    assert np.all(np.array(report.frame_cycles) > 300_000)
