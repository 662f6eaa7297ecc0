"""The accelerator behind its serial line, in the simulator of Amaranth: frames bit by bit, and the lights."""

import numpy as np
import pytest
from amaranth import ClockSignal
from amaranth.hdl import Fragment
from amaranth.hdl._ast import _StatementList
from amaranth.sim import Simulator

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.link import Code, Frame, FrameDecoder, Identity, Kind, encode, unpack_result
from s2tdpt.hw.board.serial import SerialAccelerator, SerialLine
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.sim.cases import build_case, network
from tests.hw.core_bench import set_at_random, state_of_fragment
from tests.hw.test_uart import drive
from tests.hw.util import PERIOD

CYCLES = 4
LINE = SerialLine(clock=1200, baud=1200 // CYCLES, window=2)
"""A clock so slow that half a blink is 600 cycles, and the other light's moment 300."""

CONFIG = network(image_height=2, image_width=1, sps_channels=(2, 4), sps_pool=(False, False), heads=1)


@pytest.fixture(scope="module")
def case():
    return build_case(CONFIG, Machine(lanes=4, banks=2, post_lanes=2), seed=4, frames=2)


def without_clocks(fragment: Fragment) -> Fragment:
    """The design, but its domains get their clocks from the simulator, which runs an edge that passes through
    assignments later than one that does not.
    """
    for domain, statements in fragment.statements.items():
        kept = [s for s in statements if not isinstance(getattr(s, "lhs", None), ClockSignal)]
        fragment.statements[domain] = _StatementList(kept)
    for inner, _, _ in fragment.subfragments:
        without_clocks(inner)
    return fragment


def simulate(dut, bench, background=(), deadline=20_000):
    """Both domains of the board have one clock; `dut` may be elaborated."""
    sim = Simulator(without_clocks(Fragment.get(dut, None)))
    for domain in ("link", "sync"):
        sim.add_clock(PERIOD, domain=domain)

    async def watchdog(ctx):
        await ctx.delay(deadline * PERIOD)
        raise TimeoutError(f"no end within {deadline} cycles")

    sim.add_testbench(watchdog, background=True)
    sim.add_testbench(bench)
    for other in background:
        sim.add_testbench(other, background=True)
    sim.run()


def listener(dut, said: bytearray):
    """Bytes of the line, sampled in the middle of every bit."""

    async def listen(ctx):
        while True:
            while ctx.get(dut.tx):
                await ctx.tick()
            byte = 0
            for cycle in range(CYCLES // 2, CYCLES * 10):
                bit, place = divmod(cycle, CYCLES)
                if place == CYCLES // 2:
                    byte |= ctx.get(dut.tx) << bit
                await ctx.tick()
            assert byte >> 9 and not byte & 1  # stop and start
            said.append(byte >> 1 & 0xFF)

    return listen


def lights(dut, life: list, fault: list):
    """Cycles in which a light changes."""

    async def watch(ctx):
        lights, cycle = [(dut.life, 0, life), (dut.fault, 0, fault)], 0
        while True:
            for number, (light, before, changes) in enumerate(lights):
                now = ctx.get(light)
                if now != before:
                    changes.append(cycle)
                lights[number] = light, now, changes
            await ctx.tick()
            cycle += 1

    return watch


class Host:
    """The other end of the line."""

    def __init__(self, dut: SerialAccelerator):
        self.dut, self.said, self.answers, self._decoder = dut, bytearray(), [], FrameDecoder()

    async def ask(self, ctx, *requests):
        """Sends requests without a pause, and waits for as many answers."""
        for kind, payload in requests:
            for byte in encode(Frame(kind, len(self.answers) + 7, payload)):
                await drive(ctx, self.dut.rx, byte, CYCLES)
        expected = len(self.answers) + len(requests)
        while len(self.answers) < expected:
            await ctx.tick()
            self.answers.extend(self._decoder.feed(bytes(self.said)))
            self.said.clear()

    def is_result(self, answer: Frame, logits: list[int]) -> bool:
        words = unpack_result(self.dut.identity, answer.payload)
        return answer.kind == Kind.RESULT and words == [*logits, int(np.argmax(logits))]


def test_images_come_back_as_results(case):
    """Who it is, two images, and a frame that is refused: as the golden model says, and a light shows it."""
    dut, fault = SerialAccelerator(case.params, case.machine, LINE), []
    host = Host(dut)
    first, second = (image.tobytes() for image in case.images)

    async def bench(ctx):
        await host.ask(ctx, (Kind.HELLO, b""))
        await host.ask(ctx, (Kind.CLASSIFY, first), (Kind.CLASSIFY, second))
        await host.ask(ctx, (Kind.CLASSIFY, first[:-1]))
        identity = Identity.unpack(host.answers[0].payload)
        assert identity == dut.identity and (identity.window, identity.clock) == (2, 1200)
        for answer, logits in zip(host.answers[1:3], case.golden["head.logits"].tolist(), strict=True):
            assert host.is_result(answer, logits)
        assert (host.answers[3].kind, host.answers[3].payload[0]) == (Kind.ERROR, Code.LENGTH)
        await ctx.tick().repeat(350)

    simulate(dut, bench, [listener(dut, host.said), lights(dut, [], fault)])
    begins, ends = fault
    assert ends - begins == 300


@pytest.mark.parametrize("seed", [1, -1, 2])
def test_reset_out_of_any_state(case, seed):
    """Whatever registers and memories hold: after a cycle of reset and a pause on the line it is as new."""
    dut = SerialAccelerator(case.params, case.machine, LINE)
    host, life, fault = Host(dut), [], []
    inside = without_clocks(Fragment.get(dut, None))
    state = state_of_fragment(inside)

    async def bench(ctx):
        await ctx.tick()
        set_at_random(ctx, state, seed)
        ctx.set(dut.rst, 1)
        await ctx.tick()
        ctx.set(dut.rst, 0)
        for _ in range(12 * CYCLES):
            assert ctx.get(dut.tx) and not ctx.get(dut.fault) and not ctx.get(dut.life)
            await ctx.tick()
        host.said.clear()
        await host.ask(ctx, (Kind.CLASSIFY, case.images[1].tobytes()))
        assert host.is_result(host.answers[0], case.golden["head.logits"][1].tolist())

    simulate(inside, bench, [listener(dut, host.said), lights(dut, life, fault)])


def test_lights_without_a_word(case):
    """Half a second dark, half a second lit, and on; a reset begins anew; no frame was refused."""
    dut, life, fault = SerialAccelerator(case.params, case.machine, LINE), [], []

    async def bench(ctx):
        await ctx.tick().repeat(2000)
        ctx.set(dut.rst, 1)
        await ctx.tick()
        ctx.set(dut.rst, 0)
        await ctx.tick().repeat(601)
        assert ctx.get(dut.tx)

    simulate(dut, bench, [lights(dut, life, fault)])
    assert (life, fault) == ([600, 1200, 1800, 2001, 2601], [])


def test_clock_and_reset_are_those_of_the_pins(case):
    """The light follows the pin `clk`, and nothing moves in reset."""
    dut = SerialAccelerator(case.params, case.machine, LINE)
    sim = Simulator(dut)

    async def bench(ctx):
        for reset, expected in ((0, 1), (1, 0)):
            ctx.set(dut.rst, reset)
            for _ in range(600):
                for level in (1, 0):
                    ctx.set(dut.clk, level)
                    await ctx.delay(PERIOD)
            assert ctx.get(dut.life) == expected

    sim.add_testbench(bench)
    sim.run()


def test_streamed_weights_are_refused(case):
    with pytest.raises(UserError, match="machine m streams its weights, .*; change the machine"):
        SerialAccelerator(
            case.params, Machine(name="m", lanes=4, banks=2, post_lanes=2, weight_memory="stream"), LINE
        )
