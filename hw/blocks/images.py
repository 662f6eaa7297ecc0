"""Memory images: the trained integers laid out as the machine reads them.

A tile is one step of the program: its constant words (`post_lanes` channels each) and its weight rows. Every
bank has rows of its own, each the weights of one input channel at one tap for all lanes, lane 0 lowest. The
on-chip memories hold all tiles one after the other; the weight stream sends the same words tile by tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from s2tdpt.golden.neuron import LIF
from s2tdpt.golden.params import Params
from s2tdpt.hw.plan.program import Program, Sink, Step
from s2tdpt.hw.plan.records import constant_layout
from s2tdpt.hw.plan.widths import Widths, stream_laws

INT4 = 4
"""Weight bits of which two share a byte."""


@dataclass(frozen=True)
class Images:
    """Contents of the weight store, all tiles in program order.

    Parameters
    ----------
    banks : list of list of int
        Weight rows of every bank, `lanes` x `weight_bits` bits each.
    constants : list of int
        Constant words: `post_lanes` channels of `records.constant_layout`, the first lowest.
    """

    banks: list[list[int]]
    constants: list[int]


@dataclass(frozen=True)
class TileSize:
    """What a tile takes in the store.

    Parameters
    ----------
    constants : int
        Constant words.
    rows : int
        Weight rows of every bank.
    """

    constants: int
    rows: int


def tile_sizes(program: Program) -> list[TileSize]:
    """Of every tile in program order."""
    machine = program.machine
    return [TileSize(step.subgroups(machine), step.tile_rows(machine)) for step in program.steps]


def stream_width(program: Program) -> int:
    """Bits of a weight beat: one row of a bank, rounded up to whole bytes."""
    return -(-program.machine.lanes * program.network.weight_bits // 8) * 8


def constant_width(program: Program, widths: Widths) -> int:
    """Bits of a constant word."""
    return program.machine.post_lanes * constant_layout(widths).size


def constant_beats(program: Program, widths: Widths) -> int:
    """Beats of a constant word."""
    return -(-constant_width(program, widths) // stream_width(program))


def tile_beats(program: Program, widths: Widths) -> list[int]:
    """Beats of every tile in program order; their sum is the weight stream of an image."""
    per_word, banks = constant_beats(program, widths), program.machine.banks
    return [size.constants * per_word + size.rows * banks for size in tile_sizes(program)]


def bank_rows(params: Params, program: Program) -> list[list[int]]:
    """Weight rows of every bank, all tiles in program order."""
    banks: list[list[int]] = [[] for _ in range(program.machine.banks)]
    for rows in _tiles(params, program):
        for bank, words in enumerate(banks):
            words += _integers(rows[:, bank], params.config.weight_bits)
    return banks


def constant_words_image(params: Params, program: Program, widths: Widths) -> list[int]:
    """Constant words of all tiles in program order."""
    slots = _slots(params, program, widths)
    return [
        word for step in program.steps for word in _constant_words(slots[step.layer], step, program, widths)
    ]


def rom_images(params: Params, program: Program, widths: Widths) -> Images:
    """Contents of the on-chip memories."""
    return Images(bank_rows(params, program), constant_words_image(params, program, widths))


def stream_beats(params: Params, program: Program, widths: Widths) -> list[int]:
    """Beats of the weight stream for one image, `stream_width` bits each.

    # Ref: docs/interface.md, "Weight stream"
    """
    beats: list[int] = []
    width, per_word = stream_width(program), constant_beats(program, widths)
    slots = _slots(params, program, widths)
    for step, rows in zip(program.steps, _tiles(params, program), strict=True):
        for word in _constant_words(slots[step.layer], step, program, widths):
            beats += [word >> i * width & ((1 << width) - 1) for i in range(per_word)]
        beats += _integers(rows.reshape(-1, rows.shape[-1]), params.config.weight_bits)
    return beats


def pack_fields(values: list[int], bits: list[int]) -> int:
    """Integers side by side, the first lowest, each in a field of its own width (two's complement).

    Raises
    ------
    ValueError
        A value fits neither a signed nor an unsigned field.
    """
    word = offset = 0
    for value, width in zip(values, bits, strict=True):
        if not -(1 << width - 1) <= value < 1 << width:
            raise ValueError(f"{value} does not fit {width} bits")
        word |= (value & ((1 << width) - 1)) << offset
        offset += width
    return word


def _integers(matrix: np.ndarray, bits: int) -> list[int]:
    """Rows [R, lanes] of weights to one integer a row."""
    fields = matrix.astype(np.uint8)
    if bits == INT4:
        if fields.shape[1] % 2:
            fields = np.pad(fields, ((0, 0), (0, 1)))
        fields = (fields[:, 0::2] & 15) | (fields[:, 1::2] << 4)
    size = fields.shape[1]
    data = np.ascontiguousarray(fields).tobytes()
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def _tiles(params: Params, program: Program) -> Iterator[np.ndarray]:
    """Weight rows of every tile in program order: int8 [tile_rows, banks, lanes]."""
    layers: dict[str, np.ndarray] = {}
    for step in program.steps:
        if step.layer not in layers:
            layers[step.layer] = _weight_tiles(params, program, step)
        yield layers[step.layer][step.group]


def _weight_tiles(params: Params, program: Program, step: Step) -> np.ndarray:
    """Weight rows of all tiles of a layer: int8 [groups, tile_rows, banks, lanes], zero without a channel."""
    machine, weight = program.machine, params.weight(step.layer)
    outputs, inputs = weight.shape[:2]
    taps, groups = step.kernel * step.kernel, step.packing_out.groups
    word, slot = np.divmod(step.packing_in.slots(), step.packing_in.lanes)
    row = word * step.word_rows(machine) + slot // machine.banks
    place = row * machine.banks + slot % machine.banks
    matrix = np.zeros((taps, step.tap_rows(machine) * machine.banks, groups * machine.lanes), np.int8)
    by_tap = weight.reshape(outputs, inputs, -1).transpose(2, 1, 0)
    # Where a window is read as one tap, the kernel's taps lie in its channels.
    by_tap = by_tap.reshape(taps, step.packing_in.channels, outputs)
    matrix[np.ix_(np.arange(taps), place, step.packing_out.slots())] = by_tap
    split = matrix.reshape(step.tile_rows(machine), machine.banks, groups, machine.lanes)
    return split.transpose(2, 0, 1, 3)


def _slots(params: Params, program: Program, widths: Widths) -> dict[str, list[int]]:
    """Packed constants of every output slot, by layer."""
    return {step.layer: _slot_constants(params, widths, step) for step in program.steps if step.group == 0}


def _slot_constants(params: Params, widths: Widths, step: Step) -> list[int]:
    """Constants of the output slots of a layer, packed; a slot without a channel never spikes."""
    packing = step.packing_out
    slots, count = packing.slots(), packing.groups * packing.lanes
    bias, shift, threshold = np.zeros(count, np.int64), np.zeros(count, np.int64), np.ones(count, np.int64)
    bias[slots] = params.bias(step.layer)
    if step.sink is Sink.RESIDUAL:
        shift[slots] = params.shift(step.layer).astype(np.int64) - widths.min_shift
        law = stream_laws(params).get(step.layer, LIF)  # nothing fires behind the last block
        threshold[:] = law.threshold(params.residual_threshold)
    elif step.sink is not Sink.LOGITS:  # neurons on the grid of the smallest shift
        bias <<= widths.min_shift
        threshold[slots] = params.threshold(step.layer).astype(np.int64) << widths.min_shift
    bits = [field.width for _, field in constant_layout(widths)]
    numbers = np.stack([bias, shift, threshold], axis=1).tolist()
    return [pack_fields(number, bits) for number in numbers]


def _constant_words(slots: list[int], step: Step, program: Program, widths: Widths) -> list[int]:
    """Constant words of a tile from the packed slots of its layer."""
    machine, bits = program.machine, constant_layout(widths).size
    first = step.group * machine.lanes
    starts = range(first, first + step.subgroups(machine) * machine.post_lanes, machine.post_lanes)
    return [
        sum(slot << lane * bits for lane, slot in enumerate(slots[start : start + machine.post_lanes]))
        for start in starts
    ]
