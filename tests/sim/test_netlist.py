"""The accelerator after synthesis equals the golden model; a planted fault in one cell does not pass."""

import gzip
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.shipped import load
from s2tdpt.hw.netlist.liberty import read_liberty_text, read_library
from s2tdpt.hw.netlist.mapping import Module, number_of
from s2tdpt.hw.plan.machine import Machine, load_machine
from s2tdpt.scripts.cli import main
from s2tdpt.sim.cases import build_case, network
from s2tdpt.sim.cosim import Options
from s2tdpt.sim.design import generate
from s2tdpt.sim.netlist import ECP5, cosimulate_netlist, netlist_simulator, result_ends, simulate
from s2tdpt.sw.datasets import load_dataset

SIMPLE = Path(__file__).parent.parent / "hw" / "data" / "simple.lib"
LIBRARY = os.environ.get("S2TDPT_LIBERTY") or str(SIMPLE)
"""Another library may be named, for instance one whose netlist of digits is in the cache."""

MACHINE = Machine(lanes=6, banks=2, post_lanes=3)


def small():
    return build_case(network(image_height=2, image_width=2, timesteps=1), MACHINE, seed=3, frames=3)


@pytest.fixture(scope="module")
def case():
    return small()


class Planted:
    """A mapped module in which faults are planted; each `fault_` alters one cell or two pins of two.

    Parameters
    ----------
    module : Module
    outputs : dict of str to str
        Output of every kind of gate.
    flops : dict of str to (str, str)
        State output and data input of every kind of flip-flop.
    """

    def __init__(self, module: Module, outputs: dict[str, str], flops: dict[str, tuple[str, str]]):
        self.module, self.outputs, self.flops = module, outputs, flops
        self.drivers = {}
        for cell in module["cells"].values():
            pin = outputs.get(cell["type"]) or flops.get(cell["type"], [None])[0]
            if pin in cell["connections"]:
                self.drivers[cell["connections"][pin][0]] = cell

    def behind(self, net: int) -> Iterator[dict]:
        """The cell that drives a net, and those behind gates, as far as flip-flops."""
        nets = [net]
        for net in nets:
            if (cell := self.drivers.get(net)) is not None:
                yield cell
                if cell["type"] not in self.flops:
                    nets += [bits[0] for bits in cell["connections"].values() if bits[0] not in nets]

    def flop(self, port: str, bit: int = 0) -> tuple[dict, str, str]:
        """The flip-flop that a port shows, its output and its data input."""
        cells = self.behind(self.module["ports"][port]["bits"][bit])
        cell = next(cell for cell in cells if cell["type"] in self.flops)
        return cell, *self.flops[cell["type"]]

    def gates(self, port: str, bit: int = 0) -> Iterator[dict]:
        """Gates before the flip-flop that a port shows."""
        cell, _, data = self.flop(port, bit)
        return (gate for gate in self.behind(cell["connections"][data][0]) if gate["type"] in self.outputs)

    def swap(self, one: dict, pin: str, two: dict, other: str) -> None:
        one, two = one["connections"], two["connections"]
        one[pin], two[other] = two[other], one[pin]

    def fault_swapped_bits(self) -> None:
        """Two flip-flops of a result show each other's bit."""
        (one, pin, _), (two, other, _) = (self.flop("m_axis_tdata", bit) for bit in (4, 5))
        self.swap(one, pin, two, other)


class PlantedEcp5(Planted):
    def __init__(self, module: Module):
        gates = dict.fromkeys(("LUT4", "PFUMX", "L6MUX21"), "Z")
        super().__init__(module, gates, {"TRELLIS_FF": ("Q", "DI")})

    def fault_table(self) -> None:
        """One LUT holds the opposite."""
        lut = next(cell for cell in self.gates("m_axis_tdata", 5) if cell["type"] == "LUT4")
        lut["parameters"]["INIT"] = number_of(lut["parameters"]["INIT"]) ^ 0xFFFF

    def fault_start(self) -> None:
        """The flip-flop of `tvalid` starts with the opposite, which is what it is reset to."""
        words = self.flop("m_axis_tvalid")[0]["parameters"]
        words["REGSET"] = {"RESET": "SET", "SET": "RESET"}[words["REGSET"]]

    def fault_swapped_sums(self) -> None:
        """An adder of the lanes gives its two sums on each other's pin."""
        cells = [cell for name, cell in self.module["cells"].items() if ".lanes." in name]
        sums = [cell for cell in cells if {"S0", "S1"} <= set(cell["connections"])]
        self.swap(middle := sums[len(sums) // 2], "S0", middle, "S1")


class PlantedLibrary(Planted):
    def __init__(self, module: Module):
        text = read_liberty_text(Path(LIBRARY))
        kinds = {cell["type"] for cell in module["cells"].values() if cell["type"][0] != "$"}
        self.cells = read_library(text, kinds, powers=False).cells
        flops, gates = {}, {}
        for kind, cell in self.cells.items():
            shown = [pin for pin in cell.outputs if cell.pins[pin].function == cell.state]
            if cell.state:
                data = next(pin for pin in cell.inputs if pin != cell.clock and pin in cell.next_state)
                flops[kind] = (shown[0], data)
            elif len(cell.outputs) == 1:
                gates[kind] = cell.outputs[0]
        super().__init__(module, gates, flops)

    def fault_gate(self) -> None:
        """A gate is one of another kind with the same pins."""

        def others(kind: str) -> list[str]:
            cell = self.cells[kind]
            return [
                name
                for name, other in self.cells.items()
                if name in self.outputs
                and other.inputs == cell.inputs
                and other.outputs == cell.outputs
                and other.table(other.outputs[0]) != cell.table(cell.outputs[0])
            ]

        gate = next(cell for cell in self.gates("m_axis_tvalid") if others(cell["type"]))
        gate["type"] = others(gate["type"])[0]

    def fault_kept(self) -> None:
        """The flip-flop of `tvalid` takes its own state: no reset, no end."""
        cell, state, data = self.flop("m_axis_tvalid")
        cell["connections"][data] = cell["connections"][state]


TARGETS = {ECP5: PlantedEcp5, LIBRARY: PlantedLibrary}
FAULTS = {
    target: [name for name in dir(kind) if name.startswith("fault_")] for target, kind in TARGETS.items()
}


def planting(target: str, fault: str):
    """A change that plants a fault."""

    def change(module: Module) -> Module:
        planted = TARGETS[target](module)
        getattr(planted, fault)()
        return planted.module

    return change


PLANTED = [(target, fault) for target, faults in FAULTS.items() for fault in faults]
NAMES = [f"{Path(target).stem}-{fault}" for target, fault in PLANTED]


def test_netlist_of_an_fpga(case):
    """Equal without pauses, cycles included, and with; other parameters and planted faults are noticed."""
    report = cosimulate_netlist(case.params, MACHINE, case.images)
    assert report.ok, report.first()
    assert report.comparisons == 3 * (case.params.config.num_classes + 1) + 3
    assert report.cells > 3000 and report.latency > 100
    design = generate(case.params, MACHINE, observed=False)
    simulator, _ = netlist_simulator(design.verilog, ECP5)
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
        changed, _ = netlist_simulator(design.verilog, ECP5, planting(ECP5, fault))
        wrong = simulate(design, changed, case.images, Options(limit=5000))
        assert not wrong.ok, fault


def test_a_later_image_ends_later(case):
    program = generate(case.params, MACHINE, observed=False).program
    trace = {name: value.numpy() for name, value in GoldenNetwork(case.params).trace(case.images).items()}
    ends = result_ends(program, trace, case.images, [10, 20, 30])
    later = result_ends(program, trace, case.images, [11, 20, 30])
    assert later[0] == ends[0] + 1


@pytest.mark.wide
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: Path(target).stem)
def test_streamed_weights(target):
    machine = MACHINE.model_copy(update={"weight_memory": "stream"})
    case = build_case(network(image_height=2, image_width=2, timesteps=1), machine, seed=5, frames=2)
    for stall in ("none", "bursty"):
        report = cosimulate_netlist(case.params, machine, case.images, target, Options(stall=stall))
        assert report.ok, report.first()


@pytest.mark.wide
def test_netlist_of_a_library(case):
    for seed in (0, 1):  # of what the flip-flops and memories hold before the reset
        report = cosimulate_netlist(case.params, MACHINE, case.images, LIBRARY, Options(seed=seed))
        assert report.ok, report.first()


@pytest.fixture(scope="module")
def digits():
    """The shipped network as Verilog, and two of its images."""
    images = np.asarray(load_dataset("digits").test_images[:2])
    return generate(load("digits"), load_machine("digits"), observed=False), images


@pytest.mark.wide
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: Path(target).stem)
def test_digits(digits, target):
    design, images = digits
    simulator, cells = netlist_simulator(design.verilog, target)
    report = simulate(design, simulator, images, Options())
    assert report.ok, report.first()
    assert report.comparisons == 2 * 11 + 2 and cells > 40_000


@pytest.mark.wide
@pytest.mark.parametrize("target, fault", PLANTED, ids=NAMES)
def test_digits_with_a_planted_fault(digits, target, fault):
    design, images = digits
    simulator, _ = netlist_simulator(design.verilog, target, planting(target, fault))
    report = simulate(design, simulator, images, Options(limit=8_000))
    assert not report.ok
    print(fault, report.mismatches, report.first())


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
