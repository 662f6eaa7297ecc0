"""Named tensors rebuilt from the records of a run, with the layer program as the only map.

A word that was never written, a write outside of the running operation's region and a spike in a lane that
holds no channel are findings of their own: equality of the tensors alone would not show them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from s2tdpt.sim.dump import HEAD_FIELD, STEP_FIELD, Dump, Records

LIMIT = 20
"""Findings of one kind that are put into words; the rest is only counted."""


@dataclass
class Replay:
    """Tensors and findings.

    Parameters
    ----------
    frames : int
        Number of frames that were rebuilt, B.
    tensors : dict[str, numpy.ndarray]
        Trace name -> [B, T, N, C], spikes uint8, integers int64; the names are those of `golden.network`.
    findings : list[str]
        What the tensors cannot show: missing, stray and unknown writes, spikes of unused lanes, broken order.
    finding_count : int
    """

    frames: int
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    finding_count: int = 0

    def find(self, texts: Sequence[str], count: int | None = None) -> None:
        """Note findings; `count` when there are more than texts."""
        self.findings.extend(texts)
        self.finding_count += len(texts) if count is None else count


def replay(dump: Dump, ops: Sequence, frames: int, timesteps: int, post_lanes: int, heads: int) -> Replay:
    """Rebuild the tensors of the first `frames` frames.

    Parameters
    ----------
    dump : Dump
        Records of the run.
    ops : sequence of hw.schedule.Operation
        The layer program: names and `TraceMap`s.
    frames : int
        Frames to rebuild, B; all of them must have run to their end, and be recorded.
    timesteps, post_lanes, heads : int
        T, P and the number of attention heads.

    Raises
    ------
    ValueError
        Fewer than `frames` frames are in the dump.
    """
    result = Replay(frames)
    result.find(dump.protocol)
    steps = dump.steps
    table = {}
    for step in range(len(steps)):
        if steps.frame[step] < frames:
            table[int(steps.frame[step]), int(steps.op[step])] = step
    missing = [(frame, op) for frame in range(frames) for op in range(len(ops)) if (frame, op) not in table]
    if missing and not np.any(steps.frame >= frames - 1):
        held = int(steps.frame.max(initial=-1)) + 1
        raise ValueError(f"the dump holds {held} frames; expected at least {frames}")
    result.find([f"frame {frame}: step {ops[op].name} never ran" for frame, op in missing])

    for memory, records in (("spike", dump.spike), ("residual", dump.residual), ("y", dump.y)):
        frame, kept = _attribute(memory, records, dump, frames, len(ops), result)
        for number, op in enumerate(ops):
            mine = np.flatnonzero(kept.op == number)
            maps = [m for m in op.trace if m.memory == memory]
            if not maps:
                if len(mine):
                    stray = f"{op.name} wrote {len(mine)} {memory} records that belong to no tensor"
                    result.find([stray], len(mine))
                continue
            (trace,) = maps  # an operation writes at most one tensor to one memory
            args = (result, op.name, trace, kept.take(mine), frame[mine], timesteps)
            if memory == "spike":
                result.tensors[trace.tensor] = _spikes(*args, post_lanes)
            elif memory == "residual":
                result.tensors[trace.tensor] = _residual(*args, post_lanes)
            else:
                result.tensors[trace.tensor] = _attention_sums(*args, heads)
    return result


def _attribute(memory, records: Records, dump: Dump, frames: int, op_count: int, result: Replay):
    """Frame number of every record of the first frames, and those records; misplaced ones become findings."""
    steps = dump.steps
    step = np.searchsorted(steps.start, records.cycle, side="right") - 1
    inside = step >= 0
    done = np.where(steps.done < 0, np.iinfo(np.int64).max, steps.done)
    if len(steps):
        inside &= (records.cycle <= done[step]) & (records.op == steps.op[step])
    frame = np.where(inside, 0, -1)
    if len(steps):
        frame = np.where(step >= 0, steps.frame[step], 0)
    early = frame < frames
    outside = np.flatnonzero(~inside & early)
    result.find(
        [f"{memory} write outside of a running operation, cycle {records.cycle[i]}" for i in outside[:LIMIT]],
        len(outside),
    )
    unknown = np.flatnonzero(records.unknown & early)
    result.find(
        [
            f"frame {frame[i]}: {memory} write with unknown bits (X or Z), "
            f"step {records.op[i]}, cycle {records.cycle[i]}"
            for i in unknown[:LIMIT]
        ],
        len(unknown),
    )
    keep = inside & early & (records.op < op_count)
    return frame[keep], records.take(keep)


def _region(result: Replay, name: str, memory: str, address: np.ndarray, frame: np.ndarray, words: int):
    """Mask of the records whose word lies in the region; others are findings."""
    good = (address >= 0) & (address < words)
    bad = np.flatnonzero(~good)
    result.find(
        [
            f"frame {frame[i]}: {name} wrote {memory} word {address[i]} of {words}, outside its region"
            for i in bad[:LIMIT]
        ],
        len(bad),
    )
    return good


def _missing(result: Replay, name: str, written: np.ndarray, where) -> None:
    """Findings for words that were never written; `where` names an index of `written`."""
    holes = np.argwhere(~written)
    result.find([f"{name} did not write {where(hole)}" for hole in holes[:LIMIT]], len(holes))


def _signed(bits: np.ndarray, width: int) -> np.ndarray:
    """Two's complement fields of `width` bits, low field first: uint8 [M, n*width] -> int64 [M, n]."""
    fields = bits.reshape(len(bits), bits.shape[1] // width, width)
    weights = np.int64(1) << np.arange(width, dtype=np.int64)
    weights[-1] = -weights[-1]
    return fields.astype(np.int64) @ weights


def _unsigned(bits: np.ndarray, width: int) -> np.ndarray:
    """Unsigned fields of `width` bits, low field first: uint8 [M, n*width] -> int64 [M, n]."""
    fields = bits.reshape(len(bits), bits.shape[1] // width, width)
    return fields.astype(np.int64) @ (np.int64(1) << np.arange(width, dtype=np.int64))


def _spikes(result, name, trace, records: Records, frame, timesteps: int, post_lanes: int) -> np.ndarray:
    """Spike tensor [B, T, N, C] uint8."""
    lanes = trace.packing.lanes
    words = trace.positions * trace.groups
    address = records.address - trace.base
    good = _region(result, name, "spike", address, frame, words)
    slot = (frame * words + address)[good]
    values = records.bits[good].reshape(int(good.sum()), lanes, timesteps)
    enable = records.enable[good]
    memory = np.zeros((result.frames * words, lanes, timesteps), dtype=np.uint8)
    written = np.zeros((result.frames * words, lanes), dtype=bool)
    for part in range(lanes // post_lanes):
        on = (enable >> part) & 1 == 1
        span = slice(part * post_lanes, (part + 1) * post_lanes)
        memory[slot[on], span] = values[on, span]  # the last write of a word wins
        written[slot[on], span] = True
    memory = memory.reshape(result.frames, trace.positions, trace.groups * lanes, timesteps)
    written = written.reshape(result.frames, trace.positions, trace.groups * lanes)
    slots = trace.packing.slots()
    unused = np.ones(trace.groups * lanes, dtype=bool)
    unused[slots] = False
    leaks = np.argwhere(memory[:, :, unused].any(axis=3))
    result.find(
        [f"frame {b}: {name} spiked in an unused lane at token {n}" for b, n, _ in leaks[:LIMIT]], len(leaks)
    )
    _missing(result, name, written[:, :, slots], lambda i: f"frame {i[0]}, token {i[1]}, channel {i[2]}")
    return np.ascontiguousarray(memory[:, :, slots].transpose(0, 3, 1, 2))


def _residual(result, name, trace, records: Records, frame, timesteps: int, post_lanes: int) -> np.ndarray:
    """Residual tensor [B, T, N, C] int64: a word holds P channels of one token, group, subgroup and step."""
    lanes = trace.packing.lanes
    subgroups = lanes // post_lanes
    words = trace.positions * trace.groups * subgroups * timesteps
    width = records.bits.shape[1] // post_lanes
    good = _region(result, name, "residual", records.address, frame, words)
    slot = (frame * words + records.address)[good]
    memory = np.zeros((result.frames * words, post_lanes), dtype=np.int64)
    written = np.zeros(result.frames * words, dtype=bool)
    memory[slot] = _signed(records.bits[good], width)
    written[slot] = True
    shape = (result.frames, trace.positions, trace.groups * subgroups, timesteps)
    memory = memory.reshape(*shape, post_lanes).transpose(0, 3, 1, 2, 4)
    memory = memory.reshape(result.frames, timesteps, trace.positions, trace.groups * lanes)
    slots = trace.packing.slots()
    used = np.unique(slots // post_lanes)
    place = "frame {}, token {}, subgroup {}, step {}"
    _missing(result, name, written.reshape(shape)[:, :, used], lambda i: place.format(*i))
    return np.ascontiguousarray(memory[..., slots])


def _attention_sums(result, name, trace, records: Records, frame, timesteps: int, heads: int) -> np.ndarray:
    """Attention sums Y [B, T, N, C] int64: a record holds all channels of one token, step and head."""
    head_dim = trace.channels // heads
    token = records.address & ((1 << STEP_FIELD) - 1)
    step = records.address >> STEP_FIELD & ((1 << HEAD_FIELD - STEP_FIELD) - 1)
    head = records.address >> HEAD_FIELD
    inside = (token < trace.positions) & (step < timesteps) & (head < heads)
    words = trace.positions * timesteps * heads
    good = _region(result, name, "y", np.where(inside, records.address, -1), frame, np.iinfo(np.int64).max)
    slot = (((frame * timesteps + step) * trace.positions + token) * heads + head)[good]
    memory = np.zeros((result.frames * words, head_dim), dtype=np.int64)
    written = np.zeros(result.frames * words, dtype=bool)
    memory[slot] = _unsigned(records.bits[good], records.bits.shape[1] // head_dim)
    written[slot] = True
    shape = (result.frames, timesteps, trace.positions, heads)
    place = "frame {}, step {}, token {}, head {}"
    _missing(result, name, written.reshape(shape), lambda i: place.format(*i))
    return memory.reshape(result.frames, timesteps, trace.positions, heads * head_dim)
