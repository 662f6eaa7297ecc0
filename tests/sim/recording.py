"""Runs that no simulator made: the files and the outcome that recorder and bench leave, from a script."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.sim.cosim import Share
from s2tdpt.sim.design import Design, layer_program
from s2tdpt.sim.dump import read_dump
from s2tdpt.sim.runner import Job
from s2tdpt.sim.wrapper import RECORDS, Ports
from tests.sim import standin

FIRST, GAP = 40, 7
"""Cycle of the first line of the first frame; cycles between frames."""

COUNT = 3
"""Images of a run."""

RESULT_AFTER = 5
"""Cycles from the last line of a frame to its result."""


def ports() -> Ports:
    """Of the stand-in, as wide as `standin` says now."""
    fields = standin.FIELDS | {
        "piece_u_data": standin.POST * standin.STEPS * standin.U_BITS,
        "y_data": standin.HEAD_DIM * standin.Y_BITS,
    }
    return Ports(
        "standin", {}, {"m_axis_tdata": 32} | {f"probe_{name}": width for name, width in fields.items()}
    )


def record(folder: Path, frames: list[list[standin.Line]]) -> list[int]:
    """Write what ``probe.sv`` writes while the stand-in plays a script.

    Returns
    -------
    list of int
        Cycle of the first line of every frame.
    """
    width = {name.removeprefix("probe_"): bits for name, bits in ports().outputs.items()}
    tables: dict[str, list[str]] = {name: [] for name in (*RECORDS, "steps")}

    def put(table, *values):
        line = " ".join(f"{value:0{-(-bits // 4)}x}" for value, bits in values)
        tables[table].append(line + "\n")

    cycle, fired, begins = FIRST, 0, []
    for lines in frames:
        begins.append(cycle)
        for line in lines:
            fired += line.get("fired", 0)
            for kind, pulse in ((1, "complete"), (0, "start")):
                if pulse in line:
                    step = line.get("step", 0), width["step"]
                    put("steps", (kind, 4), (cycle, 32), step, (fired, 40))
            for table, names in RECORDS.items():
                if f"{table}_en" in line:
                    values = [(line.get(f"{table}_{name}", 0), width[f"{table}_{name}"]) for name in names]
                    put(table, (cycle, 32), *values)
            cycle += 1
        cycle += GAP
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in tables.items():
        (folder / f"probe_{name}.txt").write_text("".join(lines))
    return begins


def golden_run(folder: Path, params: Params, images: np.ndarray, mine: range, recorded: int) -> Share:
    """A share of the images whose hardware computes what the golden model does.

    Parameters
    ----------
    mine : range
        Numbers of its images.
    recorded : int
        Images, from its first one on, whose tensors are recorded.
    """
    golden = GoldenNetwork(params)
    trace = {name: value.numpy() for name, value in golden.trace(images[mine]).items()}
    lines = standin.script(trace)
    for frame in lines[recorded:]:
        for line in frame:
            for name in RECORDS:
                line.pop(f"{name}_en", None)
    begins = record(folder, lines)
    results = []
    for logits, begin, frame in zip(golden.forward(images[mine]).tolist(), begins, lines, strict=True):
        words = [word & 0xFFFFFFFF for word in (*logits, int(np.argmax(logits)))]
        results.append({"words": words, "cycle": begin + len(frame) + RESULT_AFTER})
    job = Job(frames=[images[number].tobytes() for number in mine], record=recorded)
    status = {"error_short": 0, "error_long": 0, "busy": 0}
    status |= {f"{bus}_{name}": 0 for bus in ("s_axis", "m_axis") for name in ("tvalid", "tready")}
    outcome = {
        "results": results,
        "sent": [FIRST - 20 + 100 * number for number in range(len(mine))],
        "deadlock": None,
        "status": status,
        "violations": 0,
        "extra": 0,
        "weights_from": None,
    }
    return Share(mine, job, folder, outcome, read_dump(folder, ports()))


def design_of(params: Params) -> Design:
    """The design without its Verilog."""
    program, widths = layer_program(params, standin.MACHINE)
    return Design(params, standin.MACHINE, "", program, widths)


def built() -> SimpleNamespace:
    """What is asked of a build."""
    return SimpleNamespace(ports=ports(), seconds=0.0)
