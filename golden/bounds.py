"""Proven intervals of every integer that the network computes, derived from the actual weights.

All intervals hold for any image: they assume only that spikes are 0 or 1, what else an attention reads within
its range, and pixels are bytes. An accumulator interval covers every partial sum in any order, hence also
every machine that skips or reorders additions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from s2tdpt.golden.arith import signed_bits, unsigned_bits
from s2tdpt.golden.layers import Attention, Layer, StreamNeurons
from s2tdpt.golden.neuron import LIF, Law

if TYPE_CHECKING:
    from s2tdpt.golden.config import NetworkConfig

Channels = tuple[np.ndarray, np.ndarray]
"""Lower and upper ends per channel, arrays of Python integers: no overflow whatever the configuration."""


class Integers(Protocol):
    """What bounds are derived from: `golden.params.Params`, seen from below."""

    config: NetworkConfig
    residual_threshold: int
    attention_threshold: int
    laws: Mapping[str, Law]

    def attention(self, block: int) -> dict[str, np.ndarray]: ...

    def weight(self, layer: str) -> np.ndarray: ...

    def bias(self, layer: str) -> np.ndarray: ...

    def threshold(self, layer: str) -> np.ndarray: ...

    def shift(self, layer: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Interval:
    """A closed interval of integers."""

    lo: int
    hi: int

    def __post_init__(self) -> None:
        if self.lo > self.hi:
            raise ValueError(f"empty interval {self.lo}..{self.hi}")

    @property
    def signed_bits(self) -> int:
        """Two's-complement width that holds the interval."""
        return signed_bits(self.lo, self.hi)

    @property
    def unsigned_bits(self) -> int:
        """Unsigned width; ValueError if the interval reaches below zero."""
        if self.lo < 0:
            raise ValueError(f"{self.lo} needs a sign")
        return unsigned_bits(self.hi)

    @property
    def magnitude(self) -> int:
        """Largest absolute value."""
        return max(abs(self.lo), abs(self.hi))

    def __contains__(self, value: int) -> bool:
        return self.lo <= value <= self.hi

    def __or__(self, other: Interval) -> Interval:
        """Smallest interval that covers both."""
        return Interval(min(self.lo, other.lo), max(self.hi, other.hi))


@dataclass(frozen=True)
class Bounds:
    """Intervals by layer, the union over channels.

    Attributes
    ----------
    acc : dict
        Sum of weights over spikes of one step, or over one bit plane of the pixels (``sps.0``); partial sums.
        All weight layers but the head.
    preact : dict
        The whole sum before the bias. ``sps.0``: sum of weights times centred pixels, with every prefix of a
        most-significant-plane-first (Horner) evaluation; otherwise equal to `acc`.
    membrane : dict
        h + sum + bias at every step, and sum + bias; LIF-fed layers.
    written : dict
        sum * 2^shift, and that plus the bias; writers.
    residual : dict
        U after the writer.
    residual_membrane : dict
        h + U in the neuron behind the writer; all writers but the last.
    attention : Interval
        Y in the attention's unit, partial sums included.
    attention_inner : dict
        By name, what the attention keeps on the way to Y.
    attention_membrane : Interval
        h + Y.
    head_sum : Interval
        Sum of U over time and tokens, partial sums included.
    logits : Interval
        Head output, partial sums with and without the bias.
    """

    acc: dict[str, Interval]
    preact: dict[str, Interval]
    membrane: dict[str, Interval]
    written: dict[str, Interval]
    residual: dict[str, Interval]
    residual_membrane: dict[str, Interval]
    attention: Interval
    attention_inner: dict[str, Interval]
    attention_membrane: Interval
    head_sum: Interval
    logits: Interval

    @property
    def residual_any(self) -> Interval:
        """U at any place of the network: the union over all writers."""
        return union(self.residual.values())

    def widths(self) -> dict[str, int]:
        """Two's-complement bits of every interval, by ``kind.layer`` or kind."""
        result = {}
        for kind in ("acc", "preact", "membrane", "written", "residual", "residual_membrane"):
            for layer, interval in getattr(self, kind).items():
                result[f"{kind}.{layer}"] = interval.signed_bits
        for name, interval in self.attention_inner.items():
            result[f"attention.{name}"] = interval.signed_bits
        for kind in ("attention", "attention_membrane", "head_sum", "logits"):
            result[kind] = getattr(self, kind).signed_bits
        return result


def union(intervals: Iterable[Interval]) -> Interval:
    """Smallest interval that covers all of `intervals`."""
    intervals = list(intervals)
    return Interval(min(i.lo for i in intervals), max(i.hi for i in intervals))


def weight_sums(weight: np.ndarray) -> Channels:
    """Smallest and largest sum over any subset of the inputs, per output channel; contains 0."""
    flat = weight.reshape(weight.shape[0], -1).astype(np.int64)
    return _exact(np.minimum(flat, 0).sum(axis=1)), _exact(np.maximum(flat, 0).sum(axis=1))


def pixel_sums(weight: np.ndarray, zero_point: int) -> Channels:
    """Interval of sum w (pixel - zero_point) and of its Horner prefixes sum w ((pixel - zero_point) >> j)."""
    negative, positive = weight_sums(weight)
    lo, hi = -zero_point, 255 - zero_point
    lows, highs = [], []
    for j in range(8):
        low, high = lo >> j, hi >> j
        lows.append(positive * low + negative * high)
        highs.append(positive * high + negative * low)
    return np.minimum.reduce(lows), np.maximum.reduce(highs)


def neuron_membrane(current: Channels, threshold: np.ndarray | int, steps: int, law: Law = LIF) -> Channels:
    """Interval of the membrane u = h + drive(current) over `steps` steps, per channel.

    The recursion follows the neuron: u lies in h + drive; what did not fire is below the threshold (and not
    below `Law.least_quiet`) and carries `keep` of it; what fired is at least the threshold and carries
    `reset` of it, or lies below and leaves nothing. Both never fall when u rises. If every integer of the
    current interval can occur independently at every step, both ends are attained.
    """
    top, bottom = threshold - 1, law.least_quiet(threshold)  # ends of what does not fire
    u_lo, u_hi = law.drive(current[0], 0), law.drive(current[1], 0)
    worst_lo, worst_hi = u_lo, u_hi
    for t in range(1, steps):
        quiet_lo, quiet_hi = u_lo, np.minimum(u_hi, top)
        may_stay, may_fire = u_lo <= top, u_hi > top
        if bottom is not None:
            quiet_lo = np.maximum(u_lo, bottom)
            may_stay, may_fire = may_stay & (u_hi >= bottom), may_fire | (u_lo < bottom)
        stay_lo, stay_hi = law.keep(quiet_lo, threshold), law.keep(quiet_hi, threshold)
        fire_lo, fire_hi = law.reset(np.maximum(u_lo, threshold), threshold), law.reset(u_hi, threshold)
        h_lo = np.where(may_stay, np.where(may_fire, np.minimum(stay_lo, fire_lo), stay_lo), fire_lo)
        h_hi = np.where(may_stay, np.where(may_fire, np.maximum(stay_hi, fire_hi), stay_hi), fire_hi)
        u_lo, u_hi = h_lo + law.drive(current[0], t), h_hi + law.drive(current[1], t)
        worst_lo, worst_hi = np.minimum(worst_lo, u_lo), np.maximum(worst_hi, u_hi)
    return worst_lo, worst_hi


def neuron_interval(drive: Interval, threshold_max: int, steps: int, law: Law = LIF) -> Interval:
    """Interval of the membrane u of neurons whose thresholds are known only by their largest.

    Parameters
    ----------
    drive : Interval
        Input of one step, bias included.
    threshold_max : int
        Largest threshold, at least 1.
    steps : int
        T, at least 1; the state begins at 0.

    Returns
    -------
    Interval
        Covers :func:`neuron_membrane` of every channel with such a drive and a threshold of
        1..`threshold_max`.
    """
    membrane = covered = Interval(law.drive(drive.lo, 0), law.drive(drive.hi, 0))
    for t in range(1, steps):
        state = carried_interval(membrane, threshold_max, law)
        membrane = Interval(state.lo + law.drive(drive.lo, t), state.hi + law.drive(drive.hi, t))
        covered |= membrane
    return covered


def carried_interval(membrane: Interval, threshold_max: int, law: Law = LIF) -> Interval:
    """Interval of the state h that goes into the next step, 0 included.

    Parameters
    ----------
    membrane : Interval
        u before the comparison.
    threshold_max : int
        Largest threshold; a membrane at or above it has fired.
    """
    lo, hi = membrane.lo, membrane.hi
    # What a law takes away grows with the threshold: the largest bounds the lower ends, the smallest the
    # upper.
    bottom = law.least_quiet(threshold_max)
    lows = [int(law.keep(lo if bottom is None else max(lo, bottom), threshold_max))]
    highs = [int(law.keep(min(hi, threshold_max - 1), 1))]
    if hi >= 1:  # at the smallest threshold it may fire
        lows.append(int(law.reset(max(lo, 1), threshold_max)))
        highs.append(int(law.reset(hi, 1)))
    return Interval(min(0, *lows), max(0, *highs))


def attention_intervals(params: Integers) -> tuple[Interval, dict[str, Interval]]:
    """Interval of Y with its partial sums, and of the attention's inner values by name, over all blocks."""
    config, mechanism = params.config, params.config.attention
    blocks = [params.attention(b) for b in range(config.depth)]
    inner = [mechanism.inner(config, values) for values in blocks]
    return (
        union(mechanism.interval(config, values) for values in blocks),
        {name: union(intervals[name] for intervals in inner) for name in inner[0]},
    )


def derive_bounds(params: Integers) -> Bounds:
    """Intervals of every integer for the network `params`."""
    config = params.config
    steps = config.timesteps
    acc, preact, membrane, written_to, residual, residual_membrane = ({} for _ in range(6))
    stream: Channels | None = None
    previous: Layer | None = None
    readers = {part.reads: part.writes for part in config.parts() if isinstance(part, StreamNeurons)}
    for layer in config.layers()[:-1]:
        name = layer.name
        sums = weight_sums(params.weight(name))
        acc[name] = _union(sums)
        if layer.reads_pixels:
            sums = pixel_sums(params.weight(name), config.pixel_zero_point)
        preact[name] = _union(sums)
        bias = _exact(params.bias(name))
        if layer.lif_fed:
            current = (sums[0] + bias, sums[1] + bias)
            law = params.laws[layer.writes]
            inside = neuron_membrane(current, _exact(params.threshold(name)), steps, law)
            membrane[name] = _union(inside) | _union(current)
            continue
        scale = np.array([1 << int(s) for s in params.shift(name)], dtype=object)
        shifted = (sums[0] * scale, sums[1] * scale)
        added = (shifted[0] + bias, shifted[1] + bias)
        written_to[name] = _union(shifted) | _union(added)
        if stream is not None:
            law = params.laws[readers[previous.writes]]
            theta = law.threshold(params.residual_threshold)
            residual_membrane[previous.name] = _union(neuron_membrane(stream, theta, steps, law))
            added = (stream[0] + added[0], stream[1] + added[1])
        stream, previous = added, layer
        residual[name] = _union(stream)
    attention, inner = attention_intervals(params)
    current = (_exact([attention.lo]), _exact([attention.hi]))
    behind = [params.laws[part.writes] for part in config.parts() if isinstance(part, Attention)]
    attention_membranes = [
        _union(neuron_membrane(current, law.threshold(params.attention_threshold), steps, law))
        for law in dict.fromkeys(behind)
    ]
    head_lo, head_hi = (end * (steps * config.tokens) for end in stream)
    total = (np.minimum(head_lo, 0), np.maximum(head_hi, 0))
    return Bounds(
        acc=acc,
        preact=preact,
        membrane=membrane,
        written=written_to,
        residual=residual,
        residual_membrane=residual_membrane,
        attention=attention,
        attention_inner=inner,
        attention_membrane=union(attention_membranes),
        head_sum=_union(total),
        logits=_head_logits(params, total),
    )


def _head_logits(params: Integers, total: Channels) -> Interval:
    weight, bias = _exact(params.weight("head")), _exact(params.bias("head"))
    ends = np.stack([weight * total[0], weight * total[1]])
    # Each product may be missing from a partial sum, hence the 0.
    lo = np.minimum(ends.min(axis=0), 0).sum(axis=1)
    hi = np.maximum(ends.max(axis=0), 0).sum(axis=1)
    return _union((lo, hi)) | _union((lo + bias, hi + bias))


def _exact(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).astype(object)


def _union(ends: Channels) -> Interval:
    return Interval(int(min(ends[0])), int(max(ends[1])))
