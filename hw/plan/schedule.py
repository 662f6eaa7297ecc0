"""From a network and a machine to the layer program: which tile runs when, where tensors and weights lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.layers import Attention, StreamNeurons
from s2tdpt.golden.neuron import Law
from s2tdpt.golden.operand import LEVELS
from s2tdpt.golden.params import Params
from s2tdpt.hw.plan.layout import Packing, Regions
from s2tdpt.hw.plan.machine import PIXEL_BITS, Machine
from s2tdpt.hw.plan.program import (
    PROJECTIONS,
    WINDOW,
    Port,
    Program,
    Sink,
    Source,
    Step,
    Trace,
    window_packing,
)

__all__ = ["build_program", "program_of"]


def program_of(params: Params, machine: Machine, head_sum_bits: int) -> Program:
    """The program of a parameter file: with the laws that its neurons have learned.

    Parameters
    ----------
    head_sum_bits : int
        Proven signed width of the head sums (`widths.Widths.head_sum`).
    """
    return build_program(params.config, machine, head_sum_bits, params.laws)


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
    chosen = []
    for step in steps:
        writes = network.layer(step.layer).writes
        spikes = readers.get(writes) if step.sink is Sink.RESIDUAL else writes
        if spikes in laws:  # nothing fires behind the last block, nor behind the head
            forms.setdefault(laws[spikes].form, laws[spikes])
        chosen.append(laws.get(spikes))
    followed = sorted(forms.values(), key=lambda law: law.emits == LEVELS)  # which have no membrane
    numbers = {law.form: number for number, law in enumerate(followed)}
    numbered = [
        step if law is None else replace(step, law=numbers[law.form])
        for step, law in zip(steps, chosen, strict=True)
    ]
    return numbered, tuple(followed)
