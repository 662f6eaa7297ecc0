"""The layer program: what the machine does for one image, tile by tile.

`build_program` turns a network and a machine into a list of steps, each of which computes one *tile*: a group
of `lanes` output channels of one layer, at all its positions. `core` executes exactly this list, `images`
lays out the weights by it, `cycles` counts it and the co-simulation reads from it where every tensor lies, so
that none of them can drift from the others. What a step waits for is written into it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.layers import Attention, Kind, StreamNeurons
from s2tdpt.golden.neuron import LIF, Law
from s2tdpt.hw.layout import Packing, Regions
from s2tdpt.hw.machine import PIXEL_BITS, Machine

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
        What the neurons behind the steps do, one of every form.
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


def build_program(
    network: NetworkConfig,
    machine: Machine,
    head_sum_bits: int,
    laws: Mapping[str, Law] | None = None,
) -> Program:
    """Schedule `network` on `machine`.

    Parameters
    ----------
    head_sum_bits : int
        Proven signed width of the head sums (`golden.bounds`), which sets their passes.
    laws : mapping of str to Law, optional
        Of the parameters, by the trace of the spikes; those that training begins with. No cycle depends on
        them.
    """
    steps = network.timesteps
    pixel_passes, head_passes = -(-PIXEL_BITS // steps), -(-head_sum_bits // steps)
    builder = _Builder(network, machine)
    builder.stem(pixel_passes)
    for block in range(network.depth):
        builder.block(block)
    builder.head(head_passes)
    placed, words = builder.place()
    laid, rows, consts = _lay_out_weights(placed, machine)
    laws = network.neuron.initial_laws(network) if laws is None else laws
    laid, followed = _number_laws(laid, network, laws)
    return Program(
        network=network,
        machine=machine,
        steps=tuple(laid),
        spike_words=words,
        rows=rows,
        const_words=consts,
        max_tile_rows=max(step.tile_rows(machine) for step in laid),
        pixel_passes=pixel_passes,
        head_passes=head_passes,
        laws=followed,
        attention_laws=tuple(laws[p.writes] for p in network.parts() if isinstance(p, Attention)),
    )


@dataclass
class _Tensor:
    """A spike tensor in memory: who writes it first and who reads it last, as steps."""

    words: int
    first: int
    last: int = -1


@dataclass
class _Builder:
    """Collects steps in program order; spike tensors have names until `place` gives them addresses."""

    net: NetworkConfig
    machine: Machine
    steps: list[tuple[Step, str | None, str | None]] = field(default_factory=list)  # step, reads, writes
    tensors: dict[str, _Tensor] = field(default_factory=dict)
    ready: dict[str, int] = field(default_factory=dict)  # tensor -> step that completes it

    def layer(
        self,
        tile: Step,
        *,
        reads: str | None = None,
        writes: str | None = None,
        words: int = 0,
        groups: range | None = None,
    ) -> None:
        """Append the tiles of a layer; `tile` holds what they have in common."""
        for group in groups or range(tile.packing_out.groups):
            index = len(self.steps)
            if reads is not None:
                self.tensors[reads].last = index
            if writes is not None:
                self.tensors.setdefault(writes, _Tensor(words, index))
            after = self.ready.get(reads, -1)
            self.steps.append((replace(tile, group=group, after=after), reads, writes))
        if writes is not None:
            self.ready[writes] = len(self.steps) - 1

    def stem(self, passes: int) -> None:
        net, lanes = self.net, self.machine.lanes
        reads, previous = "pixels", None
        for i, channels in enumerate(net.sps_channels):
            height, width = net.map_size(i)
            last = i == net.sps_depth - 1
            pooled = not last and net.sps_pool[i + 1]
            packing = Packing(channels, lanes)
            map_out = net.map_size(i + 1) if pooled else (height, width)
            tensor = "block.0.x" if last else f"sps.{i + 1}.pooled" if pooled else f"sps.{i}.spikes"
            tile = Step(
                layer=f"sps.{i}",
                group=0,
                source=Source.SPIKES if i else Source.PIXELS,
                sink=Sink.RESIDUAL if last else Sink.SPIKES,
                height=height,
                width=width,
                kernel=WINDOW if i else 1,
                packing_in=Packing(net.sps_channels[i - 1], lanes)
                if i
                else window_packing(net, self.machine),
                packing_out=packing,
                reads=reads,
                passes=1 if i else passes,
                pooled=pooled,
                first_writer=last,
                traces=self.stem_traces(i, packing, pooled, map_out[0] * map_out[1]),
            )
            words = map_out[0] * map_out[1] * packing.groups
            self.layer(tile, reads=previous, writes=tensor, words=words)
            reads = previous = tensor

    def stem_traces(self, i: int, packing: Packing, pooled: bool, pooled_positions: int) -> tuple[Trace, ...]:
        height, width = self.net.map_size(i)
        positions = height * width
        if i == self.net.sps_depth - 1:
            return (
                Trace("sps.u", Port.RESIDUAL, positions, packing),
                Trace("block.0.x", Port.PIECE, positions, packing),
            )
        spikes = Trace(f"sps.{i}.spikes", Port.PIECE, positions, packing)
        pool = Trace(f"sps.{i + 1}.pooled", Port.WRITE, pooled_positions, packing)
        return (spikes, pool) if pooled else (spikes,)

    def block(self, b: int) -> None:
        net, lanes = self.net, self.machine.lanes
        name, n, last = f"block.{b}", net.tokens, b == net.depth - 1
        plain, hidden = Packing(net.embed_dim, lanes), Packing(net.hidden_dim, lanes)
        heads = Packing(net.embed_dim, lanes, net.head_dim, self.machine.post_lanes)
        linear = Step(
            layer="",
            group=0,
            source=Source.SPIKES,
            sink=Sink.SPIKES,
            height=1,
            width=n,
            kernel=1,
            packing_in=plain,
            packing_out=plain,
            reads="",
        )
        self.projections(b, replace(linear, sink=Sink.ATTENTION, packing_out=heads, reads=f"{name}.x"))
        proj = replace(
            linear,
            layer=f"{name}.proj",
            sink=Sink.RESIDUAL,
            packing_in=heads,
            reads=f"{name}.attn",
            after_attention=b + 1,
            traces=(
                Trace(f"{name}.u_attn", Port.RESIDUAL, n, plain),
                Trace(f"{name}.mlp_in", Port.PIECE, n, plain),
            ),
        )
        self.layer(proj, reads=f"{name}.attn", writes=f"{name}.mlp_in", words=n * plain.groups)
        fc1 = replace(
            linear,
            layer=f"{name}.fc1",
            packing_out=hidden,
            reads=f"{name}.mlp_in",
            traces=(Trace(f"{name}.hidden", Port.PIECE, n, hidden),),
        )
        self.layer(fc1, reads=f"{name}.mlp_in", writes=f"{name}.hidden", words=n * hidden.groups)
        following = f"block.{b + 1}.x"
        u = Trace(f"{name}.u", Port.RESIDUAL, n, plain)
        fc2 = replace(
            linear,
            layer=f"{name}.fc2",
            sink=Sink.RESIDUAL,
            packing_in=hidden,
            reads=f"{name}.hidden",
            writes_spikes=not last,
            sums_head=last,
            traces=(u,) if last else (u, Trace(following, Port.PIECE, n, plain)),
        )
        writes = None if last else following
        self.layer(fc2, reads=f"{name}.hidden", writes=writes, words=n * plain.groups)

    def projections(self, b: int, tile: Step) -> None:
        """Those of q, k and v that exist, group by group: a head's attention goes on beside them."""
        name, packing = f"block.{b}", tile.packing_out
        n, lanes, kinds = self.net.tokens, self.machine.lanes, self.net.attention.projections
        first = len(self.steps)
        for group in range(packing.groups):
            complete = min(self.net.heads, (group + 1) * lanes // packing.head_slots)
            for kind in kinds:
                step = replace(
                    tile,
                    layer=f"{name}.{kind}",
                    projection=PROJECTIONS.index(kind),
                    heads_ready=complete if kind == kinds[-1] else 0,
                    traces=(Trace(f"{name}.{kind}", Port.PIECE, n, packing),),
                )
                self.layer(step, reads=f"{name}.x", groups=range(group, group + 1))
        # The attention may write from the first of these steps on.
        attn = f"{name}.attn"
        self.tensors[attn] = _Tensor(n * packing.groups, first)
        for index in range(first, len(self.steps)):
            step, reads, _ = self.steps[index]
            y = Trace(f"{name}.y", Port.Y, n, packing)
            out = Trace(attn, Port.WRITE, n, packing)
            last = index == len(self.steps) - 1
            traces = (*step.traces, y, out) if last else step.traces
            self.steps[index] = (replace(step, traces=traces), reads, attn)

    def head(self, passes: int) -> None:
        net, machine = self.net, self.machine
        tile = Step(
            layer="head",
            group=0,
            source=Source.HEAD_SUM,
            sink=Sink.LOGITS,
            height=1,
            width=1,
            kernel=1,
            packing_in=Packing(net.embed_dim, machine.post_lanes),
            packing_out=Packing(net.num_classes, machine.lanes),
            reads="head.sum",
            passes=passes,
            writes_spikes=False,
        )
        self.ready["head.sum"] = len(self.steps) - 1
        after = len(self.steps) - 1
        for group in range(tile.packing_out.groups):
            self.steps.append((replace(tile, group=group, after=after), None, None))

    def place(self) -> tuple[list[Step], int]:
        """Steps with addresses, and the depth of the spike memory."""
        regions = Regions()
        base = {
            name: regions.place(tensor.words, tensor.first, max(tensor.last, tensor.first))
            for name, tensor in sorted(self.tensors.items(), key=lambda item: item[1].first)
        }
        placed = []
        for step, reads, writes in self.steps:
            dst = base[writes] if writes else 0
            traces = tuple(replace(t, base=base[t.tensor]) if t.tensor in base else t for t in step.traces)
            placed.append(replace(step, src_base=base[reads] if reads else 0, dst_base=dst, traces=traces))
        return placed, max(2, regions.depth)


def _lay_out_weights(steps: list[Step], machine: Machine) -> tuple[list[Step], int, int]:
    """Number the weight rows and constant words in program order."""
    rows = consts = 0
    laid = []
    for step in steps:
        laid.append(replace(step, tile_base=rows, const_base=consts))
        rows += step.tile_rows(machine)
        consts += step.subgroups(machine)
    return laid, rows, consts


def _number_laws(
    steps: list[Step], network: NetworkConfig, laws: Mapping[str, Law]
) -> tuple[list[Step], tuple[Law, ...]]:
    """Say which law the neurons behind every step follow, and which laws there are."""
    readers = {part.reads: part.writes for part in network.parts() if isinstance(part, StreamNeurons)}
    forms: dict[tuple, Law] = {}
    numbered = []
    for step in steps:
        writes = network.layer(step.layer).writes
        spikes = readers.get(writes) if step.sink is Sink.RESIDUAL else writes
        if spikes in laws:  # nothing fires behind the last block, nor behind the head
            form = laws[spikes].form
            forms.setdefault(form, laws[spikes])
            step = replace(step, law=list(forms).index(form))
        numbered.append(step)
    return numbered, tuple(forms.values())
