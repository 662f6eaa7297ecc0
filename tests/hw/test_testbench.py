"""The testbench and the FuseSoC core of a package: they pass as shipped, and planted faults are noticed."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.blocks.images import stream_beats
from s2tdpt.hw.package import folder as package
from s2tdpt.hw.package.fusesoc import core_file
from s2tdpt.hw.package.testbench import WEIGHTS, chosen_image
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.tools.external import ToolError, run_tool, tool_environment
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.verilog import emit
from s2tdpt.sim.cases import build_case, network

MACHINE = Machine(lanes=8, banks=2, post_lanes=4)
MEMORIES = ("rom", "stream")


def build(memory):
    return build_case(network(), MACHINE.model_copy(update={"weight_memory": memory}), seed=3, frames=1)


def flipped(case):
    """The same parameters but for the lowest bit of a weight of the head, that the image's sums do reach."""
    channel = int(np.flatnonzero(case.golden["head.sum"][0])[0])
    weight = case.params.tensors["head.weight"].copy()
    weight[0, channel] ^= 1
    return replace(case.params, tensors={**case.params.tensors, "head.weight": weight})


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A package for every weight memory, and the case that it was made from."""
    made = {}
    for memory in MEMORIES:
        case = build(memory)
        folder = tmp_path_factory.mktemp("packages") / memory
        made[memory] = case, package.generate(case.params, case.machine, folder, "top", image=case.images[0])
    return made


@pytest.fixture(scope="module", params=MEMORIES)
def controlled(request, tmp_path_factory):
    """A package with registers."""
    case = build(request.param)
    folder = tmp_path_factory.mktemp("packages") / "controlled"
    package.generate(case.params, case.machine, folder, "top", registers=True, image=case.images[0])
    return folder


@pytest.fixture
def copied(packages, tmp_path):
    """A case, and its package in a folder of the test's own."""

    def copy(memory="rom"):
        case, folder = packages[memory]
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        return case, tmp_path

    return copy


def simulate(folder):
    """Exit code and output of the testbench in Icarus, as docs/files.md says."""
    run_tool("iverilog", ["-g2012", "-s", "top_tb", "-o", "top.vvp", "-c", "top.f", "top_tb.sv"], cwd=folder)
    ran = subprocess.run(["vvp", "-n", "top.vvp"], cwd=folder, capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout


def fails(folder, message):
    code, output = simulate(folder)
    assert code != 0 and "PASS" not in output
    assert re.search(message, output), output


@pytest.mark.parametrize("memory", MEMORIES)
def test_package_passes_as_shipped(copied, memory):
    case, folder = copied(memory)
    code, output = simulate(folder)
    assert code == 0 and "FAIL" not in output
    assert re.search(rf"^PASS: {case.params.config.num_classes + 1} words as expected", output, re.MULTILINE)


def test_registers_are_checked(controlled, tmp_path):
    for path in controlled.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    code, output = simulate(tmp_path)
    assert code == 0 and "PASS: 4 words" in output and "FAIL" not in output
    before = (tmp_path / "top_tb.sv").read_text()
    for pattern, text, message in (
        (r"check_register\(20, 32'h0", "check_register(20, 32'h1", "FAIL: register 14 is "),  # CYCLES
        (r"check_register\(92, 32'h\w{8}", "check_register(92, 32'h0", "FAIL: register 5c is "),
        (r"check_register\(0,", "check_register(44,", "answer 2; expected 53325444"),
        (r"write_register\(8, 1\)", "write_register(8, 0)", "FAIL: 0 of 4 words after"),
        (r"write_register\(8, 1\)", "write_register(4, 1)", "FAIL: writing register 4 is answered with 2"),
    ):
        after = re.sub(pattern, text, before, count=1)
        assert after != before
        (tmp_path / "top_tb.sv").write_text(after)
        fails(tmp_path, message)


@pytest.mark.wide
def test_verilator_agrees(copied):
    _, folder = copied()
    flags = ["--binary", "--top-module", "top_tb", "-MAKEFLAGS", "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"]
    run_tool("verilator", [*flags, "lint.vlt", "-F", "top.f", "top_tb.sv"], cwd=folder)

    def run():
        return subprocess.run(["obj_dir/Vtop_tb"], cwd=folder, capture_output=True, text=True, timeout=60)

    good = run()
    assert good.returncode == 0 and "PASS: 4 words" in good.stdout
    words = (folder / "result.hex").read_text().splitlines()
    (folder / "result.hex").write_text("\n".join(["0badcafe", *words[1:]]) + "\n")
    bad = run()
    assert bad.returncode != 0 and "FAIL: word 0 is " in bad.stdout and "PASS" not in bad.stdout


def test_a_flipped_weight_in_the_rom_fails(copied):
    case, folder = copied()
    altered = Accelerator(flipped(case), case.machine)
    (folder / "top.sv").write_text(emit(altered, "top", altered.ports()))
    fails(folder, r"FAIL: word 0 is -?\d+, tlast 0; expected -?\d+, tlast 0")


def test_a_flipped_weight_in_the_stream_fails(copied):
    case, folder = copied("stream")
    accelerator = Accelerator(case.params, case.machine)
    beats = stream_beats(flipped(case), accelerator.program, accelerator.widths)
    (folder / WEIGHTS).write_text("".join(f"{beat:x}\n" for beat in beats))
    fails(folder, r"FAIL: word 0 is -?\d+, tlast 0; expected -?\d+, tlast 0")


FAULTS = {
    "another class": ("result.hex", r"\n\w+\n$", "\n00000007\n", "FAIL: word 3 is "),
    "no memory": ("top_tb.sv", "result.hex", "nothing.hex", "FAIL: word 0 is "),
    "a cycle later": ("top_tb.sv", r"LAST_WORD = (\d+)", r"LAST_WORD = 1\1", r"was taken in cycle \d+; exp"),
    "never an answer": (
        "top_tb.sv",
        r"\.s_axis_tvalid\(s_axis_tvalid\)",
        ".s_axis_tvalid(1'b0)",
        "FAIL: 0 of",
    ),
    "a short image": ("top_tb.sv", r"sent == BYTES - 1;", "sent == BYTES - 2;", "FAIL: 0 of 4 words after"),
    "an answer too much": ("top_tb.sv", r"WORDS = 4;", "WORDS = 3;", "FAIL: a word too many"),
    "unknown words": ("top_tb.sv", r"\.m_axis_tdata\(m_axis_tdata\)", ".m_axis_tdata()", "FAIL: word 0 is "),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_fail(copied, name):
    file, pattern, text, message = FAULTS[name]
    _, folder = copied()
    before = (folder / file).read_text()
    after = re.sub(pattern, text, before, count=1)
    assert after != before
    (folder / file).write_text(after)
    fails(folder, message)


def test_image_of_the_testbench():
    case = build("rom")
    noise = chosen_image(case.params.config)
    assert noise.shape == (5, 4, 1) and noise.dtype == np.uint8
    assert np.array_equal(noise, chosen_image(case.params.config))
    colour = network(image_height=32, image_width=32, image_channels=3)
    assert chosen_image(colour).shape == (32, 32, 3) and 20 < chosen_image(colour).mean() < 235


@pytest.mark.parametrize("image", [np.zeros((4, 5, 1), np.uint8), np.zeros((5, 4, 1), np.int64)])
def test_image_that_does_not_fit(tmp_path, image):
    case = build("rom")
    with pytest.raises(UserError) as error:
        package.generate(case.params, case.machine, tmp_path / "made", "top", image=image)
    assert str(error.value) == (
        f"the image of the testbench is {image.dtype} {list(image.shape)}; expected uint8 [5, 4, 1]; "
        "give another one"
    )
    assert not list(tmp_path.iterdir())


# --- FuseSoC ---------------------------------------------------------------------------------------------


def fusesoc(folder, work, *words):
    """Run FuseSoC with the package as its only library; its settings and caches stay in `work`."""
    work.mkdir(exist_ok=True)
    environment = tool_environment("verilator", "iverilog")
    places = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")
    environment |= dict.fromkeys(places, str(work))
    command = [sys.executable, "-c", "from fusesoc.main import main; main()", "--cores-root", str(folder)]
    ran = subprocess.run(
        [*command, *words], cwd=work, env=environment, capture_output=True, text=True, timeout=120
    )
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize("memory", MEMORIES)
def test_fusesoc_accepts_lints_and_simulates(packages, memory, tmp_path):
    _, folder = packages[memory]
    before = sorted(os.listdir(folder))
    code, text = fusesoc(folder, tmp_path / "work", "core", "show", "top")
    assert code == 0 and re.search(r"Name: +s2tdpt:generated:top:\d+\.\d+\.\d+", text), text
    code, text = fusesoc(folder, tmp_path / "work", "run", "--target", "lint", "top")
    assert code == 0 and "%Warning" not in text, text
    code, text = fusesoc(folder, tmp_path / "work", "run", "--target", "sim", "top")
    assert code == 0 and "PASS: 4 words" in text, text
    assert sorted(os.listdir(folder)) == before


def test_fusesoc_notices_faults(copied, tmp_path_factory):
    _, folder = copied()
    work = tmp_path_factory.mktemp("work")
    (folder / "result.hex").write_text("0\n1\n2\n3\n")
    code, text = fusesoc(folder, work, "run", "--target", "sim", "top")
    assert code != 0 and "FAIL: word 0 is " in text
    lines = (folder / "top.sv").read_text()
    (folder / "top.sv").write_text(lines.replace("endmodule", "wire [3:0] a = 4'd1 + 5'd2;\nendmodule", 1))
    code, text = fusesoc(folder, work, "run", "--target", "lint", "top")
    assert code != 0 and "%Warning-WIDTHTRUNC" in text
    (folder / "top.core").write_text(core_file("top", "0.1.0", ["top_tb.sv"]).replace("toplevel", "topmost"))
    assert fusesoc(folder, work, "run", "--target", "lint", "top")[0] != 0


def test_core_without_a_testbench_has_no_simulation():
    assert '"sim"' not in core_file("sender", "0.2.0", ["sender.sv", "lint.vlt"])


def test_testbench_that_does_not_compile_is_an_error(copied):
    _, folder = copied()
    (folder / "top_tb.sv").write_text("module top_tb; nothing endmodule\n")
    with pytest.raises(ToolError):
        simulate(folder)
