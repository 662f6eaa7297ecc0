"""HeadSum: sums over steps and tokens and their slices, against `golden.head`."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.arith import signed_bits
from s2tdpt.golden.head import head_sum
from s2tdpt.hw.head import HeadSum
from s2tdpt.hw.images import pack_fields
from tests.hw.util import simulate

SLICE_BITS = 8


def sum_and_read(images, *, lanes, slices, read_ports=1, clear=True, spare_bits=0, seed=0):
    """Add the streams of `images` [B, T, N, D] one image after the other and read every slice back.

    Returns
    -------
    int [B, D]
        Put together from the bytes of the slices.
    """
    batch, _, _, channels = images.shape
    words = channels // lanes
    sums = head_sum(torch.from_numpy(images).transpose(0, 1)).numpy()
    width = max(signed_bits(int(min(0, images.cumsum(axis=1).min(), sums.min())), int(max(0, sums.max()))), 8)
    width = max(width, (slices - 1) * SLICE_BITS + 1) + spare_bits
    value_width = signed_bits(int(images.min()), int(images.max()))
    dut = HeadSum(
        lanes=lanes, depth=words, value_width=value_width, width=width, slices=slices, read_ports=read_ports
    )
    rng = np.random.default_rng(seed)
    got = np.zeros((batch, channels), np.int64)

    async def add(ctx, image):
        for n in range(image.shape[1]):
            for t in range(image.shape[0]):
                for word in range(words):
                    ctx.set(dut.add, 1)
                    ctx.set(dut.clear, clear and t == 0 and n == 0)
                    ctx.set(dut.address, word)
                    ctx.set(
                        dut.value, pack_fields(image[t, n, word * lanes : (word + 1) * lanes], value_width)
                    )
                    await ctx.tick()
                    if rng.random() < 0.2:  # a pause with junk on the inputs
                        ctx.set(dut.add, 0)
                        ctx.set(dut.value, int(rng.integers(1 << value_width)))
                        await ctx.tick()
        ctx.set(dut.add, 0)

    async def testbench(ctx):
        for b in range(batch):
            await add(ctx, images[b])
            for word in range(words):
                for s in range(slices):
                    for r in range(read_ports):  # the ports read different words at the same time
                        ctx.set(getattr(dut, f"read_en_{r}"), 1)
                        ctx.set(getattr(dut, f"read_address_{r}"), (word + r) % words)
                    await ctx.tick()
                    for r in range(read_ports):
                        ctx.set(getattr(dut, f"read_en_{r}"), 0)
                        ctx.set(getattr(dut, f"read_address_{r}"), 0)
                        ctx.set(getattr(dut, f"read_slice_{r}"), s)
                    parts = [ctx.get(getattr(dut, f"read_data_{r}")) for r in range(read_ports)]
                    first = (word + read_ports - 1) % words * lanes
                    for lane in range(lanes):
                        byte = parts[-1] >> lane * SLICE_BITS & 255
                        # Slice 0 is the highest and carries the sign.
                        old = got[b, first + lane] if s else 0
                        signed = byte - 256 if s == 0 and byte > 127 else byte
                        got[b, first + lane] = old * 256 + signed

    simulate(dut, testbench, deadline=3 * images.size + 500)
    return got


def streams(seed, *, batch=2, steps=3, tokens=4, channels=6, limit=700):
    rng = np.random.default_rng(seed)
    scale = rng.integers(1, limit, channels)
    return rng.integers(-scale, scale + 1, (batch, steps, tokens, channels))


def golden(images):
    return head_sum(torch.from_numpy(images).transpose(0, 1)).numpy()


@pytest.mark.parametrize("lanes", [1, 2, 3, 6])
@pytest.mark.parametrize("slices", [2, 3])
def test_equals_the_golden_sum(lanes, slices):
    images = streams(lanes)
    assert np.array_equal(sum_and_read(images, lanes=lanes, slices=slices), golden(images))


def test_one_slice():
    images = streams(5, limit=9)
    assert np.array_equal(sum_and_read(images, lanes=2, slices=1), golden(images))


@pytest.mark.parametrize("spare_bits", [0, 3, 7])
def test_width_need_not_fill_the_last_slice(spare_bits):
    images = streams(6, limit=5)
    got = sum_and_read(images, lanes=3, slices=2, spare_bits=spare_bits)
    assert np.array_equal(got, golden(images))


def test_two_ports():
    images = streams(7)
    assert np.array_equal(sum_and_read(images, lanes=2, slices=2, read_ports=2), golden(images))


def test_comparison_notices_an_image_that_is_not_cleared():
    images = streams(8)
    got = sum_and_read(images, lanes=2, slices=3, clear=False, spare_bits=2)
    assert np.array_equal(got[0], golden(images)[0])
    assert not np.array_equal(got[1], golden(images)[1])
