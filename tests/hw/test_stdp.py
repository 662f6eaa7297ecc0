"""The attention unit against `golden.stdp`: every sum, every spike, every cycle, and how it grows with N."""

import random

import numpy as np
import pytest
import torch

from s2tdpt.golden.config import load_config
from s2tdpt.golden.lif import lif
from s2tdpt.golden.stdp import attention_matrix, attention_rows, build_lut
from s2tdpt.hw.memory import head_groups, pack_heads, unpack_heads
from s2tdpt.hw.stdp import StdpAttention, StdpKernel, attention_cycles, row_memory_bits
from s2tdpt.hw.stdp_cycles import attention_macs, row_updates, y_interval
from tests.hw.util import MemoryBench, evaluate, run_operation, simulate, state_of


def table(head_dim, amplitude=127, offset=128, kappa=0.125):
    distance = np.arange(-head_dim, head_dim + 1)
    e = np.rint(amplitude * np.exp(-kappa * abs(distance))).astype(int)
    return np.where(distance < 0, offset + e, offset - e).tolist()


def spikes(rng, steps, tokens, width, rate):
    return (rng.random((steps, tokens, width)) < rate).astype(np.uint8)


def expected(q, k, v, lut, heads, threshold):
    """``(y, attn)`` of the golden model, ``[T, N, D]``."""
    q, k, v = (torch.from_numpy(x).long() for x in (q, k, v))
    lut = torch.tensor(lut)
    y = attention_matrix(q, k, v, lut, heads)
    assert torch.equal(y, attention_rows(q, k, v, lut, heads))
    return y.numpy(), lif(y, threshold).numpy()


class Attention:
    """One attention unit with its memory; `check` runs it and compares all that can be observed."""

    def __init__(
        self,
        *,
        head_dim,
        heads,
        tokens,
        steps,
        lanes,
        post_lanes=None,
        lut=None,
        hardware_lut=None,
        threshold=None,
    ):
        self.size = dict(head_dim=head_dim, heads=heads, tokens=tokens, timesteps=steps, lanes=lanes)
        self.lut = table(head_dim) if lut is None else lut
        self.threshold = threshold or max(1, 30 * tokens)
        self.stride = tokens * head_groups(heads, head_dim, lanes) + 1
        self.dut = StdpAttention(
            lut=hardware_lut or self.lut,
            threshold=self.threshold,
            **self.size,
            post_lanes=post_lanes or lanes,
            addr_width=max(1, (4 * self.stride - 1).bit_length()),
        )
        rng = random.Random(0)
        junk = [rng.getrandbits(lanes * steps) for _ in range(4 * self.stride)]
        self.bench = MemoryBench(self.dut, junk)

    def check(self, *cases, deadline=200_000):
        """Runs the ``(q, k, v)`` of each case on the same unit."""
        dut, size = self.dut, self.size
        head_dim, heads, lanes = size["head_dim"], size["heads"], size["lanes"]
        rows = {}

        async def observe(ctx):
            probes = (dut.y_token, dut.y_t, dut.y_head, *(dut.y_data[c] for c in range(head_dim)))
            async for token, t, head, *sums in enabled(ctx, dut.y_en, probes):
                assert (t, token, head) not in rows, "a row was given out twice"
                rows[t, token, head] = sums

        async def testbench(ctx):
            for q, k, v in cases:
                rows.clear()
                bases = {}
                for i, (name, map_) in enumerate((("q_base", q), ("k_base", k), ("v_base", v))):
                    bases[name] = i * self.stride
                    for j, word in enumerate(pack_heads(map_, lanes, head_dim)):
                        ctx.set(self.bench.storage.data[bases[name] + j], word)
                bases["dst_base"] = 3 * self.stride
                guard = self.bench.words(ctx, 4 * self.stride - 1, 1)
                cycles = await run_operation(ctx, dut, fields=bases)
                y, attn = expected(q, k, v, self.lut, heads, self.threshold)
                got = np.zeros_like(y)
                assert len(rows) == heads * y.shape[0] * y.shape[1]
                for (t, token, head), sums in rows.items():
                    got[t, token, head * head_dim : (head + 1) * head_dim] = sums
                assert np.array_equal(got, y)
                words = self.bench.words(ctx, 3 * self.stride, self.stride - 1)
                attn_words = pack_heads(attn, lanes, head_dim)
                assert np.array_equal(
                    unpack_heads(
                        words,
                        tokens=y.shape[1],
                        heads=heads,
                        head_dim=head_dim,
                        lanes=lanes,
                        timesteps=y.shape[0],
                    ),
                    attn,
                )
                assert words == attn_words, "a lane that no head uses is not 0"
                assert self.bench.words(ctx, 4 * self.stride - 1, 1) == guard
                assert cycles == attention_cycles(q, k, v, heads=heads, lanes=lanes)

        simulate(self.bench, testbench, deadline=deadline, background=[observe])


async def enabled(ctx, enable, values):
    """Samples of `values` at the clock edges at which `enable` is 1."""
    while True:
        _, _, on, *sampled = await ctx.tick().sample(enable, *values)
        if on:
            yield sampled


def case(seed, *, steps, tokens, width, q=0.3, k=0.3, v=0.2):
    rng = np.random.default_rng(seed)
    return tuple(spikes(rng, steps, tokens, width, rate) for rate in (q, k, v))


@pytest.mark.parametrize("head_dim", [1, 3, 4, 8])
def test_kernel_on_all_counts(head_dim):
    lut = table(head_dim)
    dut = StdpKernel(lut, head_dim)

    async def testbench(ctx):
        for key in range(head_dim + 1):
            for query in range(head_dim + 1):
                ctx.set(dut.key, key)
                ctx.set(dut.query, query)
                assert ctx.get(dut.weight) == lut[key - query + head_dim]

    evaluate(dut, testbench)


@pytest.mark.parametrize(
    "head_dim, heads, tokens, steps, lanes",
    [
        (3, 1, 1, 1, 3),  # one token
        (3, 1, 5, 1, 3),  # one step: the shortest periods
        (4, 2, 1, 2, 8),  # one token, merged words
        (4, 3, 3, 1, 8),  # one step, merged words, a half-filled word
        (4, 3, 4, 2, 8),
        (5, 4, 7, 3, 11),  # lanes left over in every word
        (3, 5, 6, 4, 10),  # three heads a word, the second word not filled
        (8, 2, 9, 4, 8),  # one head a word
        (2, 2, 5, 8, 4),
        (16, 2, 8, 4, 32),
        (32, 1, 6, 4, 32),
    ],
)
def test_shapes(head_dim, heads, tokens, steps, lanes):
    unit = Attention(head_dim=head_dim, heads=heads, tokens=tokens, steps=steps, lanes=lanes)
    size = dict(steps=steps, tokens=tokens, width=head_dim * heads)
    unit.check(case(1, **size), case(2, **size, q=0.02, v=0.5), case(3, **size, v=0.03))


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("tokens", [1, 2, 5])
@pytest.mark.parametrize("lanes", [3, 6])
def test_silent_and_constant_maps(steps, tokens, lanes):
    """No query counts but one, no values: the corners of the cycle formula and of the row hazard."""
    unit = Attention(head_dim=3, heads=2, tokens=tokens, steps=steps, lanes=lanes)
    size = dict(steps=steps, tokens=tokens, width=6)
    rates = [(0, 0, 0), (0, 0, 1), (1, 1, 1), (0, 1, 0.2), (1, 0, 0.2), (0.5, 0, 1), (0.1, 0.5, 0.2)]
    unit.check(*(case(i, **size, q=q, k=k, v=v) for i, (q, k, v) in enumerate(rates)))


def test_row_hazard():
    """A step whose queries all have one count, written by two tokens in consecutive cycles."""
    steps, tokens, head_dim = 4, 6, 3
    q = np.zeros((steps, tokens, head_dim), dtype=np.uint8)
    q[1, ::2, 0] = 1
    k = np.ones_like(q)
    v = np.zeros_like(q)
    v[0, 1:4] = 1  # tokens 1..3 spike in step 0 only, where one count occurs
    v[1:3, 4] = 1
    v[2:, 5] = 1  # token 4 ends in step 2 and token 5 begins there
    lut = table(head_dim)
    assert row_updates(q, k, v, heads=1).tolist() == [[5, 1, 1, 1, 3, 2]]
    Attention(head_dim=head_dim, heads=1, tokens=tokens, steps=steps, lanes=3, lut=lut).check((q, k, v))
    # One cycle of waiting: beginning in another step costs as many updates and one cycle less.
    moved = v.copy()
    moved[2, 5], moved[0, 5] = 0, 1
    assert row_updates(q, k, moved, heads=1).tolist() == row_updates(q, k, v, heads=1).tolist()
    assert attention_cycles(q, k, v, heads=1, lanes=3) == attention_cycles(q, k, moved, heads=1, lanes=3) + 1


def test_hazard_of_the_first_output():
    """The last row written is the first one that pass 3 reads, in the next cycle."""
    q = np.zeros((2, 3, 3), dtype=np.uint8)
    q[0, 0] = 1  # token 0 has the highest count of step 0
    q[0, 1, 0] = 1
    k = np.ones_like(q)
    v = np.zeros_like(q)
    v[0, 2] = 1  # the last token spikes in step 0 only
    Attention(head_dim=3, heads=1, tokens=3, steps=2, lanes=3).check((q, k, v))


def test_digits_layer():
    """A layer of the named configuration: its own table, threshold and sizes."""
    config = load_config("digits")
    unit = Attention(
        head_dim=config.head_dim,
        heads=config.heads,
        tokens=config.tokens,
        steps=config.timesteps,
        lanes=32,
        post_lanes=8,
        lut=build_lut(config).tolist(),
        threshold=config.attention_threshold,
    )
    unit.check(case(1, steps=config.timesteps, tokens=config.tokens, width=config.embed_dim))


def test_signed_table():
    """A table with negative weights: sums and membranes are signed."""
    lut = table(4, amplitude=90, offset=20)
    assert min(lut) < 0
    unit = Attention(head_dim=4, heads=2, tokens=6, steps=4, lanes=8, lut=lut, threshold=60)
    unit.check(case(1, steps=4, tokens=6, width=8), case(2, steps=4, tokens=6, width=8, q=0.8))


def test_ends_of_the_sum():
    """All spikes set: the largest sum that the width was proven for."""
    lut = [7] * 9
    tokens = 9
    assert y_interval(lut, tokens) == (0, 63)
    unit = Attention(head_dim=4, heads=1, tokens=tokens, steps=2, lanes=4, lut=lut, threshold=63)
    assert unit.dut.y_shape.width == 6
    ones = np.ones((2, tokens, 4), dtype=np.uint8)
    unit.check((ones, ones, ones))


@pytest.mark.parametrize("entry", [0, 3, 4, 6])
def test_comparison_notices_a_flipped_table_entry(entry):
    head_dim = 3
    lut = table(head_dim)
    broken = list(lut)
    broken[entry] ^= 1
    unit = Attention(head_dim=head_dim, heads=1, tokens=8, steps=4, lanes=3, lut=lut, hardware_lut=broken)
    with pytest.raises(AssertionError):
        unit.check(case(5, steps=4, tokens=8, width=3, q=0.5, k=0.5, v=0.5))


@pytest.mark.parametrize("tokens", [1, 16, 100, 4096])
@pytest.mark.parametrize("head_dim, steps", [(2, 1), (4, 4), (8, 2)])
def test_state_bits(tokens, head_dim, steps):
    """The formula is the memory that is elaborated."""
    dut = StdpAttention(
        lut=table(head_dim),
        threshold=1024,
        head_dim=head_dim,
        heads=2,
        tokens=tokens,
        timesteps=steps,
        lanes=2 * head_dim,
        post_lanes=1,
        addr_width=15,
    )
    _, memory_bits = state_of(dut)
    y_bits = y_interval(table(head_dim), tokens)[1].bit_length()
    assert memory_bits == dut.row_memory_bits
    assert memory_bits == row_memory_bits(head_dim=head_dim, timesteps=steps, y_bits=y_bits)


SWEEP = [16, 64, 256, 1024, 4096]


def test_cost_grows_linearly_and_state_logarithmically():
    """N = 16 .. 4096 on real hardware: cycles per token stay, state gains bits of width only."""
    head_dim, steps = 2, 1
    cycles, state = {}, {}
    for tokens in SWEEP:
        unit = Attention(head_dim=head_dim, heads=1, tokens=tokens, steps=steps, lanes=2, threshold=1024)
        state[tokens] = sum(
            state_of(StdpAttention(lut=unit.lut, threshold=1024, **unit.size, post_lanes=2, addr_width=15))
        )
        # Every token alike, so that the cycles differ by N alone.
        q, k, v = (np.zeros((steps, tokens, head_dim), dtype=np.uint8) for _ in range(3))
        q[:, ::2, 0] = k[:, ::3] = v[...] = 1
        unit.check((q, k, v), deadline=10 * tokens + 100)
        cycles[tokens] = attention_cycles(q, k, v, heads=1, lanes=2)
    for few, many in zip(SWEEP, SWEEP[1:], strict=False):
        assert cycles[many] - cycles[few] == (1 + 3 + 2) * (many - few)
        # Four times the tokens: two more bits in each sum, counter and address.
        assert 0 < state[many] - state[few] <= 2 * (steps * (head_dim + 1) * head_dim + 20)
    macs = [attention_macs(tokens=n, heads=1, head_dim=head_dim, timesteps=steps) for n in SWEEP]
    assert macs[-1] == macs[0] * (SWEEP[-1] // SWEEP[0]) ** 2


def test_messages():
    size = dict(
        lut=table(4),
        threshold=8,
        head_dim=4,
        heads=2,
        tokens=4,
        timesteps=2,
        lanes=8,
        post_lanes=8,
        addr_width=6,
    )
    with pytest.raises(ValueError, match=r"^attention tokens must be a positive integer, not 0$"):
        StdpAttention(**{**size, "tokens": 0})
    with pytest.raises(ValueError, match=r"^the STDP table of 3 channels must have 7 entries, not 9$"):
        StdpAttention(**{**size, "head_dim": 3})
    with pytest.raises(ValueError, match=r"^a head of 4 channels does not fit into 3 lanes$"):
        StdpAttention(**{**size, "lanes": 3, "post_lanes": 3})
