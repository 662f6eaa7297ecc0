"""EventSource against FrontModel: the end of every position to the cycle, and every event."""

import numpy as np
import pytest

from s2tdpt.hw.blocks.front import EventSource
from s2tdpt.hw.blocks.step_rom import StepRecords, walk_fields
from s2tdpt.hw.estimate.cycles import planes_of, read_words
from s2tdpt.hw.estimate.front_model import FrontModel, word_marks
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Source
from s2tdpt.hw.plan.records import FETCH_CYCLES, Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.test_walker import requests
from tests.hw.util import simulate

FIRST_EVENT, FIRST_PIXEL_EVENT = 9, 13
"""From `start` to the first event, as documented."""
PIXEL_BASE = 3
"""Address of the first pixel."""


def random_tensor(step, program, rng):
    """What a step reads, with silent, dense and mixed words."""
    net = program.network
    if step.source is Source.PIXELS:
        return rng.integers(0, 256, (step.height, step.width, net.image_channels)).astype(np.uint8)
    if step.source is Source.HEAD_SUM:
        return rng.integers(-1000, 1000, net.embed_dim)
    shape = (net.timesteps, step.positions, step.packing_in.channels)
    rate = rng.choice([0, 0.05, 0.3, 1], (1, step.positions, 1))
    return (rng.random(shape) < rate).astype(np.uint8)


def memory_of(step, program, tensor):
    """(address, pass) to the answer of the memory that the step reads."""
    if step.source is Source.SPIKES:
        words = step.packing_in.pack(tensor)
        return {(step.src_base + i, 0): word for i, word in enumerate(words)}
    if step.source is Source.PIXELS:
        pixels = tensor.reshape(step.positions, -1).tolist()
        words = [sum(byte << 8 * c for c, byte in enumerate(pixel)) for pixel in pixels]
        return {(PIXEL_BASE + i, 0): word for i, word in enumerate(words)}
    planes = planes_of(step, program, tensor).transpose(0, 3, 1, 2)  # [passes, T, 1, channels]
    return {
        (i, p): word
        for p, plane in enumerate(planes)
        for i, word in enumerate(step.packing_in.pack(plane.astype(np.uint8)))
    }


def events_of(step, program, tensor):
    """Events of every bank, position and pass, by loops over the words of the walk."""
    machine, steps = program.machine, program.network.timesteps
    planes = planes_of(step, program, tensor).transpose(0, 3, 1, 2)
    base = step.src_base
    words = [step.packing_in.pack(plane.astype(np.uint8)) for plane in planes]
    found, own = [], [[] for _ in range(machine.banks)]
    for address, row, plane_pass, last, _, _ in requests(step, program, step.tile_base):
        position = len(found) // step.passes if step.source is Source.PIXELS else 0
        word = words[plane_pass][position * step.packing_in.groups + address - base]
        for lane in range(machine.lanes):
            mask = word >> lane * steps & (1 << steps) - 1
            if mask:
                own[lane % machine.banks].append((row + lane // machine.banks, mask))
        if last:
            found.append(own)
            own = [[] for _ in range(machine.banks)]
    return found


def run(program, *, seed=0, delay=0):
    """All steps of `program` on random data, each started as soon as the walk before is over.

    Returns
    -------
    events of every position, cycles in which positions end, starts, cycles in which walks are over
    """
    rng = np.random.default_rng(seed)
    records = StepRecords(program)
    dut = EventSource(program, Sizes(program), records)
    tensors = [random_tensor(step, program, rng) for step in program.steps]
    passes = sum(step.positions * step.passes for step in program.steps)
    banks = program.machine.banks
    positions, ends, finals, starts, overs, firsts = [], [], [], [], [], []

    async def testbench(ctx):
        memory, answers, cycle = {}, {}, 0
        own, number, start_at, started = [[] for _ in range(banks)], 0, 3, False
        ports = {Source.SPIKES: dut.spikes, Source.PIXELS: dut.pixels, Source.HEAD_SUM: dut.head_sums}
        while len(ends) < passes:
            if number < len(program.steps) and cycle == start_at:
                step = program.steps[number]
                memory = memory_of(step, program, tensors[number])
                ctx.set(dut.step, walk_fields(step, program))
                ctx.set(dut.pixel_base, PIXEL_BASE)
                ctx.set(dut.row_base, step.tile_base)
                ctx.set(dut.start, 1)
                starts.append(cycle)
                number, start_at, started = number + 1, None, True
            else:
                ctx.set(dut.start, 0)
                if started and not ctx.get(dut.walking):
                    overs.append(cycle)
                    started, start_at = False, cycle + 1 + int(rng.integers(delay + 1))
            for port, word in answers.items():
                ctx.set(ports[port].data, word)
            answers = {
                source: memory[
                    ctx.get(port.address), 0 if source is Source.PIXELS else ctx.get(port.plane_pass)
                ]
                for source, port in ports.items()
                if ctx.get(port.en)
            }
            for bank in range(banks):
                if ctx.get(dut.event[bank].en):
                    firsts.append(cycle)
                    own[bank].append((ctx.get(dut.event[bank].row), ctx.get(dut.event[bank].mask)))
            if ctx.get(dut.end):
                ends.append(cycle)
                finals.append(ctx.get(dut.final))
                positions.append(own)
                own = [[] for _ in range(banks)]
            await ctx.tick()
            cycle += 1

    simulate(dut, testbench, deadline=200 * passes + 1000)
    assert np.flatnonzero(finals).tolist() == [
        int(n) - 1 for n in np.cumsum([s.positions * s.passes for s in program.steps])
    ]
    return tensors, positions, ends, starts, overs, firsts


def modelled(program, tensors, starts):
    """Ends and walks' ends of the model, for the same starts."""
    machine, model = program.machine, FrontModel(program.machine.banks, program.machine.queue)
    overs, count = [], 0
    for step, tensor, start in zip(program.steps, tensors, starts, strict=True):
        reading = read_words(step, program, tensor)
        cooldown = step.subgroups(machine) - 1
        marks = word_marks(reading.last, reading.final, cooldown, cooldown + FETCH_CYCLES)
        overs.append(model.walk(reading.counts, marks, start, step.window_words))
        count += int(reading.last.sum())
    return [model.position_end(i) for i in range(count)], overs


MACHINES = {
    "queue of 2": Machine(lanes=4, banks=2, post_lanes=2, queue=2),
    "queue of 4": Machine(lanes=6, banks=3, post_lanes=1, queue=4),
    "queue of 8": Machine(lanes=8, banks=8, post_lanes=8, queue=8),
    "queue of 16": Machine(lanes=4, banks=1, post_lanes=4, queue=16),
    "one lane": Machine(lanes=1, banks=1, post_lanes=1, queue=2),
}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("delay", [0, 30])
def test_every_event_and_every_end(name, delay):
    """Steps back to back, and with pauses: the queues still hold words of the step before, or run empty."""
    small = dict(image_height=3, image_width=2) if name == "one lane" else {}
    config = network(
        **small, timesteps=3, sps_channels=(5, 6), pixel_zero_point=128 * (delay == 0), num_classes=5
    )
    program = build_program(config, MACHINES[name], 13)
    tensors, positions, ends, starts, overs, _ = run(program, seed=len(name), delay=delay)
    expected = [
        position
        for step, tensor in zip(program.steps, tensors, strict=True)
        for position in events_of(step, program, tensor)
    ]
    assert positions == expected
    model_ends, model_overs = modelled(program, tensors, starts)
    assert [end - 1 for end in ends] == model_ends  # `end` is registered
    assert overs == model_overs


def test_first_event():
    """Where the first word has a spike and nothing is left of the step before."""
    program = build_program(network(), MACHINES["queue of 8"], 13)
    tensors, _, ends, starts, _, firsts = run(program, delay=60)
    last, seen = -1, set()
    for step, tensor, start in zip(program.steps, tensors, starts, strict=True):
        if read_words(step, program, tensor).counts[0].any() and (last < 0 or ends[last] < start):
            seen.add(step.source)
            wait = FIRST_PIXEL_EVENT if step.source is Source.PIXELS else FIRST_EVENT
            assert min(cycle for cycle in firsts if cycle >= start) - start == wait
        last += step.positions * step.passes
    assert {Source.PIXELS, Source.SPIKES} <= seen


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(20))
def test_random_machines(seed):
    rng = np.random.default_rng(seed)
    banks = int(rng.integers(1, 9))
    lanes = banks * int(rng.integers(1, 4))
    machine = Machine(lanes=lanes, banks=banks, post_lanes=lanes, queue=int(rng.choice([2, 4, 8, 16])))
    program = build_program(network(timesteps=int(rng.integers(1, 9))), machine, 13)
    tensors, _, ends, starts, overs, _ = run(program, seed=seed, delay=int(rng.choice([0, 5, 50])))
    assert ([end - 1 for end in ends], overs) == modelled(program, tensors, starts)
