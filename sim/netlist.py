"""Co-simulation of the netlist: the accelerator after synthesis against the golden model.

A netlist has no observation ports: logits and class of every image are compared, and the cycle in which its
result ends with what the cycle model says (docs/interface.md, "Order and timing").
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.hw.cycles import FrameModel
from s2tdpt.hw.machine import Machine
from s2tdpt.hw.mapped import mapped
from s2tdpt.hw.processes import interruptible
from s2tdpt.hw.program import Program
from s2tdpt.sim.build import build
from s2tdpt.sim.cosim import Options, Share, check_images, check_results, transport_findings, watchdog_limit
from s2tdpt.sim.design import MODULE, Design, generate
from s2tdpt.sim.dump import read_dump
from s2tdpt.sim.report import CosimReport
from s2tdpt.sim.runner import Job, run

ECP5 = "ecp5"
"""The target that is no file of a cell library."""


def cosimulate_netlist(
    params: Params,
    machine: Machine,
    images: np.ndarray,
    target: str = ECP5,
    options: Options | None = None,
    *,
    change: Callable[[str], str] = lambda netlist: netlist,
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
        `stall`, `seed`, `simulator`, `limit` count; a netlist gives no waveform and no tensors.
    change : callable
        Alters the netlist before it is simulated (`hw.mapped.mapped`): for planting faults.
    step : callable or None
        Told in words what happens.

    Raises
    ------
    UserError
        As `sim.cosim.cosimulate` and `hw.mapped.mapped`.
    """
    tell, options = step or (lambda text: None), options or Options()
    images = check_images(images, params)
    if options.waveform is not None:
        raise UserError(
            "a netlist gives no waveform; expected --netlist or --waveform, not both; leave one of them out"
        )
    liberty = None if target == ECP5 else Path(target)
    with interruptible():
        tell("generating Verilog")
        design = generate(params, machine, observed=False)
        cells = mapped(design.verilog, MODULE, liberty, change=change, tell=tell)
        return simulate(replace(design, verilog=cells), images, options, tell)


def simulate(
    design: Design, images: np.ndarray, options: Options, tell: Callable[[str], None]
) -> CosimReport:
    """Compare logits, classes and the ends of results of a design, with or without observation ports."""
    tell(f"building the simulation ({options.simulator})")
    built = build(design.verilog, MODULE, options.simulator)
    report = CosimReport(
        images=len(images),
        layer_images=0,
        simulator=options.simulator,
        stall=options.stall,
        seed=options.seed,
        build_seconds=built.seconds,
    )
    job = Job(
        frames=[image.tobytes() for image in images],
        stall=options.stall,
        seed=options.seed,
        limit=options.limit or watchdog_limit(design.program, options.stall),
        weights=design.weight_words(),
    )
    tell(f"simulating: {len(images)} image(s)")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="s2tdpt-") as folder:
        outcome = run(built, job, Path(folder))
        share = Share(range(len(images)), job, Path(folder), outcome, read_dump(Path(folder), built.ports))
    report.seconds = time.perf_counter() - started
    report.findings += transport_findings(share, design.program)
    results = {number: frame["words"] for number, frame in enumerate(outcome["results"])}
    check_results(report, design.params, images, results, built)
    if options.stall == "none" and job.weights is None:
        _check_ends(report, design.program, design.params, images, outcome)
    report.mismatches += len(report.findings)
    return report


def _check_ends(report: CosimReport, program: Program, params: Params, images, outcome: dict) -> None:
    """The cycle in which every result ends, as the cycle model says; weights on chip, no pauses."""
    trace = {name: value.numpy() for name, value in GoldenNetwork(params).trace(images).items()}
    expected = result_ends(program, trace, images, outcome["sent"])
    for number, (frame, end) in enumerate(zip(outcome["results"], expected, strict=False)):
        report.comparisons += 1
        if frame["cycle"] != end:
            report.findings.append(
                f"image {number}: its result ends in cycle {frame['cycle']}; the cycle model says {end}"
            )


def result_ends(program: Program, trace: dict, images: np.ndarray, sent: list[int]) -> list[int]:
    """Cycle of the last word of every result.

    Parameters
    ----------
    sent : list of int
        Cycle in which the first byte of every image is offered; the others follow without a pause.
    """
    model, ends, free = FrameModel(program), [], 0
    for number, image in enumerate(images):
        taken = sent[number] + image.size  # the last byte; a byte is taken in the cycle after its offer
        start = max(taken + 2, free)
        single = {name: value[number] for name, value in trace.items()} | {"pixels": image}
        complete = start + model.frame(single, start - 1).steps[-1].complete
        ends.append(complete + 2 + program.network.num_classes)
        free = complete + 3
    return ends
