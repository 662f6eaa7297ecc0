"""Gate-level simulation of a netlist, compiled, with the activity of every net.

No delays: within a cycle every gate is evaluated once, in the order of its inputs, so that what is counted
are the changes from cycle to cycle and no glitches. Memories are simulated as the words they hold. Values are
0 and 1: what has none, such as a flip-flop without a start, begins at a random one or at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.netlist.circuit import Bit, Circuit
from s2tdpt.hw.netlist.truth import LARGEST

__all__ = ["Activity", "GateSimulation", "GateSimulator"]

ZERO, ONE, UNKNOWN = 0, 1, 2
"""Nets of the constants; the third is one that nothing defines."""

NEW = 1
MEETS = {"old": 0, "new": NEW, "inverted": 2}


@dataclass(frozen=True)
class Activity:
    """What was seen in the cycles that counted.

    Attributes
    ----------
    cycles : int
    toggles, rises : int64 [nets + 1]
        Changes of a net; those to 1.
    rise_by, fall_by : float64 [gates, `truth.LARGEST`]
        Edges of a gate's output, shared among the inputs that changed with it.
    states : int64 [flip-flops, 4]
        Cycles by (next state + 2 x state) before the clock edge.
    reads : int64 [read ports]
        Words read, port by port of macro by macro.
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


class GateSimulator:
    """A circuit as arrays; `begin` starts a simulation.

    Attributes
    ----------
    nets : int
        Numbers below it are nets; the spare one behind them takes outputs that go nowhere.

    Raises
    ------
    UserError
        A loop of gates, a net without a driver, or with several.
    """

    def __init__(self, circuit: Circuit):
        self.circuit = circuit
        self._numbers: dict[int, int] = {}
        self._gates = [(gate.inputs, gate.table, gate.output) for gate in circuit.gates]
        self._gates += [(ram.read, ram.contents, ram.output) for ram in circuit.rams]
        self._arrange_gates()
        self._arrange_macros()
        self._ports = {
            name: np.array([self.net(bit) for bit in bits], np.int64)
            for name, (_, bits) in circuit.ports.items()
        }
        self._arrange_rams()
        self._arrange_flops()
        self._check_drivers()

    @property
    def nets(self) -> int:
        return UNKNOWN + 1 + len(self._numbers)

    def net(self, bit: Bit) -> int:
        """Number of a net."""
        if isinstance(bit, str):
            return {"0": ZERO, "1": ONE}.get(bit, UNKNOWN)
        return self._numbers.setdefault(bit, UNKNOWN + 1 + len(self._numbers))

    def begin(self, seed: int | None = None) -> GateSimulation:
        """A simulation before its first cycle.

        Parameters
        ----------
        seed : int or None
            Of the random values that stand for undefined ones; None: they are 0.
        """
        return GateSimulation(self, seed)

    def _arrange_gates(self) -> None:
        """Every gate behind the gates that drive its inputs."""
        driver = {output: at for at, (_, _, output) in enumerate(self._gates)}
        users: list[list[int]] = [[] for _ in self._gates]
        waits = np.zeros(len(self._gates), np.int64)
        for at, (inputs, _, _) in enumerate(self._gates):
            for bit in inputs:
                source = driver.get(bit)
                if source is not None:
                    users[source].append(at)
                    waits[at] += 1
        order = [at for at in range(len(self._gates)) if not waits[at]]
        for at in order:
            for user in users[at]:
                waits[user] -= 1
                if not waits[user]:
                    order.append(user)
        if len(order) < len(self._gates):
            raise UserError(
                f"the netlist has a loop of {len(self._gates) - len(order)} gates; expected none; this is a "
                "fault of the synthesis"
            )
        self._order = np.array(order, np.int64)
        self._inputs = np.zeros((len(order), LARGEST), np.int32)
        self._tables, self._outputs = np.zeros(len(order), np.uint64), np.zeros(len(order), np.int32)
        for place, at in enumerate(order):
            inputs, self._tables[place], output = self._gates[at]
            self._inputs[place, : len(inputs)] = [self.net(bit) for bit in inputs]
            self._outputs[place] = self.net(output)

    def _arrange_rams(self) -> None:
        """Rows of a gate's place, nets of the address, of the data and of the enable."""
        places = np.empty(len(self._order), np.int64)
        places[self._order] = np.arange(len(self._order))
        first = len(self.circuit.gates)
        self._rams = np.array(
            [
                (places[first + at], *map(self.net, (*ram.write, ram.data, ram.enable)))
                for at, ram in enumerate(self.circuit.rams)
            ],
            np.int64,
        ).reshape(-1, 7)

    def _arrange_flops(self) -> None:
        flops = self.circuit.flops
        self._next_inputs = np.zeros((len(flops), LARGEST), np.int32)
        self._next_tables = np.array([flop.table for flop in flops], np.uint64)
        shown = [
            [-1 if bit is None else self.net(bit) for bit in (flop.state, flop.inverse)] for flop in flops
        ]
        for at, flop in enumerate(flops):
            self._next_inputs[at, : len(flop.inputs)] = [self.net(bit) for bit in flop.inputs]
        self._shown = np.array(shown, np.int32).reshape(-1, 2)
        self._shown[self._shown < 0] = self.nets  # outputs that go nowhere share the spare net
        self._starts = np.array([-1 if flop.start is None else flop.start for flop in flops], np.int8)

    def _arrange_macros(self) -> None:
        """Contents of all macros side by side, and their ports as rows of numbers."""
        reads, writes, meets, contents = [], [], [], []
        lists: list[int] = []  # nets of all ports, one after the other
        base = 0

        def place(bits) -> int:
            lists.extend(self.net(bit) for bit in bits)
            return len(lists) - len(bits)

        for macro in self.circuit.macros:
            total = macro.words * macro.bits
            held = np.full(total, -1, np.int8)
            if macro.contents is not None:
                raw = (macro.contents & ((1 << total) - 1)).to_bytes(-(-total // 8), "little")
                held[:] = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:total]
            contents.append(held)
            for port in macro.reads:
                width = len(port.data)
                value = ["1" if port.reset_value >> bit & 1 else "0" for bit in range(width)]
                row = (base, total // width, width, self.net(port.enable), place(port.address))
                row += (len(port.address), place(port.data), self.net(port.reset))
                row += (int(port.reset_needs_enable), place(value))
                meets += [
                    (len(reads), len(writes) + at, MEETS[word])
                    for at, word in enumerate(port.meets)
                    if word != "old"
                ]
                reads.append((*row, -1 if port.start is None else port.start))
            for port in macro.writes:
                width = len(port.data)
                row = (base, total // width, width, place(port.enable), place(port.address))
                writes.append((*row, len(port.address), place(port.data)))
            base += total
        self._reads = np.array(reads, np.int64).reshape(-1, 11)
        self._writes = np.array(writes, np.int64).reshape(-1, 7)
        self._meets = np.array(meets, np.int64).reshape(-1, 3)
        self._lists = np.array(lists or [0], np.int64)
        self._contents = np.concatenate(contents) if contents else np.zeros(1, np.int8)

    def _check_drivers(self) -> None:
        """Every net that is taken has one driver."""
        drivers = [np.array([ZERO, ONE, UNKNOWN]), self._outputs, self._shown]
        taken = [self._inputs, self._next_inputs, self._rams[:, 1:]]
        for row in self._reads:
            drivers.append(self._lists[row[6] : row[6] + row[2]])
            taken += [row[[3, 7]], self._lists[row[4] : row[4] + row[5]]]
        for row in self._writes:
            for first, size in ((row[3], row[2]), (row[4], row[5]), (row[6], row[2])):
                taken.append(self._lists[first : first + size])
        for name, (direction, _) in self.circuit.ports.items():
            if direction == "input":
                drivers.append(self._ports[name])
            else:
                taken.append(self._ports[name])
        wanted = np.unique(np.concatenate([nets.ravel() for nets in taken]))
        driven = np.bincount(np.concatenate([nets.ravel() for nets in drivers]), minlength=self.nets + 1)
        for count, words in (
            ((driven[wanted] == 0).sum(), "that nothing drives"),
            ((driven[:-1] > 1).sum(), "with several drivers"),
        ):
            if count:
                raise UserError(
                    f"the netlist has {count} net(s) {words}; expected none; this is a fault of the synthesis"
                )


class GateSimulation:
    """A circuit in some cycle. In every cycle: `put` the inputs, `settle`, `get` outputs, `edge`.

    Attributes
    ----------
    cycle : int
        Edges so far.
    counting : bool
        Whether activity is counted from the next edge on; its cycle ends with an edge.
    """

    def __init__(self, simulator: GateSimulator, seed: int | None):
        self._simulator = model = simulator
        self.cycle, self.counting, self._counted, self._cycles = 0, False, False, 0
        random = np.random.default_rng(seed)

        def undefined(count: int) -> np.ndarray:
            return np.zeros(count, np.uint8) if seed is None else random.integers(0, 2, count, np.uint8)

        self._values = undefined(model.nets + 1)
        self._values[[ZERO, ONE]] = (0, 1)
        states = np.where(model._starts < 0, undefined(len(model._starts)), model._starts).astype(np.uint8)
        self._following = states
        for row in model._reads:
            if row[10] >= 0:
                bits = row[10] >> np.arange(row[2]) & 1
                self._values[model._lists[row[6] : row[6] + row[2]]] = bits
        held = model._contents
        self._contents = np.where(held < 0, undefined(len(held)), held).astype(np.uint8)
        self._tables = model._tables.copy()
        self._fetched = np.zeros(len(model._lists), np.uint8)
        self._does = np.zeros(max(1, len(model._reads)), np.uint8)
        spare = model.nets + 1
        self._counts = (np.zeros(spare, np.int64), np.zeros(spare, np.int64))
        self._shared = (np.zeros(model._inputs.shape), np.zeros(model._inputs.shape))
        _show(self._values, model._shown, states, self._counts, False)
        self._before = self._values.copy()
        self._states = np.zeros((len(states), 4), np.int64)
        self._accesses = (
            np.zeros(max(1, len(model._reads)), np.int64),
            np.zeros(max(1, len(model._writes)), np.int64),
        )

    def put(self, name: str, value: int) -> None:
        """Set an input port; of a value's bits those that it has."""
        nets = self._simulator._ports[name]
        raw = (value & ((1 << len(nets)) - 1)).to_bytes(-(-len(nets) // 8), "little")
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        _drive(self._values, nets, bits, self._counts, self._counted)

    def get(self, name: str) -> int:
        """Value of a port, behind `settle`."""
        bits = self._values[self._simulator._ports[name]]
        return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")

    def levels(self) -> dict[str, int]:
        """Values of all ports of one bit."""
        return {name: self.get(name) for name, nets in self._simulator._ports.items() if len(nets) == 1}

    def settle(self) -> None:
        """Evaluate all gates."""
        model = self._simulator
        gates = (model._inputs, self._tables, model._outputs)
        _evaluate(self._values, gates, self._counts, self._counted)
        if self._counted:
            _share(self._values, self._before, gates, self._shared)
            self._cycles += 1
        self._before[:] = self._values

    def edge(self) -> None:
        """The rising edge of the clock, behind `settle`."""
        model, values, following = self._simulator, self._values, self._following
        reads, writes = self._accesses
        memories = (model._reads, model._writes, model._meets, model._lists)
        # Everything is sampled before anything changes, and counts for the cycle behind the edge.
        flops = (model._next_inputs, model._next_tables, model._shown)
        _next_states(values, flops, following, self._states, self._counted)
        _fetch(values, memories, self._contents, self._fetched, self._does, reads, self._counted)
        _write(values, memories, self._contents, writes, self._counted)
        _write_rams(values, model._rams, self._tables)
        self._counted = self.counting
        _show_words(values, memories, self._fetched, self._does, self._counts, self._counted)
        _show(values, model._shown, following, self._counts, self._counted)
        self.cycle += 1

    def activity(self) -> Activity:
        """What was counted."""
        model = self._simulator
        by = []
        for shared in self._shared:
            gates = np.zeros_like(shared)
            gates[model._order] = shared
            by.append(gates[: len(model.circuit.gates)])
        return Activity(self._cycles, *self._counts, *by, self._states, *self._accesses)


@numba.njit(cache=True)
def _put(values, net, value, counts, counting):
    """Set a net and count its edge."""
    if values[net] != value:
        values[net] = value
        if counting:
            counts[0][net] += 1
            counts[1][net] += value


@numba.njit(cache=True)
def _drive(values, nets, bits, counts, counting):
    """Set the nets of a port."""
    for at in range(len(nets)):
        _put(values, nets[at], bits[at], counts, counting)


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
def _show(values, nets, states, counts, counting):
    """Outputs of flip-flops."""
    spare = len(values) - 1
    for at in range(len(states)):
        if nets[at, 0] != spare:
            _put(values, nets[at, 0], states[at], counts, counting)
        if nets[at, 1] != spare:
            _put(values, nets[at, 1], np.uint8(1 - states[at]), counts, counting)


@numba.njit(cache=True)
def _fetch(values, memories, contents, fetched, does, counts, counting):
    """Words that the read ports take at the edge; `does`: 0 nothing, 1 a read, 2 the reset's value."""
    reads, writes, meets, lists = memories
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
    for at in range(len(meets)):
        row, other = reads[meets[at, 0]], writes[meets[at, 1]]
        if does[meets[at, 0]] != 1:
            continue
        # Both ports count the memory's bits from their own words.
        ahead = _number(values, lists, row[4], row[5]) * row[2]
        ahead -= _number(values, lists, other[4], other[5]) * other[2]
        for bit in range(max(0, -ahead), min(row[2], other[2] - ahead)):
            if values[lists[other[3] + ahead + bit]]:
                if meets[at, 2] == NEW:
                    fetched[row[6] + bit] = values[lists[other[6] + ahead + bit]]
                else:
                    fetched[row[6] + bit] ^= 1


@numba.njit(cache=True)
def _write(values, memories, contents, counts, counting):
    """The write ports at the edge."""
    _, writes, _, lists = memories
    for port in range(len(writes)):
        row = writes[port]
        address = _number(values, lists, row[4], row[5])
        for bit in range(row[2]):
            if values[lists[row[3] + bit]]:
                counts[port] += counting
                if address < row[1]:
                    contents[row[0] + address * row[2] + bit] = values[lists[row[6] + bit]]


@numba.njit(cache=True)
def _write_rams(values, rams, tables):
    """The tables that change at the edge."""
    for at in range(len(rams)):
        row = rams[at]
        if values[row[6]]:
            place = np.uint64(0)
            for bit in range(4):
                place |= np.uint64(values[row[1 + bit]]) << np.uint64(bit)
            mask = np.uint64(1) << place
            if values[row[5]]:
                tables[row[0]] |= mask
            else:
                tables[row[0]] &= ~mask


@numba.njit(cache=True)
def _show_words(values, memories, fetched, does, counts, counting):
    """Outputs of read ports behind the edge."""
    reads, _, _, lists = memories
    for port in range(len(reads)):
        if does[port]:
            row = reads[port]
            for bit in range(row[2]):
                _put(values, lists[row[6] + bit], fetched[row[6] + bit], counts, counting)
