"""STDP self-attention on spike counts: the table of weights and two exact forms of the product A V.

Ref: S2TDPT (arXiv 2511.14691), latency coding and STDP kernel. Only the difference of spike counts
d = r_K(j) - r_Q(i) enters, so a table of 2 d_h + 1 integers in 1/256 is the whole kernel.

The matrix form builds A (N x N) and multiplies. The row form never does: row i of A V depends on i only
through r_Q(i), so it keeps one accumulator row per possible query count and adds each token to all of
them. It needs (d_h + 1) x d_h accumulators for any N, and additions only.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from s2tdpt.golden.arith import round_half_even
from s2tdpt.golden.config import ATTENTION_UNITS, NetworkConfig
from s2tdpt.golden.latency import popcount


def build_lut(config: NetworkConfig) -> np.ndarray:
    """Attention weights by count difference.

    Entry ``d + d_h`` for d = r_K(j) - r_Q(i) in -d_h..d_h is offset + e for d < 0 (the key fires later than
    the query: LTP) and offset - e for d >= 0 (LTD; a tie is LTD), with e = round(amplitude exp(-kappa |d|)),
    ties to even.

    Returns
    -------
    ndarray
        int16, shape ``(2 d_h + 1,)``, units of 1/256, every entry strictly between 0 and 256.
    """
    span = config.head_dim
    entries = []
    for d in range(-span, span + 1):
        e = round_half_even(config.stdp_amplitude * math.exp(-config.kappa * abs(d)))
        entries.append(config.stdp_offset + e if d < 0 else config.stdp_offset - e)
    assert all(0 < entry < ATTENTION_UNITS for entry in entries)
    return np.array(entries, dtype=np.int16)


def attention_weights(query_count: torch.Tensor, key_count: torch.Tensor, lut: torch.Tensor) -> torch.Tensor:
    """The matrix A in units of 1/256.

    Parameters
    ----------
    query_count, key_count : tensor, shape (..., N)
        Spike counts of one head, 0..d_h.
    lut : tensor, shape (2 d_h + 1,)

    Returns
    -------
    tensor, shape (..., N, N), type of `lut`
        Row i, column j: the weight of token j for token i.
    """
    span = lut.shape[0] // 2
    index = key_count.unsqueeze(-2) - (query_count - span).unsqueeze(-1)
    return torch.take(lut, index.long())


def attention_matrix(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lut: torch.Tensor, heads: int
) -> torch.Tensor:
    """Y = A V with A built as a matrix.

    Parameters
    ----------
    q, k, v : tensor, shape (M, N, D)
        Spikes 0 or 1 (one row of M per image and time step), in a type that holds N * max(lut) exactly.
    lut : tensor, shape (2 d_h + 1,), type of `v`
    heads : int

    Returns
    -------
    tensor, shape (M, N, D), units of 1/256
    """
    weights = attention_weights(popcount(q, heads).mT, popcount(k, heads).mT, lut)  # (M, heads, N, N)
    y = weights @ v.unflatten(-1, (heads, -1)).transpose(1, 2)
    return y.transpose(1, 2).flatten(2)


def attention_rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lut: torch.Tensor, heads: int
) -> torch.Tensor:
    """Y = A V with one accumulator row per query count; arguments and result of :func:`attention_matrix`.

    The accumulation over tokens is written as additions, one token after the other, as a machine with
    O(d_h^2) state performs it.
    """
    m, n, d = v.shape
    width = d // heads
    counts = torch.arange(width + 1)
    query_count = popcount(q, heads).long()  # (M, N, heads)
    key_count = popcount(k, heads).long()
    values = v.unflatten(-1, (heads, width))
    state = torch.zeros((m, heads, width + 1, width), dtype=v.dtype)
    for j in range(n):
        weight = lut[key_count[:, j, :, None] - counts + width]  # (M, heads, d_h + 1)
        # Values are 0 or 1: the product selects, and each accumulator gains one table entry or nothing.
        state += weight.unsqueeze(-1) * values[:, j].unsqueeze(-2)
    index = query_count.permute(0, 2, 1).unsqueeze(-1).expand(m, heads, n, width)
    return torch.gather(state, 2, index).permute(0, 2, 1, 3).reshape(m, n, d)
