"""OrPool against `golden.pool` for even, odd and tiny maps, with the exact number of cycles and reads."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.pool import or_pool
from s2tdpt.hw.memory import pack_channels, unpack_channels
from s2tdpt.hw.pool import OrPool, pool_cycles
from tests.hw.util import MemoryBench, run_operation, simulate


def pool(maps, *, lanes, post_lanes=None, rate=0.15, fault=None):
    """Pools maps ``[(height, width, channels), ...]`` one after the other on one instance."""
    rng = np.random.default_rng(len(maps) + lanes)
    steps = 3
    limits = [max(size) for size in zip(*maps, strict=True)]
    dut = OrPool(
        max_height=limits[0],
        max_width=limits[1],
        max_groups=-(-limits[2] // lanes),
        addr_width=11,
        lanes=lanes,
        timesteps=steps,
        post_lanes=post_lanes or lanes,
    )
    source, target, depth = 5, 900, 1100
    junk = rng.integers(0, 1 << min(lanes * steps, 62), depth).tolist()
    bench = MemoryBench(dut, junk)
    reads = []

    async def count_reads(ctx):
        async for _, _, enabled in ctx.tick().sample(dut.mem.rd_en):
            reads.append(enabled)

    async def testbench(ctx):
        for height, width, channels in maps:
            spikes = (rng.random((steps, height * width, channels)) < rate).astype(np.uint8)
            words = pack_channels(spikes, lanes)
            for i, word in enumerate(words):
                ctx.set(bench.storage.data[source + i], word ^ (1 if i == fault else 0))
            groups = -(-channels // lanes)
            before = sum(reads)
            cycles = await run_operation(
                ctx,
                dut,
                fields={
                    "src_base": source,
                    "dst_base": target,
                    "in_h": height,
                    "in_w": width,
                    "groups": groups,
                },
            )
            assert cycles == pool_cycles(height, width, groups)
            assert sum(reads) - before == cycles - width - 3
            expected = or_pool(torch.from_numpy(spikes.reshape(steps, height, width, channels))).numpy()
            out_h, out_w = expected.shape[1:3]
            got = unpack_channels(
                bench.words(ctx, target, out_h * out_w * groups),
                tokens=out_h * out_w,
                channels=channels,
                lanes=lanes,
                timesteps=steps,
            )
            assert np.array_equal(got, expected.reshape(steps, out_h * out_w, channels)), (height, width)
            # The words around the destination are untouched.
            assert bench.words(ctx, target - 1, 1) == junk[target - 1 : target]
            end = target + out_h * out_w * groups
            assert bench.words(ctx, end, 1) == [junk[end]] or len(maps) > 1

    simulate(bench, testbench, deadline=20_000, background=[count_reads])


@pytest.mark.parametrize("height", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("width", [1, 2, 3, 6, 7])
def test_sizes(height, width):
    pool([(height, width, 5)], lanes=4, post_lanes=2)


@pytest.mark.parametrize(
    "channels, lanes, post_lanes", [(1, 1, 1), (8, 8, 8), (8, 8, 1), (9, 4, 4), (17, 6, 3)]
)
def test_groups(channels, lanes, post_lanes):
    pool([(8, 8, channels)], lanes=lanes, post_lanes=post_lanes)


def test_one_after_the_other():
    """State of one map must not leak into the next one."""
    pool([(8, 8, 6), (3, 5, 6), (8, 8, 6), (1, 1, 2), (4, 4, 6)], lanes=3)


@pytest.mark.parametrize("rate", [0, 1])
def test_empty_and_full(rate):
    pool([(5, 6, 4)], lanes=4, rate=rate)


def test_messages():
    size = dict(max_height=4, max_width=4, max_groups=1, addr_width=5, lanes=4, timesteps=1, post_lanes=4)
    with pytest.raises(ValueError, match=r"^pool max_groups must be a positive integer, not 0$"):
        OrPool(**{**size, "max_groups": 0})
    with pytest.raises(ValueError, match=r"^spike memory post_lanes must divide lanes, but 4 % 3 is 1$"):
        OrPool(**{**size, "post_lanes": 3})


def test_comparison_notices_a_flipped_spike():
    with pytest.raises(AssertionError):
        pool([(4, 4, 4)], lanes=4, rate=0, fault=7)
