"""Bounds: attained by inputs built for the purpose, exceeded by none."""

import itertools

import numpy as np
import pytest
import torch

from s2tdpt.golden.attention.stdp import LUT, table_interval
from s2tdpt.golden.bounds import (
    Interval,
    carried_interval,
    derive_bounds,
    neuron_interval,
    neuron_membrane,
    pixel_sums,
    union,
    weight_sums,
)
from s2tdpt.golden.conv import conv3x3
from s2tdpt.golden.linear import linear
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params, random_params
from tests.golden.shapes import SHAPES, images_for, make_config, params_for


def objects(*values):
    return np.array(values, dtype=object)


def test_interval():
    interval = Interval(-3, 8)
    assert (interval.signed_bits, interval.magnitude) == (5, 8)
    assert Interval(0, 8).unsigned_bits == 4 and 8 in interval and 9 not in interval
    assert interval | Interval(-9, 0) == Interval(-9, 8) == union([interval, Interval(-9, 0)])
    with pytest.raises(ValueError):
        Interval(1, 0)
    with pytest.raises(ValueError):
        _ = interval.unsigned_bits


def test_sums_are_attained_by_every_channel():
    params = params_for(SHAPES["zero-point"], 2)
    bounds = derive_bounds(params)
    for layer in params.config.layer_names()[1:-1]:
        weight = torch.tensor(params.weight(layer)).long()
        low, high = weight_sums(params.weight(layer))
        for c in range(len(weight)):
            for wanted, value in ((weight[c] > 0, high[c]), (weight[c] < 0, low[c])):
                if weight.dim() == 4:  # the spikes that surround the middle of a 3x3 map
                    acc = conv3x3(wanted.permute(1, 2, 0).long().unsqueeze(0), weight)[0, 1, 1, c]
                else:
                    acc = linear(wanted.long(), weight)[c]
                assert acc.item() == value
        assert bounds.acc[layer] == bounds.preact[layer] == Interval(min(low), max(high))


@pytest.mark.parametrize("zero_point", [0, 128])
def test_pixel_sums_are_attained_and_cover_every_prefix(zero_point):
    rng = np.random.default_rng(zero_point)
    weight = rng.integers(-127, 128, (5, 2, 3, 3))
    weight[0], weight[1] = 127, -127
    low, high = pixel_sums(weight, zero_point)
    flat = weight.reshape(5, -1)
    darkest, brightest = -zero_point, 255 - zero_point
    for c in range(5):
        assert (flat[c] * np.where(flat[c] > 0, brightest, darkest)).sum() == high[c]
        assert (flat[c] * np.where(flat[c] > 0, darkest, brightest)).sum() == low[c]
    pixels = rng.integers(0, 256, (2000, 18))
    pixels[:500] = rng.choice([0, 1, 127, 128, 254, 255], (500, 18))
    centred = pixels - zero_point
    for pixel in centred[::7]:
        total = np.zeros(5, np.int64)
        for plane in range(7, -1, -1):  # most significant first; the top plane of a signed byte is negative
            bits = (pixel >> plane) & 1
            sign = -1 if plane == 7 and zero_point else 1
            total = 2 * total
            for tap in range(18):  # partial sums within a plane
                total = total + sign * flat[:, tap] * bits[tap]
                assert (low <= total).all() and (total <= high).all()
        assert (total == flat @ pixel).all()


def test_membrane_interval_is_exact_for_every_small_case():
    """All input sequences of all small intervals: the ends are attained, nothing lies outside."""
    for lo, hi in itertools.combinations_with_replacement(range(-4, 6), 2):
        for threshold in (1, 2, 3, 5, 7):
            for steps in (1, 2, 3):
                seen = set()
                for sequence in itertools.product(range(lo, hi + 1), repeat=steps):
                    h = 0
                    for x in sequence:
                        u = h + x
                        seen.add(u)
                        h = 0 if u >= threshold else u >> 1
                low, high = neuron_membrane((objects(lo), objects(hi)), threshold, steps)
                assert (low[0], high[0]) == (min(seen), max(seen)), (lo, hi, threshold, steps)


def test_interval_of_neurons_with_mixed_thresholds():
    """Thresholds of which only the largest is known, all input sequences of all small intervals."""
    for lo, hi in itertools.combinations_with_replacement(range(-4, 6), 2):
        drive = Interval(lo, hi)
        for largest in (1, 2, 4, 7):
            for steps in (1, 2, 3):
                seen, carried = set(), {0}
                for sequence in itertools.product(range(lo, hi + 1), repeat=steps):
                    for threshold in range(1, largest + 1):
                        h = 0
                        for x in sequence:
                            seen.add(h + x)
                            h = 0 if h + x >= threshold else (h + x) >> 1
                            carried.add(h)
                u = neuron_interval(drive, largest, steps)
                assert u.lo <= min(seen) and max(seen) <= u.hi
                h = carried_interval(u, largest)
                assert h.lo <= min(carried) and max(carried) <= h.hi
                for threshold in range(1, largest + 1):
                    low, high = neuron_membrane((objects(lo), objects(hi)), threshold, steps)
                    assert u.lo <= low[0] and high[0] <= u.hi
                if lo <= 0 <= hi:  # any state can be kept or lost: the ends are attained
                    assert (u.lo, u.hi) == (min(seen), max(seen))
    assert neuron_interval(Interval(-4, 5), 7, 1) == Interval(-4, 5)
    assert carried_interval(Interval(-5, 20), 7) == Interval(-3, 3)


def test_membrane_interval_is_attained_over_eight_steps():
    rng = np.random.default_rng(0)
    lo = rng.integers(-900, 200, 300)
    hi = lo + rng.integers(0, 1200, 300)
    threshold = rng.integers(1, 1500, 300)
    low, high = neuron_membrane((lo.astype(object), hi.astype(object)), threshold.astype(object), 8)
    least, most = np.full(300, 10**9), np.full(300, -(10**9))
    for trial in range(200):
        h = np.zeros(300, np.int64)
        for _ in range(8):
            if trial == 0:  # sink as deep as possible
                x = lo
            elif trial == 1:  # stay just below the threshold: the largest state that can be carried over
                x = np.clip(threshold - 1 - h, lo, hi)
            else:
                x = rng.integers(lo, hi + 1)
            u = h + x
            least, most = np.minimum(least, u), np.maximum(most, np.maximum(u, h + hi))
            h = np.where(u >= threshold, 0, u >> 1)
    assert (low == least).all() and (most == high).all()


def membranes(current: np.ndarray, threshold: np.ndarray | int) -> tuple[int, int]:
    """Least and greatest membrane for inputs (B, T, N, C)."""
    h, seen = 0, []
    for t in range(current.shape[1]):
        u = h + current[:, t]
        seen += [u.min(), u.max()]
        h = np.where(u >= threshold, 0, u >> 1)
    return min(seen), max(seen)


def assert_inside(interval: Interval, *values: int) -> None:
    for value in values:
        assert int(value) in interval, (value, interval)


@pytest.mark.parametrize("name", SHAPES)
def test_no_integer_of_a_running_network_leaves_its_interval(name):
    params = params_for(SHAPES[name], 7)
    config, bounds = params.config, derive_bounds(params)
    images = images_for(config, 6)
    images[0], images[1] = 0, 255
    trace = {key: value.long().numpy() for key, value in GoldenNetwork(params).trace(images).items()}
    for layer in config.layers():
        name = layer.name
        if layer.block is not None:
            value = trace[layer.reads] @ params.weight(name).astype(np.int64).T
            assert_inside(bounds.acc[name], value.min(), value.max())
            if layer.writer:
                written = (value << params.shift(name)) + params.bias(name)
                assert_inside(bounds.written[name], written.min(), written.max())
            else:
                ends = membranes(value + params.bias(name), params.threshold(name))
                assert_inside(bounds.membrane[name], *ends)
        if layer.writer:
            u = trace[layer.writes]
            assert_inside(bounds.residual[name], u.min(), u.max())
            assert_inside(bounds.residual_any, u.min(), u.max())
            if name in bounds.residual_membrane:
                ends = membranes(u, params.residual_threshold)
                assert_inside(bounds.residual_membrane[name], *ends)
    for b in range(config.depth):
        y = trace[f"block.{b}.y"]
        assert_inside(bounds.attention, y.min(), y.max())
        assert_inside(bounds.attention_membrane, *membranes(y, params.attention_threshold))
    assert set(bounds.residual) - set(bounds.residual_membrane) == {f"block.{config.depth - 1}.fc2"}
    assert set(bounds.membrane) == {layer.name for layer in config.layers() if layer.lif_fed}
    assert_inside(bounds.head_sum, trace["head.sum"].min(), trace["head.sum"].max())
    assert_inside(bounds.logits, trace["head.logits"].min(), trace["head.logits"].max())


def test_the_first_stream_attains_its_interval():
    """A stem of one convolution: one image per channel drives U to its greatest and least value."""
    changes = dict(sps_channels=[6], sps_pool=[False], image_height=3, image_width=3)
    config = make_config(pixel_zero_point=128, **changes)
    params = random_params(config, 3)
    weight = params.weight("sps.0").astype(np.int64)
    bright = np.stack([np.where(w > 0, 255, 0).transpose(1, 2, 0) for w in weight])
    images = np.concatenate([bright, 255 - bright]).astype(np.uint8)
    u = GoldenNetwork(params).trace(images)["sps.u"]
    interval = derive_bounds(params).residual["sps.0"]
    assert (u.min().item(), u.max().item()) == (interval.lo, interval.hi)


def test_attention_attains_its_interval():
    params = params_for(SHAPES["base"])
    lut = torch.tensor(params.tensors[LUT]).long()
    best = int(lut.argmax()) - 6  # difference of counts with the largest weight
    spikes = torch.zeros((1, 9, 6), dtype=torch.long)
    q, k = spikes.clone(), spikes.clone()
    q[..., : max(0, -best)] = 1
    k[..., : max(0, best)] = 1
    y = params.config.attention.y(params.config, {LUT: lut}, q, k, torch.ones_like(spikes))
    assert y.max().item() == derive_bounds(params).attention.hi == 9 * int(lut.max())
    assert table_interval(params.tensors[LUT], 9) == derive_bounds(params).attention
    assert table_interval([-3, 5], 4) == Interval(-12, 20) and table_interval([2], 3) == Interval(0, 6)


def test_head_interval_is_attained_by_its_own_sums():
    params = params_for(SHAPES["base"])
    tensors = {name: np.array(value) for name, value in params.tensors.items()}
    for name, value in tensors.items():  # only the stem writes, and only its bias: U is known
        if name.endswith((".weight", ".bias")):
            value[...] = 0
    tensors["sps.1.bias"][:] = [100, -50] * 6
    tensors["head.weight"][:] = np.arange(60).reshape(5, 12) - 30
    tensors["head.bias"][:] = [1000, 0, -1000, 7, -7]
    params = Params(params.config, tensors)
    trace = GoldenNetwork(params).trace(images_for(params.config, 1))
    bounds = derive_bounds(params)
    assert (trace["head.sum"].min().item(), trace["head.sum"].max().item()) == (-50 * 36, 100 * 36)
    assert bounds.head_sum == Interval(-50 * 36, 100 * 36)
    assert_inside(bounds.logits, *trace["head.logits"].flatten().tolist())


def test_widths_list_every_interval():
    params = params_for(SHAPES["base"])
    bounds = derive_bounds(params)
    widths = bounds.widths()
    assert widths["acc.sps.0"] == bounds.acc["sps.0"].signed_bits
    assert widths["logits"] == bounds.logits.signed_bits
    assert len(widths) == 2 * 8 + 5 + 3 * 2 + 2 + 4


def test_a_bound_that_is_one_too_small_would_be_noticed():
    """Plant: with the leak forgotten, the interval is left by some input."""
    low, high = neuron_membrane((objects(-4), objects(5)), 7, 1)
    u = 5 + (5 >> 1)
    assert not low[0] <= u <= high[0]
    with pytest.raises(AssertionError):
        assert_inside(Interval(int(low[0]), int(high[0])), u)
