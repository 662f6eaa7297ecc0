"""The hardware at the end of the link against its twin, under every stall pattern."""

import random

import pytest

from s2tdpt.golden.link import DAMAGED, Code, Frame, FrameDecoder, Identity, Kind, encode, unpack_result
from s2tdpt.golden.responder import Responder as Twin
from s2tdpt.hw.board.responder import Responder
from s2tdpt.sim.stalls import PATTERNS
from tests.hw.test_link import pauses
from tests.hw.util import simulate

IDENTITY = Identity(2, 3, 1, 3, 4, 3, 50_000_000, bytes(range(0x70, 0x90)))
WIDE = Identity(1, 2, 2, 1, 8, 1, 12_000_000, bytes(range(32)))


def infer(identity: Identity):
    """A network of a kind: sums of all bytes, some of them negative, and a class."""

    def words(image):
        logits = [
            sum((k + 3) ** n * byte for n, byte in enumerate(image)) % 509 for k in range(identity.classes)
        ]
        return [*(logit - 250 for logit in logits), sum(image) % identity.classes]

    return words


class Board:
    """The responder, an accelerator behind it, and what it says."""

    def __init__(self, identity: Identity, pattern: str, latency: int = 3):
        self.identity, self.pattern, self.latency = identity, pattern, latency
        self.dut = Responder(identity)
        self.said, self.images = bytearray(), []

    async def core(self, ctx):
        """Takes images and sends results, in order, each some cycles after its last byte."""
        dut, willing, image = self.dut, pauses(self.pattern, 5), bytearray()
        while True:
            ready = next(willing)
            ctx.set(dut.pixels.tready, ready)
            names = dut.pixels.tvalid, dut.pixels.tdata, dut.pixels.tlast
            _, _, valid, byte, last = await ctx.tick().sample(*names)
            if valid and ready:
                image.append(byte)
                if last:
                    self.images.append(bytes(image))
                    image.clear()

    async def results(self, ctx):
        dut, willing, number = self.dut, pauses(self.pattern, 6), 0
        while True:
            await ctx.tick()
            if number == len(self.images):
                continue
            await ctx.tick().repeat(self.latency)
            words = infer(self.identity)(self.images[number])
            number += 1
            for place, word in enumerate(words, 1):
                while not next(willing):
                    await ctx.tick()
                ctx.set(dut.results.tdata, word & (1 << 8 * self.identity.word_bytes) - 1)
                ctx.set(dut.results.tlast, place == len(words))
                ctx.set(dut.results.tvalid, 1)
                await ctx.tick().until(dut.results.tready)
                ctx.set(dut.results.tvalid, 0)

    async def listen(self, ctx):
        willing = pauses(self.pattern, 7)
        while True:
            ready = next(willing)
            ctx.set(self.dut.o.ready, ready)
            _, _, valid, byte = await ctx.tick().sample(self.dut.o.valid, self.dut.o.payload)
            if valid and ready:
                self.said.append(byte)

    def run(self, bench, deadline=200_000):
        simulate(self.dut, bench, deadline=deadline, background=[self.core, self.results, self.listen])
        return list(FrameDecoder().feed(bytes(self.said)))

    async def say(self, ctx, line, error=0):
        for byte in line:
            ctx.set(self.dut.i.payload, {"data": byte, "error": error})
            ctx.set(self.dut.i.valid, 1)
            await ctx.tick()
            ctx.set(self.dut.i.valid, 0)


def requests(identity: Identity, seed: int, count: int) -> list[bytes]:
    """Requests, some of them damaged, unknown or of another size."""
    rng, lines = random.Random(seed), []
    for sequence in range(count):
        size = identity.image_bytes + (rng.choice((-1, 0, 3)) if rng.random() < 0.3 else 0)
        kind = rng.choice((Kind.CLASSIFY, Kind.CLASSIFY, Kind.CLASSIFY, Kind.HELLO, 0x55))
        data = bytearray(encode(Frame(kind, sequence, bytes(rng.choices((0x7D, 0x7E, 0, 255), k=size)))))
        if rng.random() < 0.2:
            data[rng.randrange(1, len(data) - 1)] ^= 1 << rng.randrange(8)
        lines.append(bytes(data))
    return lines


@pytest.mark.parametrize("identity", (IDENTITY, WIDE), ids=("narrow", "wide"))
@pytest.mark.parametrize("pattern", PATTERNS)
def test_answers_are_those_of_the_twin(identity, pattern):
    """One request after the other: the answers are equal, byte by byte."""
    board, twin, expected = Board(identity, pattern), Twin(identity, infer(identity)), bytearray()

    async def bench(ctx):
        for line in requests(identity, 8, 12):
            expected.extend(twin.feed(line))
            await board.say(ctx, line)
            while len(board.said) < len(expected):
                await ctx.tick()
        await ctx.tick().repeat(50)

    found = board.run(bench)
    assert board.said == expected
    assert DAMAGED not in found and {frame.kind for frame in found} == {
        Kind.RESULT,
        Kind.ERROR,
        Kind.IDENTITY,
    }


@pytest.mark.parametrize("pattern", ("none", "random"))
def test_a_flood_of_images(pattern):
    """Faster than the answers: every image is served in order or refused as busy, none twice, none wrong."""
    board, rng = Board(IDENTITY, pattern, latency=200), random.Random(9)
    images = [rng.randbytes(6) for _ in range(25)]

    async def bench(ctx):
        for sequence, image in enumerate(images):
            await board.say(ctx, encode(Frame(Kind.CLASSIFY, sequence, image)))
            await ctx.tick().repeat(rng.randrange(200))
        await ctx.tick().repeat(6000)
        await board.say(ctx, encode(Frame(Kind.CLASSIFY, 99, images[0])))
        await ctx.tick().repeat(2500)

    found = board.run(bench)
    results = [frame for frame in found if frame.kind == Kind.RESULT]
    busy = [frame.sequence for frame in found if frame.kind == Kind.ERROR]
    assert all(frame.payload[0] == Code.BUSY for frame in found if frame.kind == Kind.ERROR)
    served = [frame.sequence for frame in results]
    assert served == sorted(set(served)) and not set(served) & set(busy)
    assert served[-1] == 99 and len(served) >= 6 and busy
    for frame in results:
        image = images[frame.sequence % 99]
        assert unpack_result(IDENTITY, frame.payload) == infer(IDENTITY)(image)
        request = Frame(Kind.CLASSIFY, frame.sequence, image)
        assert frame.payload[:8] == request.crc.to_bytes(4, "little") + IDENTITY.mark


def test_a_byte_without_a_stop_bit():
    board = Board(IDENTITY, "none")
    request = encode(Frame(Kind.HELLO, 3, b""))

    async def bench(ctx):
        await board.say(ctx, request[:4])
        await board.say(ctx, request[4:5], error=1)
        await board.say(ctx, request[5:])
        await ctx.tick().repeat(100)
        await board.say(ctx, request)
        await ctx.tick().repeat(200)

    error, card = board.run(bench)
    assert (error.kind, error.payload) == (Kind.ERROR, bytes([Code.DAMAGED]))
    assert Identity.unpack(card.payload) == IDENTITY


def test_a_greeting_does_not_wait_for_a_result():
    """While an image is computed, what needs no result is answered at once."""
    board = Board(IDENTITY, "none", latency=600)

    async def bench(ctx):
        await board.say(ctx, encode(Frame(Kind.CLASSIFY, 1, bytes(range(6)))))
        await board.say(ctx, encode(Frame(Kind.HELLO, 2, b"")))
        await board.say(ctx, encode(Frame(Kind.CLASSIFY, 3, bytes(range(6, 12)))))
        await ctx.tick().repeat(1500)

    answers = [(frame.kind, frame.sequence) for frame in board.run(bench)]
    assert answers == [(Kind.IDENTITY, 2), (Kind.RESULT, 1), (Kind.RESULT, 3)]
