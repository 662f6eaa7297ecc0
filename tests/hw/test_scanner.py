"""SpikeScanner: the exact sequence of events, one a cycle, against a walk over the bits in Python."""

import itertools

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component

from s2tdpt.hw.scanner import SpikeScanner, encode, lowest_set, or_tree
from tests.hw.util import evaluate, simulate

LATENCY = 3
"""Cycles from a request to its first event, as documented."""


class Bench(Component):
    """A scanner on a memory whose words hold several slices, of which `read_x` selects one.

    Parameters
    ----------
    words : list of list of int
        Slices of every word, lanes x planes bits each.
    """

    def __init__(self, lanes, planes, words):
        self.words = words
        layout = data.StructLayout({"address": 12, "row": 10, "x": 2, "last": 1})
        self.dut = SpikeScanner(lanes=lanes, planes=planes, request_layout=layout)
        self.size = lanes * planes
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        init = [sum(part << i * self.size for i, part in enumerate(word)) for word in self.words]
        m.submodules.memory = memory = Memory(shape=4 * self.size, depth=len(init), init=init)
        port = memory.read_port()
        selected = Signal(self.size)
        m.d.comb += [
            port.en.eq(dut.read_en),
            port.addr.eq(dut.read_address),
            selected.eq(port.data.word_select(dut.read_x, self.size)),
            dut.read_data.eq(selected),
        ]
        return m


def events_of(word, row, last, lanes, planes):
    """Reference: ``(row, plane, fetch, fire, end)`` of one word; row and plane count only where it fires."""
    spikes = [
        (lane, plane) for lane in range(lanes) for plane in range(planes) if word >> lane * planes + plane & 1
    ]
    if not spikes:
        return [(None, None, 1, 0, last)]
    events, previous = [], None
    for lane, plane in spikes:
        events.append((row + lane, plane, int(lane != previous), 1, 0))
        previous = lane
    events[-1] = (*events[-1][:4], last)
    return events


def scan(words, requests, *, lanes, planes, request_rate=1.0, ready_rate=1.0, seed=0):
    """Run ``(address, row, x, last)`` requests; returns the events and when they were taken."""
    bench = Bench(lanes, planes, words)
    dut = bench.dut
    rng = np.random.default_rng(seed)
    taken, cycles = [], []
    total = sum(len(events_of(words[a][x], r, last, lanes, planes)) for a, r, x, last in requests)

    async def feed(ctx):
        for address, row, x, last in requests:
            while rng.random() >= request_rate:
                await ctx.tick()
            ctx.set(dut.request.payload, {"address": address, "row": row, "x": x, "last": last})
            ctx.set(dut.request.valid, 1)
            while not ctx.get(dut.request.ready):
                await ctx.tick()
            await ctx.tick()
            ctx.set(dut.request.valid, 0)

    async def testbench(ctx):
        cycle, waiting = 0, None
        while len(taken) < total:
            ready = rng.random() < ready_rate
            ctx.set(dut.event.ready, ready)
            _, _, valid, event = await ctx.tick().sample(dut.event.valid, dut.event.payload)
            if waiting is not None:
                assert valid and event == waiting, "an offered event must stay until it is taken"
            waiting = event if valid and not ready else None
            if valid and ready:
                known = (event.row, event.plane) if event.fire else (None, None)
                taken.append((*known, event.fetch, event.fire, event.end))
                cycles.append(cycle)
            cycle += 1
        ctx.set(dut.event.ready, 1)
        for _ in range(4):
            _, _, valid = await ctx.tick().sample(dut.event.valid)
            assert not valid, "an event too many"

    simulate(bench, testbench, deadline=40 * total + 400, background=[feed])
    return taken, cycles


def expected_events(words, requests, lanes, planes):
    return [e for a, r, x, last in requests for e in events_of(words[a][x], r, last, lanes, planes)]


def random_requests(lanes, planes, count, density, seed):
    """Words of the given spike density, some of them empty or full, and requests for them."""
    rng = np.random.default_rng(seed)
    size = lanes * planes

    def word():
        rate = rng.choice([0, density, density, 1])
        return sum(1 << i for i in range(size) if rng.random() < rate)

    words = [[word() for _ in range(4)] for _ in range(count)]
    requests = [
        (int(rng.integers(count)), int(rng.integers(900)), int(rng.integers(4)), int(rng.integers(2)))
        for _ in range(count)
    ]
    return words, requests


@pytest.mark.parametrize("lanes, planes", [(1, 1), (1, 8), (8, 1), (5, 3), (6, 8)])
@pytest.mark.parametrize("request_rate, ready_rate", [(1, 1), (1, 0.4), (0.3, 1), (0.5, 0.5)])
def test_events_and_their_order(lanes, planes, request_rate, ready_rate):
    words, requests = random_requests(lanes, planes, 24, 0.2, seed=lanes + planes)
    taken, _ = scan(
        words, requests, lanes=lanes, planes=planes, request_rate=request_rate, ready_rate=ready_rate, seed=3
    )
    assert taken == expected_events(words, requests, lanes, planes)


def test_all_pairs_of_words():
    """Every word after every other one, at full speed: no state of one word reaches the next."""
    words = [[word] * 4 for word in range(16)]
    requests = [(word, 10, 0, 1) for pair in itertools.product(range(16), repeat=2) for word in pair]
    taken, cycles = scan(words, requests, lanes=2, planes=2)
    assert taken == expected_events(words, requests, 2, 2)
    assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))


@pytest.mark.parametrize("density", [0.02, 0.2, 0.8])
def test_throughput_is_one_spike_a_cycle(density):
    """A word of S spikes takes max(1, S) cycles, without any gap; the first event comes after `LATENCY`."""
    words, requests = random_requests(6, 4, 30, density, seed=1)
    _, cycles = scan(words, requests, lanes=6, planes=4)
    spent = sum(max(1, words[a][x].bit_count()) for a, _, x, _ in requests)
    assert cycles == list(range(LATENCY, LATENCY + spent))


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_one_hot_helpers_on_all_values(width):
    value = Signal(width)
    m = Module()
    lowest, index, union = Signal(width), Signal(8), Signal(width)
    m.d.comb += [
        lowest.eq(lowest_set(value)),
        index.eq(encode(lowest)),
        union.eq(or_tree([value & 1 << i for i in range(width)])),
    ]

    async def testbench(ctx):
        for number in range(1 << width):
            ctx.set(value, number)
            assert ctx.get(lowest) == number & -number
            assert ctx.get(index) == max(0, (number & -number).bit_length() - 1)
            assert ctx.get(union) == number

    evaluate(m, testbench)


@pytest.mark.wide
def test_real_width_and_many_words():
    words, requests = random_requests(64, 8, 400, 0.05, seed=2)
    taken, _ = scan(words, requests, lanes=64, planes=8, ready_rate=0.8)
    assert taken == expected_events(words, requests, 64, 8)


def test_a_lost_spike_would_be_noticed():
    words, requests = random_requests(5, 3, 12, 0.3, seed=7)
    altered = [[part & ~(part & -part) for part in word] for word in words]
    taken, _ = scan(altered, requests, lanes=5, planes=3)
    assert taken != expected_events(words, requests, 5, 3)
