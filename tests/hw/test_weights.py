"""WeightRom and WeightStream: what a reader sees is the memory image, whenever the beats come."""

import dataclasses

import numpy as np
import pytest

from s2tdpt.hw.blocks.images import rom_images, stream_beats, tile_beats
from s2tdpt.hw.blocks.weights import READY_DELAY, ROOM_DELAY, WeightRom, WeightStream
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.records import STREAM_CONSTANT_TILES, WEIGHT_DELAY
from s2tdpt.sim.cases import network
from tests.hw.util import simulate, state_of
from tests.hw.weight_bench import (
    CASES,
    POLICIES,
    RUNS,
    Policy,
    Reader,
    derive,
    observed,
    run_stream,
    setting,
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gaps", [0, 2])
def test_rom(name, gaps):
    """Every row and constant word once, then random ones; every bank at rows of its own; outputs keep."""
    case = setting(name)
    program, images = case.program, rom_images(case.params, case.program, case.widths)
    dut = WeightRom(program, case.sizes, case.widths, images)
    rng = np.random.default_rng(5)
    part = program.machine.post_lanes * program.network.weight_bits
    groups = range(program.machine.subgroups)
    parts = [[row >> g * part & ((1 << part) - 1) for row in rows] for g in groups for rows in images.banks]
    memories = [*parts, images.constants]

    def reads(words):
        addresses = [*rng.permutation(len(words)), *rng.integers(0, len(words), 40)]
        return [int(a) for address in addresses for a in [-1] * rng.integers(gaps + 1) + [address]]

    orders = [reads(words) for words in memories]
    length = max(map(len, orders)) + WEIGHT_DELAY
    orders = [order + [-1] * (length - len(order)) for order in orders]

    async def testbench(ctx):
        readers = [Reader() for _ in memories]
        ports = [
            *(pair for port in dut.weights for pair in zip(port.row, port.data, strict=True)),
            (dut.constants.address, dut.constants.data),
        ]
        for addresses in zip(*orders, strict=True):
            *rows, constant = [address >= 0 for address in addresses]
            for port, group in zip(dut.weights, np.split(np.array(rows), len(dut.weights)), strict=True):
                ctx.set(port.en, sum(int(en) << bank for bank, en in enumerate(group)))
            ctx.set(dut.constants.en, constant)
            for (port, shown), address, words, reader in zip(
                ports, addresses, memories, readers, strict=True
            ):
                ctx.set(port, max(address, 0))
                reader.cycle(words[address] if address >= 0 else None, ctx.get(shown.as_value()))
            tiles = dut.tiles
            assert [ctx.get(x) for x in (tiles.ready, tiles.base)] == [1, 0]
            await ctx.tick()

    simulate(dut, testbench, deadline=length + 1)


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


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_stream_constructor():
    case = setting("partial groups", "rom")
    with pytest.raises(ValueError) as error:
        WeightStream(case.program, case.sizes, case.widths)
    assert str(error.value) == "streamed weights need a program with weight_memory 'stream', not 'rom'"


@pytest.mark.parametrize("name, policy", RUNS)
def test_stream(name, policy):
    """Rows and constants of all tiles in use are the image's, while others are received around them."""
    assert observed(name, policy).error == 0


@pytest.mark.parametrize("seed", range(2))
def test_stream_with_pauses(seed):
    policy = dataclasses.replace(POLICIES["anything"], send=0.4)
    assert run_stream(setting("six lanes, three banks, odd T", "stream"), policy, seed=seed).error == 0


def test_the_first_tiles_take_a_cycle_a_beat():
    case = setting("partial groups", "stream")
    beats = tile_beats(case.program, case.widths)
    run = run_stream(case, POLICIES["at once"], frames=1)
    assert run.ready[: len(beats)] == (np.cumsum(beats) - 1 + READY_DELAY).tolist()


def test_constants_hold_four_tiles():
    """With all weights released, the stream stops before the constants of the fifth tile."""
    case = setting("partial groups", "stream")
    beats = tile_beats(case.program, case.widths)
    held = run_stream_until_stopped(case, release=True)
    assert held == sum(beats[:STREAM_CONSTANT_TILES])


def run_stream_until_stopped(case, release):
    """Beats that are taken while no tile is ever complete, and room for the next one once a tile is."""
    dut = WeightStream(case.program, case.sizes, case.widths)
    beats = stream_beats(case.params, case.program, case.widths)
    taken = 0

    async def testbench(ctx):
        nonlocal taken
        ctx.set(dut.tvalid, 1)
        idle = 0
        while idle < 20:
            ctx.set(dut.tdata, beats[taken % len(beats)])
            started = ctx.get(dut.tiles.ready) and release
            ctx.set(dut.tiles.release, ctx.get(dut.tiles.start))
            ctx.set(dut.tiles.start, started)
            idle = 0 if ctx.get(dut.tready) else idle + 1
            taken += ctx.get(dut.tready)
            await ctx.tick()
        if release:
            ctx.set(dut.tiles.complete, 1)
            for ready in [0] * ROOM_DELAY + [1]:
                assert ctx.get(dut.tready) == ready
                await ctx.tick()
                ctx.set(dut.tiles.complete, 0)

    simulate(dut, testbench, deadline=4 * len(beats) + 100)
    return taken


def test_rows_fill_the_ring_to_the_last_one():
    """Nothing is released: the stream stops in front of the row that would replace the first one."""
    case = setting("a tile that fills the ring", "stream")
    ring = case.program.max_tile_rows
    assert ring & ring - 1 == 0
    rows = constants = 0
    for step in case.program.steps:
        words = step.subgroups(case.program.machine) * beats_of_a_word(case)
        if rows + step.tile_rows(case.program.machine) > ring:
            break
        rows, constants = rows + step.tile_rows(case.program.machine), constants + words
    assert run_stream_until_stopped(case, release=False) == ring + constants + words


def beats_of_a_word(case):
    step, machine = case.program.steps[0], case.program.machine
    beats = tile_beats(case.program, case.widths)[0] - step.tile_rows(machine) * machine.banks
    return beats // step.subgroups(machine)


@pytest.mark.parametrize(
    "tlast",
    [
        lambda beat, count: False,
        lambda beat, count: beat in (0, count - 1),
        lambda beat, count: beat in (count // 2, count - 1),
        lambda beat, count: beat >= count - 2,
    ],
    ids=["never", "on the first beat", "in the middle", "one early"],
)
def test_wrong_tlast_is_flagged(tlast):
    """The flag is set and stays; the words themselves are still taken by count."""
    case = setting("partial groups", "stream")
    right = run_stream(case, POLICIES["at once"])
    assert run_stream(case, POLICIES["at once"], tlast=tlast) == dataclasses.replace(right, error=1)


@pytest.mark.parametrize("fault", ["one wrong bit", "swapped rows", "swapped banks", "read after release"])
def test_comparison_notices_a_fault(fault):
    case = setting("partial groups", "stream")
    beats = stream_beats(case.params, case.program, case.widths)
    # The last tile is the head's: its rows are the last beats.
    a, b = {"swapped rows": (-5, -3), "swapped banks": (-4, -3)}.get(fault, (0, 0))
    assert fault == "read after release" or a == b or beats[a] != beats[b]
    beats[a], beats[b] = beats[b], beats[a]
    if fault == "one wrong bit":
        beats[-3] ^= 1
    overstay = 3 if fault == "read after release" else 0
    policy = Policy(release=0.5, complete=1.0, read=1.0)
    with pytest.raises(AssertionError, match="^a word that is not the image's"):
        run_stream(case, policy, beats=beats, overstay=overstay, frames=4)


def test_registers_are_few():
    """Beside the registers at both sides of the memories, only pointers and counters."""
    case = derive(network(), Machine(lanes=8, banks=4, post_lanes=4, weight_memory="stream"))
    dut = WeightStream(case.program, case.sizes, case.widths)
    flops, _ = state_of(dut)
    row, word = 8 * case.params.config.weight_bits, len(dut.constants.data.as_value())
    shift = (beats_of_a_word(case) - 1) * len(dut.tdata)
    assert flops - 4 * row - word - shift - len(dut.tdata) < 120
