"""What a network does on real images, as exact counts: spikes, additions, weight rows read, attention rows.

Everything here is a whole number that follows from the traces of the golden model; `golden.energy` multiplies
the numbers by energies. One *event* is a spike that meets a tap of a kernel inside the map: it selects one
row of the weights, with one weight for every output channel, and every weight of the row is added once.
Pixels and the head's sums are spikes too: one a set bit of the two's complement number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from s2tdpt.golden.complexity import trace_bytes
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.layers import Attention, Layer
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.trace import spike_traces, trace_shapes

PIXEL_BITS = 8
TRACE_BUDGET = 1 << 27
"""Bytes of traces that are held at a time, unless a single image has more."""


@dataclass
class Activity:
    """Counts of `images` images; :meth:`add` adds the traces of more.

    Attributes
    ----------
    config : NetworkConfig
    head_bits : int
        Width of a head sum (two's complement, proven); decides how many planes the head sees.
    images : int
    correct : int
        Rightly classified ones, where labels were given.
    spikes : dict
        By trace name, for every binary trace: spikes over all steps.
    events, reads : dict
        By layer with weights. `events`: spikes times taps inside the map. `reads`: the same where one row is
        read once for all steps (or T bits of a pixel or of a head sum).
    attention : dict
        By number of the block: what its attention counts (`Mechanism.count`), by name.
    """

    config: NetworkConfig
    head_bits: int
    images: int = 0
    correct: int = 0
    spikes: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    reads: dict[str, int] = field(default_factory=dict)
    attention: dict[int, dict[str, int]] = field(default_factory=dict)

    def rate(self, name: str) -> float:
        """Share of the neurons and steps of the trace `name` that spike, 0..1."""
        return self.spikes[name] / (self.images * int(np.prod(trace_shapes(self.config)[name])))

    @property
    def rates(self) -> dict[str, float]:
        """All firing rates, in network order."""
        return {name: self.rate(name) for name in self.spikes}

    def _planes(self, numbers: np.ndarray, bits: int) -> np.ndarray:
        """T bits of `numbers` at a time, the sign repeated on top: [ceil(bits / T), ...] of 0 .. 2^T - 1."""
        steps = self.config.timesteps
        return np.stack([(numbers >> low) & ((1 << steps) - 1) for low in range(0, bits, steps)])

    def add(self, pixels: np.ndarray, trace: Mapping[str, np.ndarray]) -> None:
        """Count a batch.

        Parameters
        ----------
        pixels : uint8 [B, H, W, C]
        trace : mapping
            Every binary trace [B, T, N, C] and ``head.sum`` [B, D], as `GoldenNetwork.trace` gives them.
        """
        config = self.config
        self.images += len(pixels)
        for name in spike_traces(config):
            self._put(self.spikes, name, np.count_nonzero(trace[name]))
        value = pixels.astype(np.int64) - config.pixel_zero_point
        value = self._planes(value.reshape(len(pixels), -1, config.image_channels), PIXEL_BITS)
        for part in config.parts():
            match part:
                case Layer(reads_pixels=True):
                    events = np.bitwise_count(value).sum((0, 1, 3), dtype=np.int64)
                    self._events(part, events, (value != 0).sum((0, 1, 3)))
                case Layer(head=True):
                    total = np.asarray(trace[part.reads]).astype(np.int64)
                    planes = self._planes(total, self.head_bits)
                    self._put(self.events, part.name, int(np.bitwise_count(planes).sum()))
                    self._put(self.reads, part.name, np.count_nonzero(planes))
                case Layer():
                    spikes = np.asarray(trace[part.reads])
                    events = spikes.sum((0, 1, 3), dtype=np.int64)
                    self._events(part, events, np.bitwise_or.reduce(spikes, 1).sum((0, 2)))
                case Attention():
                    self._attention(part, trace)

    @staticmethod
    def _put(counts: dict[str, int], name: str, count: int) -> None:
        counts[name] = counts.get(name, 0) + int(count)

    def _events(self, layer: Layer, events: np.ndarray, reads: np.ndarray) -> None:
        """Add counts by input position, [N], each times the taps that reach it."""
        fanout = tap_counts(layer)
        self._put(self.events, layer.name, (events * fanout).sum())
        self._put(self.reads, layer.name, (reads * fanout).sum())

    def _attention(self, part: Attention, trace: Mapping[str, np.ndarray]) -> None:
        """Add what the attention of a block counts on its spikes."""
        heads, counts = self.config.heads, self.attention.setdefault(part.index, {})
        spikes = (None if name is None else np.asarray(trace[name]) for name in (part.q, part.k, part.v))
        parts = (s if s is None else s.reshape(*s.shape[:3], heads, -1).swapaxes(2, 3) for s in spikes)
        for name, count in self.config.attention.count(self.config, *parts).items():
            self._put(counts, name, count)


def tap_counts(layer: Layer) -> np.ndarray:
    """Taps of `layer` that read each position of its input map, int64 [N]: 9 inside, fewer at the border."""
    if layer.kernel == 1:
        return np.ones(layer.positions, np.int64)
    along = [np.full(size, 3, np.int64) for size in layer.size]
    for taps in along:
        taps[0] -= 1
        taps[-1] -= 1
    return np.outer(*along).ravel()


def measure(
    golden: GoldenNetwork,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> Activity:
    """Counts on `images`, a few at a time, so that any number of images fits into memory.

    Parameters
    ----------
    golden : GoldenNetwork
    images : uint8 [B, H, W, C], B at least 1
    labels : int [B], optional
        Classes; fills `Activity.correct`.
    progress : callable, optional
        Called with the number of images just counted.
    """
    config = golden.config
    activity = Activity(config, golden.bounds.head_sum.signed_bits)
    size = max(1, min(256, TRACE_BUDGET // trace_bytes(config)))
    for start in range(0, len(images), size):
        piece = np.asarray(images[start : start + size])
        trace = {name: value.numpy() for name, value in golden.trace(piece).items()}
        activity.add(piece, trace)
        if labels is not None:
            activity.correct += int((trace["head.class"] == np.asarray(labels[start : start + size])).sum())
        if progress is not None:
            progress(len(piece))
    return activity
