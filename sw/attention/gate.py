"""Trainable attentions that pass spikes through a gate: LIF neurons on spike counts.

The gate's surrogate sees counts in units of its threshold, as the attention neurons do: far above the
threshold, where a gate is always open, it passes no gradient to what opens it.

References
----------
Spike-driven Transformer: arXiv 2307.01694. QKFormer: arXiv 2403.16552.
"""

from __future__ import annotations

from torch import Tensor

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.sw.attention.base import AttentionModule
from s2tdpt.sw.neuron import lif


class GatedAttention(AttentionModule):
    """What the gated attentions share."""

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        self.gate_threshold = config.attention.gate_threshold

    def gate(self, counts: Tensor) -> Tensor:
        """Spikes [T, ...] of gates that count `counts` [T, ...]."""
        return lif(counts, self.gate_threshold, 1.0 / self.gate_threshold, floor_leak=True)


class SdsaAttention(GatedAttention):
    """Y_ic = Q_ic AND gate(sum_j K_jc AND V_jc)."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q * self.gate((k * v).sum(-2, keepdim=True))


class QktaAttention(GatedAttention):
    """Y_ic = K_ic AND gate(sum_c Q_ic)."""

    def forward(self, q: Tensor, k: Tensor, v: None) -> Tensor:
        return k * self.gate(q.sum(-1, keepdim=True))


class QkcaAttention(GatedAttention):
    """Y_ic = K_ic AND gate(sum_i Q_ic)."""

    def forward(self, q: Tensor, k: Tensor, v: None) -> Tensor:
        return k * self.gate(q.sum(-2, keepdim=True))
