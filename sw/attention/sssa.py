"""Trainable saccadic attention; its weights and thresholds are whole numbers from the start.

Rounding, of the weights and of a to a power of two, passes the gradient straight through; the mask has the
sigmoid surrogate of the neurons, on the sum in units of its threshold.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from s2tdpt.golden.attention.sssa import LARGEST_WEIGHT, THRESHOLD, WEIGHT, power_of_two_below
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.sw.attention.base import AttentionModule, rounded
from s2tdpt.sw.names import ALPHA
from s2tdpt.sw.neuron import HALF

FIRST_WEIGHT = 64
"""Of a step's own P before training; weights of earlier steps are 0."""
FIRST_RATE = 0.1
"""Before training a mask opens where q and k fire at this rate."""


class _Step(torch.autograd.Function):
    """Whether a whole number has reached a threshold; backward as a neuron's, in units of the threshold."""

    @staticmethod
    def forward(ctx, sums: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(sums, threshold)
        return (sums >= threshold).to(sums.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        sums, threshold = ctx.saved_tensors
        steepness = HALF * ALPHA / threshold
        gate = torch.sigmoid((sums - threshold) * steepness)
        slope = gate * (1.0 - gate) * steepness * grad
        return slope, -slope.sum_to_size(threshold.shape)


class SssaAttention(AttentionModule):
    """Y_i[t] = V_i[t] where sum over s <= t of M[t, s] P_i[s] reaches the threshold of step t."""

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        heads, steps = config.heads, config.timesteps
        counted = FIRST_RATE * config.head_dim
        self.unit = FIRST_WEIGHT * max(1.0, counted * power_of_two_below(counted * config.tokens))
        weight = torch.eye(steps).expand(heads, -1, -1) * (FIRST_WEIGHT / LARGEST_WEIGHT)
        self.weight = nn.Parameter(weight.clone())  # fractions of the largest weight
        self.level = nn.Parameter(torch.ones(heads, steps, dtype=torch.float64))  # in units of `unit`

    def _weight(self) -> Tensor:
        return rounded(self.weight.clamp(-1.0, 1.0) * LARGEST_WEIGHT).tril()

    def _threshold(self) -> Tensor:
        return rounded((self.level * self.unit).clamp(1.0, 2.0**31 - 1))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        steps = v.shape[0]  # training may have fewer
        total = k.sum((-1, -2)).unsqueeze(-1)
        power = total + (power_of_two_below(total) - total).detach()
        agreement = q.sum(-1) * power  # P, [T, B, h, N]
        weight = self._weight()[:, :steps, :steps].to(v.dtype).permute(1, 2, 0)[..., None, :, None]
        sums = (weight * agreement).sum(1)  # [t, B, h, N]
        theta = self._threshold()[:, :steps].to(v.dtype).T[:, None, :, None]
        return v * _Step.apply(sums, theta).unsqueeze(-1)

    def integers(self) -> dict[str, Tensor]:
        return {WEIGHT: self._weight(), THRESHOLD: self._threshold()}

    def set_integers(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.weight.copy_(values[WEIGHT].tril() / LARGEST_WEIGHT)
            self.level.copy_(values[THRESHOLD] / self.unit)
