"""Calibrated parameters: the rates that they promise, on the golden model itself, and narrow integers."""

import numpy as np
import pytest

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.calibrate import calibrate
from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.golden.rates import PUBLISHED, Rates, driven, synaptic_rate
from s2tdpt.golden.samples import sample_images
from s2tdpt.golden.trace import spike_traces
from tests.golden.shapes import SHAPES, images_for, make_config

LARGE = load_config("s2tdpt-4-384")


def measured(params: Params, images: np.ndarray) -> dict[str, float]:
    trace = GoldenNetwork(params).trace(images)
    return {name: float(trace[name].double().mean()) for name in spike_traces(params.config)}


def test_the_table_is_published_and_means_14_percent():
    rates = Rates()
    for name, (low, high) in PUBLISHED.items():
        assert low <= getattr(rates, name) <= high
    assert abs(rates.synaptic(LARGE) - 0.14) < 0.005
    assert rates.scaled(LARGE, 0.07).synaptic(LARGE) == pytest.approx(0.07)
    assert synaptic_rate(LARGE, {layer.reads: 0.2 for layer in driven(LARGE)}) == pytest.approx(0.2)


def test_the_rates_of_a_network_are_the_wanted_ones():
    config = load_config("s2tdpt-2-128")
    images = sample_images(config)[0]
    result = calibrate(config, images)
    wanted = Rates()
    rates = measured(result.params, images)
    assert rates == pytest.approx(result.rates, abs=1e-6)
    for layer in driven(config):
        assert rates[layer.reads] == pytest.approx(wanted.of(layer), rel=0.01), layer.name
    assert (rates["block.1.q"], rates["block.1.k"]) == pytest.approx((0.06, 0.05), rel=0.01)
    assert result.synaptic_rate == pytest.approx(wanted.synaptic(config), rel=0.01)
    known = result.params.provenance
    assert "classifies nothing" in known["purpose"] and known["firing_rates"] == result.rates
    # No wider than the trained network of this shape, and every channel takes part.
    assert derive_bounds(result.params).residual_any.signed_bits <= 18
    trace = GoldenNetwork(result.params).trace(images)
    for name in ("sps.2.pooled", "block.0.x", "block.1.mlp_in"):
        by_channel = trace[name].double().mean(dim=(0, 1, 2))
        assert by_channel.min() > 0.5 * rates[name] and by_channel.max() < 2 * rates[name]


@pytest.mark.parametrize("mean", [0.02, 0.3])
def test_other_means(mean):
    config = make_config(image_height=8, image_width=8, sps_channels=[16, 32], heads=2, mlp_ratio=4, depth=2)
    images = images_for(config, 64)
    result = calibrate(config, images, Rates().scaled(config, mean))
    assert synaptic_rate(config, measured(result.params, images)) == pytest.approx(mean, rel=0.05)


@pytest.mark.parametrize("name", SHAPES)
def test_any_shape_gives_a_sound_file(name, tmp_path):
    config = SHAPES[name]
    images = images_for(config, 4)
    result = calibrate(config, images, provenance={"command": "test"})
    assert measured(result.params, images) == pytest.approx(result.rates, abs=1e-6)
    result.params.save(tmp_path / "p.safetensors")
    read = Params.load(tmp_path / "p.safetensors", config)
    assert read.checksum() == result.params.checksum() and read.provenance["command"] == "test"


def test_levels_and_signed_spikes_are_calibrated():
    """A rate is the share of neurons that emit anything; what v fires drives the attention, as ever."""
    config = make_config(sps_channels=[8, 32], timesteps=4, attention={"kind": "a2os2a"})
    images = images_for(config, 6)
    found = calibrate(config, images)
    trace = GoldenNetwork(found.params).trace(images)
    for part, wanted in (("q", 0.06), ("k", 0.05), ("attn", 0.1)):
        assert abs(float((trace[f"block.0.{part}"] != 0).double().mean()) - wanted) < 0.01, part
        assert found.rates[f"block.0.{part}"] == pytest.approx(wanted, abs=0.01)
    assert trace["block.0.v"].min() == -1


def test_the_same_seed_gives_the_same_file():
    config = SHAPES["base"]
    images = images_for(config, 4)
    first, again = (calibrate(config, images, seed=3).params.checksum() for _ in range(2))
    assert first == again != calibrate(config, images, seed=4).params.checksum()
    seen = []
    calibrate(config, images, progress=seen.append)
    assert seen == list(config.layer_names()[:-1])


def test_the_large_network_needs_16_bits_for_u():
    """The widths that docs/parameters.md gives for S2TDPT-4-384 with int4 weights; two images suffice."""
    config = load_config("s2tdpt-4-384-int4")
    assert [text.partition(":")[0] for text in LARGE.differences(config)] == [
        "weight_bits",
        "residual_fraction_bits",
    ]
    result = calibrate(config, sample_images(config)[0][:2])
    bounds = derive_bounds(result.params)
    assert bounds.residual_any.signed_bits == 16 and bounds.head_sum.signed_bits == 24
    assert max(interval.signed_bits for interval in bounds.acc.values()) <= 13
    assert abs(result.synaptic_rate - 0.14) < 0.005


def test_mistakes():
    config = SHAPES["base"]
    images = images_for(config, 1)
    for wrong in (images[:0], images[:, :5], images.astype(np.int16)):
        with pytest.raises(UserError, match="expected uint8"):
            calibrate(config, wrong)
    with pytest.raises(UserError, match="firing rate 0 of fc2; expected more than 0"):
        Rates(fc2=0.0)
    for mean in (0.0, -0.1, 0.9, float("nan"), float("inf")):
        with pytest.raises(UserError, match="mean rate .*; expected more than 0 and at most 0.4"):
            Rates().scaled(LARGE, mean)
    huge = make_config(image_height=8192, image_width=8192)
    with pytest.raises(UserError, match="one image takes .* GiB"):
        calibrate(huge, np.zeros((1, 8192, 8192, 2), np.uint8))
