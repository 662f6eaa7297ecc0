"""Whole accelerators: lint, no multiplier, the same text every time; the published sizes with -m wide."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from s2tdpt.golden.config import CONFIG_DIRECTORY, load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params, random_params
from s2tdpt.hw.machine import Machine, load_machine, named_machines
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


def verilog_of(accelerator: Accelerator) -> str:
    return emit(accelerator, "s2tdpt", accelerator.ports())


def text_of(case: str) -> str:
    """A case of the core's tests."""
    network, machine = CASES[case]
    return verilog_of(Accelerator(random_params(network, 0), machine))


@pytest.fixture(scope="module")
def digits_text() -> str:
    """The shipped network on the machine that is the default."""
    params = Params.load(CONFIG_DIRECTORY.parent / "models" / "digits.safetensors")
    return verilog_of(Accelerator(params, load_machine()))


def test_digits_lints_clean_and_has_no_multiplier(tmp_path, digits_text):
    check(tmp_path / "digits.sv", digits_text)


NARROW = ("one_step", "one_pixel", "one_lane", "streamed_int4", "pixels_wider_than_a_word")


@pytest.mark.parametrize(
    "name", [*NARROW, *(pytest.param(name, marks=pytest.mark.wide) for name in CASES if name not in NARROW)]
)
def test_odd_shapes_lint_clean(tmp_path, name):
    """One time step, one token, one lane: what has no bits is not written as a vector."""
    text = text_of(name)
    check(tmp_path / "top.sv", text)
    assert "[-1:0]" not in text


def test_observed_text_lints_clean(tmp_path):
    network, machine = CASES["two_banks"]
    check(tmp_path / "top.sv", verilog_of(Accelerator(random_params(network, 0), machine, observed=True)))


def test_text_is_the_same_in_every_process(tmp_path):
    """Hash seeds differ between processes, and with them the order of sets."""
    program = (
        "import sys; from tests.hw.test_top import text_of;"
        "open(sys.argv[1], 'w').write(text_of('two_banks') + text_of('streamed'))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / f"{seed}.sv"],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "1.sv").read_text() == (tmp_path / "2.sv").read_text()


def test_digits_ports(digits_text):
    ports = {port.name: port for port in read_ports(digits_text, "s2tdpt")}
    assert set(ports) == {
        *("aclk", "aresetn", "busy", "error_short", "error_long"),
        *("s_axis_tdata", "s_axis_tvalid", "s_axis_tready", "s_axis_tlast"),
        *("m_axis_tdata", "m_axis_tvalid", "m_axis_tready", "m_axis_tlast"),
    }
    assert ports["s_axis_tdata"].width == 8
    assert ports["m_axis_tdata"].width in (32, 64)


@pytest.mark.wide
@pytest.mark.parametrize("name", ["s2tdpt-2-128", "s2tdpt-2-384", "s2tdpt-4-256", "s2tdpt-4-384"])
def test_published_sizes_with_streamed_weights(tmp_path, name):
    """Random parameters; only some tiles of weights at a time are on chip, so the text stays small."""
    machine = Machine(weight_memory="stream")
    verilog = verilog_of(Accelerator(random_params(load_config(name), 0), machine))
    check(tmp_path / "top.sv", verilog)
    assert "s_axis_weights_tdata" in {port.name for port in read_ports(verilog, "s2tdpt")}


@pytest.mark.wide
@pytest.mark.parametrize("weight_memory", ["rom", "stream"])
@pytest.mark.parametrize("name", named_machines())
def test_named_machines_lint_clean(tmp_path, name, weight_memory):
    machine = load_machine(name).model_copy(update={"weight_memory": weight_memory})
    check(tmp_path / "top.sv", verilog_of(Accelerator(random_params(load_config("digits"), 0), machine)))


def test_more_memory_than_can_be_generated():
    """65,536 pixels: refused at once, with what helps, rather than after an hour and for want of memory."""
    network, machine = CASES["two_banks"]
    tall = network.model_copy(update={"image_height": 65536, "image_width": 1, "sps_channels": (48, 96)})
    message = (
        r"^tiny on machine custom has [\d,]+ bits of memory, most of them in residual U; expected at most "
    )
    with pytest.raises(UserError, match=message + "100,663,296; change residual_fraction_bits, post_lanes$"):
        Accelerator(random_params(tall, 0), machine)
