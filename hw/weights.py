"""Where weights and per-channel constants come from: on-chip images, or tiles that are streamed in."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.arith import unsigned_bits
from s2tdpt.hw.images import const_width, stream_tiles
from s2tdpt.hw.schedule import Program
from s2tdpt.hw.widths import Widths

TILE_BITS = 4
"""Tiles are counted modulo 2^TILE_BITS; at most two are ahead of the one being computed."""


def weight_members(program: Program, widths: Widths) -> dict:
    """Members that both stores share, seen from the consumer of the weights."""
    hw = program.hardware
    row_bits, const_bits = address_bits(program)
    members = {
        "const_en": In(1),
        "const_address": In(const_bits),
        "bias": Out(hw.post_lanes * widths.bias),
        "shift": Out(hw.post_lanes * widths.shift),
        "threshold_en": In(1),
        "threshold_address": In(const_bits),
        "threshold": Out(hw.post_lanes * widths.threshold),
        "loaded": Out(TILE_BITS),
        "tile_done": In(1),
    }
    for r in range(hw.rows):
        members |= {
            f"row_en_{r}": In(1),
            f"row_address_{r}": In(row_bits),
            f"row_data_{r}": Out(hw.lanes * program.network.weight_bits),
        }
    return members


def depths(program: Program) -> tuple[int, int]:
    """Rows of the weight memory and words of the constant memory."""
    if program.hardware.weight_memory == "stream":
        return 2 * program.max_tile_rows, 2 * program.hardware.subgroups
    return program.tile_words, program.const_words


def address_bits(program: Program) -> tuple[int, int]:
    """Address widths of the weight and the constant memory."""
    rows, consts = depths(program)
    return unsigned_bits(max(1, rows - 1)), unsigned_bits(max(1, consts - 1))


def _memories(m: Module, store, program: Program, widths: Widths, rows, biases, thresholds):
    """The three memories and their read ports, with initial contents; returns their write-capable parts."""
    hw = program.hardware
    row_depth, const_depth = (max(2, depth) for depth in depths(program))
    weight = Memory(shape=hw.lanes * program.network.weight_bits, depth=row_depth, init=rows)
    scale = Memory(shape=hw.post_lanes * (widths.bias + widths.shift), depth=const_depth, init=biases)
    threshold = Memory(shape=hw.post_lanes * widths.threshold, depth=const_depth, init=thresholds)
    m.submodules.weight, m.submodules.scale, m.submodules.threshold = weight, scale, threshold
    for r in range(hw.rows):
        port = weight.read_port()
        m.d.comb += [
            port.en.eq(getattr(store, f"row_en_{r}")),
            port.addr.eq(getattr(store, f"row_address_{r}")),
            getattr(store, f"row_data_{r}").eq(port.data),
        ]
    scale_port, threshold_port = scale.read_port(), threshold.read_port()
    m.d.comb += [
        scale_port.en.eq(store.const_en),
        scale_port.addr.eq(store.const_address),
        Cat(store.bias, store.shift).eq(scale_port.data),
        threshold_port.en.eq(store.threshold_en),
        threshold_port.addr.eq(store.threshold_address),
        store.threshold.eq(threshold_port.data),
    ]
    return weight, scale, threshold


class WeightRom(wiring.Component):
    """All weights and constants of the network on chip, as initialised memories.

    Latency: 1 cycle; throughput: one row a cycle and port.
    Resources: tile_words x lanes x weight_bits and const_words x post_lanes x (bias + shift + threshold)
    bits.

    Parameters
    ----------
    program : Program
    widths : Widths
    rows, scales, thresholds : list of int
        Memory images (`images.rom_images`).
    """

    def __init__(
        self, program: Program, widths: Widths, *, rows: list[int], scales: list[int], thresholds: list[int]
    ):
        self._program, self._widths = program, widths
        self._images = rows, scales, thresholds
        super().__init__(weight_members(program, widths))

    def elaborate(self, platform):
        m = Module()
        _memories(m, self, self._program, self._widths, *self._images)
        return m


class WeightStream(wiring.Component):
    """Two banks of tiles, filled from a stream while the other one is in use.

    A tile is the constants and weight rows of one group of output channels; tiles arrive in program order,
    once per image, each used for all tokens and all time steps. See docs/interface.md for the beats.

    Latency: a tile may be read in the cycle after its last beat. Throughput: one beat a cycle, paused only
    while both banks hold tiles that are still needed.
    Resources: 2 x max_tile_rows x lanes x weight_bits and 2 x subgroups constant words.

    Parameters
    ----------
    program : Program
    widths : Widths

    Members
    -------
    tdata, tvalid, tready, tlast
        Stream input, `tlast` on the last beat of an image's tiles.
    error : Out(1)
        `tlast` came elsewhere, or not; until reset.
    """

    def __init__(self, program: Program, widths: Widths):
        self._program, self._widths = program, widths
        super().__init__(
            weight_members(program, widths)
            | {
                "tdata": In(stream_width(program)),
                "tvalid": In(1),
                "tready": Out(1),
                "tlast": In(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program, widths, hw = self._program, self._widths, self._program.hardware
        weight, scale, threshold = _memories(m, self, program, widths, [], [], [])
        write_row, write_scale, write_threshold = (
            weight.write_port(),
            scale.write_port(),
            threshold.write_port(),
        )

        tiles = stream_tiles(program)
        const_bits = const_width(program, widths)
        beats = -(-const_bits // len(self.tdata))
        size = Signal(range(max(rows for _, rows in tiles) + 1))
        consts = Signal(range(max(c for c, _ in tiles) + 1))
        index = Signal(range(max(2, len(tiles))))
        m.d.comb += [
            size.eq(Array(rows for _, rows in tiles)[index]),
            consts.eq(Array(c for c, _ in tiles)[index]),
        ]

        done = Signal(TILE_BITS)
        with m.If(self.tile_done):
            m.d.sync += done.eq(done + 1)
        free = Signal()
        ahead = Signal(TILE_BITS)
        m.d.comb += [ahead.eq(self.loaded - done), free.eq(ahead < 2)]
        bank = self.loaded[0]
        in_rows = Signal()
        count, beat = Signal(range(program.max_tile_rows + hw.subgroups + 1)), Signal(range(max(2, beats)))
        held = Signal(max(1, (beats - 1) * len(self.tdata)))
        word = Cat(held[: (beats - 1) * len(self.tdata)], self.tdata) if beats > 1 else self.tdata
        accepted, tile_end = Signal(), Signal()
        m.d.comb += [
            self.tready.eq(free),
            accepted.eq(self.tvalid & self.tready),
            tile_end.eq(accepted & in_rows & (count == size - 1)),
            write_row.addr.eq(count + Mux(bank, program.max_tile_rows, 0)),
            write_row.data.eq(self.tdata),
            write_row.en.eq(accepted & in_rows),
            write_scale.addr.eq(count + Mux(bank, hw.subgroups, 0)),
            write_threshold.addr.eq(write_scale.addr),
            Cat(write_scale.data, write_threshold.data).eq(word),
            write_scale.en.eq(accepted & ~in_rows & (beat == beats - 1)),
            write_threshold.en.eq(write_scale.en),
        ]
        with m.If(accepted):
            frame_end = tile_end & (index == len(tiles) - 1)
            with m.If(self.tlast != frame_end):
                m.d.sync += self.error.eq(1)
            with m.If(~in_rows):
                if beats > 1:
                    m.d.sync += held.eq(Cat(held, self.tdata)[len(self.tdata) :])
                m.d.sync += beat.eq(Mux(beat == beats - 1, 0, beat + 1))
                with m.If(beat == beats - 1):
                    m.d.sync += count.eq(count + 1)
                    with m.If(count == consts - 1):
                        m.d.sync += [in_rows.eq(1), count.eq(0)]
            with m.Else():
                m.d.sync += count.eq(count + 1)
            with m.If(tile_end):
                m.d.sync += [
                    in_rows.eq(0),
                    count.eq(0),
                    self.loaded.eq(self.loaded + 1),
                    index.eq(Mux(index == len(tiles) - 1, 0, index + 1)),
                ]
        return m


def stream_width(program: Program) -> int:
    """Bits of a weight beat: one row, rounded up to whole bytes."""
    return -(-program.hardware.lanes * program.network.weight_bits // 8) * 8
