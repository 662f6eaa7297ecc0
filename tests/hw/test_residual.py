"""ResidualStream: several writers onto one stream, against `golden.residual`."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.arith import signed_bits
from s2tdpt.golden.residual import written
from s2tdpt.hw.blocks import residual
from s2tdpt.hw.blocks.residual import ResidualStream
from tests.hw.pieces import GAPS
from tests.hw.util import simulate


def write_all(values, *, width, value_width, gap="back to back", keeps=None, seed=0):
    """Send the writers' `values` [writers, words, lanes, T]; returns U after every writer, same shape.

    `keeps`: which writers add; the default is all but the first. Cycles without a piece carry junk. A word
    is read, gets its value and is stored in cycles that are counted from the contract's constants.
    """
    writers, words, lanes, steps = values.shape
    dut = ResidualStream(lanes=lanes, timesteps=steps, depth=words, value_width=value_width, width=width)
    assert (dut.read_lead, dut.delay) == (3, 1)
    rng = np.random.default_rng(seed)
    got = np.zeros_like(values)
    keeps = keeps or [writer > 0 for writer in range(writers)]
    pieces = [(writer, word) for writer in range(writers) for word in range(words)]
    cycle = 0

    async def testbench(ctx):
        nonlocal cycle
        addressed, valued, number = {}, {}, 0
        while number < len(pieces) or addressed or valued:
            piece = None
            if number < len(pieces) and rng.random() >= GAPS[gap]:
                piece = pieces[number]
                number += 1
                addressed[cycle + dut.read_lead] = piece
            ctx.set(dut.read_en, piece is not None and keeps[piece[0]])
            ctx.set(dut.read_address, int(rng.integers(words)) if piece is None else piece[1])

            piece = addressed.pop(cycle, None)
            value = rng.integers(-4, 4, (lanes, steps)) if piece is None else values[piece]
            ctx.set(dut.update, piece is not None)
            ctx.set(dut.value, value.tolist())
            valued[cycle + dut.delay] = piece, value

            piece, value = valued.pop(cycle, (None, None))
            result, stored = ctx.get(dut.result), ctx.get(dut.write_data)
            result = [[result[lane][t] for t in range(steps)] for lane in range(lanes)]
            assert ctx.get(dut.write_en) == (piece is not None)
            if piece is not None:
                assert ctx.get(dut.write_address) == piece[1]
                assert [[stored[lane][t] for t in range(steps)] for lane in range(lanes)] == result
                got[piece] = result
            elif value is not None:
                assert result == value.tolist(), "what is no update passes unchanged"
            await ctx.tick()
            cycle += 1
            valued = {
                due: item for due, item in valued.items() if number < len(pieces) or item[0] or addressed
            }

    simulate(dut, testbench, deadline=int(3 * len(pieces) / (1 - GAPS[gap])) + 100)
    if gap == "back to back":
        assert cycle == len(pieces) + dut.read_lead + dut.delay, "a piece a cycle"
    return got


def writers_of(seed, *, writers, words, lanes, steps=2):
    """Random sums with shifts and biases: what the writers add, and U after each (golden)."""
    rng = np.random.default_rng(seed)
    added = [
        written(
            torch.from_numpy(rng.integers(-300, 300, (words, steps, lanes))),
            torch.from_numpy(rng.integers(0, 16, lanes).astype(np.uint8)),
            torch.from_numpy(rng.integers(-5000, 5000, lanes)),
        ).numpy()
        for _ in range(writers)
    ]
    added = np.stack(added).swapaxes(2, 3)
    return added, np.cumsum(added, axis=0)


@pytest.mark.parametrize("lanes, steps", [(1, 1), (2, 4), (3, 2)])
@pytest.mark.parametrize("words", [4, 12])
@pytest.mark.parametrize("gap", GAPS)
def test_equals_the_golden_stream(lanes, steps, words, gap):
    """Four words back to back: every word is read again as early as it may be."""
    added, expected = writers_of(lanes, writers=5, words=words, lanes=lanes, steps=steps)
    width = signed_bits(int(expected.min()), int(expected.max()))
    value_width = max(width, signed_bits(int(added.min()), int(added.max())))
    assert np.array_equal(write_all(added, width=width, value_width=value_width, gap=gap), expected)


@pytest.mark.parametrize("words", [8, 9, 11])
@pytest.mark.parametrize("gap", ["back to back", "random"])
def test_several_rows_of_blocks(words, gap, monkeypatch):
    monkeypatch.setattr(residual, "ROW_DEPTH", 4)
    added, expected = writers_of(words, writers=3, words=words, lanes=2)
    assert np.array_equal(write_all(added, width=26, value_width=27, gap=gap), expected)


def on_four_words(values):
    """Values [writers, 2] of two lanes, the same at four words and one step."""
    return np.repeat(np.array(values)[:, None, :, None], 4, axis=1)


def test_stream_may_be_narrower_than_the_values():
    """A value may need more bits than any U: values of opposite sign meet on the stream."""
    values = on_four_words([[100, -100], [-190, 190]])
    assert np.array_equal(write_all(values, width=8, value_width=9), np.cumsum(values, axis=0))


def test_both_ends_of_the_proven_width():
    values = on_four_words([[-128, 127], [255, -255], [-255, 255]])
    assert np.array_equal(write_all(values, width=8, value_width=9), np.cumsum(values, axis=0))


def test_first_writer_ignores_what_an_image_left_behind():
    first, expected_first = writers_of(0, writers=2, words=6, lanes=2)
    second, expected_second = writers_of(1, writers=2, words=6, lanes=2)
    images, expected = np.concatenate([first, second]), np.concatenate([expected_first, expected_second])
    got = write_all(images, width=26, value_width=26, keeps=[False, True, False, True])
    assert np.array_equal(got, expected)
    # A writer that adds where it should initialise is noticed.
    got = write_all(images, width=26, value_width=26, keeps=[False, True, True, True])
    assert np.array_equal(got[:2], expected[:2]) and not np.array_equal(got[2:], expected[2:])


def test_a_word_that_is_read_too_early_is_stale():
    """Three words in turn break the contract: what is read is not the word that is being written."""
    added, expected = writers_of(2, writers=2, words=3, lanes=1)
    got = write_all(added, width=26, value_width=26)
    assert np.array_equal(got[0], expected[0]) and not np.array_equal(got[1], expected[1])


def test_messages():
    sizes = dict(lanes=2, timesteps=4, depth=8, value_width=8, width=7)
    for name in sizes:
        with pytest.raises(ValueError, match=rf"^residual {name} must be a positive integer, not 0$"):
            ResidualStream(**{**sizes, name: 0})
    with pytest.raises(ValueError, match=r"^residual width must be at most value_width 8, not 9$"):
        ResidualStream(**{**sizes, "width": 9})
