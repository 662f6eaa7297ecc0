"""UartReceiver and UartTransmitter: every byte, odd rates, clocks that differ, disturbed lines."""

import random

import pytest
from amaranth import Module

from s2tdpt.hw.board.uart import UartReceiver, UartTransmitter, baud_step
from tests.hw.util import simulate, state_of

RATES = [(4e6, 1e6), (80e6, 3e6), (12e6, 1.5e6), (1e6, 115200)]


async def drive(ctx, line, data, cycles, stop=1):
    """A byte on a line, bits of `cycles` clock cycles, not always whole ones."""
    at = 0.0
    for bit in [0, *(data >> n & 1 for n in range(8)), stop]:
        ctx.set(line, bit)
        for _ in range(int(at + cycles) - int(at)):
            await ctx.tick()
        at += cycles
    ctx.set(line, 1)


def received(dut, found):
    async def watch(ctx):
        while True:
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid:
                found.append((payload.data, payload.error))

    return watch


@pytest.mark.parametrize(
    "clock, baud, drift", [(*RATES[0], 1.0), *((*r, d) for r in RATES[1:] for d in (0.98, 1.02))]
)
def test_receives_every_byte(clock, baud, drift):
    """Also from a sender whose clock is 2 % off, without a pause between bytes."""
    dut, found = UartReceiver(baud_step(clock, baud)), []
    data = random.Random(1).sample(range(256), 256 if clock / baud < 5 else 40)

    async def bench(ctx):
        await ctx.tick()
        for byte in data:
            await drive(ctx, dut.rx, byte, clock / baud * drift)
        await ctx.tick().repeat(20)

    simulate(dut, bench, deadline=100_000, background=[received(dut, found)])
    assert found == [(byte, 0) for byte in data]


def test_disturbances():
    """A short pulse is nothing; a byte without a stop bit is marked; a break is one byte, not many."""
    dut, found = UartReceiver(baud_step(80, 10)), []

    async def bench(ctx):
        ctx.set(dut.rx, 0)
        await ctx.tick().repeat(3)
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(30)
        await drive(ctx, dut.rx, 0x55, 8)
        await drive(ctx, dut.rx, 0x0F, 8, stop=0)
        await ctx.tick().repeat(8)
        ctx.set(dut.rx, 0)
        await ctx.tick().repeat(1000)
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(8)
        await drive(ctx, dut.rx, 0xA3, 8)
        await ctx.tick().repeat(8)

    simulate(dut, bench, deadline=3000, background=[received(dut, found)])
    assert found == [(0x55, 0), (0x0F, 1), (0, 1), (0xA3, 0)]


@pytest.mark.parametrize("clock, baud", RATES)
def test_there_and_back(clock, baud):
    """A byte takes 10 bits and a cycle, the start bit begins in the cycle after the transfer."""
    m = Module()
    m.submodules.sender = sender = UartTransmitter(baud_step(clock, baud))
    m.submodules.receiver = receiver = UartReceiver(baud_step(clock, baud))
    m.d.comb += receiver.rx.eq(sender.tx)
    found, starts, data = [], [], random.Random(2).sample(range(256), 20)

    async def bench(ctx):
        cycle = 0
        for byte in data:
            ctx.set(sender.i.payload, byte)
            ctx.set(sender.i.valid, 1)
            while True:
                _, _, ready = await ctx.tick().sample(sender.i.ready)
                cycle += 1
                if ready:
                    break
            starts.append(cycle)
            assert ctx.get(sender.tx) == 0
        ctx.set(sender.i.valid, 0)
        await ctx.tick().repeat(int(11 * clock / baud))

    simulate(m, bench, deadline=100_000, background=[received(receiver, found)])
    assert found == [(byte, 0) for byte in data]
    expected = 10 * clock / baud + 1
    assert all(abs(b - a - expected) <= 1 for a, b in zip(starts, starts[1:], strict=False))


def test_parameters_and_resources():
    assert baud_step(100, 25) == 1 << 14
    with pytest.raises(
        ValueError, match="^Baud rate must be at most a quarter of the clock, 100 Hz, not 26$"
    ):
        baud_step(100, 26)
    with pytest.raises(
        ValueError, match="^Baud rate must be at least a 1300th of the clock, 1e\\+08 Hz, not 9600$"
    ):
        baud_step(1e8, 9600)
    assert state_of(UartReceiver(100)) == (16 + 9 + 4 + 1 + 1, 0)
    assert state_of(UartTransmitter(100)) == (16 + 9 + 4 + 1, 0)
