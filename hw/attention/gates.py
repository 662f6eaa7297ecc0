"""Attentions that let spikes pass or not: gates of channels, or of tokens. No sums reach the neurons."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from amaranth import Module, Value
from amaranth.lib import data

from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.columns import ColumnGates, gate_delay, steps_of_word
from s2tdpt.hw.attention.reader import step_shift
from s2tdpt.hw.attention.records import HeadSizes, K, Q, V
from s2tdpt.hw.attention.sequencer import HeadSequencer
from s2tdpt.hw.attention.steady import SteadyHardware, SteadyUnit
from s2tdpt.hw.attention.store import Fields, HeadStore, Hold
from s2tdpt.hw.blocks.lif import LifCell
from s2tdpt.hw.blocks.neuron import membrane_interval
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes

if TYPE_CHECKING:
    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.params import Params

__all__ = ["ChannelGate", "QkcaHardware", "QktaHardware", "SdsaHardware", "TokenGate"]

SDSA: Fields = {"query": (Q, Hold.SPIKES), "key": (K, Hold.SPIKES), "value": (V, Hold.SPIKES)}
QKCA: Fields = {"query": (Q, Hold.SPIKES), "key": (K, Hold.SPIKES)}
QKTA: Fields = {"query": (Q, Hold.COUNTS), "key": (K, Hold.SPIKES)}


class _Gate(SteadyUnit):
    """Base: a gate's threshold beside that of the attention's neurons.

    Parameters
    ----------
    program, sizes, threshold, y
        As in `AttentionUnit`.
    gate_threshold : int
        Of the neurons that make the gates, in spikes.
    """

    def __init__(self, program: Program, sizes: Sizes, *, gate_threshold: int, threshold: int, y: Interval):
        self._gate_threshold = gate_threshold
        super().__init__(program, sizes, threshold=threshold, y=y)


class ChannelGate(_Gate):
    """A gate for every channel and step, from counts over all tokens: two passes.

    1. Count the spikes of ``counted``, token by token; neurons over the steps make the gates of the counts.
    2. ``Y_i = passed_i AND gate``.

    Latency and throughput: a cycle a token and ``T + 2``, then ``max(T, parts)`` a token. Resources: a
    `HeadStore` of the spikes, `ColumnGates`, a register of a token.
    """

    @abstractmethod
    def _counted(self, token: data.View) -> Value:
        """Spikes of a token that count."""

    @abstractmethod
    def _passed(self, token: data.View) -> Value:
        """Spikes of a token that pass where the gate is open."""

    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        sizes = self._sizes
        m.submodules.reader = reader = self._reader(m, store, sequencer, scans=True)
        m.submodules.gates = gates = ColumnGates(sizes, self._gate_threshold)
        m.d.comb += [
            gates.en.eq(reader.counts),
            gates.first.eq(reader.first),
            gates.last.eq(reader.scanned),
            *(
                gates.spikes[t].eq(word)
                for t, word in enumerate(steps_of_word(self._counted(reader.tokens), sizes))
            ),
            reader.emit.eq(gates.done),
            gates.shift.eq(reader.row_en),
        ]
        passed = step_shift(m, reader.load, steps_of_word(self._passed(reader.tokens), sizes), "passed")
        return reader.row_en, passed & gates.gates


class SpikeDriven(ChannelGate):
    """SDSA: channels in which keys and values coincide, gating the queries.

    References
    ----------
    Spike-driven Transformer V1 (arXiv 2307.01694). Software twin: `golden.attention.sdsa`.
    """

    ports = {"tokens": SDSA}

    def _counted(self, token: data.View) -> Value:
        return token.key & token.value

    def _passed(self, token: data.View) -> Value:
        return token.query


class QueryKeyChannel(ChannelGate):
    """QKCA: channels in which queries spike, gating the keys.

    References
    ----------
    QKFormer (arXiv 2403.16552). Software twin: `golden.attention.qkca`.
    """

    ports = {"tokens": QKCA}

    def _counted(self, token: data.View) -> Value:
        return token.query

    def _passed(self, token: data.View) -> Value:
        return token.key


class TokenGate(_Gate):
    """QKTA: a gate for every token and step, from the number of its query's spikes: one pass.

    Nothing passes between tokens.

    Latency and throughput: ``max(T, parts)`` cycles a token. Resources: a `HeadStore` of the keys and of the
    queries' counts, a register of both of a token, one neuron.

    References
    ----------
    QKFormer (arXiv 2403.16552). Software twin: `golden.attention.qkta`.
    """

    ports = {"tokens": QKTA}

    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        sizes = self._sizes
        m.submodules.reader = reader = self._reader(m, store, sequencer, scans=False)
        membrane = membrane_interval((0, sizes.head_dim), self._gate_threshold, sizes.steps)
        m.submodules.cell = cell = LifCell(1, sizes.count, threshold=self._gate_threshold, membrane=membrane)
        counts = [reader.tokens.query.word_select(t, sizes.count.width) for t in range(sizes.steps)]
        key = step_shift(m, reader.load, steps_of_word(reader.tokens.key, sizes), "key")
        m.d.comb += [
            cell.en.eq(reader.row_en),
            cell.last.eq(reader.row_last),
            cell.x[0].eq(step_shift(m, reader.load, counts, "count")),
        ]
        return reader.row_en, key & cell.spikes.replicate(sizes.head_dim)


class _ChannelHardware(SteadyHardware):
    @abstractmethod
    def counted(self, q: np.ndarray, k: np.ndarray, v: np.ndarray | None) -> np.ndarray:
        """Spikes that count."""

    def additions(self, program: Program, q, k, v) -> Counter[int]:
        bits, net = program.network.attention.gate_threshold.bit_length(), program.network
        counted = int(np.count_nonzero(self.counted(q, k, v)))
        return Counter({bits: counted + 2 * net.timesteps * net.head_dim})

    def first_pass(self, program: Program) -> int:
        return program.network.tokens + 1 + gate_delay(program.network.timesteps)


class SdsaHardware(_ChannelHardware):
    """`SpikeDriven` as the machine sees it."""

    ports = SpikeDriven.ports

    def counted(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        return k & v

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> SpikeDriven:
        return SpikeDriven(program, sizes, **_thresholds(params, program), y=bounds.attention)


class QkcaHardware(_ChannelHardware):
    """`QueryKeyChannel` as the machine sees it."""

    ports = QueryKeyChannel.ports

    def counted(self, q: np.ndarray, k: np.ndarray, v: None) -> np.ndarray:
        return q

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> QueryKeyChannel:
        return QueryKeyChannel(program, sizes, **_thresholds(params, program), y=bounds.attention)


class QktaHardware(SteadyHardware):
    """`TokenGate` as the machine sees it."""

    ports = TokenGate.ports

    def additions(self, program: Program, q: np.ndarray, k: np.ndarray, v: None) -> Counter[int]:
        net, sizes = program.network, HeadSizes(program)
        counts = int(np.count_nonzero(q) + np.count_nonzero(k))  # both pass the counters
        return Counter({sizes.count.width: counts + 2 * net.timesteps * net.tokens})

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> TokenGate:
        return TokenGate(program, sizes, **_thresholds(params, program), y=bounds.attention)


def _thresholds(params: Params, program: Program) -> dict[str, int]:
    gate = program.network.attention.gate_threshold
    return {"gate_threshold": gate, "threshold": params.attention_threshold}
