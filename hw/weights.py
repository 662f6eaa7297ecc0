"""Where weights and per-channel constants come from: on-chip images, or tiles that are streamed in."""

from __future__ import annotations

from amaranth import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from s2tdpt.hw.images import Images, constant_width
from s2tdpt.hw.program import Program
from s2tdpt.hw.records import (
    ConstantPort,
    Sizes,
    TilePort,
    WeightPort,
    constant_words,
    weight_rows,
)
from s2tdpt.hw.widths import Widths

__all__ = ["WeightRom"]


class WeightRom(wiring.Component):
    """All weights and constants of the network on chip, as initialised memories.

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
    weights : ``In(WeightPort)``
    constants : ``In(ConstantPort)``
    tiles : ``In(TilePort)``
        `base` and `constant_base` are 0; the pulses are ignored.
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
        row_bits, word_bits = _row_width(program), constant_width(program, self._widths)
        style = {"rom_style": "block"}
        for bank, rows in enumerate(images.banks):
            memory = Memory(shape=row_bits, depth=depth, init=rows, attrs=style)
            m.submodules[f"bank_{bank}"] = memory
            _read(m, memory, self.weights.en[bank], self.weights.row[bank], self.weights.data[bank])
        memory = Memory(shape=word_bits, depth=words, init=images.constants, attrs=style)
        m.submodules.constant = memory
        _read(m, memory, self.constants.en, self.constants.address, self.constants.data)
        m.d.comb += self.tiles.ready.eq(1)
        return m


def _ports(program: Program, sizes: Sizes, widths: Widths) -> dict:
    """Members that both stores share."""
    return {
        "weights": In(WeightPort(program, sizes)),
        "constants": In(ConstantPort(program, sizes, widths)),
        "tiles": In(TilePort(sizes)),
    }


def _row_width(program: Program) -> int:
    """Bits of a weight row of a bank."""
    return program.machine.lanes * program.network.weight_bits


def _read(m: Module, memory: Memory, en: Value, address: Value, result: Value) -> None:
    """Read port of a memory with a register behind it: `result` is two cycles late and keeps its value."""
    port = memory.read_port()
    held = Signal(len(port.data), reset_less=True)
    m.d.comb += [port.en.eq(en), port.addr.eq(address), result.eq(held)]
    m.d.sync += held.eq(port.data)
