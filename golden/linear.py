"""Projection of every token: a 1x1 convolution on integers."""

from __future__ import annotations

import torch


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Sum over input channels.

    Parameters
    ----------
    x : tensor, shape (..., Ci)
        Integers (spikes) in a type that holds every partial sum exactly.
    weight : tensor, shape (Co, Ci), same type

    Returns
    -------
    tensor, shape (..., Co)
    """
    return x @ weight.mT
