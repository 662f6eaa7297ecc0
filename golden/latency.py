"""Latency code of a query or key: its rank is its spike count.

Ref: S2TDPT (arXiv 2511.14691), t = T_max (1 - r / d_h). Only differences of counts reach the kernel, so the
integer model keeps r itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def popcount(spikes: Tensor) -> Tensor:
    """Spike count of a head's channels.

    Parameters
    ----------
    spikes : tensor, shape (..., d_h)
        0 or 1.

    Returns
    -------
    tensor, shape (...)
        0..d_h, in the type of `spikes` if floating, else int64.
    """
    if spikes.dtype.is_floating_point:
        # A product with ones is faster than a reduction over a short last axis, and as exact.
        return spikes @ spikes.new_ones(spikes.shape[-1])
    return spikes.sum(-1)
