"""Cycles of a co-simulation: start and completion of every step as measured, and what the model says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from s2tdpt.hw.estimate.arrival import TileArrival, stream_shape
from s2tdpt.hw.estimate.cycles import FrameCycles, FrameModel
from s2tdpt.hw.plan.program import Program
from s2tdpt.sim.design import Design
from s2tdpt.sim.dump import NEVER
from s2tdpt.sim.report import CosimReport, StepReport

if TYPE_CHECKING:
    from s2tdpt.sim.cosim import Share


@dataclass(frozen=True)
class Times:
    """Measured cycles of one image: absolute, int64 [steps] each, and its accumulates of a lane."""

    start: np.ndarray
    complete: np.ndarray
    fired: int


def collect_times(share: Share, count: int) -> dict[int, Times]:
    """Cycles of every image all of whose steps ran to their end."""
    found, steps = {}, share.dump.steps
    for number in range(min(len(share.outcome["results"]), len(steps))):
        start, complete = steps.times(number, count)
        if np.all(start != NEVER) and np.all(complete != NEVER):
            found[share.images[number]] = Times(start, complete, steps.fired[number])
    return found


def model_cycles(
    report: CosimReport,
    design: Design,
    images,
    shares: list[Share],
    times: dict,
    numbers: list[int],
    trace: dict,
) -> dict[int, FrameCycles]:
    """What the cycle model says of the recorded images; empty where it does not apply.

    It does not where the weight stream pauses: nobody knows when a tile is there.
    """
    program, streamed = design.program, design.machine.weight_memory == "stream"
    if streamed and report.stall != "none":
        return {}
    place = {number: position for position, number in enumerate(numbers)}
    models = {}
    for share in shares:
        arrival = None
        if streamed and share.outcome["weights_from"] is not None:
            arrival = TileArrival(stream_shape(program, design.widths), share.outcome["weights_from"])
        model = FrameModel(program, arrival)
        for number in share.images:  # in the order of the stream: the recorded images come first
            if number not in place or number not in times:
                break
            single = {name: value[place[number]] for name, value in trace.items()} | {
                "pixels": images[number]
            }
            models[number] = model.frame(single, int(times[number].start[0]) - 1)
    return models


def check_cycles(report: CosimReport, program: Program, times: dict, models: dict[int, FrameCycles]) -> None:
    """Starts and ends of every step, and accumulates, exactly as the cycle model says."""
    for number, model in models.items():
        measured = times[number]
        report.comparisons += 2 * len(program.steps) + 1
        for what, cycles in (("start", measured.start), ("complete", measured.complete)):
            got = cycles - measured.start[0]
            expected = np.array([getattr(step, what) for step in model.steps])
            wrong = np.flatnonzero(got != expected)
            if len(wrong):
                i = int(wrong[0])
                report.findings.append(
                    f"image {number}: {what} of {program.steps[i].name} (step {i}) in cycle {got[i]}; "
                    f"the cycle model says {expected[i]} ({len(wrong)} of {len(got)} steps differ)"
                )
        fired = sum(step.spikes for step in model.steps)
        if fired != measured.fired:
            report.findings.append(
                f"image {number}: {measured.fired} accumulates of a lane; the cycle model says {fired}"
            )


def measure(
    report: CosimReport,
    design: Design,
    shares: list[Share],
    times: dict,
    models: dict[int, FrameCycles],
) -> None:
    """Cycles and utilisation of every step and of whole images."""
    if not times:
        return
    program, machine = design.program, design.machine
    numbers = sorted(times)
    first = np.array([times[n].start[0] for n in numbers])[:, None]
    start = np.array([times[n].start for n in numbers]) - first
    complete = np.array([times[n].complete for n in numbers]) - first
    report.frame_cycles = complete[:, -1].tolist()
    report.fired = [times[n].fired for n in numbers]
    known = [(models[n], place) for place, n in enumerate(numbers) if n in models]
    report.interval = _interval(shares, times, models)
    spans = np.diff(start, axis=1, append=complete[:, -1:])
    for index, step in enumerate(program.steps):
        entry = StepReport(
            name=step.name,
            sink=step.sink.name.lower(),
            start=float(start[:, index].mean()),
            complete=float(complete[:, index].mean()),
            cycles=float(spans[:, index].mean()),
        )
        if known:
            counted = [model.steps[index] for model, _ in known]
            errors = [
                max(abs(c.start - int(start[p, index])), abs(c.complete - int(complete[p, index])))
                for c, (_, p) in zip(counted, known, strict=True)
            ]
            entry.model_error = max(errors)
            entry.events = float(np.mean([c.events for c in counted]))
            entry.accumulates = float(np.mean([c.accumulates for c in counted]))
            slots = machine.lanes * machine.banks * max(entry.cycles, 1.0)
            entry.utilisation = entry.events * step.channels / slots
        report.steps.append(entry)
    if known:
        cycles = float(np.mean([report.frame_cycles[p] for _, p in known]))
        useful = sum(e.events * s.channels for e, s in zip(report.steps, program.steps, strict=True))
        report.utilisation = useful / (machine.lanes * machine.banks * cycles)
        report.accumulates_per_cycle = sum(e.accumulates for e in report.steps) / report.interval


def _interval(shares: list[Share], times: dict, models: dict[int, FrameCycles]) -> float:
    """Mean cycles from start to start; of single images what the model says."""
    pairs = [(a, b) for share in shares for a, b in zip(share.images, share.images[1:], strict=False)]
    gaps = [int(times[b].start[0] - times[a].start[0]) for a, b in pairs if a in times and b in times]
    gaps = gaps or [model.interval for model in models.values()]
    return float(np.mean(gaps)) if gaps else 0.0
