"""Leaky integrate-and-fire with a learned slope and a rectified membrane.

    u[t] = h[t-1] + x[t];   S = (u >= threshold);   h = 0 after a spike, else floor(max(u, 0) / 2)

The published neuron compares F = max(k v, 0) with v_th and carries F / k (`scale_reset`): that is max(v, 0),
and a threshold v_th / k. With k = gain / 16 it is 16 / gain of the threshold of a LIF neuron. The floor
changes no spike.

Ref: Jiang and Zhang, arXiv 2302.09238 (KLIF); public code: SpikingJelly, KLIFNode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from s2tdpt.golden.layout import TensorLayout
from s2tdpt.golden.neuron.base import GAIN, Law, Neuron, Number, is_tensor, shifted

if TYPE_CHECKING:
    from s2tdpt.golden.config import NetworkConfig

LARGEST_GAIN = 255


@dataclass(frozen=True)
class KlifLaw(Law):
    """h = floor(max(u, 0) / 2), 0 after a spike."""

    gain: int
    leak: ClassVar[int] = 4
    rectified: ClassVar[bool] = True

    def keep(self, u: Number, threshold: Number) -> Number:
        positive = u.clamp(min=0) if is_tensor(u) else np.maximum(u, 0)
        return shifted(positive, 1)

    @property
    def factor(self) -> tuple[int, int]:
        return GAIN, self.gain


class Klif(Neuron):
    """KLIF with `scale_reset`; k in sixteenths."""

    kind: Literal["klif"] = "klif"

    def initial(self, config: NetworkConfig) -> KlifLaw:
        return KlifLaw(GAIN)

    def neutral(self, config: NetworkConfig) -> KlifLaw:
        return KlifLaw(GAIN)

    def fields(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        return {"gain": TensorLayout(np.uint8, (), 1, LARGEST_GAIN)}

    def law(self, values: Mapping[str, np.ndarray]) -> KlifLaw:
        return KlifLaw(int(values["gain"]))

    def values(self, law: KlifLaw, config: NetworkConfig) -> dict[str, int]:
        return {"gain": law.gain}

    def random_law(self, config: NetworkConfig, rng: np.random.Generator) -> KlifLaw:
        return KlifLaw(int(rng.integers(8, 33)))
