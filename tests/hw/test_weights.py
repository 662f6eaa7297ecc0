"""WeightRom and WeightStream: what a reader sees is the memory image, whenever the beats come."""

import dataclasses

import numpy as np
import pytest

from s2tdpt.hw.images import rom_images
from s2tdpt.hw.records import WEIGHT_DELAY
from s2tdpt.hw.weights import WeightRom
from tests.hw.util import simulate
from tests.hw.weight_bench import CASES, setting


class Reader:
    """Reads of one memory, at most one a cycle, checked `WEIGHT_DELAY` cycles later.

    Parameters
    ----------
    words : list of int
        Expected contents; None before the first read, when the output means nothing.
    """

    def __init__(self, words):
        self.words = words
        self.expected = [None] * WEIGHT_DELAY  # newest last; what the output shows in the coming cycles

    def cycle(self, address):
        """A cycle that reads `address`, or nothing (None); returns what the output shows in this cycle."""
        self.expected.append(self.expected[-1] if address is None else self.words[address])
        return self.expected.pop(0)


def integer(ctx, value):
    return ctx.get(value.as_value())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rate", [1.0, 0.4], ids=["every cycle", "with gaps"])
def test_rom(name, rate):
    """Every row and constant word once, then random ones; banks at rows of their own; outputs keep."""
    case = setting(name)
    program, images = case.program, rom_images(case.params, case.program, case.widths)
    dut = WeightRom(program, case.sizes, case.widths, images)
    rng = np.random.default_rng(5)
    memories = [*images.banks, images.constants]
    orders = [[*rng.permutation(len(m)), *rng.integers(0, len(m), 40)] for m in memories]

    async def testbench(ctx):
        readers = [Reader(words) for words in memories]
        while any(orders):
            reads = [order.pop() if order and rng.random() < rate else None for order in orders]
            for bank, row in enumerate(reads[:-1]):
                ctx.set(dut.weights.en[bank], row is not None)
                ctx.set(dut.weights.row[bank], 0 if row is None else int(row))
            ctx.set(dut.constants.en, reads[-1] is not None)
            ctx.set(dut.constants.address, 0 if reads[-1] is None else int(reads[-1]))
            shown = [*(integer(ctx, data) for data in dut.weights.data), integer(ctx, dut.constants.data)]
            for reader, read, value in zip(readers, reads, shown, strict=True):
                assert reader.cycle(read) in (None, value)
            assert (ctx.get(dut.tiles.ready), ctx.get(dut.tiles.base), ctx.get(dut.tiles.constant_base)) == (
                1,
                0,
                0,
            )
            await ctx.tick()

    simulate(dut, testbench, deadline=int(6 * max(len(order) for order in orders) / rate))


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_rom_constructor():
    case = setting("partial groups")
    program, images = case.program, rom_images(case.params, case.program, case.widths)
    rows, words = program.rows, program.const_words

    def message(**changes):
        with pytest.raises(ValueError) as error:
            WeightRom(program, case.sizes, case.widths, dataclasses.replace(images, **changes))
        return str(error.value)

    short = [images.banks[0], images.banks[1][:-1]]
    assert message(banks=images.banks[:1]) == (
        f"weight images must have 2 banks of {rows} rows, not 1 of {rows}"
    )
    assert message(banks=short) == (
        f"weight images must have 2 banks of {rows} rows, not 2 of {rows - 1}, {rows}"
    )
    assert message(constants=images.constants[1:]) == (
        f"constant image must have {words} words, not {words - 1}"
    )
