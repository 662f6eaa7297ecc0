"""What a network costs, from its configuration alone: parameters, multiply-accumulates, neurons, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.layers import Attention, Layer
from s2tdpt.golden.neuron import learned_places
from s2tdpt.golden.trace import spike_traces, traces


@dataclass(frozen=True)
class Product:
    """A row of the cost tables: a layer with weights, or one of the products of an attention.

    Attributes
    ----------
    name : str
        The layer's, or ``block.{b}.`` and the name of a row of the attention: ``qk`` and ``av`` of STDP.
    part : Layer or Attention
    reads : str
        What drives it in the literature's count: a trace of spikes, ``pixels`` or ``head.sum``.
    macs : int
        Multiply-accumulates of one time step. An attention is counted as the matrix products that it
        replaces, so that the figures compare with other transformers.
    row : str or None
        Of an attention: the row's own name, as in `Mechanism.rows`.
    """

    name: str
    part: Layer | Attention
    reads: str
    macs: int
    row: str | None = None


def products(config: NetworkConfig) -> tuple[Product, ...]:
    """All products of a network, in network order."""
    found = []
    for part in config.parts():
        if isinstance(part, Layer):
            found.append(Product(part.name, part, part.reads, part.macs))
        elif isinstance(part, Attention):
            reads = dict(zip(config.attention.projections, part.reads, strict=True))
            for row in config.attention.rows(config):
                name = f"block.{part.index}.{row.name}"
                found.append(Product(name, part, reads[row.reads], row.macs, row.name))
    return tuple(found)


def macs(config: NetworkConfig) -> dict[str, int]:
    """Multiply-accumulates of one time step, by name of the product, in network order."""
    return {product.name: product.macs for product in products(config)}


def parameter_count(config: NetworkConfig) -> int:
    """Trainable parameters of the float network.

    Convolutions and projections, the weight and bias of every batch normalisation, the biases of proj, fc1,
    fc2 and of the head, what attentions and neurons learn; q, k, v and the stem convolutions have no bias of
    their own.
    """
    own = config.attention.block_tensors(config).values()
    total = config.depth * sum(math.prod(layout.shape) for layout in own)
    law = sum(math.prod(layout.shape) for layout in config.neuron.fields(config).values())
    total += len(learned_places(config)) * law
    for layer in config.layers():
        norm = 0 if layer.head else 2
        total += layer.weights + (norm + layer.float_bias) * layer.outputs
    return total


def input_trace(config: NetworkConfig) -> dict[str, str]:
    """Name of the trace that drives each layer, for the layers that spikes drive, in network order.

    Not among them are ``sps.0``, which sees pixels, and the head, which sees the sum of U.
    """
    return {layer.name: layer.reads for layer in config.layers() if layer.spike_driven}


def trace_bytes(config: NetworkConfig) -> int:
    """Bytes of all traces of one image, as :meth:`golden.network.GoldenNetwork.trace` gives them."""
    return sum(math.prod(trace.shape) * (1 if trace.spikes else 8) for trace in traces(config).values())


def neurons(config: NetworkConfig) -> dict[str, int]:
    """Neurons by the trace name of their spikes, in network order."""
    pooled = {layer.reads for layer in config.layers() if layer.pools is not None}  # no neurons of their own
    return {
        name: math.prod(traces(config)[name].shape[1:]) for name in spike_traces(config) if name not in pooled
    }


def memory(config: NetworkConfig) -> dict[str, int]:
    """Bits that an inference holds.

    Returns
    -------
    dict
        ``weights`` (all layers at `weight_bits`), ``spikes_largest`` (largest spike map over all T steps),
        ``spikes_total`` (all spike maps over all T steps), ``image`` (input bytes),
        ``residual_values`` (number of U values over all T steps; their width follows from the weights).
    """
    spikes = [
        count * config.timesteps * traces(config)[name].emits.bits for name, count in neurons(config).items()
    ]
    return {
        "weights": config.weight_bits * sum(layer.weights for layer in config.layers()),
        "spikes_largest": max(spikes),
        "spikes_total": sum(spikes),
        "image": 8 * config.image_height * config.image_width * config.image_channels,
        "residual_values": config.timesteps * config.tokens * config.embed_dim,
    }
