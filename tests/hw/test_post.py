"""Post-processing: `Scale` against integers; the stated times of a piece, composed and simulated."""

from types import SimpleNamespace

import numpy as np
import pytest

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.params import random_params
from s2tdpt.hw.blocks.combine import combiner_delay
from s2tdpt.hw.blocks.drain import tag_layout
from s2tdpt.hw.blocks.levels import LEVELS_DELAY
from s2tdpt.hw.blocks.lif_pipeline import lif_delay
from s2tdpt.hw.blocks.pool import OrPool
from s2tdpt.hw.blocks.post import PostProcessor
from s2tdpt.hw.blocks.residual import ResidualStream
from s2tdpt.hw.blocks.scale import Scale
from s2tdpt.hw.blocks.step_rom import SinkField
from s2tdpt.hw.blocks.timing import SUMS_DELAY, PostTiming
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Sink
from s2tdpt.hw.plan.records import WEIGHT_DELAY, Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.hw.plan.widths import derive_widths
from s2tdpt.sim.cases import network
from tests.hw.util import simulate


def build(steps=2, lanes=4, post_lanes=2, **changes):
    params = random_params(network(timesteps=steps, **changes), 0)
    bounds = derive_bounds(params)
    widths = derive_widths(params, bounds)
    program = build_program(
        params.config, Machine(lanes=lanes, banks=1, post_lanes=post_lanes), widths.head_sum
    )
    return program, widths


@pytest.mark.parametrize("steps, post_lanes", [(1, 1), (3, 2), (8, 4)])
@pytest.mark.parametrize("amounts", [(0,), (0, 1, 5), (3, 4)])
def test_scale(steps, post_lanes, amounts):
    """A piece a cycle, `Scale.delay` later; the constants come a cycle after the sums."""
    program, _ = build(steps, 4, post_lanes)
    widths = SimpleNamespace(
        accumulator=10,
        combined=16,
        value=16 + max(amounts),  # as narrow as the numbers below allow
        bias=12,
        shift=max(1, (max(amounts) - min(amounts)).bit_length()),
        threshold=8,
        min_shift=min(amounts),
    )
    dut = Scale(program, widths)
    rng = np.random.default_rng(steps)
    count = 60
    sums = rng.integers(-512, 512, (count, post_lanes, steps))
    totals = rng.integers(2048 - 2**15, 2**15 - 2048, (count, post_lanes))
    planes = rng.integers(0, 2, count)
    which = rng.integers(0, len(amounts), (count, post_lanes))
    bias = rng.integers(-2048, 2048, (count, post_lanes))
    shift = np.array(amounts)[which]
    source = np.where(planes[:, None, None], totals[:, :, None], sums)
    expected = (source << shift[:, :, None]) + bias[:, :, None]

    async def testbench(ctx):
        for cycle in range(count + Scale.delay):
            if cycle < count:
                ctx.set(dut.by_planes, int(planes[cycle]))
                ctx.set(dut.sums, sums[cycle].tolist())
                ctx.set(dut.total, totals[cycle].tolist())
            if 1 <= cycle <= count:
                for lane in range(post_lanes):
                    constant = dut.constants[lane]
                    ctx.set(constant.bias, int(bias[cycle - 1, lane]))
                    ctx.set(constant.shift, int(shift[cycle - 1, lane]) - min(amounts))
            if cycle >= Scale.delay:
                got = [[ctx.get(dut.value[lane][t]) for t in range(steps)] for lane in range(post_lanes)]
                assert got == expected[cycle - Scale.delay].tolist(), cycle
            await ctx.tick()

    simulate(dut, testbench, deadline=count + 20)


def test_timing_is_the_sum_of_the_parts():
    for steps in range(1, 9):
        timing = PostTiming(build(steps)[0])
        assert timing.scaled_at == SUMS_DELAY + combiner_delay(steps)
        assert timing.value_at == timing.scaled_at + Scale.delay
        assert timing.membrane_at == timing.value_at + ResidualStream.delay
        assert timing.spikes_at == timing.membrane_at + lif_delay(steps)
        assert timing.written_at == timing.spikes_at + OrPool.delay


@pytest.mark.parametrize("steps", range(1, 5))
def test_levels_take_longer_than_few_steps(steps):
    lif, graded = (PostTiming(build(steps, attention={"kind": kind})[0]) for kind in ("stdp", "a2os2a"))
    assert graded.membrane_at == lif.membrane_at
    assert graded.spikes_at == graded.membrane_at + max(2 * steps - 1, LEVELS_DELAY)
    assert graded.written_at == graded.spikes_at + OrPool.delay


def pulses(program, widths, tag):
    """Cycles after a tag in which each output has something to say; one piece of the last position."""
    sizes = Sizes(program)
    dut = PostProcessor(program, sizes, widths)
    names = {
        "constants": dut.constants.en,
        "u": dut.probe.u_en,
        "spikes": dut.probe.en,
        "projection": dut.projections.en,
        "heads": dut.projections.ready,
        "write": dut.write.en,
        "complete": dut.tile_complete,
        "results": dut.results.en,
    }
    found = {}

    async def testbench(ctx):
        fields = dict(last_pass=1, first_pass=1, first_position=1, tile_end=1, **tag)
        assert set(fields) <= set(dict(tag_layout(sizes)))
        ctx.set(dut.tag, fields)
        ctx.set(dut.valid, 1)
        for cycle in range(dut.timing.written_at + 10):
            for name, signal in names.items():
                if ctx.get(signal):
                    found.setdefault(name, []).append(cycle)
            await ctx.tick()
            ctx.set(dut.valid, 0)

    simulate(dut, testbench, deadline=100)
    return found, dut.timing


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_every_output_comes_when_the_timing_says(steps):
    program, widths = build(steps)

    def seen(sink, **fields):
        return pulses(program, widths, {"sink": SinkField(sink.value), **fields})

    spikes, t = seen(Sink.SPIKES, writes_spikes=1)
    asked = [t.value_at - 1 - WEIGHT_DELAY]
    written = {"constants": asked, "spikes": [t.spikes_at], "write": [t.written_at]}
    assert spikes == {**written, "complete": [t.written_at]}
    residual, _ = seen(Sink.RESIDUAL, writes_spikes=1, first_writer=1)
    assert residual == {**written, "u": [t.membrane_at], "complete": [t.written_at]}
    last, _ = seen(Sink.RESIDUAL, sums_head=1)
    assert last == {"constants": asked, "u": [t.membrane_at], "complete": [t.written_at]}
    attention, _ = seen(Sink.ATTENTION, heads_ready=1)
    assert attention == {
        "constants": asked,
        "spikes": [t.spikes_at],
        "projection": [t.spikes_at],
        "heads": [t.spikes_at + 1],
        "complete": [t.written_at],
    }
    logits, _ = seen(Sink.LOGITS, by_planes=1, signed_planes=1)
    assert logits == {"constants": asked, "results": [t.value_at], "complete": [t.written_at]}
