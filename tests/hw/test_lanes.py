"""LaneArray against numpy: any number of banks and steps, positions without a gap, the stated delay."""

from types import SimpleNamespace

import numpy as np
import pytest

from s2tdpt.hw.blocks.lanes import LaneArray, lane_delay
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import WEIGHT_DELAY, Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.util import simulate

WIDTHS = SimpleNamespace(accumulator=20)


def run(program, *, rate=0.7, seed=0, drop=False):
    """Random events; asserts that every position's sums are those of numpy, `delay` after its end.

    drop: plant a lost event into the reference.
    """
    machine, steps, bits = program.machine, program.network.timesteps, program.network.weight_bits
    sizes = Sizes(program)
    dut = LaneArray(program, sizes, WIDTHS)
    rng = np.random.default_rng(seed)
    rows = min(16, 1 << sizes.row)
    low = -(1 << bits - 1)
    weights = rng.integers(low, -low, (machine.banks, rows, machine.lanes))
    weights[:, 0], weights[:, 1] = low, -low - 1  # corner values
    due = {}  # cycle to sums [post_lanes, T] of the piece that is named then
    checked = 0

    async def testbench(ctx):
        nonlocal checked
        sums = np.zeros((machine.lanes, steps), np.int64)
        asked = [(group, bank) for group in range(machine.subgroups) for bank in range(machine.banks)]
        pipe = [[None] * len(asked) for _ in range(WEIGHT_DELAY)]
        wait, arrivals, releases = 0, set(), set()
        shares = weights.reshape(machine.banks, rows, machine.subgroups, machine.post_lanes)
        for cycle in range(300):
            for bank in range(machine.banks):
                fires = rng.random() < rate and cycle < 250
                row = int(rng.integers(rows))
                mask = int(rng.integers(1, 1 << steps)) if fires else 0
                ctx.set(dut.event[bank], {"en": fires, "row": row, "mask": mask})
                if fires and not (drop and cycle == 100 and bank == 0):
                    spikes = np.array([mask >> t & 1 for t in range(steps)])
                    sums += weights[bank, row][:, None] * spikes
            end = cycle < 250 and wait == 0 and rng.random() < 0.4
            final = rng.random() < 0.1
            ctx.set(dut.end, end)
            ctx.set(dut.final, final)
            releases |= {cycle + machine.subgroups - 1} if final else set()
            assert ctx.get(dut.released) == (cycle in releases)
            wait = machine.subgroups - 1 if end else max(0, wait - 1)
            if end:
                arrivals.add(cycle + dut.delay)
                pieces = sums.reshape(machine.subgroups, machine.post_lanes, steps)
                for s in range(machine.subgroups):
                    due[cycle + dut.delay + s] = pieces[s].copy()
                sums[:] = 0
            # Weights as the store gives them: after `WEIGHT_DELAY`, kept where nothing was read.
            for (group, bank), row in zip(asked, pipe.pop(0), strict=True):
                if row is not None:
                    for lane, weight in enumerate(shares[bank, row, group].tolist()):
                        ctx.set(dut.weights[group].data[bank][lane], weight)
            pipe.append(
                [
                    ctx.get(dut.weights[group].row[bank]) if ctx.get(dut.weights[group].en[bank]) else None
                    for group, bank in asked
                ]
            )
            assert ctx.get(dut.arrived) == (cycle in arrivals)
            got = [[ctx.get(dut.sums[p][t]) for t in range(steps)] for p in range(machine.post_lanes)]
            wanted = due.get(cycle - 1, np.zeros((machine.post_lanes, steps), int))
            assert got == wanted.tolist(), cycle
            checked += cycle - 1 in due
            await ctx.tick()

    simulate(dut, testbench, deadline=320)
    assert checked == len(due) > 10


def program_of(banks, lanes, post_lanes, steps, bits=8):
    machine = Machine(lanes=lanes, banks=banks, post_lanes=post_lanes)
    return build_program(network(timesteps=steps, weight_bits=bits), machine, 20)


@pytest.mark.parametrize(
    "banks, lanes, post_lanes, steps, bits",
    [
        (1, 1, 1, 1, 8),
        (1, 3, 1, 2, 4),
        (2, 2, 1, 8, 8),
        (2, 4, 4, 3, 4),
        (3, 3, 3, 5, 8),
        (4, 4, 2, 4, 8),
        (8, 8, 4, 2, 4),
        (16, 16, 16, 1, 8),
    ],
)
def test_sums(banks, lanes, post_lanes, steps, bits):
    run(program_of(banks, lanes, post_lanes, steps, bits), seed=banks)


@pytest.mark.parametrize("rate", [0, 0.1, 1])
def test_density(rate):
    run(program_of(2, 4, 2, 2), rate=rate)


@pytest.mark.parametrize("weight, total", [(-128, -1024), (127, 1016)])
def test_ends_of_the_sum(weight, total):
    """Sums that need every bit of the proven width: 8 events of the lowest and of the highest weight."""
    program = program_of(1, 2, 2, 2)
    dut = LaneArray(program, Sizes(program), SimpleNamespace(accumulator=11))
    found = []

    async def testbench(ctx):
        for lane in range(2):
            ctx.set(dut.weights[0].data[0][lane], weight)
        for event in range(8):
            ctx.set(dut.event[0], {"en": 1, "row": 0, "mask": 3})
            ctx.set(dut.end, event == 7)
            await ctx.tick()
        ctx.set(dut.event[0], {"en": 0, "row": 0, "mask": 0})
        ctx.set(dut.end, 0)
        while not ctx.get(dut.arrived):
            await ctx.tick()
        await ctx.tick()
        found.extend(ctx.get(dut.sums[lane][t]) for lane in range(2) for t in range(2))

    simulate(dut, testbench, deadline=40)
    assert found == [total] * 4


def test_delay():
    """Weights 2, selection 1, tree, accumulation 1; `run` sees the sums exactly then."""
    assert [lane_delay(banks) for banks in (1, 2, 3, 4, 8, 16)] == [5, 5, 5, 5, 6, 6]
    assert LaneArray(program_of(16, 16, 16, 1), Sizes(program_of(16, 16, 16, 1)), WIDTHS).delay == 6


@pytest.mark.wide
@pytest.mark.parametrize("banks", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("steps", range(1, 9))
def test_all_banks_and_steps(banks, steps):
    run(program_of(banks, banks, banks, steps, bits=4 + 4 * (steps % 2)), seed=steps)


def test_a_lost_event_would_be_noticed():
    with pytest.raises(AssertionError):
        run(program_of(2, 4, 2, 2), rate=1, drop=True)
