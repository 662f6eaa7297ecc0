"""Configurations: the named ones, their counts, and one line for every mistake."""

import json
import math

import pytest
from pydantic import ValidationError

from s2tdpt.golden.attention.ssa import Ssa
from s2tdpt.golden.complexity import macs, memory, neurons, parameter_count
from s2tdpt.golden.config import config_from_dict, load_config, named_configs, with_attention
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.trace import spike_traces, trace_shapes
from tests.golden.shapes import SHAPES, make_config


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("s2tdpt-4-384", 9_320_122),
        ("s2tdpt-4-384-cifar100", 9_354_772),
        ("s2tdpt-4-256", 4_152_106),
        ("s2tdpt-2-384", 5_762_746),
    ],
)
def test_parameter_counts_of_the_paper(name, count):
    assert parameter_count(load_config(name)) == count


def test_macs_by_layer():
    counts = macs(load_config("s2tdpt-4-384"))
    million = {layer: round(count / 1e6, 3) for layer, count in counts.items()}
    assert [million[f"sps.{i}"] for i in range(5)] == [1.327, 42.467, 169.869, 169.869, 84.935]
    for b in range(4):
        assert [million[f"block.{b}.{p}"] for p in ("q", "k", "v", "proj")] == [9.437] * 4
        assert million[f"block.{b}.qk"] == million[f"block.{b}.av"] == 1.573
        assert million[f"block.{b}.fc1"] == million[f"block.{b}.fc2"] == 37.749
    assert counts["head"] == 3840
    assert sum(counts.values()) == 934_039_296
    # The published total is that of the 100-class head.
    assert round(sum(macs(load_config("s2tdpt-4-384-cifar100")).values()) / 1e6, 2) == 934.07
    assert sum(neurons(load_config("s2tdpt-4-384")).values()) == 1_425_408


@pytest.mark.parametrize("name", SHAPES)
def test_counts_agree_with_the_traces(name):
    config = SHAPES[name]
    shapes = trace_shapes(config)
    by_trace = {
        trace: math.prod(shapes[trace]) // config.timesteps
        for trace in spike_traces(config)
        if not trace.endswith("pooled")
    }
    assert neurons(config) == by_trace
    assert memory(config)["residual_values"] == math.prod(shapes["sps.u"])
    assert list(macs(config))[0] == "sps.0" and list(macs(config))[-1] == "head"


def test_named_configurations():
    assert set(named_configs()) == {
        "digits",
        "s2tdpt-4-384",
        "s2tdpt-4-384-h48",
        "s2tdpt-4-384-int4",
        "s2tdpt-4-256",
        "s2tdpt-2-384",
        "s2tdpt-4-384-cifar100",
        "s2tdpt-2-128",
        "s2tdpt-2-128-h16",
    }
    for name in named_configs():
        config = load_config(name)
        assert config.name == name
        assert config_from_dict(json.loads(config.model_dump_json())) == config
    digits = load_config("digits")
    assert (digits.tokens, digits.embed_dim, digits.head_dim, digits.hidden_dim) == (16, 64, 32, 256)
    assert (digits.residual_threshold, digits.attention_threshold) == (2048, 1024)
    large = load_config("s2tdpt-4-256")
    assert (large.head_dim, large.tokens, large.map_size(3), large.map_size(4)) == (32, 64, (16, 16), (8, 8))


def test_layers_and_shapes():
    config = make_config()
    names = [f"block.0.{p}" for p in ("q", "k", "v", "proj", "fc1", "fc2")]
    assert config.layer_names() == ("sps.0", "sps.1", *names, "head")
    writers = [layer for layer in config.layer_names() if config.is_writer(layer)]
    assert writers == ["sps.1", "block.0.proj", "block.0.fc2"]
    assert config.weight_shape("sps.1") == (12, 6, 3, 3)
    assert config.weight_shape("block.0.fc1") == (24, 12)
    assert config.weight_shape("block.0.fc2") == (12, 24)
    assert config.weight_shape("head") == (5, 12)
    assert make_config(image_height=7, image_width=1).map_size(1) == (4, 1)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        make_config().timesteps = 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lanes": 4}, "unknown field 'lanes'"),
        ({"timesteps": 0}, "'timesteps' is 0; expected greater than or equal to 1"),
        ({"timesteps": 9}, "'timesteps' is 9; expected less than or equal to 8"),
        ({"timesteps": "4"}, "'timesteps' is '4'"),
        ({"timesteps": True}, "'timesteps' is True"),
        ({"heads": 5}, "heads 5 does not divide the embedding width 12"),
        ({"sps_channels": []}, "'sps_channels' is []"),
        ({"sps_channels": [4, 6, 12]}, "sps_pool has 2 entries but sps_channels has 3"),
        ({"sps_pool": [True, False]}, "sps_pool[0] is true"),
        ({"weight_bits": 6}, "'weight_bits' is 6; expected 4 or 8"),
        ({"pixel_zero_point": 1}, "'pixel_zero_point' is 1; expected 0 or 128"),
        ({"attention": {"kind": "stdp", "amplitude": 128}}, "'attention.amplitude' is 128"),
        ({"attention": {"kind": "stdp", "offset": 127}}, "STDP weights would span 0..254"),
        ({"attention": {"kind": "stdp", "offset": 129}}, "STDP weights would span 2..256"),
        ({"v_threshold": 0.3}, "the residual threshold"),
        ({"v_threshold": float("nan")}, "'v_threshold' is nan"),
        ({"attention": {"kind": "stdp", "kappa": 0.0}}, "'attention.kappa' is 0.0"),
        ({"kappa": 0.125}, "unknown field 'kappa'; expected only name, image_height"),
        (
            {"attention": {"kind": "ssa", "kappa": 1}},
            "unknown field 'attention.kappa'; expected only kind, scale_log2",
        ),
        ({"attention": {"kind": "softmax"}}, "attention.kind is 'softmax'; expected one of stdp, ssa, "),
        ({"attention": {"kappa": 0.125}}, "attention.kind is missing; expected one of stdp, ssa, "),
        ({"attention": "stdp"}, "'attention' is 'stdp'"),
        ({"name": "../x"}, "'name' is '../x'"),
        ({"name": ""}, "'name' is ''"),
        ({"num_classes": 1}, "'num_classes' is 1"),
    ],
)
def test_mistakes_are_one_line(change, words):
    with pytest.raises(UserError) as error:
        make_config(**change)
    message = str(error.value)
    assert words in message and "\n" not in message and message.count(";") >= 2


def test_missing_field():
    values = json.loads(make_config().model_dump_json())
    del values["heads"]
    with pytest.raises(UserError, match="field 'heads' is missing"):
        config_from_dict(values)


def test_files(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(make_config().model_dump_json())
    assert load_config(path) == make_config() == load_config(str(path))
    path.write_text("{")
    with pytest.raises(UserError, match=r"not valid JSON \(no JSON at line 1, column 2\)"):
        load_config(path)
    path.write_text("[1]")
    with pytest.raises(UserError, match="holds a JSON list"):
        load_config(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not valid JSON"):
        load_config(path)
    with pytest.raises(UserError, match="no configuration 'cifar'.*digits"):
        load_config("cifar")


def test_another_attention():
    config = with_attention(make_config(), "ssa")
    assert config.name == "tiny-ssa" and config.attention == Ssa()
    config = with_attention(make_config(), '{"kind": "ssa", "scale_log2": 1}')
    assert config.attention_threshold == 2
    for text, words in (
        ("softmax", "attention 'softmax': attention.kind is 'softmax'; expected one of stdp, ssa, "),
        ('{"kind": ', "is no JSON"),
        ('{"kind": "ssa", "kappa": 1}', "unknown field 'attention.kappa'; expected only kind, scale_log2"),
    ):
        with pytest.raises(UserError) as error:
            with_attention(make_config(), text)
        assert words in str(error.value) and "\n" not in str(error.value)
