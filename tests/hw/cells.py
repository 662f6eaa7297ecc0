"""Cells side by side as Verilog and as Yosys' JSON, and what Icarus shows of a design."""

import json
import subprocess

from s2tdpt.hw.netlist.gates import GateSimulation
from s2tdpt.hw.tools.external import run_tool

BENCH = """\
module bench;
  reg clk = 0; reg [{i}:0] i; wire [{o}:0] o; integer k, n;
  {top} dut(.{clock}(clk), .i(i), .o(o));
  initial begin
    for (k = 0; k < {cycles}; k = k + 1) begin
      for (n = 0; n <= {i}; n = n + 1) i[n] = $urandom;
      #1 $display("%b %b", i, o);
      #1 clk = 1; #1 clk = 0;
    end
    $finish;
  end
endmodule
"""


class Cells:
    """Cells with an input and an output of their own at every pin; buses `i` and `o` hold them all."""

    PINS = {
        "LUT4": ({"A": 1, "B": 1, "C": 1, "D": 1}, {"Z": 1}, None),
        "PFUMX": ({"ALUT": 1, "BLUT": 1, "C0": 1}, {"Z": 1}, None),
        "L6MUX21": ({"D0": 1, "D1": 1, "SD": 1}, {"Z": 1}, None),
        "CCU2C": (
            {"CIN": 1} | {f"{pin}{half}": 1 for half in (0, 1) for pin in "ABCD"},
            {"S0": 1, "S1": 1, "COUT": 1},
            None,
        ),
        "TRELLIS_FF": ({"CE": 1, "DI": 1, "LSR": 1}, {"Q": 1}, "CLK"),
        "TRELLIS_DPR16X4": ({"DI": 4, "WAD": 4, "WRE": 1, "RAD": 4}, {"DO": 4}, "WCK"),
    }

    def __init__(self, clock: str):
        self._clock, self._cells = clock, []
        self.inputs = self.outputs = 0

    def add(self, kind: str, parameters: dict[str, int | str]) -> None:
        inputs, outputs, _ = self.PINS[kind]
        places = {}
        for pin, width in inputs.items():
            places[pin] = ("i", self.inputs, width)
            self.inputs += width
        for pin, width in outputs.items():
            places[pin] = ("o", self.outputs, width)
            self.outputs += width
        self._cells.append((kind, parameters, places))

    def verilog(self, top: str) -> str:
        lines = [f"module {top}(input {self._clock}, input [{self.inputs - 1}:0] i,"]
        lines.append(f"  output [{self.outputs - 1}:0] o);")
        for number, (kind, parameters, places) in enumerate(self._cells):
            words = ", ".join(
                f".{name}({64}'d{value})" if isinstance(value, int) else f'.{name}("{value.strip()}")'
                for name, value in parameters.items()
            )
            pins = [f".{pin}({bus}[{first} +: {width}])" for pin, (bus, first, width) in places.items()]
            if clock := self.PINS[kind][2]:
                pins.append(f".{clock}({self._clock})")
            lines.append(f"  {kind} {f'#({words}) ' if words else ''}c{number}({', '.join(pins)});")
        return "\n".join([*lines, "endmodule", ""])

    def module(self) -> dict:
        """As `hw.netlist.mapping.mapped_module` gives it."""
        first = {"i": 10, "o": 10 + self.inputs}
        sizes = {"i": self.inputs, "o": self.outputs}
        ports = {self._clock: {"direction": "input", "bits": [2]}}
        for bus, direction in (("i", "input"), ("o", "output")):
            ports[bus] = {"direction": direction, "bits": [first[bus] + at for at in range(sizes[bus])]}
        cells = {}
        for number, (kind, parameters, places) in enumerate(self._cells):
            pins = {
                pin: [first[bus] + at + bit for bit in range(width)]
                for pin, (bus, at, width) in places.items()
            }
            if clock := self.PINS[kind][2]:
                pins[clock] = [2]
            cells[f"c{number}"] = {"type": kind, "parameters": dict(parameters), "connections": pins}
        return {"ports": ports, "cells": cells}


def load_module(folder, verilog: str, top: str, script: str) -> dict:
    """The mapped module that Yosys makes of a text."""
    (folder / "design.v").write_text(verilog)
    (folder / "map.ys").write_text(f"read_verilog -sv design.v\n{script}\nwrite_json mapped.json\n")
    run_tool("yosys", ["-q", "map.ys"], cwd=folder)
    return json.loads((folder / "mapped.json").read_text())["modules"][top]


def simulated(folder, verilog: str, top: str, inputs: int, outputs: int, cycles: int, clock: str = "aclk"):
    """Inputs and outputs of a design in every cycle before the edge, as texts of bits, from Icarus.

    Cells of the ECP5 in it do what Yosys' simulation models say.
    """
    (folder / "design.v").write_text(verilog)
    (folder / "models.ys").write_text(
        "read_verilog -sv design.v\nread_verilog -overwrite +/ecp5/cells_sim.v\n"
        f"hierarchy -check -top {top}\nproc\nopt_clean\nwrite_verilog -noattr models.v\n"
    )
    run_tool("yosys", ["-q", "models.ys"], cwd=folder)
    names = {"i": inputs - 1, "o": outputs - 1, "top": top, "clock": clock, "cycles": cycles}
    (folder / "bench.v").write_text(BENCH.format(**names))
    run_tool("iverilog", ["-g2012", "-o", "bench", "models.v", "bench.v"], cwd=folder)
    text = subprocess.run(["vvp", "bench"], cwd=folder, capture_output=True, text=True, check=True).stdout
    return [tuple(line.split()) for line in text.splitlines() if line[:1] in "01"]


def differences(simulation: GateSimulation, shown, since: int = 0):
    """Of every cycle from one on in which a simulation shows something else than `simulated` gave: the bits,
    as a text of 0 and 1."""
    for cycle, (inputs, outputs) in enumerate(shown):
        simulation.put("i", int(inputs, 2))
        simulation.settle()
        got = f"{simulation.get('o'):0{len(outputs)}b}"
        if cycle >= since and got != outputs:
            yield "".join(str(int(a != b)) for a, b in zip(got, outputs, strict=True))
        simulation.edge()
