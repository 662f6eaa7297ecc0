"""Q-K attention: queries open a token, or a channel, and the keys that are there pass.

Ref: QKFormer (arXiv 2403.16552): QKTA from its public code, QKCA from the attention layers of SpikingJelly.
Both take the gate's threshold 0.5, at which it is an OR. There is no V. QKTA moves nothing between tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from s2tdpt.golden.attention.gate import Gated
from s2tdpt.golden.attention.work import Row, Work
from s2tdpt.golden.latency import popcount
from s2tdpt.golden.layers import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.config import NetworkConfig


class _QueryGated(Gated):
    """What both share: queries open gates, keys pass."""

    projections: ClassVar[tuple[Kind, ...]] = (Kind.Q, Kind.K)

    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        count = config.tokens * config.embed_dim
        return Row("qm", Kind.Q, count), Row("km", Kind.K, count)

    def count(self, config: NetworkConfig, q: np.ndarray, k: np.ndarray, v: None) -> dict[str, int]:
        """``bits``: positions of q, and of k. ``spikes``: of q. ``gates``: all steps and images."""
        return {"bits": q.size, "spikes": int(np.count_nonzero(q)), "gates": q.size // self.most(config)}

    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        bits = counts["bits"]
        gather = self.opened(bits, counts["spikes"], counts["gates"], self.most(config))
        return {"qm": gather, "km": Work(bit_operations=bits)}


class Qkta(_QueryGated):
    """``Y_ic = K_ic AND m_i``, m the gate on ``sum_c Q_ic``: the token attention of QKFormer."""

    kind: Literal["qkta"] = "qkta"

    def most(self, config: NetworkConfig) -> int:
        return config.head_dim

    def y(self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: None) -> Tensor:
        return k * self.gate(q.sum(-1, keepdim=True))

    def streamed(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: None
    ) -> Tensor:
        y = k.new_zeros(k.shape)
        for i in range(k.shape[-2]):
            y[..., i, :] = k[..., i, :] * self.gate(popcount(q[..., i, :]))[..., None]
        return y


class Qkca(_QueryGated):
    """``Y_ic = K_ic AND m_c``, m the gate on ``sum_i Q_ic``: the channel attention of QKFormer."""

    kind: Literal["qkca"] = "qkca"

    def most(self, config: NetworkConfig) -> int:
        return config.tokens

    def y(self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: None) -> Tensor:
        return k * self.gate(q.sum(-2, keepdim=True))

    def streamed(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: None
    ) -> Tensor:
        counts = k.new_zeros((*k.shape[:-2], k.shape[-1]))
        for i in range(k.shape[-2]):
            counts += q[..., i, :]
        return k * self.gate(counts).unsqueeze(-2)
