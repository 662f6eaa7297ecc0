"""Accuracy, firing rates, and the proof that the trained network and the golden one are the same.

References
----------
Firing rate: share of neurons and steps that spike, as in the energy accounting of arXiv 2304.11954.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from s2tdpt.golden.complexity import trace_bytes
from s2tdpt.golden.layers import Attention
from s2tdpt.golden.trace import spike_traces
from s2tdpt.sw.quantize import QatNetwork
from s2tdpt.sw.regularise import synaptic_rate

TRACE_BUDGET = 1 << 29
"""Bytes that `verify_equal` may take."""
BYTES_A_TRACED_BYTE = 16
"""For a byte of a golden trace: a spike is one there, in the training network a float and then int64."""


def as_images(images: np.ndarray | Tensor) -> Tensor:
    """uint8 tensor [B, H, W, C] of an array or tensor."""
    return torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images)


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate` on a labelled set.

    accuracy in 0..1; `rates` by trace name in 0..1; `synaptic_rate`: spike-driven additions over dense
    multiply-accumulates; `count_spread` by trace name (q and k): standard deviation over tokens of a head's
    spike count, mean over images, steps and heads; `logits` [B, K], in the network's unit, if they were kept.
    """

    images: int
    correct: int
    rates: dict[str, float]
    synaptic_rate: float
    count_spread: dict[str, float]
    logits: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def mean_rate(self) -> float:
        """Plain mean of the layers' rates."""
        return sum(self.rates.values()) / len(self.rates)


@torch.no_grad()
def evaluate(
    network: nn.Module,
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    batch_size: int = 256,
    keep_logits: bool = False,
) -> Evaluation:
    """Accuracy and firing rates of a float or integer network; its training mode is restored."""
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    images, labels, config = as_images(images), torch.as_tensor(labels), network.config
    correct, sums, synaptic, spread, kept = 0, {}, 0.0, {}, []
    attentions = [part for part in config.parts() if isinstance(part, Attention)]
    for start in range(0, len(images), batch_size):
        batch, record = images[start : start + batch_size].to(device), {}
        logits = network(batch, record)
        if keep_logits:
            kept.append(logits.cpu())
        correct += int((logits.argmax(1).cpu() == labels[start : start + batch_size]).sum())
        synaptic += float(synaptic_rate(record, config)) * len(batch)
        for name in spike_traces(config):
            mean = int(torch.count_nonzero(record[name])) / record[name].numel()
            sums[name] = sums.get(name, 0.0) + mean * len(batch)
        if config.tokens > 1:
            for name in (name for part in attentions for name in (part.q, part.k) if name):
                fired = record[name] != 0
                counts = fired.unflatten(-1, (config.heads, -1)).sum(-1, dtype=torch.float64)
                spread[name] = spread.get(name, 0.0) + float(counts.std(dim=2).mean()) * len(batch)
    network.train(was_training)
    total = len(images)
    return Evaluation(
        total,
        correct,
        {name: value / total for name, value in sums.items()},
        synaptic / total,
        {name: value / total for name, value in spread.items()},
        torch.cat(kept) if kept else None,
    )


@dataclass(frozen=True)
class Equality:
    """Result of `verify_equal`: what was compared and the first difference, if there is one."""

    images: int
    traces: int
    values: int
    difference: str | None

    @property
    def equal(self) -> bool:
        return self.difference is None


def verify_equal(
    network: QatNetwork,
    golden,
    images: np.ndarray | Tensor,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Equality:
    """Compare every named trace (spikes, Y, U, head sum, logits, class) of two integer networks, exactly.

    Memory is bounded whatever the number of images: a batch is compared before the next one is computed. The
    first difference ends the comparison.

    Parameters
    ----------
    network : QatNetwork
    golden : golden.network.GoldenNetwork
        Anything with ``trace(uint8 ndarray [B,H,W,C]) -> dict of integer arrays``.
    images : uint8 [B, H, W, C]
    batch_size : int, optional
        By default as many as fit into `TRACE_BUDGET`, 64 at most.
    progress : callable, optional
        Called with the number of images just compared.

    Returns
    -------
    Equality
        `images` and `values` count what was compared; `difference` names the first trace in network order,
        the image, the position and both values where the networks part.
    """
    images, values, traces = as_images(images), 0, 0
    device = next(network.parameters()).device
    if batch_size is None:
        batch_size = max(1, min(64, TRACE_BUDGET // (BYTES_A_TRACED_BYTE * trace_bytes(network.config))))
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        mine, theirs = network.trace(batch.to(device)), golden.trace(batch.numpy())
        traces, seen = len(mine), start + len(batch)
        if odd := sorted(set(mine) ^ set(theirs)):
            return Equality(seen, traces, values, f"trace {odd[0]} exists on one side only")
        for name, value in mine.items():
            ours, other = value.cpu().numpy(), np.asarray(theirs[name]).astype(np.int64)
            if ours.shape != other.shape:
                text = f"{name}: shape {ours.shape} in training, {other.shape} in golden"
                return Equality(seen, traces, values, text)
            values += ours.size
            if not np.array_equal(ours, other):
                at = tuple(int(i) for i in np.argwhere(ours != other)[0])
                place = _place(name, start + at[0], at[1:])
                text = f"{name}: {place}: {ours[at]} in training, {other[at]} in golden"
                return Equality(seen, traces, values, text)
        if progress is not None:
            progress(len(batch))
    return Equality(len(images), traces, values, None)


def _place(name: str, image: int, rest: tuple[int, ...]) -> str:
    """Where an element of a trace is, in words."""
    axes = ("class",) if name == "head.logits" else ("channel",)
    if len(rest) == 3:
        axes = ("step", "token", "channel")
    return ", ".join([f"image {image}", *(f"{axis} {i}" for axis, i in zip(axes, rest, strict=False))])


@torch.no_grad()
def verify_logits(
    network: QatNetwork,
    logits: np.ndarray | Tensor,
    images: np.ndarray | Tensor,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Equality:
    """Compare the logits of the training network with given ones, on every image, exactly.

    The logits are the last of all values and every value before them can reach them, so that a set of many
    images finds nearly what `verify_equal` does in a fraction of its time. It proves less: a wrong spike that
    happens to change no logit stays unseen.

    Parameters
    ----------
    network : QatNetwork
    logits : int64 [B, K]
        Those of the golden network: ``golden.forward(images)``.
    images : uint8 [B, H, W, C]
    batch_size, progress
        As for `verify_equal`.
    """
    images, expected, values = as_images(images), np.asarray(logits), 0
    was_training, device = network.training, next(network.parameters()).device
    if expected.shape != (shape := (len(images), network.config.num_classes)):
        return Equality(0, 1, 0, f"head.logits: shape {shape} in training, {expected.shape} in golden")
    network.eval()
    try:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            ours, other = network(batch.to(device)).cpu().numpy(), expected[start : start + batch_size]
            values += ours.size
            differing = np.argwhere(ours != other)  # whole numbers in float64: the comparison is exact
            if len(differing):
                at = tuple(int(i) for i in differing[0])
                place = _place("head.logits", start + at[0], at[1:])
                text = f"head.logits: {place}: {ours[at]:.0f} in training, {other[at]} in golden"
                return Equality(start + len(batch), 1, values, text)
            if progress is not None:
                progress(len(batch))
    finally:
        network.train(was_training)
    return Equality(len(images), 1, values, None)


@dataclass(frozen=True)
class Speed:
    """Result of `compare_speed`: medians over the repeats.

    images a call; seconds of the golden and of the float network; `time_ratio`: golden / float of the same
    repeat, median; threads that torch may use; every pair (golden, float) of seconds.
    """

    images: int
    golden_seconds: float
    float_seconds: float
    time_ratio: float
    threads: int
    runs: tuple[tuple[float, float], ...]

    @property
    def golden_images_per_second(self) -> float:
        return self.images / self.golden_seconds

    @property
    def float_images_per_second(self) -> float:
        return self.images / self.float_seconds


@torch.inference_mode()
def compare_speed(golden, network: nn.Module, images: np.ndarray | Tensor, repeats: int = 5) -> Speed:
    """Time the golden model and the float network on the same images, in alternation, in one process.

    A machine that is busy for a while slows both alike; the medians forget single disturbances. One round
    that does not count warms both up.

    Parameters
    ----------
    golden : golden.network.GoldenNetwork
    network : nn.Module
        On the CPU; evaluated in evaluation mode, its mode is restored.
    images : uint8 [B, H, W, C]
        One batch for either.
    repeats : int
        At least 1.
    """
    images = as_images(images)
    was_training, array = network.training, images.numpy()
    network.eval()
    try:
        runs = [
            (_seconds(lambda: golden.forward(array)), _seconds(lambda: network(images)))
            for _ in range(repeats + 1)
        ][1:]
    finally:
        network.train(was_training)
    times = [statistics.median(column) for column in zip(*runs, strict=True)]
    ratio = statistics.median(mine / theirs for mine, theirs in runs)
    return Speed(len(images), *times, ratio, torch.get_num_threads(), tuple(runs))


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
