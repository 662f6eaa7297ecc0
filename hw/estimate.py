"""What images cost on a machine, operation by operation, without simulating it: seconds instead of hours.

The golden model gives the spikes of real images, `cycles` counts exactly what the hardware takes for them.
Beside them stands the dense bound: the same machine if every neuron fired in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.hw.arrival import TileArrival, tile_beats
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.cycles import SEQUENCER_CYCLES, OperationCycles, dense_trace, frame_cycles, input_rate
from s2tdpt.hw.schedule import Program, build_program
from s2tdpt.hw.weights import stream_width
from s2tdpt.hw.widths import derive_widths


@dataclass(frozen=True)
class OperationEstimate:
    """One operation over all images.

    Parameters
    ----------
    name, kind : str
        As in `schedule.Operation`.
    bound : str
        What takes most of its time (`cycles.OperationCycles`), on most images.
    cycles : float
        Mean; `minimum` and `maximum` over the images.
    share : float
        Of the cycles of an image, 0..1; three cycles between two operations belong to none.
    utilisation : float
        Useful accumulates / (lanes x rows x cycles), 0..1.
    rate : float
        Share of set bits in what it reads, 0..1 (`cycles.input_rate`): the firing rate of its input.
    dense : int
        Cycles if every bit was set.
    """

    name: str
    kind: str
    bound: str
    cycles: float
    minimum: int
    maximum: int
    share: float
    utilisation: float
    rate: float
    dense: int


@dataclass(frozen=True)
class StreamEstimate:
    """The weight stream of an image.

    Parameters
    ----------
    words, bits : int
        Beats an image and their width.
    waits : float
        Mean cycles an image in which the machine waits for weights, if the sender never pauses.
    """

    words: int
    bits: int
    waits: float


@dataclass(frozen=True)
class Estimate:
    """Exact cycles of images that follow each other without a gap.

    Parameters
    ----------
    operations : list of OperationEstimate
    frames : list of int
        Cycles of every image, from the start of its first operation to the end of its last.
    intervals : list of int
        Cycles from the start of an image to the earliest start of the next one.
    dense, dense_interval : int
        The same if every bit was set and weights were never late.
    utilisation, layer_utilisation : float
        Lanes in use over the whole image, and over the operations that accumulate, 0..1.
    stream : StreamEstimate or None
    """

    operations: list[OperationEstimate]
    frames: list[int]
    intervals: list[int]
    dense: int
    dense_interval: int
    utilisation: float
    layer_utilisation: float
    stream: StreamEstimate | None

    @property
    def cycles(self) -> float:
        """Mean cycles of an image."""
        return float(np.mean(self.frames))

    @property
    def interval(self) -> float:
        """Mean cycles between images."""
        return float(np.mean(self.intervals))

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def estimate(
    params: Params,
    hardware: HardwareConfig,
    images: np.ndarray,
    progress: Callable[[int], None] | None = None,
) -> Estimate:
    """Count the cycles of `images` (uint8 [B, H, W, C], B >= 1), one after the other.

    Parameters
    ----------
    progress : callable, optional
        Called with 1 after every image.

    Raises
    ------
    UserError
        The network does not fit the machine.
    """
    golden = GoldenNetwork(params)
    widths = derive_widths(params, golden.bounds)
    program = build_program(params.config, hardware, widths.head_sum)
    beats = tile_beats(program, widths) if hardware.weight_memory == "stream" else []
    arrival = TileArrival(beats) if beats else None
    counted, rates, frames, intervals, waits = [], [], [], [], []
    for image in images:
        trace = {name: value.numpy()[0] for name, value in golden.trace(image[None]).items()}
        trace["pixels"] = image
        operations, total = frame_cycles(program, trace, arrival, sum(intervals))
        waits.append(total - frame_cycles(program, trace)[1] if arrival else 0)
        counted.append(operations)
        rates.append([input_rate(op, program, trace) for op in program.ops])
        frames.append(total)
        intervals.append(interval(program, total))
        if progress is not None:
            progress(1)
    dense_operations, dense = frame_cycles(program, dense_trace(program))
    rows = [
        _over_images(program, index, [operations[index] for operations in counted], dense_operations[index])
        for index in range(len(program.ops))
    ]
    mean_rates = np.mean(rates, axis=0)
    accumulates = sum(o.accumulates for operations in counted for o in operations)
    busy = sum(o.cycles for operations in counted for o in operations if o.events)
    width = hardware.lanes * hardware.rows
    return Estimate(
        operations=[
            OperationEstimate(**row, share=row["cycles"] / float(np.mean(frames)), rate=float(rate))
            for row, rate in zip(rows, mean_rates, strict=True)
        ],
        frames=frames,
        intervals=intervals,
        dense=dense,
        dense_interval=interval(program, dense),
        utilisation=accumulates / (width * sum(frames)),
        layer_utilisation=accumulates / (width * busy) if busy else 0.0,
        stream=StreamEstimate(sum(beats), stream_width(program), float(np.mean(waits))) if beats else None,
    )


def interval(program: Program, cycles: int) -> int:
    """Cycles from image to image: the computation, or the bytes of the next image if they take longer."""
    network = program.network
    pixels = network.image_height * network.image_width * network.image_channels
    return max(cycles + SEQUENCER_CYCLES + 1, pixels)


def _over_images(program: Program, index: int, counts: list[OperationCycles], dense: OperationCycles) -> dict:
    """Fields of `OperationEstimate` that one operation's counts give."""
    op, hw = program.ops[index], program.hardware
    cycles = [count.cycles for count in counts]
    bounds = [count.bound for count in counts]
    return {
        "name": op.name,
        "kind": op.kind,
        "bound": max(sorted(set(bounds)), key=bounds.count),
        "cycles": float(np.mean(cycles)),
        "minimum": min(cycles),
        "maximum": max(cycles),
        "utilisation": sum(count.accumulates for count in counts) / (hw.lanes * hw.rows * sum(cycles)),
        "dense": dense.cycles,
    }
