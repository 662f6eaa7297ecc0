"""Trainable neural dynamics: a chain of leaky dendrites with whole numbers, from token to token.

Trained are the inputs G and the weights of the dendrites at the soma, whose values are 0 and the signed
powers of two from 1 to 1/128; the leaks are set. Floors and roundings pass the gradient straight through.

Ref: LRF-Dyn (arXiv 2603.19290). The recurrence is run token by token, in training as in the hardware.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from s2tdpt.golden.attention.lrf_dyn import (
    COUPLING,
    DENDRITES,
    FINE,
    INPUT,
    LARGEST_INPUT,
    LEAK,
    SHIFT,
    SIGN,
)
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.sw.attention.base import AttentionModule, rounded

LEAKS = (1, 1, 2, 2, 3, 3, 4, 4)
FIRST_INPUT = 512
LARGEST_SHIFT = 7
SMALLEST = 2.0 ** -(LARGEST_SHIFT + 0.5)
"""Weights nearer to 0 are 0."""


class _Floor(torch.autograd.Function):
    """Round down; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


class Dynamics(AttentionModule):
    """The dendrites of `golden.attention.lrf_dyn`, without the field."""

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        shape = (config.heads, DENDRITES)
        self.register_buffer("leak", torch.tensor(LEAKS, dtype=torch.float32).expand(shape).clone())
        self.input = nn.Parameter(torch.full(shape, FIRST_INPUT / LARGEST_INPUT))
        self.soma = nn.Parameter(torch.full(shape, 1 / DENDRITES))

    def _gain(self) -> Tensor:
        return rounded(self.input.clamp(0.0, 1.0) * LARGEST_INPUT)

    def _powers(self) -> tuple[Tensor, Tensor]:
        """Sign and shift of the dendrites' weights at the soma."""
        size = self.soma.detach().abs()
        shift = (-torch.log2(size.clamp_min(SMALLEST))).round().clamp(0, LARGEST_SHIFT)
        return self.soma.detach().sign() * (size >= SMALLEST), shift

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        column = lambda values: values.to(v.dtype).unsqueeze(-1)  # noqa: E731 ([h, 8, 1])
        e, gain = column(self.leak), column(self._gain())
        sign, shift = (column(values) for values in self._powers())
        # Its value is 1; backward every weight gets the gradient of what it multiplies.
        through = column(self.soma - self.soma.detach()) * 2.0**shift
        x = v.new_zeros((*v.shape[:-2], DENDRITES, v.shape[-1]))
        leak, passed_on = 2.0**-e, 2.0 ** -(e + COUPLING)
        pad, found = (0, 0, 1, 1), []
        for n in range(v.shape[-2]):
            beside = nn.functional.pad(x, pad)
            passed = _Floor.apply(beside[..., :-2, :] * passed_on) + _Floor.apply(
                beside[..., 2:, :] * passed_on
            )
            token = (k[..., n, :] * v[..., n, :]).unsqueeze(-2)
            x = x - _Floor.apply(x * leak) + passed + gain * token
            read = _Floor.apply(x * 2.0**-shift)
            soma = ((sign + through) * read).sum(-2)
            found.append(q[..., n, :] * _Floor.apply(soma * 2.0**-FINE))
        return torch.stack(found, dim=-2)

    def integers(self) -> dict[str, Tensor]:
        sign, shift = self._powers()
        return {LEAK: self.leak, INPUT: self._gain(), SIGN: sign, SHIFT: shift}

    def set_integers(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.leak.copy_(values[LEAK])
            self.input.copy_(values[INPUT] / LARGEST_INPUT)
            self.soma.copy_(values[SIGN] * 2.0 ** -values[SHIFT])
