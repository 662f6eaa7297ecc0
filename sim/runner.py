"""Run a built simulation, as often as needed.

`Run` is one simulation in its own folder, `run` one from start to end. Neither ever trusts an exit code
alone: a run counts only if its results file says that the test ran and passed. Whatever was started ends with
the context that started it, and leaves no half-written file.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.tools.cache import keep_log
from s2tdpt.hw.tools.processes import Process, check_room, interruptible
from s2tdpt.sim.build import Build, prepared_commands, runner_of
from s2tdpt.sim.waveform import check_waveform, remove_waveform
from s2tdpt.sim.wrapper import BENCH

POLL = 0.05
"""Seconds between two looks at a running simulator."""


@dataclass(frozen=True)
class Job:
    """One simulation run.

    Parameters
    ----------
    frames : sequence of bytes
        Input frames, sent in order; each is one AXI4-Stream packet.
    results : int or None
        Result frames to wait for; None: one for every frame.
    record : int
        Frames, from the first on, whose tensors are recorded.
    stall : str
        Pattern of `sim.stalls`.
    seed : int
        Seed of the stall pattern.
    limit : int
        Cycles without a result before the watchdog stops the run.
    drain : int
        Cycles to watch after the last result for one that nobody expects.
    weights : bytes or None
        Words of the weight stream for one frame, little-endian, each padded to whole bytes.
    steps : tuple of int or None
        First and last step of the layer program that a waveform shows; None: the whole run.
    """

    frames: Sequence[bytes]
    results: int | None = None
    record: int = 0
    stall: str = "none"
    seed: int = 0
    limit: int = 1_000_000
    drain: int = 16
    weights: bytes | None = None
    steps: tuple[int, int] | None = None

    module: ClassVar[str] = "s2tdpt.sim.bench"

    def describe(self) -> dict[str, Any]:
        """What the bench reads, without the weights."""
        return {
            "frames": [bytes(frame).hex() for frame in self.frames],
            "results": len(self.frames) if self.results is None else self.results,
            "record": self.record,
            "stall": self.stall,
            "seed": self.seed,
            "limit": self.limit,
            "drain": self.drain,
            "steps": self.steps,
        }


@dataclass(frozen=True)
class EpisodeJob:
    """A simulation that passes through many episodes.

    Parameters
    ----------
    episodes : sequence of dict
        See `sim.episode_bench`.
    limit, drain, weights
        As in `Job`.
    """

    episodes: Sequence[dict[str, Any]]
    limit: int = 1_000_000
    drain: int = 16
    weights: bytes | None = None

    module: ClassVar[str] = "s2tdpt.sim.episode_bench"
    seed: ClassVar[int] = 0

    def describe(self) -> dict[str, Any]:
        """What the bench reads, without the weights."""
        return {"episodes": list(self.episodes), "limit": self.limit, "drain": self.drain}


class Run:
    """One simulation, as a context: leaving it ends the simulator and removes an incomplete waveform.

    Parameters
    ----------
    built : Build
    job : Job or EpisodeJob
    folder : Path
        Working folder, made if missing; receives the records, the log and the job.
    waveform : Path or None
        Where to put the waveform (`built` must have been built for it).

    Raises
    ------
    UserError
        The simulator cannot be started.
    """

    def __init__(self, built: Build, job: Job | EpisodeJob, folder: Path, waveform: Path | None = None):
        self.job, self.folder = job, Path(folder).resolve()
        self._waveform = None if waveform is None else Path(waveform).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob("probe_*.txt"):
            stale.unlink()
        self._write_job()
        for name in ("result.json", "progress.txt"):
            (self.folder / name).unlink(missing_ok=True)
        self._complete = False
        (command,), cwd, env = prepared_commands(runner_of(built.simulator).test, **self._arguments(built))
        self._process = Process(command, cwd=cwd, env=env, log=self.folder / "simulation.log")

    def _write_job(self) -> None:
        description = self.job.describe() | {"weights": None}
        if self.job.weights is not None:
            (self.folder / "weights.bin").write_bytes(self.job.weights)
            description["weights"] = str(self.folder / "weights.bin")
        (self.folder / "job.json").write_text(json.dumps(description), encoding="utf-8")

    def _arguments(self, built: Build) -> dict:
        """Arguments of cocotb's runner."""
        words = {"plusargs": [], "test_args": []}
        if self._waveform is not None:
            if built.simulator == "verilator":
                words["test_args"] = ["--waveform", str(self._waveform)]
            else:
                words["plusargs"] = [f"+dumpfile_path={self._waveform}"]
        return words | dict(
            test_module=self.job.module,
            hdl_toplevel=BENCH,
            hdl_toplevel_lang="verilog",
            build_dir=built.folder,
            test_dir=self.folder,
            results_xml=str(self.folder / "results.xml"),
            seed=self.job.seed,
            waves=self._waveform is not None,
            extra_env={
                "S2TDPT_JOB": str(self.folder / "job.json"),
                "S2TDPT_RESULT": str(self.folder / "result.json"),
                "S2TDPT_PROGRESS": str(self.folder / "progress.txt"),
                "COCOTB_LOG_LEVEL": "WARNING",
            },
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_) -> None:
        self._process.stop()
        if self._waveform is not None and not self._complete:
            remove_waveform(self._waveform)

    def running(self) -> bool:
        """Whether the simulator still runs.

        Raises
        ------
        UserError
            A disk that it writes to is full.
        """
        check_room(self.folder, "the record of the simulation")
        if self._waveform is not None:
            check_room(self._waveform.parent, "the waveform")
        return self._process.code is None

    def progress(self) -> tuple[int, int, int]:
        """Results so far, number of the step that started last, clock cycles; zeros before any report."""
        try:
            results, step, cycle = (self.folder / "progress.txt").read_text(encoding="ascii").split()
            return int(results), int(step), int(cycle)
        except (OSError, ValueError):  # not there yet, or being written
            return 0, 0, 0

    def outcome(self) -> dict:
        """What the bench found (see `run`), once the simulator has ended.

        Raises
        ------
        UserError
            It ended without a result; with the last line of its log and the place of the log.
        """
        self._process.wait()
        self.running()
        result, log = self.folder / "result.json", self.folder / "simulation.log"
        found = None
        with contextlib.suppress(OSError, ValueError):  # a simulator that was killed may leave half a file
            found = json.loads(result.read_text(encoding="utf-8"))
        deadlock = found is not None and found["deadlock"] is not None
        if not deadlock and (found is None or self._process.code or not _passed(self.folder / "results.xml")):
            reason = self._reason(log)
            raise UserError(
                f"the simulation ended without a result ({reason}); expected one; see {keep_log(log)}"
            )
        if self._waveform is not None:
            check_waveform(self._waveform)
        self._complete = True
        return found

    def _reason(self, log: Path) -> str:
        """The line of the log that says most, or how the simulator ended."""
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        code = self._process.code
        ended = f"killed by signal {-code}" if code and code < 0 else f"exit code {code}, no log"
        if code and code < 0 or not lines:
            return ended
        return next((line for line in reversed(lines) if "Error" in line), lines[-1])[:160]


def run(built: Build, job: Job | EpisodeJob, folder: Path, waveform: Path | None = None) -> dict:
    """Run one simulation; returns the bench's result (see `sim.bench`).

    The result has ``results`` (words and cycle of every result frame), ``sent`` (cycle of the first beat of
    every image), ``weights_from`` (cycle of the first beat of the weights, or None), ``status`` (levels of
    signals at the end), ``violations``, ``extra``, ``cycles``, ``seconds`` and ``deadlock`` (None, or the
    frame that never came); of an `EpisodeJob`: ``episodes``, ``cycles``, ``seconds``. Arguments and errors
    are those of `Run`.
    """
    with interruptible(), Run(built, job, folder, waveform) as simulation:
        while simulation.running():
            time.sleep(POLL)
        return simulation.outcome()


def _passed(results_xml: Path) -> bool:
    """Whether the results file reports at least one test and no failure."""
    from cocotb_tools.check_results import get_results

    try:
        tests, failed = get_results(results_xml)
    except RuntimeError:
        return False
    return tests > 0 and failed == 0
