"""The shipped parameter files do what their manifests say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import golden
from golden.config import load_config
from golden.network import GoldenNetwork
from golden.params import Params
from sw.datasets import load_dataset
from sw.evaluate import is_spikes, verify_equal
from sw.export import from_params
from sw.settings import TrainSettings, default_settings

MODELS = sorted((Path(golden.__file__).parent / "models").glob("*.safetensors"))


def test_the_digits_model_is_there():
    assert "digits.safetensors" in [path.name for path in MODELS]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_accuracy_is_the_recorded_one_and_attention_is_alive(path):
    params, data = Params.load(path), load_dataset("digits")
    assert params.config.differences(load_config("digits")) in ([], ["weight_bits: 4, 8"])
    trace = GoldenNetwork(params).trace(data.test_images)
    accuracy = float((trace["head.class"].numpy() == data.test_labels).mean())
    assert accuracy == params.provenance["accuracy"]["integer"] >= 0.975
    for name, value in trace.items():
        if is_spikes(name):
            rate = float(value.double().mean())
            assert round(rate, 6) == params.provenance["firing_rates"][name], name
            assert 0.004 < rate < 0.25, (name, rate)
        if name.endswith((".q", ".k")):
            counts = value.long().unflatten(-1, (params.config.heads, -1)).sum(-1).flatten().numpy()
            assert np.count_nonzero(np.bincount(counts) > 100) >= 8, name  # counts that differ


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_training_network_and_golden_network_are_equal(path):
    params = Params.load(path)
    images = load_dataset("digits").test_images[:48]
    result = verify_equal(from_params(params), GoldenNetwork(params), images)
    assert result.equal, result.difference


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_provenance_is_the_documented_command(path):
    known = Params.load(path).provenance
    rate = 3.0 if "--rate-weight 3 " in known["command"] else 1.0
    # Settings that came later have the values under which the model was trained as their defaults.
    assert TrainSettings(**known["settings"]) == replace(default_settings("digits"), rate_weight=rate)
    guide = (Path(golden.__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    assert known["command"] in guide and known["command"].startswith("s2tdpt train ")
