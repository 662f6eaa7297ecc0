"""Build a simulator once for every distinct text.

`build` compiles the design with the bench top under Verilator or Icarus and keeps the result in a cache
whose key is the hash of everything that goes in. What was started ends with it, and nothing half-built stays.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.tools.cache import cache_folder, keep_log, make_entry, used
from s2tdpt.hw.tools.external import find_tool
from s2tdpt.hw.tools.processes import Process, check_room, interruptible
from s2tdpt.sim.wrapper import BENCH, Ports, bench_top, read_ports

SIMULATORS = ("verilator", "icarus")
"""Supported simulators; the first is the default."""

_PROBE = Path(__file__).with_name("probe.sv")
_MAIN = Path(__file__).with_name("verilator") / "main.cpp"
_FST = Path(__file__).with_name("verilator") / "fst"
"""Headers of the compressors that Verilator's FST writer wants, in place of libraries."""

VERILATOR_FLAGS = (
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
"""The design's text comes from Yosys: `case` without default and implicit zero extension are its way of
writing, not faults. Everything else that Verilator warns of stops the build."""
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


class _Prepared(Exception):
    """A command is ready to run: its words, folder and environment."""


def _starts_nothing(base):
    """cocotb's runner for a simulator, with commands that it prepares but does not run itself."""

    class Prepared(base):
        def _execute(self, cmds, cwd):
            raise _Prepared([[str(word) for word in command] for command in cmds], Path(cwd), dict(self.env))

    return Prepared


def _verilator_runner():
    from cocotb_tools.runner import Verilator

    class FastVerilator(_starts_nothing(Verilator)):
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
            (main,) = (number for number, word in enumerate(verilate) if word.endswith("verilator.cpp"))
            verilate[main] = str(_MAIN)
            make[make.index("-j") + 1] = "2"
            flags = list(_MAKE_FLAGS_WAVES if self.waves else _MAKE_FLAGS)
            if self.waves:
                verilate[verilate.index("--trace")] = "--trace-fst"
                root = Path(self.env.get("VERILATOR_ROOT", ""))
                if (root / "include" / "fstcpp").is_dir():
                    verilate += ["-CFLAGS", f"-I{_FST}"]
                    flags.append("LDLIBS=$(VM_USER_LDLIBS) $(CFG_LDLIBS_THREADS)")
            ready = [f"--old-file={path.name}" for path in Path(self.build_dir).glob("*.o")]
            return [verilate, [*make, *ready, *flags, f"PYTHON3={sys.executable}"]]

    return FastVerilator()


def runner_of(simulator: str):
    """cocotb's runner for a simulator; its commands are prepared, not run.

    Raises
    ------
    UserError
        The simulator is unknown or missing.
    """
    if simulator == "verilator":
        return _verilator_runner()
    if simulator == "icarus":
        find_tool("iverilog")
        from cocotb_tools.runner import Icarus

        return _starts_nothing(Icarus)()
    raise UserError(f"unknown simulator {simulator!r}; expected one of {', '.join(SIMULATORS)}")


def _key(texts: Sequence[str], simulator: str, waves: bool) -> str:
    digest = hashlib.sha256()
    versions = [importlib.metadata.version(name) for name in ("cocotb", "verilator")]
    for text in (
        *texts,
        simulator,
        str(waves),
        *versions,
        *(path.read_text(encoding="utf-8") for path in (_MAIN, *sorted(_FST.glob("*.h")))),
        sys.prefix,
        *VERILATOR_FLAGS,
        *_MAKE_FLAGS,
        *_MAKE_FLAGS_WAVES,
    ):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:24]


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
    texts = {
        "design.sv": verilog,
        "probe.sv": _PROBE.read_text(encoding="utf-8"),
        "bench.sv": bench_top(ports),
    }
    runner = runner_of(simulator)
    folder = cache_folder() / "builds" / _key(tuple(texts.values()), simulator, waves)
    if (folder / _product(simulator)).is_file():
        used(folder)
        return Build(folder, simulator, ports, waves, 0.0)
    started = time.perf_counter()
    with interruptible(), make_entry(folder) as work:
        _compile(runner, work, texts, simulator, waves)
    return Build(folder, simulator, ports, waves, time.perf_counter() - started)


def _product(simulator: str) -> str:
    """File that a finished build holds."""
    return BENCH if simulator == "verilator" else "sim.vvp"


def _compile(runner, work: Path, texts: dict[str, str], simulator: str, waves: bool) -> None:
    """Compile in the folder `work`, and remove there what is not needed to run."""
    for name, text in texts.items():
        (work / name).write_text(text, encoding="utf-8")
    log = work / "build.log"
    runtime = work.parent / f"library-{_key((find_tool('g++').version,), simulator, waves)}"
    if simulator == "verilator" and runtime.is_dir():
        for path in runtime.iterdir():
            shutil.copyfile(path, work / path.name)
    commands, cwd, env = prepared_commands(
        runner.build,
        sources=[work / name for name in texts],
        hdl_toplevel=BENCH,
        build_dir=work,
        build_args=list(VERILATOR_FLAGS) if simulator == "verilator" else [],
        timescale=("1ns", "1ns"),
        waves=waves,
        always=True,
    )
    log.touch()
    for command in commands:
        with Process(command, cwd=cwd, env=env, log=log, append=True) as process:
            code = process.wait()
        if code:
            check_room(work, "the build")
            reason = _first_error(log) or f"{Path(command[0]).name} ended with code {code}"
            raise UserError(f"{simulator} could not build the design: {reason}; see {keep_log(log)}")
    if simulator == "verilator":
        _keep_runtime(work, runtime)
        for path in work.iterdir():  # the objects have done their work
            if path.name not in (BENCH, *texts, "build.log"):
                path.unlink() if path.is_file() else shutil.rmtree(path)


def prepared_commands(method, **arguments) -> tuple[list[list[str]], Path, dict[str, str]]:
    """Commands, folder and environment of a step of cocotb's runner."""
    try:
        method(**arguments)
    except _Prepared as prepared:
        return prepared.args
    raise AssertionError("the runner ran its commands itself")


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


def _first_error(log: Path) -> str:
    """The first line of a log that speaks of an error or a warning that stops the build."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("%Error", "%Warning")) or "error:" in line.lower():
            return line.strip()[:200]
    return ""
