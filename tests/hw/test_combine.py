"""PlaneCombiner: Horner's scheme over bit planes against products of whole numbers."""

import numpy as np
import pytest

from s2tdpt.golden.arith import signed_bits
from s2tdpt.hw.combine import PlaneCombiner
from s2tdpt.hw.images import pack_fields
from tests.hw.util import simulate

PLANES = 8


def combine(weights, numbers, biases, *, slices=1, signed=True, idle_rate=0.0, negate=True, seed=0):
    """``weights @ numbers + bias`` from bit planes.

    Parameters
    ----------
    weights : int [groups, lanes, channels]
    numbers : int [channels]
        Within `slices` x 8 bits, two's complement if `signed`.
    biases : int [groups, lanes]

    Returns
    -------
    int [groups, lanes]
    """
    groups, lanes, _ = weights.shape
    lo, hi = weights.clip(max=0).sum(axis=2).min(), weights.clip(min=0).sum(axis=2).max()
    sum_width = signed_bits(int(lo), int(hi))
    bias_width = signed_bits(int(biases.min()), int(biases.max()))
    # Exactly the width of every prefix: sums of weights times numbers shifted right.
    prefixes = [weights @ (numbers >> b) for b in range(slices * PLANES)]
    prefixes += [prefixes[0] + biases]
    width = signed_bits(min(0, *(int(p.min()) for p in prefixes)), max(0, *(int(p.max()) for p in prefixes)))
    dut = PlaneCombiner(lanes=lanes, groups=groups, sum_width=sum_width, bias_width=bias_width, width=width)
    rng = np.random.default_rng(seed)
    result = np.zeros((groups, lanes), np.int64)

    async def cycle(ctx, **members):
        """One cycle with `members` set; others are junk that must not matter."""
        while rng.random() < idle_rate:
            ctx.set(dut.en, 0)
            ctx.set(dut.save, 0)
            ctx.set(dut.sums, int(rng.integers(1 << 16)))
            ctx.set(dut.first, int(rng.integers(2)))
            await ctx.tick()
        for name in ("en", "first", "resume", "negate", "add_bias", "save", "group", "sums", "bias"):
            ctx.set(getattr(dut, name), int(members.get(name, 0)))
        await ctx.tick()

    async def testbench(ctx):
        for s in range(slices):
            for group in range(groups):
                for plane in reversed(range(PLANES)):
                    bit = numbers >> (slices - 1 - s) * PLANES + plane & 1
                    top = plane == PLANES - 1
                    await cycle(
                        ctx,
                        en=1,
                        first=top,
                        resume=s > 0,
                        group=group,
                        negate=negate and signed and top and s == 0,
                        sums=pack_fields(weights[group] @ bit, sum_width),
                    )
                if s < slices - 1:
                    await cycle(ctx, save=1, group=group)
                    continue
                await cycle(ctx, en=1, add_bias=1, bias=pack_fields(biases[group], bias_width))
                total = ctx.get(dut.total)
                for lane in range(lanes):
                    value = total >> lane * width & (1 << width) - 1
                    result[group, lane] = value - ((value >> width - 1) << width)

    simulate(dut, testbench, deadline=20_000)
    return result


def case(seed, *, groups, lanes, channels, slices, signed):
    rng = np.random.default_rng(seed)
    bits = slices * PLANES
    lo, hi = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    weights = rng.integers(-127, 128, (groups, lanes, channels))
    numbers = rng.integers(lo, hi, channels)
    return weights, numbers, rng.integers(-1000, 1000, (groups, lanes))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("slices", [1, 2, 3, 4])
@pytest.mark.parametrize("groups", [1, 3])
def test_equals_the_product(groups, slices, signed):
    weights, numbers, biases = case(slices, groups=groups, lanes=2, channels=5, slices=slices, signed=signed)
    got = combine(weights, numbers, biases, slices=slices, signed=signed, idle_rate=0.2)
    assert np.array_equal(got, weights @ numbers + biases)


@pytest.mark.parametrize("number", [-128, -1, 0, 1, 127])
@pytest.mark.parametrize("weight", [-127, -1, 0, 127])
def test_corners_of_signed_bytes(weight, number):
    weights, numbers = np.full((1, 1, 3), weight), np.full(3, number)
    got = combine(weights, numbers, np.array([[5]]))
    assert got.tolist() == [[3 * weight * number + 5]]


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255])
def test_corners_of_unsigned_bytes(number):
    weights = np.array([[[127, 127], [-127, -127]]])
    got = combine(weights, np.full(2, number), np.array([[-3, 3]]), signed=False)
    assert got.tolist() == [[254 * number - 3, 3 - 254 * number]]


def test_comparison_notices_a_missing_sign():
    weights, numbers, biases = case(3, groups=1, lanes=2, channels=4, slices=1, signed=True)
    got = combine(weights, numbers, biases, negate=False)
    assert not np.array_equal(got, weights @ numbers + biases)
