"""The shipped parameter files do what their manifests say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import s2tdpt.golden
from s2tdpt.golden.config import load_config
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.golden.samples import sample_images
from s2tdpt.golden.trace import spike_traces
from s2tdpt.sw.card import model_card
from s2tdpt.sw.datasets import load_dataset
from s2tdpt.sw.evaluate import verify_equal
from s2tdpt.sw.export import from_params
from s2tdpt.sw.settings import TrainSettings, default_settings

FOLDER = Path(s2tdpt.golden.__file__).parent / "models"
MODELS = sorted(FOLDER.glob("digits*.safetensors"))
CIFAR_MODELS = sorted(set(FOLDER.glob("*.safetensors")) - set(MODELS))
GUIDE = Path(s2tdpt.golden.__file__).parents[1] / "docs" / "training.md"
LARGEST_FILE = 10_000_000


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
        if name in spike_traces(params.config):
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
    assert known["command"] in GUIDE.read_text(encoding="utf-8")
    assert known["command"].startswith("s2tdpt train ")


# ------------------------------------------------------------------------------------------ CIFAR-10


def test_a_cifar_model_of_each_width_is_there():
    assert {Params.load(path).config.weight_bits for path in CIFAR_MODELS} == {4, 8}
    assert all(path.stat().st_size < LARGEST_FILE for path in FOLDER.iterdir())


@pytest.mark.parametrize("path", CIFAR_MODELS, ids=lambda path: path.stem)
def test_cifar_models_are_what_their_card_and_manifest_say(path):
    params = Params.load(path)
    known, named = params.provenance, load_config(params.config.name)
    assert params.config.differences(named) in ([], ["weight_bits: 4, 8"])
    assert path.with_suffix(".md").read_text(encoding="utf-8") == model_card(params, path.stem)
    assert known["command"] in GUIDE.read_text(encoding="utf-8")
    assert TrainSettings(**known["settings"]).seed == known["seed"]
    edition = "official" if "official" in path.stem else "JPEG q75"
    assert known["data"] == f"CIFAR-10 ({edition})" and len(known["digest"]) == 64
    assert known["accuracy"]["test_images"] == 10_000
    assert known["accuracy"]["qat"] == known["accuracy"]["integer"]


@pytest.mark.parametrize("path", CIFAR_MODELS, ids=lambda path: path.stem)
def test_cifar_models_see_real_images_and_equal_the_training_network(path):
    params = Params.load(path)
    images, labels, _ = sample_images(params.config)
    golden_network = GoldenNetwork(params)
    result = verify_equal(from_params(params), golden_network, images[:4])
    assert result.equal, result.difference
    right = int((golden_network.classify(images).numpy() == labels).sum())
    assert right >= 8  # of 16; chance is 1.6
    trace = golden_network.trace(images)
    for b in range(params.config.depth):
        for part in ("q", "k", "v", "attn"):
            # The networks trained on official pixels have a nearly saturated attention; their cards say so.
            highest = 0.75 if part == "attn" and "official" in path.stem else 0.4
            assert 0.001 < float(trace[f"block.{b}.{part}"].double().mean()) < highest, (b, part)
