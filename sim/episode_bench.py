"""Testbench of a campaign; runs inside the simulator, under cocotb, as `sim.bench` does.

One simulation passes through many episodes: each begins with a reset, sends packets of any length, and may be
cut off by another reset. What is right is not known here; the result file says what came.

Job (JSON): ``episodes``, each with ``before`` and ``packets`` (hexadecimal), ``reset_after`` (cycles or
null), ``hold``, ``stall``, ``seed``, ``results`` (frames to wait for), ``weights`` (how often the weights of
a frame are offered), ``weights_end`` (number of the beat that carries ``tlast`` too early, or null);
``weights`` (file of the words of one frame, or null), ``limit`` and ``drain`` as in `sim.bench`.
"""

import json
import logging
import os
import time
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, SimTimeoutError, Timer, with_timeout
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiStreamBus, AxiStreamSink, AxiStreamSource

from s2tdpt.sim.bench import ALWAYS, PERIOD, cycle_of
from s2tdpt.sim.stalls import pauses

FLAGS = ("error_short", "error_long", "error_weights", "busy")


class Bus:
    """The streams of an accelerator, used for one episode after the other."""

    def __init__(self, dut, job):
        self.dut, self.job = dut, job
        reset = {"reset": dut.aresetn, "reset_active_level": False}
        for name in ("s_axis", "m_axis", "s_axis_weights"):
            logging.getLogger(f"cocotb.{dut._name}.{name}").setLevel(logging.ERROR)
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.aclk, **reset)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.aclk, byte_lanes=1, **reset)
        self.weights, self.words = None, []
        if job["weights"]:
            bus = AxiStreamBus.from_prefix(dut, "s_axis_weights")
            self.weights = AxiStreamSource(bus, dut.aclk, byte_lanes=1, **reset)
            width = (len(dut.s_axis_weights_tdata) + 7) // 8
            raw = Path(job["weights"]).read_bytes()
            self.words = [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]

    def streams(self):
        """Name and driver of every stream there is."""
        named = (("source", self.source), ("sink", self.sink), ("weights", self.weights))
        return [(name, stream) for name, stream in named if stream is not None]

    async def start(self):
        """Idle inputs and a clock."""
        dut = self.dut
        dut.record.value = 0
        dut.wave_first.value = dut.wave_last.value = ALWAYS
        dut.aresetn.value = 0
        await Timer(PERIOD, "step")
        Clock(dut.aclk, PERIOD, "step", impl="gpi").start()
        await ClockCycles(dut.aclk, 2)

    async def reset(self, cycles):
        """Reset for some cycles; nothing of what was being sent or received survives."""
        self.dut.aresetn.value = 0
        for _, stream in self.streams():
            stream.clear_pause_generator()
            stream.pause = False
        await ClockCycles(self.dut.aclk, cycles)
        for _, stream in self.streams():
            stream.clear()
        self.dut.aresetn.value = 1

    def send(self, episode, packets):
        """Offer packets and weights, with pauses, all at once."""
        for name, stream in self.streams():
            generator = pauses(episode["stall"], episode["seed"], name)
            if generator is not None:
                stream.set_pause_generator(generator)
        for packet in packets:
            self.source.send_nowait(bytes.fromhex(packet))
        for _ in range(episode["weights"]):
            end = episode["weights_end"]
            if end is not None:
                self.weights.send_nowait(self.words[:end])
            self.weights.send_nowait(self.words[end or 0 :])

    async def receive(self, count, found):
        """Append result frames to `found`; returns the number of the frame that did not come, or None."""
        while len(found) < count:
            try:
                frame = await with_timeout(self.sink.recv(), self.job["limit"] * PERIOD, "step")
            except SimTimeoutError:
                return len(found)
            found.append(list(frame.tdata))
        return None

    async def play(self, episode):
        """One episode, from reset to rest; returns what was seen."""
        dut, outcome = self.dut, {"before": [], "results": [], "extra": 0, "lost": None}
        violations = int(dut.bench_violations.value)
        await self.reset(episode["hold"])
        if episode["reset_after"] is not None:
            self.send(episode, episode["before"])
            await ClockCycles(dut.aclk, episode["reset_after"])
            while not self.sink.empty():
                outcome["before"].append(list(self.sink.recv_nowait().tdata))
            await self.reset(episode["hold"])
        self.send(episode, episode["packets"])
        outcome["lost"] = await self.receive(episode["results"], outcome["results"])
        if outcome["lost"] is None and not await self.settled(episode):
            outcome["lost"] = len(outcome["results"])
        outcome["extra"] = self.sink.count()
        outcome["violations"] = int(dut.bench_violations.value) - violations
        for name in FLAGS:
            if hasattr(dut, name):
                value = getattr(dut, name).value
                outcome[name] = int(value) if value.is_resolvable else str(value)
        outcome["cycle"] = cycle_of(get_sim_time("step"))
        return outcome

    async def settled(self, episode):
        """Wait until all packets are in, and a while for what nobody expects; False if they never are."""
        flag = episode["weights_end"] is not None
        for _ in range(1 + self.job["limit"] // self.job["drain"]):
            await ClockCycles(self.dut.aclk, self.job["drain"])
            if self.source.idle() and not (flag and not int(self.dut.error_weights.value)):
                await ClockCycles(self.dut.aclk, self.job["drain"])
                return True
        return False


@cocotb.test()
async def run_episodes(dut):
    """Play the episodes of the job named by the environment and write its result file, whatever happens."""
    job = json.loads(Path(os.environ["S2TDPT_JOB"]).read_text(encoding="utf-8"))
    started, outcomes = time.perf_counter(), []
    bus = Bus(dut, job)
    await bus.start()
    for episode in job["episodes"]:
        outcomes.append(await bus.play(episode))
    found = {
        "episodes": outcomes,
        "deadlock": None,
        "cycles": cycle_of(get_sim_time("step")),
        "seconds": time.perf_counter() - started,
    }
    Path(os.environ["S2TDPT_RESULT"]).write_text(json.dumps(found), encoding="utf-8")
