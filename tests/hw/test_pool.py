"""OrPool against `golden.pool`: even, odd and tiny maps, one after the other, with and without pauses."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.pool import or_pool
from s2tdpt.hw.blocks.pool import OrPool
from tests.hw.pieces import GAPS, run_pieces

BITS = 5


def pool(maps, *, subgroups, min_width=1, gap="back to back", rate=0.15, fault=None):
    """Pools maps ``[(height, width, subgroups in use), ...]`` one after the other on one instance.

    Every cycle is checked: a pooled piece where one is due, none elsewhere. `fault`: a spike of that piece is
    inverted on the way in.
    """
    rng = np.random.default_rng(len(maps) + subgroups)
    widest = max(width for _, width, _ in maps)
    dut = OrPool(piece_bits=BITS, subgroups=subgroups, max_width=widest, min_width=min_width)
    assert dut.delay == 2
    pieces = []
    for height, width, used in maps:
        spikes = (rng.random((1, height, width, used * BITS)) < rate).astype(np.uint8)
        pooled = or_pool(torch.from_numpy(spikes).float()).numpy().astype(int)[0]
        weight = 1 << np.arange(BITS)
        words = spikes[0].reshape(height, width, used, BITS) @ weight
        expected = pooled.reshape(*pooled.shape[:2], used, BITS) @ weight
        for y in range(height):
            for x in range(width):
                for g in range(used):
                    last_x, last_y = x == width - 1, y == height - 1
                    due = (x % 2 or last_x) and (y % 2 or last_y)
                    fields = dict(
                        en=1,
                        subgroup=g,
                        column=x // 2,
                        odd_x=x % 2,
                        last_x=last_x,
                        first_y=y == 0,
                        odd_y=y % 2,
                        last_y=last_y,
                        spikes=int(words[y, x, g]) ^ (len(pieces) == fault),
                    )
                    pieces.append((fields, int(expected[y // 2, x // 2, g]) if due else None))

    def drive(ctx, piece):
        for name, value in piece[0].items():
            ctx.set(getattr(dut, name), value)

    def idle(ctx, rng):
        for name in ("odd_x", "last_x", "first_y", "odd_y", "last_y"):
            ctx.set(getattr(dut, name), int(rng.integers(2)))
        ctx.set(dut.en, 0)
        ctx.set(dut.subgroup, int(rng.integers(subgroups)))
        ctx.set(dut.column, int(rng.integers((widest + 1) // 2)))
        ctx.set(dut.spikes, int(rng.integers(1 << BITS)))

    def check(ctx, piece):
        assert ctx.get(dut.out_en) == (piece[1] is not None), piece
        if piece[1] is not None:
            assert ctx.get(dut.out) == piece[1], piece

    run_pieces(dut, pieces, drive=drive, idle=idle, check=check, gap=gap, seed=subgroups)


@pytest.mark.parametrize("height", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("width", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("subgroups, used", [(1, 1), (3, 3)])
def test_sizes(height, width, subgroups, used):
    pool([(height, width, used)], subgroups=subgroups, min_width=min(width, 2))


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("subgroups", [1, 2, 3, 4])
def test_one_after_the_other(subgroups, gap):
    """State of one map must not leak into the next one, nor that of a subgroup that is not in every map."""
    maps = [(8, 8, subgroups), (3, 5, 1), (8, 7, subgroups), (1, 1, 1), (5, 1, 1), (4, 4, subgroups)]
    pool(maps, subgroups=subgroups, gap=gap)


@pytest.mark.parametrize("gap", GAPS)
def test_without_the_bypass(gap):
    """Two columns and one piece are the fastest that a place of the row buffer can come back."""
    pool([(7, 2, 1), (6, 3, 1), (4, 2, 2)], subgroups=2, min_width=2, gap=gap)
    pool([(7, 2, 1), (6, 3, 1), (2, 2, 1)], subgroups=1, min_width=2, gap=gap)


def test_one_column_needs_the_bypass():
    with pytest.raises(AssertionError):
        pool([(9, 1, 1), (1, 2, 1)], subgroups=1, min_width=2, rate=0.3)


@pytest.mark.parametrize("rate", [0, 1])
def test_empty_and_full(rate):
    pool([(5, 6, 2)], subgroups=2, rate=rate)


def test_messages():
    sizes = dict(piece_bits=4, subgroups=2, max_width=4, min_width=2)
    for name in sizes:
        with pytest.raises(ValueError, match=rf"^pool {name} must be a positive integer, not 0$"):
            OrPool(**{**sizes, name: 0})
    with pytest.raises(ValueError, match=r"^pool min_width must be at most max_width 4, not 5$"):
        OrPool(**{**sizes, "min_width": 5})


def test_comparison_notices_a_flipped_spike():
    with pytest.raises(AssertionError):
        pool([(4, 4, 1)], subgroups=1, rate=0, fault=7)
