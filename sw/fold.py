"""BatchNorm folding: the trained network -> the same network without norms.

A norm in evaluation is y = g (x - mean) / sqrt(var + eps) + beta, so the layer before it takes the gain
into its rows and the rest into its bias. The order (float with norms, fold, then fine-tune the folded
network on the integer grid) is what lets thresholds absorb the gain and no requantiser be needed.
"""

from __future__ import annotations

import torch

from s2tdpt.golden.errors import UserError
from s2tdpt.sw.network import Network


def fold(network: Network) -> Network:
    """A folded copy of `network` in evaluation mode, computed in float64 and kept in its dtype.

    Raises
    ------
    UserError
        If the network is folded already.
    """
    if network.folded:
        raise UserError("the network is folded already; expected one with BatchNorm; fold it only once")
    folded = Network(network.config, network.gradient, folded=True)
    folded.to(network.head.weight)
    for source, target in zip(network.blocks, folded.blocks, strict=True):
        target.attention.load_state_dict(source.attention.state_dict())
    folded.neurons.load_state_dict(network.neurons.state_dict())
    with torch.no_grad():
        for layer in network.config.layers():
            source, target = network.layer(layer.name), folded.layer(layer.name)
            if layer.head:
                target.load_state_dict(source.state_dict())
                continue
            norm, weight = source.norm, source.map.weight.double()
            gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)  # [Co]
            bias = source.map.bias.double() if source.map.bias is not None else 0.0
            target.map.weight.copy_(weight * gain.reshape(-1, *[1] * (weight.dim() - 1)))
            target.map.bias.copy_((bias - norm.running_mean.double()) * gain + norm.bias.double())
    return folded.eval()
