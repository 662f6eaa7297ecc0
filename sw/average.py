"""Exponential moving average of a network's weights: the average is what is evaluated and exported."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """A shadow of `network` that follows it: shadow = decay shadow + (1 - decay) network.

    The decay starts low and rises to its value, min(decay, (1 + n) / (10 + n)) after n updates, so that the
    initial weights are soon forgotten. Running statistics are averaged alike; whole numbers are copied.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards `network`."""
        self.updates += 1
        share = 1.0 - min(self.decay, (1.0 + self.updates) / (10.0 + self.updates))
        theirs, floats, targets = network.state_dict(), [], []
        for name, mine in self.network.state_dict().items():
            if mine.is_floating_point():
                floats.append(mine)
                targets.append(theirs[name])
            else:
                mine.copy_(theirs[name])
        torch._foreach_lerp_(floats, targets, share)  # few kernels instead of one a tensor
