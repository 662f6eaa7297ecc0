"""Whole accelerators: lint, no multiplier, the same text every time; the published sizes with -m wide."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Fragment
from amaranth.sim import Simulator

from s2tdpt.golden import register_map as names
from s2tdpt.golden.config import CONFIG_DIRECTORY, load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params, random_params
from s2tdpt.hw.blocks.images import stream_beats
from s2tdpt.hw.plan.machine import Machine, load_machine, named_machines
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.verilog import emit, lint, read_ports
from s2tdpt.sim.cases import build_case, network
from tests.hw.core_bench import set_at_random, state_of_fragment
from tests.hw.test_core import CASES
from tests.hw.util import PERIOD

MULTIPLICATION = re.compile(r"[\w\])}] ?\* ?[\w({]|\*\*")
"""A product between two operands; attributes ``(* *)`` and comments are stripped first."""


def products(verilog: str) -> list[str]:
    """Lines that multiply."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*|\(\*.*?\*\)", "", verilog, flags=re.DOTALL)
    text = re.sub(r"@ ?\*|@ ?\( ?\* ?\)", "", text)
    return [line for line in text.splitlines() if MULTIPLICATION.search(line)]


def check(path, verilog: str) -> None:
    """Lint with every warning on; no line multiplies or divides."""
    path.write_text(verilog)
    lint([path], "s2tdpt")
    assert products(verilog) == []


def test_products_are_seen():
    assert products("assign y = a * b;\nassign z = a[3:0]*(b);\nw <= x ** 2;\n") == [
        "assign y = a * b;",
        "assign z = a[3:0]*(b);",
        "w <= x ** 2;",
    ]
    assert products("always @* begin\n(* keep *) wire a; // a * b\nalways @(*) c = a;\n") == []


def verilog_of(accelerator: Accelerator) -> str:
    return emit(accelerator, "s2tdpt", accelerator.ports())


def text_of(case: str) -> str:
    """A case of the core's tests."""
    network, machine = CASES[case]
    return verilog_of(Accelerator(random_params(network, 0), machine))


@pytest.fixture(scope="module")
def digits_text() -> str:
    """The shipped network on the machine that is the default."""
    params = Params.load(CONFIG_DIRECTORY.parent / "models" / "digits.safetensors")
    return verilog_of(Accelerator(params, load_machine()))


def test_digits_lints_clean_and_has_no_multiplier(tmp_path, digits_text):
    check(tmp_path / "digits.sv", digits_text)


NARROW = ("one_step", "one_pixel", "one_lane", "streamed_int4", "pixels_wider_than_a_word")


@pytest.mark.parametrize(
    "name", [*NARROW, *(pytest.param(name, marks=pytest.mark.wide) for name in CASES if name not in NARROW)]
)
def test_odd_shapes_lint_clean(tmp_path, name):
    """One time step, one token, one lane: what has no bits is not written as a vector."""
    text = text_of(name)
    check(tmp_path / "top.sv", text)
    assert "[-1:0]" not in text


def test_observed_text_lints_clean(tmp_path):
    network, machine = CASES["two_banks"]
    check(tmp_path / "top.sv", verilog_of(Accelerator(random_params(network, 0), machine, observed=True)))


def test_text_is_the_same_in_every_process(tmp_path):
    """Hash seeds differ between processes, and with them the order of sets."""
    program = (
        "import sys; from tests.hw.test_top import text_of;"
        "open(sys.argv[1], 'w').write(text_of('two_banks') + text_of('streamed'))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / f"{seed}.sv"],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "1.sv").read_text() == (tmp_path / "2.sv").read_text()


def test_digits_ports(digits_text):
    ports = {port.name: port for port in read_ports(digits_text, "s2tdpt")}
    assert set(ports) == {
        *("aclk", "aresetn", "busy", "error_short", "error_long"),
        *("s_axis_tdata", "s_axis_tvalid", "s_axis_tready", "s_axis_tlast"),
        *("m_axis_tdata", "m_axis_tvalid", "m_axis_tready", "m_axis_tlast"),
    }
    assert ports["s_axis_tdata"].width == 8
    assert ports["m_axis_tdata"].width in (32, 64)


@pytest.mark.wide
@pytest.mark.parametrize("name", ["s2tdpt-2-128", "s2tdpt-2-384", "s2tdpt-4-256", "s2tdpt-4-384"])
def test_published_sizes_with_streamed_weights(tmp_path, name):
    """Random parameters; only some tiles of weights at a time are on chip, so the text stays small."""
    machine = Machine(weight_memory="stream")
    verilog = verilog_of(Accelerator(random_params(load_config(name), 0), machine))
    check(tmp_path / "top.sv", verilog)
    assert "s_axis_weights_tdata" in {port.name for port in read_ports(verilog, "s2tdpt")}


@pytest.mark.wide
@pytest.mark.parametrize("weight_memory", ["rom", "stream"])
@pytest.mark.parametrize("name", named_machines())
def test_named_machines_lint_clean(tmp_path, name, weight_memory):
    machine = load_machine(name).model_copy(update={"weight_memory": weight_memory})
    check(tmp_path / "top.sv", verilog_of(Accelerator(random_params(load_config("digits"), 0), machine)))


def test_more_memory_than_can_be_generated():
    """65,536 pixels: refused at once, with what helps, rather than after an hour and for want of memory."""
    network, machine = CASES["two_banks"]
    tall = network.model_copy(update={"image_height": 65536, "image_width": 1, "sps_channels": (48, 96)})
    message = (
        r"^tiny on machine custom has [\d,]+ bits of memory, most of them in residual U; expected at most "
    )
    with pytest.raises(UserError, match=message + "100,663,296; change residual_fraction_bits, post_lanes$"):
        Accelerator(random_params(tall, 0), machine)


# ---- in the simulator, by its own pins -------------------------------------------------------------------


def on_its_pins(dut, bench, *background, elaborated=None):
    """Runs ``bench(ctx)``; the clock is that of the pin `aclk`, and the reset that of `aresetn`."""
    sim = Simulator(elaborated or dut)

    async def clock(ctx):
        while True:
            for level in (1, 0):
                await ctx.delay(PERIOD / 2)
                ctx.set(dut.aclk, level)

    async def reset(ctx):
        for _ in range(3):
            await ctx.tick()
        ctx.set(dut.aresetn, 1)

    async def watchdog(ctx):
        await ctx.delay(6000 * PERIOD)
        raise TimeoutError("no end within 6000 cycles")

    for other in (clock, reset, watchdog, *background):
        sim.add_testbench(other, background=True)
    sim.add_testbench(bench)
    sim.run()


async def send(ctx, bus, values):
    """A packet, without a pause."""
    for number, value in enumerate(values, 1):
        ctx.set(bus.tdata, value)
        ctx.set(bus.tlast, number == len(values))
        ctx.set(bus.tvalid, 1)
        taken = False
        while not taken:
            _, _, taken = await ctx.tick().sample(bus.tready)
    ctx.set(bus.tvalid, 0)


async def receive(ctx, bus, count):
    """Words of a packet, as they are on the bus."""
    ctx.set(bus.tready, 1)
    words = []
    while len(words) < count:
        _, _, valid, data, last = await ctx.tick().sample(bus.tvalid, bus.tdata, bus.tlast)
        if valid:
            words.append(data)
            assert last == (len(words) == count)
    ctx.set(bus.tready, 0)
    return words


async def read(ctx, bus, register, word=0):
    ctx.set(bus.araddr, register.offset + 4 * word)
    ctx.set(bus.arvalid, 1)
    ctx.set(bus.rready, 1)
    ready = valid = False
    while not ready:
        _, _, ready = await ctx.tick().sample(bus.arready)
    ctx.set(bus.arvalid, 0)
    while not valid:
        _, _, valid, data, response = await ctx.tick().sample(bus.rvalid, bus.rdata, bus.rresp)
    assert response == 0
    return data


async def control(ctx, bus, value):
    ctx.set(bus.awaddr, names.CONTROL.offset)
    ctx.set(bus.wdata, value)
    ctx.set(bus.wstrb, 15)
    for signal in (bus.awvalid, bus.wvalid, bus.bready):
        ctx.set(signal, 1)
    answered = False
    while not answered:
        ready = bus.bvalid, bus.awready, bus.wready
        _, _, answered, *taken = await ctx.tick().sample(*ready)
        for valid, done in zip((bus.awvalid, bus.wvalid), taken, strict=True):
            if done:
                ctx.set(valid, 0)
    assert not ctx.get(bus.awvalid) and not ctx.get(bus.wvalid)


def small(weight_memory):
    config = network(image_height=2, image_width=1, sps_channels=(2, 4), sps_pool=(False, False), heads=1)
    machine = Machine(lanes=4, banks=2, post_lanes=2, weight_memory=weight_memory)
    return build_case(config, machine, seed=4, frames=2)


def words_of(case, dut):
    mask = (1 << len(dut.core.results.tdata)) - 1
    return [
        [word & mask for word in (*logits, label)]
        for logits, label in zip(
            case.golden["head.logits"].tolist(), case.golden["head.class"].tolist(), strict=True
        )
    ]


def test_images_pass_by_the_pins():
    """Weights on chip: two images, results as the golden model's; a short and a long one raise flags."""
    case = small("rom")
    dut = Accelerator(case.params, case.machine, observed=True)
    found, seen, images = [], set(), [image.tobytes() for image in case.images]

    async def sender(ctx):
        while not ctx.get(dut.aresetn):
            await ctx.tick()
        for packet in (images[0], images[0][:1], images[1], images[1] + b"!"):
            await send(ctx, dut.core.pixels, packet)

    async def watch(ctx):
        while True:
            await ctx.tick()
            seen.update(
                name
                for name in ("busy", "error_short", "error_long")
                if ctx.get(getattr(dut.core, name)) == (len(found) < 2 if name == "busy" else 1)
            )

    async def bench(ctx):
        while len(found) < 2:
            found.append(await receive(ctx, dut.core.results, 4))
        for _ in range(20):
            await ctx.tick()
        assert not ctx.get(dut.core.busy) and ctx.get(dut.core.error_short) and ctx.get(dut.core.error_long)
        assert ctx.get(dut.core.probe.step) == len(dut.program.steps) - 1

    on_its_pins(dut, bench, sender, watch)
    assert found == words_of(case, dut) and seen == {"busy", "error_short", "error_long"}


def test_images_pass_when_the_registers_let_them():
    """Nothing before START; an image; then ENABLE. Streamed weights, one packet of which ends too early."""
    case = small("stream")
    dut = Accelerator(case.params, case.machine, registers=True)
    images, done = [image.tobytes() for image in case.images], []
    beats = stream_beats(case.params, dut.program, dut.widths)

    async def pixels(ctx):
        while not ctx.get(dut.aresetn):
            await ctx.tick()
        for packet in (*images, images[0][:1], images[0] * 2):
            await send(ctx, dut.core.pixels, packet)
            done.append(packet)

    async def weights(ctx):
        while not ctx.get(dut.aresetn):
            await ctx.tick()
        await send(ctx, dut.core.weights, beats)
        await send(ctx, dut.core.weights, beats[:-1])

    async def bench(ctx):
        expected = words_of(case, dut)
        while not ctx.get(dut.aresetn):
            await ctx.tick()
        for _ in range(30):
            await ctx.tick()
        assert not done and not ctx.get(dut.core.busy)
        hashed = [await read(ctx, dut.bus, names.CONFIG_HASH, word) for word in range(8)]
        assert b"".join(word.to_bytes(4, "big") for word in hashed) == dut.constants.config_hash
        for register, value in ((names.FRAME_BYTES, 2), (names.RESULT_WORDS, 4), (names.STATUS, 0)):
            assert await read(ctx, dut.bus, register) == value
        await control(ctx, dut.bus, names.START.mask)
        assert await receive(ctx, dut.core.results, 4) == expected[0]
        assert done == images[:1]
        assert await read(ctx, dut.bus, names.STATUS) == 0
        assert await read(ctx, dut.bus, names.FRAMES) == 1
        cycles = await read(ctx, dut.bus, names.CYCLES)
        assert 100 < cycles < 2000
        await control(ctx, dut.bus, names.ENABLE.mask)
        while not ctx.get(dut.core.error_weights) or len(done) < 4:
            await ctx.tick()
        status = await read(ctx, dut.bus, names.STATUS)
        flags = names.ERROR_SHORT.mask | names.ERROR_LONG.mask | names.ERROR_WEIGHTS.mask
        assert status & flags == flags and status & names.BUSY.mask
        assert await read(ctx, dut.bus, names.SHORT_FRAMES) == 1
        assert await read(ctx, dut.bus, names.LONG_FRAMES) == 1

    on_its_pins(dut, bench, pixels, weights)


@pytest.mark.parametrize("seed", [1, -1, 2])
def test_reset_out_of_any_state_with_registers(seed):
    """Whatever registers and memories hold: after the reset nothing is on the buses, and an image passes."""
    case = small("rom")
    dut = Accelerator(case.params, case.machine, registers=True)
    inside = Fragment.get(dut, None)
    state = state_of_fragment(inside)

    async def bench(ctx):
        set_at_random(ctx, state, seed)
        while not ctx.get(dut.aresetn):
            await ctx.tick()
        bus = dut.bus
        for _ in range(5):
            assert (
                not ctx.get(bus.bvalid) and not ctx.get(bus.rvalid) and not ctx.get(dut.core.results.tvalid)
            )
            assert ctx.get(bus.awready) and ctx.get(bus.wready) and ctx.get(bus.arready)
            await ctx.tick()
        for register in (names.STATUS, names.CONTROL, names.FRAMES, names.CYCLES):
            assert await read(ctx, bus, register) == 0
        for register in (names.SHORT_FRAMES, names.LONG_FRAMES):
            assert await read(ctx, bus, register) == 0
        await control(ctx, bus, names.START.mask)
        assert await read(ctx, bus, names.STATUS) == names.PENDING.mask
        await send(ctx, dut.core.pixels, case.images[0].tobytes())
        assert await receive(ctx, dut.core.results, 4) == words_of(case, dut)[0]
        assert await read(ctx, bus, names.FRAMES) == 1

    on_its_pins(dut, bench, elaborated=inside)
