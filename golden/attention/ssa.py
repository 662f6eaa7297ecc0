"""Spiking self-attention without softmax: ``Y = Q K^T V``, counts.

Ref: Spikformer (arXiv 2209.15425), Spikingformer (arXiv 2304.11954), scale 1/8 in both.

Both orders of the product give the same integers. The streamed form takes the second, Q (K^T V): it adds V_j
to every row c of a d_h x d_h state with K_jc = 1, and token i adds up the rows with Q_ic = 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from s2tdpt.golden.attention.base import Mechanism, Values
from s2tdpt.golden.attention.work import Row, Work
from s2tdpt.golden.bounds import Interval
from s2tdpt.golden.layers import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.config import NetworkConfig


class Ssa(Mechanism):
    """``Y_i = sum_c Q_ic sum_j K_jc V_j``: agreeing channels of token i and j, times V_j; counts.

    Attributes
    ----------
    scale_log2 : int
        The attention scale is s = 2^-scale_log2.
    """

    kind: Literal["ssa"] = "ssa"
    scale_log2: Annotated[int, Field(strict=True, ge=0, le=16)] = 3

    @property
    def threshold(self) -> int:
        return 1 << self.scale_log2  # (2 * 0.5) / s

    def lively_threshold(self, config: NetworkConfig, rate: float) -> int:
        return round(1.7 * config.tokens * config.head_dim * rate**3)

    def interval(self, config: NetworkConfig, values: Values) -> Interval:
        return self.product(config)

    def inner(self, config: NetworkConfig, values: Values) -> dict[str, Interval]:
        return {"state": self.state(config)}

    def state(self, config: NetworkConfig) -> Interval:
        """Of a number of K^T V, partial sums included."""
        k, v = self.operand(Kind.K), self.operand(Kind.V)  # K is not negative
        return Interval(config.tokens * k.hi * v.lo, config.tokens * k.hi * v.hi)

    def product(self, config: NetworkConfig) -> Interval:
        """Of a number of Q K^T V, partial sums of either order included."""
        state = self.state(config)
        return Interval(config.head_dim * state.lo, config.head_dim * state.hi)

    def y(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        return (q @ k.mT) @ v

    def streamed(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        return read_state(key_value_state(k, v), q)

    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        count = config.tokens * config.tokens * config.embed_dim  # the N x N products that it replaces
        return Row("qk", Kind.Q, count), Row("av", Kind.V, count)

    def count(self, config: NetworkConfig, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> dict[str, int]:
        """``updates``: rows of the state touched, one for every key spike of a token with a value spike.
        ``increments``: sums changed, one for every value spike of such a token and key spike. ``reads``: rows
        added to an output, one for every query spike. What is not 0 counts as a spike."""
        keys, values = (np.count_nonzero(part, axis=-1) for part in (k, v))
        return {
            "updates": int((keys * (values > 0)).sum()),
            "increments": int((keys * values).sum()),
            "reads": int(np.count_nonzero(q)),
        }

    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        state = bounds.attention_inner["state"]
        width, bits = config.head_dim, state.signed_bits - (state.lo >= 0)
        memory = config.timesteps * width * width * bits
        y_bits = bounds.attention.signed_bits - (bounds.attention.lo >= 0)
        return {
            "qk": Work(counts["increments"], bits, moved=2 * counts["updates"] * width * bits, memory=memory),
            "av": Work(counts["reads"] * width, y_bits, moved=counts["reads"] * width * bits, memory=memory),
        }


def key_value_state(k: Tensor, v: Tensor) -> Tensor:
    """K^T V token by token: [..., N, d_h] each to [..., d_h, d_h], row c the sum of K_jc V_j."""
    state = v.new_zeros((*v.shape[:-2], k.shape[-1], v.shape[-1]))
    for j in range(v.shape[-2]):
        state += k[..., j, :, None] * v[..., j, None, :]  # K of 0 or 1 selects rows
    return state


def read_state(state: Tensor, q: Tensor) -> Tensor:
    """Q times the state, row by row: every token i [..., N, d_h] adds up the rows c with Q_ic = 1."""
    y = state.new_zeros((*q.shape[:-1], state.shape[-1]))
    for c in range(q.shape[-1]):
        y += q[..., c, None] * state[..., c, None, :]
    return y
