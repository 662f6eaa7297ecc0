"""The controls: no attention, and one that treats all tokens alike."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from amaranth import Cat, Module, Value

from s2tdpt.golden.attention.uniform import WEIGHT
from s2tdpt.hw.attention.columns import ColumnCounts, steps_of_word
from s2tdpt.hw.attention.reader import step_shift
from s2tdpt.hw.attention.records import V
from s2tdpt.hw.attention.sequencer import HeadSequencer
from s2tdpt.hw.attention.steady import SteadyHardware, SteadyUnit
from s2tdpt.hw.attention.store import HeadStore, Hold
from s2tdpt.hw.fixed import exact
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes

if TYPE_CHECKING:
    from s2tdpt.golden.bounds import Bounds
    from s2tdpt.golden.params import Params

__all__ = ["NoMixing", "NoMixingHardware", "Uniform", "UniformHardware"]

PORTS = {"tokens": {"value": (V, Hold.SPIKES)}}


class NoMixing(SteadyUnit):
    """``Y = V``, token by token.

    Latency and throughput: ``max(T, parts)`` cycles a token. Resources: a `HeadStore` of V, a register of a
    token.

    References
    ----------
    Software twin: `golden.attention.none`.
    """

    ports = PORTS

    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        m.submodules.reader = reader = self._reader(m, store, sequencer, scans=False)
        row = step_shift(m, reader.load, steps_of_word(reader.tokens.value, self._sizes), "value")
        return reader.row_en, row


class Uniform(SteadyUnit):
    """``Y_i = 128 sum_j V_j``: the same row for every token, by one pass that counts.

    Latency and throughput: a cycle a token, then ``max(T, parts)``. Resources: a `HeadStore` of V,
    `ColumnCounts` up to the number of tokens.

    References
    ----------
    Software twin: `golden.attention.uniform`.
    """

    ports = PORTS

    def _passes(self, m: Module, store: HeadStore, sequencer: HeadSequencer) -> tuple[Value, Value]:
        m.submodules.reader = reader = self._reader(m, store, sequencer, scans=True)
        m.submodules.counts = counts = ColumnCounts(self._sizes, self._sizes.tokens)
        m.d.sync += [
            counts.en.eq(reader.counts),
            counts.first.eq(reader.first),
            counts.spikes.eq(Cat(steps_of_word(reader.tokens.value, self._sizes))),
        ]
        m.d.comb += [reader.emit.eq(reader.scanned), counts.shift.eq(reader.row_en)]
        # `y` is the proof that the sums fit.
        sums = (exact(count * WEIGHT, self._y_shape) for count in counts.counts)
        return reader.row_en, Cat(sums)


class NoMixingHardware(SteadyHardware):
    """`NoMixing` as the machine sees it."""

    ports = PORTS

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> NoMixing:
        return NoMixing(program, sizes, threshold=params.attention_threshold, y=bounds.attention)


class UniformHardware(SteadyHardware):
    """`Uniform` as the machine sees it: the rows begin with the last word of the first pass."""

    ports: ClassVar = PORTS

    def unit(self, params: Params, program: Program, sizes: Sizes, bounds: Bounds) -> Uniform:
        return Uniform(program, sizes, threshold=params.attention_threshold, y=bounds.attention)

    def first_pass(self, program: Program) -> int:
        return program.network.tokens + 1

    def additions(self, program: Program, q: None, k: None, v: np.ndarray) -> Counter[int]:
        return Counter({program.network.tokens.bit_length(): int(np.count_nonzero(v))})
