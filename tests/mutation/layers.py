"""What is altered, and which tests must notice it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.mutation import functions, hardware, mutants
from tests.mutation.campaign import Planter


@dataclass(frozen=True)
class Stage:
    """A round of tests; what it lets pass goes to the next one.

    Attributes
    ----------
    name : str
    tests_of : callable(mutant) -> list of str
        As for `campaign.Campaign`.
    seconds : float
        CPU time of the tests of a mutant that nothing notices.
    """

    name: str
    tests_of: Callable[[object], list[str]]
    seconds: float


@dataclass(frozen=True)
class Layer:
    """Sources and their tests.

    Attributes
    ----------
    catalogue : callable() -> list
        All mutants.
    plant, observer
        As for `campaign.Campaign`.
    stages : tuple of Stage
    count, least : int
        Mutants in all, and of a unit at least, if it has as many.
    """

    catalogue: Callable[[], list]
    plant: Planter
    observer: Callable[[list], Callable]
    stages: tuple[Stage, ...]
    count: int
    least: int


NETWORKS = ("golden/test_network.py::", "golden/test_second_implementation.py::")
MEMBERS = ("golden/attention/", "golden/test_energy.py::", *NETWORKS)
NEURONS = ("golden/test_neurons.py::", *NETWORKS)

GOLDEN = {
    "arith": ("golden/test_arith.py::", *NETWORKS),
    "bounds": ("golden/test_bounds.py::",),
    "compare": ("golden/test_compare.py::",),
    **dict.fromkeys(("conv", "head", "latency", "network", "pool", "reference", "residual"), NETWORKS),
    "neuron.lif": ("golden/test_lif.py::", *NEURONS),
    **dict.fromkeys(("neuron.base", "neuron.glif", "neuron.klif", "neuron.plif"), NEURONS),
    **dict.fromkeys(
        (
            "attention.gate",
            "attention.heads",
            "attention.lrf",
            "attention.lrf_dyn",
            "attention.qk",
            "attention.sdsa",
            "attention.ssa",
            "attention.sssa",
            "attention.stdp",
            "attention.uniform",
        ),
        MEMBERS,
    ),
}
"""Beginnings of the tests of a module of `golden`, below ``tests``: those of its arithmetic."""

SIM = {
    "cosim": ("sim/test_checkers.py::",),
    "dump": ("sim/test_replay.py::", "sim/test_timing.py::"),
    "line": ("sim/test_line.py::", "host/test_exchange.py::"),
    "replay": ("sim/test_replay.py::",),
    "report": ("sim/test_checkers.py::",),
    "stalls": ("sim/test_wrapper.py::",),
    "timing": ("sim/test_timing.py::",),
}
"""The same of `sim`: what compares, and what disturbs."""


def _functions(package: str, tests: dict[str, tuple[str, ...]], count: int) -> Layer:
    def tests_of(mutant: functions.Mutant) -> list[str]:
        return [f"tests/{name}" for name in tests[mutant.unit.removeprefix(f"{package}.")]]

    units = [f"{package}.{name}" for name in tests]
    stages = (Stage("tests", tests_of, 20.0),)
    return Layer(lambda: functions.catalogue(units), functions.plant, functions.observer, stages, count, 2)


LAYERS = {
    "hw": Layer(
        hardware.all_mutants,
        mutants.plant,
        hardware.observer,
        (Stage("own tests", hardware.own_tests, 5.0), Stage("networks", hardware.network_tests, 30.0)),
        300,
        8,
    ),
    "golden": _functions("golden", GOLDEN, 80),
    "sim": _functions("sim", SIM, 60),
}
"""By name."""
