"""docs/interface.md against the hardware: names, timing, errors, the weight stream written anew."""

import re
from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator

from s2tdpt.hw.blocks.images import stream_beats, stream_width
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.top import Accelerator
from s2tdpt.sim.cases import network
from tests.hw.core_bench import build_case

PAGE = (Path(__file__).parents[2] / "docs" / "interface.md").read_text()
MACHINE = Machine(lanes=8, banks=2, post_lanes=4)


def build(memory="rom", frames=2, **changes):
    machine = MACHINE.model_copy(update={"weight_memory": memory})
    return build_case(network(**changes), machine, frames=frames)


def names_of(cell):
    """Names in a table cell; one that begins with an underscore replaces the end of the one before."""
    names = []
    for name in re.findall(r"`([\w*]+)`", cell):
        if name.startswith("_"):
            name = names[-1].rsplit("_", name.count("_"))[0] + name
        names.append(name)
    return names


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("memory", ["rom", "stream"])
def test_page_lists_every_port(memory, registers):
    case = build(memory)
    rows = re.findall(r"^\| (`[^|]*) \| (in|out) \|", PAGE, re.MULTILINE)
    listed = {name: direction for cell, direction in rows for name in names_of(cell)}
    assert listed.pop("probe_*") == "out"
    if memory == "rom":
        listed = {name: way for name, way in listed.items() if "weights" not in name}

    if not registers:
        listed = {name: way for name, way in listed.items() if not name.startswith("s_axi_")}

    def directions(observed):
        ports = Accelerator(case.params, case.machine, observed, registers).ports()
        return {name: {"Input": "in", "Output": "out"}[way.name] for name, (_, way) in ports.items()}

    assert listed == directions(False)
    section = PAGE.split("## Observation port")[1].split("\n## ")[0]
    probes = [
        name for cell in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE) for name in names_of(cell)
    ]
    probes.remove("probe_attention_*")
    probes += [name.replace("layers", "attention") for name in probes if name.startswith("probe_layers_")]
    assert listed | dict.fromkeys(probes, "out") == directions(True)


class Driver:
    """A driver written from the page: one call is one clock cycle."""

    def __init__(self, dut, ctx):
        self.ctx = ctx
        self.ports = {name: value for name, (value, _) in dut.ports().items()}
        self.cycle = 0
        self.words, self.word_cycles, self.starts, self.dones, self.taken = [], [], [], [], []
        self.to_send = []  # (byte, last)
        self.ready = True

    def get(self, name):
        return self.ctx.get(self.ports[name])

    def set(self, name, value):
        self.ctx.set(self.ports[name], value)

    async def clock(self, reset=False):
        sending = bool(self.to_send) and not reset
        self.set("aresetn", not reset)
        self.set("s_axis_tvalid", sending)
        if sending:
            self.set("s_axis_tdata", self.to_send[0][0])
            self.set("s_axis_tlast", self.to_send[0][1])
        self.set("m_axis_tready", self.ready)
        await self.ctx.delay(4e-7)
        if sending and self.get("s_axis_tready"):
            self.taken.append(self.cycle)
            self.to_send.pop(0)
        if self.get("m_axis_tvalid") and self.ready and not reset:
            self.words.append((self.get("m_axis_tdata"), self.get("m_axis_tlast")))
            self.word_cycles.append(self.cycle)
        if self.get("probe_start"):
            self.starts.append(self.cycle)
        if self.get("probe_complete"):
            self.dones.append(self.cycle)
        self.set("aclk", 1)
        await self.ctx.delay(5e-7)
        self.set("aclk", 0)
        await self.ctx.delay(1e-7)
        self.cycle += 1

    async def until_words(self, count, limit=20_000):
        while len(self.words) < count:
            await self.clock()
            assert self.cycle < limit, f"{len(self.words)} of {count} words after {limit} cycles"


def run(case, scenario):
    dut = Accelerator(case.params, case.machine, observed=True)

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
    operations, classes = len(case.program.steps), case.params.config.num_classes

    async def prompt(driver):
        driver.to_send = packet(case.images[0])
        await driver.until_words(classes + 1)
        last_byte = driver.taken[-1]
        assert driver.taken == list(range(1, last_byte + 1))  # a byte a cycle
        assert driver.starts[0] == last_byte + 2
        assert len(driver.starts) == len(driver.dones) == operations
        done = driver.dones[-1]
        assert driver.word_cycles == list(range(done + 2, done + 2 + classes + 1))
        assert driver.words == expected(case, 0)
        assert not driver.get("busy")

    async def held(driver):
        driver.ready = False
        driver.to_send = packet(case.images[0]) + packet(case.images[1])
        while len(driver.starts) < 2 * operations - 1:  # every layer of the second image but the head
            await driver.clock()
        for _ in range(200):
            await driver.clock()
        assert len(driver.starts) == 2 * operations - 1
        assert driver.get("m_axis_tdata") == expected(case, 0)[0][0]
        assert driver.get("busy")
        driver.ready = True
        await driver.until_words(2 * (classes + 1))
        assert driver.words == expected(case, 0) + expected(case, 1)

    async def flowing(driver):
        driver.to_send = packet(case.images[0]) + packet(case.images[1])
        await driver.until_words(2 * (classes + 1))
        assert driver.starts[operations] == driver.dones[operations - 1] + 3
        assert driver.words == expected(case, 0) + expected(case, 1)

    run(case, prompt)
    run(case, flowing)
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
            flags.append([driver.get(name) for name in dut_flags])
        await driver.until_words(len(expected(case, 0)) * 2)
        for _ in range(50):
            await driver.clock()
        assert driver.words == expected(case, 0) + expected(case, 1)
        assert flags == [[1, 0], [1, 1]]
        await driver.clock(reset=True)
        assert [driver.get(name) for name in dut_flags] == [0, 0]

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
        assert not driver.get("m_axis_tvalid") and not driver.get("busy")
        driver.words.clear()
        driver.to_send = packet(case.images[1])
        await driver.until_words(len(expected(case, 1)))
        assert driver.words == expected(case, 1)

    run(case, scenario)


# --- weight stream, written from the page alone ------------------------------------------------------------


class Slots:
    """Channels of a tensor in slots of words of `size`."""

    def __init__(self, channels, size, head_dim=None, part=1):
        self.size = size
        self.slot = list(range(channels))
        if head_dim is not None:
            head = -(-head_dim // part) * part
            self.slot = [c // head_dim * head + c % head_dim for c in range(channels)]
        self.channel = {slot: c for c, slot in enumerate(self.slot)}
        self.count = max(self.slot) + 1
        self.words = -(-self.count // size)

    def used(self, word):
        """Slots of a word from its lane 0 to its last channel."""
        return min(self.size, self.count - word * self.size)


def pack(fields):
    """(value, bits) from bit 0 on."""
    word = position = 0
    for value, bits in fields:
        word |= (int(value) % 2**bits) << position
        position += bits
    return word


def order_of_the_page(config, machine):
    """(layer, inputs, outputs, group) of every tile."""
    lanes, post, dim = machine.lanes, machine.post_lanes, config.embed_dim
    heads = Slots(dim, lanes, config.head_dim, post)
    inputs, found = config.image_channels, []
    for i, channels in enumerate(config.sps_channels):
        sink, source = Slots(channels, lanes), Slots(inputs if i else 9 * inputs, lanes)
        found += [(f"sps.{i}", source, sink, group) for group in range(sink.words)]
        inputs = channels
    plain, hidden = Slots(dim, lanes), Slots(config.hidden_dim, lanes)
    for b in range(config.depth):
        for group in range(heads.words):
            found += [(f"block.{b}.{letter}", plain, heads, group) for letter in "qkv"]
        for name, source, sink in (("proj", heads, plain), ("fc1", plain, hidden), ("fc2", hidden, plain)):
            found += [(f"block.{b}.{name}", source, sink, group) for group in range(sink.words)]
    sink = Slots(config.num_classes, lanes)
    return found + [("head", Slots(dim, post), sink, group) for group in range(sink.words)]


def beats_of_the_page(params, machine, widths):
    config, lanes, banks, post = params.config, machine.lanes, machine.banks, machine.post_lanes
    beat_bits = -(-lanes * config.weight_bits // 8) * 8
    beats = []
    writers = {f"sps.{len(config.sps_channels) - 1}"}
    for b in range(config.depth):
        writers |= {f"block.{b}.proj", f"block.{b}.fc2"}
    for layer, source, sink, group in order_of_the_page(config, machine):
        weight = params.tensors[f"{layer}.weight"].astype(int)
        weight = weight.reshape(*weight.shape[:2], -1)
        if layer == "sps.0":  # the window of pixels is one tap
            weight = weight.transpose(0, 2, 1).reshape(len(weight), -1, 1)
        lane_channels = [sink.channel.get(group * lanes + lane) for lane in range(lanes)]
        for first in range(0, sink.used(group), post):
            channels = lane_channels[first : first + post]

            def constant(name, c, layer=layer):
                tensor = params.tensors.get(f"{layer}.{name}")
                if name == "threshold" and layer in writers:
                    return params.residual_threshold
                if c is None or tensor is None:
                    return 1 if name == "threshold" else 0
                if name == "shift":
                    return int(tensor[c]) - widths.min_shift
                # Neurons that write no U compute on the grid of the smallest shift.
                finer = 0 if layer in writers or layer == "head" else widths.min_shift
                return int(tensor[c]) << finer

            sizes = {"bias": widths.bias, "shift": widths.shift, "threshold": widths.threshold}
            word = pack([(constant(name, c), bits) for c in channels for name, bits in sizes.items()])
            beats += [
                word >> low & (2**beat_bits - 1) for low in range(0, post * sum(sizes.values()), beat_bits)
            ]
        for tap in range(weight.shape[2]):
            for word in range(source.words):
                for row in range(-(-source.used(word) // banks)):
                    for bank in range(banks):
                        lane = row * banks + bank
                        i = source.channel.get(word * source.size + lane) if lane < source.size else None
                        values = [0 if o is None or i is None else weight[o, i, tap] for o in lane_channels]
                        beats.append(pack([(value, config.weight_bits) for value in values]))
    return beats


@pytest.mark.parametrize(
    "lanes,banks,post,changes",
    [
        (8, 2, 4, {}),
        (8, 4, 2, {"weight_bits": 4, "num_classes": 11}),  # several groups of logits
        (8, 1, 4, {"sps_channels": (5, 15), "heads": 5, "depth": 2}),  # a slot of every head left over
        (6, 3, 2, {"sps_channels": (3, 4, 12), "sps_pool": (False, True, False), "weight_bits": 4}),
        (4, 4, 1, {"sps_channels": (3, 10)}),  # heads of five channels in words of four
    ],
)
def test_weight_stream_of_the_page(lanes, banks, post, changes):
    machine = Machine(lanes=lanes, banks=banks, post_lanes=post, weight_memory="stream")
    case = build_case(network(**changes), machine, frames=1, attempts=1)
    assert stream_width(case.program) == -(-lanes * case.params.config.weight_bits // 8) * 8
    ours = beats_of_the_page(case.params, machine, case.widths)
    theirs = stream_beats(case.params, case.program, case.widths)
    assert np.array_equal(np.array(ours, object), np.array(theirs, object))
