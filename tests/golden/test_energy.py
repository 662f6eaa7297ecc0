"""Counts and energies against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from s2tdpt.golden.activity import Activity, measure, tap_counts
from s2tdpt.golden.complexity import input_trace, macs, trace_bytes
from s2tdpt.golden.config import load_config, named_configs
from s2tdpt.golden.energy import (
    add_energy,
    dense_energy,
    energy_report,
    rest_additions,
    sram_energy,
    theory_energy,
    theory_operations,
)
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.golden.trace import spike_traces, trace_names, trace_shapes
from tests.golden.shapes import SHAPES, images_for, make_config, params_for

TINY = make_config(
    image_height=2,
    image_width=2,
    image_channels=1,
    num_classes=2,
    timesteps=2,
    sps_channels=[2],
    sps_pool=[False],
    heads=1,
    mlp_ratio=1,
)
"""Four tokens of two channels: sps.0 has 72 MACs, every projection 16, qk and av 32, the head 4."""
RATES = {
    "block.0.x": 0.5,
    "block.0.q": 0.25,
    "block.0.k": 0.125,
    "block.0.v": 0.5,
    "block.0.attn": 0.25,
    "block.0.mlp_in": 1.0,
    "block.0.hidden": 0.125,
}


def test_theory_by_hand():
    operations = theory_operations(TINY, RATES)
    assert operations == {
        "sps.0": (72, True),
        "block.0.q": (16, False),
        "block.0.k": (16, False),
        "block.0.v": (16, False),
        "block.0.qk": (16, False),
        "block.0.av": (32, False),
        "block.0.proj": (8, False),
        "block.0.fc1": (32, False),
        "block.0.fc2": (4, False),
        "head": (4, True),
    }
    assert theory_operations(TINY, RATES, 2) == operations | {"sps.0": (144, True)}
    assert theory_energy(TINY, RATES) == pytest.approx(76 * 4.6 + 140 * 0.9)
    assert theory_energy(TINY, RATES, 2) == pytest.approx(148 * 4.6 + 140 * 0.9)
    assert dense_energy(TINY) == pytest.approx(236 * 4.6)


def test_published_size_and_energy():
    """S2TDPT-4-384: 934.07 M MACs, 4.30 mJ dense; the published 0.49 mJ needs rates of about 14 %."""
    config = load_config("s2tdpt-4-384")
    assert dense_energy(config) == pytest.approx(4.2967e9, rel=1e-4)
    for steps, percent in ((1, 14.41), (4, 13.87)):
        rates = dict.fromkeys(trace_names(config), percent / 100)
        assert theory_energy(config, rates, steps) == pytest.approx(0.49e9, rel=1e-3)


@pytest.mark.parametrize("name", named_configs())
def test_every_layer_has_a_source_in_the_trace(name):
    config = load_config(name)
    sources = input_trace(config)
    assert list(sources) == [layer for layer in config.layer_names() if layer not in ("sps.0", "head")]
    shapes = trace_shapes(config)
    for layer, source in sources.items():
        assert source in spike_traces(config)
        inputs = config.weight_shape(layer)[1]
        assert shapes[source][2] == inputs
        taps = tap_counts(config.layer(layer))
        assert len(taps) == shapes[source][1]
        outputs = config.weight_shape(layer)[0]
        # MACs count the taps outside the map as well, events do not.
        full = shapes[source][1] * (9 if layer.startswith("sps.") else 1)
        assert macs(config)[layer] == full * inputs * outputs
        assert taps.sum() <= full and (taps.sum() < full) == layer.startswith("sps.")
    assert trace_bytes(config) == sum(
        np.prod(shape) * (1 if trace in spike_traces(config) else 8) for trace, shape in shapes.items()
    )


def test_taps_at_the_border():
    config = make_config(image_height=3, image_width=2, sps_channels=[1, 2], sps_pool=[False, False])
    assert (
        tap_counts(config.layer("sps.0")).tolist()
        == tap_counts(config.layer("sps.1")).tolist()
        == [4, 4, 6, 6, 4, 4]
    )
    line = make_config(image_height=1, image_width=4, sps_channels=[2], sps_pool=[False])
    assert tap_counts(line.layer("sps.0")).tolist() == [2, 3, 3, 2]
    point = make_config(image_height=1, image_width=1, sps_channels=[2], sps_pool=[False])
    assert tap_counts(point.layer("sps.0")).tolist() == [1]
    assert tap_counts(config.layer("block.0.q")).tolist() == [1] * 6


def empty_trace(config) -> dict[str, np.ndarray]:
    return {
        name: np.zeros((1, *shape), np.uint8 if name in spike_traces(config) else np.int64)
        for name, shape in trace_shapes(config).items()
    }


@pytest.mark.parametrize("zero_point, bits, nonzero", [(0, 66, 38), (128, 70, 48)])
def test_counts_of_the_stem_and_head_by_hand(zero_point, bits, nonzero):
    config = make_config(
        image_height=3,
        image_width=2,
        image_channels=1,
        sps_channels=[1, 2],
        sps_pool=[False, False],
        timesteps=2,
        heads=1,
        pixel_zero_point=zero_point,
    )
    pixels = np.array([3, 0, 255, 128, 1, 0], np.uint8).reshape(1, 3, 2, 1)
    trace = empty_trace(config)
    trace["sps.0.spikes"][0, 0, [0, 2], 0] = 1  # step 0: a corner (4 taps) and the middle of a side (6)
    trace["sps.0.spikes"][0, 1, 0, 0] = 1  # step 1: the corner again
    trace["head.sum"][0] = [-1, 300]  # ten bits in five pairs; 01 00 10 11 00
    activity = Activity(config, head_bits=10)
    activity.add(pixels, trace)
    assert (activity.events["sps.0"], activity.reads["sps.0"]) == (bits, nonzero)
    assert (activity.events["sps.1"], activity.reads["sps.1"]) == (14, 10)
    assert (activity.events["head"], activity.reads["head"]) == (14, 8)
    assert activity.spikes["sps.0.spikes"] == 3 and activity.rate("sps.0.spikes") == 3 / 12
    assert activity.events["block.0.q"] == 0 and activity.rates["block.0.q"] == 0
    activity.add(pixels, trace)
    assert activity.images == 2 and activity.events["sps.1"] == 28 and activity.rate("sps.0.spikes") == 3 / 12


def test_counts_of_a_projection_and_the_attention_by_hand():
    config = make_config(
        image_height=1, image_width=3, sps_channels=[4], sps_pool=[False], timesteps=2, heads=2, mlp_ratio=1
    )
    trace = empty_trace(config)
    # Step 0, first head: query counts 2, 0, 2 (two occur); values at token 0 (one) and token 2 (two).
    trace["block.0.q"][0, 0, [0, 2], :2] = 1
    trace["block.0.k"][0, 0, 1, 0] = 1
    trace["block.0.v"][0, 0, 0, 1] = 1
    trace["block.0.v"][0, 0, 2, :2] = 1
    # Step 1, second head: query counts 1, 2, 0 (three occur); a value at token 1.
    trace["block.0.q"][0, 1, 0, 2] = trace["block.0.q"][0, 1, 1, 2] = trace["block.0.q"][0, 1, 1, 3] = 1
    trace["block.0.v"][0, 1, 1, 2] = 1
    trace["block.0.x"][0, :, 1, 0] = 1  # one channel in both steps: two events, one read
    trace["block.0.x"][0, 1, 2, 3] = 1
    activity = Activity(config, head_bits=8)
    activity.add(np.zeros((1, 1, 3, 2), np.uint8), trace)
    # Token 0 defines the rows of each of the 4 (step, head): 2 and 1, 1 and 3 rows; then token 2 touches 2
    # rows in step 0, token 1 touches 3 rows in step 1.
    assert activity.attention[0] == dict(
        counted=4 + 1 + 3, updates=(2 + 1 + 1 + 3) + 2 + 3, additions=3 * 2 + 1 * 3, outputs=3 * 2 * 2
    )
    for part in "qkv":
        assert (activity.events[f"block.0.{part}"], activity.reads[f"block.0.{part}"]) == (3, 2)


def reference_counts(config, trace):
    """Events of every layer and attention counts of one image, by loops."""
    events, reads = {}, {}
    for layer, name in input_trace(config).items():
        stem = layer.startswith("sps.")
        h, w = config.map_size(int(layer[4:])) if stem else (1, config.tokens)
        spikes = trace[name].reshape(config.timesteps, h, w, -1)
        total = shared = 0
        for y in range(h):
            for x in range(w):
                for dy in (-1, 0, 1) if stem else (0,):
                    for dx in (-1, 0, 1) if stem else (0,):
                        if 0 <= y + dy < h and 0 <= x + dx < w:
                            seen = spikes[:, y + dy, x + dx]
                            total += int(seen.sum())
                            shared += int(seen.any(0).sum())
        events[layer], reads[layer] = total, shared
    attention = {}
    d_h = config.head_dim
    for b in range(config.depth):
        counts = dict.fromkeys(("counted", "updates", "additions", "outputs"), 0)
        for t in range(config.timesteps):
            for h in range(config.heads):
                q, k, v = (trace[f"block.{b}.{p}"][t][:, h * d_h : (h + 1) * d_h] for p in "qkv")
                occurring = {int(row.sum()) for row in q}
                counts["counted"] += int(q.sum() + k.sum())
                for j in range(config.tokens):
                    counts["outputs"] += 1
                    if j == 0 or v[j].any():
                        counts["updates"] += len(occurring)
                        counts["additions"] += len(occurring) * int(v[j].sum())
        attention[b] = counts
    return events, reads, attention


@pytest.mark.parametrize(
    "name", ["base", "odd-pooled", "head-dim-5", "head-dim-1", "one-step", "single-token"]
)
def test_counts_are_those_of_a_plain_walk(name):
    config = SHAPES[name]
    golden = GoldenNetwork(params_for(config, 2))
    images = images_for(config, 2)
    for image in images:
        trace = {key: value.numpy() for key, value in golden.trace(image[None]).items()}
        activity = Activity(config, golden.bounds.head_sum.signed_bits)
        activity.add(image[None], trace)
        events, reads, attention = reference_counts(config, {key: value[0] for key, value in trace.items()})
        assert {layer: activity.events[layer] for layer in events} == events
        assert {layer: activity.reads[layer] for layer in reads} == reads
        assert activity.attention == attention


def test_measure_is_independent_of_the_pieces(monkeypatch):
    config = SHAPES["odd-pooled"]
    golden = GoldenNetwork(params_for(config, 1))
    images = images_for(config, 7)
    labels = golden.classify(images).numpy()
    labels[[1, 4]] = (labels[[1, 4]] + 1) % config.num_classes
    seen = []
    whole = measure(golden, images, labels, seen.append)
    assert whole.images == 7 and whole.correct == 5 and seen == [7]
    monkeypatch.setattr("s2tdpt.golden.activity.TRACE_BUDGET", 3 * trace_bytes(config))
    pieces = measure(golden, images, labels, seen.append)
    assert seen == [7, 3, 3, 1] and pieces == whole
    monkeypatch.setattr("s2tdpt.golden.activity.TRACE_BUDGET", 1)
    assert measure(golden, images).events == whole.events
    trace = golden.trace(images)
    expected = {
        name: float(value.double().mean()) for name, value in trace.items() if name in spike_traces(config)
    }
    assert whole.rates == pytest.approx(expected)


def test_energies_of_operations():
    assert [sram_energy(size) for size in (1, 8192, 8193, 32768, 32769, 1 << 20, 1 << 30)] == [
        10,
        10,
        20,
        20,
        100,
        100,
        100,
    ]
    assert [add_energy(bits) for bits in (1, 8, 9, 32, 33)] == [0.03, 0.03, 0.1, 0.1, 0.2]


def test_additions_that_follow_from_the_shape():
    """Two a neuron and step (56 neurons), biases 8 + 6 x 16 + 2, planes 8 x 7 + 2 x 9, stream 2 x 16."""
    assert rest_additions(TINY, head_bits=10) == 224 + 106 + 74 + 32


@pytest.mark.parametrize("weight, adder", [(127, 0.1), (50, 0.03)])
def test_integer_column_by_hand(weight, adder):
    """Sums of two weights of 127 need 9 bits, of 50 they need 8."""
    source = params_for(TINY)
    tensors = {
        name: np.full_like(value, weight) if name.endswith(".weight") and "sps" not in name else value
        for name, value in source.tensors.items()
    }
    golden = GoldenNetwork(Params(TINY, tensors))
    assert golden.bounds.attention.hi == 4 * 240  # 10 bits
    activity = Activity(TINY, head_bits=golden.bounds.head_sum.signed_bits, images=2, correct=1)
    activity.spikes = {name: int(rate * 32) for name, rate in RATES.items()}  # of 2 x 2 x 4 x 2
    layers = ["sps.0", *(f"block.0.{part}" for part in ("q", "k", "v", "proj", "fc1", "fc2")), "head"]
    activity.events = {layer: 16 + 2 * i for i, layer in enumerate(layers)}
    activity.reads = {layer: 8 + 2 * i for i, layer in enumerate(layers)}
    activity.attention = {0: dict(counted=10, updates=6, additions=14, outputs=16)}
    report = energy_report(golden, activity)
    assert report.weight_bytes == 18 + 6 * 4 + 4 and report.accuracy == 0.5
    rows = {row.name: row for row in report.layers}
    assert list(rows) == [*macs(TINY), "neurons, bias, U"]

    q = rows["block.0.q"]  # 18 events of 2 images, 2 outputs: 18 additions, 2 x 8 bits a row at 10 / 64 pJ
    assert (q.source, q.rate, q.macs, q.operations, q.additions) == ("block.0.x", 0.5, 16, 16, 18)
    assert q.theory == pytest.approx(16 * 0.9) and q.adders == pytest.approx(18 * adder)
    assert q.reads_each == pytest.approx(9 * 16 * 10 / 64)
    assert q.reads_shared == pytest.approx(5 * 16 * 10 / 64)
    assert q.dense_adders == pytest.approx(16 * 0.3) and q.dense_reads == pytest.approx(4 * 2 * 16 * 10 / 64)
    first = rows["sps.0"]  # 2 x 2 map: 4 taps reach every pixel
    assert first.rate is None and first.theory == pytest.approx(72 * 4.6) and first.additions == 16
    assert first.dense_reads == pytest.approx(4 * 4 * 16 * 10 / 64)
    qk, av = rows["block.0.qk"], rows["block.0.av"]
    assert (qk.source, qk.operations, qk.additions, qk.reads_each) == ("block.0.q", 16, (10 + 6) / 2, 0)
    assert qk.adders == pytest.approx(8 * 0.03)
    assert (av.source, av.operations, av.additions) == ("block.0.v", 32, 7)
    assert av.adders == pytest.approx(7 * 0.1)
    assert av.reads_each == av.reads_shared == pytest.approx((2 * 6 + 16) / 2 * 2 * 10 * 10 / 64)
    head = rows["head"]
    assert (head.source, head.operations, head.additions) == ("head.sum", 4, 15 * 2)
    assert head.dense_reads == pytest.approx(2 * 16 * 10 / 64)

    totals = report.totals
    assert totals["theory"] == pytest.approx(76 * 4.6 + 140 * 0.9)
    assert totals["theory_every_step"] == pytest.approx(148 * 4.6 + 140 * 0.9)
    assert totals["dense_float"] == pytest.approx(236 * 4.6) and totals["published"] == 0.49e9
    assert totals["dense_int8_arithmetic"] == pytest.approx(236 * 0.3)
    for name, field in (("integer_adders", "adders"), ("integer_reads_shared", "reads_shared")):
        assert totals[name] == pytest.approx(sum(getattr(row, field) for row in report.layers))
    data = report.as_dict()
    assert data["totals_pj"] == totals and len(data["layers"]) == len(report.layers)
    assert data["weight_read_pj_per_64_bits"] == 10
