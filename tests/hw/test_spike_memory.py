"""SpikeMemory against a plain list: pieces, cleared ends, when a write can be read."""

import numpy as np
import pytest

from s2tdpt.hw.blocks.spike_memory import SpikeMemory
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.util import simulate

WRITE = 2
"""Cycles from a write until it can be read; a read takes one."""


@pytest.mark.parametrize("lanes, post_lanes", [(4, 2), (6, 1), (4, 4), (1, 1)])
def test_random_writes_and_reads(lanes, post_lanes):
    program = build_program(network(timesteps=3), Machine(lanes=lanes, banks=1, post_lanes=post_lanes), 16)
    dut = SpikeMemory(program, Sizes(program))
    rng = np.random.default_rng(lanes)
    depth, bits, subgroups = program.spike_words, program.piece_bits, lanes // post_lanes
    pieces = [[0] * subgroups for _ in range(depth)]
    pending = []  # (cycle from which it can be read, address, subgroup, final, spikes)

    async def testbench(ctx):
        expected = None
        for cycle in range(1500):
            for port in (dut.layers, dut.attention):
                ctx.set(port.en, 0)
                ctx.set(port.address, int(rng.integers(depth)))
                ctx.set(port.final, int(rng.integers(2)))
                ctx.set(port.spikes, int(rng.integers(1 << bits)))
            if rng.random() < 0.7:
                port = (dut.layers, dut.attention)[rng.integers(2)]
                write = (
                    int(rng.integers(depth)),
                    int(rng.integers(subgroups)),
                    int(rng.random() < 0.3),
                    int(rng.integers(1 << bits)),
                )
                ctx.set(port.en, 1)
                for name, value in zip(("address", "subgroup", "final", "spikes"), write, strict=True):
                    ctx.set(getattr(port, name), value)
                pending.append((cycle + WRITE, *write))
            while pending and pending[0][0] <= cycle:
                _, address, subgroup, final, spikes = pending.pop(0)
                pieces[address][subgroup] = spikes
                if final:
                    pieces[address][subgroup + 1 :] = [0] * (subgroups - 1 - subgroup)
            # A word that is being written is not read: steps wait for complete maps.
            busy = {entry[1] for entry in pending}
            free = [address for address in range(depth) if address not in busy]
            address = free[rng.integers(len(free))]
            reads = rng.random() < 0.8
            ctx.set(dut.read.en, reads)
            ctx.set(dut.read.address, address if reads else int(rng.integers(depth)))
            if reads:
                expected = sum(piece << i * bits for i, piece in enumerate(pieces[address]))
            await ctx.tick()
            if expected is not None:
                assert ctx.get(dut.read.data) == expected, cycle

    simulate(dut, testbench, deadline=1600)
