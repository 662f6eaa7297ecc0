"""Queues, scanners and the end of a position against plain lists of events, at any pace of the slices."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring

from s2tdpt.hw.blocks.scanner import BankScanner, PositionEnd, SliceQueue, or_tree
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import Sizes, final_cooldown
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.util import evaluate, simulate


def program_of(banks, channels, queue=4, steps=3):
    machine = Machine(lanes=banks * channels, banks=banks, post_lanes=1, queue=queue)
    return build_program(network(timesteps=steps), machine, 20)


class Banks(wiring.Component):
    """A queue and a scanner for every bank; `end` is registered as the events are."""

    def __init__(self, program):
        sizes, machine = Sizes(program), program.machine
        self.scanners = [BankScanner(program, sizes) for _ in range(machine.banks)]
        layout = self.scanners[0].head.shape()
        self.queues = [SliceQueue(layout, machine.queue) for _ in range(machine.banks)]
        self.position_end = PositionEnd(sizes, machine.banks)
        self.end, self.final = Signal(), Signal()
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.position_end = position_end = self.position_end
        for bank, (queue, scanner) in enumerate(zip(self.queues, self.scanners, strict=True)):
            m.submodules[f"queue_{bank}"], m.submodules[f"scanner_{bank}"] = queue, scanner
            m.d.comb += [
                queue.pop.eq(scanner.pop),
                scanner.valid.eq(queue.valid),
                scanner.head.eq(queue.head),
                scanner.end.eq(position_end.end),
                position_end.at_end[bank].eq(scanner.at_end),
            ]
        m.d.comb += position_end.mark.eq(self.scanners[0].mark)
        m.d.sync += [self.end.eq(position_end.end), self.final.eq(position_end.final)]
        return m


def random_positions(rng, banks, channels, steps, count, cooldown):
    """For every position: (cooldown, final, slices of each bank as (row, masks))."""
    found = []
    for number in range(count):
        own = []
        for _ in range(banks):
            rates = rng.choice([0, 0.2, 0.6, 1], rng.integers(1, 4))
            slices = [
                (int(rng.integers(20)), (rng.random(channels) < rate) * rng.integers(1, 1 << steps, channels))
                for rate in rates
            ]
            # A slice without a spike is in the queue only if it ends its position.
            own.append([s for s in slices[:-1] if s[1].any()] + slices[-1:])
        found.append((int(rng.integers(cooldown + 1)), number % 3 == 2, own))
    return found


def scan(program, positions, rate, seed=0):
    """Events of every bank by positions, and the cycles in which positions end (at the scanners)."""
    dut, rng = Banks(program), np.random.default_rng(seed)
    machine = program.machine
    waiting = [
        [
            (row, masks, last, cooldown, final)
            for cooldown, final, banks in positions
            for i, (row, masks) in enumerate(banks[bank])
            for last in [i == len(banks[bank]) - 1]
        ]
        for bank in range(machine.banks)
    ]
    total = sum(len(slices) for slices in waiting)
    events = [[[]] for _ in range(machine.banks)]
    ends, finals = [], []

    async def testbench(ctx):
        level, cycle = [0] * machine.banks, 0
        while len(ends) < len(positions):
            for bank, queue in enumerate(dut.queues):
                pushes = bool(waiting[bank]) and level[bank] < machine.queue and rng.random() < rate
                ctx.set(queue.push, pushes)
                if pushes:
                    row, masks, last, cooldown, final = waiting[bank].pop(0)
                    active = sum(int(bool(mask)) << i for i, mask in enumerate(masks))
                    mark = {"last": last, "final": final and last, "cooldown": cooldown}
                    entry = {"masks": masks.tolist(), "active": active, "row": row, "mark": mark}
                    ctx.set(queue.data, entry)
                level[bank] += pushes - ctx.get(queue.pop)
            for bank, scanner in enumerate(dut.scanners):
                if ctx.get(scanner.event.en):
                    events[bank][-1].append((ctx.get(scanner.event.row), ctx.get(scanner.event.mask)))
                else:
                    assert ctx.get(scanner.event.mask) == 0
            if ctx.get(dut.end):
                ends.append(cycle - 1)
                finals.append(ctx.get(dut.final))
                for own in events:
                    own.append([])
            await ctx.tick()
            cycle += 1

    cooldowns = sum(position[0] + 1 for position in positions)
    channels = machine.slice_channels
    simulate(dut, testbench, deadline=int((total * (channels + 2) + cooldowns) / rate) + 100)
    assert all(own.pop() == [] for own in events)
    return events, ends, finals


def expected(positions, bank):
    """Events of a bank: rows of the channels that spike, lowest first."""
    return [
        [(row + i, int(mask)) for row, masks in banks[bank] for i, mask in enumerate(masks) if mask]
        for _, _, banks in positions
    ]


@pytest.mark.parametrize("banks, channels, steps", [(1, 1, 1), (1, 6, 3), (3, 5, 2), (4, 1, 8), (2, 16, 4)])
@pytest.mark.parametrize("rate, queue", [(1, 2), (0.3, 4), (0.7, 16)])
def test_events_of_every_bank(banks, channels, steps, rate, queue):
    """Every event, in order, in the position to which it belongs; ends wait for the drain."""
    program = program_of(banks, channels, queue, steps)
    rng = np.random.default_rng(banks + channels)
    positions = random_positions(rng, banks, channels, steps, 40, final_cooldown(program))
    events, ends, finals = scan(program, positions, rate, seed=queue)
    for bank in range(banks):
        assert events[bank] == expected(positions, bank)
    assert finals == [int(final) for _, final, _ in positions]
    for before, after, (cooldown, _, _) in zip(ends, ends[1:], positions, strict=False):
        assert after - before > cooldown


def test_a_slice_takes_a_cycle_a_channel_without_a_gap():
    """1 cycle through the queue, 1 into the scanner; then max(1, S) for a slice of S active channels."""
    program = program_of(1, 6, queue=16)
    rng = np.random.default_rng(1)
    positions = random_positions(rng, 1, 6, 3, 40, 0)
    _, ends, _ = scan(program, positions, 1)
    spent = [sum(max(1, int((masks > 0).sum())) for _, masks in banks[0]) for _, _, banks in positions]
    assert ends == (1 + np.cumsum(spent)).tolist()


def test_positions_end_together():
    """The bank with most to do sets the pace, however far the other one could go."""
    program = program_of(2, 4, queue=8)
    full, single = np.array([1, 2, 3, 4]), np.array([0, 0, 5, 0])
    positions = [(0, False, [[(0, full), (4, full)], [(0, single)]]) for _ in range(10)]
    _, ends, _ = scan(program, positions, 1)
    assert np.diff(ends).tolist() == [8] * 9


def test_a_cooldown_is_kept_to_the_cycle():
    program = program_of(1, 2, queue=4)
    positions = [(cooldown, False, [[(0, np.array([1, 0]))]]) for cooldown in (0, 1, 2, 4, 0, 0)]
    _, ends, _ = scan(program, positions, 1)
    assert np.diff(ends).tolist() == [1, 2, 3, 5, 1]


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_or_tree_on_all_values(width):
    value, union = Signal(width), Signal(width)
    m = Module()
    m.d.comb += union.eq(or_tree([value & 1 << i for i in range(width)]))

    async def testbench(ctx):
        for number in range(1 << width):
            ctx.set(value, number)
            assert ctx.get(union) == number

    evaluate(m, testbench)


def test_a_lost_spike_would_be_noticed():
    program = program_of(2, 3)
    positions = random_positions(np.random.default_rng(7), 2, 3, 3, 10, 0)
    events, _, _ = scan(program, positions, 1)
    altered = next(own for own in events[1] if own)
    altered[0] = (altered[0][0], altered[0][1] ^ 1)
    assert events[1] != expected(positions, 1)
