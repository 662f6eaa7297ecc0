"""Energy of a netlist from the activity of its pins and the power tables of its library.

For every gate: each edge of its output at the energy that the library gives for the input that caused it and
the load that it drives. For every flip-flop: its clock pin in every cycle, by the state it is in, its data
pin, its output. For every net: half C V^2 an edge, with the capacitances of the pins on it and nothing for
wires.
Leakage is the library's mean of each cell over the time of the window; macros cost what `macro_model` says.

Left out: wires, the clock tree's buffers, glitches (the simulation has no delays).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from s2tdpt.hw.estimate.macro_model import access_energy, area, leakage
from s2tdpt.hw.netlist.gates import Activity
from s2tdpt.hw.netlist.liberty import Cell, Pin
from s2tdpt.hw.netlist.library_gates import GateModel
from s2tdpt.hw.netlist.truth import truth_table

__all__ = ["TRANSITION", "BlockPower", "NetlistPower", "sum_power"]

TRANSITION = 0.02
"""ns: transition of every input that is looked up, that of a NanGate gate which drives four others."""


@dataclass
class BlockPower:
    """Energy of a block in the window, in fJ; area in the library's unit.

    Attributes
    ----------
    internal : float
        Inside of gates, and of flip-flops when their output or data changes.
    clock : float
        Inside of flip-flops for the clock's edges, and their clock pins' capacitance.
    clock_gated : float
        The part of `clock` in cycles in which the flip-flop changes: what a perfect clock gate leaves.
    switching : float
        Capacitance of the nets that its cells drive.
    leakage : float
    macros, macro_leakage : float
        Accesses of its macros; their leakage.
    cells, flops : int
    area, macro_area : float
    """

    internal: float = 0.0
    clock: float = 0.0
    clock_gated: float = 0.0
    switching: float = 0.0
    leakage: float = 0.0
    macros: float = 0.0
    macro_leakage: float = 0.0
    cells: int = 0
    flops: int = 0
    area: float = 0.0
    macro_area: float = 0.0

    @property
    def dynamic(self) -> float:
        """Everything but leakage."""
        return self.internal + self.clock + self.switching + self.macros


@dataclass(frozen=True)
class NetlistPower:
    """A window of cycles.

    Attributes
    ----------
    cycles : int
    clock_mhz : float
        Leakage is given for this clock; everything else does not depend on it.
    blocks : dict of str to BlockPower
    pins : int
        Pins of cells.
    annotated : int
        Those whose activity was simulated.
    macros : dict of str to (reads, writes)
        Words read, and writes in words' worth of bits.
    """

    cycles: int
    clock_mhz: float
    blocks: dict[str, BlockPower]
    pins: int
    annotated: int
    macros: dict[str, tuple[float, float]]

    def total(self, part: str) -> float:
        """Sum of an attribute of `BlockPower` over all blocks."""
        return sum(getattr(block, part) for block in self.blocks.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values; fJ in the window."""
        parts = [*BlockPower.__dataclass_fields__, "dynamic"]
        return {
            "cycles": self.cycles,
            "clock_mhz": self.clock_mhz,
            "totals": {part: self.total(part) for part in parts},
            "blocks": {
                name: asdict(block) | {"dynamic": block.dynamic} for name, block in self.blocks.items()
            },
            "pins": self.pins,
            "annotated_pins": self.annotated,
            "annotated_share": self.annotated / self.pins if self.pins else 1.0,
            "macro_accesses": {name: list(counts) for name, counts in self.macros.items()},
        }


def sum_power(model: GateModel, activity: Activity, clock_mhz: float) -> NetlistPower:
    """Energy of every block in the window of `activity`."""
    blocks: dict[str, BlockPower] = defaultdict(BlockPower)
    names = [model.netlist.block(cell.name) for cell in model.netlist.cells]
    loads = _loads(model)
    _gates(model, activity, loads, names, blocks)
    _flops(model, activity, loads, names, blocks)
    _nets(model, activity, loads, names, blocks)
    nanoseconds = activity.cycles * 1e3 / clock_mhz
    for name, cell in zip(names, model.cells, strict=True):
        block = blocks[name]
        block.leakage += cell.leakage * nanoseconds * 1e-3  # nW x ns = 1e-3 fJ
        block.area += cell.area
        block.cells += 1
        block.flops += bool(cell.state)
    macros = _macros(model, activity, nanoseconds, blocks)
    pins, annotated = _annotated(model)
    order = sorted(blocks, key=lambda name: -blocks[name].dynamic)
    return NetlistPower(
        activity.cycles, clock_mhz, {name: blocks[name] for name in order}, pins, annotated, macros
    )


def _loads(model: GateModel) -> np.ndarray:
    """fF of the pins on every net; the flip-flops' spare net is behind them."""
    loads = np.zeros(model.nets + 1)
    for cell, pins in zip(model.cells, model.pins, strict=True):
        for name in cell.inputs:
            if name in pins:
                loads[pins[name]] += cell.pins[name].capacitance
    return loads


def edge_energy(pin: Pin, related: str, rise: bool, load: np.ndarray) -> np.ndarray:
    """fJ of an edge of an output that `related` caused: the mean over the states that the library knows."""
    found = [power for power in pin.powers if power.related and related in power.related.split()]
    if not found:
        found = [power for power in pin.powers if power.related]
    if not found:
        return np.zeros(len(load))
    tables = [power.rise if rise else power.fall for power in found]
    return np.mean([table.at(TRANSITION, load) for table in tables], axis=0)


def pin_energy(pin: Pin, rise: bool, names: list[str], values: dict[str, bool]) -> float:
    """fJ of an input's own edge: the mean over the groups whose condition the known values allow."""
    found = []
    for power in pin.powers:
        if power.related is None and _allows(power.when, names, values):
            table = power.rise if rise else power.fall
            found.append(float(table.at(TRANSITION, np.zeros(1))[0]))
    return float(np.mean(found)) if found else 0.0


def _allows(when: str, names: list[str], values: dict[str, bool]) -> bool:
    """Whether a condition holds for some value of what is not known."""
    if not when:
        return True
    table = truth_table(when, names)
    return any(
        table >> row & 1
        for row in range(1 << len(names))
        if all(row >> names.index(name) & 1 == value for name, value in values.items())
    )


def _gates(model, activity, loads, names, blocks) -> None:
    by_kind: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, (number, pin) in enumerate(model.gates):
        by_kind[model.cells[number].name, pin].append(at)
    for (kind, pin), places in by_kind.items():
        cell: Cell = model.library.cells[kind]
        load = loads[[model.pins[model.gates[at][0]][pin] for at in places]]
        energy = np.zeros(len(places))
        for place, related in enumerate(cell.inputs):
            for rise, by in ((True, activity.rise_by), (False, activity.fall_by)):
                energy += by[places, place] * edge_energy(cell.pins[pin], related, rise, load)
        for at, value in zip(places, energy, strict=True):
            blocks[names[model.gates[at][0]]].internal += float(value)
    # Inputs with a power of their own, whether the output changes or not.
    for kind, numbers in _by_kind(model, flops=False).items():
        for name in model.library.cells[kind].inputs:
            for number, value in zip(numbers, _own_edges(model, numbers, name, activity, {}), strict=True):
                blocks[names[number]].internal += float(value)


def _by_kind(model: GateModel, flops: bool) -> dict[str, list[int]]:
    """Numbers of the gates, or of the flip-flops, by cell of the library."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, cell in enumerate(model.cells):
        if bool(cell.state) == flops:
            found[cell.name].append(number)
    return found


def _edges(model: GateModel, numbers: list[int], pin: str, activity: Activity):
    """Nets of a pin of several cells, and the rises and falls there; the spare net where it is open."""
    nets = np.array([model.pins[number].get(pin, model.nets) for number in numbers])
    rises = activity.rises[nets] * (nets < model.nets)
    return nets, rises, activity.toggles[nets] * (nets < model.nets) - rises


def _own_edges(model, numbers: list[int], name: str, activity: Activity, values: dict[str, bool]):
    """fJ of all edges of an input that the input itself has a table for, cell by cell."""
    cell = model.cells[numbers[0]]
    pin, known = cell.pins[name], list(cell.pins)
    if not any(power.related is None for power in pin.powers):
        return np.zeros(len(numbers))
    _, rises, falls = _edges(model, numbers, name, activity)
    return rises * pin_energy(pin, True, known, values) + falls * pin_energy(pin, False, known, values)


def _flops(model, activity, loads, names, blocks) -> None:
    place = {number: at for at, number in enumerate(model.flops)}
    for kind, numbers in _by_kind(model, flops=True).items():
        cell = model.library.cells[kind]
        # The clock pin is charged and discharged once a cycle.
        pulses = _clock_pulses(cell) + cell.pins[cell.clock].capacitance * model.library.voltage**2
        clock = activity.states[[place[number] for number in numbers]] * pulses
        internal = np.zeros(len(numbers))
        for pin in cell.outputs:
            nets, rises, falls = _edges(model, numbers, pin, activity)
            for rise, count in ((True, rises), (False, falls)):
                internal += count * edge_energy(cell.pins[pin], cell.clock, rise, loads[nets])
        for name in cell.inputs:
            if name != cell.clock:
                # Without delays, data changes right behind the rising edge.
                internal += _own_edges(model, numbers, name, activity, {cell.clock: True})
        for at, number in enumerate(numbers):
            block = blocks[names[number]]
            block.internal += float(internal[at])
            block.clock += float(clock[at].sum())
            block.clock_gated += float(clock[at, 1:3].sum())


def _clock_pulses(cell: Cell) -> np.ndarray:
    """fJ of a rising and a falling edge of the clock by (data + 2 x state)."""
    known = list(cell.pins)
    data = [name for name in cell.inputs if name != cell.clock]
    outputs = {cell.pins[name].function == cell.state: name for name in cell.outputs}
    found = np.zeros(4)
    for state in range(4):
        values = {name: bool(state & 1) for name in data[:1]}
        values |= {name: bool(state >> 1) == direct for direct, name in outputs.items()}
        pin = cell.pins[cell.clock]
        found[state] = pin_energy(pin, True, known, values) + pin_energy(pin, False, known, values)
    return found


def _nets(model, activity, loads, names, blocks) -> None:
    """Half C V^2 an edge, to the block of the driving cell; other drivers' nets belong to the top."""
    owner = [model.netlist.top] * (model.nets + 1)
    for number, (cell, pins) in enumerate(zip(model.cells, model.pins, strict=True)):
        for pin in cell.outputs:
            if pin in pins:
                owner[pins[pin]] = names[number]
    for macro in model.netlist.macros:
        for port in macro.reads:
            for bit in port.data:
                owner[model.net(bit)] = model.netlist.block(macro.name)
    energy = 0.5 * loads * model.library.voltage**2 * activity.toggles[: len(loads)]
    for net in np.flatnonzero(energy):
        blocks[owner[net]].switching += float(energy[net])


def _macros(model, activity, nanoseconds, blocks) -> dict[str, tuple[float, float]]:
    found: dict[str, list[float]] = {macro.name: [0.0, 0.0] for macro in model.netlist.macros}
    for at, number in enumerate(model.read_macros):
        found[model.netlist.macros[number].name][0] += float(activity.reads[at])
    for at, number in enumerate(model.write_macros):
        macro = model.netlist.macros[number]
        found[macro.name][1] += float(activity.written[at]) / macro.bits
    for macro in model.netlist.macros:
        block = blocks[model.netlist.block(macro.name)]
        block.macros += 1e3 * sum(found[macro.name]) * access_energy(macro.words, macro.bits)
        block.macro_leakage += leakage(macro.words, macro.bits) * nanoseconds  # uW x ns = fJ
        block.macro_area += area(macro.words, macro.bits)
    return {name: (reads, writes) for name, (reads, writes) in found.items()}


def _annotated(model: GateModel) -> tuple[int, int]:
    """Pins of cells, and those on a net that something simulated drives, or a constant."""
    driven = {model.net(bit) for bit in "01x"}
    for cell, pins in zip(model.cells, model.pins, strict=True):
        driven |= {pins[pin] for pin in cell.outputs if pin in pins}
    for macro in model.netlist.macros:
        driven |= {model.net(bit) for port in macro.reads for bit in port.data}
    for direction, bits in model.netlist.ports.values():
        if direction == "input":
            driven |= {model.net(bit) for bit in bits}
    nets = [net for pins in model.pins for net in pins.values()]
    return len(nets), sum(net in driven for net in nets)
