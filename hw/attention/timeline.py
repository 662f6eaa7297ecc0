"""When the heads of a block begin, and when the block may be read, whatever its attention is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s2tdpt.hw.blocks.overlap import START_DELAY, words_read
from s2tdpt.hw.blocks.timing import PostTiming, drain_delay
from s2tdpt.hw.plan.program import Program, Sink
from s2tdpt.hw.plan.records import FIRST_REQUEST, VISIBLE_DELAY

__all__ = ["READY_DELAY", "attention_lead", "emission_period", "head_parts", "timeline"]

READY_DELAY = 2
"""From the pulse that completes a head to its beginning."""


def head_parts(program: Program) -> int:
    """Pieces of a head."""
    return program.head_packing.head_slots // program.machine.post_lanes


def emission_period(program: Program) -> int:
    """Cycles between the last pieces of two tokens of a head, where their rows leave step by step."""
    return max(program.network.timesteps, head_parts(program))


def attention_lead(program: Program, period: int | None) -> int:
    """Tokens of the last head that may still be on their way when a block's attention may be read.

    No word is asked for before it can be read, and the first write of the layer that reads them does not meet
    the last one of the attention: the spike memory has one write port.

    Parameters
    ----------
    period : int or None
        Cycles between the last pieces of two tokens of a head; None: they have no constant pace, and the lead
        is 0.
    """
    readers = [step for step in program.steps if step.after_attention]
    if not readers or period is None:
        return 0
    timing = PostTiming(program)
    read = words_read(readers[0])
    # From the write of the token that counts to the first request; a write takes so much longer at least.
    first = 1 + START_DELAY + FIRST_REQUEST
    tokens = program.network.tokens
    asked = first + np.arange(len(read))
    lead = int(((asked - VISIBLE_DELAY) // period + tokens - 1 - read).min())
    meets = first + drain_delay(program) + timing.written_at - 1
    assert readers[0].sink is Sink.RESIDUAL
    return max(0, min(lead, meets // period, tokens - 1))


def timeline(ready: Sequence[int], cycles: Sequence[int], delay: int) -> tuple[list[int], int]:
    """When the heads of a block begin, and when `blocks` has counted it.

    Parameters
    ----------
    ready : sequence of int
        For every head, the cycle of the `ready` pulse that completes it.
    cycles : sequence of int
        How long each of them keeps the unit busy.
    delay : int
        From the cycle after the last head to the one in which the block may be read.

    Returns
    -------
    list of int
        Cycle in which each head begins.
    int
    """
    starts, free = [], 0
    for when, busy in zip(ready, cycles, strict=True):
        starts.append(max(when + READY_DELAY, free))
        free = starts[-1] + busy
    return starts, free + delay
