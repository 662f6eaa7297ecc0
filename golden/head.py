"""Classification head: integer sum of the residual stream, integer weights, lowest index of the maximum.

The mean of the float network is the sum here: division by T N would not move the maximum.
"""

from __future__ import annotations

import torch


def head_sum(u: torch.Tensor) -> torch.Tensor:
    """Sum of U over time steps and tokens.

    Parameters
    ----------
    u : tensor, shape (T, B, N, D)
        Units of 2^-F.

    Returns
    -------
    tensor, shape (B, D), int64 for integers, else float64
    """
    wide = torch.float64 if u.dtype.is_floating_point else torch.int64
    return u.sum(dim=(0, 2), dtype=wide)


def logits_of(total: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``sum_c weight[k, c] total[c] + bias[k]``: (B, D), (K, D), (K,) to (B, K), all one type."""
    return total @ weight.mT + bias


def class_of(logits: torch.Tensor) -> torch.Tensor:
    """Index of the largest logit, the lowest such index on a tie: (B, K) to (B,) int64."""
    best = logits.max(dim=1, keepdim=True).values
    index = torch.arange(logits.shape[1]).expand_as(logits)
    return torch.where(logits == best, index, logits.shape[1]).min(dim=1).values
