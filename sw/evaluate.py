"""Accuracy, firing rates, and the proof that the trained network and the golden one are the same.

References
----------
Firing rate: share of neurons and steps that spike, as in the energy accounting of arXiv 2304.11954.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sw.quantize import QatNetwork
from sw.regularise import synaptic_rate

SPIKE_NAMES = ("spikes", "pooled", "x", "q", "k", "v", "attn", "mlp_in", "hidden")
"""Last parts of the trace names that hold binary values."""


def is_spikes(name: str) -> bool:
    """Whether the trace called `name` is binary."""
    return name.rpartition(".")[2] in SPIKE_NAMES


def as_images(images: np.ndarray | Tensor) -> Tensor:
    """uint8 tensor [B, H, W, C] of an array or tensor."""
    return torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images)


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate` on a labelled set.

    accuracy in 0..1; `rates` by trace name in 0..1; `synaptic_rate`: spike-driven additions over dense
    multiply-accumulates; `count_spread` by trace name (q and k): standard deviation over tokens of a head's
    spike count, mean over images, steps and heads.
    """

    images: int
    correct: int
    rates: dict[str, float]
    synaptic_rate: float
    count_spread: dict[str, float]

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def mean_rate(self) -> float:
        """Plain mean of the layers' rates."""
        return sum(self.rates.values()) / len(self.rates)


@torch.no_grad()
def evaluate(
    network: nn.Module, images: np.ndarray | Tensor, labels: np.ndarray | Tensor, batch_size: int = 256
) -> Evaluation:
    """Accuracy and firing rates of a float or integer network; its training mode is restored."""
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    images, labels, config = as_images(images), torch.as_tensor(labels), network.config
    correct, sums, synaptic, spread = 0, {}, 0.0, {}
    for start in range(0, len(images), batch_size):
        batch, record = images[start : start + batch_size].to(device), {}
        logits = network(batch, record)
        correct += int((logits.argmax(1).cpu() == labels[start : start + batch_size]).sum())
        synaptic += float(synaptic_rate(record, config)) * len(batch)
        for name, value in record.items():
            if is_spikes(name):
                sums[name] = sums.get(name, 0.0) + float(value.double().mean()) * len(batch)
            if name.endswith((".q", ".k")) and config.tokens > 1:
                counts = value.double().unflatten(-1, (config.heads, -1)).sum(-1)
                spread[name] = spread.get(name, 0.0) + float(counts.std(dim=2).mean()) * len(batch)
    network.train(was_training)
    total = len(images)
    return Evaluation(
        total,
        correct,
        {name: value / total for name, value in sums.items()},
        synaptic / total,
        {name: value / total for name, value in spread.items()},
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


def verify_equal(network: QatNetwork, golden, images: np.ndarray | Tensor, batch_size: int = 64) -> Equality:
    """Compare every named trace (spikes, Y, U, head sum, logits, class) of two integer networks, exactly.

    Parameters
    ----------
    network : QatNetwork
    golden : golden.network.GoldenNetwork
        Anything with ``trace(uint8 ndarray [B,H,W,C]) -> dict of integer arrays``.
    images : uint8 [B, H, W, C]

    Returns
    -------
    Equality
        `difference` names the first trace, position and both values where the networks part.
    """
    images, values, traces = as_images(images), 0, 0
    device = next(network.parameters()).device
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        mine, theirs = network.trace(batch.to(device)), golden.trace(batch.numpy())
        traces = len(mine)
        if odd := sorted(set(mine) ^ set(theirs)):
            return Equality(len(images), traces, values, f"trace {odd[0]} exists on one side only")
        for name, value in mine.items():
            ours, other = value.cpu().numpy(), np.asarray(theirs[name]).astype(np.int64)
            if ours.shape != other.shape:
                return Equality(
                    len(images),
                    traces,
                    values,
                    f"{name}: shape {ours.shape} in training, {other.shape} in golden",
                )
            values += ours.size
            if not np.array_equal(ours, other):
                at = tuple(int(i) for i in np.argwhere(ours != other)[0])
                return Equality(
                    len(images),
                    traces,
                    values,
                    f"{name}{[at[0] + start, *at[1:]]}: {ours[at]} in training, {other[at]} in golden",
                )
    return Equality(len(images), traces, values, None)
