"""Whole accelerators: lint, no multiplier, the same text every time; the published sizes with -m wide."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from s2tdpt.golden.config import CONFIG_DIRECTORY, load_config
from s2tdpt.golden.params import Params, random_params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.verilog import emit, lint, read_ports
from tests.hw.test_core import CASES

MULTIPLICATION = re.compile(r"[\w\])}] ?\* ?[\w({]|\*\*")
"""A product between two operands; attributes ``(* *)`` and comments are stripped first."""


def products(verilog: str) -> list[str]:
    """Lines that multiply."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*|\(\*.*?\*\)", "", verilog, flags=re.DOTALL)
    text = re.sub(r"@ ?\*|@ ?\( ?\* ?\)", "", text)
    return [line for line in text.splitlines() if MULTIPLICATION.search(line)]


def check(path, verilog: str) -> None:
    """Lint with every warning on; no line multiplies or divides."""
    path.write_text(verilog)
    lint([path], "s2tdpt")
    assert products(verilog) == []


def test_products_are_seen():
    assert products("assign y = a * b;\nassign z = a[3:0]*(b);\nw <= x ** 2;\n") == [
        "assign y = a * b;",
        "assign z = a[3:0]*(b);",
        "w <= x ** 2;",
    ]
    assert products("always @* begin\n(* keep *) wire a; // a * b\nalways @(*) c = a;\n") == []


def digits_accelerator() -> Accelerator:
    """The shipped network on the default machine."""
    params = Params.load(CONFIG_DIRECTORY.parent / "models" / "digits.safetensors")
    return Accelerator(params, HardwareConfig())


@pytest.fixture(scope="module")
def digits_text() -> str:
    return emit(digits_accelerator(), "s2tdpt")


def test_digits_lints_clean_and_has_no_multiplier(tmp_path, digits_text):
    check(tmp_path / "digits.v", digits_text)


@pytest.mark.parametrize("name", ["one_step", "one_pixel", "one_lane", "streamed_int4"])
def test_extreme_shapes_lint_clean(tmp_path, name):
    """One time step, one token, one lane: what has no bits is not written as a vector."""
    network, hardware = CASES[name]
    text = emit(Accelerator(random_params(network, 0), hardware), "s2tdpt")
    check(tmp_path / "top.v", text)
    assert "[-1:0]" not in text


def test_digits_text_is_the_same_in_another_process(tmp_path, digits_text):
    """Hash seeds differ between processes, and with them the order of sets."""
    program = (
        "import sys; from tests.hw.test_top import digits_accelerator, emit;"
        "open(sys.argv[1], 'w').write(emit(digits_accelerator(), 's2tdpt'))"
    )
    subprocess.run(
        [sys.executable, "-c", program, tmp_path / "text.v"],
        cwd=Path(__file__).parents[2],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )
    assert (tmp_path / "text.v").read_text() == digits_text


def test_digits_ports(digits_text):
    ports = {port.name: port for port in read_ports(digits_text, "s2tdpt")}
    assert {
        "aclk",
        "aresetn",
        "s_axis_tdata",
        "s_axis_tvalid",
        "s_axis_tready",
        "s_axis_tlast",
        "m_axis_tdata",
        "m_axis_tvalid",
        "m_axis_tready",
        "m_axis_tlast",
        "busy",
        "error_short",
        "error_long",
    } <= ports.keys()
    assert not any(name.startswith("s_axis_weights") for name in ports)
    assert ports["s_axis_tdata"].width == 8
    assert ports["m_axis_tdata"].width in (32, 64)


@pytest.mark.wide
@pytest.mark.parametrize("name", ["s2tdpt-2-128", "s2tdpt-2-384", "s2tdpt-4-256", "s2tdpt-4-384"])
def test_published_sizes_with_streamed_weights(tmp_path, name):
    """Random parameters; only a tile of weights at a time is on chip, so the text stays small."""
    hardware = HardwareConfig(weight_memory="stream")
    verilog = emit(Accelerator(random_params(load_config(name), 0), hardware), "s2tdpt")
    check(tmp_path / "top.v", verilog)
    assert "s_axis_weights_tdata" in {port.name for port in read_ports(verilog, "s2tdpt")}
