"""docs/parameters.md names everything that it has to explain."""

from pathlib import Path

import pytest

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.parameter_file import tensor_layout
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
