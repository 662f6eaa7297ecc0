"""One attention unit with what it needs around it, and q, k and v as the post-processing sends them."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import torch

from s2tdpt.golden.attention.heads import attend
from s2tdpt.golden.attention.stdp import LUT, Stdp
from s2tdpt.golden.bounds import Interval, attention_intervals
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.neuron.lif import lif
from s2tdpt.golden.operand import BINARY
from s2tdpt.golden.params import random_params
from s2tdpt.hw.attention import attention_of
from s2tdpt.hw.attention.records import HeadSizes, K, Q, V
from s2tdpt.hw.attention.stdp import StdpAttention, StdpHardware
from s2tdpt.hw.attention.stdp_cycles import y_interval
from s2tdpt.hw.attention.timeline import head_parts
from s2tdpt.hw.attention.unit import AttentionHardware, AttentionUnit
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import PROJECTIONS, Program
from s2tdpt.hw.plan.records import Sizes
from s2tdpt.hw.plan.schedule import build_program
from tests.hw.util import simulate


def program_for(
    *, head_dim, heads, tokens, steps, lanes, post_lanes, attention_steps=1, depth=1, rows=1, attention=None
) -> Program:
    """A program with an attention of these sizes; the rest of the network is as small as can be.

    The tokens lie in `rows` rows.
    """
    network = NetworkConfig(
        name="attention",
        image_height=rows,
        image_width=tokens // rows,
        image_channels=1,
        num_classes=2,
        timesteps=steps,
        sps_channels=(head_dim * heads,),
        sps_pool=(False,),
        depth=depth,
        heads=heads,
        mlp_ratio=1,
        attention=attention or Stdp(),
    )
    machine = Machine(lanes=lanes, banks=1, post_lanes=post_lanes, queue=2, attention_steps=attention_steps)
    return build_program(network, machine, head_sum_bits=20)


def table(head_dim, amplitude=127, offset=128, kappa=0.125):
    distance = np.arange(-head_dim, head_dim + 1)
    e = np.rint(amplitude * np.exp(-kappa * abs(distance))).astype(int)
    return np.where(distance < 0, offset + e, offset - e).tolist()


def spikes(seed, program, *, q=0.3, k=0.3, v=0.2):
    """Random ``(q, k, v)``, ``[T, N, D]``: spikes, or any number of the operand in their place."""
    rng, net = np.random.default_rng(seed), program.network
    shape = net.timesteps, net.tokens, net.embed_dim
    maps = [(rng.random(shape) < rate).astype(np.int8) for rate in (q, k, v)]
    for map_, operand in zip(maps, HeadSizes(program).operands, strict=True):
        if operand != BINARY:
            numbers = [number for number in range(operand.lo, operand.hi + 1) if number]
            map_ *= rng.choice(numbers, shape).astype(np.int8)
    return tuple(maps)


def expected(q, k, v, lut, heads, threshold):
    """``(y, attn)`` of the golden model, ``[T, N, D]``."""
    q, k, v = (torch.from_numpy(x).long()[:, None] for x in (q, k, v))
    config, tensors = SimpleNamespace(heads=heads), {LUT: torch.tensor(lut)}
    y, streamed = (attend(form, config, tensors, q, k, v)[:, 0] for form in (Stdp().y, Stdp().streamed))
    assert torch.equal(y, streamed)
    return y.numpy(), lif(y, threshold).numpy()


@dataclass
class Piece:
    """What is on the projection port in a cycle."""

    projection: int
    token: int
    piece: int
    spikes: int


@dataclass
class Delivery:
    """The pieces of a block in order, each with the heads that are complete once it is there.

    None: a cycle without a piece.
    """

    pieces: list[tuple[Piece | None, int]] = field(default_factory=list)


def deliver(program: Program, maps, *, once=False) -> Delivery:
    """Group by group q, k and v, token by token, piece by piece.

    Parameters
    ----------
    once : bool
        No head is announced before the last one.
    """
    machine, packing, sizes = program.machine, program.head_packing, HeadSizes(program)
    steps, post = program.network.timesteps, machine.post_lanes
    wide = {p: packing.spread(map_) for p, map_ in zip((Q, K, V), maps, strict=True) if map_ is not None}
    delivery = Delivery()
    for group in range(packing.groups):
        complete = min(program.network.heads, (group + 1) * machine.lanes // packing.head_slots)
        subgroups = -(-packing.lanes_of(group) // post)
        for projection in wide:
            for token in range(program.network.tokens):
                for subgroup in range(subgroups):
                    piece = group * machine.subgroups + subgroup
                    numbers = wide[projection][:, token, piece * post : (piece + 1) * post].T.reshape(-1)
                    mask, bits = (1 << sizes.operands[projection].bits) - 1, sizes.emitted_bits
                    word = sum((int(number) & mask) << i * bits for i, number in enumerate(numbers))
                    assert len(numbers) == post * steps
                    last = projection == max(wide) and token == program.network.tokens - 1
                    ready = complete if last and subgroup == subgroups - 1 else 0
                    if once and group < packing.groups - 1:
                        ready = 0
                    delivery.pieces.append((Piece(projection, token, piece, word), ready))
            if len(wide) * net_pieces(program, subgroups) < 3:
                delivery.pieces.append((None, 0))  # no tile follows the one before at once
    return delivery


def net_pieces(program: Program, subgroups: int) -> int:
    """Pieces of a projection in a tile."""
    return program.network.tokens * subgroups


class Bench(ABC):
    """One attention unit; `check` sends it blocks and compares all that can be observed."""

    hardware: AttentionHardware
    dut: AttentionUnit
    program: Program
    block = 0

    @abstractmethod
    def expected(self, q, k, v):
        """``(y, attn)`` of the golden model, ``[T, N, D]``."""

    def check(self, *blocks, gap=0.0, once=False, drop=None, deadline=200_000):
        """Sends the ``(q, k, v)`` of each block as soon as the block before is complete.

        Parameters
        ----------
        gap : float
            Share of cycles without a piece.
        once : bool
            As in `deliver`.
        drop : int, optional
            Number of a piece that gets lost.
        """
        run = _Run(self, random.Random(len(blocks)), gap)

        async def testbench(ctx):
            for number, maps in enumerate(blocks):
                self.block = number % self.program.network.depth
                if self.block == 0:
                    await run.clear(ctx)
                await run.block(ctx, maps, deliver(self.program, maps, once=once).pieces, drop)

        simulate(self.dut, testbench, deadline=deadline)


class Attention(Bench):
    """The STDP unit."""

    hardware = StdpHardware()

    def __init__(self, *, lut=None, hardware_lut=None, threshold=None, hardware_threshold=None, **size):
        self.program = program = program_for(**size)
        net = program.network
        self.lut = table(net.head_dim) if lut is None else lut
        self.threshold = threshold or max(1, 30 * net.tokens)
        self.dut = StdpAttention(
            program,
            Sizes(program),
            lut=hardware_lut or self.lut,
            threshold=hardware_threshold or self.threshold,
            y=Interval(*y_interval(self.lut, net.tokens)),
        )

    def expected(self, q, k, v):
        return expected(q, k, v, self.lut, self.program.network.heads, self.threshold)


class Member(Bench):
    """The unit of any attention, with random tensors."""

    def __init__(self, mechanism, *, threshold=None, hardware=None, **size):
        """`hardware` changes the parameters that the unit is made from."""
        self.program = program = program_for(**size, attention=mechanism)
        self.hardware = attention_of(program)
        params = random_params(program.network, 1)
        self.params = replace(params, attention_threshold=threshold or params.attention_threshold)
        y, inner = attention_intervals(self.params)
        self.bounds = SimpleNamespace(attention=y, attention_inner=inner)
        self.block = 0
        built = hardware(self.params) if hardware else self.params
        self.dut = self.hardware.unit(built, program, Sizes(program), self.bounds)

    def spikes(self, seed, **rates):
        """Random ``(q, k, v)``, None for what the attention does not have."""
        wanted = self.program.network.attention.projections
        maps = spikes(seed, self.program, **rates)
        return tuple(m if kind in wanted else None for kind, m in zip(PROJECTIONS, maps, strict=True))

    def expected(self, *maps):
        config = self.program.network
        values = {name: torch.tensor(t).long() for name, t in self.params.attention(self.block).items()}
        parts = [None if m is None else torch.from_numpy(m).long()[:, None] for m in maps]
        y, streamed = (
            attend(form, config, values, *parts)[:, 0]
            for form in (config.attention.y, config.attention.streamed)
        )
        assert torch.equal(y, streamed)
        return y.numpy(), lif(y, self.params.attention_threshold).numpy()


class _Run:
    """The cycles of one simulation."""

    def __init__(self, bench: Bench, rng: random.Random, gap: float):
        self.bench, self.dut, self.program = bench, bench.dut, bench.program
        self.rng, self.gap = rng, gap
        self.any = random.Random(1)
        self.cycle = 0
        self.blocks = 0
        self.rows: dict[tuple[int, int, int], list[int]] = {}
        self.row_cycles: dict[int, int] = {}
        self.words: dict[int, dict[int, int]] = {}

    async def clear(self, ctx):
        ctx.set(self.dut.clear, 1)
        await self.tick(ctx)
        ctx.set(self.dut.clear, 0)
        self.blocks = 0
        assert ctx.get(self.dut.blocks) == 0

    async def tick(self, ctx):
        """Observes the cycle and goes on to the next one."""
        dut = self.dut
        if ctx.get(dut.y_en):
            key = ctx.get(dut.y_step), ctx.get(dut.y_token), ctx.get(dut.y_head)
            assert key not in self.rows, "a row was given out twice"
            self.rows[key] = [ctx.get(dut.y_data[c]) for c in range(self.program.network.head_dim)]
            self.row_cycles[key[2]] = self.cycle
        if ctx.get(dut.write.en):
            word = self.words.setdefault(ctx.get(dut.write.address), {})
            subgroup = ctx.get(dut.write.subgroup)
            assert subgroup not in word, "a piece was written twice"
            word[subgroup] = ctx.get(dut.write.spikes)
            if ctx.get(dut.write.final):
                for rest in range(subgroup + 1, self.program.machine.subgroups):
                    assert rest not in word
                    word[rest] = 0
        await ctx.tick()
        self.cycle += 1

    def noise(self) -> Piece:
        net, draw = self.program.network, self.any
        pieces = net.heads * head_parts(self.program)
        bits = draw.getrandbits(self.program.piece_bits)
        return Piece(draw.randrange(3), draw.randrange(net.tokens), draw.randrange(pieces), bits)

    async def block(self, ctx, maps, pieces, drop):
        dut, port, net = self.dut, self.dut.projections, self.program.network
        words = net.tokens * self.program.head_packing.groups
        base = self.rng.randrange(self.program.spike_words - words + 1)
        self.rows.clear(), self.row_cycles.clear(), self.words.clear()
        pending = list(pieces)
        pulses: dict[int, int] = {}  # cycle: heads
        ready = [0] * net.heads
        known = 0
        number = 0
        completed = None
        limit = self.cycle + 200_000
        while completed is None:
            assert self.cycle < limit
            piece = None
            if pending and self.rng.random() >= self.gap:
                piece, heads = pending.pop(0)
                if heads > known:
                    when = self.cycle + 1 + (self.rng.randrange(4) if self.gap else 0)
                    pulses[when] = heads
                    ready[known:heads] = [when] * (heads - known)
                    known = heads
                lost = number == drop
                number += piece is not None
                piece = None if lost else piece
            # What comes with no piece, and with no pulse, must not be looked at.
            shown = piece or self.noise()
            ctx.set(port.en, piece is not None)
            ctx.set(port.projection, shown.projection)
            ctx.set(port.token, shown.token)
            ctx.set(port.piece, shown.piece)
            ctx.set(port.spikes, shown.spikes)
            pulse = self.cycle in pulses
            ctx.set(port.ready, pulse)
            ctx.set(port.heads, pulses[self.cycle] if pulse else self.any.randrange(net.heads + 1))
            ctx.set(port.base, base if pulse else self.any.randrange(self.program.spike_words))
            await self.tick(ctx)
            if ctx.get(dut.blocks) != self.blocks:
                completed = self.cycle
        self.blocks += 1
        for _ in range(dut.lead * (self.bench.hardware.period(self.program) or 0)):
            await self.tick(ctx)
        assert ctx.get(dut.blocks) == self.blocks
        assert not ctx.get(dut.write.en) and len(self.words) == words
        self.compare(maps, base)
        self.compare_cycles(maps, ready, completed)

    def compare(self, maps, base):
        net, packing = self.program.network, self.program.head_packing
        y, attn = self.bench.expected(*maps)
        got = np.zeros_like(y)
        assert len(self.rows) == net.heads * y.shape[0] * y.shape[1]
        for (t, token, head), sums in self.rows.items():
            got[t, token, head * net.head_dim : (head + 1) * net.head_dim] = sums
        assert np.array_equal(got, y)
        words = packing.pack(attn)
        assert sorted(self.words) == list(range(base, base + len(words)))
        for offset, word in enumerate(words):
            pieces = self.words[base + offset]
            bits = self.program.piece_bits
            assert len(pieces) == self.program.machine.subgroups
            assert sum(piece << subgroup * bits for subgroup, piece in pieces.items()) == word

    def compare_cycles(self, maps, ready, completed):
        net = self.program.network
        hardware = self.bench.hardware
        cycles = [hardware.head_cycles(self.program, *head) for head in heads_of(maps, net.heads)]
        starts, end = hardware.timeline(ready, cycles, self.program)
        # The pieces of a head's last word follow its last row.
        after = hardware.output_delay(self.program) - head_parts(self.program) - 1
        last_rows = [start + busy + after for start, busy in zip(starts, cycles, strict=True)]
        assert [self.row_cycles[head] for head in range(net.heads)] == last_rows
        assert completed == end


def heads_of(maps, heads):
    """``(q, k, v)`` of every head; what is None stays so."""
    split = [[None] * heads if map_ is None else np.split(map_, heads, axis=2) for map_ in maps]
    return zip(*split, strict=True)
