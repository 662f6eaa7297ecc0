"""What a co-simulation found, as data and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np


@dataclass
class StepReport:
    """One step of the layer program over all simulated images.

    Parameters
    ----------
    name, sink : str
        As in `hw.plan.program.Step`.
    start, complete : float
        Mean cycles from the start of the image to the step's start, to its last write.
    cycles : float
        Mean cycles until the next step started, for the last one until it was complete: they add up to the
        image's.
    model_error : int or None
        Largest distance of the cycle model (`hw.estimate.cycles`) from the simulation over the compared
        images; None where the model does not apply.
    events : float
        Mean number of channels with a spike that were read, over all positions and taps.
    accumulates : float
        Mean number of additions in channels that exist.
    utilisation : float
        Events x channels of the tile / (lanes x banks x cycles), 0..1.
    """

    name: str
    sink: str
    start: float
    complete: float
    cycles: float
    model_error: int | None = None
    events: float = 0.0
    accumulates: float = 0.0
    utilisation: float = 0.0


@dataclass
class CosimReport:
    """Result of `sim.cosim.cosimulate`.

    Parameters
    ----------
    images : int
        Images whose logits and class were compared.
    layer_images : int
        Images of which every observable tensor was compared too.
    tensors : int
        Named tensors compared for each of those.
    comparisons : int
        Values compared, one by one, for equality.
    mismatches : int
        Values that differ, plus findings.
    differences : list[str]
        For every tensor that differs, in network order: where first, both values, how many.
    findings : list[str]
        What is wrong beside the values: missing or stray records, protocol, deadlock, cycle counts.
    frame_cycles, fired : list[int]
        Of every image: cycles from its first step's start to its last step's end, accumulates of a lane.
    interval : float
        Mean cycles from the start of an image to the start of the next one in the same process; of one alone
        what the cycle model says, 0 where it does not apply.
    cells : int
        Cells of the netlist that was simulated, memories included; 0: none was, but the Verilog.
    latency : int
        Cycles from the first pixel of the first image to its result.
    utilisation : float
        Events x channels / (lanes x banks x cycles) of the whole image, 0..1; like the next from the cycle
        model, 0 where it does not apply.
    accumulates_per_cycle : float
        Useful additions in an interval, divided by its cycles.
    """

    images: int
    layer_images: int = 0
    tensors: int = 0
    comparisons: int = 0
    mismatches: int = 0
    differences: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    steps: list[StepReport] = field(default_factory=list)
    frame_cycles: list[int] = field(default_factory=list)
    fired: list[int] = field(default_factory=list)
    interval: float = 0.0
    latency: int = 0
    cells: int = 0
    utilisation: float = 0.0
    accumulates_per_cycle: float = 0.0
    simulator: str = ""
    stall: str = "none"
    seed: int = 0
    build_seconds: float = 0.0
    seconds: float = 0.0
    check_seconds: float = 0.0
    logits: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def ok(self) -> bool:
        """Whether everything was equal and nothing was found."""
        return self.mismatches == 0

    @property
    def cycles(self) -> float:
        """Mean clock cycles an image, from the start of the first step to the end of the last."""
        return float(np.mean(self.frame_cycles)) if self.frame_cycles else 0.0

    @property
    def images_per_second(self) -> float:
        """Simulated images a second of wall clock, simulator start included."""
        return self.images / self.seconds if self.seconds else 0.0

    def first(self) -> str | None:
        """The first difference in network order, else the first finding, else None."""
        return next(iter(self.differences + self.findings), None)

    def to_json(self) -> dict:
        """Plain data for files and other programs."""
        plain = (
            "images",
            "layer_images",
            "tensors",
            "comparisons",
            "mismatches",
            "differences",
            "findings",
            "frame_cycles",
            "fired",
            "interval",
            "latency",
            "cells",
            "utilisation",
            "accumulates_per_cycle",
            "simulator",
            "stall",
            "seed",
            "build_seconds",
            "seconds",
            "check_seconds",
            "cycles",
            "images_per_second",
            "ok",
        )
        data = {name: getattr(self, name) for name in plain}
        data["steps"] = [asdict(step) for step in self.steps]
        data["classes"] = self.classes.tolist()
        return data
