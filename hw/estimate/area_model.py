"""LUTs and flip-flops of an ECP5 before synthesis: counts of adder and register bits times fitted factors.

The features are bits that the blocks really have, from the layer program and the proven widths. A
non-negative least squares fit to the synthesis runs of `area_table` says how many LUTs and flip-flops a
bit of each takes, relative errors weighing alike. Block RAMs are not fitted: `memory_plan` counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from s2tdpt.golden.bounds import Bounds, derive_bounds
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.estimate.area_table import CASES, Counts, count_cells, read_table
from s2tdpt.hw.estimate.memory_plan import plan_for
from s2tdpt.hw.plan.memory import LUTRAM_BITS, LUTRAM_WORDS
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import Widths, derive_widths

__all__ = ["AreaModel", "Example", "area_model", "features", "fit", "held_out_errors"]

LUT_PER_RAM = 6
"""LUTs as nextpnr counts them of one distributed RAM."""


def features(program: Program, widths: Widths, bounds: Bounds) -> dict[str, float]:
    """Bits of logic by block, and LUTs of distributed RAM.

    ``lanes``: adders of the trees and sums of all lanes and steps. ``selection``: registers of weights in
    front of them. ``words``: bits of a spike word, once for every place that holds or selects one. ``post``:
    bits of scale, U and neurons. ``planes``: those of the plane combiner and the head's sums. ``attention``:
    adders and neurons of the row engines. ``ram``: LUTs of the distributed RAMs that the memory plan
    foresees. ``control``: what every machine has.
    """
    net, machine, heads = program.network, program.machine, HeadSizes(program)
    steps, bits = net.timesteps, net.weight_bits
    tree, width, left = 0, bits, machine.banks
    while left > 1:  # levels of the tree that adds the banks up
        width += 1
        tree += left // 2 * width
        left -= left // 2
    value = widths.value + widths.membrane
    ram = sum(
        memory.count * -(-memory.words // LUTRAM_WORDS) * -(-memory.bits // LUTRAM_BITS)
        for memory in plan_for(program, widths, bounds).memories
        if memory.kind == "distributed"
    )
    return {
        "control": 1.0,
        "lanes": machine.lanes * steps * (tree + widths.accumulator),
        "selection": machine.lanes * steps * machine.banks * bits,
        "words": machine.lanes * steps,
        "post": machine.post_lanes * steps * value,
        "planes": machine.post_lanes * (steps * widths.combined + widths.head_sum),
        "attention": heads.head_dim * (heads.engines * widths.attention + widths.attention_membrane),
        "ram": LUT_PER_RAM * ram,
    }


@dataclass(frozen=True)
class Example:
    """A machine that was synthesised."""

    name: str
    features: dict[str, float]
    counts: Counts


@dataclass(frozen=True)
class AreaModel:
    """Factors by feature, for ``lut`` and ``ff``.

    Attributes
    ----------
    factors : dict of str to dict of str to float
    rows : int
        Synthesis runs that it was fitted to.
    errors : dict of str to (float, float)
        Mean and largest relative error of machines that were left out of the fit, one after the other.
    """

    factors: dict[str, dict[str, float]]
    rows: int
    errors: dict[str, tuple[float, float]]

    def predict(self, kind: str, found: dict[str, float]) -> float:
        """LUTs or flip-flops."""
        return sum(factor * found[name] for name, factor in self.factors[kind].items())


def fit(examples: list[Example], kind: str) -> dict[str, float]:
    """Factors that keep the relative errors small."""
    from scipy.optimize import nnls

    names = list(examples[0].features)
    wanted = np.array([getattr(example.counts, kind) for example in examples], float)
    matrix = np.array([[example.features[name] for name in names] for example in examples], float)
    solution, _ = nnls(matrix / wanted[:, None], np.ones(len(wanted)))
    return dict(zip(names, solution.tolist(), strict=True))


def held_out_errors(examples: list[Example], kind: str) -> tuple[float, float]:
    """Mean and largest relative error, each machine predicted from all the others."""
    errors = []
    for at, example in enumerate(examples):
        factors = fit(examples[:at] + examples[at + 1 :], kind)
        predicted = sum(factor * example.features[name] for name, factor in factors.items())
        errors.append(abs(predicted / getattr(example.counts, kind) - 1))
    return float(np.mean(errors)), float(np.max(errors))


def examples_of(rows: dict[str, dict[str, int]]) -> list[Example]:
    """The rows of the table with their features."""
    found = []
    for case in CASES:
        if case.name in rows:
            params = case.params()
            bounds = derive_bounds(params)
            widths = derive_widths(params, bounds)
            program = program_of(params, case.machine(), widths.head_sum)
            counts = count_cells(rows[case.name])
            found.append(Example(case.name, features(program, widths, bounds), counts))
    return found


@cache
def area_model() -> AreaModel:
    """The model of the committed table."""
    examples = examples_of(read_table())
    kinds = ("lut", "ff")
    return AreaModel(
        factors={kind: fit(examples, kind) for kind in kinds},
        rows=len(examples),
        errors={kind: held_out_errors(examples, kind) for kind in kinds},
    )
