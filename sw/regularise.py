"""Two optional loss terms: fewer spikes where they cost most, and spike counts that differ.

The hardware adds one weight row a spike, so an inference costs spikes x outputs. `synaptic_rate` is that
cost as a fraction of the dense multiply-accumulates: the mean firing rate, weighted by where it matters.

STDP attention sees q and k only through their counts. Where every token has the same count the attention
is a constant, and nothing in a classification loss asks for anything else; `count_spread_loss` does.

References
----------
S2TDPT: arXiv 2511.14691 (attention on counts); energy counted as rate x MACs is the usual convention.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s2tdpt.golden.complexity import input_trace, macs
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.layers import Attention
from s2tdpt.sw.forward import Record

TARGET_SPREAD = 2.0
"""Wanted standard deviation of a head's spike count over the tokens of an image."""


def synaptic_rate(record: Record, config: NetworkConfig) -> Tensor:
    """Spike-driven additions as a fraction of dense multiply-accumulates, 0..1 (scalar, differentiable)."""
    cost, total, weights = 0.0, 0, macs(config)
    for layer, source in input_trace(config).items():
        cost = cost + weights[layer] * record[source].mean()
        total += weights[layer]
    return cost / total


def count_spread_loss(record: Record, config: NetworkConfig) -> Tensor:
    """Mean shortfall, in units of the target, of the counts' spread over tokens; 0 where they vary enough."""
    attentions = [part for part in config.parts() if isinstance(part, Attention)]
    names = [name for part in attentions for name in (part.q, part.k) if name]
    if config.tokens < 2 or not names:
        return next(iter(record.values())).new_zeros(())
    shortfall = []
    for name in names:
        counts = record[name].unflatten(-1, (config.heads, -1)).sum(-1)  # [T, B, N, h]
        spread = (counts.var(dim=2) + 1e-3).sqrt().mean()
        shortfall.append(torch.relu(TARGET_SPREAD - spread) / TARGET_SPREAD)
    return torch.stack(shortfall).mean()
