"""What every trainable attention is: a module on spikes whose result is the golden mechanism's integers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from s2tdpt.golden.config import NetworkConfig


class _Round(torch.autograd.Function):
    """Round to nearest even; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


rounded = _Round.apply
"""Nearest whole numbers, ties to even; the gradient passes straight through."""


class AttentionModule(nn.Module, ABC):
    """Base of the trainable attentions, the same in the float network and in the integer one.

    q, k and v are spikes, or the mechanism's operands, of shape [T, B, h, N, d_h], None where it has no such
    projection; the result Y has the same shape and holds whole numbers in the mechanism's unit: those of
    `golden.attention`, on floats that hold them exactly.

    Attributes
    ----------
    threshold : int
        Of the attention neurons, in the unit of Y; it stands for the real value 1.0 (twice the paper's 0.5),
        so that a scale of the attention costs no multiplication.
    weighs_values : bool
        Whether Y = A(q, k) V: then A can be averaged, and replaced by its mean.
    kernel : ndarray or None
        Weights of A by difference of spike counts, as `Mechanism.kernel`.
    """

    weighs_values = False

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.threshold = config.attention_threshold
        self.kernel = config.attention.kernel(config)

    @abstractmethod
    def forward(self, q: Tensor | None, k: Tensor | None, v: Tensor | None) -> Tensor:
        """Y of spikes q, k and v."""

    def integers(self) -> dict[str, Tensor]:
        """The block's trained tensors as whole numbers, by short name as in `Mechanism.block_tensors`."""
        return {}

    def set_integers(self, values: Mapping[str, Tensor]) -> None:
        """Take the block's trained tensors from whole numbers: the opposite of `integers`."""
