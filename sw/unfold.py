"""From integers back to a float network that can be trained: `sw.quantize` and `sw.fold` reversed.

A parameter file holds all that its network knows but the norms, which were folded into it. Its integers
times their scales are the folded network again (`dequantised`). `unfolded` then gives every layer a norm that
computes the same affine map: the statistics are those of the layer's sums over given images, and gain and
shift follow from them. In evaluation the normed network computes what the folded one does; in training its
norms see batches whose statistics are near.

References
----------
Folding, the other direction: Jacob et al., arXiv 1712.05877, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2tdpt.golden.errors import UserError
from s2tdpt.sw.network import PIXEL_SCALE, Network
from s2tdpt.sw.quantize import QatNetwork


@torch.no_grad()
def dequantised(network: QatNetwork) -> Network:
    """The folded float network whose weights and biases are the real values of the integers.

    It differs from the integer network in what integers did to the neurons: thresholds are not rounded up
    and membranes leak without a floor.
    """
    config = network.config
    folded = Network(config, network.gradient, folded=True)
    for source, target in zip(network.attentions, folded.blocks, strict=True):
        target.attention.load_state_dict(source.state_dict())
    folded.neurons.load_state_dict(network.neurons.state_dict())
    for place in config.layers():
        source, target = network.layer(place.name), folded.layer(place.name)
        linear = target if place.head else target.map
        scale = source.scale / PIXEL_SCALE if place.reads_pixels else source.scale
        weight = source.integer_weight().double()
        linear.weight.copy_(weight * scale.reshape(-1, *[1] * (weight.dim() - 1)))
        linear.bias.copy_(source.integer_bias() * source.unit)
    return folded.eval()


@torch.no_grad()
def unfolded(folded: Network, images: Tensor, batch_size: int = 256) -> Network:
    """A network with norms that in evaluation computes what `folded` does, to rounding.

    Every row of a normed layer gets length 1, so that a matrix lies on the sphere on which `sw.optimise.Muon`
    keeps it and no channel learns faster than another; the norm's gain takes the length. A row of zeros stays
    one, with a gain of 0.

    Parameters
    ----------
    images : uint8 [M, H, W, C]
        Training images over which the statistics of the norms are taken, at the configuration's T.

    Raises
    ------
    UserError
        `folded` has norms already.
    """
    if not folded.folded:
        raise UserError("the network has norms already; expected a folded one; train it as it is")
    network = Network(folded.config, folded.gradient)
    for source, target in zip(folded.blocks, network.blocks, strict=True):
        target.attention.load_state_dict(source.attention.state_dict())
    network.neurons.load_state_dict(folded.neurons.state_dict())
    network.to(folded.head.weight)
    network.head.load_state_dict(folded.head.state_dict())
    for name, (mean, variance) in _statistics(folded, images, batch_size).items():
        source, target = folded.layer(name).map, network.layer(name)
        norm, weight = target.norm, source.weight.double()
        length = weight.flatten(1).norm(dim=1)  # [Co]
        column = length.clamp_min(torch.finfo(torch.float32).tiny).reshape(-1, *[1] * (weight.dim() - 1))
        target.map.weight.copy_(weight / column)
        if target.map.bias is not None:
            target.map.bias.zero_()  # the norm takes it away
        # Of the row of length 1, without the bias: what the norm will see.
        mean = (mean - source.bias.double()) / column.flatten()
        variance = variance / column.flatten().square()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        gain = length * torch.sqrt(norm.running_var.double() + norm.eps)
        norm.weight.copy_(gain)
        norm.bias.copy_(source.bias.double() + norm.running_mean.double() * length)
    return network.eval()


def _statistics(folded: Network, images: Tensor, batch_size: int) -> dict[str, tuple[Tensor, Tensor]]:
    """By layer: mean and variance of every channel's sums, bias included, over steps, images, positions."""
    sums: dict[str, Tensor] = {}
    hooks = []

    def note(name: str):
        def hook(module: nn.Module, args, out: Tensor) -> None:
            out = (out.transpose(0, 1).flatten(1) if out.dim() == 4 else out.t()).double()  # [Co, values]
            count = torch.full_like(out[:, 0], out.shape[1])
            sums[name] = sums.get(name, 0.0) + torch.stack([out.sum(1), out.square().sum(1), count])

        return hook

    for place in folded.config.layers():
        if not place.head:
            hooks.append(folded.layer(place.name).map.register_forward_hook(note(place.name)))
    device = folded.head.weight.device
    try:
        for batch in images.split(batch_size):
            folded(batch.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name, (total, squares, count) in sums.items():
        mean = total / count
        found[name] = mean, (squares / count - mean.square()).clamp_min(0.0)
    return found
