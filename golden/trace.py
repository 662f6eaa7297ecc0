"""Names, order and shapes of everything that :meth:`golden.network.GoldenNetwork.trace` records."""

from __future__ import annotations

from golden.config import NetworkConfig

BINARY = ("spikes", "pooled", "x", "q", "k", "v", "attn", "mlp_in", "hidden")


def trace_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every trace without the batch axis, in network order.

    Maps and streams are ``(T, N, C)`` with N the positions of the map in raster order; ``head.sum`` is
    ``(D,)``, ``head.logits`` is ``(classes,)`` and ``head.class`` is ``()``.
    """
    steps, n, d = config.timesteps, config.tokens, config.embed_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for i, channels in enumerate(config.sps_channels):
        h, w = config.map_size(i)
        if config.sps_pool[i]:
            shapes[f"sps.{i}.pooled"] = (steps, h * w, config.sps_channels[i - 1])
        if i + 1 < config.sps_depth:
            shapes[f"sps.{i}.spikes"] = (steps, h * w, channels)
    shapes["sps.u"] = (steps, n, d)
    for b in range(config.depth):
        for name in ("x", "q", "k", "v", "y", "attn", "u_attn", "mlp_in", "hidden", "u"):
            shapes[f"block.{b}.{name}"] = (steps, n, config.hidden_dim if name == "hidden" else d)
    shapes["head.sum"] = (d,)
    shapes["head.logits"] = (config.num_classes,)
    shapes["head.class"] = ()
    return shapes


def trace_names(config: NetworkConfig) -> tuple[str, ...]:
    """Names of all traces in network order."""
    return tuple(trace_shapes(config))


def is_binary(name: str) -> bool:
    """Whether the trace `name` holds spikes (0 or 1)."""
    return name.rpartition(".")[2] in BINARY
