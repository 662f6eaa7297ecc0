"""Attentions that compare no tokens: members of the slot as controls, and one control of the software alone.

References
----------
STEP: arXiv 2505.11151 (random attention as a control).
"""

from __future__ import annotations

import torch
from torch import Tensor

from s2tdpt.golden.attention.uniform import WEIGHT
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.sw.attention.base import AttentionModule


class UniformAttention(AttentionModule):
    """Y_i = 128 sum_j V_j, units of 1/256."""

    def forward(self, q: None, k: None, v: Tensor) -> Tensor:
        """v: {0,1} [..., N, d_h] -> Y [..., N, d_h], integers in steps of 1/256."""
        return (WEIGHT * v.sum(-2, keepdim=True)).expand_as(v)


class NoMixingAttention(AttentionModule):
    """Y = V."""

    def forward(self, q: None, k: None, v: Tensor) -> Tensor:
        return v


class RandomAttention(AttentionModule):
    """Control of the software alone: a fixed random A on the grid 1/256; q and k are ignored."""

    weighs_values = True

    def __init__(self, config: NetworkConfig, seed: int = 0):
        super().__init__(config)
        self.kernel = None
        generator = torch.Generator().manual_seed(seed)
        matrix = torch.randint(1, 256, (config.heads, config.tokens, config.tokens), generator=generator)
        self.register_buffer("matrix", matrix.float())  # [heads, N, N], same for every step

    def forward(self, q: Tensor | None, k: Tensor | None, v: Tensor) -> Tensor:
        """v: {0,1} [..., heads, N, d_h] -> Y [..., heads, N, d_h], integers in steps of 1/256."""
        return self.matrix.to(v.dtype) @ v
