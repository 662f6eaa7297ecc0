"""LinkReceiver and LinkSender against their twin, under every stall pattern; ImageBuffer against a list."""

import itertools
import random

import pytest

from s2tdpt.golden.link import DAMAGED, ESCAPE, FLAG, HEADER, Frame, FrameDecoder, encode
from s2tdpt.hw.board.image_buffer import ImageBuffer
from s2tdpt.hw.board.link import LinkReceiver, LinkSender
from s2tdpt.sim import stalls
from s2tdpt.sim.stalls import PATTERNS
from tests.golden.test_link import frames
from tests.hw.util import simulate, state_of


def pauses(pattern: str, seed: int):
    """Whether a side is willing, cycle by cycle."""
    return (not pause for pause in stalls.pauses(pattern, seed, "link") or itertools.repeat(False))


async def feed(ctx, dut, line, willing):
    """Bytes, or (byte, error), one a cycle where `willing`."""
    for item in line:
        while not next(willing):
            await ctx.tick()
        byte, error = item if isinstance(item, tuple) else (item, 0)
        ctx.set(dut.i.payload, {"data": byte, "error": error})
        ctx.set(dut.i.valid, 1)
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
    await ctx.tick().repeat(2)


def heard(dut, found):
    """Frames, or DAMAGED, as `FrameDecoder` gives them."""

    async def watch(ctx):
        payload = bytearray()
        names = (dut.payload.valid, dut.payload.payload, dut.end, dut.good, dut.header, dut.crc)
        while True:
            _, _, valid, byte, end, good, header, crc = await ctx.tick().sample(*names)
            if valid:
                payload.append(byte)
            if end:
                frame = Frame(header.kind, header.sequence, bytes(payload))
                assert not good or (header.length, crc) == (len(payload), frame.crc)
                found.append(frame if good else DAMAGED)
                payload.clear()

    return watch


def faulty_line(seed: int, count: int) -> list[int]:
    """Frames, many of them cut, altered, repeated or amid noise."""
    rng, line = random.Random(seed), []
    for frame in frames(seed, count):
        data = bytearray(encode(frame))
        fault = rng.randrange(6)
        at = rng.randrange(len(data))
        if fault == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif fault == 1:
            del data[at:]
        elif fault == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 6))
        elif fault == 3:
            del data[at]
        line += data
    return line


@pytest.mark.parametrize("pattern", PATTERNS)
def test_receiver_hears_what_its_twin_hears(pattern):
    dut, found, line = LinkReceiver(), [], faulty_line(5, 120)

    async def bench(ctx):
        await feed(ctx, dut, line, pauses(pattern, 1))

    simulate(dut, bench, deadline=100_000, background=[heard(dut, found)])
    expected = list(FrameDecoder().feed(bytes(line)))
    assert found == expected
    assert 20 < expected.count(DAMAGED) < len(expected) - 20


def test_receiver_refuses_a_byte_without_a_stop_bit():
    dut, found = LinkReceiver(), []
    good = Frame(2, 3, b"abc")
    line = list(encode(good))
    broken = [(byte, n == 6) for n, byte in enumerate(line)]

    async def bench(ctx):
        await feed(ctx, dut, [(FLAG, 1), *line, *broken, *line, (FLAG, 1), *line], pauses("none", 0))

    simulate(dut, bench, deadline=1000, background=[heard(dut, found)])
    assert found == [good, DAMAGED, good, DAMAGED, good]


@pytest.mark.parametrize("source", PATTERNS)
@pytest.mark.parametrize("sink", PATTERNS)
def test_sender_sends_what_its_twin_encodes(source, sink):
    dut, found, sent = LinkSender(), bytearray(), frames(6, 12)

    async def bench(ctx):
        willing = pauses(source, 2)
        for frame in sent:
            data = HEADER.pack(frame.kind, frame.sequence, len(frame.payload)) + frame.payload
            for number, byte in enumerate(data, 1):
                while not next(willing):
                    await ctx.tick()
                ctx.set(dut.i.payload, {"data": byte, "last": number == len(data)})
                ctx.set(dut.i.valid, 1)
                await ctx.tick().until(dut.i.ready)
                ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(100)

    async def listen(ctx):
        willing, pending = pauses(sink, 3), None
        while True:
            ready = next(willing)
            ctx.set(dut.o.ready, ready)
            _, _, valid, byte = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            assert pending is None or (valid and byte == pending), "the byte changed before it was taken"
            pending = byte if valid and not ready else None
            if valid and ready:
                found.append(byte)

    simulate(dut, bench, deadline=20_000, background=[listen])
    assert bytes(found) == b"".join(encode(frame) for frame in sent)


def test_sender_throughput():
    """A byte a cycle, two for an escaped one, seven to eleven more a frame."""
    for payload in (bytes(20), bytes([FLAG, ESCAPE] * 10)):
        dut, frame, cycles = LinkSender(), Frame(1, 2, payload), []
        data = HEADER.pack(1, 2, len(payload)) + payload

        async def bench(ctx, dut=dut, data=data, cycles=cycles):
            ctx.set(dut.o.ready, 1)
            count = 0
            for number, byte in enumerate(data, 1):
                ctx.set(dut.i.payload, {"data": byte, "last": number == len(data)})
                ctx.set(dut.i.valid, 1)
                ready = 0
                while not ready:
                    _, _, ready = await ctx.tick().sample(dut.i.ready)
                    count += 1
            ctx.set(dut.i.valid, 0)
            valid = 1
            while valid:
                _, _, valid = await ctx.tick().sample(dut.o.valid)
                count += 1
            cycles.append(count - 1)

        simulate(dut, bench, deadline=1000)
        assert cycles == [len(encode(frame))]


def test_resources():
    assert state_of(LinkReceiver()) == (40 + 32 + 32 + 16 + 2 + 4 + 2, 0)
    assert state_of(LinkSender()) == (32 + 1 + 2 + 2, 0)


@pytest.mark.parametrize("images, size", [(1, 1), (1, 5), (4, 6), (3, 1)])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_image_buffer(images, size, pattern):
    """Kept images come out whole and in order, dropped ones never; bytes past the size are lost."""
    dut, rng = ImageBuffer(images, size), random.Random(images * 100 + size)
    sent, found = [], [[]]

    async def bench(ctx):
        for _ in range(30):
            image = rng.randbytes(size)
            keep = rng.random() < 0.6
            while len(sent) - len(found) + 1 >= images:
                await ctx.tick()
            data = image + rng.randbytes(2) if keep else image[: rng.randrange(size + 1)]
            for byte in data:
                ctx.set(dut.i.payload, byte)
                ctx.set(dut.i.valid, 1)
                await ctx.tick()
                ctx.set(dut.i.valid, 0)
            pulse = dut.keep if keep else dut.drop
            if keep:
                sent.append(image)
            ctx.set(pulse, 1)
            await ctx.tick()
            ctx.set(pulse, 0)
        while len(found) <= len(sent):
            await ctx.tick()
        await ctx.tick().repeat(10)

    async def listen(ctx):
        willing = pauses(pattern, 4)
        while True:
            ready = next(willing)
            ctx.set(dut.o.tready, ready)
            _, _, valid, byte, last = await ctx.tick().sample(dut.o.tvalid, dut.o.tdata, dut.o.tlast)
            if valid and ready:
                found[-1].append(byte)
                if last:
                    found.append([])

    simulate(dut, bench, deadline=20_000, background=[listen])
    assert [bytes(image) for image in found] == [*sent, b""]


def test_image_buffer_parameters():
    with pytest.raises(ValueError, match="^Image buffer size must be a positive integer, not 0$"):
        ImageBuffer(1, 0)
