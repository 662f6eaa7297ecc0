"""Cycle model: its parts against counting one by one; what its totals must be made of.

That its cycles are those of the hardware is shown in `test_core` (whole images) and `test_front` (walks).
"""

import numpy as np
import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import random_params
from s2tdpt.hw.blocks.images import stream_beats, tile_beats
from s2tdpt.hw.blocks.overlap import settle_cycles
from s2tdpt.hw.blocks.window import FIRST_WINDOW
from s2tdpt.hw.estimate.arrival import TileArrival, stream_shape
from s2tdpt.hw.estimate.cycles import FrameModel, frame_cycles, planes_of, read_words
from s2tdpt.hw.estimate.front_model import FIRST_REQUEST
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Source
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.hw.plan.widths import derive_widths
from s2tdpt.sim.cases import network
from tests.hw.core_bench import build_case
from tests.hw.test_front import events_of
from tests.hw.test_window import windows as windows_of

MACHINES = {
    "one bank": Machine(lanes=4, banks=1, post_lanes=2),
    "two banks": Machine(lanes=4, banks=2, post_lanes=4),
    "slow drain": Machine(lanes=6, banks=3, post_lanes=1, queue=2),
}
CHANGES = {
    "tiny": {},
    "colour": dict(pixel_zero_point=128, image_channels=3, timesteps=5),
    "classes": dict(num_classes=9, weight_bits=4, heads=3),
}


def traced(config, machine, seed=3, head_sum_bits=24):
    params = random_params(config, seed)
    shape = (1, config.image_height, config.image_width, config.image_channels)
    images = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    trace = {name: value.numpy()[0] for name, value in GoldenNetwork(params).trace(images).items()}
    return build_program(config, machine, head_sum_bits), trace | {"pixels": images[0]}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("changes", CHANGES)
def test_counts_equal_events_one_by_one(name, changes):
    """Events and their mask bits, position by position and bank by bank."""
    program, trace = traced(network(**CHANGES[changes]), MACHINES[name])
    for step in program.steps:
        tensor = np.asarray(trace[step.reads])
        reading = read_words(step, program, tensor)
        expected = events_of(step, program, tensor)
        ends = np.flatnonzero(reading.last)
        starts = np.concatenate([[0], ends[:-1] + 1])
        counts = [reading.counts[a : b + 1].sum(axis=0).tolist() for a, b in zip(starts, ends, strict=True)]
        assert counts == [[len(bank) for bank in position] for position in expected], step.name
        masks = [mask for position in expected for bank in position for _, mask in bank]
        assert (reading.events, reading.spikes) == (len(masks), sum(mask.bit_count() for mask in masks))
        assert np.flatnonzero(reading.final).tolist() == [len(reading.final) - 1]


@pytest.mark.parametrize("steps", [1, 3, 5, 8])
@pytest.mark.parametrize("zero_point", [0, 128])
def test_planes_are_the_number(steps, zero_point):
    """Planes weighted by powers of two, the highest negative, give pixels and head sums back."""
    config = network(timesteps=steps, pixel_zero_point=zero_point, image_channels=2)
    program, trace = traced(config, MACHINES["two banks"])
    windows = windows_of(trace["pixels"], program).reshape(program.steps[0].positions, -1)[:, : 9 * 2]
    for step, value in (
        (program.steps[0], windows - zero_point),
        (program.steps[-1], trace["head.sum"][None]),
    ):
        planes = planes_of(step, program, trace[step.reads]).transpose(1, 2, 0, 3)
        bits = planes.reshape(*planes.shape[:2], -1).astype(int)
        weights = 1 << np.arange(bits.shape[2])[::-1]
        if step.source is Source.HEAD_SUM or zero_point:
            weights[0] = -weights[0]
        assert np.array_equal(bits @ weights, value)


def test_silent_input_costs_a_cycle_a_word():
    """Nothing fires: words are asked for one a cycle, and every position ends with its last one. A window of
    pixels has more words than `COLUMN_CYCLES`, so that it holds nothing but the first."""
    program, trace = traced(network(), Machine(lanes=4, banks=1, post_lanes=4))
    silent = {name: np.zeros_like(value) for name, value in trace.items()}
    cycles = frame_cycles(program, silent)
    assert {(step.events, step.spikes, step.accumulates) for step in cycles.steps} == {(0, 0, 0)}
    conv = cycles.steps[0]
    words = program.steps[0].positions * -(-9 // 4) * program.pixel_passes
    # 3 cycles to the queues, 1 through them, 1 into the scanner, whose last event then is at its end.
    assert conv.last_end - conv.start == FIRST_WINDOW + words - 1 + 3 + 2
    conv, step = cycles.steps[1], program.steps[1]
    words = (3 * step.height - 2) * (3 * step.width - 2)
    assert conv.last_end - conv.start == FIRST_REQUEST + words - 1 + 3 + 2


@pytest.mark.parametrize("steps, cycles", [(8, 3), (4, 3), (2, 4), (1, 8)])
def test_windows_hold_the_walk(steps, cycles):
    """A word a pass, and nothing fires: a window takes the passes, but not less than its column."""
    program, trace = traced(network(timesteps=steps), Machine(lanes=12, banks=4, post_lanes=12))
    silent = {name: np.zeros_like(value) for name, value in trace.items()}
    conv = frame_cycles(program, silent).steps[0]
    positions = program.steps[0].positions
    assert conv.last_end - conv.start == (
        FIRST_WINDOW + cycles * (positions - 1) + program.pixel_passes - 1 + 3 + 2
    )


def test_accumulates_are_the_synaptic_operations():
    """Spikes times fan-out, counted from the tensors alone."""
    program, trace = traced(network(), MACHINES["two banks"])
    cycles = frame_cycles(program, trace)
    layers = {s.layer: s for s in program.steps if s.source is Source.SPIKES and s.kernel == 1}
    for layer, step in layers.items():
        own = [c for s, c in zip(program.steps, cycles.steps, strict=True) if s.layer == layer]
        spikes = int(trace[step.reads].sum())
        assert sum(cost.accumulates for cost in own) == spikes * step.packing_out.channels
    assert cycles.accumulates == sum(step.accumulates for step in cycles.steps)


@pytest.mark.parametrize("name", MACHINES)
def test_order_of_a_frame(name):
    """What a step waits for is complete or on its way to the memory, and its own cycles are in order."""
    program, trace = traced(network(depth=2), MACHINES[name])
    cycles = frame_cycles(program, trace)
    assert [cost.name for cost in cycles.steps] == [step.name for step in program.steps]
    assert len(cycles.attention) == 2 and cycles.steps[0].start == 0
    for step, cost, settle in zip(program.steps, cycles.steps, settle_cycles(program), strict=True):
        assert cost.start < cost.first_end <= cost.last_end < cost.complete
        if settle is not None:
            assert cost.start > cycles.steps[step.after].last_end + settle
        elif step.after >= 0:
            assert cost.start > cycles.steps[step.after].complete
        if step.after_attention:
            assert cost.start > cycles.attention[step.after_attention - 1][1]
    completes = [cost.complete for cost in cycles.steps]
    assert completes == sorted(completes)
    assert (cycles.total, cycles.interval) == (completes[-1], completes[-1] + 3)


def test_images_do_not_depend_on_each_other():
    """A machine that has nothing left to do takes as long as a new one, whenever it starts."""
    program, trace = traced(network(), MACHINES["slow drain"])
    alone = frame_cycles(program, trace)
    model = FrameModel(program)
    first = model.frame(trace)
    assert model.frame(trace, go=first.interval + 500).steps == first.steps == alone.steps


def test_more_banks_never_cost_cycles_on_the_digits_network():
    config, totals = load_config("digits"), []
    for banks in (1, 2, 4, 8):
        program, trace = traced(config, Machine(lanes=64, banks=banks, post_lanes=16))
        totals.append(frame_cycles(program, trace).total)
    assert totals == sorted(totals, reverse=True)


def test_comparison_notices_one_more_spike():
    program, trace = traced(network(), MACHINES["one bank"])
    step = next(step for step in program.steps if step.layer == "block.0.fc1")
    more = trace[step.reads].copy()
    more[tuple(np.argwhere(more == 0)[0])] = 1
    assert read_words(step, program, more).spikes == read_words(step, program, trace[step.reads]).spikes + 1


def test_a_stream_in_time_costs_nothing_and_a_late_one_its_lateness():
    machine = MACHINES["two banks"].model_copy(update={"weight_memory": "stream"})
    case = build_case(network(), machine, seed=4, frames=1)
    trace = {name: value[0] for name, value in case.golden.items()} | {"pixels": case.images[0]}
    widths = derive_widths(case.params, case.bounds)
    shape = stream_shape(case.program, widths)
    never_late = frame_cycles(case.program, trace)
    streamed = FrameModel(case.program, TileArrival(shape, first=0)).frame(trace)
    assert streamed.total >= never_late.total
    # Everything as late as its weights: the same from a later first beat on.
    later = FrameModel(case.program, TileArrival(shape, first=700)).frame(trace, go=700)
    assert later.steps == streamed.steps


def test_beats_of_a_frame_are_those_of_the_stream():
    machine = Machine(lanes=4, banks=2, post_lanes=2, weight_memory="stream")
    case = build_case(network(), machine, seed=4, frames=1, attempts=1)
    beats = tile_beats(case.program, case.widths)
    assert sum(beats) == len(stream_beats(case.params, case.program, case.widths))
    assert len(beats) == len(case.program.steps)
