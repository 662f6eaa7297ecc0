"""RegisterBlock and FrameGate against their twins, cycle by cycle."""

import random
from dataclasses import dataclass

import pytest
from amaranth import unsigned

import s2tdpt.golden.registers
import s2tdpt.hw.bus.registers
from s2tdpt.golden import register_map as names
from s2tdpt.golden.register_map import MAP, Access
from s2tdpt.golden.registers import Constants, FrameGate, Registers
from s2tdpt.hw.bus import registers as hardware
from s2tdpt.hw.bus.axi_lite import AxiLiteEnd
from tests.hw.util import simulate, state_of

CONSTANTS = Constants(20, 4, 4, bytes(range(100, 132)))


@dataclass
class Held:
    """A channel whose master keeps to what it has offered."""

    rng: random.Random
    chance: float
    valid: bool = False
    value: int = 0

    def offer(self, taken: bool, choose) -> None:
        """The next cycle's offer; `taken`: the last one's was."""
        if self.valid and not taken:
            return
        self.valid = self.rng.random() < self.chance
        self.value = choose()


@pytest.mark.parametrize("chance", [0.1, 0.5, 1.0])
def test_gate_is_its_twin(chance):
    dut, twin, rng = hardware.FrameGate(), FrameGate(), random.Random(1)
    passed = []

    async def bench(ctx):
        byte = Held(rng, chance)
        taken = True
        for _ in range(3000):
            byte.offer(taken, lambda: rng.getrandbits(9))
            ready, start = rng.random() < 0.7, rng.random() < 0.05
            if rng.random() < 0.05:
                twin.enable = not twin.enable
            ctx.set(dut.i.tvalid, byte.valid)
            ctx.set(dut.i.tdata, byte.value & 0xFF)
            ctx.set(dut.i.tlast, byte.value >> 8)
            ctx.set(dut.o.tready, ready)
            ctx.set(dut.enable, twin.enable)
            ctx.set(dut.start, start)
            assert (ctx.get(dut.pending), ctx.get(dut.receiving)) == (twin.pending, twin.receiving)
            assert ctx.get(dut.o.tvalid) == (byte.valid and twin.open)
            assert ctx.get(dut.i.tready) == (ready and twin.open)
            assert (ctx.get(dut.o.tdata), ctx.get(dut.o.tlast)) == (byte.value & 0xFF, byte.value >> 8)
            taken = twin.cycle(byte.valid, ready, bool(byte.value >> 8), start)
            passed.append(taken)
            await ctx.tick()

    simulate(dut, bench, deadline=4000)
    assert 100 < sum(passed) < 3000
    assert state_of(hardware.FrameGate()) == (2, 0)


class Reference:
    """The block, cycle by cycle: the twin behind a bus of its own, written from the docstrings."""

    def __init__(self):
        self.twin = Registers(CONSTANTS)
        self.address = self.data = None  # of a write that waits for the other, or for the response before it
        self.responses = []  # of writes, offered
        self.reads = []
        self.started = None

    def cycle(self, now: int, inputs: dict) -> None:
        """What happens in a cycle; `inputs` are the transfers and events of it."""
        if inputs["read"] is not None:
            self.reads.append(self.twin.read(inputs["read"]))
        start = False
        if self.address is not None and self.data is not None and not self.responses:
            ok, start = self.twin.write(self.address, *self.data)
            self.responses.append(ok)
            self.address = self.data = None
        elif inputs["answered"]:
            self.responses.pop()
        self.address = inputs["address"] if inputs["address"] is not None else self.address
        self.data = inputs["data"] if inputs["data"] is not None else self.data
        enabled = self.twin.gate.enable
        self.twin.gate.enable = inputs["enabled"]
        self.twin.gate.cycle(*inputs["byte"], start)
        self.twin.gate.enable = enabled
        if inputs["complete"]:
            self.twin.complete(now - self.started - 1)
        if inputs["begin"]:
            self.started = now
        for short in (True, False):
            if inputs["short" if short else "long"]:
                self.twin.drop(short)


def run_block(seed: int, cycles: int, chance: float):
    """Everything at random, for some thousand cycles."""
    rng = random.Random(seed)
    dut, reference = hardware.RegisterBlock(CONSTANTS), Reference()
    twin, bus = reference.twin, dut.bus
    counts = dict.fromkeys(("reads", "writes", "bytes", "cycles"), 0)
    addresses = [word for word in range(0, 1 << MAP.address_bits)] + 40 * [names.CONTROL.offset]

    async def bench(ctx):
        aw, w, ar, byte = (Held(rng, chance) for _ in range(4))
        taken = dict.fromkeys((id(aw), id(w), id(ar), id(byte)), True)
        reading = None
        for now in range(cycles):
            aw.offer(taken[id(aw)], lambda: rng.choice(addresses))
            w.offer(taken[id(w)], lambda: (rng.getrandbits(32), rng.choice((15, 15, 15, rng.getrandbits(4)))))
            ar.offer(taken[id(ar)], lambda: rng.choice(addresses))
            byte.offer(taken[id(byte)], lambda: rng.getrandbits(8) | (rng.random() < 0.2) << 8)
            begin = rng.random() < 0.05 and reference.started is None
            complete = reference.started is not None and rng.random() < 0.03
            short, long = rng.random() < 0.02, rng.random() < 0.02
            bready, rready, tready = (rng.random() < 0.6 for _ in range(3))
            twin.busy, twin.error_weights = rng.random() < 0.5, rng.random() < 0.5
            for signal, value in (
                *((bus.awvalid, aw.valid), (bus.awaddr, aw.value)),
                *((bus.wvalid, w.valid), (bus.wdata, w.value[0]), (bus.wstrb, w.value[1])),
                *((bus.arvalid, ar.valid), (bus.araddr, ar.value)),
                *((bus.bready, bready), (bus.rready, rready)),
                *((dut.pixels.tvalid, byte.valid), (dut.pixels.tdata, byte.value & 0xFF)),
                *((dut.pixels.tlast, byte.value >> 8), (dut.gated.tready, tready)),
                *((dut.events.start, begin), (dut.events.complete, complete)),
                *((dut.events.short, short), (dut.events.long, long)),
                *((dut.busy, twin.busy), (dut.error_weights, twin.error_weights)),
                *((dut.error_short, twin._short), (dut.error_long, twin._long)),
            ):
                ctx.set(signal, value)
            assert ctx.get(bus.bvalid) == bool(reference.responses)
            if reference.responses:
                assert ctx.get(bus.bresp) == (0 if reference.responses[0] else 2)
            assert ctx.get(bus.rvalid) == (reading is not None)
            if reading is not None:
                assert (ctx.get(bus.rdata), ctx.get(bus.rresp)) == (reading[0], 0 if reading[1] else 2)
            moved = {
                id(aw): aw.valid and bool(ctx.get(bus.awready)),
                id(w): w.valid and bool(ctx.get(bus.wready)),
                id(ar): ar.valid and bool(ctx.get(bus.arready)),
                id(byte): byte.valid and bool(ctx.get(dut.pixels.tready)),
            }
            assert moved[id(aw)] == (aw.valid and reference.address is None)
            assert moved[id(w)] == (w.valid and reference.data is None)
            assert moved[id(ar)] == (ar.valid and reading is None)
            assert moved[id(byte)] == (byte.valid and tready and twin.gate.open)
            assert ctx.get(dut.gated.tvalid) == (byte.valid and twin.gate.open)
            assert ctx.get(dut.gated.tdata) | ctx.get(dut.gated.tlast) << 8 == byte.value
            reference.cycle(
                now,
                {
                    "read": ar.value if moved[id(ar)] else None,
                    "answered": bool(ctx.get(bus.bvalid)) and bready,
                    "address": aw.value if moved[id(aw)] else None,
                    "data": w.value if moved[id(w)] else None,
                    "enabled": twin.gate.enable,
                    "byte": (byte.valid, tready, bool(byte.value >> 8)),
                    "begin": begin,
                    "complete": complete,
                    "short": short,
                    "long": long,
                },
            )
            if complete and not begin:
                reference.started = None
            if moved[id(ar)]:
                reading = reference.reads[-1]
                counts["reads"] += 1
            elif rready:
                reading = None
            counts["writes"] += bool(ctx.get(bus.bvalid)) and bready
            counts["bytes"] += moved[id(byte)]
            counts["cycles"] = max(counts["cycles"], twin.cycles)
            taken = moved
            await ctx.tick()

    simulate(dut, bench, deadline=cycles + 10)
    return counts, twin


@pytest.mark.parametrize("seed, chance", [(1, 0.2), (2, 0.6), (3, 1.0)])
def test_block_is_its_twin(seed, chance):
    counts, twin = run_block(seed, 4000, chance)
    assert min(counts.values()) > 80
    assert twin.frames > 20 and twin.short_frames > 20 and twin.long_frames > 20


def test_counters_wrap_and_cycles_saturate(monkeypatch):
    """With five bits in place of 32: images and errors count on from 0, cycles stay at the largest number."""
    monkeypatch.setattr(hardware, "WORD", unsigned(5))
    monkeypatch.setattr(s2tdpt.golden.registers, "LARGEST", 31)
    counts, twin = run_block(4, 6000, 0.6)
    assert max(twin.frames, twin.short_frames, twin.long_frames) < 32 and counts["cycles"] == 31


def test_an_altered_block_differs_from_its_twin(monkeypatch):
    """The comparison notices what it is there for."""
    right = hardware.saturate
    monkeypatch.setattr(hardware, "saturate", lambda value, shape: right(value + 1, shape))
    with pytest.raises(AssertionError):
        run_block(1, 4000, 0.6)


def test_resources():
    flops = state_of(AxiLiteEnd(MAP.address_bits))[0] + state_of(hardware.FrameGate())[0]
    assert state_of(hardware.RegisterBlock(CONSTANTS)) == (flops + 5 * 32 + 1, 0)


def test_everything_after_reset_is_as_the_map_says():
    """Read over the bus: every word, and the addresses of no register."""
    dut = hardware.RegisterBlock(CONSTANTS)
    bus, found = dut.bus, {}

    async def bench(ctx):
        ctx.set(bus.rready, 1)
        for address in range(0, 1 << MAP.address_bits, 4):
            ctx.set(bus.araddr, address)
            ctx.set(bus.arvalid, 1)
            await ctx.tick()
            ctx.set(bus.arvalid, 0)
            found[address] = ctx.get(bus.rdata), ctx.get(bus.rresp)
            await ctx.tick()

    simulate(dut, bench, deadline=100)
    for address, (value, response) in found.items():
        register = MAP.at(address)
        assert response == (0 if register else 2)
        for field in register[0].fields if register else ():
            if field.reset is not None and field.access is not Access.PULSE:
                assert (value & field.mask) >> field.low == field.reset
    digest = b"".join(found[names.CONFIG_HASH.offset + 4 * word][0].to_bytes(4, "big") for word in range(8))
    assert digest == CONSTANTS.config_hash
    assert [found[register.offset][0] for register in MAP.registers[8:11]] == [20, 4, 4]
