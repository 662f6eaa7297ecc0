"""Where weights and per-channel constants come from: on-chip images, or tiles that are streamed in."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.images import Images, constant_beats, constant_width, stream_width, tile_sizes
from s2tdpt.hw.fixed import index_shape, wrap
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import (
    STREAM_CONSTANT_TILES,
    ConstantPort,
    Sizes,
    TilePort,
    WeightPort,
    constant_words,
    weight_rows,
)
from s2tdpt.hw.plan.widths import Widths

__all__ = ["READY_DELAY", "ROOM_DELAY", "WeightRom", "WeightStream"]

ROOM_DELAY = 2
"""From a `release` or `complete` to the first beat that takes the room."""

READY_DELAY = 2
"""From the last beat of a tile to its `ready`."""

_PLACE_BITS = (STREAM_CONSTANT_TILES - 1).bit_length()
_BLOCK_ROM, _BLOCK_RAM = {"rom_style": "block"}, {"ram_style": "block", "no_rw_check": 1}
_SMALL_RAM = {"ram_style": "distributed", "no_rw_check": 1}


class WeightRom(wiring.Component):
    """All weights and constants of the network on chip, as initialised memories.

    A row of a bank lies in as many memories as there are groups of lanes, which read it at their own times.

    Latency: `records.WEIGHT_DELAY` cycles; throughput: a row of every bank and a constant word a cycle.
    Every tile is always ready, at the rows that the program gives.
    Resources: banks x `rows` x lanes x weight_bits and `const_words` x post_lanes x (bias + shift +
    threshold) bits of block memory, and one register behind every memory.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    widths : Widths
    images : Images
        Contents (`images.rom_images`).

    Members
    -------
    weights : ``In(WeightPort)``, array, one a group of lanes
    constants : ``In(ConstantPort)``
    tiles : ``In(TilePort)``
        `base` is 0; the pulses are ignored.
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths, images: Images):
        lengths = {len(rows) for rows in images.banks}
        if len(images.banks) != program.machine.banks or lengths != {program.rows}:
            raise ValueError(
                f"weight images must have {program.machine.banks} banks of {program.rows} rows, "
                f"not {len(images.banks)} of {', '.join(map(str, sorted(lengths)))}"
            )
        if len(images.constants) != program.const_words:
            raise ValueError(
                f"constant image must have {program.const_words} words, not {len(images.constants)}"
            )
        self._program, self._widths, self._images = program, widths, images
        super().__init__(_ports(program, sizes, widths))

    def elaborate(self, platform):
        m = Module()
        program, images = self._program, self._images
        depth, words = weight_rows(program), constant_words(program)
        part, word_bits = _part_width(program), constant_width(program, self._widths)
        for bank, rows in enumerate(images.banks):
            for group, port in enumerate(self.weights):
                parts = [row >> group * part & ((1 << part) - 1) for row in rows]
                memory = Memory(shape=part, depth=depth, init=parts, attrs=_BLOCK_ROM)
                m.submodules[f"bank_{bank}_{group}"] = memory
                _read(m, memory, port.en[bank], port.row[bank], port.data[bank])
        memory = Memory(shape=word_bits, depth=words, init=images.constants, attrs=_BLOCK_ROM)
        m.submodules.constant = memory
        _read(m, memory, self.constants.en, self.constants.address, self.constants.data)
        m.d.comb += self.tiles.ready.eq(1)
        return m


class WeightStream(wiring.Component):
    """Rings of weight rows and of constants, filled from a stream while other tiles are in use.

    Tiles arrive in program order, image after image; see docs/interface.md for the beats. The rows of a tile
    follow those of the tile before it in a ring of `records.weight_rows` rows of every bank, its constants go
    to one of `records.STREAM_CONSTANT_TILES` places. A row is received once the row that it replaces is
    released, constants once the tile that they replace is complete.

    Latency: a tile is ready `READY_DELAY` cycles after its last beat; `records.WEIGHT_DELAY` from an address
    to data; a `release` or `complete` makes room for beats from `ROOM_DELAY` cycles after it on.
    Throughput: one beat a cycle without a gap while there is room; a row of every bank and a constant word
    read a cycle. `tready` is a register.
    Resources: banks x weight_rows x lanes x weight_bits and constant_words x post_lanes x (bias + shift +
    threshold) bits of block memory, a register behind every memory, and one for a beat and a constant word.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    widths : Widths

    Members
    -------
    weights : ``In(WeightPort)``, array, one a group of lanes
    constants : ``In(ConstantPort)``
    tiles : ``In(TilePort)``
        Pulses for different tiles may come in one cycle. A tile is started, then released; it is complete in
        the same cycle or later.
    tdata, tvalid, tready, tlast
        Stream input, `tlast` on the last beat of an image's tiles.
    error : ``Out(1)``
        `tlast` came elsewhere, or not; until reset.
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths):
        if program.machine.weight_memory != "stream":
            raise ValueError(
                "streamed weights need a program with weight_memory 'stream', "
                f"not {program.machine.weight_memory!r}"
            )
        self._program, self._sizes, self._widths = program, sizes, widths
        super().__init__(
            _ports(program, sizes, widths)
            | {
                "tdata": In(stream_width(program)),
                "tvalid": In(1),
                "tready": Out(1, init=1),
                "tlast": In(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self._program
        beat = m.submodules.counter = _BeatCounter(program, constant_beats(program, self._widths))
        rings = m.submodules.rings = _TileRings(self._sizes)
        accepted = Signal()
        m.d.comb += [
            accepted.eq(self.tvalid & self.tready),
            beat.en.eq(accepted),
            rings.row_end.eq(accepted & beat.row_end),
            rings.tile_end.eq(accepted & beat.tile_end),
        ]
        wiring.connect(m, wiring.flipped(self.tiles), rings.tiles)
        with m.If(accepted & (self.tlast != (beat.tile_end & beat.last_tile))):
            m.d.sync += self.error.eq(1)

        here, behind = Signal(), Signal()  # room for this beat, and for the one behind it
        m.d.comb += here.eq(Mux(beat.in_rows, rings.row_free, rings.place_free))
        with m.If(beat.tile_end):
            m.d.comb += behind.eq(rings.next_place_free)
        with m.Elif(beat.row_end):
            m.d.comb += behind.eq(rings.next_row_free)
        with m.Elif(beat.constants_end):
            m.d.comb += behind.eq(rings.row_free)
        with m.Else():
            m.d.comb += behind.eq(here)
        m.d.sync += self.tready.eq(Mux(accepted, behind, here))

        # Everything is written a cycle after it came: the memories are many and far away.
        data = Signal(len(self.tdata), reset_less=True)
        m.d.sync += data.eq(self.tdata)
        self._write_rows(m, accepted, beat, rings.row, data)
        self._write_constants(m, accepted, beat, data)
        return m

    def _write_rows(self, m: Module, accepted: Value, beat: _BeatCounter, at: Value, data: Value) -> None:
        program = self._program
        depth, part = weight_rows(program), _part_width(program)
        row, banks = Signal(at.shape(), reset_less=True), Signal(program.machine.banks)
        m.d.sync += row.eq(at)
        for bank, en in enumerate(banks):
            m.d.sync += en.eq(accepted & beat.in_rows & (beat.bank == bank))
            for group, port in enumerate(self.weights):
                memory = Memory(shape=part, depth=depth, init=[], attrs=_BLOCK_RAM)
                m.submodules[f"bank_{bank}_{group}"] = memory
                write = memory.write_port()
                m.d.comb += [
                    write.en.eq(en),
                    write.addr.eq(row),
                    write.data.eq(data[group * part : (group + 1) * part]),
                ]
                _read(m, memory, port.en[bank], port.row[bank], port.data[bank])

    def _write_constants(self, m: Module, accepted: Value, beat: _BeatCounter, data: Value) -> None:
        """A word is written with its last beat; every tile has a place of `subgroups` words."""
        program, subgroups = self._program, self._program.machine.subgroups
        word_bits, beats = constant_width(program, self._widths), constant_beats(program, self._widths)
        # A few wide words: as block RAM they would take as many blocks as a deep memory of that width.
        memory = Memory(shape=word_bits, depth=constant_words(program), init=[], attrs=_SMALL_RAM)
        m.submodules.constant = memory
        write = memory.write_port()
        part, word_end, tile_end = Signal(), Signal(), Signal()
        place, word = Signal(self._sizes.constant), Signal(self._sizes.constant)
        following = _next_place(place, subgroups)
        m.d.sync += [
            part.eq(accepted & ~beat.in_rows),
            word_end.eq(accepted & beat.word_end),
            tile_end.eq(accepted & beat.tile_end),
        ]
        with m.If(tile_end):
            m.d.sync += [place.eq(following), word.eq(following)]
        with m.Elif(word_end):
            m.d.sync += word.eq(wrap(word + 1, word.shape()))
        received = data
        if beats > 1:
            earlier = Signal((beats - 1) * len(data), reset_less=True)
            received = Cat(earlier, data)
            with m.If(part):
                m.d.sync += earlier.eq(received[len(data) :])
        m.d.comb += [
            write.en.eq(word_end),
            write.addr.eq(word),
            write.data.eq(wrap(received, unsigned(word_bits))),
        ]
        _read(m, memory, self.constants.en, self.constants.address, self.constants.data)


class _BeatCounter(wiring.Component):
    """What the next beat of the weight stream is.

    Members
    -------
    en : ``In(1)``
        The beat is taken.
    in_rows : ``Out(1)``
        It is a weight row, of `bank`; else a part of a constant word.
    bank : ``Out``
    word_end, constants_end : ``Out(1)``
        It ends a constant word, the constants of a tile.
    row_end, tile_end : ``Out(1)``
        It ends the row of all banks, a tile.
    last_tile : ``Out(1)``
        It belongs to the last tile of an image.
    """

    def __init__(self, program: Program, beats_a_word: int):
        self._tiles = tile_sizes(program)
        self._banks, self._beats = program.machine.banks, beats_a_word
        super().__init__(
            {
                "en": In(1),
                "in_rows": Out(1),
                "bank": Out(index_shape(self._banks)),
                "word_end": Out(1),
                "constants_end": Out(1),
                "row_end": Out(1),
                "tile_end": Out(1),
                "last_tile": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # What follows the current row and word in this tile; a table knows it of the tile behind it.
        rows = [size.rows - 1 for size in self._tiles]
        words = [size.constants - 1 for size in self._tiles]
        rows_left = Signal(index_shape(max(rows) + 1), init=rows[0])
        words_left = Signal(index_shape(max(words) + 1), init=words[0])
        beat = Signal(index_shape(self._beats))
        following = Signal(index_shape(len(rows)), init=1 % len(rows))  # tile behind the current one
        m.d.comb += [
            self.word_end.eq(~self.in_rows & (beat == self._beats - 1)),
            self.constants_end.eq(self.word_end & (words_left == 0)),
            self.row_end.eq(self.in_rows & (self.bank == self._banks - 1)),
            self.tile_end.eq(self.row_end & (rows_left == 0)),
            self.last_tile.eq(following == 0),
        ]
        with m.If(self.en & ~self.in_rows):
            m.d.sync += beat.eq(_counted(beat, self._beats))
            with m.If(self.word_end):
                m.d.sync += words_left.eq(wrap(words_left - 1, words_left.shape()))
        with m.If(self.en & self.in_rows):
            m.d.sync += self.bank.eq(_counted(self.bank, self._banks))
            with m.If(self.row_end):
                m.d.sync += rows_left.eq(wrap(rows_left - 1, rows_left.shape()))
        with m.If(self.en & self.constants_end):
            m.d.sync += self.in_rows.eq(1)
        with m.If(self.en & self.tile_end):
            m.d.sync += [
                self.in_rows.eq(0),
                following.eq(_counted(following, len(rows))),
                rows_left.eq(Array(rows)[following]),
                words_left.eq(Array(words)[following]),
            ]
        return m


class _TileRings(wiring.Component):
    """Which tiles are in the rings, and whether there is room for more.

    Rows and tiles are numbered with one bit more than their ring has places, so that numbers that differ in
    that bit alone mean that the ring is full.

    Members
    -------
    tiles : ``In(TilePort)``
    row_end, tile_end : ``In(1)``
        A row of all banks, a tile was received with the beat of this cycle.
    row : ``Out``
        Where the row being received goes.
    row_free, next_row_free : ``Out(1)``
        There is room for the row `row`, for the one behind it.
    place_free, next_place_free : ``Out(1)``
        There is room for the constants of the tile being received, of the one behind it.
    """

    def __init__(self, sizes: Sizes):
        self._sizes = sizes
        super().__init__(
            {
                "tiles": In(TilePort(sizes)),
                "row_end": In(1),
                "tile_end": In(1),
                "row": Out(sizes.row),
                "row_free": Out(1),
                "next_row_free": Out(1),
                "place_free": Out(1),
                "next_place_free": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        row_shape, tile_shape = unsigned(self._sizes.row + 1), unsigned(_PLACE_BITS + 1)
        row, oldest = Signal(row_shape), Signal(row_shape)
        ends = Array([Signal(row_shape, name=f"end_{i}") for i in range(STREAM_CONSTANT_TILES)])
        received, started, released, complete = (Signal(tile_shape) for _ in range(4))
        written = Signal(tile_shape)  # a cycle behind `received`, like the memories
        next_row, next_tile = wrap(row + 1, row_shape), wrap(received + 1, tile_shape)
        row_ring, tile_ring = 1 << self._sizes.row, STREAM_CONSTANT_TILES
        m.d.comb += [
            self.tiles.ready.eq(written != started),
            self.row.eq(_place(row, row_ring)),
            self.row_free.eq((row ^ oldest) != row_ring),
            self.next_row_free.eq((next_row ^ oldest) != row_ring),
            self.place_free.eq((received ^ complete) != tile_ring),
            self.next_place_free.eq((next_tile ^ complete) != tile_ring),
        ]
        m.d.sync += written.eq(received)
        with m.If(self.row_end):
            m.d.sync += row.eq(next_row)
        with m.If(self.tile_end):
            m.d.sync += [received.eq(next_tile), ends[_place(received, tile_ring)].eq(next_row)]
        with m.If(self.tiles.start):
            m.d.sync += [
                started.eq(wrap(started + 1, tile_shape)),
                self.tiles.base.eq(_place(ends[_place(started, tile_ring)], row_ring)),
            ]
        with m.If(self.tiles.release):
            m.d.sync += [
                released.eq(wrap(released + 1, tile_shape)),
                oldest.eq(ends[_place(released, tile_ring)]),
            ]
        with m.If(self.tiles.complete):
            m.d.sync += complete.eq(wrap(complete + 1, tile_shape))

        return m


def _next_place(word: Value, subgroups: int) -> Value:
    """First constant word of the next tile."""
    last = (STREAM_CONSTANT_TILES - 1) * subgroups
    return Mux(word == last, 0, wrap(word + subgroups, word.shape()))


def _counted(value: Value, count: int) -> Value:
    """The next of `count` values, 0 after the last one."""
    return Mux(value == count - 1, 0, wrap(value + 1, value.shape()))


def _place(number: Value, ring: int) -> Value:
    """Place of a number in a ring of a power of two."""
    return wrap(number, index_shape(ring))


def _ports(program: Program, sizes: Sizes, widths: Widths) -> dict:
    """Members that both stores share."""
    return {
        "weights": In(WeightPort(program, sizes)).array(program.machine.subgroups),
        "constants": In(ConstantPort(program, sizes, widths)),
        "tiles": In(TilePort(sizes)),
    }


def _part_width(program: Program) -> int:
    """Bits of a group's part of a weight row."""
    return program.machine.post_lanes * program.network.weight_bits


def _read(m: Module, memory: Memory, en: Value, address: Value, result: Value) -> None:
    """Read port of a memory with a register behind it: `result` is two cycles late and keeps its value."""
    port = memory.read_port()
    held = Signal(len(port.data), reset_less=True)
    m.d.comb += [port.en.eq(en), port.addr.eq(address), result.eq(held)]
    m.d.sync += held.eq(port.data)
