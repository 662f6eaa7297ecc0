"""Activity and energy of netlists: a small one by hand, and a whole accelerator in gates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.estimate.accesses import AccessCounter
from s2tdpt.hw.estimate.cycles import FrameModel
from s2tdpt.hw.netlist import mapping as netlist_module
from s2tdpt.hw.netlist.gate_bench import measure_window
from s2tdpt.hw.netlist.liberty import read_library
from s2tdpt.hw.netlist.library_gates import GateModel
from s2tdpt.hw.netlist.mapping import Instance, Netlist, map_to_cells
from s2tdpt.hw.netlist.netlist_power import sum_power
from s2tdpt.hw.netlist.truth import truth_table
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.verilog import emit
from s2tdpt.sim.cases import network
from tests.hw.cells import differences, simulated
from tests.hw.core_bench import build_case, traces_of

LIBERTY = (Path(__file__).parent / "data" / "simple.lib").read_text()


def test_truth_tables():
    names = ["a", "b", "c"]
    assert truth_table("a", names) == 0b10101010
    assert truth_table("!(a & b) | c'", names) == 0b01111111
    assert truth_table("a b + c", names) == truth_table("(a * b) | c", names) == 0b11111000
    assert truth_table("a ^ b ^ c", names) == 0b10010110
    for wrong in ("", "a &", "(a", "a @ b", "d"):
        with pytest.raises(UserError, match="cannot read the function"):
            truth_table(wrong, names)


def test_library_numbers():
    cells = read_library(LIBERTY, ["INV", "DFF"]).cells
    rise = cells["INV"].pins["Y"].powers[0].rise
    assert rise.at(0.02, np.array([0.0, 1.0, 10.0, 20.0])).tolist() == pytest.approx([2.0, 2.2, 4.0, 4.0])
    assert (cells["DFF"].next_state, cells["DFF"].clock, cells["DFF"].leakage) == ("D", "CK", 20)


def test_bad_libraries_are_refused():
    with pytest.raises(UserError, match="no Liberty library"):
        read_library("module x; endmodule", ["INV"])
    with pytest.raises(UserError, match="has no cell NOR9"):
        read_library(LIBERTY, ["NOR9"])
    dark = LIBERTY.replace("internal_power", "other_power")
    with pytest.raises(UserError, match="no power tables"):
        read_library(dark, ["INV"])


def echo() -> Netlist:
    """Answers a frame with its last byte: nine flip-flops and two gates."""
    data = list(range(10, 18))
    held = list(range(20, 28))
    cells = [Instance(f"data.{i}", "DFF", {"D": data[i], "CK": 2, "Q": held[i]}) for i in range(8)]
    cells += [
        Instance("end.nand", "NAND2", {"A": 30, "B": 31, "Y": 32}),
        Instance("end.inv", "INV", {"A": 32, "Y": 33}),
        Instance("end.valid", "DFF", {"D": 33, "CK": 2, "Q": 34}),
    ]
    ports = {
        "aclk": ("input", (2,)),
        "aresetn": ("input", (3,)),
        "s_axis_tdata": ("input", tuple(data)),
        "s_axis_tvalid": ("input", (30,)),
        "s_axis_tlast": ("input", (31,)),
        "s_axis_tready": ("output", ("1",)),
        "m_axis_tready": ("input", (4,)),
        "m_axis_tvalid": ("output", (34,)),
        "m_axis_tdata": ("output", tuple(held)),
        "m_axis_tlast": ("output", ("1",)),
    }
    return Netlist("echo", ports, tuple(cells), (), ("data", "end"))


FRAMES = np.array([[0x00, 0xFF, 0x0F]] * 4, np.uint8)


def test_energy_by_hand():
    model = GateModel(echo(), read_library(LIBERTY, ["INV", "NAND2", "DFF"]))
    run = measure_window(model, FRAMES, 1, 100)
    assert run.words == [[0x0F], [0x0F]]
    assert run.activity.cycles == 3
    power = sum_power(model, run.activity, clock_mhz=100.0)
    data, end = power.blocks["data"], power.blocks["end"]
    # A data bit rises and falls once: its output 7 + 8, its data pin 0.5 + 0.25.
    assert data.internal == pytest.approx(8 * 15.75)
    # Low bits are before the edges (data, state) = 01, 10, 11; high bits 00, 10, 01; the pin takes 1 fF x
    # 4 V^2.
    assert data.clock == pytest.approx(4 * (6 + 5 + 3 + 12) + 4 * (7 + 5 + 6 + 12))
    assert data.clock_gated == pytest.approx(8 * (6 + 4 + 5 + 4))
    assert data.switching == 0  # nothing hangs on the outputs; the input bits belong to the top
    assert power.blocks["echo"].switching == pytest.approx(0.5 * 4 * (8 * 2 * 1 + 2 * 2))
    # The NAND moves with B alone: 5 + 6; the inverter drives 1 fF: 2.2 + 1; the flip-flop as above.
    assert end.internal == pytest.approx(11 + 3.2 + 15.75)
    assert end.switching == pytest.approx(0.5 * 4 * (2 + 2))
    assert power.total("leakage") == pytest.approx((9 * 20 + 10 + 5) * 30e-3)
    assert (power.annotated, power.pins) == (9 * 3 + 3 + 2, 9 * 3 + 3 + 2)
    assert power.total("area") == 9 * 6 + 2 + 1
    assert sum(block.cells for block in power.blocks.values()) == 11


def test_faults_of_a_netlist_are_seen():
    library = read_library(LIBERTY, ["INV", "NAND2", "DFF"])
    sound = echo()

    def changed(**pins: int) -> Netlist:
        """With other pins of the flip-flop of the lowest bit."""
        first, *rest = sound.cells
        return replace(sound, cells=(replace(first, pins=first.pins | pins), *rest))

    wrong = changed(D=sound.cells[4].pins["D"])
    assert measure_window(GateModel(wrong, library), FRAMES, 1, 100).words[0] == [0x0E]
    with pytest.raises(TimeoutError, match="no result 1"):
        measure_window(GateModel(sound, library), FRAMES[:1], 1, 100)
    loop = (Instance("a", "INV", {"A": 50, "Y": 51}), Instance("b", "INV", {"A": 51, "Y": 50}))
    with pytest.raises(UserError, match="loop of 2 gates"):
        GateModel(replace(sound, cells=(*sound.cells, *loop)), library)
    with pytest.raises(UserError, match=r"1 net\(s\) that nothing drives"):
        GateModel(changed(Q=99), library)
    with pytest.raises(UserError, match="not clocked by the rising edge"):
        GateModel(changed(CK=3), library)


def test_cells_without_a_function_are_refused():
    names = ["INV", "NAND2", "DFF"]
    silent = LIBERTY.replace('function : "!A";', "")
    with pytest.raises(UserError, match="pin Y of cell INV has no function in the Liberty library; expected"):
        GateModel(echo(), read_library(silent, names))
    cleared = LIBERTY.replace("clocked_on", 'clear : "A"; clocked_on')
    with pytest.raises(UserError, match="cell DFF has an asynchronous reset; expected flip-flops without"):
        read_library(cleared, names)
    dark = LIBERTY.replace("internal_power", "other_power")
    assert GateModel(echo(), read_library(dark, names, powers=False)).flops


MEMORY = """\
module memory(input clk, input [83:0] i, output [71:0] o);
  reg [71:0] words [0:31], q;
  reg [3:0] few [0:3], p;
  assign o = q ^ {18{p}};
  always @(posedge clk) begin
    if (i[82]) words[i[4:0]] <= i[81:10];
    if (i[83] | i[0]) q <= words[i[9:5]];
    if (i[81]) few[i[11:10]] <= i[23:20];
    p <= few[i[13:12]] + i[30:27];
  end
endmodule
"""


def test_library_cells_and_macros_do_what_was_mapped(tmp_path):
    """Gates, flip-flops, a memory that stays and one that does not, beside the design in Icarus; random
    values come first. A cell of another kind is noticed, and one that is none of the library's refused."""
    shown = simulated(tmp_path, MEMORY, "memory", 84, 72, 1500, clock="clk")

    def differing(change=lambda module: module) -> int:
        netlist = map_to_cells(MEMORY, "memory", LIBERTY, change=change)
        assert [(macro.words, macro.bits) for macro in netlist.macros] == [(32, 72)]
        library = read_library(LIBERTY, [cell.kind for cell in netlist.cells])
        return len(list(differences(GateModel(netlist, library, "clk").begin(1), shown, since=1000)))

    def other_kind(module):
        gates = [cell for cell in module["cells"].values() if cell["type"] == "NAND2"]
        gates[len(gates) // 2]["type"] = "NOR2"
        return module

    def none_of_them(module):
        next(iter(module["cells"].values()))["type"] = "$alu"
        return module

    assert not differing() and differing(other_kind)
    with pytest.raises(UserError, match=r"a cell \$alu that is not in the library; expected gates and"):
        differing(none_of_them)


@pytest.mark.wide
def test_accelerator_in_gates(monkeypatch):
    """Synthesised onto cells it computes the golden logits in the counted cycles and with the counted
    accesses; zero, real and all-one frames take more and more."""
    monkeypatch.setattr(netlist_module, "MACRO_BITS", 64)
    config = network(image_height=4, image_width=4, sps_channels=(2, 4), timesteps=2, heads=1)
    case = build_case(config, Machine(lanes=4, banks=2, post_lanes=2, attention_steps=1), seed=4, frames=1)
    accelerator = Accelerator(case.params, case.machine)
    mapped = map_to_cells(emit(accelerator, "s2tdpt", accelerator.ports()), "s2tdpt", LIBERTY)
    library = read_library(LIBERTY, [cell.kind for cell in mapped.cells])
    model = GateModel(mapped, library)
    trace = traces_of(case)[0]
    run = measure_window(model, np.repeat(case.images, 3, axis=0), 1, 20_000)
    width = len(mapped.ports["m_axis_tdata"][1])
    logits = [word - (1 << width) if word >> width - 1 else word for word in run.words[1][:-1]]
    assert logits == case.golden["head.logits"][0].tolist()
    assert run.words[1][-1] == case.golden["head.class"][0]
    assert run.activity.cycles == FrameModel(case.program).frame(trace).interval
    counted = AccessCounter(case.program, case.widths).frame(trace)
    power = sum_power(model, run.activity, 100.0)
    by_part = {
        part: sum(reads for name, (reads, _) in power.macros.items() if part in name)
        for part in ("bank_", "spikes.words")
    }
    assert by_part["bank_"] == counted.memory("weights")[0]
    assert by_part["spikes.words"] == counted.memory("spikes")[0]
    assert power.annotated == power.pins
    assert {"core.lanes", "core.post", "core.attention", "core.events"} <= set(power.blocks)
    energies = []
    for value in (np.zeros_like(case.images), case.images, np.full_like(case.images, 255)):
        activity = measure_window(model, np.repeat(value, 3, axis=0), 1, 20_000).activity
        energies.append(sum_power(model, activity, 100.0).total("dynamic"))
    assert energies == sorted(set(energies))
