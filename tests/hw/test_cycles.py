"""Cycle model: its parts against counting one by one, its recurrence against a step-by-step machine."""

import numpy as np
import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import random_params
from s2tdpt.hw.arrival import TileArrival, tile_beats
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.cycles import (
    EVENT_TO_SUM,
    FIRST_EVENT,
    SEQUENCER_CYCLES,
    OperationCycles,
    dense_trace,
    event_counts,
    frame_cycles,
    input_rate,
    operation_cycles,
    utilisation,
)
from s2tdpt.hw.images import stream_beats
from s2tdpt.hw.post import PIPELINE
from s2tdpt.hw.schedule import build_program
from s2tdpt.hw.weights import stream_width
from tests.hw.core_bench import build_case, network

MACHINES = {
    "one row": HardwareConfig(lanes=4, rows=1, post_lanes=2),
    "two rows": HardwareConfig(lanes=4, rows=2, post_lanes=4),
    "serial drain": HardwareConfig(lanes=8, rows=2, post_lanes=1),
}


def traced(config, hardware, seed=3, head_sum_bits=24):
    params = random_params(config, seed)
    shape = (1, config.image_height, config.image_width, config.image_channels)
    images = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    trace = {name: value.numpy()[0] for name, value in GoldenNetwork(params).trace(images).items()}
    return build_program(config, hardware, head_sum_bits), trace | {"pixels": images[0]}


def events_one_by_one(op, program, tensor):
    """Events of every position and word: loops over channels, taps, steps and bits."""
    net = program.network
    lanes = op.packing_in.lanes
    bits = program.head_slices * 8
    places = [divmod(int(s), lanes)[0] for s in op.packing_in.slots()]
    positions = op.positions
    own = np.zeros((positions, op.packing_in.groups), int)
    for position in range(positions):
        for channel, word in enumerate(places):
            if op.source == "spikes":
                own[position, word] += sum(int(tensor[t, position, channel]) for t in range(net.timesteps))
            elif op.source == "pixels":
                byte = (int(tensor.reshape(positions, -1)[position, channel]) - net.pixel_zero_point) & 255
                own[position, word] += byte.bit_count()
            else:
                value = int(tensor[channel]) & (1 << bits) - 1
                own[position, word] += (value >> bits - 8 * (position + 1) & 255).bit_count()
    return own


def machine(op, program, tensor):
    """The pipeline cycle by cycle: rows issue events, the post-processing drains the oldest position.

    Independent of the recurrence: nothing but the state of every cycle.

    Returns
    -------
    cycles, events : int
    """
    hw, net = program.hardware, program.network
    words = np.maximum(events_one_by_one(op, program, tensor), 1)
    events = events_one_by_one(op, program, tensor)
    grid = [(y, x) for y in range(op.height) for x in range(op.width)]
    reach = op.kernel // 2

    def neighbours(position):
        y, x = grid[position]
        return [
            v * op.width + u
            for v in range(max(0, y - reach), min(op.height, y + reach + 1))
            for u in range(max(0, x - reach), min(op.width, x + reach + 1))
        ]

    micro_steps = (1 if op.sink == "logits" else net.timesteps) + (0 if op.source == "spikes" else 8)
    groups = range(op.packing_out.groups)
    work = [(g, p) for g in groups for p in range(op.positions)]
    queues = [[(g, p) for g, p in work if p % hw.rows == r] for r in range(hw.rows)]
    # Per row: cycles left of the position being issued, positions issued and not yet released.
    left, held, summed = [0] * hw.rows, [0] * hw.rows, [[] for _ in range(hw.rows)]
    draining, next_drain, drain_left = None, 0, 0
    cycle, done = FIRST_EVENT, None
    released = []
    while done is None:
        for r in range(hw.rows):
            held[r] -= sum(1 for row, when in released if row == r and when == cycle - 1)
            if left[r] == 0 and queues[r] and held[r] < 2:
                _, position = queues[r].pop(0)
                left[r] = sum(int(words[n].sum()) for n in neighbours(position))
            if left[r]:
                left[r] -= 1
                if left[r] == 0:
                    held[r] += 1
                    summed[r].append(cycle + EVENT_TO_SUM)
        if draining is None and next_drain < len(work):
            group, position = work[next_drain]
            row = position % hw.rows
            if summed[row] and summed[row][0] <= cycle:
                summed[row].pop(0)
                draining, drain_left = row, op.subgroups(group, hw.post_lanes) * micro_steps
                next_drain += 1
        if draining is not None:
            drain_left -= 1
            if drain_left == 0:
                released.append((draining, cycle))
                draining = None
                if next_drain == len(work):
                    done = cycle + PIPELINE
        cycle += 1
    total = sum(int(events[n].sum()) for _, p in work for n in neighbours(p))
    return done, total


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(pixel_zero_point=128, image_channels=3, timesteps=5),
        dict(num_classes=9, weight_bits=4, heads=3),
    ],
    ids=["tiny", "colour", "classes"],
)
def test_recurrence_equals_a_machine_stepped_cycle_by_cycle(name, changes):
    program, trace = traced(network(**changes), MACHINES[name])
    for op in program.ops:
        if op.kind != "accumulate":
            continue
        cost = operation_cycles(op, program, trace)
        assert (cost.cycles, cost.events) == machine(op, program, trace[op.reads[0]]), op.name
        counted = event_counts(op, program, trace[op.reads[0]])
        assert np.array_equal(counted, events_one_by_one(op, program, trace[op.reads[0]])), op.name


def test_a_frame_is_the_sum_of_its_operations():
    program, trace = traced(network(), MACHINES["one row"])
    operations, total = frame_cycles(program, trace)
    assert [o.name for o in operations] == [op.name for op in program.ops]
    assert total == sum(o.cycles for o in operations) + SEQUENCER_CYCLES * (len(operations) - 1)


def test_silent_input_costs_a_cycle_a_word():
    """Nothing fires: one cycle for every word inside the map, and the drain of the last position.

    Three words a tap: positions long enough that two banks never make the row wait.
    """
    program, trace = traced(network(sps_channels=(12, 6)), HardwareConfig(lanes=4, rows=1, post_lanes=4))
    op = program.op("sps.1")
    silent = {name: np.zeros_like(value) for name, value in trace.items()}
    cost = operation_cycles(op, program, silent)
    assert (cost.events, cost.accumulates) == (0, 0)
    taps = (3 * op.height - 2) * (3 * op.width - 2)
    issue = op.packing_out.groups * taps * op.packing_in.groups
    drain = program.network.timesteps
    assert cost.cycles == FIRST_EVENT - 1 + issue + EVENT_TO_SUM + drain - 1 + PIPELINE


def test_accumulates_are_the_synaptic_operations():
    """Spikes times fan-out, counted from weights' shapes alone."""
    program, trace = traced(network(), MACHINES["two rows"])
    for op in program.ops:
        if op.kind == "accumulate" and op.source == "spikes" and op.kernel == 1:
            spikes = int(trace[op.reads[0]].sum())
            assert operation_cycles(op, program, trace).accumulates == spikes * op.packing_out.channels


def test_bound_names_what_takes_the_time():
    config = network(timesteps=8)
    slow_drain, trace = traced(config, HardwareConfig(lanes=8, rows=1, post_lanes=1))
    assert operation_cycles(slow_drain.op("block.0.q"), slow_drain, trace).bound == "drain"
    full = {name: np.ones_like(value) for name, value in trace.items()}
    wide_drain, _ = traced(config, HardwareConfig(lanes=6, rows=1, post_lanes=6))
    assert operation_cycles(wide_drain.op("sps.1"), wide_drain, full).bound == "accumulate"
    kinds = {o.name: o.bound for o in frame_cycles(wide_drain, trace)[0]}
    assert (kinds["sps.1.pool"], kinds["block.0.attention"]) == ("pool", "attention")


def test_utilisation():
    program, _ = traced(network(), HardwareConfig(lanes=4, rows=2, post_lanes=2))
    operations = [
        OperationCycles("a", 100, 50, 400, "accumulate"),
        OperationCycles("b", 60, 0, 0, "pool"),
        OperationCycles("c", 40, 10, 80, "drain"),
    ]
    assert utilisation(operations, program) == 480 / (4 * 2 * 140)
    assert utilisation(operations, program, layers=False) == 480 / (4 * 2 * 200)
    assert utilisation([], program) == 0.0


def test_more_rows_never_cost_cycles_on_the_digits_network():
    config = load_config("digits")
    totals = []
    for rows in (1, 2, 4):
        program, trace = traced(config, HardwareConfig(lanes=64, rows=rows, post_lanes=16))
        totals.append(frame_cycles(program, trace)[1])
    assert totals == sorted(totals, reverse=True)


def test_comparison_notices_one_more_spike():
    program, trace = traced(network(), MACHINES["one row"])
    op = program.op("block.0.fc1")
    more = trace["block.0.mlp_in"].copy()
    more[tuple(np.argwhere(more == 0)[0])] = 1
    assert operation_cycles(op, program, trace).events != machine(op, program, more)[1]


def test_arrival_by_hand():
    """Three tiles of 4, 2 and 5 beats an image, from cycle 10 on; both banks are free at first."""
    arrival = TileArrival([4, 2, 5], first=10)
    assert arrival.next_tile() == 14  # beats 10 to 13
    assert arrival.next_tile() == 16  # 14 and 15: the other bank
    arrival.release(13)
    assert arrival.next_tile() == 21  # 16 to 20: its bank was free in time
    arrival.release(40)
    assert arrival.next_tile() == 45  # 41 to 44, the first tile of the next image
    arrival.release(41)
    assert arrival.next_tile() == 47
    with pytest.raises(IndexError):  # both banks hold tiles that are still needed
        arrival.next_tile()
    early = TileArrival([4, 2])
    assert max(early.next_tile(), early.next_tile()) < 0


def test_a_stream_in_time_costs_nothing_and_a_late_one_its_lateness():
    hardware = MACHINES["one row"].model_copy(update={"weight_memory": "stream"})
    program, trace = traced(network(), hardware)
    operations, total = frame_cycles(program, trace)
    short = [1] * program.tiles
    assert frame_cycles(program, trace, TileArrival(short), 500) == (operations, total)
    # The first tile is complete 7 cycles after the first operation could have used it.
    late, longer = frame_cycles(program, trace, TileArrival(short, first=1000 + 7), 1000)
    assert longer == total + 7 and late[0].cycles == operations[0].cycles + 7
    assert late[1:] == operations[1:]


def test_beats_of_a_frame_are_those_of_the_stream():
    hardware = HardwareConfig(lanes=4, rows=1, post_lanes=2, weight_memory="stream")
    case = build_case(network(), hardware, seed=4, frames=1)
    beats = stream_beats(case.params, case.program, case.widths, stream_width(case.program))
    assert sum(tile_beats(case.program, case.widths)) == len(beats)
    assert len(tile_beats(case.program, case.widths)) == case.program.tiles


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(timesteps=1, pixel_zero_point=128, image_channels=3),
        dict(image_height=9, image_width=8, heads=3),
    ],
    ids=["tiny", "one step", "many tokens"],
)
def test_nothing_takes_longer_than_the_dense_trace(changes):
    """Random traces of every density."""
    config = network(**changes)
    program, trace = traced(config, MACHINES["two rows"])
    dense, longest = frame_cycles(program, dense_trace(program))
    rng = np.random.default_rng(1)
    for density in (0.0, 0.1, 0.5, 0.9, 1.0):
        other = {
            name: (rng.random(value.shape) < density).astype(np.uint8) for name, value in trace.items()
        } | {"head.sum": rng.integers(-(2**20), 2**20, trace["head.sum"].shape)}
        other["pixels"] = rng.integers(0, 256, trace["pixels"].shape).astype(np.uint8)
        operations, total = frame_cycles(program, other)
        assert total < longest
        for op, most in zip(operations, dense, strict=True):
            assert op.cycles <= most.cycles and op.events <= most.events, op.name
    # Every bit is set: as many events as there are places for them.
    conv = program.op("sps.0")
    taps = (3 * conv.height - 2) * (3 * conv.width - 2)
    assert dense[0].events == taps * config.image_channels * 8 * conv.packing_out.groups
    assert dense[-1].events == program.head_slices * 8 * config.embed_dim


def test_input_rates():
    """Of spikes, of the bits of a pixel around its zero point, of the bits of a head sum."""
    config = network(pixel_zero_point=128, image_channels=3)
    program, trace = traced(config, MACHINES["one row"])
    dense = dense_trace(program)
    assert {input_rate(op, program, dense) for op in program.ops if op.kind != "attention"} == {1}
    assert input_rate(program.op("sps.1"), program, trace) == trace["sps.1.pooled"].mean()
    q, k, v = (trace[f"block.0.{part}"].mean() for part in "qkv")
    assert input_rate(program.op("block.0.attention"), program, trace) == pytest.approx((q + k + v) / 3)
    # 128 is the zero point: no bit is set; 127 is -1: all are.
    for pixel, rate in ((128, 0), (127, 1), (129, 1 / 8)):
        picture = np.full_like(trace["pixels"], pixel)
        assert input_rate(program.op("sps.0"), program, {"pixels": picture}) == rate
    assert program.head_slices == 3
    sums = np.full_like(trace["head.sum"], 0x10101)
    assert input_rate(program.op("head"), program, {"head.sum": sums}) == 3 / 24
