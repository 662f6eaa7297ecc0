"""Leaky integrate-and-fire neurons, all time steps of a piece in flight: a systolic pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Const, Module, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.neuron import LIF, Law
from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.blocks.neuron import Carry, carried_interval
from s2tdpt.hw.fixed import exact, interval_of, interval_shape

__all__ = ["LifPipeline"]


def lif_delay(timesteps: int) -> int:
    """Cycles from the input of `LifPipeline` to its output."""
    return 2 * timesteps - 1


class LifPipeline(wiring.Component):
    """``u = h + x[t]``, ``s[t] = u >= threshold``, ``h = 0 if s[t] else u >> 1`` for t = 0 .. T-1 from h = 0.

    Neurons of other laws drive and carry as `neuron.Carry` says.

    Every step has adders and comparators of its own and works on another piece each cycle, so that the
    recurrence over time is no recurrence of the hardware, and no state outlives a piece. A step takes a cycle
    for the sum and one for the comparison, the first step only the latter: one carry chain a cycle. What a
    law subtracts is worked out beside the comparison.

    Latency: `delay` = 2 T - 1 cycles. Throughput: a piece a cycle.
    Resources: P x (T - 1 adders, T comparators); flip-flops for the values and thresholds in flight, about
    ``P x T x (T x_width + 2 (threshold_width + membrane bits))``; P x (T - 1) `Carry`.

    Parameters
    ----------
    lanes, timesteps : int
        P, T.
    x_width, threshold_width : int
        Signed width of an input of a step, unsigned width of a threshold.
    membrane : (int, int)
        Proven ends of ``u`` (`golden.bounds`), those of the first step's input included.
    laws : sequence of Law, optional
        What the neurons do, of different forms; `membrane` holds for each. LIF.

    Members
    -------
    x : ``In(ArrayLayout(ArrayLayout(signed(x_width), T), P))``
        Inputs of a piece, bias included.
    threshold : ``In(ArrayLayout(unsigned(threshold_width), P))``
        Its thresholds, with `x`.
    law : ``In``
        Only with more than one law: which of them holds for the piece, with `x`.
    spikes : ``Out(P * T)``
        Bit ``lane * T + t``, `delay` cycles later.
    signs : ``Out(P * T)``
        Only where some law fires downwards: the spike is such a one.

    References
    ----------
    S2TDPT (arXiv 2511.14691), Eqs. 7-9. Software twin: `golden.neuron`.
    """

    def __init__(
        self,
        *,
        lanes: int,
        timesteps: int,
        x_width: int,
        threshold_width: int,
        membrane: tuple[int, int],
        laws: Sequence[Law] = (LIF,),
    ):
        sizes = {"lanes": lanes, "timesteps": timesteps, "x_width": x_width}
        for name, value in (sizes | {"threshold_width": threshold_width}).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"LIF pipeline {name} must be a positive integer, not {value!r}")
        self._lanes, self._timesteps = lanes, timesteps
        self._u_shape = interval_shape(*membrane)
        threshold_max = interval_of(unsigned(threshold_width))[1]
        self._h_shape = interval_shape(*carried_interval(membrane, threshold_max, laws))
        self._carry = Carry(laws)
        members = {
            "x": In(data.ArrayLayout(data.ArrayLayout(signed(x_width), timesteps), lanes)),
            "threshold": In(data.ArrayLayout(unsigned(threshold_width), lanes)),
            "spikes": Out(lanes * timesteps),
        }
        if self._carry.select_bits:
            members["law"] = In(self._carry.select_bits)
        if self._carry.signed:
            members["signs"] = Out(lanes * timesteps)
        super().__init__(members)

    @property
    def delay(self) -> int:
        """Cycles from `x` to `spikes`."""
        return lif_delay(self._timesteps)

    def elaborate(self, platform):
        m = Module()
        laws = [self.law if self._carry.select_bits else Const(0)]  # of every step
        for _ in range(self._timesteps - 1):
            laws.append(delayed(m, laws[-1], 2) if self._carry.select_bits else Const(0))
        for lane in range(self._lanes):
            first = lane * self._timesteps
            signs = self.signs[first:] if self._carry.signed else None
            self._lane(m, self.x[lane], self.threshold[lane], self.spikes[first:], signs, laws)
        return m

    def _lane(self, m, x, threshold, spikes, signs, laws):
        def register(value, shape, stages=1):
            return delayed(m, value, stages, shape=shape)

        x = [self._carry.drive(value, t, laws[0]) for t, value in enumerate(x)]
        # The parameter `membrane` is the proof that every u fits.
        u = exact(x[0], self._u_shape)
        for t in range(self._timesteps):
            spike = u >= threshold
            if signs is not None:
                below = self._carry.below(u, threshold, laws[t])
                m.d.comb += signs[t].eq(register(below, 1, self.delay - 2 * t))
                spike = spike | below
            # The step registers at 2 t + 1; its spike waits for the last step's.
            m.d.comb += spikes[t].eq(register(spike, 1, self.delay - 2 * t))
            if t == self._timesteps - 1:
                break
            # u < threshold where it is kept, so `carried_interval` proves the shape of h.
            h = register(self._carry.carried(u, spike, threshold, laws[t], self._h_shape), self._h_shape)
            following = register(x[t + 1], x[t + 1].shape(), 2 * t + 1)
            u = register(exact(h + following, self._u_shape), self._u_shape)
            # One line of delays for the thresholds of all steps.
            threshold = register(threshold, threshold.shape(), 2)
