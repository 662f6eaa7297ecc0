"""WeightRom and WeightStream: what a reader sees is the memory image, whenever the beats come."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.params import random_params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.images import const_width, rom_images, stream_beats, stream_tiles
from s2tdpt.hw.schedule import build_program
from s2tdpt.hw.weights import TILE_BITS, WeightRom, WeightStream, stream_width
from s2tdpt.hw.widths import derive_widths
from tests.hw.core_bench import network
from tests.hw.util import simulate


def setting(memory, *, lanes=4, post_lanes=2, rows=2, **changes):
    params = random_params(network(**changes), seed=2)
    widths = derive_widths(params, derive_bounds(params))
    hardware = HardwareConfig(lanes=lanes, post_lanes=post_lanes, rows=rows, weight_memory=memory)
    program = build_program(params.config, hardware, widths.head_sum)
    return params, program, widths, rom_images(params, program, widths)


async def read_row(ctx, dut, port, address):
    ctx.set(getattr(dut, f"row_en_{port}"), 1)
    ctx.set(getattr(dut, f"row_address_{port}"), address)
    await ctx.tick()
    ctx.set(getattr(dut, f"row_en_{port}"), 0)
    ctx.set(getattr(dut, f"row_address_{port}"), 0)
    return ctx.get(getattr(dut, f"row_data_{port}"))


async def read_constants(ctx, dut, address, widths, post):
    """The scale and the threshold word at `address`."""
    for name in ("const", "threshold"):
        ctx.set(getattr(dut, f"{name}_en"), 1)
        ctx.set(getattr(dut, f"{name}_address"), address)
    await ctx.tick()
    for name in ("const", "threshold"):
        ctx.set(getattr(dut, f"{name}_en"), 0)
        ctx.set(getattr(dut, f"{name}_address"), 0)
    return ctx.get(dut.bias) | ctx.get(dut.shift) << post * widths.bias, ctx.get(dut.threshold)


def test_rom():
    """Every row through every port, every constant; the output holds while nothing is read."""
    _, program, widths, images = setting("rom")
    dut = WeightRom(program, widths, rows=images.rows, scales=images.scales, thresholds=images.thresholds)

    async def testbench(ctx):
        for address, row in enumerate(images.rows):
            port = address % 2
            assert await read_row(ctx, dut, port, address) == row
            await ctx.tick()
            assert ctx.get(getattr(dut, f"row_data_{port}")) == row
        for address, words in enumerate(zip(images.scales, images.thresholds, strict=True)):
            assert await read_constants(ctx, dut, address, widths, program.hardware.post_lanes) == words

    simulate(dut, testbench, deadline=4 * (program.tile_words + program.const_words))


@dataclass
class Run:
    """What happened: the error flag, beats transferred until each tile was released, cycles of arrival."""

    error: int
    sent: list[int]
    loaded: list[int]


def stream(*, frames=2, rate=1.0, delay=0, tlast=None, seed=0, altered=None, **sizes):
    """Send the tiles of `frames` images and read each while the next ones arrive.

    Parameters
    ----------
    rate : float
        Probability of a beat in a cycle.
    delay : int
        Cycles that a tile is kept beyond its reading.
    tlast : callable, optional
        ``tlast(beat, beats)`` of an image instead of the right one.
    altered : int, optional
        Beat of which one bit is wrong.
    """
    params, program, widths, images = setting("stream", **sizes)
    dut = WeightStream(program, widths)
    hw = program.hardware
    beats = stream_beats(params, program, widths, stream_width(program))
    tlast = tlast or (lambda beat, count: beat == count - 1)
    transfers = [(b ^ (i == altered), tlast(i, len(beats))) for i, b in enumerate(beats)] * frames
    tiles = stream_tiles(program) * frames
    rng = np.random.default_rng(seed)
    run = Run(0, [], [])
    sent = 0

    async def feed(ctx):
        nonlocal sent
        for data, last in transfers:
            while rng.random() >= rate:
                await ctx.tick()
            ctx.set(dut.tdata, data)
            ctx.set(dut.tlast, bool(last))
            ctx.set(dut.tvalid, 1)
            while not ctx.get(dut.tready):
                await ctx.tick()
            await ctx.tick()
            ctx.set(dut.tvalid, 0)
            sent += 1

    async def watch(ctx):
        cycle = 0
        while True:
            if ctx.get(dut.loaded) != len(run.loaded) % (1 << TILE_BITS):
                run.loaded.append(cycle)
            await ctx.tick()
            cycle += 1

    async def testbench(ctx):
        row_base = const_base = 0
        for number, (consts, rows) in enumerate(tiles):
            if number % program.tiles == 0:
                row_base = const_base = 0
            while ctx.get(dut.loaded) == number % (1 << TILE_BITS):
                await ctx.tick()
            bank = number % 2
            for i in range(consts):
                words = images.scales[const_base + i], images.thresholds[const_base + i]
                address = bank * hw.subgroups + i
                assert await read_constants(ctx, dut, address, widths, hw.post_lanes) == words
            for i in range(rows):
                address = bank * program.max_tile_rows + i
                assert await read_row(ctx, dut, i % hw.rows, address) == images.rows[row_base + i]
            row_base, const_base = row_base + rows, const_base + consts
            for _ in range(delay):
                await ctx.tick()
            run.sent.append(sent)
            ctx.set(dut.tile_done, 1)
            await ctx.tick()
            ctx.set(dut.tile_done, 0)
        run.error = ctx.get(dut.error)

    deadline = int(10 * len(transfers) / rate) + len(tiles) * delay
    simulate(dut, testbench, deadline=deadline, background=[feed, watch])
    return run


def beats_a_tile(**sizes):
    """Beats of every tile of an image, and of a constant word."""
    _, program, widths, _ = setting("stream", **sizes)
    per_const = -(-const_width(program, widths) // stream_width(program))
    return [consts * per_const + rows for consts, rows in stream_tiles(program)], per_const


@pytest.mark.parametrize(
    "sizes, beats",
    [
        (dict(lanes=4, post_lanes=2), 3),  # several beats a constant word
        (dict(lanes=3, post_lanes=3, weight_bits=4), 6),  # rows padded to whole bytes
        (dict(lanes=16, post_lanes=1, rows=1), 1),  # one beat a constant word, one constant word a lane
    ],
    ids=["three beats", "int4", "one beat"],
)
@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_stream(sizes, beats, rate):
    assert beats_a_tile(**sizes)[1] == beats
    assert stream(rate=rate, **sizes).error == 0


def test_back_pressure_while_both_banks_are_needed():
    """The stream runs two tiles ahead of the releases and not a beat further."""
    sizes, _ = beats_a_tile()
    ends = np.cumsum(sizes * 2).tolist()
    assert stream(delay=120).sent == [*ends[1:], ends[-1]]


def test_one_beat_a_cycle():
    """The first two tiles can be read after as many cycles as they have beats."""
    sizes, _ = beats_a_tile()
    assert stream(frames=1).loaded[:2] == [sizes[0], sizes[0] + sizes[1]]


@pytest.mark.parametrize(
    "tlast",
    [
        lambda beat, count: False,
        lambda beat, count: beat in (0, count - 1),
        lambda beat, count: beat in (count // 2, count - 1),
        lambda beat, count: beat >= count - 2,
    ],
    ids=["never", "on the first beat", "in the middle", "one early"],
)
def test_wrong_tlast_is_flagged(tlast):
    """The flag is set and stays; the words themselves are still taken by count."""
    assert stream(tlast=tlast) == dataclasses.replace(stream(), error=1)


def test_comparison_notices_one_wrong_bit():
    with pytest.raises(AssertionError):
        stream(altered=20)
