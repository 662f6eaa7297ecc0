"""docs/interface.md against the hardware: names, timing, errors, the weight stream written anew."""

import re
from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator

from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.images import stream_beats
from s2tdpt.hw.top import Accelerator
from s2tdpt.hw.weights import stream_width
from tests.hw.core_bench import build_case, network

PAGE = (Path(__file__).parents[2] / "docs" / "interface.md").read_text()
MACHINE = HardwareConfig(lanes=8, rows=1, post_lanes=4)


def build(memory="rom", frames=2, **changes):
    hardware = MACHINE.model_copy(update={"weight_memory": memory})
    return build_case(network(**changes), hardware, frames=frames)


@pytest.mark.parametrize("memory", ["rom", "stream"])
def test_page_lists_every_port(memory):
    case = build(memory)
    members = Accelerator(case.params, case.hardware).signature.members
    rows = re.findall(r"^\| (`[^|]*) \| (in|out) \|", PAGE, re.MULTILINE)
    listed = {name: direction for cell, direction in rows for name in re.findall(r"`([\w*]+)`", cell)}
    assert listed.pop("probe_*") == "out"
    section = PAGE.split("## Observation port")[1].split("\n## ")[0]
    for cell in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE):
        listed |= dict.fromkeys(re.findall(r"`(\w+)`", cell), "out")
    if memory == "rom":
        listed = {name: way for name, way in listed.items() if "weights" not in name}
    assert listed == {name: member.flow.name.lower() for name, member in members.items()}


class Driver:
    """A driver written from the page: one call is one clock cycle."""

    def __init__(self, dut, ctx):
        self.dut, self.ctx = dut, ctx
        self.cycle = 0
        self.words, self.word_cycles, self.starts, self.dones, self.taken = [], [], [], [], []
        self.to_send = []  # (byte, last)
        self.ready = True

    async def clock(self, reset=False):
        dut, ctx = self.dut, self.ctx
        sending = bool(self.to_send) and not reset
        ctx.set(dut.aresetn, not reset)
        ctx.set(dut.s_axis_tvalid, sending)
        if sending:
            ctx.set(dut.s_axis_tdata, self.to_send[0][0])
            ctx.set(dut.s_axis_tlast, self.to_send[0][1])
        ctx.set(dut.m_axis_tready, self.ready)
        await ctx.delay(4e-7)
        if sending and ctx.get(dut.s_axis_tready):
            self.taken.append(self.cycle)
            self.to_send.pop(0)
        if ctx.get(dut.m_axis_tvalid) and self.ready and not reset:
            self.words.append((ctx.get(dut.m_axis_tdata), ctx.get(dut.m_axis_tlast)))
            self.word_cycles.append(self.cycle)
        if ctx.get(dut.probe_start):
            self.starts.append(self.cycle)
        if ctx.get(dut.probe_done):
            self.dones.append(self.cycle)
        ctx.set(dut.aclk, 1)
        await ctx.delay(5e-7)
        ctx.set(dut.aclk, 0)
        await ctx.delay(1e-7)
        self.cycle += 1

    async def until_words(self, count, limit=20_000):
        while len(self.words) < count:
            await self.clock()
            assert self.cycle < limit, f"{len(self.words)} of {count} words after {limit} cycles"


def run(case, scenario):
    dut = Accelerator(case.params, case.hardware)

    async def testbench(ctx):
        driver = Driver(dut, ctx)
        await driver.clock(reset=True)
        await scenario(driver)

    sim = Simulator(dut)
    sim.add_testbench(testbench)
    sim.run()


def packet(image):
    data = image.reshape(-1).tolist()
    return [(byte, i == len(data) - 1) for i, byte in enumerate(data)]


def expected(case, index):
    logits = case.golden["head.logits"][index].tolist()
    classes = len(logits)
    words = [value % 2**32 for value in logits] + [int(case.golden["head.class"][index])]
    return [(word, int(i == classes)) for i, word in enumerate(words)]


def test_timing_and_backpressure():
    """The table of the page, with colour images, and again with a sink that holds the first result back."""
    case = build(image_channels=3, pixel_zero_point=128)
    operations, classes = len(case.program.ops), case.params.config.num_classes

    async def prompt(driver):
        driver.to_send = packet(case.images[0])
        await driver.until_words(classes + 1)
        last_byte = driver.taken[-1]
        assert driver.taken == list(range(1, last_byte + 1))  # a byte a cycle
        assert driver.starts[0] == last_byte + 4
        assert len(driver.starts) == len(driver.dones) == operations
        done = driver.dones[-1]
        assert driver.word_cycles == list(range(done + 1, done + 1 + classes + 1))
        assert driver.words == expected(case, 0)
        assert not driver.ctx.get(driver.dut.busy)

    async def held(driver):
        driver.ready = False
        driver.to_send = packet(case.images[0]) + packet(case.images[1])
        while len(driver.starts) < 2 * operations - 1:  # every layer of the second image but the head
            await driver.clock()
        for _ in range(200):
            await driver.clock()
        assert len(driver.starts) == 2 * operations - 1
        assert driver.ctx.get(driver.dut.m_axis_tdata) == expected(case, 0)[0][0]
        assert driver.ctx.get(driver.dut.busy)
        driver.ready = True
        await driver.until_words(2 * (classes + 1))
        assert driver.words == expected(case, 0) + expected(case, 1)

    run(case, prompt)
    run(case, held)


def test_malformed_images_cost_themselves_only():
    case = build()
    dut_flags = ("error_short", "error_long")

    async def scenario(driver):
        first, second = packet(case.images[0]), packet(case.images[1])
        short = [*first[:-2], (7, True)]
        long = [*[(byte, False) for byte, _ in first], (1, False), (2, True)]
        flags = []
        for beats in ([*short, *first], [*long, *second]):
            driver.to_send = beats
            while driver.to_send:
                await driver.clock()
            flags.append([driver.ctx.get(getattr(driver.dut, name)) for name in dut_flags])
        await driver.until_words(len(expected(case, 0)) * 2)
        for _ in range(50):
            await driver.clock()
        assert driver.words == expected(case, 0) + expected(case, 1)
        assert flags == [[1, 0], [1, 1]]
        await driver.clock(reset=True)
        assert [driver.ctx.get(getattr(driver.dut, name)) for name in dut_flags] == [0, 0]

    run(case, scenario)


@pytest.mark.parametrize("moment", ["receiving", "computing", "sending"])
def test_reset_drops_everything_in_flight(moment):
    case = build()

    async def scenario(driver):
        driver.to_send = packet(case.images[0])
        if moment == "receiving":
            while len(driver.to_send) > 3:
                await driver.clock()
        elif moment == "computing":
            while len(driver.starts) < 3:
                await driver.clock()
        else:
            await driver.until_words(1)
        driver.to_send = []
        await driver.clock(reset=True)
        assert not driver.ctx.get(driver.dut.m_axis_tvalid) and not driver.ctx.get(driver.dut.busy)
        driver.words.clear()
        driver.to_send = packet(case.images[1])
        await driver.until_words(len(expected(case, 1)))
        assert driver.words == expected(case, 1)

    run(case, scenario)


# --- weight stream, written from the page alone ------------------------------------------------------------


class Slots:
    def __init__(self, channels, lanes, head_dim=None):
        self.lanes = lanes
        if head_dim is None:
            self.slot = list(range(channels))
        else:
            p = lanes // head_dim
            self.slot = [
                (c // head_dim) // p * lanes + (c // head_dim) % p * head_dim + c % head_dim
                for c in range(channels)
            ]
        self.channel = {slot: c for c, slot in enumerate(self.slot)}
        self.count = max(self.slot) + 1

    def groups(self):
        return -(-self.count // self.lanes)

    def used(self, group):
        """Slots of a group from its lane 0 to its last channel."""
        return 1 + max(slot % self.lanes for slot in self.slot if slot // self.lanes == group)


def pack(fields):
    """(value, bits) from bit 0 on."""
    word = position = 0
    for value, bits in fields:
        word |= (int(value) % 2**bits) << position
        position += bits
    return word


def beats_of_the_page(params, hardware, widths):
    config, lanes, post = params.config, hardware.lanes, hardware.post_lanes
    beat_bits = -(-lanes * config.weight_bits // 8) * 8
    beats = []
    writers = {f"sps.{len(config.sps_channels) - 1}"}
    for b in range(config.depth):
        writers |= {f"block.{b}.proj", f"block.{b}.fc2"}
    for layer in config.layer_names():
        weight = params.tensors[f"{layer}.weight"].astype(int)
        weight = weight.reshape(*weight.shape[:2], -1)
        kind = layer.split(".")[-1]
        source = Slots(weight.shape[1], lanes, config.head_dim if kind == "proj" else None)
        sink = Slots(weight.shape[0], lanes, config.head_dim if kind in "qkv" else None)
        for group in range(sink.groups()):
            for subgroup in range(-(-sink.used(group) // post)):
                first = group * lanes + subgroup * post
                channels = [sink.channel.get(slot) for slot in range(first, first + post)]

                def constants(name, absent, bits, channels=channels, layer=layer):
                    tensor = params.tensors.get(f"{layer}.{name}")
                    return [(absent if c is None or tensor is None else tensor[c], bits) for c in channels]

                absent = params.residual_threshold if layer in writers else 1
                word = pack(
                    constants("bias", 0, widths.bias)
                    + constants("shift", 0, widths.shift)
                    + constants("threshold", absent, widths.threshold)
                )
                size = post * (widths.bias + widths.shift + widths.threshold)
                beats += [word >> low & (2**beat_bits - 1) for low in range(0, size, beat_bits)]
            for tap in range(weight.shape[2]):
                for slot in range(source.count):
                    lane_channels = [sink.channel.get(group * lanes + lane) for lane in range(lanes)]
                    i = source.channel.get(slot)
                    row = [0 if o is None or i is None else weight[o, i, tap] for o in lane_channels]
                    beats.append(pack([(value, config.weight_bits) for value in row]))
    return beats


@pytest.mark.parametrize(
    "lanes,post,changes",
    [
        (8, 4, {}),
        (8, 2, {"weight_bits": 4, "num_classes": 11}),  # several groups of logits
        (8, 4, {"sps_channels": (5, 15), "heads": 5, "depth": 2}),  # heads leave lanes unused
        (7, 1, {"sps_channels": (3, 4, 12), "sps_pool": (False, True, False), "weight_bits": 4}),
    ],
)
def test_weight_stream_of_the_page(lanes, post, changes):
    hardware = HardwareConfig(lanes=lanes, post_lanes=post, weight_memory="stream")
    case = build_case(network(**changes), hardware, frames=1)
    assert stream_width(case.program) == -(-lanes * case.params.config.weight_bits // 8) * 8
    ours = beats_of_the_page(case.params, hardware, case.widths)
    theirs = stream_beats(case.params, case.program, case.widths, stream_width(case.program))
    assert np.array_equal(np.array(ours, object), np.array(theirs, object))
