"""Saccadic self-attention over time: how much a token agrees with the whole image opens its V, step by step.

``P_i[s] = r_Q,i[s] * a[s]`` with a the key spikes of all tokens is the row sum of the product of counts; the
mask of step t looks at P of all steps up to t, weighted by a learned lower triangle M, and V_i passes where
it reaches a learned threshold. Here a is rounded down to a power of two, so that the product is a shift; M
and the thresholds are whole numbers, one set a head.

Ref: SNN-ViT's saccadic spike self-attention, after the notes in docs/attentions.md: its training form. The
printed inference form, with the inverse of M, gives other masks and is not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from s2tdpt.golden.attention.base import SpikingMechanism, Values
from s2tdpt.golden.attention.work import Row, Work
from s2tdpt.golden.bounds import Interval
from s2tdpt.golden.latency import popcount
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.layout import TensorLayout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.config import NetworkConfig

WEIGHT, THRESHOLD = "sssa.weight", "sssa.threshold"
"""Names of a block's tensors in the parameter file, behind ``block.{b}.``."""
LARGEST_WEIGHT = 127


class Sssa(SpikingMechanism):
    """``Y_i[t] = V_i[t]`` where ``sum over s <= t of M[t, s] P_i[s]`` reaches the threshold of step t."""

    kind: Literal["sssa"] = "sssa"

    def block_tensors(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        heads, steps = config.heads, config.timesteps
        return {
            WEIGHT: TensorLayout(np.int8, (heads, steps, steps), -LARGEST_WEIGHT, LARGEST_WEIGHT),
            THRESHOLD: TensorLayout(np.int32, (heads, steps), 1, 2**31 - 1),
        }

    def random_tensors(self, config: NetworkConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
        rate, found = 0.2, {}
        agreement = rate * config.head_dim * power_of_two_below(rate * config.head_dim * config.tokens)
        for b in range(config.depth):
            weight = np.tril(rng.integers(-LARGEST_WEIGHT // 2, LARGEST_WEIGHT + 1, self._shape(config)))
            mean = np.maximum(weight.sum(axis=2) * agreement, LARGEST_WEIGHT)
            theta = np.rint(rng.uniform(0.02, 0.4, mean.shape) * mean).clip(1, 2**31 - 1)
            found[f"block.{b}.{WEIGHT}"] = weight.astype(np.int8)
            found[f"block.{b}.{THRESHOLD}"] = theta.astype(np.int32)
        return found

    def _shape(self, config: NetworkConfig) -> tuple[int, ...]:
        return self.block_tensors(config)[WEIGHT].shape

    def inner(self, config: NetworkConfig, values: Values) -> dict[str, Interval]:
        total = config.tokens * config.head_dim
        most = config.head_dim * int(power_of_two_below(total))
        weight = np.tril(values[WEIGHT].astype(np.int64))
        lo, hi = np.minimum(weight, 0).sum(axis=2).min(), np.maximum(weight, 0).sum(axis=2).max()
        return {
            "total": Interval(0, total),
            "agreement": Interval(0, most),
            "saccade": Interval(int(lo) * most, int(hi) * most),
        }

    def y(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        agreement = popcount(q) * power_of_two_below(popcount(k).sum(-1, keepdim=True))  # P, [T, B, H, N]
        weight = values[WEIGHT].to(v.dtype).tril().permute(1, 2, 0)[..., None, :, None]  # [t, s, 1, H, 1]
        sums = (weight * agreement).sum(1)  # [t, B, H, N]
        opened = sums >= values[THRESHOLD].T[:, None, :, None]
        return v * opened.unsqueeze(-1)

    def streamed(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        steps = v.shape[0]
        weight, theta = values[WEIGHT].to(v.dtype), values[THRESHOLD]
        sums = v.new_zeros(v.shape[:-1])  # one for every step of a token
        y = v.new_zeros(v.shape)
        for s in range(steps):
            total = v.new_zeros(v.shape[1:3])
            for j in range(v.shape[-2]):
                total += popcount(k[s, ..., j, :])
            agreement = popcount(q[s]) * power_of_two_below(total)[..., None]
            for t in range(s, steps):
                sums[t] += weight[:, t, s, None] * agreement
            y[s] = v[s] * (sums[s] >= theta[:, s, None]).unsqueeze(-1)
        return y

    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        count = config.tokens * config.embed_dim
        return Row("ka", Kind.K, count), Row("qa", Kind.Q, count), Row("mv", Kind.V, count)

    def count(self, config: NetworkConfig, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> dict[str, int]:
        """``keys``, ``queries``: spikes, one increment each. ``terms``: shifted weights added, one for every
        set bit of a query count and step from its own on. ``bits``: positions of v."""
        steps = q.shape[-4]
        later = steps - np.arange(steps)[:, None, None]  # [T, 1, 1]
        return {
            "keys": int(np.count_nonzero(k)),
            "queries": int(np.count_nonzero(q)),
            "terms": int((np.bitwise_count(q.sum(-1, dtype=np.int64)).astype(np.int64) * later).sum()),
            "bits": v.size,
        }

    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        inner = bounds.attention_inner
        return {
            "ka": Work(counts["keys"], inner["total"].unsigned_bits),
            "qa": Work(counts["queries"] + counts["terms"], inner["saccade"].signed_bits),
            "mv": Work(bit_operations=counts["bits"]),
        }


def power_of_two_below(total: Tensor | float) -> Tensor | float:
    """The largest power of two that is not above `total`; 0 of 0. Whole numbers below 2^40, or a number."""
    found = (total >= 1) * 1
    for b in range(1, 40):
        found = found + (total >= 2**b) * 2 ** (b - 1)
    return found
