"""Exponential moving average of a network's weights: the average is what is evaluated and exported.

Averaged weights, and weights that were trained with fewer steps or smaller images, need norm statistics of
their own: `renew_statistics` takes them from a pass over training images.

References
----------
Statistics taken anew for averaged weights: Izmailov et al., arXiv 1803.05407, section 3.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


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


@torch.no_grad()
def renew_statistics(network: nn.Module, images: Tensor, batch_size: int = 256) -> None:
    """Replace the running statistics of every norm by plain means over `images`, uint8 [M, H, W, C].

    The pass is as in evaluation: no augmentation, the network's own number of steps, float32.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    was_training, device = network.training, next(network.parameters()).device
    before = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    for batch in images.split(batch_size):
        if len(batch) > 1:
            network(batch.to(device))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    network.train(was_training)
