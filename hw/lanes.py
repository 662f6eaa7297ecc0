"""Spike-driven convolution and linear layers: sums of weights selected by events, no multiplier."""

from __future__ import annotations

from amaranth import Array, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.arith import unsigned_bits
from s2tdpt.hw.fixed import exact
from s2tdpt.hw.program import Program
from s2tdpt.hw.records import WEIGHT_DELAY, Sizes, WeightPort, bits_for, event_layout
from s2tdpt.hw.widths import Widths

ADD_LEVELS = 2
"""Levels of adders between two registers of a lane's tree."""


def pair_count(banks: int) -> int:
    """Pairs of banks; an odd bank is a pair of its own."""
    return -(-banks // 2)


def tree_delay(banks: int) -> int:
    """Registers in the tree that adds the pairs up."""
    return max(1, -(-unsigned_bits(pair_count(banks) - 1) // ADD_LEVELS))


def lane_delay(banks: int) -> int:
    """From an event to its sums: weights, pairs, selection, tree, accumulation."""
    return WEIGHT_DELAY + 1 + 1 + tree_delay(banks) + 1


class LaneArray(wiring.Component):
    """Adds the weights of all banks' events to the sums of `lanes` output channels, all time steps at once.

    In every lane two banks share an adder: a step takes nothing, one of the two weights or their sum, as its
    two masks say. The selected values of all pairs are added up and go to the sum of their step. When a
    position ends, its sums move to registers from which they are taken piece by piece.

    Latency: `delay` from an event to its sums; throughput: an event of every bank each cycle, without a gap
    between positions.
    Resources a lane: pairs x (w + 1) bits of adder, T x pairs x (w + 1) bits of selection, T x (pairs - 1)
    adders in the trees, T accumulators; twice T sums of flip-flops.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    widths : Widths

    Members
    -------
    event : In(event_layout).array(banks)
    end : In(1)
        With the events: they are the last ones of their position.
    weights : Out(WeightPort)
    arrived : Out(1)
        The sums of a position are complete from this cycle on.
    subgroup : In
        Piece wanted.
    sums : Out(ArrayLayout(ArrayLayout(signed(accumulator), T), post_lanes))
        Its sums, one cycle later.
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths):
        net, machine = program.network, program.machine
        self._program, self._widths = program, widths
        self._sum = signed(widths.accumulator)
        self._steps = data.ArrayLayout(self._sum, net.timesteps)
        super().__init__(
            {
                "event": In(event_layout(sizes, net.timesteps)).array(machine.banks),
                "end": In(1),
                "weights": Out(WeightPort(program, sizes)),
                "arrived": Out(1),
                "subgroup": In(bits_for(machine.subgroups - 1)),
                "sums": Out(data.ArrayLayout(self._steps, machine.post_lanes)),
            }
        )

    @property
    def delay(self) -> int:
        """From an event to `arrived`."""
        return lane_delay(self._program.machine.banks)

    def elaborate(self, platform):
        m = Module()
        machine, steps = self._program.machine, self._program.network.timesteps
        for bank in range(machine.banks):
            m.d.comb += [
                self.weights.en[bank].eq(self.event[bank].en),
                self.weights.row[bank].eq(self.event[bank].row),
            ]
        masks = [
            self._delayed(m, event.mask, WEIGHT_DELAY + 1, f"mask_{b}") for b, event in enumerate(self.event)
        ]
        end = self._delayed(m, self.end, self.delay - 1, "end")
        m.d.sync += self.arrived.eq(end)
        kept = []  # sums of the position that ended last
        for lane in range(machine.lanes):
            pairs = self._pairs(m, lane)
            kept.append(
                [
                    self._accumulate(
                        m, self._tree(m, self._select(m, pairs, masks, t, lane), lane, t), end, lane, t
                    )
                    for t in range(steps)
                ]
            )
        per_piece = machine.post_lanes
        for p in range(per_piece):
            for t in range(steps):
                places = Array(kept[s * per_piece + p][t] for s in range(machine.subgroups))
                m.d.sync += self.sums[p][t].eq(places[self.subgroup])
        return m

    @staticmethod
    def _delayed(m, value, stages, name):
        for stage in range(1, stages + 1):
            following = Signal.like(value, name=f"{name}_{stage}")
            m.d.sync += following.eq(value)
            value = following
        return value

    def _pairs(self, m, lane):
        """Weights of two banks and their sum, in registers: [(first, second or None, sum or None)]."""
        banks, bits = self._program.machine.banks, self._program.network.weight_bits
        pairs = []
        for bank in range(0, banks, 2):
            first = Signal(signed(bits), name=f"first_{lane}_{bank}")
            m.d.sync += first.eq(self.weights.data[bank][lane])
            if bank + 1 == banks:
                pairs.append((first, None, None))
                continue
            second = Signal(signed(bits), name=f"second_{lane}_{bank}")
            both = Signal(signed(bits + 1), name=f"both_{lane}_{bank}")
            m.d.sync += [
                second.eq(self.weights.data[bank + 1][lane]),
                both.eq(self.weights.data[bank][lane] + self.weights.data[bank + 1][lane]),
            ]
            pairs.append((first, second, both))
        return pairs

    @staticmethod
    def _select(m, pairs, masks, t, lane):
        """What each pair adds in step `t`, in registers."""
        chosen = []
        for number, (first, second, both) in enumerate(pairs):
            shape = first.shape() if both is None else both.shape()
            value = Signal(shape, name=f"chosen_{lane}_{number}_{t}")
            one = masks[2 * number][t]
            if both is None:
                m.d.sync += value.eq(Mux(one, first, 0))
            else:
                other = masks[2 * number + 1][t]
                m.d.sync += value.eq(Mux(one, Mux(other, both, first), Mux(other, second, 0)))
            chosen.append(value)
        return chosen

    @staticmethod
    def _tree(m, values, lane, t):
        """Sum of the pairs, registered after every `ADD_LEVELS` levels and once at least."""
        stage = 0
        while True:
            for _ in range(ADD_LEVELS):
                odd = values[len(values) & ~1 :]
                values = [a + b for a, b in zip(values[::2], values[1::2], strict=False)] + odd
            registers = []
            for number, value in enumerate(values):
                register = Signal(value.shape(), name=f"tree_{lane}_{t}_{stage}_{number}")
                m.d.sync += register.eq(value)
                registers.append(register)
            values, stage = registers, stage + 1
            if len(values) == 1:
                return values[0]

    def _accumulate(self, m, value, end, lane, t):
        """The running sum of a step; returns the register that keeps it when the position ends."""
        total = Signal(self._sum, name=f"total_{lane}_{t}")
        running = Signal(self._sum, name=f"running_{lane}_{t}")
        kept = Signal(self._sum, name=f"kept_{lane}_{t}")
        # Every partial sum of the weights lies within the proven bounds.
        m.d.comb += total.eq(exact(running + value, self._sum))
        m.d.sync += running.eq(total)
        with m.If(end):
            m.d.sync += [running.eq(0), kept.eq(total)]
        return kept
