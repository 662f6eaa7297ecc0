"""Memory images: decoded by the documented layout alone, they give back every parameter exactly once."""

import dataclasses
import itertools
import time

import numpy as np
import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.hw.blocks.images import (
    constant_beats,
    constant_width,
    pack_fields,
    rom_images,
    stream_beats,
    stream_width,
    tile_beats,
    tile_sizes,
)
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Source
from s2tdpt.hw.plan.widths import shift_range
from tests.hw.weight_bench import CASES, derive, setting


def fields(word, width, count, signed=True):
    values = [word >> i * width & (1 << width) - 1 for i in range(count)]
    return [v - ((v >> width - 1) << width) if signed else v for v in values]


def slot(channel, head_dim, post):
    """Slot of a channel as the documentation of the weight stream has it."""
    if head_dim is None:
        return channel
    return channel // head_dim * (-(-head_dim // post) * post) + channel % head_dim


def tiles_of(config, lanes, post):
    """``(layer, group)`` in the documented order."""

    def groups(layer):
        channels = config.weight_shape(layer)[0]
        head_dim = config.head_dim if layer.endswith((".q", ".k", ".v")) else None
        return range(slot(channels - 1, head_dim, post) // lanes + 1)

    for i in range(config.sps_depth):
        yield from ((f"sps.{i}", g) for g in groups(f"sps.{i}"))
    for b in range(config.depth):
        for g in groups(f"block.{b}.q"):
            yield from ((f"block.{b}.{part}", g) for part in "qkv")
        for part in ("proj", "fc1", "fc2"):
            yield from ((f"block.{b}.{part}", g) for g in groups(f"block.{b}.{part}"))
    yield from (("head", g) for g in groups("head"))


class Decoder:
    """Takes tiles out of constant words and weight rows; every number goes to its parameter or must be zero.

    Parameters
    ----------
    case : Setting
    constants : iterator of int
    rows : iterator of tuple of int
        The same row of every bank.
    """

    def __init__(self, case, constants, rows):
        self.config, self.machine, self.widths = case.params.config, case.program.machine, case.widths
        self.constants, self.rows = constants, rows
        self.numbers = {}

    def layer(self, name):
        """Weight, bias, shift, threshold of a layer; filled tile by tile."""
        shape = self.config.weight_shape(name)
        inputs, taps = shape[1], shape[2] * shape[3] if len(shape) == 4 else 1
        if name == "sps.0":  # a window of pixels is one tap
            inputs, taps = inputs * taps, 1
        zeros = [np.zeros(shape[0], np.int64) for _ in range(3)]
        return self.numbers.setdefault(name, [np.zeros((shape[0], inputs, taps), int), *zeros])

    def tile(self, name, group):
        config, machine = self.config, self.machine
        lanes, post, banks = machine.lanes, machine.post_lanes, machine.banks
        weight, bias, shift, threshold = self.layer(name)
        heads_out = config.head_dim if name.endswith((".q", ".k", ".v")) else None
        heads_in = config.head_dim if name.endswith(".proj") else None
        lanes_in = post if name == "head" else lanes
        slots_out = {slot(c, heads_out, post): c for c in range(weight.shape[0])}
        slots_in = {slot(c, heads_in, post): c for c in range(weight.shape[1])}
        used = min(lanes, max(slots_out) + 1 - group * lanes)
        for part in range(-(-used // post)):
            for lane, numbers in enumerate(self.constant_word()):
                channel = slots_out.get(group * lanes + part * post + lane)
                if channel is None:
                    assert numbers[0] == 0 and numbers[2] > 0, "an unused slot may spike"
                else:
                    bias[channel], shift[channel], threshold[channel] = numbers
        # Input slots of every tap, word by word, as the banks hold them.
        words = [
            range(w, min(w + lanes_in, max(slots_in) + 1)) for w in range(0, max(slots_in) + 1, lanes_in)
        ]
        for tap in range(weight.shape[2]):
            for word in words:
                for first in range(0, len(word), banks):
                    for bank, row in enumerate(next(self.rows)):
                        place = word.start + first + bank
                        inside = first + bank < lanes_in
                        source = slots_in.get(place) if inside else None
                        for lane, value in enumerate(fields(row, config.weight_bits, lanes)):
                            channel = slots_out.get(group * lanes + lane)
                            if channel is None or source is None:
                                assert value == 0, "a weight where there is no channel"
                            else:
                                weight[channel, source, tap] = value

    def constant_word(self):
        """``(bias, shift, threshold)`` of `post_lanes` channels."""
        word, widths = next(self.constants), self.widths
        size = widths.bias + widths.shift + widths.threshold
        for channel in fields(word, size, self.machine.post_lanes, signed=False):
            (bias,) = fields(channel, widths.bias, 1)
            (more,) = fields(channel >> widths.bias, widths.shift, 1, signed=False)
            yield bias, widths.min_shift + more, channel >> widths.bias + widths.shift

    def equals(self, params):
        """Whether the numbers are exactly those of `params`."""
        equal = True
        for name in params.config.layer_names():
            weight, bias, shift, threshold = self.numbers[name]
            if name == "sps.0":  # channel c at a tap is channel tap * C + c
                weight = weight.reshape(len(weight), 9, -1).transpose(0, 2, 1)
            equal &= np.array_equal(weight.reshape(params.weight(name).shape), params.weight(name))
            if params.config.is_writer(name):
                equal &= np.array_equal(bias, params.bias(name))
                equal &= np.array_equal(shift, params.shift(name))
                equal &= set(threshold.tolist()) == {params.residual_threshold}
                continue
            # Neurons have the grid of the smallest shift; logits have their own.
            finer = 0 if name == "head" else shift_range(params).lo
            assert set(shift.tolist()) == {shift_range(params).lo}
            equal &= np.array_equal(bias, params.bias(name).astype(np.int64) << finer)
            if name != "head":
                equal &= np.array_equal(threshold, params.threshold(name).astype(np.int64) << finer)
        return equal


def decoded(case, images):
    constants, rows = iter(images.constants), iter(zip(*images.banks, strict=True))
    decoder = Decoder(case, constants, rows)
    for name, group in tiles_of(
        case.params.config, case.program.machine.lanes, case.program.machine.post_lanes
    ):
        decoder.tile(name, group)
    assert [*rows, *constants] == [], "the images hold more than the parameters"
    return decoder


@pytest.mark.parametrize("name", CASES)
def test_rom_images_hold_every_parameter_once(name):
    case = setting(name)
    images = rom_images(case.params, case.program, case.widths)
    assert [len(rows) for rows in images.banks] == [case.program.rows] * case.program.machine.banks
    assert len(images.constants) == case.program.const_words
    assert max(word.bit_length() for word in images.constants) <= constant_width(case.program, case.widths)
    assert decoded(case, images).equals(case.params)


@pytest.mark.parametrize("name", CASES)
def test_the_rows_of_a_step_are_where_the_program_says(name):
    """The formula by which the machine addresses a channel's weights."""
    case = setting(name)
    program, params = case.program, case.params
    machine, bits = program.machine, params.config.weight_bits
    banks = rom_images(params, program, case.widths).banks
    rng = np.random.default_rng(3)
    for step in program.steps:
        weight = params.weight(step.layer).reshape(*params.weight(step.layer).shape[:2], -1)
        if step.source is Source.PIXELS:  # channel c at a tap is channel tap * C + c
            weight = weight.transpose(0, 2, 1).reshape(len(weight), -1, 1)
        slots_in, slots_out = step.packing_in.slots(), step.packing_out.slots()
        for _ in range(12):
            source, tap = int(rng.integers(weight.shape[1])), int(rng.integers(weight.shape[2]))
            word, inside = divmod(int(slots_in[source]), step.packing_in.lanes)
            row = tap * step.tap_rows(machine) + word * step.word_rows(machine) + inside // machine.banks
            lanes = fields(banks[inside % machine.banks][step.tile_base + row], bits, machine.lanes)
            channels = np.flatnonzero(slots_out // machine.lanes == step.group)
            values = [lanes[slots_out[c] % machine.lanes] for c in channels]
            assert values == weight[channels, source, tap].tolist()


@pytest.mark.parametrize("name", CASES)
def test_stream_carries_the_same_words_tile_by_tile(name):
    """Constant words first, low beats first; then row by row, in a row bank by bank."""
    case = setting(name, "stream")
    program, widths = case.program, case.widths
    images = rom_images(case.params, program, widths)
    width, per_word = stream_width(program), constant_beats(program, widths)
    beats = iter(stream_beats(case.params, program, widths))
    assert width % 8 == 0 and width - 8 < program.machine.lanes * case.params.config.weight_bits <= width
    constants, rows = [], []
    assert len(tile_sizes(program)) == len(program.steps)
    for size, count in zip(tile_sizes(program), tile_beats(program, widths), strict=True):
        tile = list(itertools.islice(beats, count))
        split = size.constants * per_word
        for first in range(0, split, per_word):
            constants.append(sum(beat << i * width for i, beat in enumerate(tile[first : first + per_word])))
        rows += tile[split:]
    assert list(beats) == []
    assert constants == images.constants
    assert rows == [row for rows in zip(*images.banks, strict=True) for row in rows]
    assert max(size.rows for size in tile_sizes(program)) == program.max_tile_rows


@pytest.mark.parametrize("tensor", ["sps.0.weight", "block.0.q.weight", "block.0.proj.bias", "sps.1.shift"])
def test_comparison_notices_one_altered_parameter(tensor):
    case = setting("partial groups")
    tensors = {name: value.copy() for name, value in case.params.tensors.items()}
    if tensor.endswith("shift"):
        tensors[tensor].flat[-1] = next(a for a in tensors[tensor].flat if a != tensors[tensor].flat[-1])
    else:
        tensors[tensor].flat[-1] ^= 1
    altered = dataclasses.replace(case.params, tensors=tensors)
    images = rom_images(altered, case.program, case.widths)
    assert decoded(case, images).equals(altered)
    assert not decoded(case, images).equals(case.params)


def test_comparison_notices_swapped_rows_and_banks():
    case = setting("partial groups")
    images = rom_images(case.params, case.program, case.widths)
    first, second, *others = images.banks[0]
    rows = dataclasses.replace(images, banks=[[second, first, *others], images.banks[1]])
    assert not decoded(case, rows).equals(case.params)
    banks = dataclasses.replace(images, banks=images.banks[::-1])
    with pytest.raises(AssertionError, match="^a weight where there is no channel"):
        decoded(case, banks)


def test_nine_million_weights_in_seconds():
    config = load_config("s2tdpt-4-384").model_copy(update={"weight_bits": 4})
    case = derive(config, Machine(lanes=48, banks=8, post_lanes=8, weight_memory="stream"))
    start = time.process_time()
    beats = stream_beats(case.params, case.program, case.widths)
    assert time.process_time() - start < 5
    assert len(beats) == sum(tile_beats(case.program, case.widths))


def test_fields():
    assert pack_fields([1, -1, 5], [4, 4, 4]) == 0x5F1
    assert pack_fields([3, -8, 1], [2, 4, 1]) == 0b1_1000_11
    with pytest.raises(ValueError, match=r"^16 does not fit 4 bits$"):
        pack_fields([0, 16], [1, 4])
    with pytest.raises(ValueError, match=r"^-9 does not fit 4 bits$"):
        pack_fields([-9], [4])
