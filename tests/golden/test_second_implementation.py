"""The reference, the fast model and a second implementation in loops: equal at every trace."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.compare import first_difference
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.golden.reference import ReferenceNetwork
from s2tdpt.golden.shipped import load
from s2tdpt.golden.trace import spike_traces, trace_names, trace_shapes, traces
from tests.golden import loops
from tests.golden.shapes import SHAPES, images_for, make_config, params_for, random_config


def traces_of_loops(params: Params, images: np.ndarray, directory) -> dict[str, np.ndarray]:
    path = directory / "params.safetensors"
    params.save(path)
    manifest, tensors = loops.read(path)
    singles = [loops.run(manifest, tensors, image) for image in images]
    return {name: np.stack([single[name] for single in singles]) for name in singles[0]}


def check(config: NetworkConfig, params: Params, directory, count: int = 2) -> dict[str, np.ndarray]:
    images = images_for(config, count)
    expected = traces_of_loops(params, images, directory)
    for network in (ReferenceNetwork(params), GoldenNetwork(params), GoldenNetwork(params, streamed=True)):
        got = network.trace(images)
        assert tuple(got) == trace_names(config)
        assert {name: tuple(value.shape[1:]) for name, value in got.items()} == trace_shapes(config)
        assert first_difference(expected, got) is None
        spikes = set(spike_traces(config))
        signed = {name for name in spikes if traces(config)[name].emits.signed}
        assert {name for name, value in got.items() if value.dtype == torch.int8} == signed
        assert {name for name, value in got.items() if value.dtype == torch.uint8} == spikes - signed
        assert {value.dtype for name, value in got.items() if name not in spikes} == {torch.int64}
        assert np.array_equal(network.forward(images).numpy(), expected["head.logits"])
        assert np.array_equal(network.classify(images).numpy(), expected["head.class"])
    return expected


@pytest.mark.parametrize("name", SHAPES)
def test_every_trace_of_chosen_shapes(name, tmp_path):
    check(SHAPES[name], params_for(SHAPES[name], seed=len(name)), tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_every_trace_of_random_shapes(seed, tmp_path):
    config = random_config(seed)
    check(config, params_for(config, seed), tmp_path, count=1)


@pytest.mark.parametrize("kind", sorted(set(MECHANISMS) - {"stdp"}))
def test_every_trace_of_every_attention(kind, tmp_path):
    shape = ("odd-tokens", "odd-pooled", "eight-steps")[len(kind) % 3]
    config = SHAPES[shape].model_copy(update={"attention": MECHANISMS[kind]()})
    assert check(config, params_for(config, len(kind)), tmp_path)["block.0.attn"].any()
    if "gate_threshold" in MECHANISMS[kind].model_fields:
        config = config.model_copy(update={"attention": MECHANISMS[kind](gate_threshold=2)})
        (tmp_path / "gate").mkdir()
        check(config, params_for(config, len(kind)), tmp_path / "gate")


def test_large_integers_need_and_get_a_wider_type(tmp_path):
    """Thresholds, biases and shifts far beyond 2^24: float32 would be wrong."""
    config = make_config(residual_fraction_bits=20)
    params = params_for(config, 3)
    tensors = {name: np.array(value) for name, value in params.tensors.items()}
    rng = np.random.default_rng(0)
    for name, value in tensors.items():
        if name.endswith(".bias") and name != "head.bias":
            value += rng.integers(-(2**29), 2**29, value.shape).astype(np.int32)
        if name.endswith(".threshold"):
            value[:] = rng.integers(2**27, 2**29, value.shape)
        if name.endswith(".shift"):
            value[:] = rng.integers(13, 16, value.shape)
    wide = Params(config, tensors, residual_threshold=2**28 + 1)
    expected = check(config, wide, tmp_path)
    assert np.abs(expected["block.0.u"]).max() > 2**24
    assert 0 < expected["block.0.hidden"].mean() < 1


def test_random_networks_are_alive():
    """The comparison means something: neither silent nor saturated layers."""
    config = make_config(image_height=8, image_width=8, sps_channels=[16, 32], heads=2, mlp_ratio=4)
    trace = GoldenNetwork(params_for(config, 1)).trace(images_for(config, 16))
    names = [f"block.0.{part}" for part in ("x", "q", "k", "v", "attn", "mlp_in", "hidden")]
    for name in ("sps.0.spikes", *names):
        assert 0.02 < trace[name].double().mean().item() < 0.6, name


def test_changed_weights_are_seen():
    """The comparison notices wrong weights, in the layer where they are."""
    config = SHAPES["base"]
    params = params_for(config, 4)
    tensors = {name: np.array(value) for name, value in params.tensors.items()}
    tensors["block.0.q.weight"] = -tensors["block.0.q.weight"]
    changed = Params(config, tensors, attention_threshold=params.attention_threshold)
    images = images_for(config, 4)
    difference = first_difference(GoldenNetwork(params).trace(images), GoldenNetwork(changed).trace(images))
    assert difference is not None and difference.name == "block.0.q"


@pytest.mark.parametrize("seed", range(12, 60))
def test_the_fast_model_is_the_reference(seed):
    """More shapes and images than the loops have time for."""
    config = random_config(seed)
    params, images = params_for(config, seed), images_for(config, 5, seed)
    expected = ReferenceNetwork(params).trace(images)
    for streamed in (False, True):
        assert first_difference(expected, GoldenNetwork(params, streamed).trace(images)) is None


@pytest.mark.parametrize("name", ["digits", "digits-int4", "s2tdpt-2-128"])
def test_the_fast_model_is_the_reference_on_shipped_parameters(name):
    params = load(name)
    images = images_for(params.config, 1)
    assert (
        first_difference(ReferenceNetwork(params).trace(images), GoldenNetwork(params).trace(images)) is None
    )
