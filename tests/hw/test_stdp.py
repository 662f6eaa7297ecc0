"""The STDP unit against `golden.attention.stdp`: every sum, every spike, every cycle; how it grows with N."""

import time

import numpy as np
import pytest

from s2tdpt.golden.bounds import Interval
from s2tdpt.golden.config import load_config
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.stdp import StdpAttention, StdpHardware, StdpKernel
from s2tdpt.hw.attention.stdp_cycles import (
    attention_cycles,
    attention_macs,
    head_cycles,
    row_memory_bits,
    row_updates,
    y_interval,
)
from s2tdpt.hw.attention.stdp_rows import RowUpdate
from s2tdpt.hw.attention.timeline import attention_lead, emission_period
from s2tdpt.hw.plan.records import Sizes
from tests.hw.attention_bench import Attention, program_for, spikes, table
from tests.hw.util import simulate, state_of


@pytest.mark.parametrize("head_dim", [1, 3, 4, 8])
def test_kernel_on_all_counts(head_dim):
    lut = table(head_dim)
    dut = StdpKernel(lut, head_dim)
    pairs = [(key, query) for key in range(head_dim + 1) for query in range(head_dim + 1)]

    async def testbench(ctx):
        # A pair a cycle; its weight is there two cycles later.
        for place, (key, query) in enumerate([*pairs, (0, 0)]):
            ctx.set(dut.key, key)
            ctx.set(dut.query, query)
            await ctx.tick()
            if place > 0:
                key, query = pairs[place - 1]
                assert ctx.get(dut.weight) == lut[key - query + head_dim]

    simulate(dut, testbench, deadline=len(pairs) + 10)


SHAPES = [
    # head_dim, heads, tokens, steps, lanes, post_lanes, attention_steps
    (1, 1, 1, 1, 1, 1, 1),  # nothing to count
    (1, 3, 3, 2, 2, 1, 2),
    (3, 1, 5, 1, 3, 3, 1),
    (4, 2, 3, 3, 8, 4, 2),  # engines with different numbers of steps
    (5, 4, 7, 3, 12, 4, 3),  # padded heads that straddle two tiles
    (5, 3, 16, 4, 4, 2, 1),  # a head in two tiles or three, none in one
    (7, 3, 16, 4, 12, 3, 4),
    (7, 2, 3, 5, 4, 1, 3),  # more parts than steps
    (7, 2, 1, 8, 14, 7, 8),
    (8, 3, 5, 4, 4, 4, 2),  # one piece a tile
    (8, 3, 1, 4, 4, 4, 4),  # and one token: the same sums come back after three pieces
    (8, 2, 16, 8, 16, 8, 3),
    (16, 2, 9, 4, 24, 8, 4),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_shapes(shape):
    head_dim, heads, tokens, steps, lanes, post_lanes, attention_steps = shape
    unit = Attention(
        head_dim=head_dim,
        heads=heads,
        tokens=tokens,
        steps=steps,
        lanes=lanes,
        post_lanes=post_lanes,
        attention_steps=attention_steps,
        depth=2,
    )
    program = unit.program
    # Blocks of two frames, back to back.
    unit.check(
        spikes(1, program),
        spikes(2, program, q=0.02, v=0.5),
        spikes(3, program, v=0.03),
        spikes(4, program, q=0.9, k=0.9, v=0.9),
    )
    unit = Attention(**_size(shape), depth=1)
    unit.check(spikes(5, program), spikes(6, program, q=0.6), gap=0.5)
    unit = Attention(**_size(shape), depth=1)
    unit.check(spikes(7, program), once=True)


def _size(shape):
    names = ("head_dim", "heads", "tokens", "steps", "lanes", "post_lanes", "attention_steps")
    return dict(zip(names, shape, strict=True))


@pytest.mark.parametrize("attention_steps", [1, 2, 3, 4])
@pytest.mark.parametrize("tokens", [1, 2, 6])
def test_silent_and_constant_maps(tokens, attention_steps):
    """Few query counts and values: the corners of the cycle formula and of rows that come back at once."""
    unit = Attention(
        head_dim=3,
        heads=2,
        tokens=tokens,
        steps=4,
        lanes=6,
        post_lanes=3,
        attention_steps=attention_steps,
        depth=16,
    )
    rates = [(0, 0, 0), (0, 0, 1), (1, 1, 1), (0, 1, 0.2), (1, 0, 0.2), (0.5, 0, 1), (0.1, 0.5, 0.2)]
    rates += [(0.04, 0.5, 0.1), (0.04, 0.5, 0.3), (0.96, 0.5, 0.3), (0.04, 0.5, 1)]
    unit.check(*(spikes(i, unit.program, q=q, k=k, v=v) for i, (q, k, v) in enumerate(rates)))


def test_rows_that_come_back():
    """A step whose queries all have one count, in consecutive tokens: its row comes back every 3 cycles."""
    unit = Attention(head_dim=3, heads=1, tokens=6, steps=4, lanes=3, post_lanes=3, attention_steps=3)
    q, k, v = spikes(0, unit.program, q=0, k=1, v=0)
    q[1, :3] = np.tri(3)  # counts 0..3 in step 1: its engine never waits
    v[0, 1:4] = 1  # tokens 1..3 spike in step 0 only, where one count occurs
    v[1:3, 4] = 1
    v[3, 5] = 1  # the row of step 3 is in the memory of that of step 0
    assert row_updates(q, k, v, heads=1).tolist() == [[7, 1, 1, 1, 5, 1]]
    assert head_cycles(q, k, v, unit.program) == 5 + 6 + (4 + 3 + 3 + 3 + 4 + 3) + 6 * 4
    unit.check((q, k, v))
    # Nothing to do in the middle: two cycles a token.
    v[0, 2:4] = 0
    assert head_cycles(q, k, v, unit.program) == 5 + 6 + (4 + 3 + 2 + 2 + 4 + 3) + 6 * 4
    unit.check((q, k, v))


@pytest.mark.parametrize("heads", [1, 2])
def test_wide_head(heads):
    """A head of 32 channels in 64 tokens."""
    unit = Attention(head_dim=32, heads=heads, tokens=64, steps=2, lanes=48, post_lanes=8)
    unit.check(spikes(1, unit.program, q=0.1, k=0.1, v=0.05))


def test_digits_block():
    """A block of the named configuration: its own table, threshold and sizes."""
    config = load_config("digits")
    unit = Attention(
        head_dim=config.head_dim,
        heads=config.heads,
        tokens=config.tokens,
        steps=config.timesteps,
        lanes=64,
        post_lanes=16,
        attention_steps=4,
        lut=config.attention.kernel(config).tolist(),
        threshold=1024,
    )
    unit.check(spikes(1, unit.program), spikes(2, unit.program, q=0.1), gap=0.1)


def test_signed_table():
    """A table with negative weights: sums and membranes are signed."""
    lut = table(4, amplitude=90, offset=20)
    assert min(lut) < 0
    unit = Attention(
        head_dim=4, heads=2, tokens=6, steps=4, lanes=8, post_lanes=4, lut=lut, threshold=60, depth=2
    )
    unit.check(spikes(1, unit.program), spikes(2, unit.program, q=0.8))


def test_ends_of_the_sum():
    """All spikes set: the largest sum that the width was proven for."""
    lut, tokens = [7] * 9, 9
    assert y_interval(lut, tokens) == (0, 63)
    unit = Attention(
        head_dim=4, heads=1, tokens=tokens, steps=2, lanes=4, post_lanes=4, lut=lut, threshold=63
    )
    assert unit.dut.y_shape.width == 6
    unit.check(spikes(1, unit.program, q=1, k=1, v=1))


FAULTY = dict(head_dim=3, heads=1, tokens=8, steps=4, lanes=4, post_lanes=2)


def _faulty_case(unit):
    return spikes(5, unit.program, q=0.5, k=0.5, v=0.5)


@pytest.mark.parametrize("entry", [0, 3, 4, 6])
def test_comparison_notices_a_flipped_table_entry(entry):
    lut = table(3)
    broken = list(lut)
    broken[entry] ^= 1
    unit = Attention(**FAULTY, lut=lut, hardware_lut=broken)
    with pytest.raises(AssertionError):
        unit.check(_faulty_case(unit))


@pytest.mark.parametrize("factor", [0.5, 2])
def test_comparison_notices_another_threshold(factor):
    unit = Attention(**FAULTY, threshold=400, hardware_threshold=int(400 * factor))
    with pytest.raises(AssertionError):
        unit.check(_faulty_case(unit))


@pytest.mark.parametrize("piece", [3, 20, 40, 47])
def test_comparison_notices_a_lost_piece(piece):
    """Pieces 0..15 are those of q, 16..31 of k, 32..47 of v."""
    unit = Attention(**FAULTY)
    unit.check(_faulty_case(unit))
    unit = Attention(**FAULTY)
    with pytest.raises(AssertionError):
        unit.check(_faulty_case(unit), drop=piece)


def test_watchdog_ends_a_unit_that_gets_nothing():
    unit = Attention(**FAULTY)
    with pytest.raises(TimeoutError):
        unit.check(_faulty_case(unit), gap=1.0, deadline=300)


@pytest.mark.parametrize("attention_steps", [1, 2, 3, 4])
@pytest.mark.parametrize("tokens", [16, 4096])
def test_row_memory_bits(tokens, attention_steps):
    """The formula is the memory that is elaborated."""
    size = dict(head_dim=4, heads=2, tokens=tokens, steps=4, lanes=8, post_lanes=4)
    unit = Attention(**size, attention_steps=attention_steps)
    sizes = HeadSizes(unit.program)
    bits = sum(
        state_of(RowUpdate(sizes, engine, unit.lut, unit.dut.y_shape))[1] for engine in range(sizes.engines)
    )
    assert bits == row_memory_bits(
        head_dim=4, timesteps=4, y_bits=unit.dut.y_shape.width, attention_steps=attention_steps
    )


SWEEP = [16, 64, 256, 1024, 4096]


def test_cost_grows_linearly_and_state_logarithmically():
    """N = 16 .. 4096: cycles per token stay, the rows gain bits of width only."""
    head_dim, steps = 2, 1
    size = dict(head_dim=head_dim, heads=1, steps=steps, lanes=2, post_lanes=2)
    cycles, state = {}, {}
    for tokens in SWEEP:
        unit = Attention(**size, tokens=tokens, threshold=1024)
        sizes = HeadSizes(unit.program)
        state[tokens] = sum(state_of(RowUpdate(sizes, 0, unit.lut, unit.dut.y_shape)))
        # Every token alike, so that the cycles differ by N alone.
        q, k, v = (np.zeros((steps, tokens, head_dim), dtype=np.uint8) for _ in range(3))
        q[:, ::2, 0] = k[:, ::3] = v[...] = 1
        if tokens <= 1024:
            unit.check((q, k, v), deadline=20 * tokens + 100)
        cycles[tokens] = attention_cycles(q, k, v, heads=1, post_lanes=2)
    for few, many in zip(SWEEP, SWEEP[1:], strict=False):
        # Two counts occur: a token takes 2 updates and 2 cycles of waiting.
        assert cycles[many] - cycles[few] == (1 + 4 + 1) * (many - few)
        # Four times the tokens: two more bits in each sum, of every row and a register.
        assert state[many] - state[few] == 2 * (head_dim + 1 + 1) * head_dim
    macs = [attention_macs(tokens=n, heads=1, head_dim=head_dim, timesteps=steps) for n in SWEEP]
    assert macs[-1] == macs[0] * (SWEEP[-1] // SWEEP[0]) ** 2


def test_timeline():
    """A head begins when it is complete and the one before has ended; the end counts a token early."""
    program = program_for(head_dim=4, heads=3, tokens=2, steps=3, lanes=4, post_lanes=2)
    assert attention_lead(program, emission_period(program)) == 1
    found = StdpHardware().timeline([10, 10, 200], [50, 60, 70], program)
    assert found == ([12, 62, 202], 202 + 70 + 9 - 3)


def test_cycle_model_is_fast():
    """All heads of a large network within a third of a second."""
    program = program_for(head_dim=32, heads=12, tokens=64, steps=4, lanes=48, post_lanes=8)
    silent = spikes(1, program, q=0.005, v=0.05)  # few counts: rows come back early
    common = spikes(2, program)
    for maps in (silent, common):
        start = time.perf_counter()
        for head in zip(*(np.split(map_, 12, axis=2) for map_ in maps), strict=True):
            head_cycles(*head, program)
        assert 4 * (time.perf_counter() - start) < 0.3


def test_messages():
    program = program_for(head_dim=4, heads=2, tokens=4, steps=2, lanes=8, post_lanes=8)
    build = dict(lut=table(4), threshold=8, y=Interval(0, 1020))
    with pytest.raises(ValueError, match=r"^the STDP table of 4 channels must have 9 entries, not 7$"):
        StdpAttention(program, Sizes(program), **{**build, "lut": table(3)})
    with pytest.raises(ValueError, match=r"^LIF threshold must be at least 1, not 0$"):
        StdpAttention(program, Sizes(program), **{**build, "threshold": 0})
