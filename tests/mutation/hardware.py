"""The campaign over `hw`: which designs the mutants are found in, and which tests must notice them."""

from __future__ import annotations

from collections.abc import Callable

from s2tdpt.golden.link import Identity
from s2tdpt.golden.registers import Constants
from s2tdpt.hw.core import Core
from s2tdpt.hw.registers import RegisterBlock
from s2tdpt.hw.responder import Responder
from s2tdpt.hw.uart import UartReceiver, UartTransmitter
from tests.hw.core_bench import build_case
from tests.hw.test_core import CASES
from tests.mutation import mutants
from tests.mutation.mutants import Mutant

DESIGNS = (
    "two_banks",
    "streamed",
    "streamed_int4",
    "single_convolution",
    "heads_wider_than_a_word",
    "one_lane",
)
"""Cases of the core tests in whose accelerators the mutants are found: both weight memories, pixels of one
and three channels, heads in one and in several words."""

TESTS = {
    "attention.latency": ("latency",),
    "core": (),
    "counting": ("counting", "walker"),
    "fixed": ("fixed",),
    "image_buffer": ("responder",),
    "lif": ("lif", "stdp"),
    "memory": (),
    "records": (),
    "scale": ("post",),
    "step_rom": ("sequencer", "drain"),
}
"""Files of a unit's own tests where they are not called as the unit is."""

CO_SIMULATION = (
    "test_equals_golden_model_and_cycle_model[two_banks]",
    "test_equals_golden_model_and_cycle_model[streamed]",
    "test_equals_golden_model_and_cycle_model[single_convolution]",
)
"""Whole networks against the golden model, for what the unit's own tests let pass."""

RESETS = "test_reset_out_of_any_state"


def own_tests(mutant: Mutant) -> list[str]:
    """Nothing but a reset in the middle can tell whether a register is reset: units are tested from their
    first one.
    """
    if mutant.change.endswith("is not reset"):
        return [f"tests/hw/test_core.py::{RESETS}"]
    usual = ("stdp",) if mutant.unit.startswith("attention.") else (mutant.unit,)
    return [f"tests/hw/test_{name}.py::" for name in TESTS.get(mutant.unit, usual)]


def network_tests(mutant: Mutant) -> list[str]:
    names = (RESETS,) if mutant.change.endswith("is not reset") else CO_SIMULATION
    return [f"tests/hw/test_core.py::{name}" for name in names]


def all_mutants() -> list[Mutant]:
    """Every mutant of `hw`, in the order of the source."""
    card = Identity(5, 4, 1, 3, 4, 2, 1_000_000, bytes(32))
    registers = RegisterBlock(Constants(20, 4, 4, bytes(range(32))))
    designs = [Responder(card), UartReceiver(1 << 12), UartTransmitter(1 << 12), registers]
    for name in DESIGNS:
        case = build_case(*CASES[name], attempts=1)
        designs.append(Core(case.params, case.program, case.widths, case.bounds))
    return mutants.catalogue(designs)


def observer(known: list[Mutant]) -> Callable[[], Callable[[], set[str]]]:
    """For `campaign.Campaign`: notes which of the `known` mutants could be planted."""
    names: dict[tuple, list[str]] = {}
    for mutant in known:
        names.setdefault((mutant.place, mutant.change), []).append(mutant.name)

    def observe():
        met: set[tuple] = set()
        mutants.watch(lambda sites: met.update((site.place, site.change) for site in sites))
        return lambda: {name for key in met for name in names.get(key, ())}

    return observe
