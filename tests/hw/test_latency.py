"""RateToLatency against the golden popcount: widths of pieces, heads in one tile or several, any spacing."""

import random
from itertools import accumulate

import numpy as np
import pytest
import torch
from amaranth import Signal

from s2tdpt.golden.latency import popcount as golden_popcount
from s2tdpt.hw.attention.latency import RateToLatency, popcount, straddles
from s2tdpt.hw.plan.records import Sizes
from tests.hw.attention_bench import deliver, program_for, spikes
from tests.hw.util import simulate

DELAY = 3


def expected(map_, program):
    """What is written for each piece of a map ``[T, N, D]``: ``{(token, piece): counts so far}``."""
    packing, post = program.head_packing, program.machine.post_lanes
    parts = packing.head_slots // post
    wide = torch.from_numpy(packing.spread(map_)).long()
    pieces = program.network.heads * parts
    counts = golden_popcount(wide[..., : pieces * post].unflatten(-1, (pieces, -1)))  # [T, N, pieces]
    sofar = {}
    for token in range(program.network.tokens):
        for head in range(program.network.heads):
            own = counts[:, token, head * parts : (head + 1) * parts].tolist()
            for t, row in enumerate(own):
                for part, count in enumerate(accumulate(row)):
                    sofar.setdefault((token, head * parts + part), []).append(count)
                    assert len(sofar[token, head * parts + part]) == t + 1
    return sofar


def check(program, *, gap=0.0, seed=0, rate=0.4):
    dut = RateToLatency(program, Sizes(program))
    net = program.network
    parts = program.head_packing.head_slots // program.machine.post_lanes
    width = max(1, net.head_dim.bit_length())
    maps = spikes(seed, program, q=rate, k=rate, v=rate)
    counts = [expected(map_, program) for map_ in maps]
    rng = random.Random(seed)
    sent, got = {}, {}

    async def testbench(ctx):
        pieces = [piece for piece, _ in deliver(program, maps).pieces]
        cycle = idle = 0
        while idle <= DELAY:
            piece = pieces.pop(0) if pieces and rng.random() >= gap else None
            idle = 0 if pieces or piece else idle + 1
            ctx.set(dut.projections.en, piece is not None)
            for member, value in (
                (dut.projections.projection, piece.projection if piece else rng.getrandbits(2)),
                (dut.projections.token, piece.token if piece else rng.randrange(net.tokens)),
                (dut.projections.piece, piece.piece if piece else rng.randrange(net.heads * parts)),
                (dut.projections.spikes, piece.spikes if piece else rng.getrandbits(program.piece_bits)),
            ):
                ctx.set(member, value)
            if piece:
                sent[cycle + DELAY] = piece
            if ctx.get(dut.write.en):
                word = ctx.get(dut.write.counts)
                got[cycle] = (
                    ctx.get(dut.write.projection),
                    ctx.get(dut.write.address),
                    ctx.get(dut.write.part),
                    ctx.get(dut.write.closes),
                    ctx.get(dut.write.spikes),
                    [word >> t * width & (1 << width) - 1 for t in range(net.timesteps)],
                )
            await ctx.tick()
            cycle += 1

    simulate(dut, testbench, deadline=10_000)
    assert got == {
        cycle: (
            piece.projection,
            piece.piece // parts * net.tokens + piece.token,
            piece.piece % parts,
            int(piece.piece % parts == parts - 1),
            piece.spikes,
            counts[piece.projection][piece.token, piece.piece],
        )
        for cycle, piece in sent.items()
    }
    return dut


@pytest.mark.parametrize(
    "head_dim, heads, lanes, post_lanes, crosses",
    [
        (1, 1, 1, 1, False),
        (3, 2, 3, 3, False),
        (5, 3, 10, 5, False),  # two heads a tile
        (8, 2, 4, 4, True),  # a head in two tiles of one piece
        (8, 2, 4, 2, True),
        (7, 3, 12, 4, True),  # 8 slots a head, every second one straddles
        (9, 3, 6, 3, True),
        (32, 3, 48, 8, True),
        (48, 1, 48, 48, False),
        (33, 2, 64, 16, True),
    ],
)
@pytest.mark.parametrize("gap", [0, 0.5])
def test_counts_of_every_piece(head_dim, heads, lanes, post_lanes, crosses, gap):
    size = dict(head_dim=head_dim, heads=heads, lanes=lanes, post_lanes=post_lanes)
    for steps, tokens in ((1, 1), (3, 2), (4, 5)):
        program = program_for(**size, steps=steps, tokens=tokens)
        check(program, gap=gap, seed=steps)
        assert straddles(program) == crosses


@pytest.mark.parametrize("rate", [0, 1])
def test_no_spike_and_every_spike(rate):
    program = program_for(head_dim=9, heads=2, lanes=12, post_lanes=3, steps=2, tokens=3)
    check(program, rate=rate)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 13])
def test_popcount_is_no_wider_than_its_sum(width):
    total = popcount(Signal(width))
    assert len(total) <= width.bit_length() + 1


def test_comparison_notices_a_missing_spike():
    program = program_for(head_dim=6, heads=1, lanes=6, post_lanes=3, steps=2, tokens=2)
    maps = spikes(0, program, q=1)
    broken = maps[0].copy()
    broken[1, 1, 4] = 0
    assert expected(broken, program) != expected(maps[0], program)
    assert np.abs(broken.astype(int) - maps[0]).sum() == 1
