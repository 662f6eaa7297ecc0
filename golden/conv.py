"""3x3 convolution on integers, stride 1, zero padding 1, as unfolding and one matrix product.

Written out as a product so that no transform algorithm (Winograd, FFT) with inexact intermediate values can
be chosen underneath: every intermediate is a partial sum of the exact integer result.
"""

from __future__ import annotations

import torch

TAPS = [(dy, dx) for dy in range(3) for dx in range(3)]


def conv_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Weights (Co, Ci, 3, 3) as a matrix (9 Ci, Co): rows by tap (row, column), then channel."""
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0]).contiguous()


def pad_map(x: torch.Tensor) -> torch.Tensor:
    """Maps (M, H, W, C) inside a border of zeros: (M, H + 2, W + 2, C)."""
    return torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1))


def unfold(padded: torch.Tensor) -> torch.Tensor:
    """The 3x3 neighbourhoods of bordered maps (M, H + 2, W + 2, C) as rows (M H W, 9 C)."""
    m, hp, wp, c = padded.shape
    s0, s1, s2, s3 = padded.stride()
    view = padded.as_strided((m, hp - 2, wp - 2, 3, 3, c), (s0, s1, s2, s1, s2, s3))
    return view.reshape(m * (hp - 2) * (wp - 2), 9 * c)


def conv3x3(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Integer convolution.

    Parameters
    ----------
    x : tensor, shape (M, H, W, Ci)
        Integers, e.g. spikes or centred pixels, in a type that holds every partial sum exactly.
    weight : tensor, shape (Co, Ci, 3, 3), same type

    Returns
    -------
    tensor, shape (M, H, W, Co)
    """
    m, h, w, _ = x.shape
    return (unfold(pad_map(x)) @ conv_matrix(weight)).view(m, h, w, -1)
