"""What images cost on a machine, layer by layer, without simulating it: seconds instead of hours.

The golden model gives the spikes of real images, `cycles` counts exactly what the hardware takes for them.
Beside them stands the dense bound: the same machine if every neuron fired in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.golden.trace import HEAD_SUM, traces
from s2tdpt.hw.blocks.images import stream_width, tile_beats
from s2tdpt.hw.estimate.arrival import TileArrival, stream_shape
from s2tdpt.hw.estimate.cycles import FrameCycles, FrameModel
from s2tdpt.hw.plan.machine import PIXEL_BITS, Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import Widths, derive_widths

BATCH = 4
"""Images that pass through the golden model together."""


@dataclass(frozen=True)
class LayerEstimate:
    """One layer over all images, its tiles together.

    The steps of the machine overlap. The cycles from the end of the last position of the step before to the
    end of its own count for a step; with `Estimate.tail` they add up to the interval.

    Attributes
    ----------
    name : str
        As in the parameter file.
    tiles : int
        Steps of the layer program that compute it.
    cycles : float
        Mean; `minimum` and `maximum` over the images.
    share : float
        Of the interval between images, 0..1.
    accumulates : float
        Mean useful additions: a spike and a weight of a channel that exists.
    accumulates_per_cycle : float
        Of its own cycles.
    rate : float
        Share of set bits in what it reads, as often as it reads them, 0..1: the firing rate of its input.
    dense : int
        Cycles if every bit was set.
    """

    name: str
    tiles: int
    cycles: float
    minimum: int
    maximum: int
    share: float
    accumulates: float
    accumulates_per_cycle: float
    rate: float
    dense: int


@dataclass(frozen=True)
class AttentionEstimate:
    """The attention of a block, which works beside the layers.

    Attributes
    ----------
    block : int
    cycles : float
        Mean, from the begin of its first head to its last write.
    waits : float
        Mean cycles in which the machine adds nothing because the next layer needs this attention.
    """

    block: int
    cycles: float
    waits: float


@dataclass(frozen=True)
class StreamEstimate:
    """The weight stream of an image.

    Attributes
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

    Attributes
    ----------
    layers : list of LayerEstimate
    attention : list of AttentionEstimate
    tail : float
        Mean cycles from the end of an image's last position to the start of the next image.
    frames : list of int
        Cycles of every image, from the start of its first step to the end of its last.
    intervals : list of int
        Cycles from the start of an image to the earliest start of the next one.
    idle_share : float
        Of the cycles in the intervals, those in which nothing is accumulated, 0..1.
    accumulates_per_cycle : float
        Useful additions a cycle of the intervals.
    utilisation : float
        Channels with a spike x output channels / (lanes x banks x cycles of the intervals), 0..1.
    dense, dense_interval : int
        Cycles if every bit was set and weights were never late.
    stream : StreamEstimate or None
    """

    layers: list[LayerEstimate]
    attention: list[AttentionEstimate]
    tail: float
    frames: list[int]
    intervals: list[int]
    idle_share: float
    accumulates_per_cycle: float
    utilisation: float
    dense: int
    dense_interval: int
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


def count_cycles(
    params: Params,
    machine: Machine,
    images: np.ndarray,
    progress: Callable[[int], None] | None = None,
) -> Estimate:
    """Count the cycles of `images` (uint8 [B, H, W, C], B >= 1), one after the other.

    Parameters
    ----------
    progress : callable, optional
        Called with 1 after every image.
    """
    golden = GoldenNetwork(params)
    widths = derive_widths(params, golden.bounds)
    program = program_of(params, machine, widths.head_sum)
    stream = machine.weight_memory == "stream"
    model = ImageSequence(program, widths if stream else None)
    punctual = ImageSequence(program)  # weights never late
    for trace in image_traces(golden, images):
        model.add(trace)
        if stream:
            punctual.add(trace)
        if progress is not None:
            progress(1)
    dense = FrameModel(program).frame(dense_trace(program))
    return _summary(program, widths, model, punctual, dense)


def image_traces(golden: GoldenNetwork, images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """What `FrameModel.frame` wants, image by image."""
    for first in range(0, len(images), BATCH):
        batch = images[first : first + BATCH]
        found = {name: value.numpy() for name, value in golden.trace(batch).items()}
        for number, image in enumerate(batch):
            yield {name: value[number] for name, value in found.items()} | {"pixels": image}


def dense_trace(program: Program) -> dict[str, np.ndarray]:
    """A trace in which every bit that is read is set."""
    net = program.network
    dense = {
        name: np.ones(trace.shape, bool)
        for name, trace in traces(net).items()
        if trace.spikes or not trace.head
    }
    shape = (net.image_height, net.image_width, net.image_channels)
    pixel = (net.pixel_zero_point - 1) & ((1 << PIXEL_BITS) - 1)  # -1 less the zero point
    return dense | {"pixels": np.full(shape, pixel, np.uint8), HEAD_SUM: np.full(net.embed_dim, -1)}


def interval(program: Program, cycles: int) -> int:
    """Cycles from image to image: the computation's, or the bytes of the next image if they take longer."""
    network = program.network
    return max(cycles, network.image_height * network.image_width * network.image_channels)


class ImageSequence:
    """Cycles of images that follow each other without a gap.

    Parameters
    ----------
    program : Program
    widths : Widths, optional
        Given where the weights are streamed: then they may be late. Without, they never are.

    Attributes
    ----------
    frames : list of FrameCycles
    """

    def __init__(self, program: Program, widths: Widths | None = None):
        arrival = None if widths is None else TileArrival(stream_shape(program, widths))
        self._program, self._model = program, FrameModel(program, arrival)
        self._next = 0
        self.frames: list[FrameCycles] = []

    def add(self, trace: Mapping[str, np.ndarray]) -> None:
        """One more image, by its golden trace (`image_traces`)."""
        frame = self._model.frame(trace, self._next)
        self.frames.append(frame)
        self._next = frame.start + interval(self._program, frame.interval) - 1

    @property
    def intervals(self) -> list[int]:
        """From start to start; the last image's to the earliest start of one more."""
        starts = [*(frame.start for frame in self.frames), self._next + 1]
        return np.diff(starts).tolist()


def step_cycles(frame: FrameCycles) -> np.ndarray:
    """Cycles of every step as `LayerEstimate` counts them."""
    return np.diff([step.last_end for step in frame.steps], prepend=0)


def _summary(
    program: Program, widths: Widths, model: ImageSequence, punctual: ImageSequence, dense: FrameCycles
) -> Estimate:
    frames, intervals = model.frames, model.intervals
    total, machine = sum(intervals), program.machine
    names = list(dict.fromkeys(step.layer for step in program.steps))
    cycles = np.array([step_cycles(frame) for frame in frames])
    useful = sum(
        count.events * step.channels
        for frame in frames
        for step, count in zip(program.steps, frame.steps, strict=True)
    )
    tail = [length - frame.steps[-1].last_end for length, frame in zip(intervals, frames, strict=True)]
    stream = None
    if machine.weight_memory == "stream":
        waits = (total - sum(punctual.intervals)) / len(frames)
        stream = StreamEstimate(sum(tile_beats(program, widths)), stream_width(program), waits)
    return Estimate(
        layers=[_layer(program, name, frames, cycles, dense, total) for name in names],
        attention=[_attention(program, block, frames) for block in range(program.network.depth)],
        tail=float(np.mean(tail)),
        frames=[frame.total for frame in frames],
        intervals=intervals,
        idle_share=1 - sum(frame.busy for frame in frames) / total,
        accumulates_per_cycle=sum(frame.accumulates for frame in frames) / total,
        utilisation=useful / (machine.lanes * machine.banks * total),
        dense=dense.total,
        dense_interval=interval(program, dense.interval),
        stream=stream,
    )


def _layer(
    program: Program, name: str, frames: list[FrameCycles], cycles: np.ndarray, dense: FrameCycles, total: int
) -> LayerEstimate:
    own = [index for index, step in enumerate(program.steps) if step.layer == name]
    per_image = cycles[:, own].sum(axis=1)
    accumulates = sum(frame.steps[index].accumulates for frame in frames for index in own)
    spikes = sum(frame.steps[index].spikes for frame in frames for index in own)
    possible = len(frames) * sum(dense.steps[index].spikes for index in own)
    return LayerEstimate(
        name=name,
        tiles=len(own),
        cycles=float(per_image.mean()),
        minimum=int(per_image.min()),
        maximum=int(per_image.max()),
        share=float(per_image.sum() / total),
        accumulates=accumulates / len(frames),
        accumulates_per_cycle=float(accumulates / per_image.sum()),
        rate=spikes / possible,
        dense=int(step_cycles(dense)[own].sum()),
    )


def _attention(program: Program, block: int, frames: list[FrameCycles]) -> AttentionEstimate:
    """Its span, and how much of it lies behind the last position before the layer that needs it."""
    needs = next(index for index, step in enumerate(program.steps) if step.after_attention == block + 1)
    spans = [frame.attention[block] for frame in frames]
    waits = [
        max(0, complete - frame.steps[needs - 1].last_end)
        for frame, (_, complete) in zip(frames, spans, strict=True)
    ]
    return AttentionEstimate(
        block=block,
        cycles=float(np.mean([complete - begin for begin, complete in spans])),
        waits=float(np.mean(waits)),
    )
