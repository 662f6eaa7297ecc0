"""PixelWindow against windows cut in numpy; `ready` to the cycle; what is read of the memory."""

import numpy as np
import pytest
from amaranth import Const, Signal

from s2tdpt.hw.blocks import window
from s2tdpt.hw.blocks.window import COLUMN_CYCLES, FIRST_WINDOW, ColumnReader, PixelWindow
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.util import simulate, state_of

MAPS = [(1, 1), (1, 13), (13, 1), (2, 2), (8, 8)]


def program_of(height=5, width=4, channels=1, lanes=4, timesteps=4, zero_point=0):
    changes = dict(
        image_height=height,
        image_width=width,
        image_channels=channels,
        timesteps=timesteps,
        pixel_zero_point=zero_point,
        sps_pool=(False, False),
    )
    return build_program(network(**changes), Machine(lanes=lanes, banks=1, post_lanes=lanes), 21)


def windows(image, program):
    """Words of every position: [positions, words, channels of a word], by loops over the taps."""
    height, width, channels = image.shape
    packing, zero = program.window_packing, program.network.pixel_zero_point
    size = min(packing.channels, packing.lanes)
    found = np.full((height, width, packing.groups * size), zero)
    for y in range(height):
        for x in range(width):
            for tap in range(9):
                v, u = y + tap // 3 - 1, x + tap % 3 - 1
                if 0 <= v < height and 0 <= u < width:
                    found[y, x, tap * channels : (tap + 1) * channels] = image[v, u]
    return found.reshape(height * width, packing.groups, size)


class Bench:
    """Asks for the words of whole images and answers as the pixel memory does.

    Attributes
    ----------
    asked : list of int
        Cycles after `start` in which a word was asked for.
    reads : list of int
        Addresses.
    """

    def __init__(self, program, *, rate=1.0, seed=0):
        self.program, self.dut = program, window.PixelWindow(program, Sizes(program))
        self.rate, self.rng = rate, np.random.default_rng(seed)
        self.asked, self.reads = [], []

    def run(self, walks):
        """Each walk: image, address of its first pixel; or None for one that reads no pixels."""
        dut, program = self.dut, self.program
        words, passes = program.window_packing.groups, program.pixel_passes

        async def cycle(ctx, memory):
            """Ends the cycle; the memory answers what it was asked for."""
            if ctx.get(dut.pixels.en):
                address = ctx.get(dut.pixels.address)
                assert address in memory, "a pixel outside of the image is read"
                self.reads.append(address)
                await ctx.tick()
                ctx.set(dut.pixels.data, memory[address])
            else:
                await ctx.tick()

        async def idle(ctx):
            ctx.set(dut.start, 1)
            ctx.set(dut.active, 0)
            await cycle(ctx, {})
            ctx.set(dut.start, 0)
            for _ in range(5):
                assert ctx.get(dut.words.ready), "it holds a walk that reads no pixels"
                await cycle(ctx, {})

        async def walk(ctx, image, base):
            pixels = image.reshape(-1, image.shape[2]).astype(int).tolist()
            memory = {
                base + i: sum(b << 8 * c for c, b in enumerate(pixel)) for i, pixel in enumerate(pixels)
            }
            asks = [(p, w, q) for p in range(len(pixels)) for q in range(passes) for w in range(words)]
            expected, answer, number, now = windows(image, program), None, 0, 0
            opens = FIRST_WINDOW
            while number < len(asks) or answer is not None:
                ctx.set(dut.start, now == 0)
                ctx.set(dut.active, now == 0)
                ctx.set(dut.base, base)
                if answer is not None:
                    position, word = answer
                    data = ctx.get(dut.words.data)
                    size = expected.shape[2]
                    got = [data >> 8 * c & 255 for c in range(size)]
                    assert got == expected[position, word].tolist(), (position, word)
                answer = None
                if number < len(asks) and now:
                    assert ctx.get(dut.words.ready) == (now >= opens), (asks[number], now, opens)
                position, word, plane_pass = asks[min(number, len(asks) - 1)]
                ctx.set(dut.words.address, word)
                ctx.set(dut.words.plane_pass, plane_pass)
                en = number < len(asks) and now and now >= opens and self.rng.random() < self.rate
                ctx.set(dut.words.en, en)
                if en:
                    answer = position, word
                    self.asked.append(now)
                    number += 1
                    if number % (words * passes) == 0:
                        opens = max(now + 1, opens + COLUMN_CYCLES)
                await cycle(ctx, memory)
                now += 1
            ctx.set(dut.words.en, 0)

        async def testbench(ctx):
            for entry in walks:
                await (idle(ctx) if entry is None else walk(ctx, *entry))

        count = sum(0 if entry is None else entry[0][..., 0].size for entry in walks)
        deadline = int(count * (words * passes + COLUMN_CYCLES) / self.rate * 2) + 100 * len(walks) + 200
        simulate(dut, testbench, deadline=deadline)
        return self


def image_of(program, rng):
    net = program.network
    return rng.integers(0, 256, (net.image_height, net.image_width, net.image_channels))


@pytest.mark.parametrize("height, width", MAPS)
@pytest.mark.parametrize("channels, lanes, zero_point", [(1, 4, 0), (3, 32, 128)])
@pytest.mark.parametrize("rate", [1, 0.3])
def test_windows_of_every_position(height, width, channels, lanes, zero_point, rate):
    """Both halves of the memory, one after the other directly, with a walk over other sources between."""
    program = program_of(height, width, channels, lanes, zero_point=zero_point)
    rng = np.random.default_rng(height)
    first, second = image_of(program, rng), image_of(program, rng)
    walks = [(first, 0), None, (second, height * width), (second, height * width)]
    bench = Bench(program, rate=rate, seed=width).run(walks)
    assert len(bench.asked) % (height * width * program.pixel_passes * program.window_packing.groups) == 0


@pytest.mark.parametrize(
    "height, width, channels, lanes",
    [(12, 20, 3, 27), pytest.param(32, 31, 1, 1, marks=pytest.mark.wide)],
)
def test_windows_of_a_large_map(height, width, channels, lanes):
    program = program_of(height, width, channels, lanes)
    rng = np.random.default_rng(1)
    Bench(program, rate=0.8).run([(image_of(program, rng), height * width)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("lanes", [1, 2, 5, 9, 18])
@pytest.mark.parametrize("timesteps", [3, 8])
def test_words_of_a_window(channels, lanes, timesteps):
    """As many words as the lanes need; the last one may be short."""
    program = program_of(2, 3, channels, lanes, timesteps, zero_point=128)
    assert program.window_packing.groups == -(-9 * channels // lanes)
    Bench(program, rate=0.9, seed=lanes).run([(image_of(program, np.random.default_rng(lanes)), 6)])


@pytest.mark.parametrize("timesteps, cycles", [(8, 3), (4, 3), (2, 4), (1, 8)])
def test_a_window_takes_three_cycles_or_its_words(timesteps, cycles):
    """Without a gap at the end of a row."""
    program = program_of(5, 6, 1, 9, timesteps)
    bench = Bench(program).run([(image_of(program, np.random.default_rng(0)), 0)])
    assert bench.asked[:: program.pixel_passes] == [FIRST_WINDOW + cycles * p for p in range(30)]


def test_every_pixel_is_read_once_a_row_of_windows():
    program = program_of(4, 5, 1, 9)
    bench = Bench(program).run([(image_of(program, np.random.default_rng(0)), 0)])
    pixels, times = np.unique(bench.reads, return_counts=True)
    assert pixels.tolist() == list(range(20))
    assert times.reshape(4, 5)[:, 0].tolist() == [2, 3, 3, 2] and len(bench.reads) == 5 * 10


def test_state_is_nine_pixels_and_two_on_their_way():
    program = program_of(8, 8, 3, 32)
    flops, memories = state_of(PixelWindow(program, Sizes(program)))
    assert memories == 0 and 11 * 24 < flops < 11 * 24 + 40


# ---- planted faults --------------------------------------------------------------------------------------


class WithoutTop(ColumnReader):
    """Takes what the memory happens to say for the pixels above the map."""

    def _assemble(self, m, top, bottom, begins, complete):
        super()._assemble(m, Const(0), bottom, begins, complete)


class NeverBegins(ColumnReader):
    """Does not know where a row of the map begins."""

    def _assemble(self, m, top, bottom, begins, complete):
        super()._assemble(m, top, bottom, Const(0), complete)


class Pauses(PixelWindow):
    """Computes correctly but is a cycle late once."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        paused = Signal()
        with m.If(self.words.en & ~paused):
            m.d.sync += [paused.eq(1), self.words.ready.eq(0)]
        return m


@pytest.mark.parametrize(
    "name, fault", [("ColumnReader", WithoutTop), ("ColumnReader", NeverBegins), ("PixelWindow", Pauses)]
)
def test_faults_are_found(name, fault, monkeypatch):
    monkeypatch.setattr(window, name, fault)
    program = program_of(4, 5, 1, 9)
    with pytest.raises(AssertionError):
        Bench(program).run([(image_of(program, np.random.default_rng(0)), 0)])
