"""Which memory a layer reads and writes how often for an image, exactly, and how many additions it makes.

The counts follow from the layer program and a golden trace, as the cycles of `cycles` do; nothing is
simulated. They are those of the enables at the memories' ports: a test counts these in the simulated hardware
and demands equality. Memories have the names of `memory_plan`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from s2tdpt.hw.attention import attention_of
from s2tdpt.hw.attention.latency import straddles
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.store import Hold, counts_spikes
from s2tdpt.hw.blocks.images import tile_sizes
from s2tdpt.hw.blocks.residual import ROW_DEPTH
from s2tdpt.hw.blocks.totals import ROW_DEPTH as TOTALS_DEPTH
from s2tdpt.hw.bus.axi import REGISTER_SUBGROUPS
from s2tdpt.hw.estimate.cycles import read_words, spikes_by_head
from s2tdpt.hw.plan.program import Program, Sink, Source, Step
from s2tdpt.hw.plan.widths import Widths

__all__ = ["FRAME", "AccessCounter", "FrameAccesses"]

FRAME = "image"
"""What belongs to no layer: receiving the pixels and the weights."""


@dataclass
class FrameAccesses:
    """Accesses and additions of one image, or of several together.

    Attributes
    ----------
    reads, writes : Counter
        By (layer, memory): words read; parts of a word that were written (bytes of a pixel, pieces of
        spikes), whole words elsewhere. A layer is one of the network, ``block.{b}.attention``, or `FRAME`.
    additions : Counter
        By (layer, bits): integer additions of that width.
    """

    reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    writes: Counter[tuple[str, str]] = field(default_factory=Counter)
    additions: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, other: FrameAccesses) -> None:
        """Add the counts of more images."""
        self.reads += other.reads
        self.writes += other.writes
        self.additions += other.additions

    def memory(self, name: str) -> tuple[int, int]:
        """Reads and writes of a memory by all layers."""
        return tuple(
            sum(count for (_, memory), count in counts.items() if memory == name)
            for counts in (self.reads, self.writes)
        )


class AccessCounter:
    """Counts images on one machine.

    Parameters
    ----------
    program : Program
    widths : Widths
    """

    def __init__(self, program: Program, widths: Widths):
        self._program, self._widths = program, widths
        self._heads = HeadSizes(program)
        self._attention_hardware = hardware = attention_of(program)
        self._unfinished = straddles(program) and counts_spikes(hardware.ports)

    def frame(self, trace: Mapping[str, np.ndarray]) -> FrameAccesses:
        """Count one image.

        Parameters
        ----------
        trace : mapping
            As for `cycles.FrameModel.frame`: golden trace without the batch axis, and "pixels".
        """
        found = FrameAccesses()
        readings: dict[str, object] = {}
        for step in self._program.steps:
            key = step.layer if step.sink is not Sink.ATTENTION else step.reads
            if key not in readings:
                readings = {key: read_words(step, self._program, np.asarray(trace[step.reads]))}
            self._inputs(found, step, readings[key])
            self._outputs(found, step)
            for records in ("records of walks", "records of drains"):
                found.reads[step.layer, records] += 1
        for block in range(self._program.network.depth):
            self._attention(found, trace, block)
        self._frame(found)
        return found

    def _inputs(self, found: FrameAccesses, step: Step, reading) -> None:
        """Words, queues, weight rows and their additions; constants and planes of every pass."""
        net, machine, layer = self._program.network, self._program.machine, step.layer
        words = len(reading.counts)
        if step.source is Source.SPIKES:
            found.reads[layer, "spikes"] += words
        elif step.source is Source.PIXELS:
            # A column of three for every position, without what lies outside of the map.
            found.reads[layer, "pixels"] += net.image_width * (3 * net.image_height - 2)
        else:
            index = np.tile(np.arange(step.packing_in.groups), step.passes)
            self._totals(found.reads, layer, "totals of the head", index)
        queued = int(((reading.counts > 0) | reading.last[:, None]).sum())
        found.reads[layer, "queues"] += queued
        found.writes[layer, "queues"] += queued
        # Every group of lanes reads its own memory, whether the tile has channels there or not.
        found.reads[layer, "weights"] += reading.events * machine.subgroups
        found.additions[layer, self._widths.accumulator] += reading.spikes * step.channels
        pieces = step.positions * step.passes * step.subgroups(machine)
        found.reads[layer, "constants"] += pieces
        if step.source is not Source.SPIKES:
            self._planes(found, step)

    def _planes(self, found: FrameAccesses, step: Step) -> None:
        """Horner's sums over the planes of a number."""
        net, machine, layer = self._program.network, self._program.machine, step.layer
        if machine.subgroups > 1:
            index = np.tile(np.arange(step.subgroups(machine)), step.positions * step.passes)
            for counts in (found.reads, found.writes):
                _split(counts, layer, "totals of planes", index, machine.subgroups, TOTALS_DEPTH)
        numbers = step.positions * step.passes * step.channels
        found.additions[layer, self._widths.combined] += numbers * net.timesteps

    def _totals(self, counts: Counter, layer: str, name: str, index: np.ndarray) -> None:
        depth = self._program.residual_pieces
        if depth > 1:
            _split(counts, layer, name, index, depth, TOTALS_DEPTH)

    def _outputs(self, found: FrameAccesses, step: Step) -> None:
        """Behind the sums: bias, U, neurons, pool, spikes, head sums."""
        net, machine, layer = self._program.network, self._program.machine, step.layer
        pieces, values = step.subgroups(machine), step.positions * step.channels * net.timesteps
        found.additions[layer, self._widths.value] += values
        if step.sink is Sink.LOGITS:
            if -(-net.num_classes // machine.post_lanes) > REGISTER_SUBGROUPS:
                for counts in (found.reads, found.writes):
                    counts[layer, "logits"] += pieces
            return
        if step.sink is Sink.RESIDUAL:
            self._stream(found, step, pieces)
            if not step.first_writer:
                found.additions[layer, self._widths.value] += values
        if step.sink is not Sink.RESIDUAL or step.writes_spikes:
            additions = self._program.laws[step.law].additions
            found.additions[layer, self._widths.membrane] += additions * values
        if step.sink is Sink.ATTENTION:
            self._projection(found, step, pieces)
        elif step.writes_spikes:
            self._spikes(found, step, pieces)

    def _stream(self, found: FrameAccesses, step: Step, pieces: int) -> None:
        """U, and its sums for the head."""
        net, layer, row = self._program.network, step.layer, self._program.residual_pieces
        first = step.group * self._program.machine.subgroups
        piece = np.tile(np.arange(first, first + pieces), step.positions)
        address = np.repeat(np.arange(step.positions), pieces) * row + piece
        for counts, wanted in ((found.writes, True), (found.reads, not step.first_writer)):
            if wanted:
                _split(counts, layer, "residual U", address, net.tokens * row, ROW_DEPTH)
        if step.sums_head:
            for counts in (found.reads, found.writes):
                self._totals(counts, layer, "totals of the head", piece)
            sums = step.positions * step.channels * net.timesteps
            found.additions[layer, self._widths.head_sum] += sums

    def _spikes(self, found: FrameAccesses, step: Step, pieces: int) -> None:
        """Pieces of spikes, and the clearing of what lies behind the last one in a position's last word."""
        layer, positions = step.layer, step.positions
        if step.pooled:
            columns, rows = -(-step.width // 2), -(-step.height // 2)
            for counts in (found.reads, found.writes):
                counts[layer, "pool, a row"] += step.height * columns * pieces
                if self._program.machine.subgroups > 1:
                    counts[layer, "pool, a window"] += positions * pieces
            positions = rows * columns
        last = step.group == step.packing_out.groups - 1
        written = self._program.machine.subgroups if last else pieces
        found.writes[layer, "spikes"] += positions * written

    def _projection(self, found: FrameAccesses, step: Step, pieces: int) -> None:
        """Pieces of q, k and v into the head store."""
        parts, first = self._heads.parts, step.group * self._program.machine.subgroups
        closed = sum((piece + 1) % parts == 0 for piece in range(first, first + pieces))
        if self._unfinished:
            for counts in (found.reads, found.writes):
                counts[step.layer, "unfinished counts"] += step.positions * pieces
        for fields in self._attention_hardware.ports.values():
            for projection, hold in fields.values():
                if projection == step.projection:
                    written = pieces if hold is Hold.SPIKES else closed
                    name = f"{hold.value} of {'qkv'[projection]}"
                    found.writes[step.layer, name] += step.positions * written

    def _attention(self, found: FrameAccesses, trace: Mapping[str, np.ndarray], block: int) -> None:
        """The passes over every head, the neurons, and the block's output."""
        net, sizes, layer = self._program.network, self._heads, f"block.{block}.attention"
        for head in spikes_by_head(self._program, trace, block):
            mine = self._attention_hardware.head_accesses(self._program, self._widths, *head)
            found.reads += Counter({(layer, name): count for name, count in mine.reads.items()})
            found.writes += Counter({(layer, name): count for name, count in mine.writes.items()})
            found.additions += Counter({(layer, bits): count for bits, count in mine.additions.items()})
        if not net.attention.binary:  # spikes need no neurons
            outputs = net.tokens * net.embed_dim * net.timesteps
            additions = self._program.attention_laws[block].additions
            found.additions[layer, self._widths.attention_membrane] += additions * outputs
        packing = self._program.head_packing
        subgroups = self._program.machine.subgroups
        unused = packing.groups * subgroups - net.heads * sizes.parts  # pieces of the last word
        found.writes[layer, "spikes"] += net.tokens * (net.heads * sizes.parts + unused)

    def _frame(self, found: FrameAccesses) -> None:
        """Pixels as they come, weights where they are streamed, logits."""
        net, machine = self._program.network, self._program.machine
        found.writes[FRAME, "pixels"] += net.image_height * net.image_width * net.image_channels
        if machine.weight_memory == "stream":
            sizes = tile_sizes(self._program)
            rows = sum(size.rows for size in sizes) * machine.banks
            found.writes[FRAME, "weights"] += rows * machine.subgroups
            found.writes[FRAME, "constants"] += sum(size.constants for size in sizes)


def _split(counts: Counter, layer: str, name: str, index: np.ndarray, depth: int, row: int) -> None:
    """Count words of a memory that is made of rows of `row` words, the last one with what is left."""
    full = depth // row * row
    inside = int((index < full).sum())
    if inside:
        counts[layer, name] += inside
    if len(index) > inside:
        counts[layer, f"{name}, rest" if full else name] += len(index) - inside
