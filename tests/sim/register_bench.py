"""The registers of a whole accelerator on its bus: this module runs inside the simulator, under cocotb.

The masters are those of cocotbext-axi. Job (JSON): ``frames`` (packets in hexadecimal, in order; START lets
the first one in, ENABLE the others), ``results`` (of so many comes a result), ``stall``, ``seed``, ``limit``.
"""

import json
import logging
import os
import random
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Timer, with_timeout
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from s2tdpt.golden import register_map as names
from s2tdpt.golden.register_map import MAP
from s2tdpt.sim.stalls import pauses

PERIOD = 2
PATIENCE = 200
"""Cycles in which something would happen that must not."""


class Bench:
    """The three buses, and what was read."""

    def __init__(self, dut, job):
        for name in ("s_axis", "m_axis", "s_axi"):
            logging.getLogger(f"cocotb.{dut._name}.{name}").setLevel(logging.WARNING)
        reset = {"reset": dut.aresetn, "reset_active_level": False}
        self.dut, self.job = dut, job
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.aclk, **reset)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.aclk, byte_lanes=1, **reset)
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.aclk, **reset)
        self.refused = 0

    async def start(self):
        """Reset, then pauses on all channels."""
        dut, job = self.dut, self.job
        for name in ("record", "wave_first", "wave_last", "aresetn"):
            getattr(dut, name).value = 0
        await Timer(PERIOD, "step")
        Clock(dut.aclk, PERIOD, "step", impl="gpi").start()
        await ClockCycles(dut.aclk, 8)
        dut.aresetn.value = 1
        await ClockCycles(dut.aclk, 2)
        write, read = self.master.write_if, self.master.read_if
        channels = (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel)
        for number, channel in enumerate((self.source, self.sink, *channels)):
            generator = pauses(job["stall"], job["seed"], str(number))
            if generator is not None:
                channel.set_pause_generator(generator)

    async def read(self, register, word=0):
        """A word, and whether the answer was OKAY."""
        answer = await self.master.read(register.offset + 4 * word, 4)
        return int.from_bytes(answer.data, "little"), int(answer.resp) == 0

    async def control(self, value):
        answer = await self.master.write(names.CONTROL.offset, value.to_bytes(4, "little"))
        assert int(answer.resp) == 0

    async def everything(self):
        """All registers by name."""
        found = {}
        for register in MAP.registers:
            words = [await self.read(register, word) for word in range(register.words)]
            assert all(okay for _, okay in words)
            found[register.name] = [value for value, _ in words]
        return found

    async def pester(self):
        """Write what cannot be written and read where nothing is, for as long as the run goes on."""
        generator = random.Random(self.job["seed"])
        while True:
            register = generator.choice([r for r in MAP.registers if not r.writable])
            answer = await self.master.write(register.offset, generator.randbytes(4))
            assert int(answer.resp) == 2
            answer = await self.master.read(0x60 + 4 * generator.randrange(8), 4)
            assert int(answer.resp) == 2
            self.refused += 2
            await ClockCycles(self.dut.aclk, generator.randrange(1, 40))

    async def result(self):
        frame = await with_timeout(self.sink.recv(), self.job["limit"] * PERIOD, "step")
        status = [(await self.read(register))[0] for register in (names.FRAMES, names.CYCLES)]
        return {"words": list(frame.tdata), "frames": status[0], "cycles": status[1]}


async def play(bench) -> dict:
    """Nothing before START; one image; nothing more; the others; nothing after ENABLE is withdrawn."""
    dut, frames = bench.dut, [bytes.fromhex(frame) for frame in bench.job["frames"]]
    found = {"reset": await bench.everything(), "results": []}
    for frame in frames:
        bench.source.send_nowait(AxiStreamFrame(frame))
    await ClockCycles(dut.aclk, PATIENCE)
    found["closed"] = await bench.everything()
    await bench.control(names.START.mask)
    found["results"].append(await bench.result())
    await ClockCycles(dut.aclk, PATIENCE)
    found["single"] = await bench.everything()
    cocotb.start_soon(bench.pester())
    await bench.control(names.ENABLE.mask)
    found["results"] += [await bench.result() for _ in range(bench.job["results"] - 1)]
    await bench.control(0)
    bench.source.send_nowait(AxiStreamFrame(frames[0]))
    await ClockCycles(dut.aclk, PATIENCE)
    found["end"] = await bench.everything()
    found |= {"extra": bench.sink.count(), "refused": bench.refused}
    return found


@cocotb.test()
async def run_registers(dut):
    """Run the job and write what was read."""
    bench = Bench(dut, json.loads(Path(os.environ["S2TDPT_JOB"]).read_text(encoding="utf-8")))
    await bench.start()
    found = await play(bench) | {"deadlock": None}
    Path(os.environ["S2TDPT_RESULT"]).write_text(json.dumps(found), encoding="utf-8")
