"""Co-simulation of the netlist: the accelerator after synthesis against the golden model.

The cells are simulated as gates (`hw.netlist.gates`), driven through the netlist's ports. A netlist has no
observation ports: logits and class of every image are compared, and the cycle in which its result ends with
what the cycle model says (docs/interface.md, "Order and timing").
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.hw.blocks.images import stream_beats
from s2tdpt.hw.estimate.cycles import FrameModel
from s2tdpt.hw.netlist.ecp5_gates import map_to_ecp5
from s2tdpt.hw.netlist.gate_bench import Traffic, stream
from s2tdpt.hw.netlist.gates import GateSimulator
from s2tdpt.hw.netlist.liberty import read_liberty_text, read_library
from s2tdpt.hw.netlist.library_gates import GateModel
from s2tdpt.hw.netlist.mapping import Module, map_to_cells, unchanged
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.tools.processes import interruptible
from s2tdpt.sim.cosim import Options, check_images, check_results, watchdog_limit
from s2tdpt.sim.design import MODULE, Design, generate
from s2tdpt.sim.report import CosimReport
from s2tdpt.sim.stalls import PATTERNS, pauses

ECP5 = "ecp5"
"""The target that is no file of a cell library."""

RESET, DRAIN = 8, 16
"""Cycles of the reset; cycles behind the last result in which no other may come."""

SIMULATOR = "gates"
"""In reports."""


def cosimulate_netlist(
    params: Params,
    machine: Machine,
    images: np.ndarray,
    target: str = ECP5,
    options: Options | None = None,
    *,
    change: Callable[[Module], Module] = unchanged,
    step: Callable[[str], None] | None = None,
) -> CosimReport:
    """Synthesise the accelerator, simulate its cells on images and compare with the golden model.

    Parameters
    ----------
    params : Params
    machine : Machine
    images : numpy.ndarray
        uint8 [B, H, W, C], B >= 1.
    target : str
        `ECP5`, or the path of a Liberty library.
    options : Options or None
        `stall`, `seed`, `limit` count; a netlist gives no waveform and no tensors. The seed is also that of
        the values which are undefined before the reset.
    change : callable
        Alters the mapped module: for planting faults.
    step : callable or None
        Told in words what happens.

    Raises
    ------
    UserError
        Images do not fit, the library cannot be read, Yosys is missing or fails, or a cell has no function.
    """
    tell, options = step or (lambda text: None), options or Options()
    images = check_images(images, params)
    if options.stall not in PATTERNS:
        raise UserError(
            f"unknown stall pattern {options.stall!r}; expected one of {', '.join(PATTERNS)}; choose one"
        )
    if options.waveform is not None:
        raise UserError(
            "a netlist gives no waveform; expected --netlist or --waveform, not both; leave one of them out"
        )
    if target != ECP5:
        read_library(read_liberty_text(Path(target)), [])  # before anything long begins
    started = time.perf_counter()
    with interruptible():
        tell("generating Verilog")
        design = generate(params, machine, observed=False)
        simulator, cells = netlist_simulator(design.verilog, target, change, tell)
        built = time.perf_counter() - started
        report = simulate(design, simulator, images, options, tell)
        report.cells, report.build_seconds = cells, built
        return report


def netlist_simulator(
    verilog: str,
    target: str,
    change: Callable[[Module], Module] = unchanged,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[GateSimulator, int]:
    """The netlist of a design, ready to run, and its number of cells, memories included.

    Parameters and errors are those of `cosimulate_netlist`.
    """
    if target == ECP5:
        circuit, cells = map_to_ecp5(verilog, MODULE, change=change, step=tell)
        return GateSimulator(circuit), cells
    liberty = read_liberty_text(Path(target))
    netlist = map_to_cells(verilog, MODULE, liberty, change=change, step=tell)
    library = read_library(liberty, {cell.kind for cell in netlist.cells}, powers=False)
    return GateModel(netlist, library), len(netlist.cells) + len(netlist.macros)


def simulate(
    design: Design,
    simulator: GateSimulator,
    images: np.ndarray,
    options: Options,
    tell: Callable[[str], None] = lambda text: None,
) -> CosimReport:
    """Compare logits, classes and the ends of results of a design in gates."""
    report = CosimReport(
        images=len(images),
        simulator=SIMULATOR,
        stall=options.stall,
        seed=options.seed,
    )
    started = time.perf_counter()
    found = {name: pauses(options.stall, options.seed, name) for name in ("source", "sink", "weights")}

    def watch(results: int, cycle: int) -> None:
        tell(f"simulating gates: {results} of {len(images)} image(s), cycle {cycle:,}")

    streamed = design.machine.weight_memory == "stream"
    limit = options.limit or watchdog_limit(design.program, options.stall)
    traffic = stream(
        simulator.begin(options.seed),
        [image.tobytes() for image in images],
        limit,
        weights=list(stream_beats(design.params, design.program, design.widths)) if streamed else (),
        pauses={name: pattern for name, pattern in found.items() if pattern is not None},
        reset=RESET,
        drain=DRAIN,
        watch=watch,
    )
    report.seconds = time.perf_counter() - started
    report.findings += _findings(traffic, len(images), limit)
    results = dict(enumerate(words for words, _ in traffic.results[: len(images)]))
    width = len(simulator.circuit.ports["m_axis_tdata"][1])
    check_results(report, design.params, images, results, width)
    if traffic.results:
        report.latency = traffic.results[0][1] - traffic.offered[0]
    if options.stall == "none" and not streamed:
        _check_ends(report, design.program, design.params, images, traffic)
    report.mismatches += len(report.findings)
    return report


def _findings(traffic: Traffic, images: int, limit: int) -> list[str]:
    """What went wrong on the buses, in words."""
    found, status = [], traffic.status
    if traffic.lost is not None:
        levels = ", ".join(f"{name}={value}" for name, value in status.items() if "axis" in name)
        levels = f"busy={status['busy']}, {levels}"
        found.append(f"deadlock: image {traffic.lost} gave no result in {limit} cycles; {levels}")
    for flag in ("error_short", "error_long", "error_weights"):
        if status.get(flag):
            found.append(f"{flag} was raised on frames of the right length")
    if traffic.violations:
        found.append(f"m_axis changed {traffic.violations} times while it waited for tready")
    if len(traffic.results) > images:
        found.append(f"{len(traffic.results) - images} result frame(s) that no image asked for")
    return found


def _check_ends(report: CosimReport, program: Program, params: Params, images, traffic: Traffic) -> None:
    """The cycle in which every result ends, as the cycle model says; weights on chip, no pauses."""
    trace = {name: value.numpy() for name, value in GoldenNetwork(params).trace(images).items()}
    expected = result_ends(program, trace, images, traffic.taken)
    for number, ((_, cycle), end) in enumerate(zip(traffic.results, expected, strict=False)):
        report.comparisons += 1
        if cycle != end:
            report.findings.append(
                f"image {number}: its result ends in cycle {cycle}; the cycle model says {end}"
            )


def result_ends(program: Program, trace: dict, images: np.ndarray, taken: list[int]) -> list[int]:
    """Cycle of the last word of every result.

    Parameters
    ----------
    taken : list of int
        Cycle in which the last byte of every image is taken.
    """
    model, ends, free = FrameModel(program), [], 0
    for number, (image, last) in enumerate(zip(images, taken, strict=False)):
        start = max(last + 2, free)
        single = {name: value[number] for name, value in trace.items()} | {"pixels": image}
        complete = start + model.frame(single, start - 1).steps[-1].complete
        ends.append(complete + 2 + program.network.num_classes)
        free = complete + 3
    return ends
