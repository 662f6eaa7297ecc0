"""The campaign over `hw`: which designs the mutants are found in, and which tests must notice them."""

from __future__ import annotations

from collections.abc import Callable

from s2tdpt.hw.board.serial import SerialAccelerator, SerialLine
from s2tdpt.hw.core import Core
from s2tdpt.hw.top import Accelerator
from s2tdpt.sim.cases import network
from tests.hw.core_bench import build_case
from tests.hw.test_core import ATTENTIONS, CASES, NEURON_KINDS
from tests.mutation import mutants
from tests.mutation.mutants import Mutant

CASES_WITH_MUTANTS = (
    "two_banks",
    "streamed",
    "streamed_int4",
    "single_convolution",
    "heads_wider_than_a_word",
    "one_lane",
)
"""Cases of the core tests in whose accelerators the mutants are found, beside one with every attention and
one with every neuron: both weight memories, pixels of one and three channels, heads in one and in several
words."""

STDP_SHAPES = "stdp.py::test_shapes"

TESTS = {
    "attention.latency": ("latency.py::",),
    "attention.stdp_kernel": ("stdp.py::test_kernel", STDP_SHAPES),
    "core": (),
    "blocks.counting": ("counting.py::", "walker.py::"),
    "board.image_buffer": ("responder.py::",),
    "blocks.lif": ("lif.py::", "lif_pipeline.py::"),
    "blocks.lif_pipeline": ("lif_pipeline.py::", "neuron.py::test_pipeline"),
    "blocks.neuron": ("neuron.py::",),
    "plan.records": ("serial.py::test_images", "top.py::test_images_pass"),
    "blocks.scale": ("post.py::",),
    "blocks.step_rom": ("sequencer.py::", "drain.py::"),
    "blocks.weights": ("core.py::test_wrong_weight_frame_is_flagged", "weights.py::"),
    "top": ("top.py::test_images_pass",),
}
"""Beginnings of a unit's own tests in ``tests/hw/test_...`` where these are not a file that is called as the
unit is."""

SOME_ATTENTIONS = {
    "attention.columns": ("uniform", "sdsa", "qkca"),
    "attention.dendrites": ("lrf-dyn",),
    "attention.field_rounds": ("lrf-dyn", "lrf-stdp"),
    "attention.gates": ("sdsa", "qkca", "qkta"),
    "attention.head_table": ("sssa", "lrf-dyn"),
    "attention.local_field": ("lrf-ssa", "lrf-stdp", "lrf-dyn"),
    "attention.lrf_dyn": ("lrf-dyn",),
    "attention.lrf_ssa": ("lrf-ssa",),
    "attention.lrf_stdp": ("lrf-stdp",),
    "attention.plain": ("none", "uniform"),
    "attention.ssa": ("ssa", "lrf-ssa", "a2os2a"),
    "attention.sssa": ("sssa",),
    "attention.state_issue": ("ssa", "lrf-ssa", "a2os2a"),
    "attention.state_records": ("ssa", "lrf-ssa", "a2os2a"),
    "attention.state_rows": ("ssa", "lrf-ssa", "a2os2a"),
}
"""Units that only some attentions have."""

OTHER_ATTENTIONS = {
    "attention.neurons": ("none",),
    "attention.reader": ("uniform", "sssa"),
    "attention.sequencer": ("ssa",),
    "attention.store": ("ssa", "a2os2a"),
    "attention.unit": ("none", "qkta"),
    "blocks.delay": ("sssa", "lrf-dyn", "a2os2a"),
    "blocks.lif_pipeline": ("a2os2a",),
    "blocks.post": ("a2os2a",),
}
"""Those beside STDP that have other parts of a unit, or neurons of their own."""

ATTENTION_TESTS = (
    "test_silent_projections",
    "test_one_engine_for_all_steps",
    "test_maps_whose_width_is_no_power_of_two",
    "test_gates_of_channels_without_a_spike",
    "test_shapes",
)
"""Of a kind, in ``tests/hw/test_attentions.py``."""

QUICK = "test_equals_golden_model_and_cycle_model[one_pixel]"
CO_SIMULATION = (
    "test_equals_golden_model_and_cycle_model[two_banks]",
    "test_equals_golden_model_and_cycle_model[streamed]",
    "test_equals_golden_model_and_cycle_model[single_convolution]",
    "test_equals_golden_model_and_cycle_model[one_lane]",
    "test_images_of_a_power_of_two_of_pixels",
)
"""Whole networks against the golden model, for what the unit's own tests let pass."""

ENABLES = "test_counts_are_the_enables_of_the_ports"
"""What a memory's port does in vain is seen there only."""

RESETS = "test_reset_out_of_any_state"
SERIAL, REGISTERS = ("serial.py::",), ("top.py::test_images_pass", f"top.py::{RESETS}")
AROUND = {
    **dict.fromkeys(
        ("board.image_buffer", "board.link", "board.responder", "board.serial", "board.uart"), SERIAL
    ),
    **dict.fromkeys(("bus.axi_lite", "bus.registers", "top"), REGISTERS),
}
"""Tests of the units around the core as a whole; what resets them is among these."""


def own_tests(mutant: Mutant) -> list[str]:
    """Nothing but a reset in the middle can tell whether a register is reset: units are tested from their
    first one.
    """
    unit = mutant.unit
    if _is_reset(mutant):
        return []
    names = list(
        TESTS.get(
            unit, (STDP_SHAPES,) if unit.startswith("attention.") else (f"{unit.rpartition('.')[2]}.py::",)
        )
    )
    if unit in SOME_ATTENTIONS:
        names = []
    names += [f"attentions.py::{test}[{kind}" for test in ATTENTION_TESTS for kind in _attentions(unit)]
    return [f"tests/hw/test_{name}" for name in names]


def network_tests(mutant: Mutant) -> list[str]:
    """Those with the mutant's place: of its attentions or neurons, if only some have it."""
    unit, kinds = mutant.unit, _attentions(mutant.unit)
    special = unit in SOME_ATTENTIONS or unit == "blocks.neuron"
    if unit in AROUND:
        names = list(AROUND[unit])
    elif _is_reset(mutant):
        names = [f"core.py::{RESETS}_with_every_attention[{kind}-" for kind in kinds]
        names = names if names and special else [f"core.py::{RESETS}[", *names]
    else:
        names = [f"core.py::test_every_attention[{kind}]" for kind in kinds]
        names += ["core.py::test_every_neuron[two blocks"] if unit in OF_NEURONS else []
        usual = [f"core.py::{name}" for name in (QUICK, *CO_SIMULATION)]
        names = names if names and special else [*usual, *names]
        names += [f"accesses.py::{ENABLES}[{kind}]" for kind in kinds or ("two_banks",)]
    names += [*SERIAL, *REGISTERS] if unit == "plan.records" else []
    return [f"tests/hw/test_{name}" for name in names]


def _attentions(unit: str) -> tuple[str, ...]:
    return SOME_ATTENTIONS.get(unit) or OTHER_ATTENTIONS.get(unit, ())


OF_NEURONS = (
    *("attention.neurons", "attention.unit"),
    *("blocks.lif", "blocks.lif_pipeline", "blocks.neuron", "blocks.post"),
)
"""Units of which a part is there for certain neurons only."""


def _is_reset(mutant: Mutant) -> bool:
    return mutant.change.endswith("is not reset")


def all_mutants() -> list[Mutant]:
    """Every mutant of `hw`, in the order of the source."""
    line = SerialLine(clock=1_000_000, baud=250_000, window=2)
    machine = CASES["two_banks"][1]
    cases = [build_case(*CASES[name], attempts=1) for name in CASES_WITH_MUTANTS]
    options = [
        *({"attention": {"kind": kind}} for kind in ATTENTIONS),
        *({"neuron": {"kind": kind}, "depth": 2} for kind in NEURON_KINDS),
    ]
    cases += [build_case(network(**changes), machine, attempts=1) for changes in options]
    params = cases[0].params
    designs = [SerialAccelerator(params, machine, line), Accelerator(params, machine, registers=True)]
    designs += [Core(case.params, case.program, case.widths, case.bounds) for case in cases]
    return mutants.catalogue(designs)


def observer(known: list[Mutant]) -> Callable[[], Callable[[], set[str]]]:
    """For `campaign.Campaign`: notes which of the `known` mutants could be planted."""
    names: dict[tuple, list[str]] = {}
    places = {mutant.place for mutant in known}
    for mutant in known:
        names.setdefault((mutant.place, mutant.change), []).append(mutant.name)

    def observe():
        met: set[tuple] = set()
        mutants.watch(
            lambda sites: met.update((site.place, site.change) for site in sites), places.__contains__
        )
        return lambda: {name for key in met for name in names.get(key, ())}

    return observe
