"""The STDP table and the two forms of the product."""

import math

import numpy as np
import pytest
import torch

from s2tdpt.golden.attention.heads import attend, merge_heads, split_heads
from s2tdpt.golden.attention.stdp import LUT, Stdp, attention_weights
from s2tdpt.golden.config import load_config
from s2tdpt.golden.latency import popcount
from tests.golden.shapes import SHAPES, make_config


@pytest.mark.parametrize("kappa", [1e-6, 1 / 16, 1 / 8, 1 / 4, 3.0, 100.0])
@pytest.mark.parametrize(("amplitude", "offset"), [(127, 128), (1, 2), (100, 101), (100, 155), (1, 254)])
def test_entries_lie_strictly_inside(kappa, amplitude, offset):
    for width in (1, 5, 32):
        lut = Stdp(kappa=kappa, amplitude=amplitude, offset=offset).table(width)
        assert lut.shape == (2 * width + 1,) and lut.dtype == np.int16
        assert 0 < lut.min() and lut.max() < 256
        assert lut[width] == offset - amplitude  # a tie depresses, by the full amplitude
        before, after = lut[:width], lut[width:]
        assert (before >= offset).all() and (after <= offset).all()
        assert (np.diff(before) >= 0).all() and (np.diff(after) >= 0).all()
        assert (offset - after[1:] == before[::-1] - offset).all()  # the same size on both sides


def test_published_kernel():
    lut = load_config("s2tdpt-4-384").attention.table(32)
    assert (lut.min(), lut.max(), len(lut)) == (1, 240, 65)
    for d in range(-32, 33):
        e = 127 * math.exp(-abs(d) / 8)
        assert abs(lut[d + 32] - (128 + e if d < 0 else 128 - e)) <= 0.5


def random_spikes(rng, m, n, d, rate):
    return torch.tensor(rng.random((m, 1, n, d)) < rate)


@pytest.mark.parametrize("heads,width", [(1, 1), (1, 7), (2, 5), (3, 4), (2, 32)])
@pytest.mark.parametrize("tokens", [1, 5, 16, 23])
def test_both_forms_equal_the_definition(heads, width, tokens):
    rng = np.random.default_rng(heads * 100 + width + tokens)
    config = make_config(sps_channels=[4, heads * width], heads=heads)
    mechanism = config.attention
    lut = mechanism.table(width).astype(np.int64)
    q, k, v = (random_spikes(rng, 3, tokens, heads * width, rate) for rate in (0.5, 0.4, 0.6))
    q[0], k[0], v[0] = False, True, True  # every query silent, every key and value full: d = d_h
    q[1, :, : tokens // 2 + 1], k[1] = True, False  # d = -d_h for some
    rq = q.numpy().reshape(3, tokens, heads, width).sum(-1)
    rk = k.numpy().reshape(3, tokens, heads, width).sum(-1)
    expected = np.zeros((3, tokens, heads, width), np.int64)
    values = v.numpy().reshape(3, tokens, heads, width)
    for i in range(tokens):
        for j in range(tokens):
            expected[:, i] += lut[rk[:, j] - rq[:, i] + width][..., None] * values[:, j]
    for dtype in (torch.int64, torch.float32, torch.float64):
        tensors = {LUT: torch.tensor(lut).to(dtype)}
        for form in (mechanism.y, mechanism.streamed):
            y = attend(form, config, tensors, *(x.to(dtype) for x in (q, k, v)))
            assert y.shape == v.shape and y.dtype == dtype
            assert np.array_equal(y.long().numpy(), expected.reshape(3, 1, tokens, -1))


def test_weights_are_query_by_key():
    lut = torch.arange(5)  # d_h = 2: entry d + 2
    q, k = torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 0], [0, 1]])
    assert attention_weights(q, k, lut).tolist() == [[2, 3], [0, 1]]


def test_heads_own_neighbouring_channels():
    spikes = torch.tensor([[1, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0]])[None, None]
    for dtype in (torch.int64, torch.float32):
        heads = split_heads(spikes.to(dtype), 2)
        assert popcount(heads).tolist() == [[[[2, 0], [3, 1]]]]  # [T, B, H, N]
        assert torch.equal(merge_heads(heads), spikes)


def test_a_query_key_mix_up_would_be_noticed():
    """Plant: the kernel is not symmetric, exchanging Q and K changes the result."""
    rng = np.random.default_rng(0)
    config = SHAPES["base"]
    tensors = {LUT: torch.tensor(config.attention.table(config.head_dim)).long()}
    q, k, v = (random_spikes(rng, 2, 9, 12, rate).long() for rate in (0.5, 0.3, 0.5))
    y, mixed_up = (attend(config.attention.y, config, tensors, *pair, v) for pair in ((q, k), (k, q)))
    assert not torch.equal(y, mixed_up)
