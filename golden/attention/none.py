"""No attention, a control: every token keeps its own V, and nothing passes between tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from s2tdpt.golden.attention.base import SpikingMechanism
from s2tdpt.golden.attention.work import Row, Work
from s2tdpt.golden.layers import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.config import NetworkConfig


class NoMixing(SpikingMechanism):
    """``Y = V``: spikes, which the attention neurons pass on."""

    projections: ClassVar[tuple[Kind, ...]] = (Kind.V,)
    kind: Literal["none"] = "none"

    def y(self, config: NetworkConfig, values: Mapping[str, Tensor], q: None, k: None, v: Tensor) -> Tensor:
        return v

    def streamed(
        self, config: NetworkConfig, values: Mapping[str, Tensor], q: None, k: None, v: Tensor
    ) -> Tensor:
        return v

    def rows(self, config: NetworkConfig) -> tuple[Row, ...]:
        return ()

    def count(self, config: NetworkConfig, q: None, k: None, v: np.ndarray) -> dict[str, int]:
        return {}

    def work(self, config: NetworkConfig, bounds: Bounds, counts: Mapping[str, int]) -> dict[str, Work]:
        return {}
