"""Leaky integrate-and-fire on integers, tau = 2, reset to zero.

Ref: S2TDPT (arXiv 2511.14691) Eqs. 7-9 with beta = 1/2: U[t] = H[t-1] + X[t]; S = (U >= threshold); H = 0
after a spike, else floor(U / 2). With integer inputs and an integer threshold the floor changes no spike of
the real-valued leak, because floor(y / 2) = floor(floor(y) / 2) and y >= n is floor(y) >= n for whole n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from s2tdpt.golden.layout import TensorLayout
from s2tdpt.golden.neuron.base import Law, Neuron, Number, shifted

if TYPE_CHECKING:
    import torch

    from s2tdpt.golden.config import NetworkConfig


def lif(
    current: torch.Tensor, threshold: torch.Tensor | int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Spikes of a layer over all time steps.

    Parameters
    ----------
    current : tensor, shape (T, ..., C)
        Integer inputs, of an integer type or of a floating type that holds every membrane value exactly.
        Not changed.
    threshold : tensor broadcastable to (..., C), or int
        Firing thresholds, whole, at least 1; a membrane equal to the threshold fires.
    out : tensor, shape (T, ..., C), optional
        Where to write; may be a strided view of another type.

    Returns
    -------
    tensor, shape (T, ..., C)
        0 or 1, `out` or a tensor of the type of `current`.
    """
    import torch

    steps = current.shape[0]
    if out is None:
        out = torch.empty_like(current)
    floating = current.dtype.is_floating_point
    membrane = torch.empty_like(current[0])
    for t in range(steps):
        u = torch.add(current[t], membrane, out=membrane) if t else membrane.copy_(current[t])
        fired = torch.ge(u, threshold, out=out[t])
        if t + 1 < steps:
            u = u.mul_(0.5).floor_() if floating else u.bitwise_right_shift_(1)
            u.addcmul_(u, fired.to(u.dtype), value=-1)  # reset: u - u * 1 = 0
    return out


@dataclass(frozen=True)
class LifLaw(Law):
    """h = floor(u / 2), 0 after a spike."""

    leak: ClassVar[int] = 4

    def keep(self, u: Number, threshold: Number) -> Number:
        return shifted(u, 1)

    def spikes(
        self, current: torch.Tensor, threshold: torch.Tensor | int, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        return lif(current, threshold, out)


class Lif(Neuron):
    """S2TDPT's neuron: the same law everywhere, nothing to learn and nothing in the file.

    Ref: S2TDPT (arXiv 2511.14691), Eqs. 7-9.
    """

    kind: Literal["lif"] = "lif"

    def initial(self, config: NetworkConfig) -> LifLaw:
        return LIF

    def neutral(self, config: NetworkConfig) -> LifLaw:
        return LIF

    def fields(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        return {}

    def law(self, values: Mapping[str, np.ndarray]) -> LifLaw:
        return LIF

    def values(self, law: LifLaw, config: NetworkConfig) -> dict[str, int]:
        return {}

    def random_law(self, config: NetworkConfig, rng: np.random.Generator) -> LifLaw:
        return LIF


LIF = LifLaw()
"""The law of S2TDPT, and of the gates that are part of an attention."""
