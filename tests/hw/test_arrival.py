"""TileArrival: the cycles in which `WeightStream` says ready, whatever the reader does."""

import itertools
import time

import numpy as np
import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.hw.blocks.images import TileSize, tile_beats
from s2tdpt.hw.blocks.weights import READY_DELAY, ROOM_DELAY
from s2tdpt.hw.estimate.arrival import LONG_AGO, StreamShape, TileArrival, stream_shape
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import STREAM_CONSTANT_TILES
from tests.hw.weight_bench import RUNS, derive, observed, setting


@pytest.mark.parametrize("name, policy", RUNS)
def test_arrival_is_that_of_the_stream(name, policy):
    """Every tile of the run, from the events of the run alone."""
    case, run = setting(name, "stream"), observed(name, policy)
    arrival = TileArrival(stream_shape(case.program, case.widths), first=0)
    # The run ends with tiles in use.
    events = zip(run.ready, run.started, run.released, run.complete, strict=False)
    for ready, started, released, complete in events:
        assert arrival.next_ready() == ready
        arrival.start(started)
        arrival.release(released)
        arrival.complete(complete)


def beat_by_beat(shape, count, start, release, complete):
    """Ready cycles of `count` tiles, as the contract of `WeightStream` has it: one beat after the other.

    `start`, `release`, `complete` give the cycles of a tile's events from the cycle in which it is ready.
    """
    events = []  # (start, release, complete) of every tile
    owner = []  # tile of every row
    cycle, readies = 0, []
    for tile in range(count):
        size = shape.tiles[tile % len(shape.tiles)]
        if tile >= STREAM_CONSTANT_TILES:
            cycle = max(cycle, events[tile - STREAM_CONSTANT_TILES][2] + ROOM_DELAY)
        cycle += size.constants * shape.word_beats
        for _ in range(size.rows):
            if len(owner) >= shape.ring_rows:
                cycle = max(cycle, events[owner[-shape.ring_rows]][1] + ROOM_DELAY)
            owner.append(tile)
            cycle += shape.banks
        there = cycle - 1 + READY_DELAY
        readies.append(max(there, events[-1][0] + 1) if events else there)
        begun = readies[-1] + start(tile)
        freed = max(begun + release(tile), events[-1][1] if events else 0)
        done = max(freed + complete(tile), events[-1][2] if events else 0)
        events.append((begun, freed, done))
    return readies, events


@pytest.mark.parametrize("seed", range(200))
def test_arrival_of_random_shapes(seed):
    rng = np.random.default_rng(seed)
    sizes = [TileSize(*(int(x) for x in rng.integers(1, (5, 30)))) for _ in range(rng.integers(1, 9))]
    largest = max(size.rows for size in sizes)
    shape = StreamShape(
        tiles=tuple(sizes),
        word_beats=int(rng.integers(1, 4)),
        banks=int(rng.integers(1, 9)),
        ring_rows=int(largest + rng.integers(0, 40) * rng.integers(0, 2)),
    )

    def duration(longest):
        times = rng.integers(1, longest + 1, 40).tolist()
        return lambda tile: times[tile]

    longest = [int(rng.choice([1, 20, 300])) for _ in range(3)]
    readies, events = beat_by_beat(shape, 40, *map(duration, longest))
    arrival = TileArrival(shape, first=0)
    for ready, (started, released, complete) in zip(readies, events, strict=True):
        assert arrival.next_ready() == ready
        arrival.start(started)
        arrival.release(released)
        arrival.complete(complete)


def small(**changes):
    fields = dict(tiles=(TileSize(1, 4), TileSize(2, 6)), word_beats=2, banks=3, ring_rows=8)
    return StreamShape(**{**fields, **changes})


def test_the_next_tile_is_not_ready_in_the_cycle_of_a_start():
    arrival = TileArrival(small(ring_rows=64), first=0)
    assert arrival.next_ready() == 2 + 4 * 3 - 1 + READY_DELAY
    arrival.start(100)
    assert arrival.next_ready() == 101


def test_a_stream_that_began_long_ago_has_filled_the_ring():
    arrival = TileArrival(small(ring_rows=10))
    assert arrival.next_ready() == LONG_AGO + 2 + 4 * 3 - 1 + READY_DELAY
    arrival.start(0)
    assert arrival.next_ready() == 1  # constants and all six rows had room
    arrival.start(7)
    arrival.release(9)
    assert (
        arrival.next_ready() == 9 + ROOM_DELAY + 4 * 3 - 1 + READY_DELAY
    )  # its constants were there, its rows were not


def test_room_that_is_not_known_is_an_error():
    arrival = TileArrival(small(), first=0)
    arrival.start(20)
    with pytest.raises(ValueError, match="^release of tile 0 is needed, but 0 are known$"):
        arrival.next_ready()
    roomy = TileArrival(small(ring_rows=64), first=0)
    for tile in range(STREAM_CONSTANT_TILES):
        roomy.start(100 * tile + 100)
    with pytest.raises(ValueError, match="^complete of tile 0 is needed, but 0 are known$"):
        roomy.next_ready()


def test_a_stream_without_a_reader_to_wait_for_is_as_long_as_its_beats():
    case = setting("partial groups", "stream")
    arrival = TileArrival(stream_shape(case.program, case.widths), first=0)
    beats = itertools.accumulate(tile_beats(case.program, case.widths))
    for end in beats:
        assert arrival.next_ready() == end - 1 + READY_DELAY
        for event in (arrival.start, arrival.release, arrival.complete):
            event(end - ROOM_DELAY)


def test_hundred_images_take_no_time():
    case = derive(
        load_config("s2tdpt-4-384"), Machine(lanes=48, banks=8, post_lanes=8, weight_memory="stream")
    )
    arrival = TileArrival(stream_shape(case.program, case.widths))
    start = time.process_time()
    for _ in range(100 * len(case.program.steps)):
        ready = arrival.next_ready()
        arrival.start(ready)
        arrival.release(ready + 900)
        arrival.complete(ready + 1000)
    assert time.process_time() - start < 2
