"""When the tiles of a weight stream are there, as plain arithmetic: the clock of `weights.WeightStream`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from s2tdpt.hw.blocks.images import TileSize, constant_beats, tile_sizes
from s2tdpt.hw.blocks.weights import READY_DELAY, ROOM_DELAY
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import STREAM_CONSTANT_TILES, weight_rows
from s2tdpt.hw.plan.widths import Widths

LONG_AGO = -(1 << 62)
"""First beat of a stream that had filled both rings before anything else happened."""


@dataclass(frozen=True)
class StreamShape:
    """What the arrival of tiles depends on.

    Parameters
    ----------
    tiles : tuple of TileSize
        Of an image, in program order.
    word_beats : int
        Beats of a constant word.
    banks : int
        Beats of a row.
    ring_rows : int
        Rows of the ring; not fewer than any tile has.
    """

    tiles: tuple[TileSize, ...]
    word_beats: int
    banks: int
    ring_rows: int


def stream_shape(program: Program, widths: Widths) -> StreamShape:
    """Of the weight stream of a program."""
    return StreamShape(
        tiles=tuple(tile_sizes(program)),
        word_beats=constant_beats(program, widths),
        banks=program.machine.banks,
        ring_rows=weight_rows(program),
    )


class TileArrival:
    """Cycles in which tiles become ready while the sender never pauses, over any number of images.

    A beat is received in the cycle after the one before it, but not before there is room:

        constants of tile n   from cycle complete(n - 4) + 2 on
        row r (of all rows)   from cycle release(tile of row r - ring_rows) + 2 on

    and a tile is ready 2 cycles after its last beat (`weights.READY_DELAY`, `weights.ROOM_DELAY`).
    Call `next_ready`, `start`, `release` and `complete` in program order, each for one tile after the other;
    `next_ready` of tile n needs `start` of tile n - 1, and the events that make room for tile n.
    Cost: constant per tile.

    Parameters
    ----------
    shape : StreamShape
    first : int
        Cycle of the very first beat if nothing delays it; all cycles are absolute.
    """

    def __init__(self, shape: StreamShape, first: int = LONG_AGO):
        self._shape = shape
        self._beat = first  # first cycle that may take the next beat
        self._row = 0  # rows received, of all tiles
        self._ready: int | None = None  # of the next tile to be started, once it is received
        self._started = first
        self._rows = _Recent("first row")
        self._released, self._complete = _Recent("release"), _Recent("complete")

    def next_ready(self) -> int:
        """First cycle in which `ready` is high for the next tile.

        Raises
        ------
        ValueError
            An event that makes room for the tile is not known yet.
        """
        if self._ready is None:
            self._ready = self._receive()
        return max(self._ready, self._started + 1)

    def start(self, cycle: int) -> None:
        """The next tile is started."""
        self.next_ready()
        self._ready, self._started = None, cycle

    def release(self, cycle: int) -> None:
        """No weight of the oldest tile in use will be read after `cycle`."""
        self._released.append(cycle)

    def complete(self, cycle: int) -> None:
        """No constant of the oldest tile in use will be read after `cycle`."""
        self._complete.append(cycle)

    def _receive(self) -> int:
        """Receive a tile; returns the first cycle in which it is there."""
        shape, tile = self._shape, self._rows.count
        size = shape.tiles[tile % len(shape.tiles)]
        if tile >= STREAM_CONSTANT_TILES:
            self._beat = max(self._beat, self._complete[tile - STREAM_CONSTANT_TILES] + ROOM_DELAY)
        end = self._row + size.rows
        self._rows.append(self._row)
        beat = self._beat + size.constants * shape.word_beats + size.rows * shape.banks
        # Tiles before these were released before the constants had room.
        for older in range(max(0, tile - STREAM_CONSTANT_TILES + 1), tile):
            first = max(self._row, self._rows[older] + shape.ring_rows)  # first row that replaces one of it
            if first < min(end, self._rows[older + 1] + shape.ring_rows):
                beat = max(beat, self._released[older] + ROOM_DELAY + (end - first) * shape.banks)
        self._row, self._beat = end, beat
        return beat - 1 + READY_DELAY


class _Recent:
    """A number of each of the last few tiles."""

    def __init__(self, name: str):
        self._name, self.count = name, 0
        self._values: deque[int] = deque(maxlen=STREAM_CONSTANT_TILES + 1)

    def append(self, value: int) -> None:
        self._values.append(value)
        self.count += 1

    def __getitem__(self, tile: int) -> int:
        if not self.count - len(self._values) <= tile < self.count:
            raise ValueError(f"{self._name} of tile {tile} is needed, but {self.count} are known")
        return self._values[tile - self.count]
