"""Uniform attention, a control: every token attends alike to every token.

``Y_i = sum_j 128 V_j`` in units of 1/256, that is STDP with a table of 128 everywhere. What a network reaches
with it, it reaches without comparing any two tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from s2tdpt.golden.attention.base import Mechanism, Values
from s2tdpt.golden.attention.stdp import UNITS
from s2tdpt.golden.attention.work import Row, Work
from s2tdpt.golden.bounds import Interval
from s2tdpt.golden.layers import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.config import NetworkConfig

WEIGHT = UNITS // 2
"""The weight of every pair of tokens, units of 1/256: the middle of the STDP kernel."""


class Uniform(Mechanism):
    """``Y_i = 128 sum_j V_j``, units of 1/256.

    Attributes
    ----------
    scale_log2 : int
        The attention scale is s = 2^-scale_log2.
    """

    projections: ClassVar[tuple[Kind, ...]] = (Kind.V,)
    kind: Literal["uniform"] = "uniform"
    scale_log2: Annotated[int, Field(strict=True, ge=0, le=16)] = 2

    @property
    def threshold(self) -> int:
        return UNITS << self.scale_log2

    def lively_threshold(self, config: NetworkConfig, rate: float) -> int:
        return round(1.7 * config.tokens * rate * WEIGHT)

    def interval(self, config: NetworkConfig, values: Values) -> Interval:
        return Interval(0, WEIGHT * config.tokens)

    def y(self, config: NetworkConfig, values: Mapping[str, Tensor], q: None, k: None, v: Tensor) -> Tensor:
        return (WEIGHT * v.sum(-2, keepdim=True)).expand_as(v)

    def streamed(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: None, k: None, v: Tensor
    ) -> Tensor:
        counts = v.new_zeros((*v.shape[:-2], v.shape[-1]))
        for j in range(v.shape[-2]):
            counts += v[..., j, :]
        return (counts * WEIGHT).unsqueeze(-2).expand_as(v)

    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        return (Row("av", Kind.V, config.tokens * config.embed_dim),)

    def count(self, config: NetworkConfig, q: None, k: None, v: np.ndarray) -> dict[str, int]:
        """``additions``: value spikes, one increment of a count each."""
        return {"additions": int(np.count_nonzero(v))}

    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        return {"av": Work(counts["additions"], config.tokens.bit_length())}
