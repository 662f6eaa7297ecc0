"""Names, order and shapes of everything that the integer models record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.layers import HEAD_SUM, Attention, Layer, StreamNeurons
from s2tdpt.golden.operand import BINARY, Operand


@dataclass(frozen=True)
class Trace:
    """One recorded tensor.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Without the batch axis: ``(T, N, C)`` with N the positions of the map in raster order, ``(D,)`` for
        ``head.sum``, ``(classes,)`` for ``head.logits``, ``()`` for ``head.class``.
    spikes : bool
        Whether it holds spikes (0 or 1), or what other neurons emit in their place.
    size : (int, int) or None
        Height and width of its map; None for the head's.
    stride : int
        Pixels of the image between neighbouring positions of the map.
    block : int or None
        Number of its encoder block; None for the stem's and the head's.
    emits : Operand
        Of `spikes`: which numbers they are.
    """

    name: str
    shape: tuple[int, ...]
    spikes: bool = False
    size: tuple[int, int] | None = None
    stride: int = 1
    block: int | None = None
    emits: Operand = BINARY

    @property
    def dtype(self) -> str:
        """Name of the type in which the integer models give it, numpy's and torch's."""
        return self.emits.dtype if self.spikes else "int64"

    @property
    def head(self) -> bool:
        """Whether it is one of the head's, without axes of time and position."""
        return self.size is None


@lru_cache(maxsize=256)
def traces(config: NetworkConfig) -> Mapping[str, Trace]:
    """Every trace of a network by name, in network order."""
    found: list[Trace] = []
    stride, size = 1, config.map_size(0)

    def put(name: str, channels: int, spikes: bool, block: int | None, emits: Operand = BINARY) -> None:
        shape = (config.timesteps, size[0] * size[1], channels)
        found.append(Trace(name, shape, spikes, size, stride, block, emits))

    for part in config.parts():
        match part:
            case Layer(head=True):
                found.append(Trace(HEAD_SUM, (part.inputs,)))
                found.append(Trace(part.writes, (part.outputs,)))
                found.append(Trace("head.class", ()))
            case Layer():
                size = part.size
                if part.pools is not None:
                    stride *= 2
                    put(part.reads, part.inputs, True, None)
                put(part.writes, part.outputs, part.lif_fed, part.block, part.emits)
            case Attention():
                put(part.sums, part.channels, False, part.index)
                put(part.writes, part.channels, True, part.index)
            case StreamNeurons():
                put(part.writes, part.channels, True, part.index)
    return MappingProxyType({trace.name: trace for trace in found})


def trace_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every trace without the batch axis, in network order."""
    return {name: trace.shape for name, trace in traces(config).items()}


def trace_names(config: NetworkConfig) -> tuple[str, ...]:
    """Names of all traces in network order."""
    return tuple(traces(config))


def spike_traces(config: NetworkConfig) -> tuple[str, ...]:
    """Names of the traces that hold spikes, in network order."""
    return tuple(name for name, trace in traces(config).items() if trace.spikes)
