"""Cells of the ECP5 in the gate simulation do what Yosys' models of them do, and what was mapped to them."""

import random

import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.netlist.ecp5_gates import circuit_of
from s2tdpt.hw.netlist.gates import GateSimulator
from tests.hw.cells import Cells, differences, load_module, simulated

CYCLES = 300


def parameters(kind: str, choose: random.Random) -> dict[str, int | str]:
    """Parameters of a cell as synth_ecp5 may set them."""
    match kind:
        case "LUT4":
            return {"INIT": choose.getrandbits(16)}
        case "CCU2C":
            words = {f"INIT{half}": choose.getrandbits(16) for half in (0, 1)}
            return words | {f"INJECT1_{half}": choose.choice(("YES", "NO")) for half in (0, 1)}
        case "TRELLIS_FF":
            return {
                "GSR": "DISABLED",
                "CEMUX": choose.choice(("CE", "INV", "1 ", "0")),
                "CLKMUX": "CLK",
                "LSRMUX": choose.choice(("LSR", "INV")),
                "REGSET": choose.choice(("SET", "RESET")),
                "SRMODE": "LSR_OVER_CE",
            }
        case "TRELLIS_DPR16X4":
            mode = choose.choice(("WRE", "INV", "1", "0"))
            return {"INITVAL": choose.getrandbits(64), "WREMUX": mode, "WCKMUX": "WCK"}
    return {}


@pytest.mark.parametrize("kind", Cells.PINS)
def test_cells_do_what_yosys_models_do(tmp_path, kind):
    """Sixteen of a kind with any parameters, at random inputs; LUTs at all of them, in effect."""
    choose = random.Random(kind)
    cells = Cells(clock="aclk")
    for _ in range(16):
        cells.add(kind, parameters(kind, choose))
    shown = simulated(tmp_path, cells.verilog("cells"), "cells", cells.inputs, cells.outputs, CYCLES)
    simulation = GateSimulator(circuit_of(cells.module())).begin(1)
    differing = {word.index("1") for word in differences(simulation, shown)}
    assert not differing
    assert len({outputs for _, outputs in shown}) > CYCLES // 2


def test_a_wrong_cell_is_noticed(tmp_path):
    """A bit of INIT, a reset value, two pins that are swapped: each shows."""
    choose = random.Random(3)
    cells = Cells(clock="aclk")
    for kind in ("LUT4", "TRELLIS_FF", "CCU2C"):
        cells.add(kind, parameters(kind, choose) | ({"CEMUX": "CE"} if kind == "TRELLIS_FF" else {}))
    shown = simulated(tmp_path, cells.verilog("cells"), "cells", cells.inputs, cells.outputs, CYCLES)

    def noticed(change) -> bool:
        module = cells.module()
        change(*module["cells"].values())
        return any(differences(GateSimulator(circuit_of(module)).begin(1), shown))

    def init(lut, flop, carry):
        lut["parameters"]["INIT"] ^= 1 << 9

    def start(lut, flop, carry):
        other = {"SET": "RESET", "RESET": "SET"}
        flop["parameters"]["REGSET"] = other[flop["parameters"]["REGSET"]]

    def swap(lut, flop, carry):
        pins = carry["connections"]
        pins["S0"], pins["S1"] = pins["S1"], pins["S0"]

    assert not noticed(lambda *cells: None)
    assert noticed(init) and noticed(start) and noticed(swap)


TWO_PORTS = """\
  always @(posedge clk) begin
    if (we) words[wa] <= d;
    if (re) q <= words[ra];
  end
"""
ONE_PORT = """\
  always @(posedge clk) begin
    if (we) words[wa] <= d;
    if (re) q <= words[wa];
  end
"""
WRITE_THROUGH = """\
  always @(posedge clk) begin
    if (we) words[wa] <= d;
    if (re) q <= we ? d : words[wa];
  end
"""
NO_CHANGE = """\
  always @(posedge clk)
    if (we) words[wa] <= d;
    else if (re) q <= words[wa];
"""
READ_ONLY = """\
  always @(posedge clk)
    if (rst) q <= 0;
    else if (re) q <= words[ra];
"""
TEMPLATE = """\
module memory(input clk, input [{i}:0] i, output [{w}:0] o);
  (* ram_style = "block" *) reg [{w}:0] words [0:{last}];
  wire [{a}:0] wa = i[{a}:0] % {words}, ra = i[{i}] ? wa : i[{a} + {a} + 1:{a} + 1] % {words};
  wire we = i[{i} - 1], re = i[{i} - 2] | i[{i} - 3], rst = &i[{i} - 4:{i} - 5];
  wire [{w}:0] d = i[{a} + {a} + 2 +: {width}];
  reg [{w}:0] q = 0;
  assign o = q;
  integer k;
  initial for (k = 0; k <= {last}; k = k + 1) words[k] = {{2{{k * 40503 + (k >> 3)}}}};
{body}endmodule
"""
MODES = {
    "ram": (TWO_PORTS, None),
    "rom": (READ_ONLY, None),
    "one-port": (ONE_PORT, "READBEFOREWRITE"),
    "through": (WRITE_THROUGH, "WRITETHROUGH"),
    "no-change": (NO_CHANGE, "NORMAL"),
}


def block_ram(folder, body: str, width: int, words: int, mode: str | None) -> None:
    """A memory before its mapping, in Icarus, and in cells, in gates: the same at random accesses."""
    address = (words - 1).bit_length()
    inputs = 2 * address + width + 6
    names = {"i": inputs - 1, "w": width - 1, "a": address - 1, "last": words - 1}
    text = TEMPLATE.format(**names, words=words, width=width, body=body)
    module = load_module(folder, text, "memory", "synth_ecp5 -top memory")
    rams = [cell for cell in module["cells"].values() if cell["type"] == "DP16KD"]
    assert rams and (mode is None or all(cell["parameters"]["WRITEMODE_A"] == mode for cell in rams))
    shown = simulated(folder, text, "memory", inputs, width, 3000, clock="clk")
    assert not any(differences(GateSimulator(circuit_of(module, "clk")).begin(2), shown))
    assert len({outputs for _, outputs in shown}) > min(100, 1 << width - 1)
    for cell in rams:
        cell["parameters"]["INITVAL_00"] = "01" * 160
    assert any(differences(GateSimulator(circuit_of(module, "clk")).begin(2), shown))


def test_block_ram_is_the_memory_that_was_mapped(tmp_path):
    block_ram(tmp_path, TWO_PORTS, 9, 2048, None)


@pytest.mark.wide
@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("width, words", [(1, 16384), (4, 4096), (9, 2048), (18, 1024), (36, 512), (30, 700)])
def test_block_rams(tmp_path, width, words, kind):
    """Written, read, and read while it is written."""
    body, mode = MODES[kind]
    # A word of 36 bits takes both ports, one to write and one to read: it has no mode.
    block_ram(tmp_path, body, width, words, mode if width < 36 else None)


FORMS = {
    "MULT18X18D": ({}, {}, "has no function here"),
    "TRELLIS_FF": ({"CLK": [9]}, {}, "not clocked by the rising edge of the one clock"),
    "TRELLIS_DPR16X4": ({}, {"WCKMUX": "INV"}, "not clocked by the rising edge"),
    "DP16KD": ({}, {"REGMODE_A": "OUTREG"}, "has output registers"),
}
MORE = [
    ("TRELLIS_FF", {"LSR": [9]}, {"SRMODE": "ASYNC"}, "has an asynchronous reset"),
    ("TRELLIS_FF", {}, {"GSR": "ENABLED"}, "is reset in a form"),
    ("DP16KD", {}, {"CLKBMUX": "INV"}, "not clocked by the rising edge"),
    ("DP16KD", {"CSA1": [9]}, {}, "has a chip select"),
    ("DP16KD", {"RSTB": [9]}, {"RESETMODE": "ASYNC"}, "has an asynchronous reset"),
    ("DP16KD", {}, {"DATA_WIDTH_A": 4, "DATA_WIDTH_B": 9}, "has ports of different widths"),
    ("DP16KD", {}, {"DATA_WIDTH_B": 36}, "writes 36 bits at port B"),
]


@pytest.mark.parametrize("kind, pins, words, message", [(kind, *rest) for kind, rest in FORMS.items()] + MORE)
def test_forms_without_a_function_are_refused(kind, pins, words, message):
    clocks = {"CLK": [2], "WCK": [2], "CLKA": [2], "CLKB": [2], "Q": [5], "DI": [3], "CEA": [4], "CEB": [4]}
    buses = {"DI": [3] * 4, "DO": [5, 6, 7, 8], "RAD": [3] * 4, "WAD": [3] * 4, "WRE": [4]}
    connections = clocks | ({"WEB": [4]} if kind == "DP16KD" else {})
    connections |= (buses if kind == "TRELLIS_DPR16X4" else {}) | pins
    cell = {"type": kind, "parameters": words, "connections": connections}
    ports = {"aclk": {"direction": "input", "bits": [2]}, "i": {"direction": "input", "bits": [3, 4, 9]}}
    with pytest.raises(UserError, match=rf"^cell a\.b \({kind}\) of the ECP5.*{message}.*; expected .*; "):
        circuit_of({"ports": ports, "cells": {"\\a.b": cell}})


def test_open_nets_and_loops_are_refused():
    def lut(z: int, a: int) -> dict:
        pins = {"A": [a], "B": ["0"], "C": ["0"], "D": ["0"], "Z": [z]}
        return {"type": "LUT4", "parameters": {"INIT": 2}, "connections": pins}

    ports = {"aclk": {"direction": "input", "bits": [2]}, "o": {"direction": "output", "bits": [5]}}
    with pytest.raises(UserError, match=r"1 net\(s\) that nothing drives; expected none"):
        GateSimulator(circuit_of({"ports": ports, "cells": {"a": lut(5, 7)}}))
    with pytest.raises(UserError, match=r"1 net\(s\) with several drivers; expected none"):
        GateSimulator(circuit_of({"ports": ports, "cells": {"a": lut(5, 2), "b": lut(5, 2)}}))
    with pytest.raises(UserError, match="loop of 2 gates"):
        GateSimulator(circuit_of({"ports": ports, "cells": {"a": lut(5, 7), "b": lut(7, 5)}}))
