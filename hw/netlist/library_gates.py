"""A netlist of library cells as truth tables and flip-flops, and who is who."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.netlist.circuit import Bit, Circuit, Flop, Gate
from s2tdpt.hw.netlist.gates import GateSimulator
from s2tdpt.hw.netlist.liberty import Cell, Library
from s2tdpt.hw.netlist.mapping import Instance, Netlist
from s2tdpt.hw.netlist.truth import truth_table

__all__ = ["GateModel"]


class GateModel(GateSimulator):
    """A netlist of library cells.

    Attributes
    ----------
    cells : list of Cell
        Of every instance.
    gates : list of (cell number, output pin)
        In the order of the circuit's gates.
    flops : list of int
        Cell numbers.
    pins : list of dict of str to int
        Nets of every instance's pins.
    read_macros, write_macros : list of int
        Macro of every read port and of every write port.

    Raises
    ------
    UserError
        A loop of gates, a second clock, or a cell without a function.
    """

    def __init__(self, netlist: Netlist, library: Library, clock: str = "aclk"):
        self.netlist, self.library = netlist, library
        self.cells: list[Cell] = [library.cells[cell.kind] for cell in netlist.cells]
        self.flops = [number for number, cell in enumerate(self.cells) if cell.state]
        self.gates = [
            (number, pin)
            for number, cell in enumerate(self.cells)
            if not cell.state
            for pin in cell.outputs
            if pin in netlist.cells[number].pins
        ]
        self.read_macros = [at for at, macro in enumerate(netlist.macros) for _ in macro.reads]
        self.write_macros = [at for at, macro in enumerate(netlist.macros) for _ in macro.writes]
        net = netlist.ports[clock][1][0]
        fresh = count(1 + max(bit for bit in _used(netlist) if isinstance(bit, int)))
        super().__init__(
            Circuit(
                netlist.ports,
                tuple(_gate(netlist.cells[number], self.cells[number], pin) for number, pin in self.gates),
                tuple(_flop(netlist.cells[number], self.cells[number], net, fresh) for number in self.flops),
                macros=tuple(
                    # What is written has no other source of contents; a macro without a write is a ROM.
                    replace(macro, contents=None) if macro.writes else macro
                    for macro in netlist.macros
                ),
            )
        )
        self.pins = [{pin: self.net(bit) for pin, bit in cell.pins.items()} for cell in netlist.cells]


def _used(netlist: Netlist) -> Iterator[Bit]:
    """Bits of cells, ports and macros."""
    for cell in netlist.cells:
        yield from cell.pins.values()
    for _, bits in netlist.ports.values():
        yield from bits
    for macro in netlist.macros:
        for port in (*macro.reads, *macro.writes):
            yield from (*port.address, *port.data)


def _gate(instance: Instance, cell: Cell, pin: str) -> Gate:
    if not cell.pins[pin].function:
        raise UserError(
            f"pin {pin} of cell {cell.name} has no function in the Liberty library; expected gates and "
            "flip-flops; exclude the cell from the mapping"
        )
    return Gate(_bits(instance, cell.inputs), cell.table(pin), instance.pins[pin])


def _bits(instance: Instance, names: list[str]) -> tuple[Bit, ...]:
    return tuple(instance.pins.get(name, "x") for name in names)


def _flop(instance: Instance, cell: Cell, clock: Bit, fresh: Iterator[int]) -> Flop:
    """`fresh` numbers nets that the netlist does not have."""
    data = [name for name in cell.inputs if name != cell.clock]
    if len(data) == len(cell.inputs) or instance.pins[cell.clock] != clock:
        raise UserError(
            f"flip-flop {instance.name} is not clocked by the rising edge of the one clock; expected that; "
            "exclude its cell from the mapping"
        )
    shown: list[Bit | None] = [None, None]
    for pin in cell.outputs:
        if pin in instance.pins:
            shown[cell.pins[pin].function == cell.inverse] = instance.pins[pin]
    inputs = _bits(instance, data)
    if re.search(rf"\b{cell.state}\b", cell.next_state):  # it holds what it has
        shown[0] = next(fresh) if shown[0] is None else shown[0]
        data, inputs = [*data, cell.state], (*inputs, shown[0])
    return Flop(inputs, truth_table(cell.next_state, data), *shown)
