"""The parts of a network in the order of their evaluation, as records: what each reads, computes and writes.

Whoever walks over a network (the integer models, the proofs, the cost counts, training, the hardware's layer
program) reads these records; nobody takes a name apart. Names serve as keys alone: of tensors in the
parameter file (a layer's name) and of traces (what a part reads and writes, see `golden.trace`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from s2tdpt.golden.operand import BINARY, Operand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from s2tdpt.golden.config import NetworkConfig

PIXELS = "pixels"
"""What the first convolution reads: the centred bytes of the image, the same at every step."""
HEAD_SUM = "head.sum"
"""What the head reads: U summed over time and tokens."""
BLOCK_TRACES = ("x", "q", "k", "v", "y", "attn", "u_attn", "mlp_in", "hidden", "u")
"""Last parts of the names of a block's traces, in network order; q, k and v where the attention has them."""


class Kind(StrEnum):
    """What a layer with weights is in the network."""

    CONVOLUTION = "convolution"
    Q = "q"
    K = "k"
    V = "v"
    PROJECTION = "proj"
    FC1 = "fc1"
    FC2 = "fc2"
    HEAD = "head"


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes
    ----------
    name : str
        ``sps.{i}``, ``block.{b}.q`` ..., ``head``: prefix of its tensors in the parameter file.
    kind : Kind
    index : int
        Number of the stem convolution or of the block; 0 for the head.
    inputs, outputs : int
        Channels.
    kernel : {1, 3}
        Width and height of the kernel; 3 comes with a border of zeros, stride 1.
    size : (int, int)
        Height and width of the map on whose every position it is evaluated; (1, 1) for the head.
    reads : str
        Trace that drives it, or `PIXELS`.
    pools : str or None
        Trace whose OR-pool is `reads`; None where no pool stands before the layer.
    writes : str
        Trace of the spikes of its neurons; of the stream U behind it (writers); of the logits (head).
    writer : bool
        Whether its sums are added to the residual stream: the last stem convolution, proj and fc2.
    emits : Operand
        What its neurons hand on, where it has some. Other numbers than spikes have neurons of their own
        (`golden.neuron.prescribed`), whatever those of the network are.
    """

    name: str
    kind: Kind
    index: int
    inputs: int
    outputs: int
    kernel: int
    size: tuple[int, int]
    reads: str
    writes: str
    writer: bool = False
    pools: str | None = None
    emits: Operand = BINARY

    @property
    def stem(self) -> bool:
        """Whether it is a convolution of the stem."""
        return self.kind is Kind.CONVOLUTION

    @property
    def head(self) -> bool:
        """Whether it is the classification head."""
        return self.kind is Kind.HEAD

    @property
    def block(self) -> int | None:
        """Number of its encoder block; None in the stem and for the head."""
        return None if self.stem or self.head else self.index

    @property
    def lif_fed(self) -> bool:
        """Whether its sums drive neurons of its own, with a threshold for every output channel."""
        return not self.writer and not self.head

    @property
    def reads_pixels(self) -> bool:
        """Whether it is the first convolution."""
        return self.reads == PIXELS

    @property
    def spike_driven(self) -> bool:
        """Whether its input is spikes: everything but the first convolution and the head."""
        return not self.reads_pixels and not self.head

    @property
    def starts_stream(self) -> bool:
        """Whether it is the writer that initialises U instead of adding to it."""
        return self.writer and self.stem

    @property
    def float_bias(self) -> bool:
        """Whether it has a bias of its own in the float network, beside that of the batch normalisation."""
        return self.kind in (Kind.PROJECTION, Kind.FC1, Kind.FC2, Kind.HEAD)

    @property
    def positions(self) -> int:
        """Places at which it is evaluated in a time step."""
        return math.prod(self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """``(Co, Ci, 3, 3)`` or ``(Co, Ci)``."""
        taps = (self.kernel, self.kernel) if self.stem else ()
        return (self.outputs, self.inputs, *taps)

    @property
    def weights(self) -> int:
        """Number of weights."""
        return math.prod(self.weight_shape)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one time step, the border's zeros counted."""
        return self.positions * self.weights


@dataclass(frozen=True)
class Attention:
    """The attention of a block and its neurons.

    Attributes
    ----------
    index : int
        Number of the block.
    heads, head_dim, tokens : int
    q, k, v : str or None
        Traces of the spikes it reads; None where its mechanism has no such projection.
    sums, writes : str
        Traces of Y (in the mechanism's unit) and of the spikes of the attention neurons.
    """

    index: int
    heads: int
    head_dim: int
    tokens: int
    q: str | None
    k: str | None
    v: str | None
    sums: str
    writes: str

    @property
    def reads(self) -> tuple[str, ...]:
        """Traces of the projections that exist, in network order."""
        return tuple(name for name in (self.q, self.k, self.v) if name is not None)

    @property
    def channels(self) -> int:
        """D."""
        return self.heads * self.head_dim


@dataclass(frozen=True)
class StreamNeurons:
    """Neurons that read the residual stream: the input of q, k, v, or that of fc1.

    Attributes
    ----------
    index : int
        Number of the block.
    channels, tokens : int
    reads, writes : str
        Traces of U and of the spikes.
    """

    index: int
    channels: int
    tokens: int
    reads: str
    writes: str


Part = Layer | Attention | StreamNeurons


@lru_cache(maxsize=256)
def parts_of(config: NetworkConfig) -> tuple[Part, ...]:
    """All parts of the network, in the order of their evaluation."""
    parts: list[Part] = []
    reads, inputs = PIXELS, config.image_channels
    for i, channels in enumerate(config.sps_channels):
        last = i + 1 == config.sps_depth
        pools, reads = (reads, f"sps.{i}.pooled") if config.sps_pool[i] else (None, reads)
        writes = "sps.u" if last else f"sps.{i}.spikes"
        size = config.map_size(i)
        kind = Kind.CONVOLUTION
        parts.append(Layer(f"sps.{i}", kind, i, inputs, channels, 3, size, reads, writes, last, pools))
        reads, inputs = writes, channels
    stream = writes
    for b in range(config.depth):
        parts += _block(config, b, stream)
        stream = f"block.{b}.u"
    parts.append(
        Layer("head", Kind.HEAD, 0, config.embed_dim, config.num_classes, 1, (1, 1), HEAD_SUM, "head.logits")
    )
    return tuple(parts)


def _block(config: NetworkConfig, b: int, stream: str) -> list[Part]:
    """Parts of encoder block `b`, which reads the trace `stream` of U."""
    d, hidden, n, size = config.embed_dim, config.hidden_dim, config.tokens, config.map_size(-1)
    trace = {part: f"block.{b}.{part}" for part in BLOCK_TRACES}

    def layer(kind: Kind, inputs: int, outputs: int, reads: str, writes: str, **more: object) -> Layer:
        name = f"block.{b}.{kind}"
        return Layer(name, kind, b, inputs, outputs, 1, size, trace[reads], trace[writes], **more)

    projections, operand = config.attention.projections, config.attention.operand
    reads = (trace[kind] if kind in projections else None for kind in (Kind.Q, Kind.K, Kind.V))
    return [
        StreamNeurons(b, d, n, stream, trace["x"]),
        *(layer(kind, d, d, "x", kind, emits=operand(kind)) for kind in projections),
        Attention(b, config.heads, config.head_dim, n, *reads, trace["y"], trace["attn"]),
        layer(Kind.PROJECTION, d, d, "attn", "u_attn", writer=True),
        StreamNeurons(b, d, n, trace["u_attn"], trace["mlp_in"]),
        layer(Kind.FC1, d, hidden, "mlp_in", "hidden"),
        layer(Kind.FC2, hidden, d, "hidden", "u", writer=True),
    ]


@lru_cache(maxsize=256)
def layers_of(config: NetworkConfig) -> tuple[Layer, ...]:
    """The layers with weights, in network order."""
    return tuple(part for part in parts_of(config) if isinstance(part, Layer))


@lru_cache(maxsize=256)
def layer_table(config: NetworkConfig) -> Mapping[str, Layer]:
    """`layers_of` by name."""
    return MappingProxyType({layer.name: layer for layer in layers_of(config)})
