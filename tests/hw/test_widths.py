"""Register widths: wide enough for adversarial inputs, and no bit wider where the worst case is known."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from s2tdpt.golden.arith import signed_bits
from s2tdpt.golden.bounds import Interval, derive_bounds
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import random_params
from s2tdpt.hw.plan.widths import derive_widths, shift_range
from s2tdpt.sim.cases import network

NETWORKS = {
    "tiny": network(),
    "signed pixels": network(pixel_zero_point=128, image_channels=3),
    "int4": network(weight_bits=4, depth=2, num_classes=7),
    "one convolution": network(sps_channels=(6,), sps_pool=(False,), timesteps=5),
}
PASS_PLANES = range(1, 9)


def setting(name, seed=0):
    params = random_params(NETWORKS[name], seed)
    bounds = derive_bounds(params)
    return params, bounds, derive_widths(params, bounds)


def fits(values, bits):
    values = np.asarray(values)
    return bool((values >= -(1 << bits - 1)).all() and (values < 1 << bits - 1).all())


def subset_sums(weights):
    """All sums over subsets of one row of weights."""
    sums = {0}
    for weight in weights.tolist():
        sums |= {s + weight for s in sums}
    return sums


@pytest.mark.parametrize("name", NETWORKS)
def test_accumulator_is_as_wide_as_the_worst_subset_of_any_layer(name):
    params, _, widths = setting(name)
    worst = {0}
    for layer in params.config.layer_names():
        for row in params.weight(layer).reshape(params.weight(layer).shape[0], -1):
            sums = subset_sums(row)
            worst |= {min(sums), max(sums)}
    assert widths.accumulator == signed_bits(min(worst), max(worst))


def horner(row, numbers, bits, planes):
    """Totals after every pass of `planes` bit planes of two's complement numbers of `bits` bits or more."""
    passes = -(-bits // planes)
    extended = numbers & (1 << passes * planes) - 1
    totals, total = [], 0
    for first in reversed(range(0, passes * planes, planes)):
        total <<= planes
        for plane in range(first, first + planes):
            sign = -1 if plane == passes * planes - 1 else 1
            total += sign * (int(row @ (extended >> plane & 1)) << plane - first)
        totals.append(total)
    assert totals[-1] == row @ numbers
    return totals


@pytest.mark.parametrize("name", NETWORKS)
def test_combined_holds_every_pass_of_the_pixel_planes(name):
    """Pixels at their ends, chosen by the sign of the weight; bytes without a sign have no negative plane."""
    params, _, widths = setting(name)
    zero = params.config.pixel_zero_point
    weight = params.weight("sps.0").reshape(params.weight("sps.0").shape[0], -1).astype(int)
    for row, dark, planes in itertools.product(weight, (0, 255), PASS_PLANES):
        pixels = np.where(row > 0, 255 - dark, dark) - zero
        # An unsigned byte is a signed number of nine bits; its sign plane is empty.
        assert fits(horner(row, pixels, 8 if zero else 9, planes), widths.combined)


@pytest.mark.parametrize("name", NETWORKS)
def test_combined_holds_every_pass_of_the_head_planes(name):
    params, bounds, widths = setting(name)
    weight = params.weight("head").astype(int)
    lo, hi = bounds.head_sum.lo, bounds.head_sum.hi
    for row, flip, planes in itertools.product(weight, (1, -1), PASS_PLANES):
        sums = np.where(row * flip > 0, hi, lo)
        assert fits(horner(row, sums, widths.head_sum, planes), widths.combined)
        assert fits(row @ sums + params.bias("head"), widths.combined)


@pytest.mark.parametrize("name", NETWORKS)
def test_everything_that_occurs_fits(name):
    """Integers of random and extreme images."""
    params, _, widths = setting(name)
    config = params.config
    shape = (6, config.image_height, config.image_width, config.image_channels)
    images = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    images[0], images[1] = 0, 255
    for key, value in GoldenNetwork(params).trace(images).items():
        part = key.rpartition(".")[2]
        if part in ("u", "u_attn"):
            assert fits(value, widths.residual) and fits(value, widths.value)
        elif part == "y":
            assert fits(value, widths.attention + 1) and int(value.min()) >= 0
        elif part in ("sum", "logits"):
            assert fits(value, widths.head_sum if part == "sum" else widths.logit)


@pytest.mark.parametrize("name", NETWORKS)
def test_constants_fit_and_no_field_is_wider_than_its_largest_value(name):
    params, bounds, widths = setting(name)
    tensors = params.tensors
    shifts = {int(x) for k, v in tensors.items() if k.endswith(".shift") for x in v}
    finer = min(shifts)  # neurons lie on the grid of the smallest shift
    layers = params.config.layers()
    biases = np.concatenate(
        [params.bias(layer.name).astype(np.int64) << finer * layer.lif_fed for layer in layers]
    )
    thresholds = [int(v.max()) << finer for k, v in tensors.items() if k.endswith(".threshold")]
    assert fits(biases, widths.bias) and not fits(biases, widths.bias - 1)
    assert widths.threshold == max(*thresholds, params.residual_threshold, 1).bit_length()
    assert shift_range(params) == Interval(min(shifts), max(shifts))
    assert widths.min_shift == min(shifts)
    assert widths.shift == max(1, (max(shifts) - min(shifts)).bit_length())
    assert widths.head_sum == bounds.head_sum.signed_bits
    assert widths.logit <= widths.combined
    assert widths.residual <= widths.value


def test_a_narrower_register_would_be_noticed():
    params, bounds, widths = setting("tiny")
    worst = [bounds.head_sum.lo, bounds.head_sum.hi]
    assert fits(worst, widths.head_sum) and not fits(worst, widths.head_sum - 1)


@pytest.mark.parametrize("amounts", [(0,), (3,), (0, 15), (1, 2, 3, 4), (0, 1, 2, 3, 4)])
def test_shift_field_counts_from_the_smallest(amounts):
    """However large the shifts, the field has only to hold their span."""
    params, _, _ = setting("tiny")
    tensors = {
        name: np.resize(np.array(amounts, np.uint8), value.shape) if name.endswith(".shift") else value
        for name, value in params.tensors.items()
    }
    shifted = dataclasses.replace(params, tensors=tensors)
    widths = derive_widths(shifted, derive_bounds(shifted))
    assert widths.min_shift == min(amounts)
    assert widths.shift == {0: 1, 3: 2, 4: 3, 15: 4}[max(amounts) - min(amounts)]
    assert json.loads(json.dumps(widths.as_dict()))["min_shift"] == min(amounts)


@pytest.mark.parametrize("kind", ["sssa", "lrf-dyn", "ssa"])
def test_inner_values_of_an_attention_fit_and_no_bit_is_spare(kind):
    params = random_params(network(attention={"kind": kind}), 3)
    bounds = derive_bounds(params)
    found = derive_widths(params, bounds).attention_inner
    assert found.keys() == bounds.attention_inner.keys() and found
    for name, bits in found.items():
        lo, hi = bounds.attention_inner[name].lo, bounds.attention_inner[name].hi
        assert bits == (signed_bits(lo, hi) if lo < 0 else max(1, hi.bit_length()))


def test_numbers_that_could_overflow_are_refused():
    """A head bias of 2^62 is a legal integer of the file, but its logits could pass 64 bits."""
    params, _, _ = setting("tiny")
    bias = params.bias("head").copy()
    bias[:] = 2**63 - 1
    huge = dataclasses.replace(params, tensors={**params.tensors, "head.bias": bias})
    with pytest.raises(UserError) as refusal:
        derive_widths(huge, derive_bounds(huge))
    assert str(refusal.value) == (
        "logits of tiny could need 65 bits; expected at most 64, the width of the result stream; "
        "scale the head's weights and bias down"
    )
