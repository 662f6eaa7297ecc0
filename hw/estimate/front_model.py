"""The clock of `front.EventSource`: the same queues and scanners, with counts in place of spikes.

A bank needs to know of a slice only how many of its channels have a spike. `FrontModel` moves the walk, the
queues and the scanners on, cycle by cycle and compiled, and notes when positions end. A window of pixels may
hold the walk: when its words may be asked for is the recurrence of `window.PixelWindow`.
"""

from __future__ import annotations

import numba
import numpy as np

from s2tdpt.hw.blocks.window import COLUMN_CYCLES, FIRST_WINDOW
from s2tdpt.hw.plan.records import FIRST_REQUEST

PUSH = 3
"""From asking for a word to its slices' entry into the queues, or to their being dropped."""
FOREVER = 1 << 62

LAST, FINAL = 1, 2
"""A word ends its position; its tile. Above these bits of a mark stands the cooldown."""
_COOLDOWN_SHIFT, _COUNT_SHIFT = 2, 16
_NOW, _WORD, _COOLDOWN, _ENDS, _BUSY, _OPEN = range(6)  # of the state vector


@numba.njit(cache=True)
def _move(state, counts, marks, window, pipe, queue, banks, ends, wanted_ends, until):
    """Move on until all words are asked for and `wanted_ends` positions have ended, or cycle `until`.

    Asks for the words from state[_WORD] on, not before cycle state[_OPEN]; `window` words belong to a window
    of pixels (0: there are none). `banks` holds for every bank: head and level of its queue, room, busy,
    channels left of its slice, mark of its slice.
    """
    words, width = counts.shape
    depth = queue.shape[1]
    while (state[_WORD] < words or state[_ENDS] < wanted_ends) and state[_NOW] < until:
        now = state[_NOW]
        ending = state[_COOLDOWN] == 0
        asks = state[_WORD] < words and now >= state[_OPEN]
        for b in range(width):
            ending = ending and banks[b, 3] and banks[b, 4] <= 1 and banks[b, 5] & LAST
            asks = asks and banks[b, 2] > 0
        cooldown = max(0, state[_COOLDOWN] - 1)
        adds = False
        if ending:
            cooldown = banks[0, 5] >> _COOLDOWN_SHIFT
            ends[state[_ENDS]] = now
            state[_ENDS] += 1
        for b in range(width):
            single = banks[b, 4] <= 1
            fires = banks[b, 3] and (ending or not (single and banks[b, 5] & LAST))
            if fires and banks[b, 4] > 0:
                adds = True
            if not banks[b, 3] or (fires and single):
                banks[b, 3] = 0
                if banks[b, 1] > 0:
                    entry = queue[b, banks[b, 0]]
                    banks[b, 0] = (banks[b, 0] + 1) % depth
                    banks[b, 1] -= 1
                    banks[b, 2] += 1
                    banks[b, 3] = 1
                    banks[b, 4] = entry >> _COUNT_SHIFT
                    banks[b, 5] = entry & ((1 << _COUNT_SHIFT) - 1)
            elif fires:
                banks[b, 4] -= 1
            entry = pipe[now % PUSH, b]  # asked for PUSH cycles ago
            if entry >= 0:
                if entry >> _COUNT_SHIFT or entry & LAST:
                    queue[b, (banks[b, 0] + banks[b, 1]) % depth] = entry
                    banks[b, 1] += 1
                else:
                    banks[b, 2] += 1
            pipe[now % PUSH, b] = -1
            if asks:
                pipe[now % PUSH, b] = counts[state[_WORD], b] << _COUNT_SHIFT | marks[state[_WORD]]
                banks[b, 2] -= 1
        if asks:
            state[_WORD] += 1
            if window > 0 and state[_WORD] % window == 0:
                state[_OPEN] = max(now + 1, state[_OPEN] + COLUMN_CYCLES)
        state[_COOLDOWN] = cooldown
        state[_BUSY] += adds
        state[_NOW] = now + 1


def word_marks(last: np.ndarray, final: np.ndarray, cooldown: int, final_cooldown: int) -> np.ndarray:
    """Marks of words from flags, int64 [words]."""
    wait = np.where(final, final_cooldown, cooldown)
    return last * LAST + final * FINAL + (wait << _COOLDOWN_SHIFT)


class FrontModel:
    """Walk, queues and scanners of one machine, from step to step.

    Parameters
    ----------
    banks, queue : int
        As in `machine.Machine`.
    """

    def __init__(self, banks: int, queue: int):
        self._state = np.zeros(6, np.int64)
        self._pipe = np.full((PUSH, banks), -1, np.int64)
        self._queue = np.zeros((banks, queue), np.int64)
        self._banks = np.zeros((banks, 6), np.int64)
        self._banks[:, 2] = queue
        self._ends = np.zeros(0, np.int64)
        self._due = 0  # positions that the steps so far will end
        self._step = np.zeros((0, banks), np.int64), np.zeros(0, np.int64), 0

    def walk(self, counts: np.ndarray, marks: np.ndarray, start: int, window: int = 0) -> int:
        """Start a step in cycle `start`; returns the first cycle in which its walk is over.

        Parameters
        ----------
        counts : int64 [words, banks]
            Channels with a spike, of every word in the order of the walk.
        marks : int64 [words]
            `word_marks`.
        window : int
            `program.Step.window_words`.
        """
        self._run(FOREVER, start)  # what earlier steps left in the queues goes on meanwhile
        self._state[_WORD] = 0
        self._state[_OPEN] = start + (FIRST_WINDOW if window else FIRST_REQUEST)
        self._step = np.ascontiguousarray(counts), np.ascontiguousarray(marks), window
        self._due += int((marks & LAST).sum())
        self._ends = np.concatenate([self._ends, np.zeros(self._due - len(self._ends), np.int64)])
        self._run(0, FOREVER)
        return int(self._state[_NOW])

    def position_end(self, number: int) -> int:
        """Cycle in which position `number`, counted over all steps, ends."""
        self._run(number + 1, FOREVER)
        return int(self._ends[number])

    @property
    def busy(self) -> int:
        """Cycles so far in which at least one bank had a channel to add."""
        return int(self._state[_BUSY])

    def _run(self, ends: int, until: int) -> None:
        _move(
            self._state,
            *self._step,
            self._pipe,
            self._queue,
            self._banks,
            self._ends,
            ends,
            until,
        )
