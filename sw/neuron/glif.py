"""Neurons that learn how they leak, integrate and reset.

The published gates are numbers between 0 and 1; here they are 0 or 1 in the forward pass, and learned through
the slope of their sigmoids. Training begins with LIF neurons.

References
----------
Yao et al., arXiv 2210.13768. Public code: Ikarosy/Gated-LIF; SpikingJelly, GatedLIFNode.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2tdpt.golden.neuron.base import GAIN, WHOLE
from s2tdpt.golden.neuron.glif import LARGEST_CONDUCT, LARGEST_LINEAR, LARGEST_SOFT, GlifLaw
from s2tdpt.sw.neuron.base import PACE, Constants, LearnedNeurons, snapped
from s2tdpt.sw.neuron.klif import whole_gain
from s2tdpt.sw.neuron.plif import nearest_leak, weight_of

FIRST_GATE = 0.5
"""Gates begin this far on their side of 0."""
FIRST_LINEAR, FIRST_SOFT, FIRST_CONDUCT = 3.0, 0.0, 1.0
"""Powers of two behind closed gates: 1/8 and all of the threshold, half of the input, as published."""


def rounded_power(power: Tensor, largest: int) -> Tensor:
    """Whole exponents in their range."""
    return power.detach().round().clamp(0, largest)


class GlifNeurons(LearnedNeurons):
    """See `golden.neuron.glif`; the gates are exponential leak, conductances, hard reset."""

    def __init__(self, law: GlifLaw):
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(3))
        self.w = nn.Parameter(torch.zeros(()))
        self.linear = nn.Parameter(torch.zeros(()))
        self.soft = nn.Parameter(torch.zeros(()))
        self.conduct = nn.Parameter(torch.zeros(len(law.conduct)))
        self.k = nn.Parameter(torch.tensor(1.0))
        self.set_law(law)

    def constants(self) -> Constants:
        open_, soft_leak = torch.sigmoid(PACE * self.gates), 1.0 - torch.sigmoid(PACE * self.w)
        exponential, conducting, hard = snapped(open_, (open_.detach() >= 0.5).to(open_.dtype))
        leak = snapped(soft_leak, nearest_leak(soft_leak))
        parts = [
            torch.exp2(-snapped(PACE * power, rounded_power(PACE * power, largest)))
            for power, largest in (
                (self.linear, LARGEST_LINEAR),
                (self.soft, LARGEST_SOFT - 1),
                (self.conduct, LARGEST_CONDUCT),
            )
        ]
        return Constants(
            leak=1.0 - exponential * (1.0 - leak),
            gain=snapped(self.k, whole_gain(self.k) / GAIN),
            linear=(1.0 - exponential) * parts[0],
            soft=(1.0 - hard) * parts[1],
            hard=hard,
            conduct=1.0 - conducting * (1.0 - parts[2]),
        )

    def law(self) -> GlifLaw:
        exponential, conducting, hard = (gate >= 0 for gate in self.gates.tolist())
        leak = round(WHOLE * float(nearest_leak(1.0 - torch.sigmoid(PACE * self.w))))
        conduct = rounded_power(PACE * self.conduct, LARGEST_CONDUCT).int().tolist()
        return GlifLaw(
            leak=leak if exponential else WHOLE,
            linear=None if exponential else int(rounded_power(PACE * self.linear, LARGEST_LINEAR)),
            soft=0 if hard else 1 + int(rounded_power(PACE * self.soft, LARGEST_SOFT - 1)),
            conduct=tuple(conduct) if conducting else (0,) * len(conduct),
            gain=int(whole_gain(self.k)),
        )

    @torch.no_grad()
    def set_law(self, law: GlifLaw) -> None:
        exponential, conducting = law.linear is None, any(law.conduct)
        signs = torch.tensor([1.0 if gate else -1.0 for gate in (exponential, conducting, not law.soft)])
        self.gates.copy_(FIRST_GATE * signs / PACE)
        self.w.fill_(weight_of(law.leak if exponential else 4) / PACE)
        self.linear.fill_((FIRST_LINEAR if exponential else law.linear) / PACE)
        self.soft.fill_((law.soft - 1 if law.soft else FIRST_SOFT) / PACE)
        self.conduct.copy_(torch.tensor(law.conduct if conducting else FIRST_CONDUCT) / PACE)
        self.k.fill_(law.gain / GAIN)
