"""STDP self-attention on spike counts: the table of weights and two exact forms of the product A V.

Ref: S2TDPT (arXiv 2511.14691), latency coding and STDP kernel. Only the difference of spike counts
d = r_K(j) - r_Q(i) enters, so a table of 2 d_h + 1 integers in 1/256 is the whole kernel.

The definition builds A (N x N) and multiplies. The streamed form never does: row i of A V depends on i only
through r_Q(i), so it keeps one accumulator row per possible query count and adds each token to all of them.
It needs (d_h + 1) x d_h accumulators for any N, and additions only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from s2tdpt.golden.arith import round_half_even
from s2tdpt.golden.attention.base import Mechanism, Values
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

UNITS = 256
"""STDP weights are integers in units of 1/256."""
LUT = "stdp.lut"
"""Name of the table in the parameter file."""


class Stdp(Mechanism):
    """S2TDPT's attention: ``Y_i = sum_j LUT[r_K(j) - r_Q(i)] V_j``, units of 1/256.

    Attributes
    ----------
    kappa : float
        Decay per spike count: T_max / (d_h tau).
    amplitude, offset : int
        Kernel in 1/256: entries lie strictly between 0 and 256.
    scale_log2 : int
        The attention scale is s = 2^-scale_log2.
    """

    kind: Literal["stdp"] = "stdp"
    kappa: Annotated[float, Field(strict=True, gt=0, le=1024)] = 0.125
    amplitude: Annotated[int, Field(strict=True, ge=1, le=127)] = 127
    offset: Annotated[int, Field(strict=True, ge=1, le=255)] = 128
    scale_log2: Annotated[int, Field(strict=True, ge=0, le=16)] = 2

    @model_validator(mode="after")
    def _inside(self) -> Stdp:
        low, high = self.offset - self.amplitude, self.offset + self.amplitude
        if low <= 0 or high >= UNITS:
            raise ValueError(
                f"STDP weights would span {low}..{high}; expected values strictly between 0 and 256; "
                "lower the amplitude or move the offset towards 128"
            )
        return self

    def table(self, head_dim: int) -> np.ndarray:
        """Attention weights by count difference.

        Entry ``d + d_h`` for d = r_K(j) - r_Q(i) in -d_h..d_h is offset + e for d < 0 (the key fires later
        than the query: LTP) and offset - e for d >= 0 (LTD; a tie is LTD), with
        e = round(amplitude exp(-kappa |d|)), ties to even.

        Returns
        -------
        ndarray
            int16, shape ``(2 head_dim + 1,)``, units of 1/256, every entry strictly between 0 and 256.
        """
        entries = []
        for d in range(-head_dim, head_dim + 1):
            e = round_half_even(self.amplitude * math.exp(-self.kappa * abs(d)))
            entries.append(self.offset + e if d < 0 else self.offset - e)
        assert all(0 < entry < UNITS for entry in entries)
        return np.array(entries, dtype=np.int16)

    def kernel(self, config: NetworkConfig) -> np.ndarray:
        return self.table(config.head_dim)

    def network_tensors(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        return {LUT: TensorLayout(np.int16, (2 * config.head_dim + 1,), 1, UNITS - 1)}

    def derived_tensors(self, config: NetworkConfig) -> dict[str, np.ndarray]:
        return {LUT: self.table(config.head_dim)}

    @property
    def threshold(self) -> int:
        # V_th = 0.5, doubled because the neuron's input is whole (tau = 2): (2 * 0.5) * 256 / s.
        return UNITS << self.scale_log2

    def lively_threshold(self, config: NetworkConfig, rate: float) -> int:
        return round(1.7 * config.tokens * rate * self.offset)

    def interval(self, config: NetworkConfig, values: Values) -> Interval:
        return table_interval(values[LUT], config.tokens)

    def y(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        return attention_weights(q, k, values[LUT]).to(v.dtype) @ v

    def streamed(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        lut, width, r_q, r_k = values[LUT].to(v.dtype), v.shape[-1], popcount(q).long(), popcount(k).long()
        counts = r_q.new_tensor(range(width + 1))
        rows = v.new_zeros((*v.shape[:-2], width + 1, width))
        for j in range(v.shape[-2]):
            weight = lut[r_k[..., j, None] - counts + width]  # [T, B, H, d_h + 1]
            # Values are 0 or 1: the product selects, and each accumulator gains one table entry or nothing.
            rows += weight.unsqueeze(-1) * v[..., j, None, :]
        return rows.gather(-2, r_q.unsqueeze(-1).expand_as(v))

    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        count = config.tokens * config.tokens * config.embed_dim  # the N x N products that it replaces
        return Row("qk", Kind.Q, count), Row("av", Kind.V, count)

    def count(self, config: NetworkConfig, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> dict[str, int]:
        """``counted``: spikes of q and k, one increment each. ``updates``: rows touched, for every token with
        a value spike (and for the first token, which defines the rows) one for every query count that
        occurs; each needs one subtraction of counts. ``additions``: table entries added, one for every value
        spike of such a token and every query count that occurs. ``outputs``: rows read by the tokens."""
        queries, values = (part.sum(-1, dtype=np.int64) for part in (q, v))  # [..., N]
        occurring = 1 + (np.diff(np.sort(queries, axis=-1), axis=-1) != 0).sum(-1)
        active = values > 0
        active[..., 0] = True
        return {
            "counted": int(np.count_nonzero(q) + np.count_nonzero(k)),
            "updates": int((active.sum(-1) * occurring).sum()),
            "additions": int((values.sum(-1) * occurring).sum()),
            "outputs": queries.size,
        }

    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        width, bits = config.head_dim, bounds.attention.signed_bits - (bounds.attention.lo >= 0)
        difference = width.bit_length() + 1  # has a sign
        row = width * bits
        return {
            "qk": Work(counts["counted"] + counts["updates"], difference),
            "av": Work(
                counts["additions"],
                bits,
                moved=(2 * counts["updates"] + counts["outputs"]) * row,
                memory=config.timesteps * (width + 1) * row,
            ),
        }


def table_interval(lut: np.ndarray, tokens: int) -> Interval:
    """Interval of Y and of its partial sums over any of the `tokens` tokens, in the units of `lut`."""
    entries = [int(entry) for entry in lut]
    return Interval(tokens * min(0, *entries), tokens * max(0, *entries))


def attention_weights(q: Tensor, k: Tensor, lut: Tensor) -> Tensor:
    """The matrix A in units of 1/256.

    Parameters
    ----------
    q, k : tensor, shape (..., N, d_h)
        Spikes of one head.
    lut : tensor, shape (2 d_h + 1,)

    Returns
    -------
    tensor, shape (..., N, N), type of `lut`
        Row i, column j: the weight of token j for token i.
    """
    r_q, r_k = popcount(q), popcount(k)  # spike counts: the latency is their complement
    difference = r_k[..., None, :] - r_q[..., :, None]  # query i by key j
    return lut[difference.long() + q.shape[-1]]
