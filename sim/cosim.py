"""Co-simulation: the generated Verilog against the golden model, value by value, on real images.

Every word that the accelerator writes while an image passes through is rebuilt into the tensors of the
network and compared for equality; so are the logits, the class, and the cycle counts with the cycle model.
Nothing is compared with a tolerance.
"""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from s2tdpt.golden.compare import compare_traces
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.hw.arrival import TileArrival, tile_beats
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.cycles import operation_cycles
from s2tdpt.hw.schedule import Program
from s2tdpt.sim.design import MODULE, Design, generate
from s2tdpt.sim.dump import Dump, read_dump
from s2tdpt.sim.replay import LIMIT, Replay, replay
from s2tdpt.sim.report import CosimReport, LayerCycles
from s2tdpt.sim.runner import Build, Job, build, run
from s2tdpt.sim.stalls import PATTERNS

MINIMUM_SHARE = 4
"""Images below which a second simulator process does not pay."""


def cosimulate(
    params: Params,
    hardware: HardwareConfig,
    images: np.ndarray,
    *,
    design: Design | None = None,
    layers: int | None = None,
    stall: str = "none",
    seed: int = 0,
    simulator: str = "verilator",
    jobs: int | None = None,
    waveform: Path | None = None,
    folder: Path | None = None,
    limit: int | None = None,
    step: Callable[[str], None] | None = None,
) -> CosimReport:
    """Simulate the generated accelerator on images and compare everything with the golden model.

    Parameters
    ----------
    params : Params
        The numbers that the golden model uses. They are the reference, also when `design` was made from
        others.
    hardware : HardwareConfig
    images : numpy.ndarray
        uint8 [B, H, W, C], B >= 1.
    design : Design or None
        An accelerator that was generated before; None: generate it.
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
        Write the waveform of the first image here; only that image is simulated.
    folder : Path or None
        Keep the logs and records of the runs here; None: a temporary folder.
    limit : int or None
        Watchdog: cycles without a result. None: four times the cycles of an image in which every neuron
        fires.
    step : callable or None
        Told in words what happens, for a progress display.

    Raises
    ------
    UserError
        Images do not fit, the network does not fit the machine, or a tool is missing or fails.
    """
    tell = step or (lambda text: None)
    images = check_images(images, params)
    if stall not in PATTERNS:
        raise UserError(f"unknown stall pattern {stall!r}; expected one of {', '.join(PATTERNS)}; choose one")
    if waveform is not None:
        images, jobs = images[:1], 1
    if design is None:
        tell("generating Verilog")
        design = generate(params, hardware)
    layer_images = len(images) if layers is None else max(0, min(layers, len(images)))
    tell(f"building the simulation ({simulator})")
    built = build(design.verilog, MODULE, simulator, waves=waveform is not None)
    shares = _shares(len(images), jobs)
    report = CosimReport(
        images=len(images), layer_images=layer_images, simulator=simulator, stall=stall, seed=seed
    )
    report.build_seconds = built.seconds
    if limit is None:
        limit = watchdog_limit(design.program, stall)
    tell(f"simulating {len(images)} image(s)")
    started = time.perf_counter()
    keep = nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory(prefix="s2tdpt-")
    with keep as root, ThreadPoolExecutor(len(shares)) as pool:
        # Share k takes images k, k + jobs, ...: every process records the same number of them, give or take
        # one.
        tasks = []
        for number, share in enumerate(shares):
            job = Job(
                frames=[images[i].tobytes() for i in share],
                record=sum(1 for i in share if i < layer_images),
                stall=stall,
                seed=seed + number,
                limit=limit,
                weights=design.weight_words(),
            )
            work = Path(root) / f"run{number}"
            tasks.append((share, job, work, pool.submit(run, built, job, work, waveform)))
        outcomes = [(share, job, work, task.result()) for share, job, work, task in tasks]
        report.seconds = time.perf_counter() - started
        tell("comparing with the golden model")
        started = time.perf_counter()
        _check(report, design, params, images, built, outcomes)
        report.check_seconds = time.perf_counter() - started
    return report


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


def _shares(count: int, jobs: int | None) -> list[range]:
    if jobs is None:
        jobs = max(1, min(os.cpu_count() or 1, count // MINIMUM_SHARE))
    return [range(first, count, jobs) for first in range(min(jobs, count))]


def watchdog_limit(program: Program, stall: str) -> int:
    """Cycles after which an image counts as lost: four times the cycles if every neuron fired in every step.

    Stalled streams get sixteen times the beats of the image and its weights on top.
    """
    network, hardware = program.network, program.hardware
    dense = 0
    for op in program.ops:
        planes = max(network.timesteps, 8)
        if op.kind == "accumulate":
            per_position = op.tile_rows * planes + hardware.subgroups * 2 * planes
            dense += op.packing_out.groups * op.positions * per_position
        else:
            row_updates = network.tokens * network.timesteps * (network.head_dim + 1) * network.heads
            dense += op.positions * op.packing_in.groups * planes + row_updates
    pixels = network.image_height * network.image_width * network.image_channels
    beats = pixels + program.tile_words + 16 * program.const_words
    return 4 * dense + (16 if stall != "none" else 2) * beats + 10_000


def _check(report: CosimReport, design: Design, params: Params, images, built: Build, outcomes) -> None:
    """Fill `report` from the outcomes of all shares."""
    program = design.program
    results = {}
    rebuilt: list[tuple[range, Replay]] = []
    times: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for share, job, work, outcome in outcomes:
        dump = read_dump(work, built.ports)
        for number, frame in zip(share, outcome["results"], strict=False):
            results[number] = frame["words"]
        report.findings += _transport_findings(outcome, job, dump, program, share)
        complete = min(job.record, len(outcome["results"]))
        if complete:
            network, post_lanes = program.network, design.hardware.post_lanes
            part = replay(dump, program.ops, complete, network.timesteps, post_lanes, network.heads)
            rebuilt.append((share[:complete], part))
        _collect_times(times, dump, share, len(outcome["results"]), len(program.ops))
        cycles = [frame["cycle"] for frame in outcome["results"]]
        if len(cycles) > 1:
            report.interval += (cycles[-1] - cycles[0]) / (len(cycles) - 1) * len(share) / report.images
        if outcome["sent"] and cycles and not report.latency:
            report.latency = cycles[0] - outcome["sent"][0]
    trace = _check_tensors(report, params, images, rebuilt)
    _check_results(report, params, images, results, built)
    errors = _check_cycle_model(report, design, images, outcomes, times, *trace)
    _measure(report, design, times, errors)
    report.mismatches += len(report.findings)


def _transport_findings(outcome, job: Job, dump: Dump, program: Program, share: range) -> list[str]:
    """What went wrong on the buses, in words."""
    found = []
    if outcome["deadlock"] is not None:
        found.append(_diagnose(outcome, dump, program, share))
    status = outcome["status"]
    for flag in ("error_short", "error_long", "error_weights"):
        if status.get(flag):
            found.append(f"{flag} was raised on frames of the right length")
    if outcome["violations"]:
        found.append(f"m_axis changed {outcome['violations']} times while it waited for tready")
    if outcome["extra"]:
        found.append(f"{outcome['extra']} result frame(s) that no image asked for")
    return found


def _diagnose(outcome, dump: Dump, program: Program, share: range) -> str:
    """A deadlock in one line: which image, which step, and the state of the streams."""
    number = outcome["deadlock"]["frame"]
    image = share[number] if number < len(share) else number
    steps, status = dump.steps, outcome["status"]
    if not len(steps):
        where = "no step ever started"
    elif steps.done[-1] < 0:
        op = int(steps.op[-1])
        name = program.ops[op].name if op < len(program.ops) else "unknown"
        where = f"step {op} ({name}) started in cycle {steps.start[-1]} and did not end"
    else:
        op = int(steps.op[-1])
        where = f"step {op} ({program.ops[op].name}) ended in cycle {steps.done[-1]} and none followed"
    streams = ", ".join(
        f"{name} tvalid={status[name + '_tvalid']} tready={status[name + '_tready']}"
        for name in ("s_axis", "s_axis_weights", "m_axis")
        if name + "_tvalid" in status
    )
    limit = outcome["deadlock"]["limit"]
    return f"deadlock: image {image} gave no result in {limit} cycles; {where}; {streams}"


def _collect_times(times, dump: Dump, share: range, frames: int, ops: int) -> None:
    """Cycles and firings of every complete image: image -> (start and done [ops], firings [ops])."""
    steps = dump.steps
    for number in range(frames):
        mine = np.flatnonzero(steps.frame == number)
        if len(mine) == ops and np.all(steps.done[mine] >= 0):
            times[share[number]] = (
                np.stack([steps.start[mine], steps.done[mine]]),
                steps.fired[mine].sum(axis=1),
            )


def _check_results(report: CosimReport, params: Params, images, results: dict, built: Build) -> None:
    """Compare logits and class of every image."""
    config = params.config
    expected = GoldenNetwork(params).forward(images).numpy()
    width = built.ports.width("m_axis_tdata")
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


def _measure(report: CosimReport, design: Design, times: dict, errors: np.ndarray | None) -> None:
    """Cycles and utilisation of every layer; `errors` are those of the cycle model."""
    if not times:
        return
    program, hardware = design.program, design.hardware
    numbers = sorted(times)
    cycles = np.array([times[n][0][1] - times[n][0][0] for n in numbers])
    fired = np.array([times[n][1] for n in numbers])
    report.frame_cycles = [int(times[n][0][1, -1] - times[n][0][0, 0]) for n in numbers]
    width = hardware.lanes * hardware.rows
    total = 0.0
    for index, op in enumerate(program.ops):
        # Every group of output channels sees the same spikes, so firings split evenly over the groups.
        share = op.packing_out.channels / op.packing_out.groups if op.kind == "accumulate" else 0
        firings, mean = float(fired[:, index].mean()), float(cycles[:, index].mean())
        total += firings * share
        error = None if errors is None else int(errors[index])
        busy = firings * share / (width * mean)
        report.layers.append(LayerCycles(op.name, op.kind, mean, error, firings, firings * share, busy))
    report.utilisation = total / (width * report.cycles)


def _check_cycle_model(
    report: CosimReport, design: Design, images, outcomes, times: dict, numbers: list[int], trace: dict
) -> np.ndarray | None:
    """Compare the cycle model with the simulation; largest error of every step, None if it does not apply.

    It does not where the weight stream pauses: nobody knows when a tile is there.
    """
    program, streamed = design.program, design.hardware.weight_memory == "stream"
    if streamed and report.stall != "none":
        return None
    place = {number: position for position, number in enumerate(numbers)}
    errors = []
    for share, _, _, outcome in outcomes:
        arrival = None
        if streamed and outcome["weights_from"] is not None:
            arrival = TileArrival(tile_beats(program, design.widths), outcome["weights_from"])
        for number in share:  # in the order of the stream: the recorded images come first
            if number not in place or number not in times:
                break
            position = place[number]
            single = {name: value[position] for name, value in trace.items()} | {"pixels": images[number]}
            starts, ends = times[number][0]
            modelled = np.array(
                [
                    operation_cycles(op, program, single, arrival, int(start)).cycles
                    for op, start in zip(program.ops, starts, strict=True)
                ]
            )
            measured = ends - starts
            errors.append(np.abs(measured - modelled))
            report.comparisons += len(modelled)
            for index in np.flatnonzero(errors[-1]):
                report.findings.append(
                    f"image {number}: {program.ops[index].name} took {measured[index]} cycles; "
                    f"the cycle model says {modelled[index]}"
                )
    return np.max(errors, axis=0) if errors else None
