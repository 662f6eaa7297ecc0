"""AxiLiteEnd against a list of words, under every stall pattern: latency, throughput, responses."""

import random

import pytest

from s2tdpt.hw.bus.axi_lite import AxiLiteEnd
from s2tdpt.sim.stalls import PATTERNS
from tests.hw.test_link import pauses
from tests.hw.util import simulate, state_of

ADDRESS_BITS = 5
WORDS = 6
"""Words behind the bus; the two addresses behind them are faults."""


def memory(dut, words, events):
    """What the end writes to and reads from, and the cycles in which it does."""

    async def serve(ctx):
        cycle = 0
        while True:
            address = ctx.get(dut.read.address)
            ctx.set(dut.read.data, words[address] if address < WORDS else 0xDEAD)
            ctx.set(dut.read.fault, address >= WORDS)
            ctx.set(dut.write.fault, ctx.get(dut.write.address) >= WORDS)
            for name in ("read", "write"):
                if ctx.get(getattr(dut, name).en):
                    events.append((name, cycle))
            if ctx.get(dut.write.en) and ctx.get(dut.write.address) < WORDS:
                mask = sum(0xFF << 8 * byte for byte in range(4) if ctx.get(dut.write.strobe) >> byte & 1)
                address, data = ctx.get(dut.write.address), ctx.get(dut.write.data)
                words[address] = words[address] & ~mask | data & mask
            await ctx.tick()
            cycle += 1

    return serve


async def send(ctx, valid, ready, fields, willing):
    """One transfer of a channel of the master's."""
    while not next(willing):
        await ctx.tick()
    for signal, value in fields:
        ctx.set(signal, value)
    ctx.set(valid, 1)
    taken = 0
    while not taken:
        *_, taken = await ctx.tick().sample(ready)
    ctx.set(valid, 0)


async def receive(ctx, valid, ready, signals, willing):
    """One transfer of a channel of the slave's: its fields."""
    while True:
        ctx.set(ready, next(willing))
        *_, is_valid, is_ready = (values := await ctx.tick().sample(*signals, valid, ready))
        if is_valid and is_ready:
            ctx.set(ready, 0)
            return values[2:-2]


def transfers(seed, count):
    """(word, byte within it, data, strobe)."""
    rng = random.Random(seed)
    return [
        (rng.randrange(8), rng.randrange(4), rng.getrandbits(32), rng.getrandbits(4)) for _ in range(count)
    ]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_transfer_is_answered_once_in_order(pattern):
    dut, count = AxiLiteEnd(ADDRESS_BITS), 60
    bus, words, events = dut.bus, [0] * WORDS, []
    writes = transfers(1, count)
    model, expected = [0] * WORDS, []
    for word, _, data, strobe in writes:
        mask = sum(0xFF << 8 * byte for byte in range(4) if strobe >> byte & 1)
        if word < WORDS:
            model[word] = model[word] & ~mask | data & mask
        expected.append((2 if word >= WORDS else 0,))
    answers, read = [], []

    async def addresses(ctx):
        willing = pauses(pattern, 1)
        for word, byte, _, _ in writes:
            await send(ctx, bus.awvalid, bus.awready, [(bus.awaddr, 4 * word + byte)], willing)

    async def data(ctx):
        willing = pauses(pattern, 2)
        for _, _, value, strobe in writes:
            await send(ctx, bus.wvalid, bus.wready, [(bus.wdata, value), (bus.wstrb, strobe)], willing)

    async def responses(ctx):
        willing = pauses(pattern, 3)
        for _ in writes:
            answers.append(tuple(await receive(ctx, bus.bvalid, bus.bready, [bus.bresp], willing)))
        done.append(True)

    async def reads(ctx):
        while not done:
            await ctx.tick()
        for word in range(8):
            await send(ctx, bus.arvalid, bus.arready, [(bus.araddr, 4 * word + 3)], pauses(pattern, 4))
            got = await receive(ctx, bus.rvalid, bus.rready, [bus.rdata, bus.rresp], pauses(pattern, 5))
            read.append(tuple(got))

    done = []
    background = [memory(dut, words, events), addresses, data, responses]
    simulate(dut, reads, deadline=30_000, background=background)
    assert answers == expected and words == model
    assert read == [(model[word], 0) if word < WORDS else (0xDEAD, 2) for word in range(8)]
    assert sum(name == "write" for name, _ in events) == count


def test_latency_and_throughput():
    """A write and a read every two cycles, beside each other, each answered in the cycle after it."""
    dut, events, answered = AxiLiteEnd(ADDRESS_BITS), [], []
    bus = dut.bus

    async def bench(ctx):
        for valid in (bus.awvalid, bus.wvalid, bus.arvalid, bus.bready, bus.rready):
            ctx.set(valid, 1)
        for cycle in range(20):
            *_, write, read = await ctx.tick().sample(bus.bvalid, bus.rvalid)
            answered.extend(("write", cycle) for _ in range(write))
            answered.extend(("read", cycle) for _ in range(read))

    simulate(dut, bench, deadline=50, background=[memory(dut, [0] * WORDS, events)])
    writes = [cycle for name, cycle in events if name == "write"]
    reads = [cycle for name, cycle in events if name == "read"]
    assert writes[:9] == list(range(1, 19, 2)) and reads[:9] == list(range(0, 18, 2))
    for name, cycle in answered:
        assert (name, cycle - 1) in events
    assert len(answered) >= 18


@pytest.mark.parametrize("bits", [3, 7, 12])
def test_resources(bits):
    assert state_of(AxiLiteEnd(bits)) == (bits + 72, 0)


@pytest.mark.parametrize("bits", [2, 0, "7", True, 3.0])
def test_parameter(bits):
    with pytest.raises(ValueError) as error:
        AxiLiteEnd(bits)
    assert str(error.value) == f"Address width must be an integer of at least 3, not {bits!r}"
