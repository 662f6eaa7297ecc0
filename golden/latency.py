"""Latency code of a query or key: its rank is its spike count.

Ref: S2TDPT (arXiv 2511.14691), t = T_max (1 - r / d_h). Only differences of counts reach the kernel, so the
integer model keeps r itself.
"""

from __future__ import annotations

import torch


def head_indicator(heads: int, head_dim: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Matrix (heads * head_dim, heads) of ones where a channel belongs to a head."""
    return torch.eye(heads, dtype=dtype).repeat_interleave(head_dim, dim=0)


def popcount(spikes: torch.Tensor, heads: int) -> torch.Tensor:
    """Spike count of every head.

    Parameters
    ----------
    spikes : tensor, shape (..., D)
        0 or 1; head h owns channels ``h * d_h`` to ``(h + 1) * d_h - 1``.
    heads : int
        Divides D.

    Returns
    -------
    tensor, shape (..., heads)
        0..d_h, in the type of `spikes` if floating, else int64.
    """
    if spikes.dtype.is_floating_point:
        # A product with an indicator is faster than a reduction over a short last axis, and as exact.
        return spikes @ head_indicator(heads, spikes.shape[-1] // heads, spikes.dtype)
    return spikes.unflatten(-1, (heads, -1)).sum(-1)
