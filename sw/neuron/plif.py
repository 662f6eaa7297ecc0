"""Neurons that learn how much of their membrane stays.

References
----------
Fang et al., arXiv 2007.05785: 1 / tau = sigmoid(w). Public code: SpikingJelly, ParametricLIFNode.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from s2tdpt.golden.neuron.base import LEAKS, WHOLE
from s2tdpt.golden.neuron.plif import PlifLaw
from s2tdpt.sw.neuron.base import PACE, Constants, LearnedNeurons, snapped

FARTHEST = 4.0
"""w stands for a leak of 0 here, where the sigmoid still has a slope."""


def weight_of(leak: int) -> float:
    """w of a leak in eighths: 1 - sigmoid(w) is the leak."""
    return FARTHEST if leak == 0 else math.log((WHOLE - leak) / leak)


def nearest_leak(soft: Tensor) -> Tensor:
    """The leak of `LEAKS`, as a part of 1, that is nearest to `soft`, a tensor without axes."""
    known = torch.tensor(LEAKS, dtype=soft.dtype, device=soft.device) / WHOLE
    return known[(known - soft.detach()).abs().argmin()]


class PlifNeurons(LearnedNeurons):
    """u = h + x, h = leak u; fires at 1 / (2 (1 - leak)) of the place's threshold."""

    def __init__(self, law: PlifLaw):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(weight_of(law.leak) / PACE))

    def constants(self) -> Constants:
        soft = 1.0 - torch.sigmoid(PACE * self.w)
        leak = snapped(soft, nearest_leak(soft))
        return Constants(leak=leak, gain=2.0 * (1.0 - leak))

    def law(self) -> PlifLaw:
        return PlifLaw(round(WHOLE * float(nearest_leak(1.0 - torch.sigmoid(PACE * self.w)))))

    @torch.no_grad()
    def set_law(self, law: PlifLaw) -> None:
        self.w.fill_(weight_of(law.leak) / PACE)
