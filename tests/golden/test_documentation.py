"""docs/parameters.md names everything that it has to explain."""

from pathlib import Path

import pytest

from s2tdpt.golden import parameter_file, strictjson
from s2tdpt.golden.config import NetworkConfig, load_config
from s2tdpt.golden.parameter_file import tensor_layout
from s2tdpt.golden.rates import PUBLISHED, Rates
from s2tdpt.golden.trace import trace_names
from tests.golden.shapes import SHAPES, params_for

PAGE = (Path(__file__).parents[2] / "docs" / "parameters.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("field", NetworkConfig.model_fields)
def test_configuration_fields(field):
    assert f"`{field}`" in PAGE


def test_manifest_tensors_traces_and_widths():
    params = params_for(SHAPES["base"])
    for key in params.manifest():
        assert f"`{key}`" in PAGE
    for name in tensor_layout(params.config):
        last = name.rpartition(".")[2]
        assert f".{last}`" in PAGE
    for name in trace_names(params.config):
        assert f".{name.rpartition('.')[2]}`" in PAGE
    for kind in {name.partition(".")[0] for name in params.manifest()["widths"]}:
        assert f"`{kind}`" in PAGE


def test_calibrated_rates_and_limits():
    rates = Rates()
    rows = {
        "the stem's convolutions, behind the pool": ("convolution", rates.convolution),
        "q, k, v": ("qkv", rates.qkv),
        "proj": ("projection", rates.projection),
        "fc1": ("fc1", rates.fc1),
        "fc2": ("fc2", rates.fc2),
    }
    for text, (name, rate) in rows.items():
        low, high = (f"{100 * value:g}" for value in PUBLISHED[name])
        assert f"| input of {text} | {low}-{high} % | {100 * rate:g} % |" in PAGE
    assert f"| spikes of q, of k | | {100 * rates.q:g} %, {100 * rates.k:g} %," in PAGE
    mean = 100 * rates.synaptic(load_config("s2tdpt-4-384"))
    assert f"the defaults average {mean:.2f} %" in PAGE
    header, tensors = parameter_file.LARGEST_HEADER >> 20, parameter_file.LARGEST_FILE >> 30
    assert f"header and manifest at most {header} MiB, tensors at most {tensors} GiB" in PAGE
    assert f"A configuration file: {strictjson.LARGEST >> 20} MiB" in PAGE
