"""A board without a board: the board's Verilog on Verilator, its UART pins behind a pseudo-terminal.

The host's code talks to it as to a serial port. The line is faster than a real one, a bit every few cycles:
what passes over it is the same, and an image takes as many cycles of the accelerator.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import shutil
import signal
import tempfile
import tty
from pathlib import Path

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params
from s2tdpt.hw.board.serial import SerialAccelerator, SerialLine
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.tools.cache import cache_folder, keep_log, make_entry, used
from s2tdpt.hw.tools.external import find_tool, tool_environment
from s2tdpt.hw.tools.processes import Process, interruptible
from s2tdpt.hw.verilog import LINT_WAIVERS, emit
from s2tdpt.sim.build import VERILATOR_FLAGS

MODULE = "s2tdpt_serial"
CYCLES = 4
"""Clock cycles of a bit."""

CLOCK = 40_000_000
"""Hz that the simulated board says it has."""

_MAIN = Path(__file__).with_name("verilator") / "serial.cpp"
_FLAGS = (
    *("--cc", "--exe", "--build", "-j", "2", *VERILATOR_FLAGS),
    *("--prefix", "Vtop", "--top-module", MODULE, "-o", "board"),
    *("-MAKEFLAGS", "OPT_FAST=-O2 OPT_SLOW=-O0 OPT_GLOBAL=-O2"),
)


class SimulatedBoard:
    """A running simulation of a board, as a context; `port` is the name of its serial port.

    Parameters
    ----------
    params : Params
    machine : Machine
        Weights on chip.
    window : int
        Images that may be under way.

    Raises
    ------
    UserError
        The design cannot be generated or built, or a tool is missing.
    """

    def __init__(self, params: Params, machine: Machine, window: int = 8):
        line = SerialLine(clock=CLOCK, baud=CLOCK // CYCLES, window=window)
        core = SerialAccelerator(params, machine, line)
        self._program = _build(emit(core, MODULE, core.ports()))
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> SimulatedBoard:
        with contextlib.ExitStack() as stack:
            board, host = pty.openpty()
            stack.callback(os.close, host)  # kept open, so that the terminal outlives a host that closes it
            tty.setraw(host)
            self.port = os.ttyname(host)
            self._log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "board.log"
            try:
                self._process = stack.enter_context(
                    Process(
                        [str(self._program), str(board), str(CYCLES)],
                        cwd=self._log.parent,
                        env=os.environ,
                        log=self._log,
                        keep=(board,),
                    )
                )
            finally:
                os.close(board)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def reset(self) -> None:
        """Pulse the reset of the board."""
        self._process.signal(signal.SIGUSR1)

    def unplug(self) -> None:
        """End the board; its port is dead from then on."""
        self._process.stop()


def _build(verilog: str) -> Path:
    """The compiled simulation, from the cache if it was built before."""
    tools = [find_tool(name) for name in ("verilator", "g++", "make")]
    main = _MAIN.read_text(encoding="utf-8")
    key = hashlib.sha256(repr((verilog, main, _FLAGS, [tool.version for tool in tools])).encode()).hexdigest()
    folder = cache_folder() / "boards" / key[:24]
    if (folder / "board").is_file():
        used(folder)
        return folder / "board"
    with make_entry(folder) as work:
        (work / "design.sv").write_text(verilog, encoding="utf-8")
        command = [*tools[0].command, *_FLAGS, "-Mdir", "objects", str(LINT_WAIVERS), "design.sv", str(_MAIN)]
        log = work / "build.log"
        environment = tool_environment("verilator", "g++", "make")
        with interruptible(), Process(command, cwd=work, env=environment, log=log) as process:
            code = process.wait()
        if code:
            raise UserError(
                f"verilator could not build the board (exit code {code}); expected a working compiler; see "
                f"{keep_log(log)}"
            )
        shutil.copy(work / "objects" / "board", work / "board")
        shutil.rmtree(work / "objects")
    return folder / "board"
