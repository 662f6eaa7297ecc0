"""How long the attention unit takes and what it keeps, as plain arithmetic on spikes and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s2tdpt.hw.attention.stdp_records import REUSE
from s2tdpt.hw.attention.timeline import READY_DELAY, head_parts
from s2tdpt.hw.plan.program import Program

__all__ = [
    "TokenSchedule",
    "attention_cycles",
    "attention_macs",
    "head_cycles",
    "output_delay",
    "row_memory_bits",
    "row_updates",
    "token_schedule",
    "y_interval",
]

SCAN_DELAY = 4
"""First pass: from the beginning of a head to the second pass, less a cycle a token."""

TOKEN_CYCLES = 2
"""Second pass: a token takes that long, at least, but for the last one of a head."""


def y_interval(lut: Sequence[int], tokens: int) -> tuple[int, int]:
    """Ends of ``Y = sum_j LUT[..] V_j`` and of every partial sum, for any spikes of `tokens` tokens."""
    return tokens * min(0, min(lut)), tokens * max(0, max(lut))


def row_memory_bits(*, head_dim: int, timesteps: int, y_bits: int, attention_steps: int = 1) -> int:
    """Bits of the row memories: ``head_dim`` sums for every query count and time step.

    The steps of an engine count as the next power of two. The number of tokens enters only through `y_bits`,
    the width of a sum: ``log2(tokens)``.
    """
    engines = min(attention_steps, timesteps)
    served = (len(range(engine, timesteps, engines)) for engine in range(engines))
    rows = sum((head_dim + 1) << (steps - 1).bit_length() for steps in served)
    return rows * head_dim * y_bits


def attention_macs(*, tokens: int, heads: int, head_dim: int, timesteps: int) -> int:
    """Multiply-accumulates that the N x N form ``(Q K^T) V`` would need, for comparison."""
    return 2 * timesteps * heads * head_dim * tokens * tokens


def _occurring(q: np.ndarray) -> np.ndarray:
    """How many different spike counts the queries of a head ``[T, N, d_h]`` have in each step."""
    counts = np.sort(q.sum(-1, dtype=np.int64), axis=1)
    return 1 + (counts[:, 1:] != counts[:, :-1]).sum(1)


def _active(v: np.ndarray) -> np.ndarray:
    """Booleans ``[N, T]``: in which steps the rows take part in a token of a head ``[T, N, d_h]``."""
    active = v.any(-1).T.copy()
    active[0] = True  # token 0 defines the rows
    return active


def row_updates(q: np.ndarray, k: np.ndarray, v: np.ndarray, *, heads: int) -> np.ndarray:
    """Row updates of every token in every head, over all engines.

    A token adds to the row of each query count that occurs in a step, in every step in which it has a value
    spike; token 0 defines the rows and so touches all of them.

    Parameters
    ----------
    q, k, v : array of {0, 1}, ``[T, N, D]``
    heads : int
        Divides D.

    Returns
    -------
    array of int64, ``[heads, N]``
    """
    return np.array(
        [
            _active(value) @ _occurring(query)
            for query, value in zip(np.split(q, heads, axis=2), np.split(v, heads, axis=2), strict=True)
        ]
    )


@dataclass(frozen=True)
class TokenSchedule:
    """The second pass over a head.

    Attributes
    ----------
    occurring : int64 [T]
        Different spike counts of the queries in every step.
    updates : int64 [N, engines]
        Rows that every engine adds a token to, one a cycle from the token's first cycle on.
    period : int64 [N]
        Cycles from a token to the next one.
    """

    occurring: np.ndarray
    updates: np.ndarray
    period: np.ndarray


def token_schedule(q: np.ndarray, v: np.ndarray, engines: int) -> TokenSchedule:
    """What the row engines do with the tokens of a head, spikes {0, 1} ``[T, N, d_h]``."""
    occurring, active = _occurring(q), _active(v)
    tokens = len(active)
    period = np.ones(tokens, np.int64)
    period[:-1] = TOKEN_CYCLES
    updates = np.zeros((tokens, engines), np.int64)
    for engine in range(engines):
        counts = occurring[engine::engines]
        work = updates[:, engine] = active[:, engine::engines] @ counts
        if counts.min() < REUSE:
            work = np.where(work, work + REUSE - 1, 0)
        period = np.maximum(period, work)
    return TokenSchedule(occurring, updates, period)


def _head_cycles(q: np.ndarray, v: np.ndarray, engines: int, parts: int) -> int:
    steps, tokens, _ = q.shape
    longest = token_schedule(q, v, engines).period
    return SCAN_DELAY + tokens + int(longest.sum()) + tokens * max(steps, parts) + 1


def head_cycles(q: np.ndarray, k: np.ndarray, v: np.ndarray, program: Program) -> int:
    """Cycles that a head keeps `StdpAttention` busy, exact.

    From the cycle in which the head begins to the one in which the next head can, or, after a block's last
    head, `output_delay` cycles before the one after its last write:
    ``5 + N + (cycles of the row updates) + N * max(T, parts)``. A token's row updates take as long as in the
    engine that has the most of them, at least `TOKEN_CYCLES`; an engine spends 2 more cycles on each of its
    tokens if a step has less than 3 different query counts.

    Parameters
    ----------
    q, k, v : array of {0, 1}, ``[T, N, d_h]``
        Of one head. The keys do not matter.
    program : Program

    Returns
    -------
    int
    """
    machine = program.machine
    return _head_cycles(q, v, min(machine.attention_steps, q.shape[0]), head_parts(program))


def output_delay(timesteps: int, parts: int) -> int:
    """From the cycle after a block's last head to the one after its last write."""
    return min(timesteps, parts) + 7


def attention_cycles(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    heads: int,
    post_lanes: int,
    attention_steps: int = 1,
) -> int:
    """Cycles of a block whose heads are all ready at once, from the pulse to the last write, exact.

    Parameters
    ----------
    q, k, v : array of {0, 1}, ``[T, N, D]``
    heads : int
        Divides D.
    post_lanes, attention_steps : int
        As in `machine.Machine`.
    """
    steps, _, width = q.shape
    parts = -(-width // heads // post_lanes)
    engines = min(attention_steps, steps)
    split = zip(np.split(q, heads, axis=2), np.split(v, heads, axis=2), strict=True)
    busy = sum(_head_cycles(query, value, engines, parts) for query, value in split)
    return READY_DELAY + busy + output_delay(steps, parts)
