"""How early a step may start: before what it reads is complete, and never ahead of it.

Behind the scanners nothing stalls. So once the last position of a tile has ended there, the cycles in which
all of the tile's spikes are written are known, and the walk of the step that reads them may begin so much
earlier that each word is there when it is asked for, also if no bank ever makes the walk wait. The same holds
for the last tokens of an attention (`hw.attention.timeline`). Both leads are constants of a program: the
sequencer waits for them, the cycle model counts them.
"""

from __future__ import annotations

import numpy as np

from s2tdpt.hw.blocks.timing import PostTiming, drain_delay
from s2tdpt.hw.plan.program import Program, Source, Step
from s2tdpt.hw.plan.records import FIRST_REQUEST, VISIBLE_DELAY

__all__ = ["ENDED_DELAY", "START_DELAY", "settle_cycles", "words_read"]

ENDED_DELAY = 2
"""From the end of a tile's last position at the scanners to the sequencer's knowing of it."""

START_DELAY = 1
"""From the sequencer's decision to `start`."""


def words_read(step: Step) -> np.ndarray:
    """Position of the map that each word of a walk belongs to, in the order of the walk, int64 [words]."""
    grid = np.arange(step.positions).reshape(step.height, step.width)
    seen = grid.reshape(-1, 1)
    if step.kernel == 3:
        padded = np.pad(grid, 1, constant_values=-1)
        taps = [padded[y : y + step.height, x : x + step.width] for y in range(3) for x in range(3)]
        seen = np.stack(taps, axis=-1).reshape(step.positions, 9)
    inside = np.repeat(seen[:, None], step.passes, axis=1).reshape(-1)
    return np.repeat(inside[inside >= 0], step.packing_in.groups)


def settle_cycles(program: Program) -> list[int | None]:
    """For every step, the cycles that it waits once the step before it has ended at the scanners.

    None where it waits for the completion of what it reads: nothing is read that the step before writes.
    """
    found: list[int | None] = [None]
    for index, step in enumerate(program.steps[1:], 1):
        follows = step.source is Source.SPIKES and step.after == index - 1
        found.append(_settle(step, program.steps[index - 1], program) if follows else None)
    return found


def _settle(step: Step, writer: Step, program: Program) -> int:
    """Cycles between them so that no word of `step` is asked for before its last write can be read."""
    pieces = writer.subgroups(program.machine)
    written = drain_delay(program) + pieces - 1 + PostTiming(program).written_at
    # Of the position of the writer after which a position of the map is complete, as early as it can be.
    grid = np.arange(writer.positions).reshape(writer.height, writer.width)
    if writer.pooled:
        rows, columns = (np.minimum(np.arange(0, n, 2) + 1, n - 1) for n in grid.shape)
        grid = grid[np.ix_(rows, columns)]
    ends = (grid.reshape(-1) - (writer.positions - 1)) * pieces * writer.passes
    read = words_read(step)
    asked = ENDED_DELAY + START_DELAY + FIRST_REQUEST + np.arange(len(read))
    return max(0, int((ends[read] + written + VISIBLE_DELAY - asked).max()))
