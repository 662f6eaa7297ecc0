"""FrameReceiver and ResultSender against short Python models, under every stall pattern."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, Out
from amaranth.sim import Simulator

from s2tdpt.hw.bus.axi import FrameReceiver, ResultSender

# Probability that a side is willing in a cycle, and the length of the runs it keeps to.
PATTERNS = {
    "always": lambda rng: iter(lambda: True, None),
    "bursty": lambda rng: _runs(rng, 1, 9, 1, 6),
    "starved": lambda rng: _runs(rng, 1, 1, 2, 7),
    "random": lambda rng: iter(lambda: rng.random() < 0.5, None),
}


def _runs(rng, on_min, on_max, off_min, off_max):
    while True:
        yield from [True] * rng.randint(on_min, on_max)
        yield from [False] * rng.randint(off_min, off_max)


async def cycles(ctx, count):
    for _ in range(count):
        await ctx.tick()


class ProtocolError(AssertionError):
    """An AXI4-Stream rule was broken."""


def simulate(dut, *testbenches, watchdog=20_000, background=()):
    """Run until the first testbench ends; the watchdog fails a run that hangs."""
    done = []

    async def main(ctx):
        await testbenches[0](ctx)
        done.append(True)

    async def watch(ctx):
        await cycles(ctx, watchdog)
        raise TimeoutError(f"not finished after {watchdog} cycles")

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(main)
    for testbench in testbenches[1:]:
        sim.add_testbench(testbench, background=True)
    sim.add_testbench(watch, background=True)
    for process in background:
        sim.add_process(process)
    sim.run()
    assert done


def stream_checker(dut, payload):
    """Once tvalid is high it stays high, and the payload stays the same, until tready."""

    async def check(ctx):
        pending = None
        signals = [dut.tvalid, dut.tready, *payload]
        while True:
            _, reset, valid, ready, *data = await ctx.tick().sample(*signals)
            if reset:
                pending = None
                continue
            if pending is not None:
                if not valid:
                    raise ProtocolError("tvalid fell before the transfer")
                if data != pending:
                    raise ProtocolError("the payload changed before the transfer")
            pending = data if valid and not ready else None

    return check


# --- FrameReceiver ---------------------------------------------------------------------------------------


def frame_bytes(rng, size):
    return [rng.randrange(256) for _ in range(size)]


def packets(*frames):
    """Bytes with their tlast, which ends each of the frames."""
    return [(byte, i == len(frame) - 1) for frame in frames for i, byte in enumerate(frame)]


def feed(dut, beats, willing, accepted=None):
    async def testbench(ctx):
        cycle = 0
        for byte, last in beats:
            while not next(willing):
                ctx.set(dut.tvalid, 0)
                ctx.set(dut.tdata, ~byte & 0xFF)  # junk, even an end of a frame: nothing counts
                ctx.set(dut.tlast, 1)
                await ctx.tick()
                cycle += 1
            ctx.set(dut.tvalid, 1)
            ctx.set(dut.tdata, byte)
            ctx.set(dut.tlast, last)
            ready = 0
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.tready)
                cycle += 1
            if accepted is not None:
                accepted.append(cycle)
        ctx.set(dut.tvalid, 0)

    return testbench


class FrameStore:
    """The pixel memory and its consumer: collects each frame, then holds the bank for a while."""

    def __init__(self, dut, count, hold):
        self.dut, self.count, self.hold = dut, count, hold
        self.memory = [[None] * dut.channels for _ in range(2 * dut.positions)]
        self.frames = []
        self.errors = None
        self.dropped = [0, 0]

    async def write(self, ctx):
        dut = self.dut
        signals = (dut.wr_en, dut.wr_addr, dut.wr_data, dut.dropped_short, dut.dropped_long)
        while True:
            _, _, enable, address, data, *dropped = await ctx.tick().sample(*signals)
            self.dropped = [count + pulse for count, pulse in zip(self.dropped, dropped, strict=True)]
            assert enable & (enable - 1) == 0
            for c in range(dut.channels):
                if enable >> c & 1:
                    self.memory[address][c] = data >> 8 * c & 0xFF

    async def consume(self, ctx):
        dut = self.dut
        bank = 0
        for _ in range(self.count):
            while not ctx.get(dut.frame_valid):
                await ctx.tick()
            assert ctx.get(dut.frame_bank) == bank
            await cycles(ctx, self.hold())
            # Read after the wait: whatever arrived meanwhile must not have touched this bank.
            base = bank * dut.positions
            words = self.memory[base : base + dut.positions]
            self.frames.append([byte for word in words for byte in word])
            ctx.set(dut.frame_release, 1)
            await ctx.tick()
            ctx.set(dut.frame_release, 0)
            bank ^= 1
        await cycles(ctx, 5)
        assert not ctx.get(dut.frame_valid)
        self.errors = (ctx.get(dut.error_short), ctx.get(dut.error_long))


def receive(shape, beats, count, willing, hold=lambda: 0, accepted=None):
    dut = FrameReceiver(*shape)
    store = FrameStore(dut, count, hold)
    simulate(dut, store.consume, feed(dut, beats, willing, accepted), background=[store.write])
    return store


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (3, 5, 1), (2, 3, 3), (4, 4, 2)])
def test_receiver_frames(shape, pattern):
    rng = random.Random(f"{shape}{pattern}")
    frames = [frame_bytes(rng, shape[0] * shape[1] * shape[2]) for _ in range(7)]
    store = receive(shape, packets(*frames), 7, PATTERNS[pattern](rng), lambda: rng.choice([0, 1, 5, 40]))
    assert store.frames == frames
    assert store.errors == (0, 0)


def test_receiver_full_throughput():
    """Frames follow each other without a gap as long as the consumer keeps up."""
    rng = random.Random(1)
    frames = [frame_bytes(rng, 18) for _ in range(5)]
    accepted = []
    store = receive((2, 3, 3), packets(*frames), 5, PATTERNS["always"](rng), accepted=accepted)
    assert store.frames == frames
    assert accepted == list(range(1, 5 * 18 + 1))


def test_receiver_buffers_exactly_two_frames():
    dut = FrameReceiver(1, 3, 1)

    async def testbench(ctx):
        ctx.set(dut.tvalid, 1)
        ready = []
        for beat in range(9):
            ctx.set(dut.tlast, beat % 3 == 2)
            _, _, r, v = await ctx.tick().sample(dut.tready, dut.frame_valid)
            ready.append((r, v))
        assert ready == [(1, 0)] * 3 + [(1, 1)] * 3 + [(0, 1)] * 3
        ctx.set(dut.tvalid, 0)
        ctx.set(dut.frame_release, 1)
        await ctx.tick()
        ctx.set(dut.frame_release, 0)
        assert ctx.get(dut.tready) and ctx.get(dut.frame_valid) and ctx.get(dut.frame_bank) == 1

    simulate(dut, testbench)


def test_receiver_ready_does_not_depend_on_valid():
    dut = FrameReceiver(1, 1, 1)

    async def testbench(ctx):
        for full in (False, True):
            for valid, last, release in [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (0, 0, 1)]:
                ctx.set(dut.tvalid, valid)
                ctx.set(dut.tlast, last)
                ctx.set(dut.frame_release, release)
                assert ctx.get(dut.tready) == (not full)
            ctx.set(dut.frame_release, 0)
            ctx.set(dut.tvalid, 1)
            ctx.set(dut.tlast, 1)
            await cycles(ctx, 2)

    simulate(dut, testbench)


def test_receiver_ignores_release_without_a_frame():
    dut = FrameReceiver(1, 2, 1)

    async def testbench(ctx):
        ctx.set(dut.frame_release, 1)
        await cycles(ctx, 3)
        ctx.set(dut.frame_release, 0)
        assert ctx.get(dut.frame_bank) == 0
        await feed(dut, packets([1, 2]), PATTERNS["always"](None))(ctx)
        assert ctx.get(dut.frame_valid) and ctx.get(dut.frame_bank) == 0

    simulate(dut, testbench)


SIZE = 6  # bytes of a frame of shape (1, 3, 2)
MALFORMED = {
    "one byte": ([1], (1, 0)),
    "one byte short": ([SIZE - 1], (1, 0)),
    "short twice": ([2, 3], (1, 0)),
    "one byte long": ([SIZE + 1], (0, 1)),
    "two frames without tlast between": ([2 * SIZE], (0, 1)),
    "very long": ([5 * SIZE + 2], (0, 1)),
    "long twice": ([SIZE + 1, SIZE + 3], (0, 1)),
    "short then long": ([SIZE - 1, SIZE + 1], (1, 1)),
    "long then short": ([SIZE + 4, 1], (1, 1)),
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("case", MALFORMED)
def test_receiver_drops_malformed_frames(case, pattern):
    """Good frames on both sides arrive whole, in either bank, even when they wait for the consumer."""
    lengths, errors = MALFORMED[case]
    rng = random.Random(f"{case}{pattern}")
    good = [frame_bytes(rng, SIZE) for _ in range(5)]
    bad = [frame_bytes(rng, length) for length in lengths]
    for before in (0, 1, 2):
        beats = packets(*good[:before], *bad, *good[before:])
        store = receive((1, 3, 2), beats, 5, PATTERNS[pattern](rng), lambda: rng.choice([0, 3, 30]))
        assert store.frames == good
        assert store.errors == errors
        short = sum(length < SIZE for length in lengths)
        assert store.dropped == [short, len(lengths) - short]


def test_receiver_single_byte_frames_can_only_be_long():
    rng = random.Random(3)
    store = receive((1, 1, 1), packets([1], [2, 3], [4]), 2, PATTERNS["always"](rng))
    assert store.frames == [[1], [4]]
    assert store.errors == (0, 1)


def test_receiver_errors_are_sticky_and_reported_at_once():
    dut = FrameReceiver(1, 2, 1)

    async def testbench(ctx):
        always = PATTERNS["always"](None)
        await feed(dut, packets([1]), always)(ctx)
        assert (ctx.get(dut.error_short), ctx.get(dut.error_long)) == (1, 0)
        await feed(dut, packets([1, 2]), always)(ctx)
        assert (ctx.get(dut.error_short), ctx.get(dut.error_long)) == (1, 0)
        # The flag rises with the byte that had to carry tlast, not at the end of the long frame.
        await feed(dut, packets([1, 2, 3])[:2], always)(ctx)
        assert (ctx.get(dut.error_short), ctx.get(dut.error_long)) == (1, 1)

    simulate(dut, testbench)


# --- ResultSender ----------------------------------------------------------------------------------------


def expected_words(logits, width):
    return [v % 2**width for v in logits] + [logits.index(max(logits))]


def send(dut, images, willing, gap=lambda: 0, checker=True):
    """Load and send each image's logits; returns the packets and the cycles that each was busy."""
    received, busy_cycles = [], []
    w, mask = dut.logit_width, 2**dut.logit_width - 1

    async def load(ctx):
        for logits in images:
            order = list(range(dut.subgroups))
            for s in reversed(order):
                chunk = logits[s * dut.post_lanes : (s + 1) * dut.post_lanes]
                # Lanes past the last class carry the largest value: they must not win.
                chunk = chunk + [mask >> 1] * (dut.post_lanes - len(chunk))
                ctx.set(dut.wr_en, 1)
                ctx.set(dut.wr_index, s)
                ctx.set(dut.wr_data, sum((v & mask) << p * w for p, v in enumerate(chunk)))
                await ctx.tick()
            ctx.set(dut.wr_en, 0)
            ctx.set(dut.wr_data, 0)
            await cycles(ctx, gap())
            assert not ctx.get(dut.tvalid)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            assert ctx.get(dut.tvalid) and ctx.get(dut.busy)
            count = 0
            while ctx.get(dut.busy):
                await ctx.tick()
                count += 1
            busy_cycles.append(count)

    async def sink(ctx):
        packet = []
        ctx.set(dut.tready, next(willing))
        while True:
            _, _, valid, ready, data, last = await ctx.tick().sample(
                dut.tvalid, dut.tready, dut.tdata, dut.tlast
            )
            if valid and ready:
                packet.append(data)
                if last:
                    received.append(packet)
                    packet = []
            ctx.set(dut.tready, next(willing))

    background = [stream_checker(dut, [dut.tdata, dut.tlast])] if checker else []
    simulate(dut, load, sink, background=background)
    return received, busy_cycles


def random_logits(rng, classes, width):
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    kind = rng.randrange(4)
    if kind == 0:
        return [rng.randint(low, high) for _ in range(classes)]
    if kind == 1:  # all negative
        return [rng.randint(low, -1) for _ in range(classes)]
    if kind == 2:  # few values: ties everywhere
        return [rng.choice([low, -1, 0 if high else -1]) for _ in range(classes)]
    return [rng.choice([low, high]) for _ in range(classes)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "classes,lanes,width",
    [(1, 1, 1), (2, 1, 8), (10, 1, 24), (10, 4, 32), (10, 5, 33), (3, 8, 40), (17, 4, 64), (16, 16, 20)],
)
def test_sender_packets(classes, lanes, width, pattern):
    rng = random.Random(f"{classes}{lanes}{width}{pattern}")
    dut = ResultSender(classes, lanes, width)
    images = [random_logits(rng, classes, width) for _ in range(12)]
    received, busy = send(dut, images, PATTERNS[pattern](rng), lambda: rng.choice([0, 0, 3]))
    assert dut.data_width == (32 if width <= 32 else 64)
    assert received == [expected_words(logits, dut.data_width) for logits in images]
    if pattern == "always":
        assert busy == [classes + 1] * 12  # full throughput


@pytest.mark.parametrize(
    "logits,winner",
    [
        ([5, 5, 5, 5], 0),
        ([-7, -3, -3, -8], 1),
        ([-8, -8, -8, -7], 3),
        ([-8, -8, -8, -8], 0),
        ([-1, 0, 0, -1], 1),
        ([7, -8, 7, 6], 0),
        ([0, 1, 2, 3], 3),
    ],
)
def test_sender_class(logits, winner):
    received, _ = send(ResultSender(4, 2, 4), [logits], PATTERNS["always"](None))
    assert received == [[v % 2**32 for v in logits] + [winner]]


def test_sender_ignores_start_while_busy():
    dut = ResultSender(3, 1, 8)

    async def testbench(ctx):
        ctx.set(dut.start, 1)
        await cycles(ctx, 3)
        assert not ctx.get(dut.tlast)
        ctx.set(dut.tready, 1)
        for last in (0, 0, 0, 1):
            assert ctx.get(dut.tvalid) and ctx.get(dut.tlast) == last
            await ctx.tick()
        assert not ctx.get(dut.busy)

    simulate(dut, testbench)


# --- checkers and constructors ---------------------------------------------------------------------------


class FaultySource(Component):
    """A stream that breaks one rule when it is stalled."""

    def __init__(self, fault):
        self.fault = fault
        super().__init__({"tdata": Out(8), "tvalid": Out(1, init=1), "tready": Out(1), "tlast": Out(1)})

    def elaborate(self, platform):
        m = Module()
        if self.fault == "valid":
            m.d.sync += self.tvalid.eq(~self.tvalid)
        step = 1 if self.fault == "data" else 0
        m.d.sync += self.tdata.eq(self.tdata + step)
        return m


@pytest.mark.parametrize(
    "fault,message",
    [
        ("valid", "tvalid fell before the transfer"),
        ("data", "the payload changed before the transfer"),
        (None, None),
    ],
)
def test_stream_checker_sees_a_planted_fault(fault, message):
    dut = FaultySource(fault)

    async def testbench(ctx):
        await cycles(ctx, 5)

    def run():
        simulate(dut, testbench, background=[stream_checker(dut, [dut.tdata, dut.tlast])])

    if message is None:
        run()
    else:
        with pytest.raises(ProtocolError, match=f"^{message}$"):
            run()


def test_watchdog_ends_a_hanging_run():
    dut = FrameReceiver(1, 1, 1)

    async def testbench(ctx):
        while not ctx.get(dut.frame_valid):
            await ctx.tick()

    with pytest.raises(TimeoutError, match="^not finished after 50 cycles$"):
        simulate(dut, testbench, watchdog=50)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize(
    "arguments,message",
    [
        ((0, 8, 1), "Frame height must be a positive integer, not 0"),
        ((8, -1, 1), "Frame width must be a positive integer, not -1"),
        ((8, 8, 1.5), "Frame channel count must be a positive integer, not 1.5"),
        ((8, 8, True), "Frame channel count must be a positive integer, not True"),
    ],
)
def test_receiver_constructor(arguments, message):
    with pytest.raises(ValueError) as error:
        FrameReceiver(*arguments)
    assert str(error.value) == message


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize(
    "arguments,message",
    [
        ((0, 1, 8), "Class count must be a positive integer, not 0"),
        ((10, 0, 8), "Post-processing lane count must be a positive integer, not 0"),
        ((10, 1, 0), "Logit width must be a positive integer, not 0"),
        ((10, 1, 65), "Logit width must be at most 64 bits, not 65"),
    ],
)
def test_sender_constructor(arguments, message):
    with pytest.raises(ValueError) as error:
        ResultSender(*arguments)
    assert str(error.value) == message
