"""Gate-level simulation of a netlist of library cells, compiled, with the activity of every pin.

No delays: within a cycle every gate is evaluated once, in the order of its inputs, so that what is counted
are the changes from cycle to cycle and no glitches. Memories that are macros are simulated as the words they
hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.liberty import Cell, Library
from s2tdpt.hw.netlist import Bit, Netlist
from s2tdpt.hw.truth import LARGEST, truth_table

__all__ = ["Activity", "GateModel", "Run"]


@dataclass(frozen=True)
class Activity:
    """What was seen in a window of cycles.

    Attributes
    ----------
    cycles : int
    toggles, rises : int64 [nets]
        Changes of a net; those to 1.
    rise_by, fall_by : float64 [gate outputs, `truth.LARGEST`]
        Edges of a gate's output, shared among the inputs that changed with it.
    states : int64 [flip-flops, 4]
        Cycles by (next state + 2 x state) before the clock edge.
    reads : int64 [read ports]
        Words read.
    written : int64 [write ports]
        Bits written.
    """

    cycles: int
    toggles: np.ndarray
    rises: np.ndarray
    rise_by: np.ndarray
    fall_by: np.ndarray
    states: np.ndarray
    reads: np.ndarray
    written: np.ndarray


@dataclass(frozen=True)
class Run:
    """Frames through the netlist.

    Attributes
    ----------
    words : list of list of int
        Result words of every frame that came out, unsigned.
    activity : Activity
        From the cycle after the last word of one result to that of the next.
    """

    words: list[list[int]]
    activity: Activity


class GateModel:
    """A netlist as arrays.

    Attributes
    ----------
    gates : list of (cell number, output pin)
        In the order of evaluation.
    flops : list of int
        Cell numbers.
    cells : list of Cell
        Of every instance.
    nets : int
        0 and 1 are the constants.

    Raises
    ------
    UserError
        A loop of gates, a second clock, or a pin that nothing drives.
    """

    def __init__(self, netlist: Netlist, library: Library, clock: str = "aclk"):
        self.netlist, self.library = netlist, library
        self._numbers: dict[int, int] = {}
        self.cells: list[Cell] = [library.cells[cell.kind] for cell in netlist.cells]
        self.pins = [{pin: self.net(bit) for pin, bit in cell.pins.items()} for cell in netlist.cells]
        self._clock = self.net(netlist.ports[clock][1][0])
        self.flops = [number for number, cell in enumerate(self.cells) if cell.state]
        self._arrange_macros()
        self.gates = self._in_order()
        self._arrange_gates()
        self._arrange_flops()
        self._arrange_ports()

    @property
    def nets(self) -> int:
        return 2 + len(self._numbers)

    def net(self, bit: Bit) -> int:
        """Number of a net; what is undefined counts as 0."""
        if isinstance(bit, str):
            return int(bit == "1")
        return self._numbers.setdefault(bit, 2 + len(self._numbers))

    def _in_order(self) -> list[tuple[int, str]]:
        """Outputs of gates, each behind the gates that drive its inputs."""
        outputs = [
            (number, pin)
            for number, cell in enumerate(self.cells)
            if not cell.state
            for pin in cell.outputs
            if pin in self.pins[number]
        ]
        driver = {self.pins[number][pin]: at for at, (number, pin) in enumerate(outputs)}
        users: list[list[int]] = [[] for _ in outputs]
        waits = np.zeros(len(outputs), np.int64)
        for at, (number, _) in enumerate(outputs):
            for pin in self.cells[number].inputs:
                source = driver.get(self.pins[number].get(pin, 0))
                if source is not None:
                    users[source].append(at)
                    waits[at] += 1
        ready = [at for at in range(len(outputs)) if not waits[at]]
        for at in ready:
            for user in users[at]:
                waits[user] -= 1
                if not waits[user]:
                    ready.append(user)
        if len(ready) < len(outputs):
            raise UserError(
                f"the netlist has a loop of {len(outputs) - len(ready)} gates; expected none; this is a "
                "fault of the synthesis"
            )
        return [outputs[at] for at in ready]

    def _arrange_gates(self) -> None:
        count = len(self.gates)
        self._inputs, self._tables = np.zeros((count, LARGEST), np.int32), np.zeros(count, np.uint64)
        self._outputs = np.zeros(count, np.int32)
        for at, (number, pin) in enumerate(self.gates):
            cell, pins = self.cells[number], self.pins[number]
            for place, name in enumerate(cell.inputs):
                self._inputs[at, place] = pins.get(name, 0)
            self._tables[at], self._outputs[at] = cell.table(pin), pins[pin]

    def _arrange_flops(self) -> None:
        count, spare = len(self.flops), self.nets  # outputs that go nowhere share a spare net
        self._next_inputs = np.zeros((count, LARGEST), np.int32)
        self._next_tables = np.zeros(count, np.uint64)
        self.state_nets = np.full((count, 2), spare, np.int32)  # state and its inverse
        for at, number in enumerate(self.flops):
            cell, pins = self.cells[number], self.pins[number]
            data = [name for name in cell.inputs if name != cell.clock]
            if len(data) == len(cell.inputs) or pins[cell.clock] != self._clock:
                raise UserError(
                    f"flip-flop {self.netlist.cells[number].name} is not clocked by the rising edge of the "
                    "one clock; expected that; exclude its cell from the mapping"
                )
            for place, name in enumerate(data):
                self._next_inputs[at, place] = pins.get(name, 0)
            self._next_tables[at] = truth_table(cell.next_state, data)
            for pin in cell.outputs:
                if pin in pins:
                    self.state_nets[at, int(cell.pins[pin].function == cell.inverse)] = pins[pin]

    def _arrange_macros(self) -> None:
        """Contents of all macros side by side, and their ports as rows of numbers."""
        macros, base = self.netlist.macros, 0
        reads, writes, contents = [], [], []
        lists: list[int] = []  # nets of all ports, one after the other

        def place(bits) -> int:
            lists.extend(self.net(bit) for bit in bits)
            return len(lists) - len(bits)

        self.read_macros, self.write_macros = [], []
        for at, macro in enumerate(macros):
            total = macro.words * macro.bits
            raw = (macro.contents & ((1 << total) - 1)).to_bytes(-(-total // 8), "little")
            contents.append(np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:total])
            for port in macro.reads:
                value = [int(port.reset_value >> bit & 1) for bit in range(macro.bits)]
                reads.append(
                    (
                        base,
                        macro.words,
                        macro.bits,
                        self.net(port.enable),
                        place(port.address),
                        len(port.address),
                        place(port.data),
                        self.net(port.reset),
                        int(port.reset_needs_enable),
                        place(["1" if bit else "0" for bit in value]),
                    )
                )
                self.read_macros.append(at)
            for port in macro.writes:
                writes.append(
                    (
                        base,
                        macro.words,
                        macro.bits,
                        place(port.enable),
                        place(port.address),
                        len(port.address),
                        place(port.data),
                    )
                )
                self.write_macros.append(at)
            base += total
        self._reads = np.array(reads, np.int64).reshape(-1, 10)
        self._writes = np.array(writes, np.int64).reshape(-1, 7)
        self._lists = np.array(lists or [0], np.int64)
        self._contents = np.concatenate(contents) if contents else np.zeros(1, np.uint8)

    def _arrange_ports(self) -> None:
        def nets(name: str) -> np.ndarray:
            return np.array([self.net(bit) for bit in self.netlist.ports[name][1]], np.int64)

        self._bus = tuple(
            nets(name)
            for name in (
                *("aresetn", "s_axis_tdata", "s_axis_tvalid", "s_axis_tlast", "s_axis_tready"),
                *("m_axis_tready", "m_axis_tvalid", "m_axis_tdata", "m_axis_tlast"),
            )
        )

    def run(self, frames: np.ndarray, window: int, limit: int) -> Run:
        """Stream frames in without a gap, take results at once.

        Parameters
        ----------
        frames : uint8 [F, ...]
            Images, as they are sent.
        window : int
            Count from the end of result `window` - 1 to the end of result `window`, from 0; the simulation
            ends there. 0: from the reset on.
        limit : int
            Cycles of the watchdog.

        Raises
        ------
        TimeoutError
            The result did not come.
        """
        pixels = np.ascontiguousarray(frames.reshape(len(frames), -1))
        spare = self.nets + 1
        counts = (np.zeros(spare, np.int64), np.zeros(spare, np.int64))
        shared = (np.zeros(self._inputs.shape), np.zeros(self._inputs.shape))
        states = np.zeros((len(self.flops), 4), np.int64)
        ports = tuple(np.zeros(max(1, size), np.int64) for size in (len(self._reads), len(self._writes)))
        words = np.zeros((1 << 16, 3), np.int64)
        values = np.zeros(spare, np.uint8)
        values[1] = 1
        found, cycles, ended = _simulate(
            values,
            (self._inputs, self._tables, self._outputs),
            (self._next_inputs, self._next_tables, self.state_nets),
            self._contents.copy(),
            self._reads,
            self._writes,
            self._lists,
            self._bus,
            pixels,
            window,
            limit,
            counts,
            shared,
            states,
            ports,
            words,
        )
        if not ended:
            raise TimeoutError(f"the netlist gave no result {window} in {limit} cycles")
        results: list[list[int]] = [[]]
        for low, high, last in words[:found].tolist():
            results[-1].append(low | high << 32)
            if last:
                results.append([])
        return Run(results[:-1], Activity(cycles, *counts, *shared, states, *ports))


@numba.njit(cache=True)
def _put(values, net, value, counts, counting):
    """Set a net and count its edge."""
    if values[net] != value:
        values[net] = value
        if counting:
            counts[0][net] += 1
            counts[1][net] += value


@numba.njit(cache=True)
def _look_up(values, inputs, table):
    """Value of a truth table at the nets of its inputs."""
    index = 0
    for place in range(LARGEST):
        index |= values[inputs[place]] << place
    return np.uint8((table >> np.uint64(index)) & np.uint64(1))


@numba.njit(cache=True)
def _evaluate(values, gates, counts, counting):
    inputs, tables, outputs = gates
    for at in range(len(outputs)):
        _put(values, outputs[at], _look_up(values, inputs[at], tables[at]), counts, counting)


@numba.njit(cache=True)
def _share(values, before, gates, shared):
    """Share an edge of an output among the inputs that changed with it."""
    inputs, _, outputs = gates
    for at in range(len(outputs)):
        net = outputs[at]
        if values[net] == before[net]:
            continue
        changed = 0
        for place in range(LARGEST):
            source = inputs[at, place]
            changed += values[source] != before[source]
        into = shared[0] if values[net] else shared[1]
        for place in range(LARGEST):
            source = inputs[at, place]
            if values[source] != before[source]:
                into[at, place] += 1.0 / changed


@numba.njit(cache=True)
def _number(values, lists, first, size):
    number = 0
    for bit in range(size):
        number |= np.int64(values[lists[first + bit]]) << bit
    return number


@numba.njit(cache=True)
def _drive(values, now, sent, bus, pixels, counts, counting):
    """Inputs of a cycle: the reset for two, then bytes without a gap; whether a byte is offered."""
    resetn, tdata, tvalid, tlast, _, out_ready, _, _, _ = bus
    size = pixels.shape[1]
    valid = now >= 2 and sent < pixels.shape[0] * size
    _put(values, resetn[0], np.uint8(now >= 2), counts, counting)
    _put(values, tvalid[0], np.uint8(valid), counts, counting)
    if valid:
        byte = pixels[sent // size, sent % size]
        for bit in range(len(tdata)):
            _put(values, tdata[bit], np.uint8(byte >> bit & 1), counts, counting)
        _put(values, tlast[0], np.uint8(sent % size == size - 1), counts, counting)
    _put(values, out_ready[0], np.uint8(1), counts, counting)
    return valid


@numba.njit(cache=True)
def _next_states(values, flops, following, states, counting):
    """What every flip-flop takes at the edge."""
    inputs, tables, nets = flops
    spare = len(values) - 1
    for at in range(len(tables)):
        following[at] = _look_up(values, inputs[at], tables[at])
        if counting:
            state = values[nets[at, 0]] if nets[at, 0] != spare else 1 - values[nets[at, 1]]
            states[at, following[at] + 2 * state] += 1


@numba.njit(cache=True)
def _fetch(values, reads, lists, contents, fetched, does, counts, counting):
    """Words that the read ports take at the edge; `does`: 0 nothing, 1 a read, 2 the reset's value."""
    for port in range(len(reads)):
        row = reads[port]
        enable, reset = values[row[3]], values[row[7]]
        does[port] = 0
        if reset and (enable or not row[8]):
            does[port] = 2
            for bit in range(row[2]):
                fetched[row[6] + bit] = lists[row[9] + bit]
        elif enable:
            does[port] = 1
            address = _number(values, lists, row[4], row[5])
            for bit in range(row[2]):
                inside = address < row[1]
                fetched[row[6] + bit] = contents[row[0] + address * row[2] + bit] if inside else 0
            counts[port] += counting


@numba.njit(cache=True)
def _write(values, writes, lists, contents, counts, counting):
    """The write ports at the edge."""
    for port in range(len(writes)):
        row = writes[port]
        address = _number(values, lists, row[4], row[5])
        for bit in range(row[2]):
            if values[lists[row[3] + bit]]:
                counts[port] += counting
                if address < row[1]:
                    contents[row[0] + address * row[2] + bit] = values[lists[row[6] + bit]]


@numba.njit(cache=True)
def _settle(values, reads, lists, fetched, does, nets, following, counts, counting):
    """Outputs of read ports and flip-flops behind the edge."""
    spare = len(values) - 1
    for port in range(len(reads)):
        if does[port]:
            row = reads[port]
            for bit in range(row[2]):
                _put(values, lists[row[6] + bit], fetched[row[6] + bit], counts, counting)
    for at in range(len(following)):
        if nets[at, 0] != spare:
            _put(values, nets[at, 0], following[at], counts, counting)
        if nets[at, 1] != spare:
            _put(values, nets[at, 1], np.uint8(1 - following[at]), counts, counting)


@numba.njit(cache=True)
def _simulate(
    values,
    gates,
    flops,
    contents,
    reads,
    writes,
    lists,
    bus,
    pixels,
    window,
    limit,
    counts,
    shared,
    states,
    ports,
    words,
):
    """Cycle by cycle; returns result words, counted cycles, and whether the window has ended."""
    _, _, _, _, tready, _, out_valid, out_data, out_last = bus
    sent, found, results, cycles = 0, 0, 0, 0
    counting = False
    before = values.copy()
    following = np.zeros(len(flops[1]), np.uint8)
    fetched = np.zeros(len(lists), np.uint8)
    does = np.zeros(max(1, len(reads)), np.uint8)
    for now in range(limit):
        valid = _drive(values, now, sent, bus, pixels, counts, counting)
        _evaluate(values, gates, counts, counting)
        if counting:
            _share(values, before, gates, shared)
            cycles += 1
        before[:] = values
        if valid and values[tready[0]]:
            sent += 1
        start, stop = now == 1 and window == 0, False
        if now >= 2 and values[out_valid[0]]:
            words[found, 0] = _number(values, out_data, 0, min(32, len(out_data)))
            words[found, 1] = _number(values, out_data, 32, max(0, len(out_data) - 32))
            words[found, 2] = values[out_last[0]]
            found += 1
            if values[out_last[0]]:
                start, stop = start or results + 1 == window, results == window
                results += 1
        # Clock edge: everything is sampled before anything changes, and counts for the cycle behind it.
        _next_states(values, flops, following, states, counting)
        _fetch(values, reads, lists, contents, fetched, does, ports[0], counting)
        _write(values, writes, lists, contents, ports[1], counting)
        counting = (counting or start) and not stop
        _settle(values, reads, lists, fetched, does, flops[2], following, counts, counting)
        if stop:
            return found, cycles, True
    return found, cycles, False
