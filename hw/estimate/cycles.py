"""How long an image takes: exact cycles from its spikes, without simulating the hardware.

The machine is data-driven, so its cycles depend on the spikes. Given the tensors of a golden trace,
`frame_cycles` follows the same layer program that the hardware executes: walks and positions from
`front_model`, attention from `hw.attention`, streamed weights from `arrival`, and the constant delays that
the blocks themselves state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from s2tdpt.hw.attention import attention_of
from s2tdpt.hw.blocks.lanes import lane_skew
from s2tdpt.hw.blocks.overlap import ENDED_DELAY, settle_cycles
from s2tdpt.hw.blocks.timing import PostTiming, drain_delay
from s2tdpt.hw.estimate.arrival import TileArrival
from s2tdpt.hw.estimate.front_model import FrontModel, word_marks
from s2tdpt.hw.plan.program import PROJECTIONS, WINDOW, Program, Sink, Source, Step
from s2tdpt.hw.plan.records import FETCH_CYCLES, STREAM_CONSTANT_TILES, weight_rows


@dataclass(frozen=True)
class StepCycles:
    """One step on one image; cycles count from the first start of the image.

    Attributes
    ----------
    name : str
    start, complete : int
        Cycle in which its walk starts; cycle in which its last write is issued.
    first_end, last_end : int
        Cycles in which its first and its last position end.
    events : int
        Channels with a spike, over all positions, taps and passes: events of all banks together.
    spikes : int
        Set mask bits of these events: additions in a lane.
    accumulates : int
        Useful additions: spikes x output channels of the tile.
    """

    name: str
    start: int
    complete: int
    first_end: int
    last_end: int
    events: int
    spikes: int
    accumulates: int


@dataclass(frozen=True)
class FrameCycles:
    """One image.

    Attributes
    ----------
    steps : list of StepCycles
    attention : list of (int, int)
        Cycles from the begin of a block's first head until its output may be read.
    start : int
        Cycle of the first start, absolute as the `go` of `FrameModel.frame`.
    busy : int
        Cycles in which at least one bank adds a channel.
    total : int
        From the start of the first step to the completion of the last.
    interval : int
        From the start of an image to the earliest start of the next one.
    """

    steps: list[StepCycles]
    attention: list[tuple[int, int]]
    start: int
    busy: int
    total: int
    interval: int

    @property
    def accumulates(self) -> int:
        return sum(step.accumulates for step in self.steps)


def planes_of(step: Step, program: Program, tensor: np.ndarray) -> np.ndarray:
    """What a step reads as bits, bool [passes, positions, channels, T], slots of a pass in order.

    Parameters
    ----------
    tensor : ndarray
        Spikes [T, N, C], pixels uint8 [H, W, C] or head sums [D] of one image.
    """
    net = program.network
    steps = net.timesteps
    if step.source is Source.SPIKES:
        return np.asarray(tensor, bool).transpose(1, 2, 0)[None]
    if step.source is Source.PIXELS:
        value = _taps(np.asarray(tensor, np.int64) - net.pixel_zero_point, 0).reshape(step.positions, -1)
    else:
        value = np.asarray(tensor, np.int64).reshape(1, -1)
    shifts = np.arange(step.passes * steps)[::-1].reshape(step.passes, 1, 1, steps)
    return (value[None, :, :, None] >> shifts & 1).astype(bool)


def _taps(grid: np.ndarray, outside) -> np.ndarray:
    """The window of every place of a map [H, W, C], tap by tap: [H, W, taps, C]."""
    height, width = grid.shape[:2]
    reach = WINDOW // 2
    padded = np.pad(grid, ((reach, reach), (reach, reach), (0, 0)), constant_values=outside)
    taps = [padded[y : y + height, x : x + width] for y in range(WINDOW) for x in range(WINDOW)]
    return np.stack(taps, axis=2)


def spikes_by_head(program: Program, trace: Mapping[str, np.ndarray], block: int) -> list[tuple]:
    """(q, k, v) of every head of a block, spikes [T, N, d_h]; None where there is no such projection."""
    net = program.network
    maps = []
    for kind in PROJECTIONS:
        name = f"block.{block}.{kind}"
        if name not in trace:
            maps.append([None] * net.heads)
            continue
        spikes = np.asarray(trace[name]).reshape(net.timesteps, net.tokens, net.heads, -1)
        maps.append([spikes[:, :, head] for head in range(net.heads)])
    return list(zip(*maps, strict=True))


@dataclass
class _Reading:
    """What the steps of a layer read: the same for every group of output channels.

    Attributes
    ----------
    counts : int64 [words, banks]
    last, final : bool [words]
    events, spikes : int
    """

    counts: np.ndarray
    last: np.ndarray
    final: np.ndarray
    events: int
    spikes: int


def read_words(step: Step, program: Program, tensor: np.ndarray) -> _Reading:
    """Channels with a spike in every slice of every word, in the order of the walk."""
    machine, packing = program.machine, step.packing_in
    planes = planes_of(step, program, tensor)
    passes, positions = planes.shape[:2]
    active = packing.spread(planes.any(axis=3))  # [passes, positions, words * lanes]
    words = active.reshape(passes, positions, packing.groups, packing.lanes)
    pad = -packing.lanes % machine.banks
    slots = np.pad(words, ((0, 0), (0, 0), (0, 0), (0, pad)))
    by_bank = slots.reshape(passes, positions, packing.groups, -1, machine.banks).sum(axis=3)
    spikes = planes.sum(axis=(2, 3))  # [passes, positions]
    # Which position, tap by tap, every position sees; -1 outside of the map.
    grid = np.arange(positions).reshape(step.height, step.width)
    seen = grid.reshape(-1, 1)
    if step.kernel == WINDOW:
        seen = _taps(grid[..., None], -1).reshape(positions, -1)
    order = np.repeat(seen[:, None], passes, axis=1)  # [positions, passes, taps]
    inside = order >= 0
    chosen = np.repeat(np.arange(passes)[None, :, None], positions, axis=0)
    chosen = np.broadcast_to(chosen, order.shape)[inside]
    counts = by_bank[chosen, order[inside]]  # [taps inside, words, banks]
    ends = np.cumsum(inside.sum(axis=2).reshape(-1)) * packing.groups - 1
    counts = counts.reshape(-1, machine.banks).astype(np.int64)
    last, final = np.zeros(len(counts), bool), np.zeros(len(counts), bool)
    last[ends], final[-1] = True, True
    return _Reading(counts, last, final, int(counts.sum()), int(spikes[chosen, order[inside]].sum()))


class FrameModel:
    """Follows the program over any number of images that come one after the other without a gap.

    Parameters
    ----------
    program : Program
    arrival : TileArrival, optional
        Of streamed weights; None: weights are never late.
    """

    def __init__(self, program: Program, arrival: TileArrival | None = None):
        machine = program.machine
        self._program, self._arrival = program, arrival
        self._front = FrontModel(machine.banks, machine.queue)
        self._post = PostTiming(program)
        self._to_drain = drain_delay(program)
        self._settle = settle_cycles(program)
        self._positions = 0  # of all steps so far
        self._finals: list[int] = []  # number of every tile's last position, of all images
        self._released = self._completed = 0  # tiles that the arrival was told of

    def frame(self, trace: Mapping[str, np.ndarray], go: int = 0) -> FrameCycles:
        """Count one image that may be started from cycle `go` on (absolute, as `arrival`'s).

        Parameters
        ----------
        trace : mapping
            Golden trace of one image, without the batch axis, plus "pixels" (uint8 [H, W, C]).
        """
        program = self._program
        base, busy = len(self._finals), self._front.busy
        readings: dict[str, _Reading] = {}
        found, attention = [], []
        blocks: list[int] = []  # cycles in which the attention of a block may be read
        last_parts: list[int] = []  # for every head, the tile that completes its q, k and v
        first_start, walk_over = None, go
        for index, step in enumerate(program.steps):
            earliest = max(walk_over, go)
            if found:
                earliest = max(earliest, found[-1][0] - 1 + FETCH_CYCLES)
            settle = self._settle[index]
            if settle is not None:
                ended = self._front.position_end(self._finals[-1]) + ENDED_DELAY
                earliest = max(earliest, ended + settle)
            elif step.after >= 0:
                earliest = max(earliest, self._complete_at(base + step.after) + 1)
            if step.after_attention:
                if step.after_attention > len(blocks):
                    # Not earlier: what is asked of the front must not lie beyond the next walk's start.
                    ready = [self._spikes_at(tile) + 1 for tile in last_parts]
                    begin, complete = self._attend(trace, len(blocks), ready)
                    blocks.append(complete)
                    attention.append((begin - first_start, complete - first_start))
                    last_parts = []
                earliest = max(earliest, blocks[step.after_attention - 1])
            start = self._tile_ready(base + index, earliest) + 1
            first_start = start if first_start is None else first_start
            key = step.layer if step.sink is not Sink.ATTENTION else step.reads
            if key not in readings:
                readings = {key: read_words(step, program, np.asarray(trace[step.reads]))}
            reading = readings[key]
            cooldown = step.subgroups(program.machine) - 1
            marks = word_marks(reading.last, reading.final, cooldown, cooldown + FETCH_CYCLES)
            walk_over = self._front.walk(reading.counts, marks, start, step.window_words)
            first_position = self._positions
            self._positions += int(reading.last.sum())
            self._finals.append(self._positions - 1)
            found.append((start, first_position, reading))
            last_parts += [base + index] * (step.heads_ready - len(last_parts))
        return self._result(found, attention, base, first_start, busy)

    def _attend(self, trace, block: int, ready: list[int]) -> tuple[int, int]:
        attention = attention_of(self._program)
        heads = spikes_by_head(self._program, trace, block)
        busy = [attention.head_cycles(self._program, *head) for head in heads]
        starts, complete = attention.timeline(ready, busy, self._program)
        return starts[0], complete

    def _drained_at(self, tile: int) -> int:
        """Cycle in which the last piece of a tile is named."""
        step = self._program.steps[tile % len(self._program.steps)]
        end = self._front.position_end(self._finals[tile])
        return end + self._to_drain + step.subgroups(self._program.machine) - 1

    def _complete_at(self, tile: int) -> int:
        return self._drained_at(tile) + self._post.written_at

    def _spikes_at(self, tile: int) -> int:
        return self._drained_at(tile) + self._post.spikes_at

    def _tile_ready(self, tile: int, earliest: int) -> int:
        """First cycle from `earliest` on in which a tile's weights are there; the tile is started then."""
        if self._arrival is None:
            return earliest
        steps, machine = self._program.steps, self._program.machine
        # Tell of the tiles that must have made room: ring rows for this one, and a constant slot.
        rows = steps[tile % len(steps)].tile_rows(machine)
        oldest = tile
        while oldest > 0 and rows + steps[(oldest - 1) % len(steps)].tile_rows(machine) <= weight_rows(
            self._program
        ):
            oldest -= 1
            rows += steps[oldest % len(steps)].tile_rows(machine)
        while self._released < oldest:
            final = self._front.position_end(self._finals[self._released]) + 1
            self._arrival.release(final + lane_skew(machine))
            self._released += 1
        while self._completed < tile - STREAM_CONSTANT_TILES + 1:
            self._arrival.complete(self._complete_at(self._completed))
            self._completed += 1
        at = max(earliest, self._arrival.next_ready())
        self._arrival.start(at)
        return at

    def _result(self, found, attention, base: int, first_start: int, busy: int) -> FrameCycles:
        steps = []
        for index, (start, first_position, reading) in enumerate(found):
            step = self._program.steps[index]
            steps.append(
                StepCycles(
                    name=step.name,
                    start=start - first_start,
                    complete=self._complete_at(base + index) - first_start,
                    first_end=self._front.position_end(first_position) - first_start,
                    last_end=self._front.position_end(self._finals[base + index]) - first_start,
                    events=reading.events,
                    spikes=reading.spikes,
                    accumulates=reading.spikes * step.channels,
                )
            )
        # `frame_complete` a cycle after the last write, idle another one later, then `start`.
        total = steps[-1].complete
        return FrameCycles(steps, attention, first_start, self._front.busy - busy, total, total + 3)


def frame_cycles(
    program: Program, trace: Mapping[str, np.ndarray], arrival: TileArrival | None = None
) -> FrameCycles:
    """Cycles of one image alone; arguments as in `FrameModel`."""
    return FrameModel(program, arrival).frame(trace)
