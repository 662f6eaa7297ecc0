"""Attentions whose time depends on the sizes alone: tokens pass at one pace whatever they are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.accesses import HeadAccesses
from s2tdpt.hw.attention.timeline import emission_period, head_parts
from s2tdpt.hw.attention.unit import AttentionHardware, AttentionUnit
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes

if TYPE_CHECKING:
    import numpy as np

    from s2tdpt.hw.plan.widths import Widths

__all__ = ["SteadyHardware", "SteadyUnit"]

ROW_DELAY = 4
"""From the beginning of the second pass to the first row at the neurons."""


class SteadyUnit(AttentionUnit):
    """Base of the units whose rows come at the pace of the neurons, whatever the spikes are.

    Parameters
    ----------
    program, sizes, threshold, y
        As in `AttentionUnit`.
    """

    def __init__(self, program: Program, sizes: Sizes, *, threshold: int, y: Interval):
        super().__init__(program, sizes, threshold=threshold, y=y, period=emission_period(program))


class SteadyHardware(AttentionHardware):
    """With `reader.TokenRows`: a pass of a cycle a token or none, then one at the pace of the neurons."""

    def first_pass(self, program: Program) -> int:
        """Cycles from the beginning of a head to that of its second pass."""
        return 0

    def head_cycles(
        self, program: Program, q: np.ndarray | None, k: np.ndarray | None, v: np.ndarray | None
    ) -> int:
        return self.first_pass(program) + program.network.tokens * emission_period(program) + 1

    def head_accesses(
        self,
        program: Program,
        widths: Widths,
        q: np.ndarray | None,
        k: np.ndarray | None,
        v: np.ndarray | None,
    ) -> HeadAccesses:
        found = HeadAccesses()
        passes = 2 if self.first_pass(program) else 1
        found.read_fields(self.ports["tokens"], passes * program.network.tokens)
        found.additions += self.additions(program, q, k, v)
        return found

    def additions(self, program: Program, q, k, v) -> Counter[int]:
        """Additions of a head, by bits."""
        return Counter()

    def output_delay(self, program: Program) -> int:
        return min(program.network.timesteps, head_parts(program)) + ROW_DELAY - 1

    def period(self, program: Program) -> int:
        return emission_period(program)
