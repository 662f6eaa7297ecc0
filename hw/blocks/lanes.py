"""Spike-driven convolution and linear layers: sums of weights selected by events, no multiplier."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.arith import unsigned_bits
from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.fixed import exact
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import WEIGHT_DELAY, Sizes, WeightPort, event_layout
from s2tdpt.hw.plan.widths import Widths

ADD_LEVELS = 2
"""Levels of adders between two registers of a lane's tree."""


def tree_delay(banks: int) -> int:
    """Registers in the tree that adds the banks up."""
    return max(1, -(-unsigned_bits(banks - 1) // ADD_LEVELS))


def lane_delay(banks: int) -> int:
    """From an event to its sums: weights, selection, tree, accumulation."""
    return WEIGHT_DELAY + 1 + tree_delay(banks) + 1


def lane_skew(machine: Machine) -> int:
    """Cycles that the last group of lanes is behind the first one."""
    return machine.subgroups - 1


def sums_layout(program: Program, widths: Widths) -> data.ArrayLayout:
    """Sums of a piece: T of each of `post_lanes` channels."""
    steps = data.ArrayLayout(signed(widths.accumulator), program.network.timesteps)
    return data.ArrayLayout(steps, program.machine.post_lanes)


class LaneGroup(wiring.Component):
    """Adds the weights of all banks' events to the sums of `post_lanes` channels, all time steps at once.

    Every lane has, for every bank and step, a register that takes the bank's weight if the channel spikes in
    that step, and is reset if not: a selection without logic. A tree of adders adds the banks up, to the sum
    of the step.

    Latency: `lane_delay` from an event to its sums; throughput: an event of every bank each cycle, without a
    gap between positions.
    Resources a lane: T x (banks - 1) adders of w + 1 bits and more in the trees, T accumulators; flip-flops
    of T x banks weights, twice T sums, and those of the trees.

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
    sums : Out(sums_layout)
        Of the position whose `end` was `lane_delay` cycles ago, for one cycle; else zero.
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths):
        self._program, self._sum = program, signed(widths.accumulator)
        super().__init__(
            {
                "event": In(event_layout(sizes, program.network.timesteps)).array(program.machine.banks),
                "end": In(1),
                "weights": Out(WeightPort(program, sizes)),
                "sums": Out(sums_layout(program, widths)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self._program.machine
        masks = []
        for bank, event in enumerate(self.event):
            m.d.comb += [self.weights.en[bank].eq(event.en), self.weights.row[bank].eq(event.row)]
            masks.append(delayed(m, event.mask, WEIGHT_DELAY, f"mask_{bank}"))
        # After a reset every cycle is an end until what the registers below held has passed.
        near = delayed(m, self.end, lane_delay(machine.banks) - 2, "near", init=1)
        # Both of them reset hundreds of registers, straight from one of their own.
        end, goes_on = delayed(m, near, name="end", init=1), delayed(m, ~near, name="goes_on", init=0)
        for lane in range(machine.post_lanes):
            for t in range(self._program.network.timesteps):
                added = self._tree(m, self._select(m, masks, t, lane), lane, t)
                self._accumulate(m, added, end, goes_on, lane, t)
        return m

    def _select(self, m, masks, t, lane):
        """The weights of the banks whose channel spikes in step `t`, in registers."""
        chosen = []
        for bank, mask in enumerate(masks):
            weight = self.weights.data[bank][lane]
            shape = signed(self._program.network.weight_bits)
            selected = Mux(mask[t], weight, 0)
            chosen.append(delayed(m, selected, name=f"chosen_{lane}_{bank}_{t}", shape=shape))
        return chosen

    @staticmethod
    def _tree(m, values, lane, t):
        """Sum of the banks, registered after every `ADD_LEVELS` levels and once at least."""
        stage = 0
        while True:
            for _ in range(ADD_LEVELS):
                odd = values[len(values) & ~1 :]
                values = [a + b for a, b in zip(values[::2], values[1::2], strict=False)] + odd
            names = (f"tree_{lane}_{t}_{stage}_{number}" for number in range(len(values)))
            values = [delayed(m, value, name=name) for value, name in zip(values, names, strict=True)]
            stage += 1
            if len(values) == 1:
                return values[0]

    def _accumulate(self, m, value, end, goes_on, lane, t):
        """The running sum of a step; at the end of a position it is handed out and begins anew."""
        total = Signal(self._sum, name=f"total_{lane}_{t}")
        running = Signal(self._sum, name=f"running_{lane}_{t}", reset_less=True)
        # Every partial sum of the weights lies within the proven bounds.
        m.d.comb += total.eq(exact(running + value, self._sum))
        m.d.sync += running.eq(Mux(end, 0, total))
        ended = delayed(m, Mux(goes_on, 0, total), name=f"ended_{lane}_{t}", shape=self._sum)
        m.d.comb += self.sums[lane][t].eq(ended)


class LaneArray(wiring.Component):
    """All lanes: a group for every piece of a tile, each a cycle behind the one before.

    The skew lets a group hand its sums out in the very cycle in which its piece is drained, so that a
    position needs no registers to wait in and the pieces no multiplexer; and no register has to reach more
    lanes than those of a group.

    Latency: `lane_delay` from an event to the sums of the first group.
    Resources: those of the groups; for each of them but the first a register of all events.

    Parameters
    ----------
    program : Program
    sizes : Sizes
    widths : Widths

    Members
    -------
    event : In(event_layout).array(banks)
    end, final : In(1)
        With the events: they are the last ones of their position, of their tile.
    weights : Out(WeightPort).array(subgroups)
    released : Out(1)
        Pulse: no weight of the oldest tile in use will be read after this cycle.
    arrived : Out(1)
        The sums of a position are complete: those of group s in s cycles.
    sums : Out(sums_layout)
        Those of group s, s + 1 cycles after `arrived`.
    """

    def __init__(self, program: Program, sizes: Sizes, widths: Widths):
        self._program, self._sizes, self._widths = program, sizes, widths
        machine = program.machine
        super().__init__(
            {
                "event": In(event_layout(sizes, program.network.timesteps)).array(machine.banks),
                "end": In(1),
                "final": In(1),
                "weights": Out(WeightPort(program, sizes)).array(machine.subgroups),
                "released": Out(1),
                "arrived": Out(1),
                "sums": Out(sums_layout(program, widths)),
            }
        )

    @property
    def delay(self) -> int:
        """From an event to `arrived`."""
        return lane_delay(self._program.machine.banks)

    def elaborate(self, platform):
        m = Module()
        machine = self._program.machine
        events, end = list(self.event), self.end
        pieces = []
        for s in range(machine.subgroups):
            if s:
                events = [delayed(m, event, 1, f"event_{b}_{s}") for b, event in enumerate(events)]
                end = delayed(m, end, 1, f"end_{s}", init=1)
            group = m.submodules[f"group_{s}"] = LaneGroup(self._program, self._sizes, self._widths)
            m.d.comb += [inner.eq(event) for inner, event in zip(group.event, events, strict=True)]
            m.d.comb += group.end.eq(end)
            wiring.connect(m, group.weights, wiring.flipped(self.weights[s]))
            pieces.append(group.sums.as_value())
        m.d.comb += self.sums.eq(delayed(m, reduce(or_, pieces), name="summed"))
        # Inverted, so that synthesis does not take a group's `end` for it, which has hundreds of other loads.
        m.d.comb += [
            self.arrived.eq(~delayed(m, ~self.end, self.delay, "not_arrived", init=1)),
            self.released.eq(delayed(m, self.final, lane_skew(machine), "released", init=0)),
        ]
        return m
