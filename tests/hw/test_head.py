"""HeadSum: sums over steps and tokens and their planes, against `golden.head`."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.arith import signed_bits
from s2tdpt.golden.head import head_sum
from s2tdpt.hw.blocks.head import HeadSum
from tests.hw.pieces import GAPS
from tests.hw.util import simulate


def golden(images):
    """Sums [B, D] of streams [B, T, N, D]."""
    return head_sum(torch.from_numpy(images).transpose(0, 1)).numpy()


def sum_and_read(images, *, lanes, spare_passes=0, gap="back to back", clear=True, by_token=True, seed=0):
    """Add the streams of `images` [B, T, N, D] one image after the other and read every pass back.

    `by_token`: tokens outermost, else pieces, so that one and the same comes in every cycle.

    Returns
    -------
    int [B, D]
        Put together from the planes.
    """
    batch, steps, tokens, channels = images.shape
    pieces = channels // lanes
    prefixes = images.sum(axis=1).cumsum(axis=1)
    width = signed_bits(min(0, int(prefixes.min())), max(0, int(prefixes.max()))) + (0 if clear else batch)
    value_width = signed_bits(int(images.min()), int(images.max()))
    passes = -(-width // steps) + spare_passes
    dut = HeadSum(
        lanes=lanes, timesteps=steps, pieces=pieces, value_width=value_width, width=width, passes=passes
    )
    assert dut.delay == max(1, int(np.ceil(np.log2(steps))))
    rng = np.random.default_rng(seed)
    planes = np.zeros((batch, pieces, lanes, passes * steps), np.int64)
    order = [(n, p) for n in range(tokens) for p in range(pieces)]
    if not by_token:
        order.sort(key=lambda item: item[1])

    async def pause(ctx, cycles=None):
        """Cycles without a piece or a read; junk on the other inputs."""
        ctx.set(dut.add, 0)
        ctx.set(dut.read_en, 0)
        while cycles if cycles is not None else rng.random() < GAPS[gap]:
            ctx.set(dut.clear, int(rng.integers(2)))
            ctx.set(dut.piece, int(rng.integers(pieces)))
            ctx.set(dut.values, rng.integers(-1, 1, (lanes, steps)).tolist())
            ctx.set(dut.read_pass, int(rng.integers(passes)))
            await ctx.tick()
            cycles = cycles - 1 if cycles is not None else None

    async def testbench(ctx):
        for b in range(batch):
            for n, p in order:
                await pause(ctx)
                ctx.set(dut.add, 1)
                ctx.set(dut.clear, clear and n == 0)
                ctx.set(dut.piece, p)
                ctx.set(dut.values, images[b, :, n, p * lanes : (p + 1) * lanes].T.tolist())
                await ctx.tick()
            await pause(ctx, dut.delay - 1)
            for p in range(pieces):
                for number in range(passes):
                    await pause(ctx)
                    ctx.set(dut.read_en, 1)
                    ctx.set(dut.read_piece, p)
                    ctx.set(dut.read_pass, number)
                    await ctx.tick()
                    word = ctx.get(dut.read_data)
                    bits = np.array([word >> bit & 1 for bit in range(lanes * steps)])
                    planes[b, p, :, number * steps : (number + 1) * steps] = bits.reshape(lanes, steps)
            ctx.set(dut.read_en, 0)

    simulate(dut, testbench, deadline=20 * batch * pieces * (tokens + passes) + 200)
    weight = 1 << np.arange(passes * steps, dtype=np.int64)[::-1]
    weight[0] = -weight[0]  # the highest plane is the sign
    return (planes @ weight).reshape(batch, channels)


def streams(seed, *, batch=2, steps=4, tokens=5, channels=6, limit=700):
    rng = np.random.default_rng(seed)
    scale = rng.integers(1, limit, channels)
    return rng.integers(-scale, scale + 1, (batch, steps, tokens, channels))


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("lanes", [1, 2, 6])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_equals_the_golden_sum(lanes, steps, gap):
    images = streams(lanes, steps=steps)
    assert np.array_equal(sum_and_read(images, lanes=lanes, gap=gap), golden(images))


@pytest.mark.parametrize("lanes", [2, 6])
def test_the_same_piece_in_every_cycle(lanes):
    images = streams(11)
    assert np.array_equal(sum_and_read(images, lanes=lanes, by_token=False), golden(images))


@pytest.mark.parametrize("steps, spare_passes", [(4, 1), (8, 0), (8, 2)])
def test_planes_above_the_sum_repeat_its_sign(steps, spare_passes):
    images = streams(6, steps=steps, limit=5)
    got = sum_and_read(images, lanes=3, spare_passes=spare_passes)
    assert np.array_equal(got, golden(images))


@pytest.mark.parametrize("value", [-128, 127])
def test_ends_of_the_values(value):
    images = np.full((1, 4, 8, 2), value)
    images[..., 1] = -1 - value
    assert np.array_equal(sum_and_read(images, lanes=2), golden(images))


def test_messages():
    sizes = dict(lanes=2, timesteps=4, pieces=3, value_width=8, width=12, passes=3)
    for name in sizes:
        with pytest.raises(ValueError, match=rf"^head sum {name} must be a positive integer, not 0$"):
            HeadSum(**{**sizes, name: 0})
    with pytest.raises(ValueError, match=r"^head sum passes must cover width 13, not 3 x 4 planes$"):
        HeadSum(**{**sizes, "width": 13})


def test_comparison_notices_an_image_that_is_not_cleared():
    images = streams(8)
    got = sum_and_read(images, lanes=2, clear=False)
    assert np.array_equal(got[0], golden(images)[0])
    assert not np.array_equal(got[1], golden(images)[1])
