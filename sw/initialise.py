"""Data-driven start: the shift of every norm is set so that its neurons fire at a wanted rate.

After a norm the input of a neuron has mean 0 and deviation 1, and the threshold is 2: at T = 1 only 2 % of
the neurons fire, and a sigmoid surrogate passes little to the others. A layer that is nearly silent at first
is what makes short training of spiking networks slow.

References
----------
Layer-sequential, data-driven initialisation: Mishkin and Matas, arXiv 1511.06422.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s2tdpt.golden.layers import StreamNeurons
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.feed import resized
from s2tdpt.sw.network import Network
from s2tdpt.sw.settings import TrainSettings

SEARCH = 24
"""Halvings of the interval in which a layer's shift is sought."""
LARGEST_SHIFT = 4.0
"""The interval is this far on either side of 0, in units of the threshold 2 V_th."""


def _fed_neurons(network: Network) -> list[tuple[str, str]]:
    """(layer, trace of the neurons' input or of the layer's own output) in network order.

    A writer of the residual stream is followed by the neurons that read the stream next.
    """
    depth, found = network.config.depth, []
    for i in range(network.config.sps_depth - 1):
        found.append((f"sps.{i}", ""))
    found.append((f"sps.{network.config.sps_depth - 1}", "sps.u"))
    for b in range(depth):
        name = f"block.{b}"
        found += [(f"{name}.{kind}", "") for kind in network.config.attention.projections]
        found += [(f"{name}.proj", f"{name}.u_attn"), (f"{name}.fc1", "")]
        if b + 1 < depth:  # nothing fires after the last block
            found.append((f"{name}.fc2", f"{name}.u"))
    return found


@torch.no_grad()
def set_rates(network: Network, images: Tensor, rate: float) -> None:
    """Shift the norms of `network`, in place, so that every layer fires at `rate` on `images`.

    The neurons after the attention are left alone: their input is a count, not a norm's output.

    Parameters
    ----------
    images : uint8 [B, H, W, C]
        One batch; the network's own number of steps counts.
    rate : float
        Wanted share of neurons and steps that fire, in 0..1.
    """
    was_training, steps, theta = network.training, network.timesteps, 2.0 * network.config.v_threshold
    readers = {part.reads: part.writes for part in network.config.parts() if isinstance(part, StreamNeurons)}
    network.train()
    running = {name: value.clone() for name, value in network.named_buffers()}
    for layer, trace in _fed_neurons(network):
        seen: dict[str, Tensor] = {}
        module = network.layer(layer)
        hook = module.register_forward_hook(lambda module, args, out, seen=seen: seen.update(out=out))
        network(images, seen)
        hook.remove()
        current = (seen[trace] if trace else seen["out"]).float()
        place = readers[trace] if trace else network.config.layer(layer).writes
        repeated = steps if not trace and layer == "sps.0" else None
        if not trace and layer.startswith("sps.") and repeated is None:
            current = current.unflatten(0, (steps, -1))
        low, high = -LARGEST_SHIFT * theta, LARGEST_SHIFT * theta
        for _ in range(SEARCH):
            middle = 0.5 * (low + high)
            spikes = network.neurons_at(place, current + middle, repeated)
            fired = float((spikes > 0).to(spikes.dtype).mean())  # rises with the shift, whatever is emitted
            low, high = (middle, high) if fired < rate else (low, middle)
        module.norm.bias += 0.5 * (low + high)
    for name, value in network.named_buffers():
        value.copy_(running[name])
    network.train(was_training)


def start_rates(network: Network, dataset: Dataset, settings: TrainSettings) -> None:
    """`set_rates` on the first batch, if the settings ask for it, at the T and size of the first phase."""
    if not settings.initial_rate:
        return
    phase, config, device = settings.phase(0.0), network.config, next(network.parameters()).device
    images = torch.as_tensor(dataset.train_images[: max(settings.batch_size, 32)]).to(device)
    size = (phase.image_size,) * 2 if phase.image_size else (config.image_height, config.image_width)
    network.timesteps = phase.timesteps or config.timesteps
    set_rates(network, resized(images, size), settings.initial_rate)
    network.timesteps = config.timesteps
