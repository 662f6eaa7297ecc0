"""Co-simulation: the generated Verilog against the golden model, value by value, on real images.

Every word that the accelerator writes while an image passes through is rebuilt into the tensors of the
network and compared for equality; so are the logits, the class, and the cycle counts with the cycle model.
Nothing is compared with a tolerance.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.compare import compare_traces
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.tools.processes import interruptible
from s2tdpt.sim.build import Build, build
from s2tdpt.sim.design import MODULE, Design, generate
from s2tdpt.sim.dump import NEVER, Dump, read_dump
from s2tdpt.sim.replay import LIMIT, Replay, replay
from s2tdpt.sim.report import CosimReport
from s2tdpt.sim.runner import Job, Run
from s2tdpt.sim.stalls import PATTERNS
from s2tdpt.sim.timing import Times, check_cycles, collect_times, measure, model_cycles

MINIMUM_SHARE = 4
"""Images below which a second simulator process does not pay."""

LOOK = 0.1
"""Seconds between two looks at the running simulators."""


@dataclass(frozen=True)
class Options:
    """How to co-simulate.

    Attributes
    ----------
    layers : int or None
        Number of images, from the first on, of which all tensors and cycle counts are compared, not only
        logits and class. None: all.
    stall : str
        Pattern of `sim.stalls` on all streams.
    seed : int
        Seed of the stall pattern.
    simulator : str
        "verilator" or "icarus".
    jobs : int or None
        Simulator processes that share the images; None: one a processor, when there are images enough.
    waveform : Path or None
        Write the waveform of the first image here (FST); only that image is simulated.
    steps : tuple of int or None
        First and last step of the layer program in the waveform; None: everything.
    folder : Path or None
        Keep the logs and records of the runs here; None: a temporary folder.
    limit : int or None
        Watchdog: cycles without a result. None: four times the cycles of an image in which every neuron
        fires.
    """

    layers: int | None = None
    stall: str = "none"
    seed: int = 0
    simulator: str = "verilator"
    jobs: int | None = None
    waveform: Path | None = None
    steps: tuple[int, int] | None = None
    folder: Path | None = None
    limit: int | None = None


@dataclass
class Share:
    """The images of one simulator process, and what came out of it."""

    images: range
    job: Job
    work: Path
    outcome: dict = field(default_factory=dict)
    dump: Dump | None = None


def cosimulate(
    params: Params,
    machine: Machine,
    images: np.ndarray,
    options: Options | None = None,
    *,
    design: Design | None = None,
    step: Callable[[str], None] | None = None,
) -> CosimReport:
    """Simulate the generated accelerator on images and compare everything with the golden model.

    Parameters
    ----------
    params : Params
        The numbers that the golden model uses. They are the reference, also when `design` was made from
        others.
    machine : Machine
    images : numpy.ndarray
        uint8 [B, H, W, C], B >= 1.
    options : Options or None
    design : Design or None
        An accelerator that was generated before; None: generate it.
    step : callable or None
        Told in words what happens, for a progress display.

    Raises
    ------
    UserError
        Images do not fit, the design has more memory than can be generated, or a tool is missing or fails.
    """
    tell, options = step or (lambda text: None), options or Options()
    images = _check_options(options, check_images(images, params))
    with interruptible():
        if design is None:
            tell("generating Verilog")
            design = generate(params, machine)
        _check_range(options, design.program)
        tell(f"building the simulation ({options.simulator})")
        built = build(design.verilog, MODULE, options.simulator, waves=options.waveform is not None)
        layers = len(images) if options.layers is None else max(0, min(options.layers, len(images)))
        report = CosimReport(
            images=len(images),
            layer_images=layers,
            simulator=options.simulator,
            stall=options.stall,
            seed=options.seed,
            build_seconds=built.seconds,
        )
        tell(f"simulating: {len(images)} image(s)")
        folder = options.folder
        keep = nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory(prefix="s2tdpt-")
        with keep as root:
            started = time.perf_counter()
            shares = _shares(design, images, layers, options, Path(root))
            _simulate(shares, built, design.program, options, tell)
            report.seconds = time.perf_counter() - started
            tell("comparing with the golden model")
            started = time.perf_counter()
            for share in shares:
                share.dump = read_dump(share.work, built.ports)
        _check(report, design, params, images, built.ports.width("m_axis_tdata"), shares)
        report.check_seconds = time.perf_counter() - started
    return report


def _check_options(options: Options, images: np.ndarray) -> np.ndarray:
    """Refuse a pattern that does not exist; returns the images to simulate."""
    if options.stall not in PATTERNS:
        raise UserError(
            f"unknown stall pattern {options.stall!r}; expected one of {', '.join(PATTERNS)}; choose one"
        )
    return images if options.waveform is None else images[:1]


def _check_range(options: Options, program: Program) -> None:
    """Refuse a range of steps that the layer program does not have."""
    if options.steps is not None:
        first, last = options.steps
        if not 0 <= first <= last < len(program.steps):
            raise UserError(
                f"steps {first} to {last} cannot be shown; expected two steps from 0 to "
                f"{len(program.steps) - 1}, the first one first; choose others"
            )


def check_images(images: np.ndarray, params: Params) -> np.ndarray:
    """Images as uint8 [B, H, W, C], or a `UserError` that says what is expected."""
    config = params.config
    shape = (config.image_height, config.image_width, config.image_channels)
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise UserError(
            f"images are {images.dtype}{list(images.shape)}; expected uint8[batch, "
            f"{', '.join(map(str, shape))}] with at least one image; convert or resize them"
        )
    return images


def _shares(design: Design, images: np.ndarray, layers: int, options: Options, root: Path) -> list[Share]:
    """Share k takes images k, k + jobs, ...: the processes record as many of them, give or take one."""
    jobs = 1 if options.waveform is not None else options.jobs
    if jobs is None:
        jobs = max(1, min(os.cpu_count() or 1, len(images) // MINIMUM_SHARE))
    limit, weights = options.limit, design.weight_words()
    if limit is None:
        limit = watchdog_limit(design.program, options.stall)
    shares = []
    for number in range(min(jobs, len(images))):
        mine = range(number, len(images), jobs)
        job = Job(
            frames=[images[i].tobytes() for i in mine],
            record=sum(1 for i in mine if i < layers),
            stall=options.stall,
            seed=options.seed + number,
            limit=limit,
            weights=weights,
            steps=options.steps,
        )
        shares.append(Share(mine, job, root / f"run{number}"))
    return shares


def _simulate(shares: list[Share], built: Build, program: Program, options: Options, tell) -> None:
    """Run all shares side by side; if one fails, all end."""
    with ExitStack() as stack:
        runs = [stack.enter_context(Run(built, s.job, s.work, options.waveform)) for s in shares]
        meter = _Meter(shares, program)
        ended = [False] * len(runs)
        while not all(ended):
            time.sleep(LOOK)
            for number, (share, run) in enumerate(zip(shares, runs, strict=True)):
                if not ended[number] and not run.running():
                    share.outcome, ended[number] = run.outcome(), True
            meter.show(runs, ended, tell)


class _Meter:
    """How far the simulation is, in words: images done and time left."""

    def __init__(self, shares: list[Share], program: Program):
        self._counts = [len(share.images) for share in shares]
        work = np.array([dense_cycles(program, step) for step in program.steps], dtype=float)
        self._before = np.concatenate([[0.0], np.cumsum(work)[:-1]]) / work.sum()
        self._started = self._told = time.perf_counter()

    def show(self, runs: list[Run], ended: list[bool], tell) -> None:
        """Once a second."""
        now = time.perf_counter()
        if now - self._told < 1:
            return
        self._told = now
        images, part = 0, 0.0
        for run, count, over in zip(runs, self._counts, ended, strict=True):
            results, step, _ = (count, 0, 0) if over else run.progress()
            images += results
            part += results + (self._before[step] if results < count and step < len(self._before) else 0.0)
        total = sum(self._counts)
        left = f", about {(now - self._started) * (total - part) / part:,.0f} s left" if part > 0.02 else ""
        tell(f"simulating: {images} of {total} image(s){left}")


def dense_cycles(program: Program, step) -> int:
    """Cycles of a step at most: every neuron fires in every time step."""
    rows = step.tile_rows(program.machine) + step.subgroups(program.machine) + 16
    return step.positions * step.passes * (rows + step.kernel * step.kernel * step.packing_in.groups)


def watchdog_limit(program: Program, stall: str) -> int:
    """Cycles after which an image counts as lost: four times the cycles if every neuron fired in every step.

    Stalled streams get sixteen times the beats of the image and its weights on top.
    """
    net, machine = program.network, program.machine
    dense = sum(dense_cycles(program, step) for step in program.steps)
    counts = min(net.head_dim + 1, net.tokens)
    dense += net.depth * net.heads * net.tokens * (net.timesteps * (counts + 2) + 32)
    pixels = net.image_height * net.image_width * net.image_channels
    beats = pixels + program.rows * machine.banks + 16 * program.const_words
    return 4 * dense + (16 if stall != "none" else 2) * beats + 10_000


def _check(
    report: CosimReport, design: Design, params: Params, images, width: int, shares: list[Share]
) -> None:
    """Fill `report` from the outcomes of all shares."""
    program = design.program
    results = {}
    rebuilt: list[tuple[range, Replay]] = []
    signed_y = derive_bounds(design.params).attention.lo < 0
    times: dict[int, Times] = {}
    for share in shares:
        outcome, frames = share.outcome, len(share.outcome["results"])
        for number, frame in zip(share.images, outcome["results"], strict=False):
            results[number] = frame["words"]
        report.findings += transport_findings(share, program)
        complete = min(share.job.record, frames, len(share.dump.steps))
        if complete:
            rebuilt.append((share.images[:complete], replay(share.dump, program, complete, signed_y)))
        times |= collect_times(share, len(program.steps))
        cycles = [frame["cycle"] for frame in outcome["results"]]
        if outcome["sent"] and cycles and not report.latency:
            report.latency = cycles[0] - outcome["sent"][0]
    numbers, trace = _check_tensors(report, params, images, rebuilt)
    check_results(report, params, images, results, width)
    models = model_cycles(report, design, images, shares, times, numbers, trace)
    check_cycles(report, program, times, models)
    measure(report, design, shares, times, models)
    report.mismatches += len(report.findings)


def transport_findings(share: Share, program: Program) -> list[str]:
    """What went wrong on the buses, in words."""
    found, outcome = [], share.outcome
    if outcome["deadlock"] is not None:
        found.append(_diagnose(share, program))
    status = outcome["status"]
    for flag in ("error_short", "error_long", "error_weights"):
        if status.get(flag):
            found.append(f"{flag} was raised on frames of the right length")
    if outcome["violations"]:
        found.append(f"m_axis changed {outcome['violations']} times while it waited for tready")
    if outcome["extra"]:
        found.append(f"{outcome['extra']} result frame(s) that no image asked for")
    return found


def _diagnose(share: Share, program: Program) -> str:
    """A deadlock in one line: which image, which step, and the state of the streams."""
    outcome, steps = share.outcome, share.dump.steps
    number = outcome["deadlock"]["frame"]
    image = share.images[number] if number < len(share.images) else number
    where = "no step ever started"
    if len(steps):
        start, complete = steps.times(len(steps) - 1, len(program.steps))
        last = int(np.flatnonzero(start != NEVER)[-1])
        name = program.steps[last].name
        where = f"step {last} ({name}) was complete in cycle {complete[last]} and none followed"
        open_steps = np.flatnonzero((start != NEVER) & (complete == NEVER))
        if len(open_steps):
            first = int(open_steps[0])
            where = (
                f"step {first} ({program.steps[first].name}) started in cycle {start[first]} and did not end"
            )
    status = outcome["status"]
    streams = ", ".join(
        f"{name} tvalid={status[name + '_tvalid']} tready={status[name + '_tready']}"
        for name in ("s_axis", "s_axis_weights", "m_axis")
        if name + "_tvalid" in status
    )
    limit = outcome["deadlock"]["limit"]
    return f"deadlock: image {image} gave no result in {limit} cycles; {where}; {streams}"


def check_results(report: CosimReport, params: Params, images, results: dict, width: int) -> None:
    """Compare logits and class of every image; result words have `width` bits, unsigned."""
    config = params.config
    expected = GoldenNetwork(params).forward(images).numpy()
    logits = np.zeros((len(images), config.num_classes), dtype=np.int64)
    classes = np.full(len(images), -1, dtype=np.int64)
    complete = []
    for number in range(len(images)):
        words = results.get(number)
        if words is None:
            continue
        if len(words) != config.num_classes + 1:
            report.findings.append(
                f"image {number}: result frame of {len(words)} words; expected {config.num_classes + 1}"
            )
            continue
        signed = [word - (1 << width) if word >> (width - 1) else word for word in words]
        logits[number], classes[number] = signed[:-1], signed[-1]
        complete.append(number)
    got = {"head.logits": logits[complete], "head.class": classes[complete]}
    wanted = {"head.logits": expected[complete], "head.class": expected[complete].argmax(axis=1)}
    _compare(report, wanted, got, np.array(complete, dtype=np.int64))
    missing = len(images) - len(complete)
    if missing and not report.findings:
        report.findings.append(f"{missing} image(s) gave no result")
    report.logits, report.classes = logits, classes


def _check_tensors(report: CosimReport, params: Params, images, rebuilt) -> tuple[list[int], dict]:
    """Compare the tensors of the recorded images; returns their numbers and their golden trace."""
    order = np.array([number for share, _ in rebuilt for number in share], dtype=np.int64)
    report.layer_images = len(order)
    for _, part in rebuilt:
        report.findings += part.findings[:LIMIT]
        report.mismatches += part.finding_count - len(part.findings[:LIMIT])
    if not len(order):
        return [], {}
    sequence = np.argsort(order, kind="stable")
    trace = {
        name: value.numpy() for name, value in GoldenNetwork(params).trace(images[order[sequence]]).items()
    }
    got = {}
    for name in rebuilt[0][1].tensors:
        got[name] = np.concatenate([part.tensors[name] for _, part in rebuilt])[sequence]
    report.tensors = len(got)
    got = {name: got[name] for name in trace if name in got}  # differences come in network order
    _compare(report, {name: trace[name] for name in got}, got, order[sequence])
    unseen = sorted(name for name in trace if name not in got and not name.startswith("head."))
    if unseen:
        report.findings.append(f"tensor(s) not observed: {', '.join(unseen)}")
    return order[sequence].tolist(), trace


def _compare(report: CosimReport, wanted: dict, got: dict, numbers: np.ndarray) -> None:
    """Compare tensors by name; `numbers` are the image numbers of the first axis."""
    if not len(numbers):
        return
    report.comparisons += sum(value.size for value in got.values())
    for difference in compare_traces(wanted, got):
        report.mismatches += difference.count
        text = str(difference)
        if difference.image is not None:
            text = text.replace(f"image {difference.image}", f"image {numbers[difference.image]}", 1)
        report.differences.append(text)
