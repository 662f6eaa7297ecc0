"""Cycles from the end of a position to its writes, composed of the delays of the blocks on the way.

Behind the scanners nothing stalls, so that these are constants of a network and a machine. The hardware
aligns its tags by them, the cycle model adds them up, and `overlap` starts steps by them.
"""

from __future__ import annotations

from s2tdpt.hw.blocks.combine import combiner_delay
from s2tdpt.hw.blocks.lanes import lane_delay
from s2tdpt.hw.blocks.levels import LEVELS_DELAY
from s2tdpt.hw.blocks.lif_pipeline import lif_delay
from s2tdpt.hw.blocks.pool import OrPool
from s2tdpt.hw.blocks.residual import ResidualStream
from s2tdpt.hw.blocks.scale import Scale
from s2tdpt.hw.plan.program import Program

SUMS_DELAY = 1
"""From the naming of a piece to its sums (`lanes.LaneArray`)."""


class PostTiming:
    """Cycles from the naming of a piece, composed of the parts' delays.

    Attributes
    ----------
    scaled_at, value_at, membrane_at, spikes_at, written_at : int
        To its number (out of planes), to its biased value, to U or the neuron's input, to its spikes, to the
        write of its spikes.
    """

    def __init__(self, program: Program):
        steps = program.network.timesteps
        self.scaled_at = SUMS_DELAY + combiner_delay(steps)
        self.value_at = self.scaled_at + Scale.delay
        self.membrane_at = self.value_at + ResidualStream.delay
        self.spikes_at = self.membrane_at + max(lif_delay(steps), LEVELS_DELAY * program.has_levels)
        self.written_at = self.spikes_at + OrPool.delay


def drain_delay(program: Program) -> int:
    """From the end of a position at the scanners to the naming of its first piece."""
    return 1 + lane_delay(program.machine.banks)
