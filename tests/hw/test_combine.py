"""PlaneCombiner: passes of T bit planes against products of whole numbers."""

import numpy as np
import pytest

from s2tdpt.golden.arith import signed_bits
from s2tdpt.hw.blocks.combine import PlaneCombiner
from tests.hw.pieces import GAPS, run_pieces


def fitting(weights, numbers, planes, passes):
    """Exactly the widths that the plane sums and the totals after every pass need."""
    low, high = weights.clip(max=0).sum(axis=2).min(), weights.clip(min=0).sum(axis=2).max()
    totals = [weights @ (numbers >> planes * p) for p in range(passes)]
    ends = min(0, *(int(t.min()) for t in totals)), max(0, *(int(t.max()) for t in totals))
    return signed_bits(int(low), int(high)), signed_bits(*ends)


def combine(weights, numbers, *, planes, passes, signed, gap="back to back", order=None, negate=True):
    """``weights @ numbers`` from bit planes, every total checked on the way.

    Parameters
    ----------
    weights : int [subgroups, lanes, channels]
    numbers : int [channels]
        Within passes x planes bits, two's complement if `signed`.
    order : list of int, optional
        Subgroups in order of their passes; by default all of them pass by pass.
    """
    subgroups, lanes, _ = weights.shape
    sum_width, width = fitting(weights, numbers, planes, passes)
    dut = PlaneCombiner(lanes=lanes, planes=planes, subgroups=subgroups, sum_width=sum_width, width=width)
    assert dut.delay == max(1, int(np.ceil(np.log2(planes)))) + 1
    done = [0] * subgroups
    pieces = []
    for g in order or list(range(subgroups)) * passes:
        top = (passes - done[g]) * planes - 1
        sums = np.stack([weights[g] @ (numbers >> (top - t) & 1) for t in range(planes)], axis=1)
        total = weights[g] @ (numbers >> (top - planes + 1))
        pieces.append((g, done[g] == 0, sums.tolist(), total.tolist()))
        done[g] = (done[g] + 1) % passes

    def drive(ctx, piece):
        g, first, sums, _ = piece
        ctx.set(dut.en, 1)
        ctx.set(dut.first, first)
        ctx.set(dut.negate, first and signed and negate)
        ctx.set(dut.subgroup, g)
        ctx.set(dut.sums, sums)

    def idle(ctx, rng):
        ctx.set(dut.en, 0)
        ctx.set(dut.first, int(rng.integers(2)))
        ctx.set(dut.negate, int(rng.integers(2)))
        ctx.set(dut.subgroup, int(rng.integers(subgroups)))
        ctx.set(dut.sums, rng.integers(-1, 1, (lanes, planes)).tolist())

    def check(ctx, piece):
        total = ctx.get(dut.total)
        assert [total[lane] for lane in range(lanes)] == piece[3], piece

    run_pieces(dut, pieces, drive=drive, idle=idle, check=check, gap=gap, seed=len(pieces))


def case(seed, *, subgroups, lanes, bits, signed, channels=5):
    rng = np.random.default_rng(seed)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    return rng.integers(-127, 128, (subgroups, lanes, channels)), rng.integers(low, high, channels)


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("planes, passes", [(1, 8), (2, 4), (3, 3), (4, 7), (5, 2), (8, 1)])
@pytest.mark.parametrize("subgroups", [1, 3])
def test_equals_the_product(subgroups, planes, passes, signed, gap):
    weights, numbers = case(planes, subgroups=subgroups, lanes=2, bits=planes * passes, signed=signed)
    combine(weights, numbers, planes=planes, passes=passes, signed=signed, gap=gap)


@pytest.mark.parametrize("subgroups", [1, 2, 4])
def test_any_order_of_subgroups(subgroups):
    """Passes of a subgroup may follow each other at once, and numbers each other."""
    weights, numbers = case(9, subgroups=subgroups, lanes=2, bits=8, signed=True)
    order = np.random.default_rng(subgroups).integers(0, subgroups, 60).tolist()
    combine(weights, numbers, planes=4, passes=2, signed=True, order=order)


@pytest.mark.parametrize("number", [-128, -1, 0, 1, 127])
@pytest.mark.parametrize("weight", [-127, -1, 0, 127])
@pytest.mark.parametrize("planes", [1, 2, 4, 8])
def test_corners_of_signed_bytes(planes, weight, number):
    weights, numbers = np.full((1, 1, 3), weight), np.full(3, number)
    combine(weights, numbers, planes=planes, passes=8 // planes, signed=True)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255])
def test_corners_of_unsigned_bytes(number):
    weights = np.array([[[127, 127], [-127, -127]]])
    combine(weights, np.full(2, number), planes=4, passes=2, signed=False)


def test_lowest_sum_on_the_sign_plane():
    """-(-2^(w-1)) needs a bit more than the sum itself."""
    weights = np.array([[[-8]]])
    combine(weights, np.array([-8]), planes=4, passes=1, signed=True)


def test_messages():
    sizes = dict(lanes=2, planes=4, subgroups=1, sum_width=8, width=16)
    for name in sizes:
        with pytest.raises(ValueError, match=rf"^combiner {name} must be a positive integer, not 0$"):
            PlaneCombiner(**{**sizes, name: 0})


def test_comparison_notices_a_missing_sign():
    weights, numbers = case(3, subgroups=1, lanes=2, bits=8, signed=True)
    with pytest.raises(AssertionError):
        combine(weights, numbers, planes=4, passes=2, signed=True, negate=False)
