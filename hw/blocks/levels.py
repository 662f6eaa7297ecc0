"""Neurons that emit a number of a few bits: how many thresholds there are in an input."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.operand import LEVELS
from s2tdpt.hw.fixed import exact

__all__ = ["LEVELS_DELAY", "LevelsPipeline"]

LEVELS_DELAY = LEVELS.bits
"""Cycles from the input of `LevelsPipeline` to its output."""


class LevelsPipeline(wiring.Component):
    """``floor(x / threshold)``, but 0 below 0 and 15 above 15: a division that gives its bits one a cycle.

    The bit of weight 8 is set if 8 thresholds are left of x, which are then taken away; so for 4, 2 and 1.
    Clipping costs nothing: of a negative number no threshold can be taken, and of one that has 16 or more all
    can. The time steps do not know of each other.

    Latency: `LEVELS_DELAY` = 4 cycles, a carry chain each. Throughput: a piece a cycle.
    Resources: P x T x 4 subtractors of max(x_width, threshold_width + 3) bits; flip-flops, beside those of
    the thresholds, P x T x (3 x_width + 10).

    Parameters
    ----------
    lanes, timesteps : int
        P, T.
    x_width, threshold_width : int
        Signed width of an input of a step, unsigned width of a threshold.

    Members
    -------
    x : ``In(ArrayLayout(ArrayLayout(signed(x_width), T), P))``
        Inputs of a piece, bias included.
    threshold : ``In(ArrayLayout(unsigned(threshold_width), P))``
        Its thresholds, at least 1, with `x`.
    levels : ``Out(ArrayLayout(4, P * T))``
        Number ``lane * T + t``, `LEVELS_DELAY` cycles later.

    References
    ----------
    Software twin: `golden.neuron.graded.LevelsLaw`.
    """

    def __init__(self, *, lanes: int, timesteps: int, x_width: int, threshold_width: int):
        sizes = {"lanes": lanes, "timesteps": timesteps, "x_width": x_width}
        for name, value in (sizes | {"threshold_width": threshold_width}).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"levels pipeline {name} must be a positive integer, not {value!r}")
        self._lanes, self._timesteps = lanes, timesteps
        self._x_shape = signed(x_width)
        super().__init__(
            {
                "x": In(data.ArrayLayout(data.ArrayLayout(self._x_shape, timesteps), lanes)),
                "threshold": In(data.ArrayLayout(unsigned(threshold_width), lanes)),
                "levels": Out(data.ArrayLayout(LEVELS.bits, lanes * timesteps)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for lane in range(self._lanes):
            self._lane(m, lane)
        return m

    def _lane(self, m: Module, lane: int) -> None:
        threshold, left = self.threshold[lane], list(self.x[lane])
        found = [Const(0, 0)] * len(left)  # the bits of every step so far
        for bit in reversed(range(LEVELS.bits)):
            for t, number in enumerate(left):
                rest = number - (threshold << bit)
                taken = ~rest[-1]
                bits = Signal(LEVELS.bits - bit, name=f"bits{lane}_{t}_{bit}", reset_less=True)
                m.d.sync += bits.eq(Cat(taken, found[t]))
                found[t] = bits
                if bit:
                    left[t] = Signal(self._x_shape, name=f"left{lane}_{t}_{bit}", reset_less=True)
                    # Nothing is taken that is not there: the rest lies between 0 and the number.
                    m.d.sync += left[t].eq(Mux(taken, exact(rest, self._x_shape), number))
            if bit:
                later = Signal.like(threshold, name=f"threshold{lane}_{bit}", reset_less=True)
                m.d.sync += later.eq(threshold)
                threshold = later
        for t, bits in enumerate(found):
            m.d.comb += self.levels[lane * self._timesteps + t].eq(bits)
