"""The walkers against nested loops over a step's words; first request, throughput and stalls."""

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring

from s2tdpt.hw.blocks.step_rom import StepRecords, walk_fields
from s2tdpt.hw.blocks.walker import PositionWalker, TapWalker
from s2tdpt.hw.estimate.front_model import FIRST_REQUEST
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import FETCH_CYCLES, Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.util import simulate

PROGRAMS = {
    "tiny": (network(), Machine(lanes=4, banks=2, post_lanes=2)),
    "colour": (
        network(image_channels=3, timesteps=5, num_classes=5),
        Machine(lanes=3, banks=3, post_lanes=1),
    ),
    "one pixel": (network(image_height=1, image_width=1), Machine(lanes=4, banks=1, post_lanes=2)),
    "one column": (
        network(image_width=1, sps_pool=(False, False)),
        Machine(lanes=2, banks=1, post_lanes=2),
    ),
    "one row": (
        network(image_height=1, image_width=7, sps_channels=(5, 6, 6), sps_pool=(False, False, True)),
        Machine(lanes=2, banks=2, post_lanes=1),
    ),
}


def requests(step, program, row_base):
    """(address, row, pass, last, final, cooldown) of every word, by loops over the map."""
    machine, found = program.machine, []
    groups, reach = step.packing_in.groups, step.kernel // 2
    drain = step.subgroups(machine) - 1
    for y in range(step.height):
        for x in range(step.width):
            for plane_pass in range(step.passes):
                for ky in range(step.kernel):
                    for kx in range(step.kernel):
                        v, u = y + ky - reach, x + kx - reach
                        if not (0 <= v < step.height and 0 <= u < step.width):
                            continue
                        tap = row_base + (ky * step.kernel + kx) * step.tap_rows(machine)
                        for word in range(groups):
                            address = step.src_base + (v * step.width + u) * step.stride + word
                            row = tap + word * step.word_rows(machine)
                            found.append([address, row, plane_pass, 0, 0, drain])
                found[-1][3] = 1
    found[-1][4:] = [1, drain + FETCH_CYCLES]
    return [tuple(entry) for entry in found]


class Walk(wiring.Component):
    """Both walkers, one behind the other."""

    def __init__(self, program):
        self.records, sizes = StepRecords(program), Sizes(program)
        self.positions = PositionWalker(self.records, sizes)
        self.taps = TapWalker(self.records, sizes, self.positions.window_layout)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.positions, m.submodules.taps = self.positions, self.taps
        wiring.connect(m, self.positions.window, self.taps.window)
        m.d.comb += self.taps.step.eq(self.positions.step)
        return m


def walk(program, numbers, *, ready=1.0, seed=0):
    """For each step: its requests, the cycles after `start` in which they were taken, what is expected."""
    dut, rng = Walk(program), np.random.default_rng(seed)
    found = []
    for number in numbers:
        step = program.steps[number]
        found.append(([], [], requests(step, program, step.tile_base)))
    spans = [int(len(expected) / ready * 2) + 20 for _, _, expected in found]

    async def one(ctx, step, taken, cycles, span):
        ctx.set(dut.positions.step, walk_fields(step, program))
        ctx.set(dut.positions.row_base, step.tile_base)
        ctx.set(dut.positions.start, 1)
        request, waiting = dut.taps.request, None
        for cycle in range(span):
            takes = rng.random() < ready
            ctx.set(request.ready, takes)
            _, _, valid, p = await ctx.tick().sample(request.valid, request.payload)
            ctx.set(dut.positions.start, 0)
            assert waiting is None or (valid and p == waiting), "an offered request must stay"
            waiting = p if valid and not takes else None
            if valid and takes:
                mark = p.mark
                taken.append((p.address, p.row, p.plane_pass, mark.last, mark.final, mark.cooldown))
                cycles.append(cycle)
        assert not ctx.get(dut.positions.busy) and not ctx.get(request.valid)

    async def testbench(ctx):
        for number, (taken, cycles, _), span in zip(numbers, found, spans, strict=True):
            await one(ctx, program.steps[number], taken, cycles, span)

    simulate(dut, testbench, deadline=sum(spans) + 100)
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_words_of_every_step_without_a_gap(name):
    """The first request comes 3 cycles after `start` (2 + 1), then one every cycle."""
    program = build_program(*PROGRAMS[name], 20)
    numbers = range(len(program.steps))
    for number, (taken, cycles, expected) in zip(numbers, walk(program, numbers), strict=True):
        assert taken == expected, program.steps[number].name
        assert cycles == list(range(FIRST_REQUEST, FIRST_REQUEST + len(expected)))


@pytest.mark.parametrize("ready", [0.3, 0.7])
def test_stalls_change_nothing(ready):
    program = build_program(*PROGRAMS["colour"], 20)
    for taken, _, expected in walk(program, (0, 1, len(program.steps) - 1), ready=ready):
        assert taken == expected


def test_start_to_the_first_window():
    program = build_program(*PROGRAMS["tiny"], 20)
    records = StepRecords(program)
    dut = PositionWalker(records, Sizes(program))
    step = program.steps[0]

    async def testbench(ctx):
        ctx.set(dut.step, walk_fields(step, program))
        ctx.set(dut.window.ready, 1)
        ctx.set(dut.start, 1)
        seen = []
        for _ in range(step.positions + 4):
            seen.append(ctx.get(dut.window.valid))
            await ctx.tick()
            ctx.set(dut.start, 0)
        assert seen == [0, 0, *[1] * step.positions, 0, 0]

    simulate(dut, testbench, deadline=100)
