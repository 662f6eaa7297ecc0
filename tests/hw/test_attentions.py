"""The attention units beside STDP against their golden twins: every sum, every spike, every cycle."""

import numpy as np
import pytest

from s2tdpt.golden.bounds import Interval
from s2tdpt.hw.attention.gates import (
    QkcaHardware,
    QktaHardware,
    QueryKeyChannel,
    SdsaHardware,
    SpikeDriven,
    TokenGate,
)
from s2tdpt.hw.attention.plain import NoMixing, NoMixingHardware, Uniform, UniformHardware
from s2tdpt.hw.attention.ssa import SelfAttention, SsaHardware
from s2tdpt.hw.records import Sizes
from tests.hw.attention_bench import Bench, heads_of, program_for, spikes


def lif(x, theta):
    h, out = np.zeros_like(x[0]), []
    for step in x:
        u = h + step
        s = u >= theta
        out.append(s.astype(np.int64))
        h = np.where(s, 0, u >> 1)
    return np.array(out)


def gate(c, theta):
    return lif(c, theta)


REFERENCE = {
    "none": lambda q, k, v, g: v,
    "uniform": lambda q, k, v, g: np.broadcast_to(128 * v.sum(1, keepdims=True), v.shape),
    "sdsa": lambda q, k, v, g: q * gate((k * v).sum(1), g)[:, None],
    "qkca": lambda q, k, v, g: k * gate(q.sum(1), g)[:, None],
    "ssa": lambda q, k, v, g: np.einsum("tic,tjc,tjd->tid", q, k, v),
    "qkta": lambda q, k, v, g: k * gate(q.sum(2), g)[:, :, None],
}
UNITS = {
    "none": (NoMixing, NoMixingHardware(), "v"),
    "uniform": (Uniform, UniformHardware(), "v"),
    "sdsa": (SpikeDriven, SdsaHardware(), "qkv"),
    "qkca": (QueryKeyChannel, QkcaHardware(), "qk"),
    "ssa": (SelfAttention, SsaHardware(), "qkv"),
    "qkta": (TokenGate, QktaHardware(), "qk"),
}


class Member(Bench):
    def __init__(self, kind, *, gate_threshold=1, threshold=None, **size):
        self.kind, self.gate_threshold = kind, gate_threshold
        self.program = program = program_for(**size)
        unit, self.hardware, self.projections = UNITS[kind]
        n = program.network.tokens
        binary = kind not in ("uniform", "ssa")
        self.threshold = threshold or (1 if binary else 30 * n)
        more = {"gate_threshold": gate_threshold} if kind in ("sdsa", "qkca", "qkta") else {}
        y = Interval(0, 1) if binary else Interval(0, 128 * n)
        if kind == "ssa":
            y = Interval(0, n * program.network.head_dim)
            self.threshold = threshold or 2
        self.dut = unit(program, Sizes(program), threshold=self.threshold, y=y, **more)

    def expected(self, *maps):
        heads = []
        for head in heads_of(
            [None if m is None else m.astype(np.int64) for m in maps], self.program.network.heads
        ):
            heads.append(REFERENCE[self.kind](*head, self.gate_threshold))
        y = np.concatenate(heads, axis=2)
        return y, lif(y, self.threshold)

    def spikes(self, seed, **rates):
        maps = spikes(seed, self.program, **rates)
        return tuple(m if letter in self.projections else None for letter, m in zip("qkv", maps, strict=True))


SHAPES = [
    # head_dim, heads, tokens, steps, lanes, post_lanes, attention_steps
    (1, 1, 1, 1, 1, 1, 1),
    (3, 1, 5, 1, 3, 3, 1),
    (4, 2, 3, 3, 8, 4, 2),
    (5, 4, 7, 3, 12, 4, 3),  # padded heads that straddle two tiles
    (7, 2, 3, 5, 4, 1, 3),  # more parts than steps
    (8, 3, 1, 4, 4, 4, 4),
    (8, 2, 16, 8, 16, 8, 3),
]


def _size(shape):
    names = ("head_dim", "heads", "tokens", "steps", "lanes", "post_lanes", "attention_steps")
    return dict(zip(names, shape, strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
@pytest.mark.parametrize("kind", UNITS)
def test_shapes(kind, shape):
    unit = Member(kind, **_size(shape), depth=2, gate_threshold=2)
    unit.check(
        unit.spikes(1),
        unit.spikes(2, q=0.02, v=0.5),
        unit.spikes(3, v=0.03),
        unit.spikes(4, q=0.9, k=0.9, v=0.9),
    )
    unit = Member(kind, **_size(shape), gate_threshold=8)
    unit.check(unit.spikes(5), unit.spikes(6, q=0.6), gap=0.5)
    unit = Member(kind, **_size(shape), gate_threshold=1)
    unit.check(unit.spikes(7, q=0, k=0, v=0), unit.spikes(7, q=1, k=1, v=1), once=True)
