"""Named tensors rebuilt from the records of a run, with the layer program as the only map.

A piece that was never emitted or written, one that was twice, a record of a step that was not running or
outside of its region, and a spike in a slot that holds no channel are findings of their own: equality of the
tensors alone would not show them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from s2tdpt.golden.trace import traces
from s2tdpt.hw.blocks.pool import OrPool
from s2tdpt.hw.plan.program import Port, Program, Sink, Trace
from s2tdpt.sim.dump import NEVER, Dump, Records

LIMIT = 20
"""Findings of one kind that are put into words; the rest is only counted."""

SOURCES = {
    "piece": "spikes of neurons",
    "piece_u": "membrane stream",
    "layers": "spike memory, from the layers,",
    "attention": "spike memory, from the attention,",
    "y": "attention sums",
}
"""What each table of records shows, in words."""


@dataclass
class Replay:
    """Tensors and findings.

    Parameters
    ----------
    frames : int
        Number of frames that were rebuilt, B.
    tensors : dict[str, numpy.ndarray]
        Trace name -> [B, T, N, C]; names and types are those of `golden.network`.
    findings : list[str]
        What the tensors cannot show: missing, repeated, stray and unknown records, spikes in slots without a
        channel, broken order of the steps.
    finding_count : int
    """

    frames: int
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    finding_count: int = 0

    def find(self, where: np.ndarray, text: Callable[[int], str]) -> None:
        """Note a finding for every index in `where`; `text` puts one into words."""
        self.findings.extend(text(int(index)) for index in where[:LIMIT])
        self.finding_count += len(where)

    def say(self, *texts: str) -> None:
        """Note findings that are in words already."""
        self.findings.extend(texts)
        self.finding_count += len(texts)


@dataclass(frozen=True)
class _Kept:
    """Records of the frames to rebuild, with their frame."""

    records: Records
    frame: np.ndarray

    def take(self, index: np.ndarray) -> _Kept:
        return _Kept(self.records.take(index), self.frame[index])


def replay(dump: Dump, program: Program, frames: int, signed_y: bool = False) -> Replay:
    """Rebuild the tensors of the first `frames` frames.

    Parameters
    ----------
    dump : Dump
        Records of the run.
    program : Program
        Says which tensor every step computes, and where it goes.
    frames : int
        Frames to rebuild, B; all of them must have run to their end, and be recorded.
    signed_y : bool
        Attention sums are signed numbers.

    Raises
    ------
    ValueError
        Fewer than `frames` frames are in the dump.
    """
    if len(dump.steps) < frames:
        raise ValueError(f"the dump holds {len(dump.steps)} frames; expected at least {frames}")
    return _Replayer(dump, program, frames, signed_y).run()


class _Replayer:
    """One replay: what all its parts share."""

    def __init__(self, dump: Dump, program: Program, frames: int, signed_y: bool):
        self.dump, self.program, self.frames = dump, program, frames
        self.sums = _signed if signed_y else _unsigned
        self.result = Replay(frames)
        self.timesteps = program.network.timesteps
        self.subgroups, self.post_lanes = program.machine.subgroups, program.machine.post_lanes
        count = len(program.steps)
        times = [dump.steps.times(frame, count) for frame in range(frames)]
        self.start = np.array([start for start, _ in times]).reshape(frames, count)
        self.complete = np.array([complete for _, complete in times]).reshape(frames, count)

    def run(self) -> Replay:
        self.check_order()
        self.neurons()
        self.membranes()
        self.layer_writes()
        blocks = self.blocks()
        self.attention_writes(blocks)
        self.attention_sums(blocks)
        self.single_writes()
        return self.result

    # Steps.

    def check_order(self) -> None:
        """Every step starts once, in order, and is complete after its start."""
        names = [step.name for step in self.program.steps]
        for frame in range(self.frames):
            order = self.dump.steps.starts[frame][:, 0]
            wrong = np.flatnonzero(order != np.arange(len(order)))[:1]
            self.result.find(
                wrong, lambda i, f=frame, o=order: f"frame {f}: step {o[i]} started where step {i} was due"
            )
            silent = np.flatnonzero(self.start[frame] == NEVER)
            self.result.find(silent, lambda i, f=frame: f"frame {f}: step {names[i]} never ran")
            ends = self.complete[frame]
            early = np.flatnonzero((ends < self.start[frame]) & (self.start[frame] != NEVER))
            self.result.find(
                early, lambda i, f=frame: f"frame {f}: step {names[i]} did not end after its start"
            )
            extra = len(self.dump.steps.completes[frame]) - len(names)
            if extra > 0:
                self.result.say(f"frame {frame}: {extra} step(s) ended that never started")

    def kept(self, name: str) -> _Kept:
        """Records of one table that lie within a frame; others, and unknown bits, become findings."""
        records = self.dump.records[name]
        first, last = self.dump.steps.first(), self.dump.steps.last()
        frame = np.searchsorted(first, records.cycle, side="right") - 1
        inside = (frame >= 0) & (records.cycle <= last[np.maximum(frame, 0)])
        wanted = frame < self.frames
        what = SOURCES[name]
        self.result.find(
            np.flatnonzero(~inside & wanted),
            lambda i: f"{what} recorded while no step ran, cycle {records.cycle[i]}",
        )
        self.result.find(
            np.flatnonzero(records.unknown & wanted),
            lambda i: f"frame {frame[i]}: {what} with unknown bits (X or Z), cycle {records.cycle[i]}",
        )
        keep = np.flatnonzero(inside & wanted)
        return _Kept(records.take(keep), frame[keep])

    def of_steps(self, name: str) -> _Kept:
        """Records that carry the number of their step, which must be running."""
        kept = self.kept(name)
        step, cycle = kept.records["step"], kept.records.cycle
        known = step < len(self.program.steps)
        index = np.where(known, step, 0)
        started, ended = self.start[kept.frame, index], self.complete[kept.frame, index]
        running = known & (started != NEVER) & (cycle >= started) & ((cycle <= ended) | (ended == NEVER))
        self.result.find(
            np.flatnonzero(~running),
            lambda i: (
                f"frame {kept.frame[i]}: {SOURCES[name]} of step {step[i]}, which did not run in cycle "
                f"{cycle[i]}"
            ),
        )
        return kept.take(np.flatnonzero(running))

    def traced(self, port: Port, sinks: Sequence[Sink] = tuple(Sink)) -> dict[str, tuple[Trace, list[int]]]:
        """Tensors that are seen at a port: name to trace and the numbers of its tiles."""
        found: dict[str, tuple[Trace, list[int]]] = {}
        for number, step in enumerate(self.program.steps):
            for trace in step.traces:
                if trace.port is port and step.sink in sinks:
                    found.setdefault(trace.tensor, (trace, []))[1].append(number)
        return found

    def stray(self, name: str, kept: _Kept, steps: set[int]) -> None:
        """Records of steps that should have none."""
        step = kept.records["step"]
        alone = np.flatnonzero(~np.isin(step, list(steps)))
        names = [s.name for s in self.program.steps]
        self.result.find(
            alone,
            lambda i: f"frame {kept.frame[i]}: {names[step[i]]}: {SOURCES[name]} that belong to no tensor",
        )

    # Tensors.

    def neurons(self) -> None:
        """Spikes as the neurons emit them."""
        kept, tensors = self.of_steps("piece"), self.traced(Port.PIECE)
        self.stray("piece", kept, {number for _, steps in tensors.values() for number in steps})
        for trace, steps in tensors.values():
            mine = kept.take(np.flatnonzero(np.isin(kept.records["step"], steps)))
            good = self.in_tile(trace, mine, mine.records["position"], mine.records["piece"])
            part = mine.take(good)
            where = self.index(trace, part, part.records["position"], part.records["piece"])
            self.result.tensors[trace.tensor] = self.spikes(trace, part, where, "emit")

    def in_tile(self, trace: Trace, kept: _Kept, position: np.ndarray, piece: np.ndarray) -> np.ndarray:
        """Indices of the records that name a position of the tensor and a piece of their own tile."""
        steps = self.program.steps
        step = kept.records["step"]
        group = np.array([s.group for s in steps])[step]
        pieces = np.array([s.subgroups(self.program.machine) for s in steps])[step]
        inside = (piece // self.subgroups == group) & (piece % self.subgroups < pieces)
        inside &= (position >= 0) & (position < trace.positions)
        self.result.find(
            np.flatnonzero(~inside),
            lambda i: (
                f"frame {kept.frame[i]}: {steps[step[i]].name}: position {position[i]}, piece {piece[i]} "
                f"lies outside of the tile, cycle {kept.records.cycle[i]}"
            ),
        )
        return np.flatnonzero(inside)

    def index(self, trace: Trace, kept: _Kept, position: np.ndarray, piece: np.ndarray) -> np.ndarray:
        """Number of a record's piece among those of all frames."""
        pieces = trace.packing.groups * self.subgroups
        return (kept.frame * trace.positions + position) * pieces + piece

    def spikes(self, trace: Trace, kept: _Kept, where: np.ndarray, verb: str) -> np.ndarray:
        """Spike tensor [B, T, N, C], its golden type; `where` numbers the pieces, `verb` is what was to
        happen."""
        packing, emits = trace.packing, traces(self.program.network)[trace.tensor].emits
        pieces = packing.groups * self.subgroups
        shape = self.frames * trace.positions * pieces, self.post_lanes, self.timesteps
        memory = np.zeros(shape, emits.dtype)
        # A wider port has zeros above the number; a bit that is set there shows as a number of its own.
        numbers = _unsigned(kept.records.bits, self.post_lanes * self.timesteps)
        if emits.signed:
            numbers = numbers - ((numbers >> (emits.bits - 1) & 1) << emits.bits)
        memory[where] = numbers.reshape(-1, self.post_lanes, self.timesteps)
        self.check_count(trace, where, verb)
        memory = memory.reshape(self.frames, trace.positions, packing.groups * packing.lanes, self.timesteps)
        slots = packing.slots()
        unused = np.ones(packing.groups * packing.lanes, dtype=bool)
        unused[slots] = False
        leaks = np.argwhere(memory[:, :, unused].any(axis=3))
        empty = np.flatnonzero(unused)
        self.result.find(
            np.arange(len(leaks)),
            lambda i: (
                f"frame {leaks[i][0]}: {trace.tensor}: spike in slot {empty[leaks[i][2]]} without a channel, "
                f"token {leaks[i][1]}"
            ),
        )
        return np.ascontiguousarray(memory[:, :, slots].transpose(0, 3, 1, 2))

    def check_count(self, trace: Trace, where: np.ndarray, verb: str) -> None:
        """Every piece that holds a channel once, and none more often."""
        pieces = trace.packing.groups * self.subgroups
        shape = (self.frames, trace.positions, pieces)
        count = np.bincount(where, minlength=int(np.prod(shape))).reshape(shape)
        wanted = np.zeros(pieces, dtype=bool)
        wanted[np.unique(trace.packing.slots() // self.post_lanes)] = True
        for wrong, text in (
            ((count == 0) & wanted, f"did not {verb}"),
            (count > 1, f"did more than once {verb}"),
        ):
            places = np.argwhere(wrong)
            self.result.find(
                np.arange(len(places)),
                lambda i, p=places, t=text: (
                    f"frame {p[i][0]}: {trace.tensor}: the hardware {t} token {p[i][1]}, piece {p[i][2]}"
                ),
            )

    def membranes(self) -> None:
        """The membrane stream U as it is written: int64 [B, T, N, C]."""
        kept, tensors = self.of_steps("piece_u"), self.traced(Port.RESIDUAL)
        self.stray("piece_u", kept, {number for _, steps in tensors.values() for number in steps})
        per_token = self.program.residual_pieces
        for trace, steps in tensors.values():
            mine = kept.take(np.flatnonzero(np.isin(kept.records["step"], steps)))
            position, piece = np.divmod(mine.records["address"], per_token)
            good = self.in_tile(trace, mine, position, piece)
            part, position, piece = mine.take(good), position[good], piece[good]
            where = self.index(trace, part, position, piece)
            self.check_count(trace, where, "update")
            self.result.tensors[trace.tensor] = self.numbers(trace, part, where)

    def numbers(self, trace: Trace, kept: _Kept, where: np.ndarray) -> np.ndarray:
        packing = trace.packing
        pieces = packing.groups * self.subgroups
        memory = np.zeros(
            (self.frames * trace.positions * pieces, self.post_lanes * self.timesteps), np.int64
        )
        memory[where] = _signed(kept.records.bits, self.post_lanes * self.timesteps)
        memory = memory.reshape(self.frames, trace.positions, packing.groups * packing.lanes, self.timesteps)
        return np.ascontiguousarray(memory[:, :, packing.slots()].transpose(0, 3, 1, 2))

    def layer_writes(self) -> None:
        """What the layers write into the spike memory: pooled maps, and what the neurons emitted."""
        kept = self.completed_by_pieces()
        sinks = (Sink.SPIKES, Sink.RESIDUAL)
        pooled = self.traced(Port.WRITE, sinks)
        plain = {
            name: (trace, numbers)
            for name, (trace, steps) in self.traced(Port.PIECE, sinks).items()
            if (numbers := [n for n in steps if not self.program.steps[n].pooled])
        }
        self.stray(
            "layers", kept, {n for found in (pooled, plain) for _, steps in found.values() for n in steps}
        )
        for trace, steps in (*pooled.values(), *plain.values()):
            mine = kept.take(np.flatnonzero(np.isin(kept.records["step"], steps)))
            position, piece = self.decode(trace, mine)
            good = self.in_tile(trace, mine, position, piece)
            part, position, piece = mine.take(good), position[good], piece[good]
            self.check_final(trace, part, piece)
            tensor = self.spikes(trace, part, self.index(trace, part, position, piece), "write")
            if trace.tensor in pooled:
                self.result.tensors[trace.tensor] = tensor
                continue
            differs = np.argwhere(tensor != self.result.tensors[trace.tensor])
            self.result.find(
                np.arange(len(differs)),
                lambda i, d=differs, n=trace.tensor: (
                    f"frame {d[i][0]}: {n}: step {d[i][1]}, token {d[i][2]}, "
                    f"channel {d[i][3]}: the memory holds another spike than the neuron emitted"
                ),
            )

    def completed_by_pieces(self) -> _Kept:
        """Writes of the layers with the step whose piece led to each: the one that the neurons emitted a
        constant time before."""
        kept, pieces = self.kept("layers"), self.dump.records["piece"]
        emitted = kept.records.cycle - OrPool.delay
        place = np.searchsorted(pieces.cycle, emitted)
        known = np.flatnonzero(np.append(pieces.cycle, NEVER)[place] == emitted)
        self.result.find(
            np.setdiff1d(np.arange(len(emitted)), known),
            lambda i: (
                f"frame {kept.frame[i]}: {SOURCES['layers']} of no piece, cycle {kept.records.cycle[i]}"
            ),
        )
        kept = kept.take(known)
        kept.records.fields["step"] = pieces["step"][place[known]]
        return kept

    def decode(self, trace: Trace, kept: _Kept) -> tuple[np.ndarray, np.ndarray]:
        """Position and piece of writes into the spike memory; a position of -1 lies below the region."""
        position, group = np.divmod(kept.records["address"] - trace.base, trace.packing.groups)
        return position, group * self.subgroups + kept.records["subgroup"]

    def check_final(self, trace: Trace, kept: _Kept, piece: np.ndarray) -> None:
        """The last piece of a position, and no other, clears the rest of its word."""
        last = int(trace.packing.slots()[-1]) // self.post_lanes
        wrong = np.flatnonzero((kept.records["final"] == 1) != (piece == last))
        self.result.find(
            wrong,
            lambda i: (
                f"frame {kept.frame[i]}: {trace.tensor}: piece {piece[i]} written with final "
                f"{kept.records['final'][i]}, cycle {kept.records.cycle[i]}"
            ),
        )

    # Attention.

    def blocks(self) -> np.ndarray:
        """int64 [frames, depth], when each block's attention must have ended: its reader is complete."""
        depth = self.program.network.depth
        reader = [
            next(n for n, s in enumerate(self.program.steps) if s.after_attention == b + 1)
            for b in range(depth)
        ]
        return self.complete[:, reader]

    def block_of(self, kept: _Kept, ends: np.ndarray) -> np.ndarray:
        """Block of every record; the number of blocks for one after the last block's end."""
        return (kept.records.cycle[:, None] >= ends[kept.frame]).sum(axis=1)

    def attention_writes(self, ends: np.ndarray) -> None:
        """The attention's output as it is written into the spike memory."""
        kept = self.kept("attention")
        block = self.block_of(kept, ends)
        for number, (trace, _) in enumerate(self.traced(Port.WRITE, (Sink.ATTENTION,)).values()):
            mine = kept.take(np.flatnonzero(block == number))
            position, piece = self.decode(trace, mine)
            good = np.flatnonzero(self.in_region(trace, mine, position))
            part, position, piece = mine.take(good), position[good], piece[good]
            self.check_final(trace, part, piece)
            where = self.index(trace, part, position, piece)
            self.result.tensors[trace.tensor] = self.spikes(trace, part, where, "write")
        self.late("attention", kept, block)

    def in_region(self, trace: Trace, kept: _Kept, position: np.ndarray) -> np.ndarray:
        inside = (position >= 0) & (position < trace.positions)
        self.result.find(
            np.flatnonzero(~inside),
            lambda i: (
                f"frame {kept.frame[i]}: {trace.tensor}: token {position[i]} of {trace.positions} lies "
                f"outside of the region, cycle {kept.records.cycle[i]}"
            ),
        )
        return inside

    def late(self, name: str, kept: _Kept, block: np.ndarray) -> None:
        """Records behind the completion of the last block's reader."""
        self.result.find(
            np.flatnonzero(block >= self.program.network.depth),
            lambda i: (
                f"frame {kept.frame[i]}: {SOURCES[name]} after the attention of the last block was read, "
                f"cycle {kept.records.cycle[i]}"
            ),
        )

    def single_writes(self) -> None:
        """The spike memory has one write port: layers and attention never write in the same cycle."""
        records = self.dump.records
        both = np.intersect1d(records["layers"].cycle, records["attention"].cycle)
        self.result.find(
            np.arange(len(both)),
            lambda i: f"layers and attention wrote into the spike memory in the same cycle, {both[i]}",
        )

    def attention_sums(self, ends: np.ndarray) -> None:
        """Attention sums Y: int64 [B, T, N, C]; a record holds all channels of a head, token and step."""
        net, kept = self.program.network, self.kept("y")
        block = self.block_of(kept, ends)
        token, head, step = (kept.records[name] for name in ("token", "head", "step"))
        inside = (token < net.tokens) & (head < net.heads) & (step < net.timesteps)
        self.result.find(
            np.flatnonzero(~inside),
            lambda i: (
                f"frame {kept.frame[i]}: attention sums of token {token[i]}, head {head[i]}, step {step[i]}, "
                "which does not exist"
            ),
        )
        shape = (self.frames, net.timesteps, net.tokens, net.heads)
        place = ((kept.frame * net.timesteps + step) * net.tokens + token) * net.heads + head
        for number, (trace, _) in enumerate(self.traced(Port.Y).values()):
            mine = np.flatnonzero(inside & (block == number))
            memory = np.zeros((int(np.prod(shape)), net.head_dim), dtype=np.int64)
            memory[place[mine]] = self.sums(kept.records.bits[mine], net.head_dim)
            count = np.bincount(place[mine], minlength=len(memory)).reshape(shape)
            for wrong, text in (
                (count == 0, "no attention sums"),
                (count > 1, "attention sums more than once"),
            ):
                places = np.argwhere(wrong)
                self.result.find(
                    np.arange(len(places)),
                    lambda i, w=places, t=text, n=trace.tensor: (
                        f"frame {w[i][0]}: {n}: {t} of step {w[i][1]}, token {w[i][2]}, head {w[i][3]}"
                    ),
                )
            self.result.tensors[trace.tensor] = memory.reshape(*shape[:3], net.heads * net.head_dim)
        self.late("y", kept, block)


def _signed(bits: np.ndarray, count: int) -> np.ndarray:
    """Two's complement fields, low field first: uint8 [M, count * width] -> int64 [M, count]."""
    fields = bits.reshape(len(bits), count, bits.shape[1] // count)
    width = fields.shape[2]
    weights = np.int64(1) << np.arange(width, dtype=np.int64)
    weights[-1] = -weights[-1]
    return fields.astype(np.int64) @ weights


def _unsigned(bits: np.ndarray, count: int) -> np.ndarray:
    """Unsigned fields, low field first: uint8 [M, count * width] -> int64 [M, count]."""
    fields = bits.reshape(len(bits), count, bits.shape[1] // count)
    return fields.astype(np.int64) @ (np.int64(1) << np.arange(fields.shape[2], dtype=np.int64))
