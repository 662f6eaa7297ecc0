"""How long a stage lasts and which learning rate holds when: by epochs, or by a time budget.

By epochs, everything follows from the step number, and a rerun repeats every bit. With a time budget the
position is the share of the budget that is used up, measured on the clock and carried over interruptions:
warm-up and cosine are stretched to it, so that a run on any machine ends fully annealed, on time.

References
----------
Recipe (AdamW, warm-up, cosine): Spikingformer, arXiv 2304.11954, public code.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

FINAL_LR = 0.01
"""Share of the peak learning rate that the cosine ends at."""


@dataclass(frozen=True)
class Stage:
    """One training stage: its name, length (epochs), peak rate, weight decay, warm-up (epochs).

    `minutes`, if not 0, is its time budget; `epochs` then only gives the proportion of the warm-up.
    `clock` "cpu" counts the processor time of this process instead of time.
    """

    name: str
    epochs: int
    lr: float
    weight_decay: float
    warmup_epochs: float
    minutes: float = 0.0
    clock: str = "wall"


def learning_rate(stage: Stage, step: float, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine from `stage.lr` to `FINAL_LR` of it; `step` counts from 0."""
    warmup, total = stage.warmup_epochs * steps_per_epoch, stage.epochs * steps_per_epoch
    if step < warmup:
        return stage.lr * (step + 1) / warmup
    phase = (step - warmup) / max(1.0, total - warmup)
    return stage.lr * (FINAL_LR + (1.0 - FINAL_LR) * 0.5 * (1.0 + math.cos(math.pi * phase)))


class Clock:
    """Position of a stage between 0 and 1.

    Parameters
    ----------
    stage : Stage
    steps_per_epoch : int
    elapsed : float
        Seconds used before an interruption.
    """

    def __init__(self, stage: Stage, steps_per_epoch: int, elapsed: float = 0.0):
        self.stage, self.steps_per_epoch = stage, steps_per_epoch
        self._now = time.process_time if stage.clock == "cpu" else time.monotonic
        self._before, self._started = elapsed, self._now()

    @property
    def elapsed(self) -> float:
        """Seconds spent in the stage, interruptions left out."""
        return self._before + self._now() - self._started

    @property
    def total_steps(self) -> int:
        return self.stage.epochs * self.steps_per_epoch

    def position(self, step: int, elapsed: float | None = None) -> float:
        """Share of the stage that is done when `step` steps are; 1 or more: it is over.

        `elapsed` replaces the clock's own reading (all processes of a distributed run take the first's).
        """
        if self.stage.minutes:
            return (self.elapsed if elapsed is None else elapsed) / (60.0 * self.stage.minutes)
        return step / self.total_steps if self.total_steps else 1.0

    def rate(self, step: int, position: float) -> float:
        """Learning rate of the step to come."""
        if self.stage.minutes:
            step = min(position, 1.0) * self.total_steps
        return learning_rate(self.stage, step, self.steps_per_epoch)
