"""The records that describe a network: order, what reads what, and agreement with the traces."""

import math

import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.golden.layers import HEAD_SUM, PIXELS, Attention, Kind, Layer, StreamNeurons
from s2tdpt.golden.trace import spike_traces, trace_names, traces
from tests.golden.shapes import SHAPES, make_config, random_config

CONFIGS = [*SHAPES.values(), *(random_config(seed) for seed in range(8)), load_config("s2tdpt-4-384")]


@pytest.mark.parametrize("config", CONFIGS)
def test_everything_is_written_before_it_is_read(config):
    known, stream = {PIXELS: config.image_channels}, None
    for part in config.parts():
        match part:
            case Layer():
                if part.pools is not None:
                    known[part.reads] = known[part.pools]
                if part.head:
                    assert part.reads == HEAD_SUM and part.writes == "head.logits"
                else:
                    assert known[part.reads] == part.inputs
                    known[part.writes] = part.outputs
                if part.writer:
                    assert part.outputs == config.embed_dim
                    assert part.starts_stream == (stream is None)
                    stream = part.writes
            case Attention():
                assert {known[name] for name in (part.q, part.k, part.v)} == {config.embed_dim}
                assert part.heads * part.head_dim == config.embed_dim and part.tokens == config.tokens
                known[part.writes] = part.channels
            case StreamNeurons():
                assert part.reads == stream  # always the latest U
                known[part.writes] = part.channels
    assert set(known) - {PIXELS} == {
        name for name, trace in traces(config).items() if not trace.head and not name.endswith(".y")
    }


@pytest.mark.parametrize("config", CONFIGS)
def test_traces_follow_from_the_records(config):
    for layer in config.layers():
        trace = traces(config)[layer.writes]
        if layer.head:
            assert (layer.positions, trace.shape) == (1, (config.num_classes,))
            continue
        assert trace.shape == (config.timesteps, layer.positions, layer.outputs)
        assert trace.size == layer.size and trace.spikes == layer.lif_fed and trace.block == layer.block
        assert -(-config.image_height // trace.stride) == trace.size[0]
    heads = [name for name, trace in traces(config).items() if trace.head]
    assert heads == list(trace_names(config))[-3:] == ["head.sum", "head.logits", "head.class"]
    assert set(spike_traces(config)).isdisjoint({"sps.u", *heads})


def test_a_small_network_by_hand():
    config = make_config()
    q = config.layer("block.0.q")
    assert config.layers()[2] is q and config.parts()[3] is q
    assert q == Layer("block.0.q", Kind.Q, 0, 12, 12, 1, (3, 3), "block.0.x", "block.0.q")
    assert (q.weight_shape, q.weights, q.macs, q.positions) == ((12, 12), 144, 1296, 9)
    stem = config.layer("sps.1")
    assert (stem.reads, stem.pools, stem.writes) == ("sps.1.pooled", "sps.0.spikes", "sps.u")
    assert stem.weight_shape == (12, 6, 3, 3) and stem.starts_stream and stem.block is None
    flags = {
        layer.name: (layer.lif_fed, layer.writer, layer.spike_driven, layer.float_bias)
        for layer in config.layers()
    }
    assert flags == {
        "sps.0": (True, False, False, False),
        "sps.1": (False, True, True, False),
        "block.0.q": (True, False, True, False),
        "block.0.k": (True, False, True, False),
        "block.0.v": (True, False, True, False),
        "block.0.proj": (False, True, True, True),
        "block.0.fc1": (True, False, True, True),
        "block.0.fc2": (False, True, True, True),
        "head": (False, False, False, True),
    }
    with pytest.raises(KeyError):
        config.layer("block.1.q")


def test_records_belong_to_one_configuration():
    """A copy with another field has its own records."""
    config = make_config()
    wider = config.model_copy(update={"mlp_ratio": 3})
    assert math.prod(wider.weight_shape("block.0.fc1")) == 36 * 12
    assert config.layer("block.0.fc1").outputs == 24
