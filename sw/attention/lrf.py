"""Trainable local receptive field, added to another attention; its taps are whole numbers from the start.

Ref: LRF-SSA (arXiv 2603.19290). Rounding passes the gradient straight through.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from s2tdpt.golden.attention.lrf import LARGEST_TAP, TAPS, field, offsets
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.sw.attention.base import AttentionModule, rounded

CENTRE = 16
"""Tap of every token's own V before training; all others are 0."""


class LocalField(AttentionModule):
    """Y of `inner` and the field of V, in the unit of the mechanism `golden.attention.lrf.LocalField`."""

    def __init__(self, config: NetworkConfig, inner: AttentionModule):
        super().__init__(config)
        self.config, self.inner = config, inner
        self.kernel = None  # A V is not all of Y
        taps = torch.zeros(config.embed_dim, len(offsets(config.attention.lrf)))
        taps[:, 0] = CENTRE / LARGEST_TAP
        self.taps = nn.Parameter(taps)  # fractions of the largest tap

    def _weight(self) -> Tensor:
        return rounded(self.taps.clamp(-1.0, 1.0) * LARGEST_TAP)

    def forward(self, q: Tensor | None, k: Tensor | None, v: Tensor) -> Tensor:
        mechanism = self.config.attention
        local = field(self.config, mechanism.lrf, self._weight(), v)
        return self.inner(q, k, v) * (1 << mechanism.y_shift) + local * (1 << mechanism.tap_shift)

    def integers(self) -> dict[str, Tensor]:
        return {**self.inner.integers(), TAPS: self._weight()}

    def set_integers(self, values: Mapping[str, Tensor]) -> None:
        self.inner.set_integers(values)
        with torch.no_grad():
            self.taps.copy_(values[TAPS] / LARGEST_TAP)
