"""Spike-driven self-attention: queries pass in the channels in which keys and values met anywhere.

Ref: Spike-driven Transformer (arXiv 2307.01694), SDSA of its version 1, public code. The public code takes
the gate's threshold 0.5, at which it is an OR over the tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from s2tdpt.golden.attention.gate import Gated
from s2tdpt.golden.attention.work import Row, Work
from s2tdpt.golden.layers import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.config import NetworkConfig


class Sdsa(Gated):
    """``Y_ic = Q_ic AND G_c``, G the gate on ``sum_j (K_jc AND V_jc)``."""

    kind: Literal["sdsa"] = "sdsa"

    def most(self, config: NetworkConfig) -> int:
        return config.tokens

    def y(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        return q * self.gate((k * v).sum(-2, keepdim=True))

    def streamed(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        counts = v.new_zeros((*v.shape[:-2], v.shape[-1]))
        for j in range(v.shape[-2]):
            counts += k[..., j, :] * v[..., j, :]
        return q * self.gate(counts).unsqueeze(-2)

    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        count = config.tokens * config.embed_dim
        return Row("kv", Kind.V, count), Row("qg", Kind.Q, count)

    def count(self, config: NetworkConfig, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> dict[str, int]:
        """``bits``: positions of q, of k and of v. ``meetings``: those with a spike of k and of v. ``gates``:
        one for every channel, step and image."""
        return {
            "bits": q.size,
            "meetings": int(np.count_nonzero((k != 0) & (v != 0))),
            "gates": q.size // q.shape[-2],
        }

    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        bits = counts["bits"]
        gather = self.opened(bits, counts["meetings"], counts["gates"], self.most(config))
        return {
            "kv": replace(gather, bit_operations=gather.bit_operations + bits),  # and K AND V
            "qg": Work(bit_operations=bits),
        }
