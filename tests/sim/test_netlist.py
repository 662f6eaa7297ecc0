"""The accelerator after synthesis equals the golden model; a planted fault in one cell does not pass."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.shipped import load
from s2tdpt.hw.machine import Machine, load_machine
from s2tdpt.hw.mapped import DP16KD
from s2tdpt.hw.tools import run_tool
from s2tdpt.scripts.cli import main
from s2tdpt.sim.cases import build_case, network
from s2tdpt.sim.cosim import Options
from s2tdpt.sim.design import generate
from s2tdpt.sim.netlist import cosimulate_netlist, result_ends, simulate
from s2tdpt.sw.datasets import load_dataset

QUICK = Options(simulator="icarus" if shutil.which("iverilog") else "verilator")
MACHINE = Machine(lanes=6, banks=2, post_lanes=3)


@pytest.fixture(scope="module")
def case():
    return build_case(network(image_height=2, image_width=2, timesteps=1), MACHINE, seed=3, frames=3)


def flipped(cell: str):
    """A change of one bit of the INIT of one LUT, the middle one of the netlist."""

    def change(netlist: str) -> str:
        places = [m.end() for m in re.finditer(rf"  cell \\{cell} .*\n    parameter \\INIT 16'", netlist)]
        place = places[len(places) // 2] + 15
        return netlist[:place] + "10"[int(netlist[place])] + netlist[place + 1 :]

    return change


def test_ports_alone_show_results_and_their_cycles(case):
    """The comparison itself, on the design before synthesis; a result that is late is found."""
    design = generate(case.params, MACHINE, observed=False)
    assert "probe_" not in re.search(r"module s2tdpt_accelerator\((.*?)\);", design.verilog, re.S)[1]
    report = simulate(design, case.images, QUICK, lambda text: None)
    assert report.ok and report.comparisons == 3 * (case.params.config.num_classes + 1) + 3
    bias = case.params.tensors["head.bias"] + 1
    other = replace(case.params, tensors={**case.params.tensors, "head.bias": bias})
    wrong = simulate(replace(design, params=other), case.images, QUICK, lambda text: None)
    assert not wrong.ok and wrong.first().startswith("head.logits: image 0")
    trace = {name: value.numpy() for name, value in GoldenNetwork(case.params).trace(case.images).items()}
    ends = result_ends(design.program, trace, case.images, [10, 20, 30])
    later = result_ends(design.program, trace, case.images, [11, 20, 30])
    assert later[0] == ends[0] + 1


MEMORY = """\
module memory(input clk, input [{a}:0] wa, ra, input [{w}:0] d, input we, re, output reg [{w}:0] q);
  (* ram_style = "block" *) reg [{w}:0] words [0:{last}];
  integer i;
  initial for (i = 0; i <= {last}; i = i + 1) words[i] = i * 40503 + (i >> 3);
  always @(posedge clk) begin
    if ({writes}) words[wa] <= d;
    if (re) q <= words[ra];
  end
endmodule
"""
BENCH = """\
module bench;
  reg clk = 0, we, re; reg [{a}:0] wa, ra; reg [{w}:0] d; wire [{w}:0] p, q; integer i, wrong = 0;
  memory one(clk, wa, ra, d, we, re, p);
  mapped two(clk, wa, ra, d, we, re, q);
  initial begin
    for (i = 0; i < 3000; i = i + 1) begin
      wa = $urandom % {words}; ra = i[4] ? wa : $urandom % {words};
      d = {{$urandom, $urandom}}; we = $urandom; re = $urandom;
      if (!i) re = 1;
      #1 clk = 1; #1 clk = 0;
      if (p !== q) wrong = wrong + 1;
    end
    $display("wrong %0d", wrong);
    $finish;
  end
endmodule
"""


@pytest.mark.wide
@pytest.mark.parametrize("writes", ["we", "0"], ids=["ram", "rom"])
@pytest.mark.parametrize("width, words", [(1, 16384), (4, 4096), (9, 2048), (18, 1024), (36, 512), (30, 700)])
def test_block_ram_is_the_memory_that_was_mapped(tmp_path, width, words, writes):
    """Written, read, and read while it is written: in cells and before mapping, the same. And a ROM."""
    names = {
        "a": (words - 1).bit_length() - 1,
        "w": width - 1,
        "last": words - 1,
        "words": words,
        "writes": writes,
    }
    (tmp_path / "memory.v").write_text(MEMORY.format(**names))
    (tmp_path / "dp16kd.v").write_text(DP16KD.read_text())
    (tmp_path / "map.ys").write_text(
        "read_verilog memory.v\nsynth_ecp5 -top memory\nselect -assert-min 1 t:DP16KD\n"
        "delete =A:blackbox =A:whitebox =A:lib_whitebox\nread_verilog -overwrite +/ecp5/cells_sim.v\n"
        "read_verilog -overwrite dp16kd.v\nhierarchy -check -top memory\nproc\nflatten\nopt_expr\nopt_clean\n"
        "memory_collect\nrename memory mapped\nwrite_verilog -noattr mapped.v\n"
    )
    run_tool("yosys", ["-q", "map.ys"], cwd=tmp_path)
    (tmp_path / "bench.v").write_text(BENCH.format(**names))
    run_tool("iverilog", ["-g2012", "-o", "bench", "memory.v", "mapped.v", "bench.v"], cwd=tmp_path)
    shown = subprocess.run(["vvp", "bench"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "wrong 0" in shown


@pytest.mark.wide
def test_small_netlist_of_an_fpga(case):
    assert cosimulate_netlist(
        case.params, MACHINE, case.images
    ).ok  # Verilator: Icarus takes far longer with cells


@pytest.mark.wide
def test_small_netlist_with_a_planted_fault(case):
    report = cosimulate_netlist(case.params, MACHINE, case.images, change=flipped("LUT4"))
    assert not report.ok and report.first()


@pytest.mark.wide
def test_digits_on_an_fpga():
    images = load_dataset("digits").test_images[:2]
    report = cosimulate_netlist(load("digits"), load_machine("digits"), np.asarray(images))
    assert report.ok, report.first()
    assert report.comparisons == 2 * 11 + 2


def test_what_a_netlist_does_not_show(tmp_path):
    for words, message in {
        ("--netlist", "ecp5", "--layers", 1): "--netlist and --layers exclude each other",
        ("--netlist", "ecp5", "--per-layer"): "--netlist and --per-layer exclude each other",
        ("--netlist", "missing.lib"): "no cell library missing.lib: No such file",
    }.items():
        result = CliRunner().invoke(main, ["cosim", *map(str, words)])
        assert result.exit_code == 2 and message in result.stderr
    with pytest.raises(UserError, match="a netlist gives no waveform"):
        images = np.zeros((1, 8, 8, 1), np.uint8)
        options = Options(waveform=tmp_path / "w.fst")
        cosimulate_netlist(load("digits"), load_machine("digits"), images, options=options)
