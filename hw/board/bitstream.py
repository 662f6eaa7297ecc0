"""From an accelerator and a board to a bitstream whose clock place and route has proved.

The core of the top module is the text that is simulated (`hw.board.serial`); around it stand the PLL, the
pins and a reset until the PLL has locked. If place and route does not reach the clock, the next one that is
tried is what it did reach.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params
from s2tdpt.hw.board.description import Board, Wiring, wiring_of
from s2tdpt.hw.board.families import TOP
from s2tdpt.hw.board.pll import Pll
from s2tdpt.hw.board.serial import SerialAccelerator, SerialLine
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.tools.cache import cache_folder, keep_log, make_entry, used
from s2tdpt.hw.tools.external import run_tool, versions
from s2tdpt.hw.verilog import emit

__all__ = ["Bitstream", "board_top", "build_bitstream"]

SERIAL = "s2tdpt_serial"
"""Name of the module inside."""

HEADROOM = 1.25
"""What place and route is asked for, in clocks of the PLL: it stops to improve where nothing is asked for."""

MARGIN = 0.98
"""After a try that fell short: the share of the clock that was reached which is tried next."""

TRIES = 3
FORMAT = "s2tdpt-bitstream"


@dataclass(frozen=True)
class Bitstream:
    """A bitstream and how it came about.

    Attributes
    ----------
    board, network, machine : str
        Names.
    parameters : str
        SHA-256 of the parameters, which the board tells the host.
    line : SerialLine
        Clock and baud rate.
    seed : int
        Of the placement.
    fmax : float
        MHz that place and route proved; not below the clock.
    used, available : dict of str to int
        Resources.
    seconds : dict of str to float
        Of every step; of the last try.
    tools : dict of str to str
        Versions.
    folder : Path
        Holds the bitstream, the logs and `manifest.json`.
    cached : bool
        Whether it was there already.
    file : str
        Name of the bitstream in the folder.
    sha256 : str
        Of the bitstream.
    """

    board: str
    network: str
    machine: str
    parameters: str
    line: SerialLine
    seed: int
    fmax: float
    used: dict[str, int]
    available: dict[str, int]
    seconds: dict[str, float]
    tools: dict[str, str]
    folder: Path
    cached: bool
    file: str
    sha256: str

    def manifest(self) -> dict[str, Any]:
        """Plain values for JSON; no path."""
        found = asdict(self) | {"line": self.line.model_dump()}
        return {"format": FORMAT, "version": 1} | {
            key: value for key, value in found.items() if key not in ("folder", "cached")
        }


def board_top(board: Board, wiring: Wiring, pll: Pll) -> str:
    """Verilog of the top module around `SERIAL`."""
    inverted = {pin.port for pin in wiring.pins if pin.inverted}
    high = [pin.port for pin in wiring.pins if pin.port.startswith("high_")]
    lights = {port: f"{'~' if port in inverted else ''}{port}_on" for port in ("life", "fault")}
    reset = board.tools.global_buffer or "assign {reset} = {source};"
    ports = ["input clk_pin", "input rx", "output tx", "output life", "output fault"]
    return "\n".join(
        [
            f"// {TOP}: the accelerator on {board.title}.",
            f"module {TOP}({', '.join([*ports, *(f'output {port}' for port in high)])});",
            "  wire clk, locked, rst, life_on, fault_on;",
            pll.text.rstrip("\n"),
            "  reg [1:0] running = 2'b00;  // the PLL has locked, as the clock sees it",
            "  always @(posedge clk) running <= {running[0], locked};",
            "  " + reset.format(source="~running[1]", reset="rst"),
            f"  {SERIAL} serial (",
            "    .clk(clk), .rst(rst), .rx(rx), .tx(tx), .life(life_on), .fault(fault_on)",
            "  );",
            *(f"  assign {port} = {value};" for port, value in lights.items()),
            *(f"  assign {port} = {int(port not in inverted)};" for port in high),
            "endmodule",
            "",
        ]
    )


def build_bitstream(
    params: Params,
    machine: Machine,
    board: Board,
    *,
    frequency: float | None = None,
    window: int = 8,
    seed: int = 1,
    tell: Callable[[str], None] | None = None,
) -> Bitstream:
    """Make a bitstream, or take it from the cache; minutes to an hour.

    Parameters
    ----------
    params : Params
    machine : Machine
        Weights on chip.
    board : Board
    frequency : float, optional
        MHz of the accelerator to try first; by default the board's.
    window : int
        Images that may be under way.
    seed : int
        Of the placement.
    tell : callable, optional
        Told in words what begins.

    Raises
    ------
    UserError
        The design cannot be generated, does not fit, reaches no clock that the PLL makes, or a tool is
        missing or fails.
    """
    wiring, tell = wiring_of(board), tell or (lambda text: None)
    wanted = board.frequency if frequency is None else frequency
    for _ in range(TRIES):
        pll = board.tools.pll(wiring.clock, wanted)
        line = _line(board, pll, window)
        tell(f"generating Verilog for {pll.megahertz:.2f} MHz")
        core = SerialAccelerator(params, machine, line)
        text = emit(core, SERIAL, core.ports()) + "\n" + board_top(board, wiring, pll)
        work = _Work(board, wiring, text, seed, pll.megahertz * HEADROOM, tell)
        found = work.result()
        if found["fmax"] >= pll.megahertz:
            break
        tell(f"{pll.megahertz:.2f} MHz were not reached, but {found['fmax']:.2f}")
        wanted = found["fmax"] * MARGIN
    else:
        raise UserError(
            f"{params.config.name} on machine {machine.name} reaches {found['fmax']:.2f} MHz on "
            f"{board.name}, not the {pll.megahertz:.2f} of its PLL; expected a clock that is proved; give a "
            "lower --frequency"
        )
    return Bitstream(
        board=board.name,
        network=params.config.name,
        machine=machine.name,
        parameters=params.checksum(),
        line=line,
        seed=seed,
        tools=work.tools,
        folder=work.folder,
        cached=work.cached,
        file=board.tools.bitstream,
        **found,
    )


def _line(board: Board, pll: Pll, window: int) -> SerialLine:
    clock = round(pll.megahertz * 1e6)
    if board.baud * 8 > clock:
        raise UserError(
            f"{pll.megahertz:.3g} MHz is too slow for {board.baud} baud on {board.name}; expected 8 cycles "
            "a bit or more; give a higher --frequency, or a board file with a lower baud"
        )
    return SerialLine(clock=clock, baud=board.baud, window=window)


class _Work:
    """Synthesis, place and route and packing of a text, in a folder of the cache: whole or absent."""

    def __init__(
        self, board: Board, wiring: Wiring, text: str, seed: int, asked: float, tell: Callable[[str], None]
    ):
        self._board, self._wiring, self._tell = board, wiring, tell
        family = board.tools
        self.tools = versions(("amaranth", "yosys", family.router, family.packer))
        self._route = [
            *family.route(wiring.device, wiring.package),
            *("--json", "design.json", "--report", "report.json", "--seed", str(seed)),
            *("--freq", f"{asked:.3f}", "--timing-allow-fail", "--quiet"),
        ]
        self._files = {
            "design.sv": text,
            "synth.ys": f"read_verilog -sv design.sv\n{family.synth}\n",
            family.constraints: family.pins(wiring.pins),
        }
        key = hashlib.sha256(
            json.dumps([self._files, self._route, family.pack(wiring.device), self.tools]).encode()
        )
        self.folder = cache_folder() / "bitstreams" / key.hexdigest()[:24]
        self.cached = (self.folder / "result.json").is_file()

    def result(self) -> dict[str, Any]:
        """Fields of `Bitstream` that the tools give."""
        if self.cached:
            used(self.folder)
            return json.loads((self.folder / "result.json").read_text())
        with make_entry(self.folder) as work:
            found = self._run(work)
            (work / "result.json").write_text(json.dumps(found, indent=2) + "\n")
            for file in ("design.json", "routed.config", "routed.asc", "routed.json"):
                (work / file).unlink(missing_ok=True)
        return found

    def _run(self, work: Path) -> dict[str, Any]:
        family, seconds = self._board.tools, {}
        for name, text in self._files.items():
            (work / name).write_text(text)
        steps = {
            "synthesis": ("yosys", ["synth.ys"]),
            "place and route": (family.router, self._route),
            "packing": (family.packer, family.pack(self._wiring.device)),
        }
        for name, (tool, arguments) in steps.items():
            self._tell(f"{name} ({tool}), step {len(seconds) + 1} of {len(steps)}")
            start, log = time.monotonic(), f"{name.replace(' ', '_')}.log"
            try:
                run_tool(tool, arguments, cwd=work, log=work / log)
            except UserError as error:
                raise UserError(str(error).replace(str(work / log), str(keep_log(work / log)))) from None
            seconds[name] = round(time.monotonic() - start, 1)
        report = json.loads((work / "report.json").read_text())
        counts = report["utilization"]
        present = {name: cell for name, cell in family.used.items() if cell in counts}
        return {
            "fmax": round(min(clock["achieved"] for clock in report["fmax"].values()), 2),
            "used": {name: counts[cell]["used"] for name, cell in present.items()},
            "available": {name: counts[cell]["available"] for name, cell in present.items()},
            "seconds": seconds,
            "sha256": hashlib.sha256((work / family.bitstream).read_bytes()).hexdigest(),
        }
