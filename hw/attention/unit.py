"""What every attention unit has around its passes, and what the machine asks of an attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from amaranth import Module, Shape, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.accesses import HeadAccesses
from s2tdpt.hw.attention.latency import RateToLatency, unfinished_memories
from s2tdpt.hw.attention.neurons import HeadWriter, RowNeurons, y_shape_of
from s2tdpt.hw.attention.pieces import HeadPieces
from s2tdpt.hw.attention.reader import TokenRows
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.sequencer import HeadSequencer
from s2tdpt.hw.attention.store import Fields, HeadStore, counts_spikes, store_memories
from s2tdpt.hw.attention.timeline import attention_lead, timeline
from s2tdpt.hw.plan.memory import Memory
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import ProjectionPort, Sizes, SpikeWrite, bits_for

if TYPE_CHECKING:
    import numpy as np

    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.params import Params
    from s2tdpt.hw.plan.widths import Widths

__all__ = ["AttentionHardware", "AttentionUnit"]

Ports = Mapping[str, Fields]
"""Readers of the head store."""


class AttentionUnit(wiring.Component):
    """Attention of all heads of a block: base of all units.

    Common to them: the pieces of q, k and v go into a `HeadStore` of what the attention reads; a head begins
    as soon as it is complete, while those of later heads arrive; rows of ``Y``, a token and step each, go
    through the attention's neurons, and the spikes into the spike memory. A unit adds its passes.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    threshold : int
        Firing threshold of the attention neurons, in the units of ``Y``.
    y : Interval
        Proven ends of ``Y`` and its partial sums (`golden.bounds`).
    period : int or None
        As in `timeline.attention_lead`.

    Members
    -------
    projections : ``In(ProjectionPort(program, sizes))``
    write : ``Out(SpikeWrite(program, sizes))``
        The output in the head packing; slots without a channel get zeros.
    clear : ``In(1)``
        Pulse at the start of a frame, while nothing runs: `blocks` returns to 0.
    blocks : ``Out``
        Blocks of the frame whose output may be read. It counts `timeline.attention_lead` tokens before the
        last `write`.
    y_en : ``Out(1)``
        Observation: a row goes to the neurons.
    y_head, y_token, y_step : ``Out``
        Whose row it is.
    y_data : ``Out(ArrayLayout(y_shape, head_dim))``
        Its sums.
    """

    ports: ClassVar[Ports]

    def __init__(self, program: Program, sizes: Sizes, *, threshold: int, y: Interval, period: int | None):
        self._program, self._port_sizes = program, sizes
        self._sizes = heads = HeadSizes(program)
        self._y_shape = y_shape_of(y)
        self._lead = attention_lead(program, period)
        self._neurons = RowNeurons(program, threshold, y)
        super().__init__(
            {
                "projections": In(ProjectionPort(program, sizes)),
                "write": Out(SpikeWrite(program, sizes)),
                "clear": In(1),
                "blocks": Out(bits_for(program.network.depth)),
                "y_en": Out(1),
                "y_head": Out(heads.head),
                "y_token": Out(heads.token),
                "y_step": Out(heads.step),
                "y_data": Out(data.ArrayLayout(self._y_shape, heads.head_dim)),
            }
        )

    @property
    def y_shape(self) -> Shape:
        """Shape of one sum."""
        return self._y_shape

    @property
    def lead(self) -> int:
        """Tokens that are on their way when a block counts."""
        return self._lead

    def _sequencer(self) -> HeadSequencer:
        return HeadSequencer(self._program, self._port_sizes)

    def _reader(self, m: Module, store: HeadStore, sequencer: HeadSequencer, *, scans: bool) -> TokenRows:
        """Reader of the store's only port that takes a head from its beginning to its end.

        Without a first pass the second one begins with the head.
        """
        reader = TokenRows(self._program, self.ports["tokens"], scans)
        wiring.connect(m, store.tokens, reader.tokens)
        begin = reader.scan if scans else reader.emit
        m.d.comb += [
            reader.base.eq(sequencer.word),
            begin.eq(sequencer.scan),
            sequencer.emitted.eq(reader.emitted),
        ]
        return reader

    @abstractmethod
    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        """From `sequencer.scan` to `sequencer.emitted`; whether there is a row, and its sums."""

    def elaborate(self, platform):
        m = Module()
        pieces = RateToLatency if counts_spikes(self.ports) else HeadPieces
        m.submodules.counter = counter = pieces(self._program, self._port_sizes)
        m.submodules.store = store = HeadStore(self._program, self.ports)
        m.submodules.sequencer = sequencer = self._sequencer()
        wiring.connect(m, counter.write, store.write)
        wiring.connect(m, wiring.flipped(self.projections), counter.projections)
        m.d.comb += [
            sequencer.ready.eq(self.projections.ready),
            sequencer.heads.eq(self.projections.heads),
            sequencer.base.eq(self.projections.base),
        ]
        self._fire(m, *self._passes(m, store, sequencer), sequencer)
        return m

    def _fire(self, m: Module, row_en: Value, row: Value, sequencer: HeadSequencer) -> None:
        """The rows' way through the neurons into the spike memory."""
        m.submodules.neurons = neurons = self._neurons
        m.submodules.writer = writer = HeadWriter(self._program, self._port_sizes, self._lead)
        wiring.connect(m, neurons.word, writer.word)
        wiring.connect(m, writer.write, wiring.flipped(self.write))
        en, sums = Signal(), Signal(len(self.y_data.as_value()))
        m.d.sync += [en.eq(row_en), sums.eq(row)]
        m.d.comb += [
            neurons.en.eq(en),
            neurons.sums.eq(sums),
            writer.base.eq(sequencer.destination),
            writer.clear.eq(self.clear),
            self.blocks.eq(writer.blocks),
            self.y_en.eq(en),
            self.y_head.eq(neurons.head),
            self.y_token.eq(neurons.token),
            self.y_step.eq(neurons.step),
            self.y_data.eq(sums),
        ]


class AttentionHardware(ABC):
    """An attention in hardware: its unit, and how long it takes and what it keeps, without building it.

    Attributes
    ----------
    ports : mapping of str to Fields
        Readers of its head store.
    """

    ports: ClassVar[Ports]

    @abstractmethod
    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> AttentionUnit:
        """The unit of a network."""

    @abstractmethod
    def head_cycles(
        self, program: Program, q: np.ndarray | None, k: np.ndarray | None, v: np.ndarray | None
    ) -> int:
        """Cycles that a head keeps the unit busy, exact.

        From the cycle in which the head begins to the one in which the next head can, or, after a block's
        last head, `output_delay` cycles before the one after its last write.

        Parameters
        ----------
        q, k, v : array of {0, 1}, ``[T, N, d_h]``
            Of one head; None where the attention has no such projection.
        """

    @abstractmethod
    def output_delay(self, program: Program) -> int:
        """From the cycle after a block's last head to the one after its last write."""

    @abstractmethod
    def period(self, program: Program) -> int | None:
        """Cycles between the last pieces of two tokens of a head; None where they are not always the same."""

    @abstractmethod
    def head_accesses(
        self,
        program: Program,
        widths: Widths,
        q: np.ndarray | None,
        k: np.ndarray | None,
        v: np.ndarray | None,
    ) -> HeadAccesses:
        """Exact accesses of the memories and additions of a head, spikes as in `head_cycles`."""

    def own_memories(self, program: Program, bounds: Bounds) -> list[Memory]:
        """Memories of the passes."""
        return []

    def memories(self, program: Program, bounds: Bounds) -> list[Memory]:
        """All memories of the unit."""
        found = store_memories(program, self.ports) + self.own_memories(program, bounds)
        return found + (unfinished_memories(program) if counts_spikes(self.ports) else [])

    def timeline(
        self, ready: Sequence[int], cycles: Sequence[int], program: Program
    ) -> tuple[list[int], int]:
        """When the heads of a block begin, and the cycle in which `blocks` has counted the block.

        Parameters
        ----------
        ready : sequence of int
            For every head, the cycle of the `ready` pulse that completes it.
        cycles : sequence of int
            `head_cycles` of every head.
        """
        period = self.period(program)
        early = attention_lead(program, period) * (period or 0)
        return timeline(ready, cycles, self.output_delay(program) - early)
