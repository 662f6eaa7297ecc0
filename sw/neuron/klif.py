"""Neurons that learn the slope of their membrane, which is rectified.

References
----------
Jiang and Zhang, arXiv 2302.09238. Public code: SpikingJelly, KLIFNode with `scale_reset`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2tdpt.golden.neuron.base import GAIN
from s2tdpt.golden.neuron.klif import LARGEST_GAIN, KlifLaw
from s2tdpt.sw.neuron.base import Constants, LearnedNeurons, snapped


def whole_gain(k: Tensor) -> Tensor:
    """`k` in sixteenths, in its range."""
    return (k.detach() * GAIN).round().clamp(1, LARGEST_GAIN)


class KlifNeurons(LearnedNeurons):
    """u = h + x, h = max(u, 0) / 2; fires where k u reaches the place's threshold."""

    def __init__(self, law: KlifLaw):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(law.gain / GAIN))

    def constants(self) -> Constants:
        leak = torch.tensor(0.5, dtype=self.k.dtype, device=self.k.device)
        return Constants(leak=leak, gain=snapped(self.k, whole_gain(self.k) / GAIN), rectified=True)

    def law(self) -> KlifLaw:
        return KlifLaw(int(whole_gain(self.k)))

    @torch.no_grad()
    def set_law(self, law: KlifLaw) -> None:
        self.k.fill_(law.gain / GAIN)
