"""WordReader against slices cut in Python: spikes, planes of pixels and head sums; credits of the queues."""

import numpy as np
import pytest

from s2tdpt.hw.blocks.reader import WordReader
from s2tdpt.hw.blocks.step_rom import SourceField
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.util import simulate

LATENCY = 3
"""Cycles from a request to its slices."""


def pixel_masks(pixel, plane_pass, program):
    """Spikes [channel][t] of a pass over bytes: planes from the highest on, two's complement around a zero
    point."""
    net, steps = program.network, program.network.timesteps
    highest = program.pixel_passes * steps - 1 - plane_pass * steps
    return [[int(byte) - net.pixel_zero_point >> highest - t & 1 for t in range(steps)] for byte in pixel]


class Bench:
    """Feeds requests, answers as the memories and the window do, and counts what lies in the queues."""

    def __init__(self, program, *, rate=1.0, pops=1.0, windows=1.0, seed=0):
        self.program, self.dut = program, WordReader(program, Sizes(program))
        self.rate, self.pops, self.windows = rate, pops, windows
        self.rng = np.random.default_rng(seed)
        self.got = []  # (cycle, bank, row, masks, active, last) of every slice
        self.asked = []  # cycles in which a request was taken

    def run(self, requests):
        """Each request: (source, answer of the memory, plane pass, row, last)."""
        dut, machine = self.dut, self.program.machine
        level = [0] * machine.banks

        async def testbench(ctx):
            answer, waiting, idle, cycle = None, list(requests), 0, 0
            ports = {
                SourceField.SPIKES: dut.spikes,
                SourceField.PIXELS: dut.pixels,
                SourceField.HEAD_SUM: dut.head_sums,
            }
            while waiting or idle < 8 or any(level):
                offers = bool(waiting) and self.rng.random() < self.rate
                ctx.set(dut.request.valid, offers)
                if offers:
                    source, word, plane_pass, row, last = waiting[0]
                    ctx.set(dut.source, source)
                    address = 37 * len(waiting) % (1 << len(dut.request.payload.address))
                    ctx.set(dut.request.payload.address, address)
                    ctx.set(dut.request.payload.plane_pass, plane_pass)
                    ctx.set(dut.request.payload.row, row)
                    ctx.set(dut.request.payload.mark.last, last)
                there = self.rng.random() < self.windows
                held = offers and waiting[0][0] is SourceField.PIXELS and not there
                ctx.set(dut.pixels.ready, not held)
                for port in ports.values():  # junk where nothing was asked for
                    ctx.set(port.data, int(self.rng.integers(1 << min(62, len(port.data)))))
                if answer is not None:
                    ctx.set(ports[answer[0]].data, answer[1])
                popped = [bool(n) and self.rng.random() < self.pops for n in level]
                for bank, pop in enumerate(popped):
                    ctx.set(dut.popped[bank], pop)
                    level[bank] -= pop
                fires = offers and ctx.get(dut.request.ready)
                assert not (fires and held), "a word of a window that is not there"
                for source, port in ports.items():
                    assert ctx.get(port.en) == (fires and source == waiting[0][0])
                    if ctx.get(port.en):
                        assert ctx.get(port.plane_pass) == waiting[0][2]
                        assert ctx.get(port.address) == address % (1 << len(port.address))
                answer = None
                if fires:
                    answer = waiting.pop(0)
                    self.asked.append(cycle)
                for bank in range(machine.banks):
                    if ctx.get(dut.push[bank]):
                        level[bank] += 1
                        assert level[bank] <= machine.queue, "a queue overflows"
                        s = dut.slice[bank]
                        masks = [ctx.get(s.masks[c]) for c in range(machine.slice_channels)]
                        active = ctx.get(s.active)
                        self.got.append((cycle, bank, ctx.get(s.row), masks, active, ctx.get(s.mark.last)))
                idle = 0 if waiting or answer else idle + 1
                await ctx.tick()
                cycle += 1

        simulate(dut, testbench, deadline=100 + 60 * len(requests))
        return self


def expected(program, masks, row, last, cycle):
    """Slices of a word given as spikes [channel][t]: channel c belongs to bank c mod banks."""
    machine = program.machine
    found = []
    for bank in range(machine.banks):
        own = masks[bank :: machine.banks]
        values = [sum(bit << t for t, bit in enumerate(channel)) for channel in own]
        values += [0] * (machine.slice_channels - len(values))
        active = sum(bool(value) << i for i, value in enumerate(values))
        if active or last:
            found.append((cycle, bank, row, values, active, last))
    return found


def to_word(masks):
    return sum(bit << i for i, bit in enumerate(b for channel in masks for b in channel))


def program_of(lanes=6, banks=3, post_lanes=2, queue=4, **changes):
    machine = Machine(lanes=lanes, banks=banks, post_lanes=post_lanes, queue=queue)
    return build_program(network(**changes), machine, 21)


def spike_requests(program, count, rng):
    lanes, steps = program.machine.lanes, program.network.timesteps
    masks = [
        (rng.random((lanes, steps)) < rng.choice([0, 0.1, 0.5, 1])).astype(int).tolist() for _ in range(count)
    ]
    marks = [(int(rng.integers(8)), int(rng.integers(2))) for _ in range(count)]
    requests = [(SourceField.SPIKES, to_word(m), 0, *mark) for m, mark in zip(masks, marks, strict=True)]
    return masks, requests


@pytest.mark.parametrize("lanes, banks", [(6, 3), (4, 1), (8, 8), (16, 4)])
@pytest.mark.parametrize("queue, rate, pops", [(2, 1, 1), (4, 1, 0.4), (16, 0.5, 0.2), (2, 1, 0.7)])
def test_slices_of_spikes(lanes, banks, queue, rate, pops):
    program = program_of(lanes, banks, queue=queue, timesteps=3)
    masks, requests = spike_requests(program, 60, np.random.default_rng(lanes + queue))
    bench = Bench(program, rate=rate, pops=pops, seed=queue).run(requests)
    wanted = [
        entry
        for mask, request, cycle in zip(masks, requests, bench.asked, strict=True)
        for entry in expected(program, mask, request[3], request[4], cycle + LATENCY)
    ]
    assert bench.got == wanted


def test_a_word_a_cycle():
    """While the queues are emptied at once, nothing holds the walk."""
    program = program_of(queue=8)
    _, requests = spike_requests(program, 40, np.random.default_rng(1))
    assert Bench(program).run(requests).asked == list(range(40))


def test_silent_words_need_no_room():
    """Nothing is handed on and nothing is taken: only words on their way hold a place."""
    program = program_of(queue=4)
    request = (SourceField.SPIKES, 0, 0, 0, 0)
    bench = Bench(program, pops=0).run([request] * 30)
    assert bench.got == [] and len(bench.asked) == 30


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("zero_point", [0, 128])
def test_planes_of_pixels(steps, zero_point):
    """All bytes; T that divides 8 or not, where a signed number is extended by its sign."""
    program = program_of(
        lanes=4, banks=2, timesteps=steps, image_channels=3, pixel_zero_point=zero_point, queue=16
    )
    rng, requests, wanted = np.random.default_rng(steps), [], []
    for value in range(0, 256, 5 if steps < 3 else 1):
        pixel = [value, *rng.integers(0, 256, 3).tolist()]
        word = sum(byte << 8 * i for i, byte in enumerate(pixel))
        for plane_pass in range(program.pixel_passes):
            last = int(plane_pass == program.pixel_passes - 1)
            requests.append((SourceField.PIXELS, word, plane_pass, 5, last))
            wanted.append((pixel_masks(pixel, plane_pass, program), 5, last))
    bench = Bench(program, windows=0.7).run(requests)
    assert bench.got == [
        entry
        for (masks, row, last), cycle in zip(wanted, bench.asked, strict=True)
        for entry in expected(program, masks, row, last, cycle + LATENCY)
    ]


def test_planes_of_head_sums_fill_the_first_lanes():
    program = program_of(lanes=8, banks=4, post_lanes=2, timesteps=3)
    rng = np.random.default_rng(2)
    masks = rng.integers(0, 2, (40, 2, 3)).tolist()
    passes = program.head_passes
    requests = [(SourceField.HEAD_SUM, to_word(m), i % passes, 1, 1) for i, m in enumerate(masks)]
    bench = Bench(program, pops=0.5).run(requests)
    assert bench.got == [
        entry
        for mask, cycle in zip(masks, bench.asked, strict=True)
        for entry in expected(program, [*mask, *[[0] * 3] * 6], 1, 1, cycle + LATENCY)
    ]


def test_sources_follow_each_other_directly():
    """The source of a request travels with it: the next step may ask in the next cycle."""
    program = program_of(lanes=4, banks=1, post_lanes=2, timesteps=4)
    words = [(SourceField.PIXELS, 0xA5, 0), (SourceField.SPIKES, 0x1234, 0), (SourceField.HEAD_SUM, 0x5A, 1)]
    bench = Bench(program).run([(*word, 0, 1) for word in words * 3])
    pixel = pixel_masks([0xA5], 0, program)
    masks = [
        [*pixel, *[[0] * 4] * 3],
        [[0x1234 >> 4 * c + t & 1 for t in range(4)] for c in range(4)],
        [*[[0x5A >> 4 * c + t & 1 for t in range(4)] for c in range(2)], *[[0] * 4] * 2],
    ] * 3
    assert bench.got == [
        e
        for mask, cycle in zip(masks, bench.asked, strict=True)
        for e in expected(program, mask, 0, 1, cycle + LATENCY)
    ]
