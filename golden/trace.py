"""Names, order and shapes of everything that :meth:`golden.network.GoldenNetwork.trace` records."""

from __future__ import annotations

from s2tdpt.golden.config import NetworkConfig

BLOCK_TRACES = ("x", "q", "k", "v", "y", "attn", "u_attn", "mlp_in", "hidden", "u")
HEAD_TRACES = ("sum", "logits", "class")
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
        for name in BLOCK_TRACES:
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


def network_order(name: str) -> tuple[int, ...]:
    """Sorting key that puts trace names in network order; ValueError for a name that is none."""
    parts = name.split(".")
    if name == "sps.u":
        return (1,)
    if len(parts) == 3 and parts[0] == "sps" and parts[2] in ("pooled", "spikes"):
        return (0, int(parts[1]), parts[2] == "spikes")
    if len(parts) == 3 and parts[0] == "block" and parts[2] in BLOCK_TRACES:
        return (2, int(parts[1]), BLOCK_TRACES.index(parts[2]))
    if len(parts) == 2 and parts[0] == "head" and parts[1] in HEAD_TRACES:
        return (3, HEAD_TRACES.index(parts[1]))
    raise ValueError(f"'{name}' is not the name of a trace")
