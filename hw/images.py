"""Memory images: the trained integers laid out as the machine reads them.

A tile is one group of output channels of one layer: its constant words (`post_lanes` channels each) and its
weight rows, one for every tap and input slot, lane 0 in the lowest bits. The on-chip memories hold all tiles
one after the other; the weight stream sends the same words tile by tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s2tdpt.golden.params import Params
from s2tdpt.hw.layout import Packing
from s2tdpt.hw.schedule import Operation, Program
from s2tdpt.hw.widths import Widths


@dataclass(frozen=True)
class Images:
    """Contents of the weight store.

    Parameters
    ----------
    rows : list of int
        Weight rows, `lanes` x `weight_bits` bits.
    scales : list of int
        Constant words: biases of `post_lanes` channels, then their shifts.
    thresholds : list of int
        Thresholds of `post_lanes` channels.
    """

    rows: list[int]
    scales: list[int]
    thresholds: list[int]


def pack_fields(values: np.ndarray, bits: int) -> int:
    """Integers side by side in fields of `bits` bits, the first lowest (two's complement).

    Raises
    ------
    ValueError
        A value fits neither a signed nor an unsigned field.
    """
    word = 0
    for i, value in enumerate(values.tolist()):
        if not -(1 << bits - 1) <= value < 1 << bits:
            raise ValueError(f"{value} does not fit {bits} bits")
        word |= (value & ((1 << bits) - 1)) << (i * bits)
    return word


def _pack_rows(matrix: np.ndarray, bits: int) -> list[int]:
    """Rows [R, lanes] of small integers to one integer a row."""
    if bits == 8:
        return [int.from_bytes(row.tobytes(), "little") for row in matrix.astype(np.uint8)]
    return [pack_fields(row, bits) for row in matrix]


def weight_matrix(params: Params, op: Operation, lanes: int) -> np.ndarray:
    """Weight rows of an operation, all its tiles: int8 [groups, tile_rows, lanes]; unused slots are zero."""
    weight = params.tensors[f"{op.name}.weight"]
    out_channels, in_channels = weight.shape[:2]
    taps = op.kernel * op.kernel
    matrix = np.zeros((op.packing_out.groups * lanes, taps, op.rows_tap), np.int8)
    by_tap = weight.reshape(out_channels, in_channels, taps).transpose(0, 2, 1)
    matrix[np.ix_(op.packing_out.slots(), np.arange(taps), op.packing_in.slots())] = by_tap
    return matrix.reshape(op.packing_out.groups, lanes, op.tile_rows).transpose(0, 2, 1)


def _constants(params: Params, op: Operation, packing: Packing, lanes: int) -> tuple[np.ndarray, ...]:
    """Bias, shift and threshold of every slot, int64 [groups * lanes]; unused slots never spike."""
    slots = packing.slots()
    bias, shift = np.zeros(packing.groups * lanes, np.int64), np.zeros(packing.groups * lanes, np.int64)
    threshold = np.ones(packing.groups * lanes, np.int64)
    bias[slots] = params.tensors[f"{op.name}.bias"]
    if op.sink == "residual":
        shift[slots] = params.tensors[f"{op.name}.shift"]
        threshold[:] = params.residual_threshold
    elif op.sink == "spikes":
        threshold[slots] = params.tensors[f"{op.name}.threshold"]
    return bias, shift, threshold


def tile_words(params: Params, program: Program, widths: Widths, op: Operation, group: int):
    """Scale words, threshold words and weight rows of one tile."""
    hw = program.hardware
    constants = _constants(params, op, op.packing_out, hw.lanes)
    scales, thresholds = [], []
    for p in range(op.subgroups(group, hw.post_lanes)):
        start = group * hw.lanes + p * hw.post_lanes
        bias, shift, threshold = (c[start : start + hw.post_lanes] for c in constants)
        scales.append(
            pack_fields(bias, widths.bias) | pack_fields(shift, widths.shift) << hw.post_lanes * widths.bias
        )
        thresholds.append(pack_fields(threshold, widths.threshold))
    rows = _pack_rows(weight_matrix(params, op, hw.lanes)[group], params.config.weight_bits)
    return scales, thresholds, rows


def rom_images(params: Params, program: Program, widths: Widths) -> Images:
    """Contents of the on-chip memories, all tiles in program order."""
    images = Images([], [], [])
    for op in program.ops:
        if op.kind != "accumulate":
            continue
        for group in range(op.packing_out.groups):
            scales, thresholds, rows = tile_words(params, program, widths, op, group)
            images.scales.extend(scales)
            images.thresholds.extend(thresholds)
            images.rows.extend(rows)
    return images


def stream_tiles(program: Program) -> list[tuple[int, int]]:
    """(constant words, weight rows) of every tile in program order."""
    return [
        (op.subgroups(group, program.hardware.post_lanes), op.tile_rows)
        for op in program.ops
        if op.kind == "accumulate"
        for group in range(op.packing_out.groups)
    ]


def const_width(program: Program, widths: Widths) -> int:
    """Bits of a constant word in the weight stream: biases, shifts, thresholds of `post_lanes` channels."""
    return program.hardware.post_lanes * (widths.bias + widths.shift + widths.threshold)


def stream_beats(params: Params, program: Program, widths: Widths, beat_bits: int) -> list[int]:
    """Beats of the weight stream for one image, `beat_bits` bits each."""
    beats: list[int] = []
    per_const = -(-const_width(program, widths) // beat_bits)
    scale_bits = program.hardware.post_lanes * (widths.bias + widths.shift)
    for op in program.ops:
        if op.kind != "accumulate":
            continue
        for group in range(op.packing_out.groups):
            scales, thresholds, rows = tile_words(params, program, widths, op, group)
            for scale, threshold in zip(scales, thresholds, strict=True):
                word = scale | threshold << scale_bits
                beats += [word >> i * beat_bits & ((1 << beat_bits) - 1) for i in range(per_const)]
            beats += rows
    return beats
