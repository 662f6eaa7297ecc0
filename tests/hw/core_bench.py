"""Whole networks on `hw.core.Core` in Amaranth's simulator, against the golden model and the cycle model.

`run_core` drives the three streams and records the observation port; `check` demands that every traced
tensor, the logits, the class and the cycles of every operation are exactly those of the models.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from amaranth import Cat, Module, ResetInserter, Signal

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.compare import compare_traces
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params, random_params
from s2tdpt.hw.arrival import TileArrival, tile_beats
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.core import Core
from s2tdpt.hw.cycles import SEQUENCER_CYCLES, frame_cycles
from s2tdpt.hw.images import stream_beats
from s2tdpt.hw.schedule import Program, build_program
from s2tdpt.hw.weights import stream_width
from s2tdpt.hw.widths import Widths, derive_widths
from s2tdpt.sim.dump import HEAD_FIELD, STEP_FIELD, Dump, Records, Steps
from s2tdpt.sim.replay import Replay, replay
from s2tdpt.sim.stalls import pauses
from tests.hw.util import simulate


@dataclass(frozen=True)
class Case:
    """A network with random integers, a machine, and random images."""

    params: Params
    hardware: HardwareConfig
    program: Program
    widths: Widths
    images: np.ndarray
    golden: dict[str, np.ndarray]


@dataclass(frozen=True)
class Result:
    """What came out of the core."""

    dump: Dump
    replay: Replay
    logits: np.ndarray
    classes: np.ndarray
    errors: tuple[int, ...]


def network(**changes) -> NetworkConfig:
    """A network of a few hundred cycles: 5x4 grey image, 12 channels in 3 heads, 3 x 2 tokens."""
    fields = dict(
        name="tiny",
        image_height=5,
        image_width=4,
        image_channels=1,
        num_classes=3,
        timesteps=2,
        sps_channels=(4, 6),
        sps_pool=(False, True),
        depth=1,
        heads=2,
        mlp_ratio=2,
    )
    return NetworkConfig(**{**fields, **changes})


def build_case(config: NetworkConfig, hardware: HardwareConfig, *, seed: int = 0, frames: int = 2) -> Case:
    """Random parameters and images with their golden trace.

    Of the seeds from `seed` on, the first is taken with which some neurons of every layer fire and some do
    not, or the best of a few: in a tiny network a layer is easily silent, and would then prove nothing about
    those behind it.
    """
    attempts = (_attempt(config, attempt, frames) for attempt in range(seed, seed + 40))
    best, most = None, -1.0
    for candidate in attempts:
        lively = liveliness(candidate[2])
        if lively > most:
            best, most = candidate, lively
        if lively == 1:
            break
    params, images, golden = best
    widths = derive_widths(params, derive_bounds(params))
    program = build_program(config, hardware, widths.head_sum)
    return Case(params, hardware, program, widths, images, golden)


def _attempt(config: NetworkConfig, seed: int, frames: int):
    """Random parameters with lowered thresholds, images, and the golden trace."""
    params = random_params(config, seed)
    params = replace(
        params,
        residual_threshold=max(1, params.residual_threshold // 3),
        attention_threshold=max(1, params.attention_threshold // 2),
    )
    shape = (frames, config.image_height, config.image_width, config.image_channels)
    images = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return params, images, {name: t.numpy() for name, t in GoldenNetwork(params).trace(images).items()}


def liveliness(golden: dict[str, np.ndarray]) -> float:
    """Fraction of spike tensors that hold both zeros and ones."""
    return float(np.mean([0 < value.mean() < 1 for value in golden.values() if value.dtype == np.uint8]))


def run_core(
    case: Case,
    *,
    built_from: Params | None = None,
    stalls: str = "none",
    seed: int = 0,
    weights_last: int = -1,
    sink_opens: int = 0,
    reset_at: int | None = None,
) -> Result:
    """Simulate all images of `case`, back to back.

    Parameters
    ----------
    built_from : Params, optional
        Contents of the hardware, when they shall differ from those of the case (planted faults).
    stalls : str
        Pattern of `sim.stalls` on every stream.
    weights_last : int
        Beat that carries `tlast` in the weight stream, counted as Python indices are.
    sink_opens : int
        Cycle before which no result is taken.
    reset_at : int, optional
        Feed other images for that many cycles, then reset and start over.
    """
    params, program, hw = built_from or case.params, case.program, case.hardware
    net = params.config
    core = Core(params, program, case.widths)
    m = Module()
    reset = Signal()
    m.submodules.core = ResetInserter(reset)(core)
    frames, length = len(case.images), net.num_classes + 1
    recorder = _Recorder(core, hw, net, case.widths, reset)
    words: list[int] = []
    errors: list[int] = []

    size = case.images[0].size
    pixels = [(byte, i % size == size - 1) for i, byte in enumerate(case.images.reshape(-1).tolist())]
    sources = [_source(core, "s", pixels, pauses(stalls, seed, "pixels"), reset)]
    sent = len(pixels)
    if hw.weight_memory == "stream":
        beats = stream_beats(params, program, case.widths, stream_width(program))
        last = range(len(beats))[weights_last]
        transfers = [(beat, i == last) for i, beat in enumerate(beats)] * frames
        sources.append(_source(core, "w", transfers, pauses(stalls, seed, "weights"), reset))
        sent += len(transfers)

    async def testbench(ctx):
        for _ in range(reset_at or 0):
            await ctx.tick()
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        paused = pauses(stalls, seed, "sink")
        cycle = 0
        while len(words) < frames * length:
            ready = cycle >= sink_opens and not (paused and next(paused))
            ctx.set(core.m_tready, ready)
            _, _, valid, data, last = await ctx.tick().sample(core.m_tvalid, core.m_tdata, core.m_tlast)
            cycle += 1
            if valid and ready:
                words.append(data)
                assert last == (len(words) % length == 0)
        await ctx.tick()  # so that the recorder sees the last transfer's cycle
        flags = [name for name in core.signature.members if name.startswith("error")]
        errors.extend(ctx.get(getattr(core, name)) for name in flags)
        assert not ctx.get(core.busy) and not ctx.get(core.m_tvalid)

    totals = [frame_cycles(program, trace)[1] for trace in traces_of(case)]
    # Generous: streamed weights may be late, and stalls may cost seven cycles of eight on any stream.
    slack = (2 if stalls == "none" else 12) * (sum(totals) + sent + 100 * frames)
    background = [*sources, recorder.record]
    simulate(m, testbench, deadline=(reset_at or 0) + sink_opens + slack, background=background)
    width = len(core.m_tdata)
    values = np.array([w - (1 << width) if w >> width - 1 else w for w in words]).reshape(frames, -1)
    dump = recorder.dump()
    rebuilt = replay(dump, program.ops, frames, net.timesteps, hw.post_lanes, net.heads)
    return Result(dump, rebuilt, values[:, :-1], values[:, -1], tuple(errors))


def _source(core, prefix: str, transfers: list[tuple[int, bool]], paused, reset):
    """Sends ``(data, last)`` transfers on stream `prefix`; `tvalid` never falls before the transfer.

    Until the reset it sends them inverted, so that everything it leaves behind is wrong.
    """
    data, valid, ready, last = (
        getattr(core, f"{prefix}_t{part}") for part in ("data", "valid", "ready", "last")
    )

    async def offer(ctx, offered):
        """Ends with the transfers or with a reset."""
        for value, final in offered:
            while paused and next(paused) and not ctx.get(reset):
                await ctx.tick()
            ctx.set(data, value)
            ctx.set(last, final)
            ctx.set(valid, 1)
            while not ctx.get(ready) and not ctx.get(reset):
                await ctx.tick()
            if ctx.get(reset):
                break
            await ctx.tick()
            if paused:
                ctx.set(valid, 0)
        ctx.set(valid, 0)

    async def send(ctx):
        ones = (1 << len(data)) - 1
        await offer(ctx, itertools.cycle((value ^ ones, final) for value, final in transfers))
        await ctx.tick()
        await offer(ctx, transfers)

    return send


class _Recorder:
    """The observation port from the reset on, as `sim.dump` tables."""

    def __init__(self, core: Core, hw: HardwareConfig, net: NetworkConfig, widths: Widths, reset: Signal):
        self._core, self._rows, self._reset = core, hw.rows, reset
        self._widths = {
            "spike": hw.lanes * net.timesteps,
            "residual": hw.post_lanes * widths.residual,
            "y": net.head_dim * widths.attention,
        }
        self._records = {name: [] for name in self._widths}
        self._steps: list[list] = []

    async def record(self, ctx):
        while not ctx.get(self._reset):
            await ctx.tick()
        await ctx.tick()
        core = self._core
        strobes = Cat(
            core.probe_start,
            core.probe_done,
            core.probe_u_en,
            core.probe_y_en,
            core.probe_acc,
            core.probe_spike_en,
        )
        rows = self._rows
        cycle = 0
        # Strobes are compared once a cycle; the wide signals are read only where one is set.
        while True:
            seen = ctx.get(strobes)
            if seen:
                op = ctx.get(core.probe_op)
                fired, spike_en = seen >> 4 & ((1 << rows) - 1), seen >> 4 + rows
                if seen & 1:
                    self._steps.append([op, cycle, -1, [0] * rows])
                for r in range(rows):
                    self._steps[-1][3][r] += fired >> r & 1
                if spike_en:
                    self._add("spike", cycle, op, spike_en, core.probe_spike_addr, core.probe_spike_data, ctx)
                if seen & 4:
                    self._add("residual", cycle, op, -1, core.probe_u_addr, core.probe_u_data, ctx)
                if seen & 8:
                    place = (
                        core.probe_y_token | core.probe_y_t << STEP_FIELD | core.probe_y_head << HEAD_FIELD
                    )
                    self._add("y", cycle, op, -1, place, core.probe_y_data, ctx)
                if seen & 2:
                    assert self._steps[-1][:1] == [op], "an operation ended that was not running"
                    self._steps[-1][2] = cycle
            await ctx.tick()
            cycle += 1

    def _add(self, name, cycle, op, enable, address, data, ctx):
        self._records[name].append((cycle, op, enable, ctx.get(address), ctx.get(data)))

    def dump(self) -> Dump:
        tables = {}
        for name, records in self._records.items():
            width = self._widths[name]
            size = -(-width // 8)
            columns = [np.array([r[i] for r in records], np.int64) for i in range(4)]
            raw = np.frombuffer(b"".join(r[4].to_bytes(size, "little") for r in records), np.uint8)
            bits = np.unpackbits(raw.reshape(-1, size), axis=1, bitorder="little")[:, :width]
            tables[name] = Records(*columns, bits, np.zeros(len(records), bool))
        op, start, done = (np.array([s[i] for s in self._steps], np.int64) for i in range(3))
        falls = np.r_[False, op[1:] <= op[:-1]]
        steps = Steps(op, start, done, np.array([s[3] for s in self._steps]), np.cumsum(falls))
        return Dump(steps, tables["spike"], tables["residual"], tables["y"], [])


def traces_of(case: Case) -> list[dict[str, np.ndarray]]:
    """The golden trace of every image as the cycle model reads it."""
    return [
        {name: value[frame] for name, value in case.golden.items()} | {"pixels": image}
        for frame, image in enumerate(case.images)
    ]


def differences(case: Case, result: Result) -> list[str]:
    """Where the hardware departs from the golden model: replay findings, then tensors in network order."""
    # No probe shows the head's sums: an error in them appears in the logits.
    golden = {name: value for name, value in case.golden.items() if name != "head.sum"}
    got = {**result.replay.tensors, "head.logits": result.logits, "head.class": result.classes}
    return [*result.replay.findings, *map(str, compare_traces(golden, got))]


def check(case: Case, result: Result, *, cycles: bool = True) -> None:
    """Assert that values and, with `cycles`, the times of all operations are exactly as modelled.

    Streamed weights begin in cycle 0. Without `cycles` (a stream pauses, results may be refused) the times
    modelled for weights that are never late are lower bounds.
    """
    found = differences(case, result)
    assert not found, found
    assert not any(result.errors), result.errors
    steps, ops = result.dump.steps, case.program.ops
    assert steps.op.tolist() == list(range(len(ops))) * len(case.images)
    begin = 0
    arrival = None
    if cycles and case.hardware.weight_memory == "stream":
        arrival = TileArrival(tile_beats(case.program, case.widths), first=0)
    for frame, trace in enumerate(traces_of(case)):
        span = slice(begin, begin + len(ops))
        start, done = steps.start[span], steps.done[span]
        modelled, total = frame_cycles(case.program, trace, arrival, int(start[0]))
        events = steps.fired[span].sum(axis=1)
        wrong = [
            f"{frame}, {model.name}: {taken} cycles, {count} events; model {model.cycles}, {model.events}"
            for model, taken, count in zip(modelled, (done - start).tolist(), events.tolist(), strict=True)
            if count != model.events or (taken != model.cycles if cycles else taken < model.cycles)
        ]
        assert not wrong, wrong
        if cycles:
            assert set((start[1:] - done[:-1]).tolist()) == {SEQUENCER_CYCLES}
            assert done[-1] - start[0] == total
        begin += len(ops)


def run_and_check(
    config: NetworkConfig,
    hardware: HardwareConfig,
    *,
    seed: int = 0,
    frames: int = 2,
    stalls: str = "none",
    cycles: bool = True,
) -> tuple[Case, Result]:
    """Build, simulate and check one case."""
    case = build_case(config, hardware, seed=seed, frames=frames)
    result = run_core(case, stalls=stalls, seed=seed)
    check(case, result, cycles=cycles)
    return case, result
