"""Trace comparison: every planted difference is found where it was planted."""

import numpy as np
import pytest

from s2tdpt.golden.compare import compare_trace, compare_traces, first_difference
from s2tdpt.golden.network import GoldenNetwork
from tests.golden.shapes import SHAPES, images_for, params_for


@pytest.fixture(scope="module")
def traces():
    config = SHAPES["odd-pooled"]
    traces = GoldenNetwork(params_for(config)).trace(images_for(config, 3))
    return {name: value.numpy() for name, value in traces.items()}


def copy(traces):
    return {name: value.copy() for name, value in traces.items()}


def test_equal_traces(traces):
    assert compare_traces(traces, copy(traces)) == [] and first_difference(traces, copy(traces)) is None


def test_every_planted_difference_is_located(traces):
    rng = np.random.default_rng(0)
    for name, value in traces.items():
        got = copy(traces)
        place = tuple(int(rng.integers(0, n)) for n in value.shape)
        got[name][place] = traces[name][place] ^ 1
        difference = first_difference(traces, got)
        assert difference == compare_trace(name, traces[name], got[name])
        assert (difference.name, difference.count, difference.total) == (name, 1, value.size)
        assert (difference.expected, difference.got) == (traces[name][place], traces[name][place] ^ 1)
        found = (difference.image, difference.step, difference.token, difference.channel)
        wanted = {4: place, 2: (place[0], None, None, place[-1]), 1: (place[0], None, None, None)}[value.ndim]
        assert found == wanted


def test_the_earliest_layer_comes_first_whatever_the_order(traces):
    got = copy(traces)
    for name in ("head.class", "block.0.attn", "sps.2.pooled", "sps.1.spikes"):
        got[name] = got[name] ^ 1
    shuffled = {name: got[name] for name in sorted(got, reverse=True)}
    names = [difference.name for difference in compare_traces(traces, shuffled)]
    assert names == ["sps.1.spikes", "sps.2.pooled", "block.0.attn", "head.class"]
    assert first_difference(traces, got, ["head.class", "block.0.attn"]).name == "block.0.attn"
    assert first_difference(traces, got, ["block.0.q"]) is None


def test_first_means_image_then_step_then_token_then_channel():
    expected = np.zeros((2, 3, 4, 5), int)
    got = expected.copy()
    got[0, 2, 1, 3], got[0, 2, 2, 0], got[1, 0, 0, 0] = 7, 8, 9
    difference = compare_trace("block.0.y", expected, got)
    assert (difference.image, difference.step, difference.token, difference.channel) == (0, 2, 1, 3)
    assert str(difference) == (
        "block.0.y: image 0, step 2, token 1, channel 3: expected 0, got 7 (3 of 120 values differ)"
    )
    assert str(compare_trace("head.class", [1, 2], [1, 3])) == (
        "head.class: image 1: expected 2, got 3 (1 of 2 values differ)"
    )


def test_what_cannot_be_compared(traces):
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_trace("sps.u", traces["sps.u"], traces["sps.u"][:, :1])
    with pytest.raises(ValueError, match="expected two equal shapes of 4, 2 or 1 axes"):
        compare_trace("sps.u", np.zeros((2, 3, 4)), np.zeros((2, 3, 4)))
    less = copy(traces)
    del less["sps.u"]
    for pair in ((traces, less), (less, traces)):
        with pytest.raises(ValueError, match="on one side only: sps.u"):
            compare_traces(*pair)
