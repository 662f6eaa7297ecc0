"""Spiking self-attention without softmax, with the gradient of plain products.

Ref: Spikformer (arXiv 2209.15425).
"""

from __future__ import annotations

from torch import Tensor

from s2tdpt.sw.attention.base import AttentionModule


class SsaAttention(AttentionModule):
    """Y = Q K^T V, counts; of SSA, and of A2OS2A, whose K and V are other numbers than spikes."""

    weighs_values = True

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v: whole numbers [..., N, d_h] -> Y [..., N, d_h]."""
        if q.shape[-2] > q.shape[-1]:
            return q @ (k.mT @ v)  # the same integers, linear in tokens
        return (q @ k.mT) @ v
