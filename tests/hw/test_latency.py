"""RateToLatency against the golden popcount: all inputs of small heads, corners and samples of wide ones."""

import random

import pytest
import torch

from s2tdpt.golden.latency import popcount
from s2tdpt.hw.latency import RateToLatency
from tests.hw.util import evaluate


def check(dut, values):
    head_dim = dut.head_dim
    spikes = torch.tensor([[value >> i & 1 for i in range(head_dim)] for value in values])
    ranks = popcount(spikes, 1)[:, 0].tolist()

    async def testbench(ctx):
        for value, rank in zip(values, ranks, strict=True):
            ctx.set(dut.spikes, value)
            assert ctx.get(dut.rank) == rank
            assert ctx.get(dut.latency) == head_dim - rank

    evaluate(dut, testbench)


@pytest.mark.parametrize("head_dim", range(1, 10))
def test_all_values(head_dim):
    check(RateToLatency(head_dim), range(1 << head_dim))


@pytest.mark.parametrize("head_dim", [15, 16, 24, 31, 32, 33, 48, 64, 65])
def test_wide(head_dim):
    rng = random.Random(head_dim)
    full = (1 << head_dim) - 1
    corners = [0, full, *(1 << i for i in range(head_dim)), *(full ^ 1 << i for i in range(head_dim))]
    check(RateToLatency(head_dim), corners + [rng.getrandbits(head_dim) for _ in range(100)])


def test_message():
    with pytest.raises(ValueError, match=r"^head_dim must be a positive integer, not 0$"):
        RateToLatency(0)
