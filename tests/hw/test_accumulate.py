"""SpikeAccumulator: sums of weight rows a plane, in two banks, against sums in numpy."""

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component

from s2tdpt.hw.accumulate import SpikeAccumulator
from s2tdpt.hw.images import pack_fields
from tests.hw.util import simulate

EVENT_TO_FULL = 4
"""Cycles from the last event of a position to `full`, as documented."""


class Bench(Component):
    """An accumulator with its weight memory; `weights` is int [rows, lanes]."""

    def __init__(self, weights, *, planes, weight_bits, width):
        self.weights, self.bits = weights, weight_bits
        row_bits = max(1, int(len(weights) - 1).bit_length())
        plane_bits = max(1, int(planes - 1).bit_length())
        layout = data.StructLayout({"row": row_bits, "plane": plane_bits, "fetch": 1, "fire": 1, "end": 1})
        self.dut = SpikeAccumulator(
            lanes=weights.shape[1], planes=planes, weight_bits=weight_bits, width=width, event_layout=layout
        )
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        words = [pack_fields(row, self.bits) for row in self.weights]
        m.submodules.memory = memory = Memory(
            shape=self.weights.shape[1] * self.bits, depth=len(words), init=words
        )
        port = memory.read_port()
        m.d.comb += [port.en.eq(dut.weight_en), port.addr.eq(dut.weight_row), dut.weight_data.eq(port.data)]
        return m


def events_of(spikes):
    """Events of one position, spikes [rows, planes]: rows in order, planes of a row together."""
    events = [
        {"row": int(row), "plane": int(plane), "fetch": int(i == 0), "fire": 1, "end": 0}
        for row in range(len(spikes))
        for i, plane in enumerate(np.flatnonzero(spikes[row]))
    ]
    events = events or [{"row": 0, "plane": 0, "fetch": 1, "fire": 0, "end": 0}]
    events[-1]["end"] = 1
    return events


def accumulate(
    weights, positions, *, width, weight_bits=8, event_rate=1.0, drain_rate=1.0, drain_delay=0, seed=0
):
    """Accumulate `positions` (spikes [rows, planes] each); returns the cycles of the events taken.

    The sums are drained plane by plane and compared; the number of accumulates is that of the spikes.
    """
    planes = positions[0].shape[1]
    bench = Bench(weights, planes=planes, weight_bits=weight_bits, width=width)
    dut = bench.dut
    lanes = weights.shape[1]
    rng = np.random.default_rng(seed)
    taken, fullness, fired = [], [], []

    async def feed(ctx):
        cycle = 0
        for spikes in positions:
            for event in events_of(spikes):
                while rng.random() >= event_rate:
                    await ctx.tick()
                    cycle += 1
                ctx.set(dut.event.payload, event)
                ctx.set(dut.event.valid, 1)
                while True:
                    _, _, ready = await ctx.tick().sample(dut.event.ready)
                    cycle += 1
                    if ready:
                        break
                taken.append(cycle - 1)
                ctx.set(dut.event.valid, 0)

    async def count(ctx):
        while True:
            _, _, one, full = await ctx.tick().sample(dut.fired, dut.full)
            fired.append(one)
            fullness.append(full)

    async def testbench(ctx):
        for number, spikes in enumerate(positions):
            while not ctx.get(dut.full):
                await ctx.tick()
            for _ in range(drain_delay):
                await ctx.tick()
            expected = spikes.T.astype(np.int64) @ weights.astype(np.int64)
            order = rng.permutation(planes)
            for i, plane in enumerate(order):
                while rng.random() >= drain_rate:
                    await ctx.tick()
                ctx.set(dut.plane, int(plane))
                ctx.set(dut.release, int(i == planes - 1))
                await ctx.tick()
                ctx.set(dut.release, 0)
                sums = ctx.get(dut.sums) if ctx.get(dut.touched) else 0
                for lane in range(lanes):
                    value = sums >> lane * width & (1 << width) - 1
                    value -= (value >> width - 1) << width
                    assert value == expected[plane, lane], f"position {number}, plane {plane}, lane {lane}"
        for _ in range(EVENT_TO_FULL + 1):
            await ctx.tick()
        assert not ctx.get(dut.full)

    events = sum(len(events_of(s)) for s in positions)
    deadline = 60 * (events + len(positions) * (planes + drain_delay)) + 200
    simulate(bench, testbench, deadline=deadline, background=[feed, count])
    assert sum(fired) == sum(int(s.sum()) for s in positions)
    return taken, fullness


def random_positions(rows, planes, count, seed):
    """Positions of different density: silent, sparse, full, and with planes that no spike touches."""
    rng = np.random.default_rng(seed)
    positions = []
    for _ in range(count):
        spikes = rng.random((rows, planes)) < rng.choice([0, 0.1, 0.4, 1])
        spikes[:, rng.random(planes) < 0.3] = False
        positions.append(spikes.astype(np.uint8))
    return positions


@pytest.mark.parametrize("planes", [1, 3, 8])
@pytest.mark.parametrize(
    "event_rate, drain_rate, drain_delay", [(1, 1, 0), (0.4, 1, 0), (1, 0.3, 25), (0.5, 0.5, 3)]
)
def test_sums_of_random_positions(planes, event_rate, drain_rate, drain_delay):
    weights = np.random.default_rng(planes).integers(-127, 128, (7, 3))
    accumulate(
        weights,
        random_positions(7, planes, 20, planes),
        width=12,
        event_rate=event_rate,
        drain_rate=drain_rate,
        drain_delay=drain_delay,
        seed=1,
    )


@pytest.mark.parametrize("weight_bits, extreme", [(8, 127), (8, -127), (4, 7), (4, -7)])
def test_proven_width_holds_the_largest_sums(weight_bits, extreme):
    """The width is just enough for all weights at one end, and no bit wider."""
    rows = 9
    total = rows * extreme
    width = next(bits for bits in range(1, 32) if -(1 << bits - 1) <= total < 1 << bits - 1)
    weights = np.full((rows, 2), extreme)
    full = np.ones((rows, 2), np.uint8)
    accumulate(weights, [full, full], width=width, weight_bits=weight_bits)
    with pytest.raises(AssertionError):
        accumulate(weights, [full], width=width - 1, weight_bits=weight_bits)


def test_untouched_planes_read_zero():
    """A bank is never cleared: what an earlier position left in it must not show."""
    weights = np.arange(1, 9).reshape(4, 2)
    full, silent = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    single = silent.copy()
    single[2, 1] = 1
    accumulate(weights, [full, full, silent, single, single, silent, full, silent], width=8)


def test_one_event_a_cycle():
    """Positions longer than their drain follow each other without a gap; `full` is on time."""
    weights = np.ones((6, 2), np.int64)
    positions = [np.ones((6, 2), np.uint8)] * 5
    taken, fullness = accumulate(weights, positions, width=5)
    assert taken == list(range(60))
    assert fullness.index(1) == 11 + EVENT_TO_FULL


def test_third_position_waits_for_a_bank():
    """Two positions fit; the first event of the third is taken once the first is released, not earlier."""
    weights = np.ones((1, 1), np.int64)
    positions = [np.ones((1, 2), np.uint8)] * 4
    taken, fullness = accumulate(weights, positions, width=3, drain_delay=20)
    assert taken[:4] == [0, 1, 2, 3]
    first_full = fullness.index(1)
    released = first_full + 20 + 1  # two planes, the second with `release`
    assert taken[4] == released + 1


def test_comparison_notices_one_wrong_weight():
    weights = np.arange(8).reshape(4, 2)

    class Altered(Bench):
        def __init__(self, altered, **sizes):
            altered = altered.copy()
            altered[3, 1] += 1
            super().__init__(altered, **sizes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "Bench", Altered)
        with pytest.raises(AssertionError, match="position 0, plane [01], lane 1"):
            accumulate(weights, [np.ones((4, 2), np.uint8)], width=8)
