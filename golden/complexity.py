"""What a network costs, from its configuration alone: parameters, multiply-accumulates, neurons, memory."""

from __future__ import annotations

import math

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.trace import is_binary, trace_shapes


def parameter_count(config: NetworkConfig) -> int:
    """Trainable parameters of the float network.

    Convolutions and projections, the weight and bias of every batch normalisation, the biases of proj, fc1,
    fc2 and of the head; q, k, v and the stem convolutions have no bias of their own.
    """
    total = 0
    for layer in config.layer_names():
        shape = config.weight_shape(layer)
        total += math.prod(shape)
        if layer != "head":
            total += 2 * shape[0]
        if layer == "head" or layer.endswith((".proj", ".fc1", ".fc2")):
            total += shape[0]
    return total


def positions(config: NetworkConfig, layer: str) -> int:
    """Places at which `layer` is evaluated in one time step: map positions, tokens, or 1 for the head."""
    if layer == "head":
        return 1
    if layer.startswith("sps."):
        h, w = config.map_size(int(layer[4:]))
        return h * w
    return config.tokens


def macs(config: NetworkConfig) -> dict[str, int]:
    """Multiply-accumulates of one time step, by layer, in network order.

    The attention appears as ``block.{b}.qk`` and ``block.{b}.av``, counted as the N x N matrix products that
    they replace, so that the figures compare with other transformers.
    """
    counts: dict[str, int] = {}
    attention = config.tokens * config.tokens * config.embed_dim
    for layer in config.layer_names():
        if layer.endswith(".proj"):
            block = layer.removesuffix(".proj")
            counts[f"{block}.qk"] = attention
            counts[f"{block}.av"] = attention
        counts[layer] = positions(config, layer) * math.prod(config.weight_shape(layer))
    return counts


def input_trace(config: NetworkConfig) -> dict[str, str]:
    """Name of the trace that drives each layer, for the layers that spikes drive, in network order.

    Not among them are ``sps.0``, which sees pixels, and the head, which sees the sum of U.
    """
    sources = {"q": "x", "k": "x", "v": "x", "proj": "attn", "fc1": "mlp_in", "fc2": "hidden"}
    names = {}
    for layer in config.layer_names():
        kind, _, rest = layer.partition(".")
        if kind == "sps" and rest != "0":
            i = int(rest)
            names[layer] = f"sps.{i}.pooled" if config.sps_pool[i] else f"sps.{i - 1}.spikes"
        elif kind == "block":
            block, _, part = layer.rpartition(".")
            names[layer] = f"{block}.{sources[part]}"
    return names


def trace_bytes(config: NetworkConfig) -> int:
    """Bytes of all traces of one image, as :meth:`golden.network.GoldenNetwork.trace` gives them."""
    return sum(
        math.prod(shape) * (1 if is_binary(name) else 8) for name, shape in trace_shapes(config).items()
    )


def neurons(config: NetworkConfig) -> dict[str, int]:
    """LIF neurons by the trace name of their spikes, in network order."""
    counts: dict[str, int] = {}
    for i in range(config.sps_depth - 1):
        counts[f"sps.{i}.spikes"] = positions(config, f"sps.{i}") * config.sps_channels[i]
    for b in range(config.depth):
        for name in ("x", "q", "k", "v", "attn", "mlp_in"):
            counts[f"block.{b}.{name}"] = config.tokens * config.embed_dim
        counts[f"block.{b}.hidden"] = config.tokens * config.hidden_dim
    return counts


def memory(config: NetworkConfig) -> dict[str, int]:
    """Bits that an inference holds.

    Returns
    -------
    dict
        ``weights`` (all layers at `weight_bits`), ``spikes_largest`` (largest spike map over all T steps),
        ``spikes_total`` (all spike maps over all T steps), ``image`` (input bytes),
        ``residual_values`` (number of U values over all T steps; their width follows from the weights).
    """
    spikes = [count * config.timesteps for count in neurons(config).values()]
    return {
        "weights": config.weight_bits
        * sum(math.prod(config.weight_shape(layer)) for layer in config.layer_names()),
        "spikes_largest": max(spikes),
        "spikes_total": sum(spikes),
        "image": 8 * config.image_height * config.image_width * config.image_channels,
        "residual_values": config.timesteps * config.tokens * config.embed_dim,
    }
