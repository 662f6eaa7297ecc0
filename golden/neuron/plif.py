"""Parametric leaky integrate-and-fire: every place learns how much of its membrane stays.

    u[t] = h[t-1] + x[t];   S = (u >= threshold);   h = 0 after a spike, else floor(leak u / 8)

The published neuron moves by (x - v) / tau and fires at v_th. With u = tau v and leak = 8 (1 - 1 / tau) that
is the form above, with the threshold tau v_th: relative to tau = 2 it is 4 / (8 - leak) of it.

Leaks of 0, 1/4 and 1/2 are exact: the floor changes no spike (`golden.neuron.lif`). Those of 3/4 and 7/8
floor what a real leak would keep, in training as in hardware.

Ref: Fang et al., arXiv 2007.05785 (PLIF); public code: SpikingJelly, ParametricLIFNode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from s2tdpt.golden.layout import TensorLayout
from s2tdpt.golden.neuron.base import LEAKS, WHOLE, Law, Neuron, Number, leaked

if TYPE_CHECKING:
    from s2tdpt.golden.config import NetworkConfig


def checked_leak(leak: int, allowed: tuple[int, ...] = LEAKS) -> int:
    """`leak`, in eighths; ValueError if the hardware has no such leak."""
    if leak not in allowed:
        raise ValueError(f"leak is {leak} eighths; expected one of {', '.join(map(str, allowed))}")
    return int(leak)


@dataclass(frozen=True)
class PlifLaw(Law):
    """h = floor(leak u / 8), 0 after a spike."""

    leak: int

    def keep(self, u: Number, threshold: Number) -> Number:
        return leaked(u, self.leak)

    @property
    def factor(self) -> tuple[int, int]:
        return 4, WHOLE - self.leak

    def growth(self, steps: int) -> int:
        return max(2, WHOLE // (WHOLE - self.leak))


class Plif(Neuron):
    """PLIF with leaks of whole eighths.

    Attributes
    ----------
    leak : {0, 2, 4, 6, 7}
        Eighths of the membrane that stay where training begins.
    """

    kind: Literal["plif"] = "plif"
    leak: Literal[LEAKS] = 4

    def initial(self, config: NetworkConfig) -> PlifLaw:
        return PlifLaw(self.leak)

    def neutral(self, config: NetworkConfig) -> PlifLaw:
        return PlifLaw(4)

    def fields(self, config: NetworkConfig) -> dict[str, TensorLayout]:
        return {"leak": TensorLayout(np.uint8, (), 0, 7)}

    def law(self, values: Mapping[str, np.ndarray]) -> PlifLaw:
        return PlifLaw(checked_leak(int(values["leak"])))

    def values(self, law: PlifLaw, config: NetworkConfig) -> dict[str, int]:
        return {"leak": law.leak}

    def random_law(self, config: NetworkConfig, rng: np.random.Generator) -> PlifLaw:
        return PlifLaw(int(rng.choice(LEAKS)))
