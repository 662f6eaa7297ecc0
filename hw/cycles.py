"""How long an image takes: exact cycle counts by plain arithmetic on its spikes, no simulation.

The machine is data-driven, so its cycles depend on the spikes. Given the tensors of a golden trace, every
operation's cycles follow from a recurrence over its positions (one row: accumulate, then drain, with two
banks between them). The same layer program that the hardware executes is counted here. Streamed weights may
be late: `arrival` says when a tile is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from s2tdpt.golden.trace import trace_shapes
from s2tdpt.hw.arrival import TileArrival
from s2tdpt.hw.config import PIXEL_PLANES
from s2tdpt.hw.layout import Packing
from s2tdpt.hw.pool import pool_cycles
from s2tdpt.hw.post import PIPELINE
from s2tdpt.hw.schedule import Operation, Program
from s2tdpt.hw.stdp_cycles import attention_cycles

SEQUENCER_CYCLES = 3
"""From the end of an operation to the start of the next: fetch, latch, start (`core.Core`)."""
FIRST_EVENT = 6
"""From the start of an accumulate operation to its first event: position, window, request, word, chunk."""
EVENT_TO_SUM = 4
"""From the last event of a position to the first cycle in which it may be drained."""


@dataclass(frozen=True)
class OperationCycles:
    """Cost of one operation on one image.

    Parameters
    ----------
    name : str
    cycles : int
        From the cycle of `start` to the cycle of `done`.
    events : int
        Accumulate cycles, over all rows: one a spike, group of output channels and tap.
    accumulates : int
        Useful accumulates: events times the output channels of their group.
    bound : {"accumulate", "drain", "pool", "attention"}
        What takes most of the time.
    """

    name: str
    cycles: int
    events: int
    accumulates: int
    bound: str


def _slot_popcounts(counts: np.ndarray, packing: Packing) -> np.ndarray:
    """Events of every word: [N, C] events a channel to [N, groups]."""
    slots = packing.slots() // packing.lanes
    words = np.zeros((counts.shape[0], packing.groups), np.int64)
    np.add.at(words, (slice(None), slots), counts)
    return words


def _over_window(per_position: np.ndarray, op: Operation) -> np.ndarray:
    """Sum over the valid taps of every position, [N] to [N]."""
    if op.kernel == 1:
        return per_position
    grid = np.pad(per_position.reshape(op.height, op.width), 1)
    return sum(grid[y : y + op.height, x : x + op.width] for y in range(3) for x in range(3)).reshape(-1)


def event_counts(op: Operation, program: Program, tensor: np.ndarray) -> np.ndarray:
    """Events of every position and input word, int64 [positions, groups], before windows are formed.

    Parameters
    ----------
    tensor : ndarray
        Spikes [T, N, C], pixels uint8 [H, W, C] or head sums [D] of one image.
    """
    net = program.network
    if op.source == "spikes":
        return _slot_popcounts(np.asarray(tensor, np.int64).sum(axis=0), op.packing_in)
    if op.source == "pixels":
        # p - zero point as a byte: a zero point of 128 only inverts the top bit.
        value = np.asarray(tensor, np.uint8).reshape(op.positions, -1) ^ np.uint8(net.pixel_zero_point)
        return _slot_popcounts(np.bitwise_count(value).astype(np.int64), op.packing_in)
    slices = []
    for k in reversed(range(program.head_slices)):
        value = (np.asarray(tensor, np.int64) >> (k * PIXEL_PLANES)) & 0xFF
        slices.append(np.bitwise_count(value).astype(np.int64))
    return _slot_popcounts(np.stack(slices), op.packing_in)


def accumulate_cycles(
    op: Operation, program: Program, tensor: np.ndarray, arrival: TileArrival | None = None, start: int = 0
) -> OperationCycles:
    """Cycles of an accumulate operation, exact.

    A position costs max(1, events) cycles a word; its drain costs a fixed number of micro-steps. A row
    starts a position when the previous one is issued, one of its two banks is free and the weights are
    there; the drains of all rows follow each other in position order.

    Parameters
    ----------
    tensor : ndarray
        As in `event_counts`.
    arrival : TileArrival, optional
        Of streamed weights; it advances by the operation's tiles. None: they are never late.
    start : int
        Cycle of `start` in the time of `arrival`.
    """
    hw, steps = program.hardware, program.network.timesteps
    words = event_counts(op, program, tensor)
    length = _over_window(np.maximum(words, 1).sum(axis=1), op).tolist()
    events = int(_over_window(words.sum(axis=1), op).sum())
    tail = 1 if op.sink == "logits" else steps
    micro_steps = tail + (PIXEL_PLANES if op.source != "spikes" else 0)

    issued = [FIRST_EVENT - 1] * hw.rows  # last event of the row's previous position
    released = [[-1, -1] for _ in range(hw.rows)]  # drains of the row's last two positions
    drained = -1
    busy = accumulates = ready = 0
    packing = op.packing_out
    for group in range(packing.groups):
        drain = op.subgroups(group, hw.post_lanes) * micro_steps
        channels = packing.last_lanes if group == packing.groups - 1 else packing.full_lanes
        accumulates += events * channels
        if arrival is not None:
            ready = arrival.next_tile() - start + FIRST_EVENT - 1
        for position, cycles in enumerate(length):
            row = position % hw.rows
            first = max(issued[row] + 1, released[row][0] + 1, ready)
            issued[row] = first + cycles - 1
            drained = max(issued[row] + EVENT_TO_SUM, drained + 1) + drain - 1
            released[row] = [released[row][1], drained]
            busy += drain
        if arrival is not None:
            arrival.release(start + drained + PIPELINE)
    bound = "drain" if busy > packing.groups * sum(length) / hw.rows else "accumulate"
    return OperationCycles(op.name, drained + PIPELINE, events * packing.groups, accumulates, bound)


def operation_cycles(
    op: Operation,
    program: Program,
    trace: Mapping[str, np.ndarray],
    arrival: TileArrival | None = None,
    start: int = 0,
) -> OperationCycles:
    """Cycles of one operation on one image.

    Parameters
    ----------
    trace : mapping
        Golden trace of one image, without the batch axis, plus "pixels" (uint8 [H, W, C]).
    arrival, start
        As in `accumulate_cycles`.
    """
    if op.kind == "pool":
        return OperationCycles(op.name, pool_cycles(op.height, op.width, op.packing_in.groups), 0, 0, "pool")
    tensors = [np.asarray(trace[name]) for name in op.reads]
    if op.kind == "attention":
        net = program.network
        cycles = attention_cycles(*tensors, heads=net.heads, lanes=program.hardware.lanes)
        return OperationCycles(op.name, cycles, 0, 0, "attention")
    return accumulate_cycles(op, program, tensors[0], arrival, start)


def frame_cycles(
    program: Program, trace: Mapping[str, np.ndarray], arrival: TileArrival | None = None, start: int = 0
) -> tuple[list[OperationCycles], int]:
    """Cycles of every operation on one image and of the whole image.

    Parameters
    ----------
    arrival : TileArrival, optional
        Of streamed weights, one for all images of a run, which must be counted in order. None: weights are
        never late.
    start : int
        Cycle in which the first operation starts, in the time of `arrival`.

    Returns
    -------
    operations : list of OperationCycles
    total : int
        From the start of the first operation to the end of the last; back-to-back frames follow after
        `SEQUENCER_CYCLES` + 1 more.
    """
    operations: list[OperationCycles] = []
    at = start
    for op in program.ops:
        operations.append(operation_cycles(op, program, trace, arrival, at))
        at += operations[-1].cycles + SEQUENCER_CYCLES
    return operations, at - SEQUENCER_CYCLES - start


def input_rate(op: Operation, program: Program, trace: Mapping[str, np.ndarray]) -> float:
    """Share of set bits in what an operation reads, 0..1: the firing rate of its input.

    Pixels and head sums count as their bits. The attention reads queries, keys and values: their mean.
    """
    tensors = [np.asarray(trace[name]) for name in op.reads]
    if op.source == "spikes":
        return float(np.mean([tensor.mean() for tensor in tensors]))
    bits = op.positions * op.packing_in.channels * PIXEL_PLANES
    return int(event_counts(op, program, tensors[0]).sum()) / bits


def dense_trace(program: Program) -> dict[str, np.ndarray]:
    """A trace with which every operation takes its longest: all bits set, all query counts in use.

    It comes from no image; its cycles are those of a network without any sparsity.
    """
    net, shapes = program.network, trace_shapes(program.network)
    trace = {
        "pixels": np.full((net.image_height, net.image_width, net.image_channels), 255, np.uint8)
        ^ np.uint8(net.pixel_zero_point),
        "head.sum": np.full(shapes["head.sum"], -1, np.int64),
    }
    for name in (name for op in program.ops for name in op.reads if name not in trace):
        trace[name] = np.ones(shapes[name], np.uint8)
    # The attention keeps a row for every spike count of a query: it is busiest when the tokens differ.
    count = net.head_dim - np.arange(net.tokens) % (net.head_dim + 1)
    queries = np.tile(np.arange(net.head_dim) < count[:, None], net.heads).astype(np.uint8)
    for op in program.ops:
        if op.kind == "attention":
            trace[op.reads[0]] = np.broadcast_to(queries, shapes[op.reads[0]])
    return trace


def utilisation(operations: list[OperationCycles], program: Program, layers: bool = True) -> float:
    """Useful accumulates / (lanes x rows x cycles) over the convolutions and linear layers.

    Parameters
    ----------
    layers : bool
        Only operations that accumulate; otherwise the whole image.
    """
    hw = program.hardware
    chosen = [o for o in operations if o.events or not layers]
    cycles = sum(o.cycles for o in chosen)
    return sum(o.accumulates for o in chosen) / (hw.lanes * hw.rows * cycles) if cycles else 0.0
