"""The testbench itself; this module runs inside the simulator, under cocotb.

It knows nothing of the network. A job file names the frames to send, the stall pattern and the limits; the
result file holds what came back. The bus model is cocotbext-axi, which was written independently of the
hardware; only a weight stream that never pauses has a sender of its own, for speed. Tensors do not pass
through Python at all: ``probe.sv`` records them.

Job (JSON): ``frames`` (list of frames in hexadecimal), ``results`` (number of result frames to wait for),
``record`` (number of frames whose tensors are recorded), ``stall``, ``seed``, ``limit`` (cycles without a
result before the watchdog stops the run), ``drain`` (cycles to watch after the last result), ``weights``
(file of the words that the weight stream carries for one frame, or null), ``steps`` (first and last step
that a waveform shows, or null for all).

Progress (text, now and then): results, number of the step that started last, cycle.
"""

import json
import logging
import os
import time
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, First, RisingEdge, SimTimeoutError, Timer, with_timeout
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from s2tdpt.sim.stalls import pauses

PERIOD = 2
"""Clock period in simulator steps; cycles are times divided by it."""


ALWAYS = 0xFFFFFFFF
"""Number of no step: a waveform of the whole run."""

REPORT_CYCLES = 4096
"""Cycles between two reports of progress."""


class Deadlock(Exception):
    """The watchdog found no result within the limit."""


class Bench:
    """Drivers and monitors around one accelerator, for one job."""

    def __init__(self, dut, job):
        self.dut = dut
        self.job = job
        self.results = []
        self.sent = []
        self.weights_from = None
        self.progress = Event()
        for name in ("s_axis", "m_axis", "s_axis_weights"):
            logging.getLogger(f"cocotb.{dut._name}.{name}").setLevel(logging.WARNING)
        reset = {"reset": dut.aresetn, "reset_active_level": False}
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.aclk, **reset)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.aclk, byte_lanes=1, **reset)
        self.weights = None
        if job["weights"] and job["stall"] != "none":
            bus = AxiStreamBus.from_prefix(dut, "s_axis_weights")
            self.weights = AxiStreamSource(bus, dut.aclk, byte_lanes=1, **reset)

    async def start(self):
        """Reset for eight cycles, then start the pause generators."""
        dut = self.dut
        dut.record.value = int(self.job["record"] > 0)
        first, last = self.job["steps"] or (ALWAYS, ALWAYS)
        dut.wave_first.value, dut.wave_last.value = first, last
        dut.aresetn.value = 0
        if self.job["weights"] and self.weights is None:
            dut.s_axis_weights_tvalid.value = 0
        await Timer(PERIOD, "step")  # the bus models see the reset before the first clock edge
        # Driven by the simulator's own callbacks: no Python on a clock edge.
        Clock(dut.aclk, PERIOD, "step", impl="gpi").start()
        await ClockCycles(dut.aclk, 8)
        dut.aresetn.value = 1
        await ClockCycles(dut.aclk, 2)
        for name in ("source", "sink", "weights"):
            stream = getattr(self, name)
            generator = pauses(self.job["stall"], self.job["seed"], name)
            if stream is not None and generator is not None:
                stream.set_pause_generator(generator)

    async def send_all(self):
        """Send every frame; each is noted with the cycle of its first beat.

        Without stalls a frame is handed over only once the accelerator can take it, since a waiting source
        wakes Python every cycle; with stalls all frames press at once.
        """
        eager = self.job["stall"] != "none"
        for data in self.job["frames"]:
            if self.sent and not eager and not int(self.dut.s_axis_tready.value):
                self.progress.clear()
                await First(RisingEdge(self.dut.s_axis_tready), self.progress.wait())
            frame = await transmit(self.source, bytes.fromhex(data))
            self.sent.append(cycle_of(frame.sim_time_start))

    async def send_weights(self):
        """Offer the weights of one frame, once for every frame."""
        width = (len(self.dut.s_axis_weights_tdata) + 7) // 8
        raw = Path(self.job["weights"]).read_bytes()
        words = [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]
        if self.weights is None:
            return await self.send_without_pause(words)
        for _ in self.job["frames"]:
            await transmit(self.weights, words)

    async def send_without_pause(self, words):
        """The weights in every cycle that takes them.

        A tile is in use for thousands of cycles, in which a waiting bus model would wake Python; this sender
        sleeps until `tready` rises.
        """
        dut, clock = self.dut, RisingEdge(self.dut.aclk)
        ready, ready_rises = dut.s_axis_weights_tready, RisingEdge(dut.s_axis_weights_tready)
        self.weights_from = cycle_of(get_sim_time("step"))
        dut.s_axis_weights_tvalid.value = 1
        for _ in self.job["frames"]:
            for number, word in enumerate(words, 1):
                dut.s_axis_weights_tdata.value = word
                dut.s_axis_weights_tlast.value = number == len(words)
                await clock
                while not ready.value:
                    await ready_rises
                    await clock
        dut.s_axis_weights_tvalid.value = 0

    async def receive_all(self):
        """Collect the expected results; raises `Deadlock` when one does not come."""
        for number in range(self.job["results"]):
            try:
                frame = await with_timeout(self.sink.recv(), self.job["limit"] * PERIOD, "step")
            except SimTimeoutError:
                raise Deadlock(number) from None
            self.results.append({"words": list(frame.tdata), "cycle": cycle_of(frame.sim_time_end)})
            if number + 1 == self.job["record"]:
                self.dut.record.value = 0
            self.progress.set()

    async def report(self, path):
        """Tell how far the run is, for as long as it goes on; a few times a second at most."""
        last = 0.0
        while True:
            await Timer(REPORT_CYCLES * PERIOD, "step")
            now = time.perf_counter()
            if now - last > 0.25:
                last = now
                step, cycle = int(self.dut.bench_step.value), cycle_of(get_sim_time("step"))
                # Whoever reads it at any moment finds a whole one.
                fresh = path.with_suffix(".new")
                fresh.write_text(f"{len(self.results)} {step} {cycle}", encoding="ascii")
                fresh.replace(path)

    def status(self):
        """Levels that tell where the accelerator stands."""
        names = (
            "busy",
            "bench_step",
            "s_axis_tvalid",
            "s_axis_tready",
            "m_axis_tvalid",
            "m_axis_tready",
            "s_axis_weights_tvalid",
            "s_axis_weights_tready",
            "error_short",
            "error_long",
            "error_weights",
        )
        levels = {}
        for name in names:
            if hasattr(self.dut, name):
                value = getattr(self.dut, name).value
                levels[name] = int(value) if value.is_resolvable else str(value)
        return levels


async def transmit(source, beats):
    """Send one packet; returns the frame, with its times, once its last beat is offered."""
    taken, frames = Event(), []

    def complete(frame):
        frames.append(frame)
        taken.set()

    source.send_nowait(AxiStreamFrame(beats, tx_complete=complete))
    await taken.wait()
    return frames[0]


def cycle_of(sim_time):
    """Clock cycle of a simulator time."""
    return int(sim_time) // PERIOD


@cocotb.test()
async def run_job(dut):
    """Run the job named by the environment and write its result file, whatever happens."""
    job = json.loads(Path(os.environ["S2TDPT_JOB"]).read_text(encoding="utf-8"))
    bench = Bench(dut, job)
    outcome = {"deadlock": None, "extra": 0}
    started = time.perf_counter()
    try:
        await bench.start()
        tasks = [cocotb.start_soon(bench.send_all())]
        cocotb.start_soon(bench.report(Path(os.environ["S2TDPT_PROGRESS"])))
        if job["weights"]:
            tasks.append(cocotb.start_soon(bench.send_weights()))
        await bench.receive_all()
        if job["results"] < len(job["frames"]) or job["drain"]:
            # Frames that must give no result: wait until they are in, then watch for results that nobody
            # expects.
            try:
                await with_timeout(tasks[0], job["limit"] * PERIOD, "step")
            except SimTimeoutError:
                raise Deadlock(len(bench.results)) from None
            await Timer(max(1, job["drain"]) * PERIOD, "step")
            outcome["extra"] = bench.sink.count()
    except Deadlock as stopped:
        outcome["deadlock"] = {"frame": stopped.args[0], "limit": job["limit"]}
    outcome.update(
        results=bench.results,
        sent=bench.sent,
        weights_from=bench.weights_from,
        status=bench.status(),
        violations=int(dut.bench_violations.value),
        cycles=cycle_of(get_sim_time("step")),
        seconds=time.perf_counter() - started,
    )
    Path(os.environ["S2TDPT_RESULT"]).write_text(json.dumps(outcome), encoding="utf-8")
    assert outcome["deadlock"] is None, "the watchdog found no result within the limit"
