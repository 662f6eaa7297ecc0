"""Small networks on odd machines, and a reader of streamed weights that never looks the same way twice."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from s2tdpt.golden.bounds import Bounds, derive_bounds
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.params import Params, random_params
from s2tdpt.hw.blocks.images import rom_images, stream_beats, tile_sizes
from s2tdpt.hw.blocks.weights import WeightStream
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import STREAM_CONSTANT_TILES, WEIGHT_DELAY, Sizes, constant_words, weight_rows
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.hw.plan.widths import Widths, derive_widths
from s2tdpt.sim.cases import network
from tests.hw.util import simulate

CASES = {
    "partial groups": (network(), Machine(lanes=4, banks=2, post_lanes=2)),
    "one lane": (network(), Machine(lanes=1, banks=1, post_lanes=1)),
    "six lanes, three banks, odd T": (
        network(timesteps=3, weight_bits=4, num_classes=5),
        Machine(lanes=6, banks=3, post_lanes=2),
    ),
    "pixels of three channels on 48 lanes": (
        network(image_channels=3, timesteps=5),
        Machine(lanes=48, banks=8, post_lanes=8),
    ),
    "heads with slots left over": (
        network(sps_channels=(4, 12), heads=4, depth=2),
        Machine(lanes=8, banks=2, post_lanes=4),
    ),
    "heads across words": (
        network(sps_channels=(5, 20), heads=4, num_classes=9),
        Machine(lanes=12, banks=3, post_lanes=4),
    ),
    "rows of an odd number of nibbles": (network(weight_bits=4), Machine(lanes=3, banks=3, post_lanes=1)),
    "more banks than post-processing lanes": (network(), Machine(lanes=16, banks=8, post_lanes=2)),
    "a tile that fills the ring": (
        network(sps_channels=(4, 8), mlp_ratio=8),
        Machine(lanes=4, banks=1, post_lanes=2),
    ),
}


@dataclass(frozen=True)
class Setting:
    """Everything derived from a network and a machine."""

    params: Params
    bounds: Bounds
    widths: Widths
    program: Program
    sizes: Sizes


def derive(network: NetworkConfig, machine: Machine, seed: int = 1) -> Setting:
    """Random integers for `network`, scheduled on `machine`."""
    params = random_params(network, seed)
    bounds = derive_bounds(params)
    widths = derive_widths(params, bounds)
    program = build_program(network, machine, widths.head_sum)
    return Setting(params, bounds, widths, program, Sizes(program))


def setting(name: str, memory: str = "rom") -> Setting:
    """One of `CASES`."""
    network, machine = CASES[name]
    return derive(network, machine.model_copy(update={"weight_memory": memory}))


class Reader:
    """Reads of one memory, at most one a cycle; what comes out `WEIGHT_DELAY` cycles later, and stays."""

    def __init__(self):
        self._expected: list[int | None] = [None] * WEIGHT_DELAY  # None: the output means nothing yet

    def cycle(self, word: int | None, shown: int) -> None:
        """A cycle in which `word` is read, or nothing (None), while the output shows `shown`."""
        self._expected.append(self._expected[-1] if word is None else word)
        expected = self._expected.pop(0)
        assert expected is None or expected == shown, "a word that is not the image's"


@dataclass(frozen=True)
class Policy:
    """How willing sender and reader are in a cycle, as probabilities; `release` and `complete` by tile."""

    send: float = 1.0
    start: float = 1.0
    release: float = 0.05
    complete: float = 0.2
    read: float = 0.7


POLICIES = {
    "at once": Policy(release=1.0, complete=1.0),
    "long used": Policy(release=0.02, complete=1.0),
    "long not complete": Policy(release=0.3, complete=0.02),
    "late starts": Policy(start=0.03, release=0.2),
    "anything": Policy(start=0.3, release=0.04, complete=0.06),
}


RUNS = [
    *((name, list(POLICIES)[i % len(POLICIES)]) for i, name in enumerate(CASES)),
    *(("six lanes, three banks, odd T", policy) for policy in POLICIES if policy != "long not complete"),
]
"""Every case with some policy, and one with all."""


@dataclass
class Run:
    """What happened: the error flag, and the cycles of every tile's events."""

    error: int = 0
    beats: int = 0
    ready: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    complete: list[int] = field(default_factory=list)


def run_stream(
    case: Setting,
    policy: Policy,
    *,
    frames: int = 2,
    seed: int = 0,
    tlast: Callable[[int, int], bool] = lambda beat, count: beat == count - 1,
    beats: list[int] | None = None,
    overstay: int = 0,
) -> Run:
    """Stream `frames` images into a `WeightStream`; read rows and constants of all tiles in use, and compare.

    Parameters
    ----------
    tlast : callable
        ``tlast(beat, beats)`` of an image.
    beats : list of int, optional
        Other beats than the right ones.
    overstay : int
        Tiles beyond the oldest one in use that are still read: a fault.
    """
    dut = WeightStream(case.program, case.sizes, case.widths)
    bench = _StreamBench(case, dut, policy, frames, seed)
    sent = stream_beats(case.params, case.program, case.widths) if beats is None else beats
    transfers = [(beat, bool(tlast(i, len(sent)))) for i, beat in enumerate(sent)]

    async def testbench(ctx):
        cycle, waiting = 0, False
        while len(bench.run.complete) < bench.count:
            waiting = waiting or bench.rng.random() < policy.send
            data, last = transfers[bench.run.beats % len(transfers)]
            ctx.set(dut.tvalid, waiting)
            ctx.set(dut.tdata, data if waiting else 0)
            ctx.set(dut.tlast, last and waiting)
            if waiting and ctx.get(dut.tready):
                bench.run.beats, waiting = bench.run.beats + 1, False
            bench.read(ctx, overstay)
            bench.control(ctx, cycle)
            await ctx.tick()
            cycle += 1
        bench.run.error = ctx.get(dut.error)

    slowest = min(policy.send, policy.start, policy.release, policy.complete)
    deadline = 1000 + 4 * frames * len(transfers) + int(20 * bench.count / slowest)
    simulate(dut, testbench, deadline=deadline)
    return bench.run


@cache
def observed(name: str, policy: str) -> Run:
    """A run of `RUNS`: the stream never pauses."""
    case = setting(name, "stream")
    frames = 1 if len(case.program.steps) > 30 or case.program.machine.lanes > 16 else 2
    return run_stream(case, POLICIES[policy], frames=frames)


class _StreamBench:
    """The reader's side of `run_stream`: what is in use, and what it must look like."""

    def __init__(self, case, dut, policy, frames, seed):
        self.dut, self.policy, self.rng, self.run = dut, policy, np.random.default_rng(seed), Run()
        self.images = rom_images(case.params, case.program, case.widths)
        self.steps, self.sizes = case.program.steps, tile_sizes(case.program)
        self.rows, self.words = weight_rows(case.program), constant_words(case.program)
        self.count = frames * len(self.steps)
        self.subgroups = case.program.machine.subgroups
        self.bases: list[tuple[int, int]] = []  # of the tiles that were started
        self.part = case.program.machine.post_lanes * case.program.network.weight_bits
        self.readers = {
            (bank, group): Reader()
            for bank in range(len(self.images.banks))
            for group in range(self.subgroups)
        }
        self.constants = Reader()

    def read(self, ctx, overstay):
        """For every group a row of some tile that is not released from every bank, and a constant word of one
        that is not complete."""
        dut, run, images = self.dut, self.run, self.images
        for (bank, group), reader in self.readers.items():
            port = dut.weights[group]
            tile = self.pick(max(0, len(run.released) - overstay))
            word = None
            if tile is not None:
                row = int(self.rng.integers(self.sizes[tile % len(self.sizes)].rows))
                word = images.banks[bank][self.steps[tile % len(self.steps)].tile_base + row]
                word = word >> group * self.part & ((1 << self.part) - 1)
                ctx.set(port.row[bank], (self.bases[tile][0] + row) % self.rows)
            ctx.set(port.en[bank], tile is not None)
            reader.cycle(word, ctx.get(port.data[bank].as_value()))
        tile, word = self.pick(len(run.complete)), None
        if tile is not None:
            index = int(self.rng.integers(self.sizes[tile % len(self.sizes)].constants))
            word = images.constants[self.steps[tile % len(self.steps)].const_base + index]
            ctx.set(dut.constants.address, self.bases[tile][1] + index)
        ctx.set(dut.constants.en, tile is not None)
        self.constants.cycle(word, ctx.get(dut.constants.data.as_value()))

    def pick(self, oldest):
        """A started tile from `oldest` on, or none."""
        if oldest == len(self.bases) or self.rng.random() >= self.policy.read:
            return None
        return int(self.rng.integers(oldest, len(self.bases)))

    def control(self, ctx, cycle):
        """Pulses of this cycle; what is read in it may still be given up in it."""
        run, policy, tiles = self.run, self.policy, self.dut.tiles
        ready = ctx.get(tiles.ready)
        if ready and len(run.ready) == len(self.bases):
            run.ready.append(cycle)
        release = len(run.released) < len(self.bases) and self.rng.random() < policy.release
        if release:
            run.released.append(cycle)
        complete = len(run.complete) < len(run.released) and self.rng.random() < policy.complete
        if complete:
            run.complete.append(cycle)
        in_use = len(self.bases) - len(run.complete)
        start = ready and in_use < STREAM_CONSTANT_TILES and self.rng.random() < policy.start
        if start:
            place = len(self.bases) % STREAM_CONSTANT_TILES
            self.bases.append((ctx.get(tiles.base), place * self.subgroups))
            run.started.append(cycle)
        ctx.set(tiles.start, start)
        ctx.set(tiles.release, release)
        ctx.set(tiles.complete, complete)
