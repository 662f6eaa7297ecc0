"""The accelerator after synthesis equals the golden model; a planted fault in one cell does not pass."""

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.shipped import load
from s2tdpt.hw.ecp5_gates import map_to_ecp5
from s2tdpt.hw.gates import GateSimulator
from s2tdpt.hw.machine import Machine, load_machine
from s2tdpt.hw.netlist import Module
from s2tdpt.scripts.cli import main
from s2tdpt.sim.cases import build_case, network
from s2tdpt.sim.cosim import Options
from s2tdpt.sim.design import MODULE, generate
from s2tdpt.sim.netlist import ECP5, cosimulate_netlist, result_ends, simulate
from s2tdpt.sw.datasets import load_dataset

SIMPLE = Path(__file__).parent.parent / "hw" / "data" / "simple.lib"
MACHINE = Machine(lanes=6, banks=2, post_lanes=3)
OUTPUTS = {"LUT4": "Z", "PFUMX": "Z", "L6MUX21": "Z", "NAND2": "Y", "NOR2": "Y", "INV": "Y", "BUF": "Y"}
"""Of gates."""
FLOPS = {"TRELLIS_FF": ("Q", "DI"), "DFF": ("Q", "D")}


def small():
    return build_case(network(image_height=2, image_width=2, timesteps=1), MACHINE, seed=3, frames=3)


@pytest.fixture(scope="module")
def case():
    return small()


def cells_behind(module: Module, net: int) -> Iterator[dict]:
    """The cell that drives a net, and those behind its gates, as far as flip-flops."""
    drivers = {}
    for cell in module["cells"].values():
        pin = OUTPUTS.get(cell["type"]) or FLOPS.get(cell["type"], [None])[0]
        if pin in cell["connections"]:
            drivers[cell["connections"][pin][0]] = cell
    nets = [net]
    for net in nets:
        if (cell := drivers.get(net)) is not None:
            yield cell
            if cell["type"] not in FLOPS:
                nets += [bits[0] for bits in cell["connections"].values() if bits[0] not in nets]


def flop_of(module: Module, port: str, bit: int = 0) -> dict:
    """The flip-flop that a port shows."""
    cells = cells_behind(module, module["ports"][port]["bits"][bit])
    return next(cell for cell in cells if cell["type"] in FLOPS)


def other_table(module: Module) -> Module:
    """One LUT before the register of a result's bit holds the opposite."""
    cells = cells_behind(module, flop_of(module, "m_axis_tdata", 5)["connections"]["DI"][0])
    lut = next(cell for cell in cells if cell["type"] == "LUT4")
    lut["parameters"]["INIT"] = int(lut["parameters"]["INIT"], 2) ^ 0xFFFF
    return module


def other_start(module: Module) -> Module:
    """One flip-flop, that of `tvalid`, starts and is reset to the opposite."""
    flop = flop_of(module, "m_axis_tvalid")
    flop["parameters"]["REGSET"] = {"RESET": "SET", "SET": "RESET"}[flop["parameters"]["REGSET"]]
    return module


def swapped_carry(module: Module) -> Module:
    """One adder of the lanes gives its two sums on each other's pin."""
    found = [c for name, c in module["cells"].items() if c["type"] == "CCU2C" and "lane" in name]
    pins = next(c["connections"] for c in found[len(found) // 2 :] if {"S0", "S1"} <= set(c["connections"]))
    pins["S0"], pins["S1"] = pins["S1"], pins["S0"]
    return module


def swapped_flops(module: Module) -> Module:
    """Two bits of a result change places."""
    one, two = (flop_of(module, "m_axis_tdata", bit)["connections"] for bit in (4, 5))
    one["Q"], two["Q"] = two["Q"], one["Q"]
    return module


def other_gate(module: Module) -> Module:
    """One NAND gate before the register of `tvalid` is a NOR gate, or the other way round."""
    others = {"NAND2": "NOR2", "NOR2": "NAND2"}
    cells = cells_behind(module, flop_of(module, "m_axis_tvalid")["connections"]["D"][0])
    gate = next(cell for cell in cells if cell["type"] in others)
    gate["type"] = others[gate["type"]]
    return module


def kept_flop(module: Module) -> Module:
    """The flip-flop of `tvalid` takes its own state: no reset, no end."""
    pins = flop_of(module, "m_axis_tvalid")["connections"]
    pins["D"] = pins["Q"]
    return module


FAULTS = {
    ECP5: (other_table, other_start, swapped_carry, swapped_flops),
    str(SIMPLE): (other_gate, kept_flop, swapped_flops),
}
PLANTED = [(target, fault) for target, faults in FAULTS.items() for fault in faults]
NAMES = [f"{Path(target).stem}-{fault.__name__}" for target, fault in PLANTED]


def test_netlist_of_an_fpga(case):
    """Equal without pauses, cycles included, and with; other parameters and planted faults are noticed."""
    report = cosimulate_netlist(case.params, MACHINE, case.images)
    assert report.ok, report.first()
    assert report.comparisons == 3 * (case.params.config.num_classes + 1) + 3
    assert report.cells > 3000 and report.latency > 100
    design = generate(case.params, MACHINE, observed=False)
    simulator = GateSimulator(map_to_ecp5(design.verilog, MODULE)[0])
    for stall in ("random", "starved"):
        paused = simulate(design, simulator, case.images, Options(stall=stall, seed=4))
        assert paused.ok and paused.comparisons == 3 * (case.params.config.num_classes + 1)
    bias = case.params.tensors["head.bias"] + 1
    other = replace(case.params, tensors={**case.params.tensors, "head.bias": bias})
    wrong = simulate(replace(design, params=other), simulator, case.images, Options())
    assert not wrong.ok and wrong.first().startswith("head.logits: image 0")
    late = simulate(design, simulator, case.images, Options(limit=50))
    assert late.findings[0].startswith(
        "deadlock: image 0 gave no result in 50 cycles; busy=1, s_axis_tvalid="
    )
    for fault in FAULTS[ECP5]:
        changed = GateSimulator(map_to_ecp5(design.verilog, MODULE, change=fault)[0])
        assert not simulate(design, changed, case.images, Options(limit=5000)).ok, fault.__name__


def test_a_later_image_ends_later(case):
    program = generate(case.params, MACHINE, observed=False).program
    trace = {name: value.numpy() for name, value in GoldenNetwork(case.params).trace(case.images).items()}
    ends = result_ends(program, trace, case.images, [10, 20, 30])
    later = result_ends(program, trace, case.images, [11, 20, 30])
    assert later[0] == ends[0] + 1


@pytest.mark.wide
@pytest.mark.parametrize("target", FAULTS, ids=lambda target: Path(target).stem)
def test_streamed_weights(target):
    machine = MACHINE.model_copy(update={"weight_memory": "stream"})
    case = build_case(network(image_height=2, image_width=2, timesteps=1), machine, seed=5, frames=2)
    for stall in ("none", "bursty"):
        report = cosimulate_netlist(case.params, machine, case.images, target, Options(stall=stall))
        assert report.ok, report.first()


@pytest.mark.wide
def test_netlist_of_a_library(case):
    for seed in (0, 1):  # of what the flip-flops and memories hold before the reset
        report = cosimulate_netlist(case.params, MACHINE, case.images, str(SIMPLE), Options(seed=seed))
        assert report.ok, report.first()


@pytest.mark.wide
@pytest.mark.parametrize("target", FAULTS, ids=lambda target: Path(target).stem)
def test_digits(target):
    images = load_dataset("digits").test_images[:2]
    report = cosimulate_netlist(load("digits"), load_machine("digits"), np.asarray(images), target)
    assert report.ok, report.first()
    assert report.comparisons == 2 * 11 + 2


@pytest.mark.wide
@pytest.mark.parametrize("target, fault", PLANTED, ids=NAMES)
def test_digits_with_a_planted_fault(target, fault):
    images, options = np.asarray(load_dataset("digits").test_images[:2]), Options(limit=20_000)
    machine = load_machine("digits")
    report = cosimulate_netlist(load("digits"), machine, images, target, options, change=fault)
    assert not report.ok and report.first()


def test_what_a_netlist_does_not_show(tmp_path):
    (tmp_path / "text.lib").write_text("module a; endmodule")
    (tmp_path / "empty.lib").write_text("library (empty) { }")
    whole = gzip.compress(b"library (a) { " + np.random.default_rng(1).bytes(1 << 18))
    (tmp_path / "cut.lib.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "damaged.lib.gz").write_bytes(whole[:200_000] + bytes(100) + whole[200_100:])
    for words, message in {
        ("ecp5", "--layers", 1): "--netlist and --layers exclude each other",
        ("ecp5", "--per-layer"): "--netlist and --per-layer exclude each other",
        ("ecp5", "--jobs", 2): "--netlist and --jobs exclude each other",
        ("ecp5", "--simulator", "verilator"): "--netlist and --simulator exclude each other",
        ("missing.lib",): "no cell library missing.lib: No such file",
        (tmp_path,): "Is a directory; expected a Liberty file",
        (tmp_path / "text.lib",): "is no Liberty file",
        (tmp_path / "empty.lib",): "the file is no Liberty library; expected library (...) with cells",
        (tmp_path / "cut.lib.gz",): "not a whole gzip file; expected a Liberty file",
        (tmp_path / "damaged.lib.gz",): "not a whole gzip file; expected a Liberty file",
    }.items():
        result = CliRunner().invoke(main, ["cosim", "--netlist", *map(str, words)])
        assert result.exit_code == 2 and message in result.stderr, result.stderr
        assert "error: " in result.stderr.strip().splitlines()[-1]
    with pytest.raises(UserError, match="a netlist gives no waveform"):
        images = np.zeros((1, 8, 8, 1), np.uint8)
        options = Options(waveform=tmp_path / "w.fst")
        cosimulate_netlist(load("digits"), load_machine("digits"), images, options=options)
