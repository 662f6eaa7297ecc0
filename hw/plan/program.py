"""The layer program: what the machine does for one image, tile by tile.

A program is a list of steps, each of which computes one *tile*: a group of `lanes` output channels of one
layer, at all its positions; `schedule` makes it. `core` executes exactly this list, `images`
lays out the weights by it, `cycles` counts it and the co-simulation reads from it where every tensor lies, so
that none of them can drift from the others. What a step waits for is written into it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.neuron import LIF, Law
from s2tdpt.golden.operand import LEVELS
from s2tdpt.hw.plan.layout import Packing
from s2tdpt.hw.plan.machine import Machine

WINDOW = 3
"""Side of the window of a convolution."""
PROJECTIONS = (Kind.Q, Kind.K, Kind.V)
"""By number: `Step.projection`."""


class Source(enum.Enum):
    """What drives the sums of a step."""

    SPIKES = 0
    PIXELS = 1
    HEAD_SUM = 2


class Sink(enum.Enum):
    """What becomes of the sums of a step."""

    SPIKES = 0  # neurons, into the spike memory (possibly pooled)
    RESIDUAL = 1  # added to U; neurons on U
    ATTENTION = 2  # neurons, into the attention unit
    LOGITS = 3


class Port(enum.Enum):
    """Observation record that carries a golden tensor."""

    PIECE = "piece"  # spikes of a piece as the neurons emit them
    WRITE = "write"  # words written to the spike memory by pooling or attention
    RESIDUAL = "residual"
    Y = "y"


@dataclass(frozen=True)
class Trace:
    """Where a golden tensor can be observed while a step runs.

    Attributes
    ----------
    tensor : str
        Name in the golden trace.
    port : Port
    positions : int
    packing : Packing
    base : int
        First address (`Port.WRITE`).
    """

    tensor: str
    port: Port
    positions: int
    packing: Packing
    base: int = 0


@dataclass(frozen=True)
class Step:
    """One tile: `lanes` output channels of one layer at every position.

    Attributes
    ----------
    layer : str
        Weight layer, as in the parameter file.
    group : int
        Which `lanes` output slots.
    source, sink : Source, Sink
    height, width : int
        Grid of output positions; linear layers 1 x tokens, head 1 x 1.
    kernel : {1, 3}
        Side of the window of taps that the walk goes through. A window of pixels is one tap, whose channels
        `window.PixelWindow` puts side by side.
    packing_in, packing_out : Packing
        Slots of the inputs (words as they are read) and of the outputs.
    passes : int
        Times a position is read: T planes of a number at a time, the highest first; 1 for spikes.
    reads : str
        Golden tensor that drives it, "pixels" or "head.sum".
    src_base, dst_base : int
        Spike memory regions. `dst_base` of q, k and v is the region of the attention's output.
    pooled : bool
        The spikes are pooled on their way into the memory.
    first_writer, writes_spikes, sums_head : bool
        Residual sink: it initialises U; LIF(U) is wanted; U is summed for the head.
    projection : {0, 1, 2}
        Attention sink: q, k, v.
    heads_ready : int
        Heads whose q, k and v are all complete once this step is; attention sink.
    law : int
        Which of `Program.laws` its neurons follow.
    after : int
        Step that must be complete before this one may read; -1: none.
    after_attention : int
        Blocks whose attention must be complete before this step may read.
    tile_base, const_base : int
        First weight row and first constant word in the on-chip images.
    traces : tuple of Trace
    """

    layer: str
    group: int
    source: Source
    sink: Sink
    height: int
    width: int
    kernel: int
    packing_in: Packing
    packing_out: Packing
    reads: str
    passes: int = 1
    src_base: int = 0
    dst_base: int = 0
    pooled: bool = False
    first_writer: bool = False
    writes_spikes: bool = True
    sums_head: bool = False
    projection: int = 0
    heads_ready: int = 0
    law: int = 0
    after: int = -1
    after_attention: int = 0
    tile_base: int = 0
    const_base: int = 0
    traces: tuple[Trace, ...] = ()

    @property
    def name(self) -> str:
        """Layer and group, for people."""
        return f"{self.layer}[{self.group}]" if self.packing_out.groups > 1 else self.layer

    @property
    def positions(self) -> int:
        return self.height * self.width

    @property
    def lanes_used(self) -> int:
        """Output slots of this tile."""
        return self.packing_out.lanes_of(self.group)

    @property
    def channels(self) -> int:
        """Output channels of this tile: slots that hold one."""
        lanes = self.packing_out.lanes
        return int(((self.packing_out.slots() // lanes) == self.group).sum())

    @property
    def window_words(self) -> int:
        """Words that a window of pixels is read as before it moves on; 0: the step reads a memory."""
        return self.passes * self.packing_in.groups if self.source is Source.PIXELS else 0

    @property
    def stride(self) -> int:
        """Address step from one position to the next; a window of pixels moves by itself."""
        return 0 if self.window_words else self.packing_in.groups

    def subgroups(self, machine: Machine) -> int:
        """Pieces of `post_lanes` channels in this tile."""
        return -(-self.lanes_used // machine.post_lanes)

    def word_rows(self, machine: Machine) -> int:
        """Weight rows of a bank that belong to one full input word."""
        return -(-self.packing_in.lanes // machine.banks)

    def tap_rows(self, machine: Machine) -> int:
        """Weight rows of a bank that belong to one tap."""
        last = self.packing_in.lanes_of(self.packing_in.groups - 1)
        return (self.packing_in.groups - 1) * self.word_rows(machine) + -(-last // machine.banks)

    def tile_rows(self, machine: Machine) -> int:
        """Weight rows of a bank in this tile."""
        return self.kernel * self.kernel * self.tap_rows(machine)


@dataclass(frozen=True)
class Program:
    """The layer program of one network on one machine.

    Attributes
    ----------
    steps : tuple of Step
    spike_words : int
        Depth of the spike memory.
    rows, const_words : int
        Weight rows of a bank and constant words of the whole network.
    max_tile_rows : int
        Rows of the largest tile.
    pixel_passes, head_passes : int
        Passes of T planes over a pixel and over a head sum.
    laws : tuple of Law
        What the neurons behind the steps do, one of every form; the one that emits levels is the last.
    attention_laws : tuple of Law
        What those of the attention do, a law a block.
    """

    network: NetworkConfig
    machine: Machine
    steps: tuple[Step, ...]
    spike_words: int
    rows: int
    const_words: int
    max_tile_rows: int
    pixel_passes: int
    head_passes: int
    laws: tuple[Law, ...] = (LIF,)
    attention_laws: tuple[Law, ...] = ()

    @property
    def piece_bits(self) -> int:
        """Spikes of a piece: `post_lanes` channels at all time steps."""
        return self.machine.post_lanes * self.network.timesteps

    @property
    def has_levels(self) -> bool:
        """Whether the neurons of some step emit levels."""
        return self.laws[-1].emits == LEVELS

    @property
    def emitted_bits(self) -> int:
        """Bits of what a neuron emits in a step, wherever that is most."""
        return max(law.emits.bits for law in self.laws)

    @property
    def residual_pieces(self) -> int:
        """Pieces of a token of the residual stream."""
        return -(-self.network.embed_dim // self.machine.post_lanes)

    @property
    def window_packing(self) -> Packing:
        """Channels of a window of pixels."""
        return window_packing(self.network, self.machine)

    @property
    def head_packing(self) -> Packing:
        """Slots of q, k, v and of the attention's output."""
        net, machine = self.network, self.machine
        return Packing(net.embed_dim, machine.lanes, net.head_dim, machine.post_lanes)


def window_packing(network: NetworkConfig, machine: Machine) -> Packing:
    """Slots of a window of pixels: channel ``tap * C + c`` is channel c at a tap, taps row by row."""
    return Packing(WINDOW * WINDOW * network.image_channels, machine.lanes)
