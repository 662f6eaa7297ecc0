"""The residual stream U: one integer grid of 2^-F onto which three kinds of layers write.

Power-of-two scales make every alignment a left shift, so that all additions are exact.
"""

from __future__ import annotations

import torch


def written(acc: torch.Tensor, shift: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """What a writer adds to the stream: ``acc * 2^shift + bias``.

    Parameters
    ----------
    acc : tensor, shape (..., D)
        Integer sums of the writer.
    shift : tensor, shape (D,)
        0..15, per channel.
    bias : tensor, shape (D,)
        Units of 2^-F.

    Returns
    -------
    tensor, shape (..., D)
    """
    return acc * scale_of(shift, acc.dtype) + bias


def scale_of(shift: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """2^shift in `dtype`, exact."""
    return (torch.ones_like(shift, dtype=torch.int64) << shift.long()).to(dtype)
