"""AXI4-Streams into and out of a gate-level simulation, cycle by cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from s2tdpt.hw.netlist.gates import Activity, GateSimulation, GateSimulator

__all__ = ["Traffic", "Window", "measure_window", "stream"]

WATCH = 256
"""Cycles between two looks at a run."""


@dataclass
class Traffic:
    """What passed through the ports; cycles are numbered from the first one, in reset.

    Attributes
    ----------
    results : list of (words, cycle)
        Result frames, words unsigned, and the cycle in which the last word was taken.
    offered, taken : list of int
        Cycle in which the first byte of every frame was offered first; in which its last one was taken.
    violations : int
        Cycles in which the output changed although it waited.
    lost : int or None
        Number of the result that did not come.
    status : dict of str to int
        One-bit ports in the last cycle.
    """

    results: list[tuple[list[int], int]] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    violations: int = 0
    lost: int | None = None
    status: dict[str, int] = field(default_factory=dict)


class _Source:
    """Words into an input; one that is offered is offered until it is taken."""

    def __init__(self, simulation: GateSimulation, name: str, frames, pauses: Iterator[bool] | None):
        self._simulation, self._name, self._pauses = simulation, name, pauses
        self._words = ((word, at, size) for words, size in frames for at, word in enumerate(words))
        self._next = next(self._words, None)
        self._offered = False
        self.offered: list[int] = []
        self.taken: list[int] = []

    def drive(self, allowed: bool) -> None:
        paused = allowed and self._pauses is not None and next(self._pauses)
        if not self._offered:
            self._offered = allowed and not paused and self._next is not None
            self._simulation.put(f"{self._name}_tvalid", self._offered)
            if self._offered:
                word, at, size = self._next
                self._simulation.put(f"{self._name}_tdata", word)
                self._simulation.put(f"{self._name}_tlast", at == size - 1)
                if at == 0:
                    self.offered.append(self._simulation.cycle)

    def take(self) -> None:
        if self._offered and self._simulation.get(f"{self._name}_tready"):
            _, at, size = self._next
            if at == size - 1:
                self.taken.append(self._simulation.cycle)
            self._next, self._offered = next(self._words, None), False


class _Sink:
    """Takes the words of an output, and watches that one which waits stays what it is."""

    def __init__(self, simulation: GateSimulation, traffic: Traffic, pauses: Iterator[bool] | None):
        self._simulation, self._traffic, self._pauses = simulation, traffic, pauses
        self._ready = False
        self._words: list[int] = []
        self._waits: tuple[int, int] | None = None

    def drive(self, allowed: bool) -> None:
        self._ready = allowed and not (self._pauses is not None and next(self._pauses))
        self._simulation.put("m_axis_tready", self._ready)

    def take(self) -> bool:
        """Whether a result has ended."""
        simulation, shown = self._simulation, None
        if simulation.get("m_axis_tvalid"):
            shown = (simulation.get("m_axis_tdata"), simulation.get("m_axis_tlast"))
        self._traffic.violations += self._waits is not None and shown != self._waits
        self._waits = None if self._ready else shown
        if shown is None or not self._ready:
            return False
        self._words.append(shown[0])
        if shown[1]:
            self._traffic.results.append((self._words, simulation.cycle))
            self._words = []
        return bool(shown[1])


def stream(
    simulation: GateSimulation,
    frames: Sequence[bytes],
    limit: int,
    *,
    weights: Sequence[int] = (),
    pauses: Mapping[str, Iterator[bool]] | None = None,
    reset: int = 2,
    drain: int = 0,
    ended: Callable[[int], bool] | None = None,
    watch: Callable[[int, int], None] = lambda results, cycle: None,
) -> Traffic:
    """Send frames from the reset on and take their results.

    Parameters
    ----------
    simulation : GateSimulation
        Of the accelerator, before its first cycle.
    frames : sequence of bytes
        One packet each.
    limit : int
        Cycles without a result before the next one counts as lost, which ends the run.
    weights : sequence of int
        Words of the weight stream for one frame; none: there is no such stream.
    pauses : mapping of str to iterator of bool
        Of "source", "sink" and "weights"; True: that side holds back in this cycle. Absent: never.
    reset : int
        Cycles.
    drain : int
        Cycles after the last result, for one that nobody expects.
    ended : callable or None
        Told the number of a result in the cycle of its last word; True ends the run behind that cycle. None:
        the run ends with as many results as there are frames.
    watch : callable
        Told results and cycle now and then.
    """
    traffic, pauses = Traffic(), pauses or {}
    pixels = ((frame, len(frame)) for frame in frames)
    sources = [source := _Source(simulation, "s_axis", pixels, pauses.get("source"))]
    if weights:
        rounds = ((weights, len(weights)) for _ in frames)
        sources.append(_Source(simulation, "s_axis_weights", rounds, pauses.get("weights")))
    sink = _Sink(simulation, traffic, pauses.get("sink"))
    last, end = 0, None  # cycle of the last result, of the end
    while end is None or simulation.cycle < end:
        cycle, running = simulation.cycle, simulation.cycle >= reset
        simulation.put("aresetn", running)
        for part in (*sources, sink):
            part.drive(running)
        simulation.settle()
        if running:
            for part in sources:
                part.take()
            if sink.take():
                number, last = len(traffic.results) - 1, cycle
                if ended is not None:
                    end = cycle + 1 if ended(number) else None
                elif number == len(frames) - 1:
                    end = cycle + 1 + drain
        if end is None and cycle - last >= limit:
            traffic.lost, end = len(traffic.results), cycle + 1
        if cycle % WATCH == 0:
            watch(len(traffic.results), cycle)
        if cycle + 1 == end:
            traffic.status = simulation.levels()
        simulation.edge()
    traffic.offered, traffic.taken = source.offered, source.taken
    return traffic


@dataclass(frozen=True)
class Window:
    """Frames through a netlist.

    Attributes
    ----------
    words : list of list of int
        Result words of every frame that came out, unsigned.
    activity : Activity
        From the cycle after the last word of one result to that of the next.
    """

    words: list[list[int]]
    activity: Activity


def measure_window(simulator: GateSimulator, frames: np.ndarray, window: int, limit: int) -> Window:
    """Stream frames in without a gap, take results at once.

    Parameters
    ----------
    frames : uint8 [F, ...]
        Images, as they are sent.
    window : int
        Count from the end of result `window` - 1 to the end of result `window`, from 1; the simulation ends
        there.
    limit : int
        Cycles without a result.

    Raises
    ------
    TimeoutError
        The result did not come.
    """
    simulation = simulator.begin()

    def ended(number: int) -> bool:
        simulation.counting = number == window - 1
        return number == window

    traffic = stream(simulation, [frame.tobytes() for frame in frames], limit, ended=ended)
    if traffic.lost is not None:
        raise TimeoutError(f"the netlist gave no result {window} in {limit} cycles")
    return Window([words for words, _ in traffic.results], simulation.activity())
