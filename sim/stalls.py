"""Stall patterns for AXI4-Stream sources and sinks, reproducible from a seed."""

import itertools
import random
from collections.abc import Iterator

from s2tdpt.golden.errors import UserError

PATTERNS = ("none", "random", "bursty", "starved")
"""Known patterns: never a pause, a fair coin every cycle, runs of 1..24 cycles, 1 cycle of 8 open."""


def pauses(pattern: str, seed: int, lane: str) -> Iterator[bool] | None:
    """Endless stream of pauses, one a clock cycle (True: this side holds back).

    Parameters
    ----------
    pattern : str
        One of `PATTERNS`.
    seed : int
        Seed of the whole run.
    lane : str
        Name of the stream; streams of one run have independent patterns.

    Returns
    -------
    Iterator[bool] or None
        None for ``none``: no process has to wake every cycle.

    Raises
    ------
    UserError
        Unknown pattern.
    """
    if pattern not in PATTERNS:
        raise UserError(f"unknown stall pattern {pattern!r}; expected one of {', '.join(PATTERNS)}")
    if pattern == "none":
        return None
    generator = random.Random(f"{pattern}/{seed}/{lane}")
    return {"random": _random, "bursty": _bursty, "starved": _starved}[pattern](generator)


def _random(generator: random.Random) -> Iterator[bool]:
    while True:
        yield generator.random() < 0.5


def _bursty(generator: random.Random) -> Iterator[bool]:
    for paused in itertools.cycle((False, True)):
        for _ in range(generator.randint(1, 24)):
            yield paused


def _starved(generator: random.Random) -> Iterator[bool]:
    while True:
        # The open cycle wanders inside its window of eight, so that no fixed phase is favoured.
        position = generator.randrange(8)
        for cycle in range(8):
            yield cycle != position
