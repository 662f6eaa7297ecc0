"""Whole networks on `hw.core.Core` in Amaranth's simulator, against the golden model and the cycle model.

`run_core` drives the streams and records the observation port; `check` demands that every traced tensor, the
logits, the class, and the cycles in which every step starts and is complete are exactly those of the models.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from amaranth import Cat, Module, ResetInserter, Signal
from amaranth.hdl import Fragment
from amaranth.hdl._mem import MemoryInstance

from s2tdpt.golden.bounds import Bounds, derive_bounds
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.params import Params
from s2tdpt.golden.trace import traces
from s2tdpt.hw.attention.neurons import y_shape_of
from s2tdpt.hw.blocks.images import stream_beats
from s2tdpt.hw.core import Core
from s2tdpt.hw.estimate.arrival import TileArrival, stream_shape
from s2tdpt.hw.estimate.cycles import FrameModel
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Port, Program, Step, Trace
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.hw.plan.widths import Widths, derive_widths
from s2tdpt.sim import cases
from s2tdpt.sim.stalls import pauses
from tests.hw.util import simulate


@dataclass(frozen=True)
class Case:
    """A network with random integers, a machine, and random images."""

    params: Params
    machine: Machine
    program: Program
    widths: Widths
    bounds: Bounds
    images: np.ndarray
    golden: dict[str, np.ndarray]


@dataclass
class Result:
    """What came out of the core; cycles count from the first one after the reset.

    Attributes
    ----------
    records : dict
        (image, tensor) to the writes (position, first slot, values [T, slots]) of that tensor, in order.
    starts : list of (cycle, step)
    completes : list of cycle
    begun, ended : list of cycle
        `FrameEvents` of the images.
    fired : int
        Accumulates of a lane.
    logits, classes : ndarray
    errors : tuple of int
    """

    records: dict[tuple[int, str], list] = field(default_factory=lambda: defaultdict(list))
    findings: list[str] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    completes: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    fired: int = 0
    logits: np.ndarray | None = None
    classes: np.ndarray | None = None
    errors: tuple[int, ...] = ()


def build_case(
    config: NetworkConfig, machine: Machine, *, seed: int = 0, frames: int = 2, attempts: int = 40
) -> Case:
    """`sim.cases.build_case` with what the hardware is described from."""
    case = cases.build_case(config, machine, seed=seed, frames=frames, attempts=attempts)
    bounds = derive_bounds(case.params)
    widths = derive_widths(case.params, bounds)
    program = build_program(config, machine, widths.head_sum, case.params.laws)
    return Case(case.params, machine, program, widths, bounds, case.images, case.golden)


def run_core(
    case: Case,
    *,
    built_from: Params | None = None,
    stalls: str = "none",
    seed: int = 0,
    weights_last: int = -1,
    sink_opens: int = 0,
    reset_at: int | None = None,
    scramble: bool = False,
    observer=None,
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
    scramble : bool
        Before the reset, put any value into every register and into every memory that is written to: the
        reset must not rely on what came before, nor on what a memory holds when power comes.
    observer : optional
        ``observer.find(fragment)`` sees the elaborated design, ``observer.watch`` runs from the reset on.
    """
    params, program = built_from or case.params, case.program
    core = Core(params, program, case.widths, case.bounds)
    m, reset = Module(), Signal()
    m.submodules.core = inside = Fragment.get(ResetInserter(reset)(core), None)
    registers = state_of_fragment(inside) if scramble else []
    frames, length = len(case.images), program.network.num_classes + 1
    recorder = _Recorder(core, case, reset)
    words: list[int] = []

    size = case.images[0].size
    pixels = [(byte, i % size == size - 1) for i, byte in enumerate(case.images.reshape(-1).tolist())]
    sources = [_source(core.pixels, pixels, pauses(stalls, seed, "pixels"), reset)]
    sent = len(pixels)
    if case.machine.weight_memory == "stream":
        beats = stream_beats(params, program, case.widths)
        last = range(len(beats))[weights_last]
        transfers = [(beat, i == last) for i, beat in enumerate(beats)] * frames
        sources.append(_source(core.weights, transfers, pauses(stalls, seed, "weights"), reset))
        sent += len(transfers)

    async def testbench(ctx):
        for _ in range(reset_at or 0):
            await ctx.tick()
        set_at_random(ctx, registers, seed)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        paused = pauses(stalls, seed, "sink")
        bus, cycle = core.results, 0
        while len(words) < frames * length:
            ready = cycle >= sink_opens and not (paused and next(paused))
            ctx.set(bus.tready, ready)
            _, _, valid, data, last = await ctx.tick().sample(bus.tvalid, bus.tdata, bus.tlast)
            cycle += 1
            if valid and ready:
                words.append(data)
                assert last == (len(words) % length == 0)
        await ctx.tick()  # so that the recorder sees the last transfer's cycle
        flags = [name for name in core.signature.members if name.startswith("error")]
        recorder.result.errors = tuple(ctx.get(getattr(core, name)) for name in flags)
        assert not ctx.get(core.busy) and not ctx.get(bus.tvalid)

    model = FrameModel(program)
    cycles = model.frame(traces_of(case)[0]).interval
    # Generous: streamed weights may be late, and stalls may cost seven cycles of eight on any stream.
    slack = (2 if stalls == "none" else 12) * (frames * (2 * cycles + 100) + sent)
    deadline = (reset_at or 0) + sink_opens + slack
    background = [*sources, recorder.record]
    if observer is not None:
        m = Fragment.get(m, None)
        observer.find(m)

        async def watch(ctx):
            while not ctx.get(reset):
                await ctx.tick()
            await ctx.tick()
            await observer.watch(ctx)

        background.append(watch)
    simulate(m, testbench, deadline=deadline, background=background)
    width = len(core.results.tdata)
    values = np.array([_signed(word, width) for word in words]).reshape(frames, -1)
    recorder.result.logits, recorder.result.classes = values[:, :-1], values[:, -1]
    return recorder.result


def state_of_fragment(fragment: Fragment) -> list:
    """All that an elaborated unit keeps, registers and words of memories, as values that can be set."""
    return [*_registers(fragment), *_words(fragment)]


def set_at_random(ctx, state: list, seed: int) -> None:
    """Any value into all of a state; a negative seed is that of the inverted values."""
    rng = np.random.default_rng(abs(seed))
    for value in state:
        drawn = int.from_bytes(rng.bytes(-(-len(value) // 8)))
        ctx.set(value, (drawn if seed >= 0 else ~drawn) & ((1 << len(value)) - 1))


def _words(fragment: Fragment) -> list:
    """All words of the memories of an elaborated unit, and of those inside of it, that have a write port."""
    if isinstance(fragment, MemoryInstance):
        return list(fragment._data) if fragment._write_ports else []
    return [word for inner, _, _ in fragment.subfragments for word in _words(inner)]


def _registers(fragment: Fragment) -> list[Signal]:
    """All registers of an elaborated unit and of those inside of it, but those of which a part is no
    register.
    """
    assigned = {domain: statements._lhs_signals() for domain, statements in fragment.statements.items()}
    wires = assigned.pop("comb", ())
    found = [signal for signals in assigned.values() for signal in signals if signal not in wires]
    return [*found, *(register for inner, _, _ in fragment.subfragments for register in _registers(inner))]


def _signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> width - 1 else value


def _source(bus, transfers: list[tuple[int, bool]], paused, reset):
    """Sends ``(data, last)`` transfers on `bus`; `tvalid` never falls before the transfer.

    Until the reset it sends them inverted, so that everything it leaves behind is wrong.
    """

    async def offer(ctx, offered):
        """Ends with the transfers or with a reset."""
        for value, final in offered:
            while paused and next(paused) and not ctx.get(reset):
                await ctx.tick()
            ctx.set(bus.tdata, value)
            ctx.set(bus.tlast, final)
            ctx.set(bus.tvalid, 1)
            while not ctx.get(bus.tready) and not ctx.get(reset):
                await ctx.tick()
            if ctx.get(reset):
                break
            await ctx.tick()
            if paused:
                ctx.set(bus.tvalid, 0)
        ctx.set(bus.tvalid, 0)

    async def send(ctx):
        ones = (1 << len(bus.tdata)) - 1
        await offer(ctx, itertools.cycle((value ^ ones, final) for value, final in transfers))
        await ctx.tick()
        await offer(ctx, transfers)

    return send


class _Recorder:
    """The observation port from the reset on, decoded by the program alone."""

    def __init__(self, core: Core, case: Case, reset: Signal):
        self._core, self._case, self._reset = core, case, reset
        self.result = Result()
        self._blocks = 0  # blocks of this image whose attention a step has read

    async def record(self, ctx):
        while not ctx.get(self._reset):
            await ctx.tick()
        await ctx.tick()
        probe, result = self._core.probe, self.result
        strobes = Cat(
            *(probe.piece.en, probe.piece.u_en, probe.layers.en, probe.attention.en, probe.y_en),
            *(probe.complete, probe.start, self._core.events.start, self._core.events.complete),
        )
        decoders = (self._piece, self._membrane, self._write, self._attention, self._sums)
        cycle = 0
        # Strobes are compared once a cycle; the wide signals are read only where one is set.
        while True:
            result.fired += ctx.get(probe.fired)
            seen = ctx.get(strobes)
            if seen:
                if seen >> 2 & 1 and seen >> 3 & 1:
                    result.findings.append(f"two writes into the spike memory in cycle {cycle}")
                for number, decode in enumerate(decoders):
                    if seen >> number & 1:
                        decode(ctx, probe)
                if seen >> 5 & 1:
                    steps = self._case.program.steps
                    step = len(result.completes) % len(steps)
                    self._blocks = max(steps[step].after_attention, self._blocks * (step > 0))
                    result.completes.append(cycle)
                if seen >> 6 & 1:
                    result.starts.append((cycle, ctx.get(probe.step)))
                for number, times in ((7, result.begun), (8, result.ended)):
                    if seen >> number & 1:
                        times.append(cycle)
            await ctx.tick()
            cycle += 1

    @property
    def _frame(self) -> int:
        return len(self.result.completes) // len(self._case.program.steps)

    def _find(self, port: Port, step: Step) -> Trace | None:
        return next((trace for trace in step.traces if trace.port is port), None)

    def _bits(self, value: int) -> np.ndarray:
        lanes, steps = self._case.machine.post_lanes, self._case.program.network.timesteps
        bits = [value >> i & 1 for i in range(lanes * steps)]
        return np.array(bits).reshape(lanes, steps).T

    def _numbers(self, value: int, tensor: str) -> np.ndarray:
        program = self._case.program
        lanes, steps, bits = program.machine.post_lanes, program.network.timesteps, program.emitted_bits
        numbers = [value >> i * bits & (1 << bits) - 1 for i in range(lanes * steps)]
        if (emits := traces(program.network)[tensor].emits).signed:
            numbers = [_signed(number, emits.bits) for number in numbers]
        return np.array(numbers).reshape(lanes, steps).T

    def _put(self, trace: Trace, position: int, slot: int, values: np.ndarray) -> None:
        self.result.records[self._frame, trace.tensor].append((position, slot, values))

    def _piece(self, ctx, probe):
        step = self._case.program.steps[ctx.get(probe.piece.step)]
        trace, lanes = self._find(Port.PIECE, step), self._case.machine.post_lanes
        if trace is None:
            self.result.findings.append(f"spikes of {step.name}, which has none")
            return
        slot = ctx.get(probe.piece.piece) * lanes
        self._put(
            trace,
            ctx.get(probe.piece.position),
            slot,
            self._numbers(ctx.get(probe.piece.spikes), trace.tensor),
        )

    def _membrane(self, ctx, probe):
        program, width = self._case.program, self._case.widths.residual
        trace = self._find(Port.RESIDUAL, program.steps[ctx.get(probe.piece.u_step)])
        position, piece = divmod(ctx.get(probe.piece.u_address), program.residual_pieces)
        word = ctx.get(probe.piece.u_data)
        count = program.machine.post_lanes * program.network.timesteps
        values = [_signed(word >> i * width & ((1 << width) - 1), width) for i in range(count)]
        values = np.array(values).reshape(program.machine.post_lanes, -1).T
        self._put(trace, position, piece * program.machine.post_lanes, values)

    def _write(self, ctx, probe):
        """Writes by the oldest step that is not complete: pooled words."""
        steps = self._case.program.steps
        step = steps[len(self.result.completes) % len(steps)]
        trace = self._find(Port.WRITE, step)
        if step.pooled:
            self._word(ctx, trace, probe.layers)

    def _attention(self, ctx, probe):
        self._word(ctx, self._of_block(Port.WRITE), probe.attention)

    def _word(self, ctx, trace: Trace, port) -> None:
        machine = self._case.machine
        position, group = divmod(ctx.get(port.address) - trace.base, trace.packing.groups)
        piece = group * machine.subgroups + ctx.get(port.subgroup)
        self._put(trace, position, piece * machine.post_lanes, self._bits(ctx.get(port.spikes)))
        last = (trace.packing.span - 1) // machine.post_lanes
        if ctx.get(port.final) != (piece == last):
            self.result.findings.append(f"{trace.tensor}: end of a word marked wrongly")

    def _of_block(self, port: Port) -> Trace:
        name = f"block.{self._blocks}."
        traces = [trace for step in self._case.program.steps for trace in step.traces]
        return next(trace for trace in traces if trace.port is port and trace.tensor.startswith(name))

    def _sums(self, ctx, probe):
        net, shape = self._case.program.network, y_shape_of(self._case.bounds.attention)
        width = shape.width
        trace, word = self._of_block(Port.Y), ctx.get(probe.y_data)
        values = [word >> i * width & ((1 << width) - 1) for i in range(net.head_dim)]
        values = [_signed(value, width) if shape.signed else value for value in values]
        place = ctx.get(probe.y_token), ctx.get(probe.y_step), ctx.get(probe.y_head) * net.head_dim
        self.result.records[self._frame, trace.tensor].append((*place, np.array(values)))


def traces_of(case: Case) -> list[dict[str, np.ndarray]]:
    """The golden trace of every image as the cycle model reads it."""
    return [
        {name: value[frame] for name, value in case.golden.items()} | {"pixels": image}
        for frame, image in enumerate(case.images)
    ]


def differences(case: Case, result: Result) -> list[str]:
    """Where the hardware departs from the golden model: findings, then tensors in program order."""
    found = list(result.findings)
    for frame in range(len(case.images)):
        seen = set()
        for trace in (trace for step in case.program.steps for trace in step.traces):
            if trace.tensor not in seen:
                seen.add(trace.tensor)
                found += _compare(case, result, trace, frame)
        for name, got in (("head.logits", result.logits), ("head.class", result.classes)):
            expected = case.golden[name][frame]
            if not np.array_equal(got[frame], expected):
                found.append(
                    f"{name}: image {frame}: expected {expected.tolist()}, got {got[frame].tolist()}"
                )
    return found


def _compare(case: Case, result: Result, trace: Trace, frame: int) -> list[str]:
    """The first difference of one tensor of one image, if there is any.

    Every place must be written exactly once; slots without a channel must hold zeros.
    """
    golden = case.golden[trace.tensor][frame]
    expected = golden if trace.port is Port.Y else trace.packing.spread(golden)
    post, slots = case.machine.post_lanes, expected.shape[2]
    got, count = np.zeros(expected.shape, np.int64), np.zeros(expected.shape, int)
    for position, *place, values in result.records[frame, trace.tensor]:
        step, slot = place if trace.port is Port.Y else (slice(None), place[0])
        width = min(values.shape[-1], slots - slot)
        if position >= trace.positions or width <= 0:
            return [f"{trace.tensor}: image {frame}: position {position}, slot {slot} does not exist"]
        got[step, position, slot : slot + width] = values[..., :width]
        count[step, position, slot : slot + width] += 1
    pieces = slots if trace.port is Port.Y else -(-trace.packing.span // post) * post
    once = np.broadcast_to(np.arange(slots) < pieces, count.shape)
    if np.any(count != once):
        return [f"{trace.tensor}: image {frame}: {(count != once).sum()} places not written exactly once"]
    wrong = np.argwhere(got != expected)
    if not len(wrong):
        return []
    step, position, slot = first = tuple(wrong[0].tolist())
    return [
        f"{trace.tensor}: image {frame}, step {step}, position {position}, slot {slot}: "
        f"expected {expected[first]}, got {got[first]} ({len(wrong)} differ)"
    ]


def check(case: Case, result: Result, *, cycles: bool = True) -> None:
    """Assert that values and, with `cycles`, the times of all steps are exactly as modelled.

    Streamed weights begin in cycle 0. Without `cycles` (a stream pauses, results may be refused) only values
    and the order of the steps are compared.
    """
    found = differences(case, result)
    assert not found, found
    assert not any(result.errors), result.errors
    steps = len(case.program.steps)
    assert [step for _, step in result.starts] == list(range(steps)) * len(case.images)
    assert len(result.completes) == len(result.starts)
    assert result.begun == [at for at, step in result.starts if step == 0]
    assert result.ended == [at + 1 for at in result.completes[steps - 1 :: steps]]
    if not cycles:
        return
    arrival, fired = None, 0
    if case.machine.weight_memory == "stream":
        arrival = TileArrival(stream_shape(case.program, case.widths), first=0)
    model = FrameModel(case.program, arrival)
    for frame, trace in enumerate(traces_of(case)):
        span = slice(frame * steps, (frame + 1) * steps)
        starts, completes = [at for at, _ in result.starts[span]], result.completes[span]
        modelled = model.frame(trace, starts[0] - 1)
        fired += sum(step.spikes for step in modelled.steps)
        for step, start, complete in zip(modelled.steps, starts, completes, strict=True):
            got = start - starts[0], complete - starts[0]
            assert got == (step.start, step.complete), (
                f"image {frame}, {step.name}: starts and is complete in cycles {got}; "
                f"model {(step.start, step.complete)}"
            )
        if frame + 1 < len(case.images):
            interval = result.starts[(frame + 1) * steps][0] - starts[0]
            assert interval >= modelled.interval
            if arrival is None and modelled.total > 2 * case.images[0].size:  # the next image was waiting
                assert interval == modelled.interval
    assert result.fired == fired


def run_and_check(
    config: NetworkConfig,
    machine: Machine,
    *,
    seed: int = 0,
    frames: int = 2,
    stalls: str = "none",
    cycles: bool = True,
) -> tuple[Case, Result]:
    """Build, simulate and check one case."""
    case = build_case(config, machine, seed=seed, frames=frames)
    result = run_core(case, stalls=stalls, seed=seed)
    check(case, result, cycles=cycles)
    return case, result
