"""Memory images: decoded by the documented layout alone, they give back every parameter exactly once."""

import dataclasses

import numpy as np
import pytest

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.params import random_params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.images import const_width, pack_fields, rom_images, stream_beats, stream_tiles
from s2tdpt.hw.schedule import build_program
from s2tdpt.hw.weights import stream_width
from s2tdpt.hw.widths import derive_widths
from tests.hw.core_bench import network

CASES = {
    "partial groups": (network(), HardwareConfig(lanes=4, post_lanes=2)),
    "one group": (network(depth=2), HardwareConfig(lanes=32, post_lanes=8)),
    "int4": (network(weight_bits=4, num_classes=5), HardwareConfig(lanes=3, post_lanes=1)),
    "lanes left over beside heads": (
        network(sps_channels=(4, 12), heads=4),
        HardwareConfig(lanes=8, post_lanes=4),
    ),
    "streamed": (network(), HardwareConfig(lanes=5, post_lanes=5, weight_memory="stream")),
}


def images_of(name):
    config, hardware = CASES[name]
    params = random_params(config, seed=1)
    widths = derive_widths(params, derive_bounds(params))
    program = build_program(config, hardware, widths.head_sum)
    return params, program, widths


def fields(word, width, count, signed=True):
    values = [word >> i * width & (1 << width) - 1 for i in range(count)]
    return [v - ((v >> width - 1) << width) if signed else v for v in values]


def slot(channel, channels, lanes, head_dim=None):
    """``(group, lane)`` of a channel as the documentation of the spike memory has it."""
    if head_dim is None:
        return divmod(channel, lanes)
    per_group = lanes // head_dim
    head, inside = divmod(channel, head_dim)
    return head // per_group, head % per_group * head_dim + inside


def decode(layer, config, hardware, rows, scales, thresholds, widths):
    """Parameters of one layer out of its tiles; consumes them, and asserts that nothing else is stored."""
    lanes, post = hardware.lanes, hardware.post_lanes
    shape = config.weight_shape(layer)
    taps = shape[2] * shape[3] if len(shape) == 4 else 1
    heads_out = config.head_dim if layer.endswith((".q", ".k", ".v")) else None
    heads_in = config.head_dim if layer.endswith(".proj") else None
    lanes_in = post if layer == "head" else lanes
    places_out = [slot(c, shape[0], lanes, heads_out) for c in range(shape[0])]
    places_in = [slot(c, shape[1], lanes_in, heads_in) for c in range(shape[1])]
    channel_of = {place: c for c, place in enumerate(places_out)}
    input_of = {group * lanes_in + lane: c for c, (group, lane) in enumerate(places_in)}
    weight = np.zeros((shape[0], shape[1], taps), int)
    bias, shift, threshold = (np.zeros(shape[0], int) for _ in range(3))
    for group in range(max(g for g, _ in places_out) + 1):
        used = max(lane for g, lane in places_out if g == group) + 1
        for part in range(-(-used // post)):
            scale, firing = next(scales), next(thresholds)
            values = zip(
                fields(scale, widths.bias, post),
                fields(scale >> post * widths.bias, widths.shift, post, signed=False),
                fields(firing, widths.threshold, post, signed=False),
                strict=True,
            )
            for lane, numbers in enumerate(values):
                channel = channel_of.get((group, part * post + lane))
                if channel is None:
                    assert numbers[:2] == (0, 0) and numbers[2] > 0, "an unused lane may spike"
                else:
                    bias[channel], shift[channel], threshold[channel] = numbers
        for tap in range(taps):
            for row in range(max(input_of) + 1):
                for lane, value in enumerate(fields(next(rows), config.weight_bits, lanes)):
                    channel = channel_of.get((group, lane))
                    if channel is None or row not in input_of:
                        assert value == 0, "a weight where there is no channel"
                    else:
                        weight[channel, input_of[row], tap] = value
    return weight.reshape(shape), bias, shift, threshold


def same_parameters(params, program, widths, rows, scales, thresholds):
    """Whether the images hold exactly `params`."""
    config = params.config
    rows, scales, thresholds = iter(rows), iter(scales), iter(thresholds)
    equal = True
    for layer in config.layer_names():
        weight, bias, shift, threshold = decode(
            layer, config, program.hardware, rows, scales, thresholds, widths
        )
        equal &= np.array_equal(weight, params.weight(layer)) and np.array_equal(bias, params.bias(layer))
        if config.is_writer(layer):
            equal &= np.array_equal(shift, params.shift(layer))
            equal &= set(threshold.tolist()) == {params.residual_threshold}
        else:
            assert not shift.any()
            if layer != "head":
                equal &= np.array_equal(threshold, params.threshold(layer))
    assert [*rows, *scales, *thresholds] == [], "the images hold more than the parameters"
    return equal


@pytest.mark.parametrize("name", CASES)
def test_rom_images_hold_every_parameter_once(name):
    params, program, widths = images_of(name)
    images = rom_images(params, program, widths)
    assert (len(images.rows), len(images.scales)) == (program.tile_words, program.const_words)
    assert len(images.thresholds) == program.const_words
    assert same_parameters(params, program, widths, images.rows, images.scales, images.thresholds)


@pytest.mark.parametrize("name", CASES)
def test_stream_carries_the_same_words_tile_by_tile(name):
    params, program, widths = images_of(name)
    images = rom_images(params, program, widths)
    width = stream_width(program)
    beats = iter(stream_beats(params, program, widths, width))
    lanes, post = program.hardware.lanes, program.hardware.post_lanes
    assert width % 8 == 0 and width - 8 < lanes * params.config.weight_bits <= width
    per_const = -(-const_width(program, widths) // width)
    rows, scales, thresholds = [], [], []
    tiles = stream_tiles(program)
    assert len(tiles) == program.tiles
    for consts, tile_rows in tiles:
        for _ in range(consts):
            word = sum(next(beats) << i * width for i in range(per_const))
            scale_bits = post * (widths.bias + widths.shift)
            scales.append(word & (1 << scale_bits) - 1)
            thresholds.append(word >> scale_bits)
        rows += [next(beats) for _ in range(tile_rows)]
    assert list(beats) == []
    assert (rows, scales, thresholds) == (images.rows, images.scales, images.thresholds)
    assert max(rows for _, rows in tiles) == program.max_tile_rows


@pytest.mark.parametrize("tensor", ["sps.0.weight", "block.0.q.weight", "block.0.proj.bias", "sps.1.shift"])
def test_comparison_notices_one_altered_parameter(tensor):
    params, program, widths = images_of("partial groups")
    tensors = {name: value.copy() for name, value in params.tensors.items()}
    tensors[tensor].flat[-1] ^= 1
    images = rom_images(dataclasses.replace(params, tensors=tensors), program, widths)
    assert not same_parameters(params, program, widths, images.rows, images.scales, images.thresholds)


def test_fields():
    assert pack_fields(np.array([1, -1, 5]), 4) == 0x5F1
    assert pack_fields(np.array([15, -8]), 4) == 0x8F
    with pytest.raises(ValueError, match=r"^16 does not fit 4 bits$"):
        pack_fields(np.array([16]), 4)
    with pytest.raises(ValueError, match=r"^-9 does not fit 4 bits$"):
        pack_fields(np.array([-9]), 4)
