"""Reads what power needs of a Liberty cell library: functions, capacitances, power tables, leakage.

Only the cells that are asked for are parsed. Everything is converted on the way in: energies to fJ,
capacitances to fF, transitions to ns, leakage to nW.

# Ref: Liberty User Guide, "Modeling power and electromigration"
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.netlist.truth import truth_table

__all__ = ["Cell", "Library", "Pin", "Power", "Table", "read_liberty_text", "read_library"]


@dataclass(frozen=True)
class Table:
    """Energy of an edge over the input's transition and, for outputs, the load.

    Attributes
    ----------
    transitions, loads : ndarray
        ns; fF, a single 0 where the load does not matter.
    values : ndarray [transitions, loads]
        fJ.
    """

    transitions: np.ndarray
    loads: np.ndarray
    values: np.ndarray

    def at(self, transition: float, load: np.ndarray) -> np.ndarray:
        """fJ for loads in fF: linear between the entries, the outermost ones beyond them."""
        over_load = [np.interp(transition, self.transitions, column) for column in self.values.T]
        return np.interp(load, self.loads, over_load)


ZERO = Table(np.zeros(1), np.zeros(1), np.zeros((1, 1)))


@dataclass(frozen=True)
class Power:
    """One ``internal_power`` group.

    Attributes
    ----------
    related : str or None
        Input whose edge causes it; None: the pin's own edge.
    when : str
        Condition, a Boolean expression; empty: always.
    rise, fall : Table
        For the edge of the pin that holds the group.
    """

    related: str | None
    when: str
    rise: Table
    fall: Table


@dataclass(frozen=True)
class Pin:
    """A pin; `function` only of outputs, an expression over inputs or the state ``IQ``."""

    name: str
    output: bool
    capacitance: float
    function: str
    clock: bool
    powers: tuple[Power, ...]


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes
    ----------
    name : str
    area : float
    leakage : float
        nW, the cell's mean over its states.
    pins : dict of str to Pin
    state, inverse : str
        Names of a flip-flop's state; empty: a gate.
    next_state, clock : str
        Expressions of a flip-flop.
    """

    name: str
    area: float
    leakage: float
    pins: dict[str, Pin]
    state: str = ""
    inverse: str = ""
    next_state: str = ""
    clock: str = ""

    @property
    def inputs(self) -> list[str]:
        return [name for name, pin in self.pins.items() if not pin.output]

    @property
    def outputs(self) -> list[str]:
        return [name for name, pin in self.pins.items() if pin.output]

    def table(self, output: str) -> int:
        """Truth table of a gate's output over `inputs`, the first one lowest."""
        return truth_table(self.pins[output].function, self.inputs)


@dataclass(frozen=True)
class Library:
    """A library, as far as it was asked for.

    Attributes
    ----------
    name : str
    voltage : float
        V.
    cells : dict of str to Cell
    """

    name: str
    voltage: float
    cells: dict[str, Cell]


@dataclass
class _Group:
    kind: str
    arguments: str
    values: dict[str, str] = field(default_factory=dict)
    groups: list[_Group] = field(default_factory=list)

    def all(self, kind: str) -> Iterator[_Group]:
        return (group for group in self.groups if group.kind == kind)


_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_TOKEN = re.compile(
    r"\s*(?:(?P<close>\})|(?P<name>[\w\[\]]+)\s*(?:\((?P<arguments>[^()]*(?:\"[^\"]*\"[^()]*)*)\)\s*"
    r"(?P<open>\{)?|:\s*(?P<value>\"[^\"]*\"|[^;\n}]*))\s*;?)"
)
_CELL = re.compile(r"\bcell\s*\(\s*\"?(\w+)\"?\s*\)\s*\{")


def read_liberty_text(path: Path | str) -> str:
    """The text of a Liberty file, plain or packed as ``.gz``.

    Raises
    ------
    UserError
        It cannot be read whole, or does not begin with a library.
    """
    path = Path(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(0, "not a regular file")  # a device may have no end
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "not a whole gzip file"
        raise UserError(
            f"no cell library {path}: {reason}; expected a Liberty file; check the path"
        ) from None
    if "library" not in text[: 1 << 16]:
        raise UserError(
            f"{path} is no Liberty file: it does not begin with a library; expected one; check the path"
        )
    return text


def read_library(text: str, names: Iterable[str], *, powers: bool = True) -> Library:
    """Read a library and some of its cells.

    Parameters
    ----------
    text : str
    names : iterable of str
        Cells.
    powers : bool
        Whether power tables are needed.

    Raises
    ------
    UserError
        It is no Liberty text, lacks a cell, or no cell has the power tables that are needed.
    """
    text = _COMMENT.sub("", text).replace("\\\n", " ")
    found = {match[1]: match for match in _CELL.finditer(text)}
    header = re.search(r"\blibrary\s*\(\s*\"?([\w.-]+)\"?\s*\)", text)
    if header is None or not found:
        raise UserError(
            "the file is no Liberty library; expected library (...) with cells; choose another file"
        )
    units = _Units(text[: min(match.start() for match in found.values())])
    cells = {}
    for name in sorted(set(names)):
        if name not in found:
            raise UserError(
                f"the Liberty library {header[1]} has no cell {name}; expected the library that the netlist "
                "was mapped to; synthesise anew with this one"
            )
        cells[name] = _cell(name, _group(text, found[name]), units)
    if powers and cells and not any(pin.powers for cell in cells.values() for pin in cell.pins.values()):
        raise UserError(
            f"the Liberty library {header[1]} has no power tables; expected internal_power groups; choose a "
            "library that is characterised for power"
        )
    return Library(header[1], units.voltage, cells)


class _Units:
    """Factors to fF, ns, nW and fJ from the head of a library."""

    def __init__(self, head: str):
        capacitance = re.search(r"capacitive_load_unit\s*\(\s*([\d.]+)\s*,\s*\"?(\w+)\"?\s*\)", head)
        scale = {"ff": 1.0, "pf": 1e3}
        self.capacitance = float(capacitance[1]) * scale[capacitance[2].lower()] if capacitance else 1e3
        self.time = self._unit(head, "time_unit", {"ns": 1.0, "ps": 1e-3}, 1.0)
        powers = {"nW": 1.0, "pW": 1e-3, "uW": 1e3, "mW": 1e6}
        self.leakage = self._unit(head, "leakage_power_unit", powers, 1.0)
        volts = self._unit(head, "voltage_unit", {"V": 1.0, "mV": 1e-3}, 1.0)
        nominal = re.search(r"nom_voltage\s*:\s*\"?([\d.]+)", head)
        self.voltage = float(nominal[1]) * volts if nominal else 1.0
        # Internal power is in the unit of capacitance times that of voltage squared.
        self.energy = self.capacitance * volts * volts

    @staticmethod
    def _unit(head: str, name: str, scale: dict[str, float], default: float) -> float:
        match = re.search(rf"{name}\s*:\s*\"?([\d.]+)\s*(\w+)", head)
        if match is None or match[2] not in scale:
            return default
        return float(match[1]) * scale[match[2]]


def _group(text: str, opening: re.Match) -> _Group:
    """The group that a match opens."""
    stack = [_Group("cell", opening[1])]
    for match in iter(_TOKEN.scanner(text, opening.end()).match, None):
        if match["close"]:
            group = stack.pop()
            if not stack:
                return group
        elif match["open"]:
            group = _Group(match["name"], match["arguments"].strip().strip('"'))
            stack[-1].groups.append(group)
            stack.append(group)
        else:
            value = match["arguments"] if match["arguments"] is not None else match["value"]
            stack[-1].values[match["name"]] = value.strip().strip('"').strip()
    raise UserError(
        f"cell {opening[1]} of the Liberty file cannot be read; expected groups in braces; correct the file"
    )


def _cell(name: str, group: _Group, units: _Units) -> Cell:
    ff = next(group.all("ff"), None)
    if next(group.all("latch"), None) is not None or next(group.all("statetable"), None) is not None:
        raise UserError(f"cell {name} is a latch; expected gates and flip-flops; exclude it from mapping")
    if ff is not None and {"clear", "preset"} & set(ff.values):
        raise UserError(
            f"cell {name} has an asynchronous reset; expected flip-flops without; exclude it from mapping"
        )
    pins = {pin.arguments: _pin(pin, units) for pin in group.all("pin")}
    pins = {key: pin for key, pin in pins.items() if pin is not None}
    states = [part.strip().strip('"') for part in ff.arguments.split(",")] if ff else ["", ""]
    return Cell(
        name=name,
        area=float(group.values.get("area", 0)),
        leakage=_leakage(group) * units.leakage,
        pins=pins,
        state=states[0].strip().strip('"'),
        inverse=states[1].strip().strip('"'),
        next_state=ff.values.get("next_state", "") if ff else "",
        clock=ff.values.get("clocked_on", "") if ff else "",
    )


def _leakage(group: _Group) -> float:
    if "cell_leakage_power" in group.values:
        return float(group.values["cell_leakage_power"])
    values = [float(part.values["value"]) for part in group.all("leakage_power")]
    return float(np.mean(values)) if values else 0.0


def _pin(group: _Group, units: _Units) -> Pin | None:
    direction = group.values.get("direction")
    if direction not in ("input", "output"):
        return None
    return Pin(
        name=group.arguments,
        output=direction == "output",
        capacitance=float(group.values.get("capacitance", 0)) * units.capacitance,
        function=group.values.get("function", ""),
        clock=group.values.get("clock") == "true",
        powers=tuple(_power(part, units) for part in group.all("internal_power")),
    )


def _power(group: _Group, units: _Units) -> Power:
    both = next(group.all("power"), None)
    tables = [
        _table(next(group.all(kind), both), units) if next(group.all(kind), both) else ZERO
        for kind in ("rise_power", "fall_power")
    ]
    return Power(group.values.get("related_pin"), group.values.get("when", ""), *tables)


def _numbers(text: str) -> np.ndarray:
    return np.array([float(number) for number in re.findall(r"[-+.\deE]+", text)])


def _table(group: _Group, units: _Units) -> Table:
    values = _numbers(group.values["values"]) * units.energy
    if len(values) == 1:
        return Table(np.zeros(1), np.zeros(1), values.reshape(1, 1))
    transitions = _numbers(group.values["index_1"]) * units.time
    loads = np.zeros(1)
    if "index_2" in group.values:
        loads = _numbers(group.values["index_2"]) * units.capacitance
    return Table(transitions, loads, values.reshape(len(transitions), len(loads)))
