"""The STDP table and the two forms of the product."""

import math

import numpy as np
import pytest
import torch

from s2tdpt.golden.config import load_config, named_configs
from s2tdpt.golden.latency import popcount
from s2tdpt.golden.stdp import attention_matrix, attention_rows, attention_weights, build_lut
from tests.golden.shapes import SHAPES, make_config


@pytest.mark.parametrize("kappa", [1e-6, 1 / 16, 1 / 8, 1 / 4, 3.0, 100.0])
@pytest.mark.parametrize(("amplitude", "offset"), [(127, 128), (1, 2), (100, 101), (100, 155), (1, 254)])
def test_entries_lie_strictly_inside(kappa, amplitude, offset):
    for width in (1, 5, 32):
        config = make_config(
            kappa=kappa, stdp_amplitude=amplitude, stdp_offset=offset, sps_channels=[4, width], heads=1
        )
        lut = build_lut(config)
        assert lut.shape == (2 * width + 1,) and lut.dtype == np.int16
        assert 0 < lut.min() and lut.max() < 256
        assert lut[width] == offset - amplitude  # a tie depresses, by the full amplitude
        before, after = lut[:width], lut[width:]
        assert (before >= offset).all() and (after <= offset).all()
        assert (np.diff(before) >= 0).all() and (np.diff(after) >= 0).all()
        assert (offset - after[1:] == before[::-1] - offset).all()  # the same size on both sides


def test_published_kernel():
    lut = build_lut(load_config("s2tdpt-4-384"))
    assert (lut.min(), lut.max(), len(lut)) == (1, 240, 65)
    for d in range(-32, 33):
        e = 127 * math.exp(-abs(d) / 8)
        assert abs(lut[d + 32] - (128 + e if d < 0 else 128 - e)) <= 0.5
    for name in named_configs():
        assert len(build_lut(load_config(name))) == 2 * load_config(name).head_dim + 1


def random_spikes(rng, m, n, d, rate):
    return torch.tensor(rng.random((m, n, d)) < rate)


@pytest.mark.parametrize("heads,width", [(1, 1), (1, 7), (2, 5), (3, 4), (2, 32)])
@pytest.mark.parametrize("tokens", [1, 5, 16, 23])
def test_both_forms_equal_the_definition(heads, width, tokens):
    rng = np.random.default_rng(heads * 100 + width + tokens)
    config = make_config(sps_channels=[4, heads * width], heads=heads)
    lut = build_lut(config).astype(np.int64)
    q, k, v = (random_spikes(rng, 3, tokens, heads * width, rate) for rate in (0.5, 0.4, 0.6))
    q[0], k[0], v[0] = False, True, True  # every query silent, every key and value full: d = d_h
    q[1, : tokens // 2 + 1], k[1] = True, False  # d = -d_h for some
    rq = q.numpy().reshape(3, tokens, heads, width).sum(-1)
    rk = k.numpy().reshape(3, tokens, heads, width).sum(-1)
    expected = np.zeros((3, tokens, heads, width), np.int64)
    values = v.numpy().reshape(3, tokens, heads, width)
    for i in range(tokens):
        for j in range(tokens):
            expected[:, i] += lut[rk[:, j] - rq[:, i] + width][..., None] * values[:, j]
    for dtype in (torch.int64, torch.float32, torch.float64):
        arguments = [x.to(dtype) for x in (q, k, v)] + [torch.tensor(lut).to(dtype), heads]
        for form in (attention_matrix, attention_rows):
            y = form(*arguments)
            assert y.shape == v.shape and y.dtype == dtype
            assert np.array_equal(y.long().numpy(), expected.reshape(3, tokens, -1))


def test_weights_are_query_by_key():
    lut = torch.arange(5)  # d_h = 2: entry d + 2
    weights = attention_weights(torch.tensor([0, 2]), torch.tensor([0, 1]), lut)
    assert weights.tolist() == [[2, 3], [0, 1]]


def test_popcount_by_head():
    spikes = torch.tensor([[1, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0]])
    for dtype in (torch.int64, torch.float32):
        assert popcount(spikes.to(dtype), 2).tolist() == [[2, 3], [0, 1]]


def test_a_query_key_mix_up_would_be_noticed():
    """Plant: the kernel is not symmetric, exchanging Q and K changes the result."""
    rng = np.random.default_rng(0)
    config = SHAPES["base"]
    lut = torch.tensor(build_lut(config)).long()
    q, k, v = (random_spikes(rng, 2, 9, 12, rate).long() for rate in (0.5, 0.3, 0.5))
    assert not torch.equal(attention_matrix(q, k, v, lut, 2), attention_matrix(k, q, v, lut, 2))
