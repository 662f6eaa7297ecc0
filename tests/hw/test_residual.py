"""ResidualStream: several writers onto one stream, against `golden.residual`."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.arith import signed_bits
from s2tdpt.golden.residual import written
from s2tdpt.hw.images import pack_fields
from s2tdpt.hw.residual import ResidualStream
from tests.hw.util import simulate


def fields(word, width, count):
    """Signed fields of `width` bits."""
    values = [word >> i * width & (1 << width) - 1 for i in range(count)]
    return [v - ((v >> width - 1) << width) for v in values]


def write_all(values, *, width, value_width, rate=1.0, keeps=None, seed=0):
    """Send the writers' `values` [writers, words, lanes]; returns U after every writer, same shape.

    `keeps`: which writers add; the default is all but the first.
    `result` and the word that is stored are those of the cycle of the value; other cycles carry junk.
    """
    writers, words, lanes = values.shape
    dut = ResidualStream(lanes=lanes, depth=words, value_width=value_width, width=width)
    rng = np.random.default_rng(seed)
    got = np.zeros_like(values)

    async def testbench(ctx):
        for writer in range(writers):
            pending = None
            queue = list(range(words))
            ctx.set(dut.keep, writer > 0 if keeps is None else keeps[writer])
            while queue or pending is not None:
                address = queue.pop(0) if queue and rng.random() < rate else None
                ctx.set(dut.read_en, address is not None)
                # An address may change at any time while it is not fetched.
                ctx.set(dut.address, int(rng.integers(words)) if address is None else address)
                ctx.set(dut.update, pending is not None)
                value = rng.integers(-4, 4, lanes) if pending is None else values[writer, pending]
                ctx.set(dut.value, pack_fields(value, value_width))
                result = fields(ctx.get(dut.result), value_width, lanes)
                if pending is None:
                    assert result == value.tolist(), "without an update the value passes unchanged"
                else:
                    assert ctx.get(dut.write_address) == pending
                    got[writer, pending] = result
                await ctx.tick()
                pending = address

    simulate(dut, testbench, deadline=100 * writers * words + 100)
    return got


def writers_of(seed, *, writers, words, lanes):
    """Random sums with shifts and biases: what the writers add, and U after each (golden)."""
    rng = np.random.default_rng(seed)
    added = [
        written(
            torch.from_numpy(rng.integers(-300, 300, (words, lanes))),
            torch.from_numpy(rng.integers(0, 16, lanes).astype(np.uint8)),
            torch.from_numpy(rng.integers(-5000, 5000, lanes)),
        ).numpy()
        for _ in range(writers)
    ]
    return np.stack(added), np.cumsum(added, axis=0)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_equals_the_golden_stream(lanes, rate):
    added, expected = writers_of(lanes, writers=5, words=12, lanes=lanes)
    width = signed_bits(int(expected.min()), int(expected.max()))
    value_width = max(width, signed_bits(int(added.min()), int(added.max())))
    assert np.array_equal(write_all(added, width=width, value_width=value_width, rate=rate), expected)


def test_stream_may_be_narrower_than_the_values():
    """A value may need more bits than any U: values of opposite sign meet on the stream."""
    values = np.array([[[100], [-100]], [[-190], [190]]])
    assert write_all(values, width=8, value_width=9).tolist() == [[[100], [-100]], [[-90], [90]]]


def test_both_ends_of_the_proven_width():
    values = np.array([[[-128, 127], [127, -128]], [[255, -255], [-255, 255]]])
    expected = np.cumsum(values, axis=0)
    assert np.array_equal(write_all(values, width=8, value_width=9), expected)


def test_first_writer_ignores_what_an_image_left_behind():
    first, expected_first = writers_of(0, writers=2, words=6, lanes=2)
    second, expected_second = writers_of(1, writers=2, words=6, lanes=2)
    images, expected = np.concatenate([first, second]), np.concatenate([expected_first, expected_second])
    got = write_all(images, width=26, value_width=26, keeps=[0, 1, 0, 1])
    assert np.array_equal(got, expected)
    # A writer that adds where it should initialise is noticed.
    got = write_all(images, width=26, value_width=26, keeps=[0, 1, 1, 1])
    assert np.array_equal(got[:2], expected[:2]) and not np.array_equal(got[2:], expected[2:])
