"""What one machine would give a network: speed, logic, memory, energy, as the search for machines asks.

The spikes are drawn or traced once for a network; a machine then costs a run of the exact cycle model, the
count of its accesses and the area model, milliseconds for small networks. What does not fit a device is
refused before any cycle is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from s2tdpt.golden.bounds import Bounds, derive_bounds
from s2tdpt.golden.params import Params
from s2tdpt.hw.estimate.area_model import area_model, features
from s2tdpt.hw.estimate.counted_energy import count_energy
from s2tdpt.hw.estimate.layers import ImageSequence
from s2tdpt.hw.estimate.memory_plan import BLOCKS, LARGEST, plan_for
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import Widths, derive_widths

__all__ = ["DEVICES", "Candidate", "Contender", "Limits", "Unfit", "estimate_candidate"]

DEVICES = {"ecp5-25k": 24_288, "ecp5-45k": 43_848, "ecp5-85k": 83_640}
"""LUTs of a device, and as many flip-flops: what nextpnr-ecp5 counts as available."""


class Unfit(Exception):
    """A machine that is out of the question; the message says why, in a line.

    Attributes
    ----------
    excess : float
        How much of something is taken (or wanted) for every one that there is, above 1.
    """

    def __init__(self, message: str, excess: float):
        super().__init__(message)
        self.excess = excess


@dataclass(frozen=True)
class Limits:
    """What a machine must keep to.

    Attributes
    ----------
    clock_mhz : float
        Clock of the frames a second, above 0; an assumption.
    device : str or None
        One of `DEVICES`.
    fps : float
        Frames a second at least.
    """

    clock_mhz: float
    device: str | None = None
    fps: float = 0.0


@dataclass(frozen=True)
class Contender:
    """A network that machines are tried on.

    Attributes
    ----------
    name : str
        As it was named on the command line.
    params : Params
    traces : tuple of dict
        What `cycles.FrameModel.frame` wants of every image, at least one: traced by the golden model
        (`estimate.image_traces`), or drawn at random (`prediction.random_trace`).
    drawn : bool
        Whether the parameters and the spikes are random.
    """

    name: str
    params: Params
    traces: tuple[Mapping[str, np.ndarray], ...]
    drawn: bool = False

    @cached_property
    def bounds(self) -> Bounds:
        """Proven intervals of its values."""
        return derive_bounds(self.params)

    @cached_property
    def widths(self) -> Widths:
        """Widths that follow from them."""
        return derive_widths(self.params, self.bounds)


@dataclass(frozen=True)
class Candidate:
    """One machine on one network; means over the images.

    Attributes
    ----------
    network : str
        `Contender.name`.
    machine : Machine
    cycles : float
        From image to image; late weights of a stream included.
    fps : float
        Images a second at the clock of the `Limits`.
    lut, ff : float
        ECP5, predicted by `area_model`.
    bram : int
        Block RAMs of 18 kbit.
    energy : float
        pJ an image: additions, accesses of all memories, and streamed weights out of DRAM. No clock, no
        leakage.
    adders, accesses, dram : float
        Its parts.
    leakage : float
        uW of the macros.
    macro_area : float
        um2 of the macros at 45 nm.
    """

    network: str
    machine: Machine
    cycles: float
    fps: float
    lut: float
    ff: float
    bram: int
    energy: float
    adders: float
    accesses: float
    dram: float
    leakage: float
    macro_area: float

    @property
    def objectives(self) -> tuple[float, float, float]:
        """Frames a second (more is better), LUTs and pJ an image (less is better)."""
        return self.fps, self.lut, self.energy

    def as_dict(self) -> dict[str, Any]:
        """Plain values; ``machine`` is what a machine file holds."""
        return asdict(self) | {"machine": self.machine.model_dump(mode="json")}


def candidate_from(data: Mapping[str, Any]) -> Candidate:
    """The inverse of `Candidate.as_dict`."""
    return Candidate(**{**data, "machine": Machine.model_validate(data["machine"])})


def estimate_candidate(contender: Contender, machine: Machine, limits: Limits) -> Candidate:
    """Estimate a machine; what is cheap and may refuse it comes first.

    Raises
    ------
    Unfit
        More LUTs, flip-flops or block RAMs than the device has, memories too large to be generated, or too
        few frames a second.
    """
    bounds, widths = contender.bounds, contender.widths
    program = program_of(contender.params, machine, widths.head_sum)
    plan = plan_for(program, widths, bounds)
    if plan.bits > LARGEST:
        reason = f"{plan.bits:,} bits of memory are more than the {LARGEST:,} that are generated"
        raise Unfit(reason, plan.bits / LARGEST)
    model, found = area_model(), features(program, widths, bounds)
    lut, ff = model.predict("lut", found), model.predict("ff", found)
    if limits.device is not None:
        _check_device(limits.device, lut, ff, plan.blocks)
    streams = machine.weight_memory == "stream"
    sequence = ImageSequence(program, widths if streams else None)
    for trace in contender.traces:
        sequence.add(trace)
    cycles = float(np.mean(sequence.intervals))
    fps = limits.clock_mhz * 1e6 / cycles
    if fps < limits.fps:
        reason = f"{fps:,.1f} frames/s at {limits.clock_mhz:g} MHz are fewer than {limits.fps:g}"
        raise Unfit(reason, limits.fps / fps)
    count = count_energy(program, widths, bounds, contender.traces)
    return Candidate(
        network=contender.name,
        machine=machine,
        cycles=cycles,
        fps=fps,
        lut=lut,
        ff=ff,
        bram=plan.blocks,
        energy=count.energy + count.streaming,
        adders=count.adders,
        accesses=count.accesses,
        dram=count.streaming,
        leakage=count.leakage,
        macro_area=sum(memory.area for memory in count.memories),
    )


def _check_device(device: str, lut: float, ff: float, bram: int) -> None:
    """Refuse what is larger than the device."""
    for words, used, available in (
        ("block RAMs", bram, BLOCKS[device]),
        ("LUTs", lut, DEVICES[device]),
        ("flip-flops", ff, DEVICES[device]),
    ):
        if used > available:
            reason = f"{used:,.0f} {words} are more than the {available:,} of {device}"
            raise Unfit(reason, used / available)
