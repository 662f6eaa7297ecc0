"""When the tiles of a weight stream are there, as plain arithmetic: the clock of `weights.WeightStream`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import cycle

from s2tdpt.hw.images import const_width, stream_tiles
from s2tdpt.hw.schedule import Program
from s2tdpt.hw.weights import stream_width
from s2tdpt.hw.widths import Widths

LOADED = -(1 << 62)
"""First beat of a stream that began long ago: both banks were full before anything else happened."""


def tile_beats(program: Program, widths: Widths) -> list[int]:
    """Beats of every tile of an image, in program order; their sum is the image's weight stream."""
    per_const = -(-const_width(program, widths) // stream_width(program))
    return [consts * per_const + rows for consts, rows in stream_tiles(program)]


class TileArrival:
    """Cycles in which tiles become usable while the sender never pauses, over any number of images.

    A tile is received as soon as the one before it is complete and one of the two banks is free:

        last beat of tile k = max(last beat of tile k-1, cycle that released tile k-2) + beats of tile k

    Parameters
    ----------
    beats : sequence of int
        Of every tile of an image (`tile_beats`).
    first : int
        Cycle of the very first beat; all cycles are absolute.
    """

    def __init__(self, beats: Sequence[int], first: int = LOADED):
        self._beats = cycle(beats)
        self._last = first - 1
        self._freed = deque([first - 1, first - 1])

    def next_tile(self) -> int:
        """First cycle in which the next tile can be walked; the tile two before it must be released."""
        self._last = max(self._last, self._freed.popleft()) + next(self._beats)
        return self._last + 1

    def release(self, at: int) -> None:
        """The oldest tile is done with: `tile_done` in cycle `at`."""
        self._freed.append(at)
