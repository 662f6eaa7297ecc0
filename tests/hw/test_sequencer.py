"""Sequencer and the ROMs of records: what a step waits for, and how soon it starts then."""

import numpy as np
import pytest

from s2tdpt.hw.blocks.overlap import settle_cycles
from s2tdpt.hw.blocks.sequencer import Sequencer
from s2tdpt.hw.blocks.step_rom import StepRecords, StepRom, drain_fields, walk_fields
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Source
from s2tdpt.hw.plan.records import FETCH_CYCLES, Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.util import simulate

PROGRAM = build_program(network(depth=2), Machine(lanes=4, banks=2, post_lanes=2), 20)


def test_records_hold_the_program():
    records, settle = StepRecords(PROGRAM), settle_cycles(PROGRAM)
    walks = [walk_fields(step, PROGRAM, wait) for step, wait in zip(PROGRAM.steps, settle, strict=True)]
    drains = [drain_fields(step, PROGRAM) for step in PROGRAM.steps]
    for layout, words, fields in (
        (records.walk_layout, records.walk_words, walks),
        (records.drain_layout, records.drain_words, drains),
    ):
        for word, values in zip(words, fields, strict=True):
            for name, value in values.items():
                field = layout[name]
                assert word >> field.offset & (1 << field.width) - 1 == value


@pytest.mark.parametrize("count", [1, 2, 5])
def test_rom_is_a_record_ahead(count):
    """`valid` is low for a cycle after reset, for two after every `advance`; the records go round."""
    records = StepRecords(PROGRAM)
    words = records.walk_words[:count]
    dut = StepRom(records.walk_layout, words)

    async def testbench(ctx):
        for number in range(2 * count + 1):
            for cycle in range(2 if number else 1):
                assert not ctx.get(dut.valid)
                if cycle or not number:  # the cycle before
                    assert ctx.get(dut.index) == number % count
                await ctx.tick()
            for _ in range(3):
                assert ctx.get(dut.valid)
                assert ctx.get(dut.record.as_value()) == words[number % count]
                assert ctx.get(dut.index) == number % count
                await ctx.tick()
            ctx.set(dut.advance, 1)
            await ctx.tick()
            ctx.set(dut.advance, 0)

    simulate(dut, testbench, deadline=200)


@pytest.mark.parametrize("seed", range(6))
def test_steps_start_a_cycle_after_their_last_condition(seed):
    """Random walks, completions, attention, weights, results and images, for three images."""
    rng = np.random.default_rng(seed)
    dut = Sequencer(PROGRAM, Sizes(PROGRAM), StepRecords(PROGRAM))
    steps, frames, settle = PROGRAM.steps, 3, settle_cycles(PROGRAM)
    starts, releases, completions = [], [], []

    async def testbench(ctx):
        running, walk_left, complete, blocks, fetched = [], 0, 0, 0, 1
        ending, ended, since = [], 0, 0  # cycles in which steps end; how many have, and how long ago
        busy_until = -1  # until when an earlier frame counts
        goes, cycle, finished = False, 0, False
        while len(completions) < frames:
            number = len(starts) % len(steps)
            step = steps[number]
            start = ctx.get(dut.start)
            assert start == goes
            if start:
                number_started = len(starts) % len(steps)
                starts.append(cycle)
                started = steps[number_started]
                assert ctx.get(dut.index) == number_started
                assert ctx.get(dut.row_base) == started.tile_base
                if started.source is Source.PIXELS:
                    image = PROGRAM.network.image_height * PROGRAM.network.image_width
                    assert ctx.get(dut.pixel_base) == ctx.get(dut.frame_bank) * image
                walk_left = int(rng.integers(1, 20))
                ending.append(cycle + walk_left + int(rng.integers(1, 20)))
                running.append(ending[-1] + int(rng.integers(3, 40)))
                number = len(starts) % len(steps)
                step = steps[number]
            walking = walk_left > 0
            walk_left = max(0, walk_left - 1)
            done = bool(running) and cycle >= running[0] and not finished
            if done:
                running.pop(0)
            ends = bool(ending) and cycle >= ending[0]
            if ends:
                ending.pop(0)
            # Attention is complete some time after its projections, counted by the record of the step.
            if step.after_attention > blocks and complete >= number and rng.random() < 0.1:
                blocks += 1
            ready, results, valid = rng.random() < 0.7, rng.random() < 0.3, rng.random() < 0.3
            for name, value in dict(
                walking=walking,
                tile_ended=ends,
                tile_complete=done,
                blocks=blocks,
                results_busy=results,
                frame_valid=valid,
            ).items():
                ctx.set(getattr(dut, name), value)
            if number or not starts:
                ctx.set(dut.frame_bank, 1)
            ctx.set(dut.tiles.ready, ready)
            frame_complete = complete == len(steps)
            assert ctx.get(dut.frame_complete) == frame_complete
            settled = settle[number] is not None and ended == number and since >= settle[number]
            fits = (complete >= step.after + 1 or settled) and blocks >= step.after_attention
            fits = fits and not (results and step.source is Source.HEAD_SUM)
            if number == 0:
                fits = valid and (not starts or cycle > busy_until >= 0)
            goes = bool(fits and ready and not walking and not start and cycle >= fetched)
            assert ctx.get(dut.tiles.start) == goes
            assert ctx.get(dut.tiles.complete) == done
            assert ctx.get(dut.frame_start) == (goes and number == 0)
            if ctx.get(dut.frame_release):
                releases.append(number_started)
                assert start
            if frame_complete:
                completions.append(cycle)
                busy_until, complete, blocks, ended = cycle, 0, 0, 0
            else:
                complete, ended = complete + done, ended + ends
            since = 0 if ends else since + 1
            if goes:
                fetched = cycle + FETCH_CYCLES
                if number == 0:
                    busy_until = -1
            await ctx.tick()
            cycle += 1

    simulate(dut, testbench, deadline=10_000)
    assert len(starts) >= frames * len(steps)
    first = next(i for i, step in enumerate(steps) if step.source is not Source.PIXELS)
    assert releases[:frames] == [first] * frames
