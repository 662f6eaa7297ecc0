"""Cells of the ECP5 as truth tables, flip-flops and memories.

What a cell does is said by Yosys' simulation models (share/ecp5/cells_sim.v), with which the tests compare
every translation. The block RAM has none there: its use in Yosys' memory map (share/lattice/brams_16kd.txt,
brams_map_16kd.v) and Lattice's FPGA-TN-02204 (memory usage guide) say what it does. A word that one of its
ports writes while the other one reads it is unknown on the device: here it reads inverted, so that nothing
can depend on it unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.netlist.circuit import Bit, Circuit, Flop, Gate, LookUpRam, Macro, ReadPort, WritePort
from s2tdpt.hw.netlist.mapping import Module, mapped_module, number_of, unchanged
from s2tdpt.hw.netlist.synthesis import SYNTH_ECP5
from s2tdpt.hw.tools.external import run_tool

__all__ = ["circuit_of", "map_to_ecp5"]


def map_to_ecp5(
    verilog: str,
    top: str,
    *,
    change: Callable[[Module], Module] = unchanged,
    step: Callable[[str], None] = lambda text: None,
) -> tuple[Circuit, int]:
    """Synthesise a design as `hw.netlist.synthesis` does, or take it from the cache; minutes.

    Parameters
    ----------
    verilog : str
        As `hw.verilog.emit` writes it.
    change : callable
        Alters the mapped module: for planting faults.
    step : callable
        Told in words what begins.

    Returns
    -------
    circuit : Circuit
    cells : int

    Raises
    ------
    UserError
        Yosys fails (a `hw.tools.external.ToolError`); a cell that has no function here.
    """
    script = SYNTH_ECP5.format(top=top, flags="")

    def synthesise(work: Path) -> Module:
        step("yosys: synthesis for the ECP5, which takes minutes")
        (work / "design.sv").write_text(verilog)
        (work / "synth.ys").write_text(script)
        run_tool("yosys", ["-q", "synth.ys"], cwd=work)
        return json.loads((work / "design.json").read_text())["modules"][top]

    module = change(mapped_module((verilog, script), synthesise))
    return circuit_of(module), sum(cell["type"] != "$scopeinfo" for cell in module["cells"].values())


def circuit_of(module: Module, clock: str = "aclk") -> Circuit:
    """The circuit of a module in cells of the ECP5.

    Raises
    ------
    UserError
        A cell without a function, or in a form without one; a second clock.
    """
    builder = _Builder(module, clock)
    for name, cell in module["cells"].items():
        builder.add(name.replace("\\", ""), cell)
    return builder.circuit()


class _Cell:
    """Name, parameters and pins of a cell."""

    def __init__(self, name: str, cell: Mapping[str, Any]):
        self.name, self.kind = name, cell["type"]
        self._parameters, self._pins = cell["parameters"], cell["connections"]

    def word(self, name: str, default: str) -> str:
        """A parameter that is a text."""
        return str(self._parameters.get(name, default)).strip()

    def number(self, name: str, default: int = 0) -> int:
        return number_of(self._parameters.get(name, default))

    def pin(self, name: str, default: Bit = "0") -> Bit:
        """The bit on a pin of one bit; an open pin reads `default`."""
        return (self._pins.get(name) or [default])[0]

    def output(self, name: str) -> Bit | None:
        """The net on an output of one bit; None: it is open."""
        return (self._pins.get(name) or [None])[0]

    def bits(self, names: Iterable[str]) -> tuple[Bit, ...]:
        return tuple(self.pin(name) for name in names)

    def bus(self, name: str) -> list[Bit]:
        return self._pins[name]

    def refuse(self, what: str) -> UserError:
        return UserError(
            f"cell {self.name} ({self.kind}) of the ECP5 {what}; expected what synth_ecp5 makes of a design "
            "with one clock and synchronous resets; simulate the design before synthesis"
        )


def table_of(width: int, function: Callable[..., int]) -> int:
    """Truth table of a function of single bits."""
    rows = ([row >> place & 1 for place in range(width)] for row in range(1 << width))
    return sum((function(*bits) & 1) << row for row, bits in enumerate(rows))


_MUX = table_of(3, lambda low, high, select: high if select else low)
_AND = [table_of(width, lambda *bits: int(all(bits))) for width in range(5)]


class _Builder:
    """Collects what the cells become."""

    def __init__(self, module: Module, clock: str):
        ports, cells = module["ports"], module["cells"].values()
        self._ports = {name: (port["direction"], tuple(port["bits"])) for name, port in ports.items()}
        self._clock = self._ports[clock][1][0]
        pins = [bits for cell in cells for bits in cell["connections"].values()]
        used = [bit for bits in (*pins, *(bits for _, bits in self._ports.values())) for bit in bits]
        self._fresh = count(1 + max((bit for bit in used if isinstance(bit, int)), default=0))
        self._gates: list[Gate] = []
        self._flops: list[Flop] = []
        self._rams: list[LookUpRam] = []
        self._macros: list[Macro] = []

    def circuit(self) -> Circuit:
        return Circuit(
            self._ports, tuple(self._gates), tuple(self._flops), tuple(self._rams), tuple(self._macros)
        )

    def add(self, name: str, content: Mapping[str, Any]) -> None:
        cell = _Cell(name, content)
        kinds = {
            "LUT4": self._lut,
            "PFUMX": lambda cell: self._mux(cell, ("BLUT", "ALUT", "C0")),
            "L6MUX21": lambda cell: self._mux(cell, ("D0", "D1", "SD")),
            "CCU2C": self._carry,
            "TRELLIS_FF": self._flip_flop,
            "TRELLIS_DPR16X4": self._look_up_ram,
            "DP16KD": self._block_ram,
            "$scopeinfo": lambda cell: None,
        }
        if cell.kind not in kinds:
            raise cell.refuse("has no function here")
        kinds[cell.kind](cell)

    def _gate(self, inputs: tuple[Bit, ...], table: int, output: Bit | None = None) -> Bit:
        """A gate, on a new net unless told; returns the net."""
        net = next(self._fresh) if output is None else output
        self._gates.append(Gate(inputs, table, net))
        return net

    def _lut(self, cell: _Cell) -> None:
        self._gate(cell.bits("ABCD"), cell.number("INIT"), cell.output("Z"))

    def _mux(self, cell: _Cell, pins: tuple[str, str, str]) -> None:
        self._gate(cell.bits(pins), _MUX, cell.output("Z"))

    def _carry(self, cell: _Cell) -> None:
        """Two LUTs, each with a sum and a carry of its inputs A to D and of the carry before it."""
        carry = cell.pin("CIN")
        for half in (0, 1):
            inputs = (*cell.bits(f"{pin}{half}" for pin in "ABCD"), carry)
            init, injected = cell.number(f"INIT{half}"), cell.word(f"INJECT1_{half}", "YES") == "YES"

            def lut(a, b, c, d, init=init):
                return init >> (a + 2 * b + 4 * c + 8 * d) & 1

            def total(a, b, c, d, before, lut=lut, injected=injected):
                return lut(a, b, c, d) ^ (before & (not injected))

            def over(a, b, c, d, before, lut=lut, init=init, injected=injected):
                return before if lut(a, b, c, d) else init >> (a + 2 * b) & (not injected)

            self._gate(inputs, table_of(5, total), cell.output(f"S{half}"))
            carry = self._gate(inputs, table_of(5, over), cell.output("COUT") if half else None)

    def _check_clock(self, cell: _Cell, pin: str, option: str) -> None:
        if cell.pin(pin) != self._clock or cell.word(option, pin) != pin:
            raise cell.refuse("is not clocked by the rising edge of the one clock")

    def _flip_flop(self, cell: _Cell) -> None:
        self._check_clock(cell, "CLK", "CLKMUX")
        reset, start = cell.pin("LSR"), int(cell.word("REGSET", "RESET") == "SET")
        if cell.word("SRMODE", "LSR_OVER_CE") == "ASYNC" and reset != "0":
            raise cell.refuse("has an asynchronous reset")
        if cell.word("LSRMODE", "LSR") == "PRLD" or cell.word("GSR", "DISABLED") == "ENABLED":
            raise cell.refuse("is reset in a form without a function here")
        mode, lsr_inverted = cell.word("CEMUX", "1"), cell.word("LSRMUX", "LSR") == "INV"

        def following(data, enable, reset, state):
            on = {"1": 1, "0": 0, "INV": 1 - enable}.get(mode, enable)
            return start if reset ^ lsr_inverted else data if on else state

        state = next(self._fresh) if cell.output("Q") is None else cell.output("Q")
        inputs = (cell.pin("DI"), cell.pin("CE", "1"), reset, state)
        self._flops.append(Flop(inputs, table_of(4, following), state, start=start))

    def _look_up_ram(self, cell: _Cell) -> None:
        self._check_clock(cell, "WCK", "WCKMUX")
        mode, enable = cell.word("WREMUX", "WRE"), cell.pin("WRE")
        if mode != "WRE":
            enable = {"1": "1", "0": "0"}.get(mode) or self._gate((enable,), 0b01)
        contents = cell.number("INITVAL")
        for bit, (output, data) in enumerate(zip(cell.bus("DO"), cell.bus("DI"), strict=True)):
            own = sum((contents >> (4 * word + bit) & 1) << word for word in range(16))
            read, write = tuple(cell.bus("RAD")), tuple(cell.bus("WAD"))
            self._rams.append(LookUpRam(read, output, write, data, enable, own))

    def _block_ram(self, cell: _Cell) -> None:
        widths = {side: cell.number(f"DATA_WIDTH_{side}", 18) for side in "AB"}
        sides = [side for side in "AB" if cell.pin(f"CE{side}") != "0"]
        for side in sides:
            self._check_block_ram(cell, side)
        small = {widths[side] for side in sides if widths[side] < 9}
        if small and len({widths[side] for side in sides}) > 1:
            raise cell.refuse("has ports of different widths, one below nine bits")
        unit = min([9, *small])  # words of 1, 2 and 4 bits share the lower eight of nine
        reads, writes = [], []
        for side in sides:
            if (write := self._write_port(cell, side, widths)) is not None:
                writes.append((side, write))
        for side in sides:
            if (read := self._read_port(cell, side, widths, [name for name, _ in writes])) is not None:
                reads.append(read)
        words = 2048 * 9 // 9 if unit == 9 else 2048 * 8 // unit
        ports = (tuple(reads), tuple(port for _, port in writes))
        self._macros.append(Macro(cell.name, words, unit, _contents(cell, unit), *ports))

    def _check_block_ram(self, cell: _Cell, side: str) -> None:
        self._check_clock(cell, f"CLK{side}", f"CLK{side}MUX")
        if cell.word(f"REGMODE_{side}", "NOREG") != "NOREG":
            raise cell.refuse("has output registers")
        if cell.word("RESETMODE", "SYNC") == "ASYNC" and cell.pin(f"RST{side}") != "0":
            raise cell.refuse("has an asynchronous reset")
        if cell.word(f"CSDECODE_{side}", "0b000") != "0b000" or any(
            cell.pin(f"CS{side}{bit}") != "0" for bit in range(3)
        ):
            raise cell.refuse("has a chip select")

    def _write_port(self, cell: _Cell, side: str, widths: Mapping[str, int]) -> WritePort | None:
        width = widths[side]
        if cell.pin(f"WE{side}") == "0":
            return None
        if width == 36 and side == "B":
            raise cell.refuse("writes 36 bits at port B")
        data = [cell.pin(f"DI{side}{bit}") for bit in range(min(width, 18))]
        data += [cell.pin(f"DIB{bit}") for bit in range(width - 18)]
        control = cell.bits((f"CE{side}", f"WE{side}"))
        if cell.pin(f"RST{side}") != "0":  # blocks writes, too
            control += (self._gate((cell.pin(f"RST{side}"),), 0b01),)
        enables = []
        for part in range(-(-width // 9)):
            chosen = (cell.pin(f"AD{side}{part}"),) if width > 9 else ()
            inputs = (*control, *chosen)
            enables += [self._gate(inputs, _AND[len(inputs)])] * min(width, 9)
        return WritePort(tuple(enables), _address(cell, side, width), tuple(data))

    def _read_port(
        self, cell: _Cell, side: str, widths: Mapping[str, int], writes: list[str]
    ) -> ReadPort | None:
        width = widths[side]
        if width == 36:  # such a port writes at A and reads at B
            data = [cell.output(f"DO{part}{bit}") for part in "AB" for bit in range(18)]
            if side == "A":
                return None
        else:
            data = [cell.output(f"DO{side}{bit}") for bit in range(width)]
        if not any(data):
            return None
        enable, mode = cell.pin(f"CE{side}"), cell.word(f"WRITEMODE_{side}", "NORMAL")
        if mode == "NORMAL" and side in writes:
            enable = self._gate(cell.bits((f"CE{side}", f"WE{side}")), 0b0010)
        own = "new" if mode == "WRITETHROUGH" else "old"
        meets = tuple(own if writer == side else "inverted" for writer in writes)
        data = [next(self._fresh) if bit is None else bit for bit in data]
        address = _address(cell, side, width)
        return ReadPort(enable, address, tuple(data), cell.pin(f"RST{side}"), 0, False, meets, start=0)


def _address(cell: _Cell, side: str, width: int) -> tuple[Bit, ...]:
    first = {1: 0, 2: 1, 4: 2, 9: 3, 18: 4, 36: 5}[width]
    return tuple(cell.pin(f"AD{side}{bit}") for bit in range(first, 14))


def _contents(cell: _Cell, unit: int) -> int:
    """Two words of nine bits in every twenty bits of the parameters; of small words eight bits of nine."""
    total, place = 0, 0
    kept = 9 if unit == 9 else 8
    for row in range(64):
        init = cell.number(f"INITVAL_{row:02X}")
        for pair in range(16):
            for half in (0, 9):
                total |= (init >> (20 * pair + half) & ((1 << kept) - 1)) << place
                place += kept
    return total
