"""Leaky integrate-and-fire neurons on integers, a time step at a time."""

from amaranth import Const, Module, Mux, Shape, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.neuron import LIF
from s2tdpt.hw.blocks.neuron import Carry, carried_interval
from s2tdpt.hw.fixed import exact, interval_of, interval_shape

__all__ = ["LifCell"]


class LifCell(wiring.Component):
    """A row of LIF neurons: ``u = h + x + bias``, ``s = u >= threshold``, ``h' = 0 if s else u >> 1``.

    With an arithmetic shift and integer ``x`` and threshold the spikes are exactly those of the real
    leak of one half: no guard bits, no rounding model. A tie fires. Neurons of other laws drive and carry as
    `neuron.Carry` says.

    Latency: combinational from `x` to `spikes`; the state moves at the clock edge. Throughput: one time
    step of every lane a cycle. Resources a lane: the adder and comparator of ``u`` (a power-of-two
    constant threshold of an unsigned ``u`` is only an OR), the bits of ``h`` in flip-flops, and a `Carry`.

    Parameters
    ----------
    lanes : int
        Neurons side by side.
    x_shape : shape-like
        Shape of the input of a neuron.
    membrane : (int, int)
        Proven ends of ``u`` (`golden.bounds`, or `membrane_interval`). The state is sized from it.
    threshold : int or shape-like
        One constant threshold, at least 1, or the shape of a threshold input for each lane.
    bias_shape : shape-like, optional
        Adds a bias input for each lane.
    laws : sequence of Law, optional
        What the neurons do, of different forms; `membrane` holds for each. LIF.

    Members
    -------
    en : ``In(1)``
        A time step takes place; without it the state stays.
    first : ``In(1)``
        First step of a sequence: the carried state counts as 0.
    last : ``In(1)``
        Last step of a sequence: nothing is carried on. Where every sequence is run to its end it serves
        instead of `first` (left at 0) and spares the gates in front of the adder.
    x : ``In(ArrayLayout(x_shape, lanes))``
        Input of this step.
    bias : ``In(ArrayLayout(bias_shape, lanes))``
        Only with `bias_shape`.
    threshold : ``In(ArrayLayout(threshold, lanes))``
        Only where `threshold` is a shape.
    law : ``In``
        Only with more than one law: which of them holds for this sequence.
    step : ``In``
        Only where inputs depend on the step: its number.
    spikes : ``Out(lanes)``
        Spikes of this step, valid in the cycle of `en`.

    References
    ----------
    S2TDPT (arXiv 2511.14691), Eqs. 7-9. Software twin: `golden.neuron`.
    """

    def __init__(self, lanes, x_shape, *, membrane, threshold, bias_shape=None, laws=(LIF,)):
        if not isinstance(lanes, int) or lanes < 1:
            raise ValueError(f"LIF lanes must be a positive integer, not {lanes!r}")
        self._lanes = lanes
        self._x_shape = Shape.cast(x_shape)
        self._u_shape = interval_shape(*membrane)
        self._constant = threshold if isinstance(threshold, int) else None
        if self._constant is not None and self._constant < 1:
            raise ValueError(f"LIF threshold must be at least 1, not {threshold!r}")
        self._bias_shape = None if bias_shape is None else Shape.cast(bias_shape)
        members = {
            "en": In(1),
            "first": In(1),
            "last": In(1),
            "x": In(data.ArrayLayout(self._x_shape, lanes)),
            "spikes": Out(lanes),
        }
        if self._bias_shape is not None:
            members["bias"] = In(data.ArrayLayout(self._bias_shape, lanes))
        threshold_max = self._constant
        if threshold_max is None:
            members["threshold"] = In(data.ArrayLayout(Shape.cast(threshold), lanes))
            threshold_max = interval_of(threshold)[1]
        self._carry = Carry(laws)
        if self._carry.signed:
            raise ValueError("LIF cells fire upwards only; neurons of two signs are those of LifPipeline")
        if self._carry.select_bits:
            members["law"] = In(self._carry.select_bits)
        if self._carry.conducts:
            members["step"] = In(range(len(laws[0].conduct)))
        self._h_shape = interval_shape(*carried_interval(membrane, threshold_max, laws))
        super().__init__(members)

    @property
    def lanes(self):
        return self._lanes

    @property
    def u_shape(self):
        """Shape of the membrane before the threshold."""
        return self._u_shape

    @property
    def h_shape(self):
        """Shape of the carried state."""
        return self._h_shape

    def elaborate(self, platform):
        m = Module()
        for lane in range(self._lanes):
            h = Signal(self._h_shape, name=f"h{lane}")
            u = Signal(self._u_shape, name=f"u{lane}")
            spike = self.spikes[lane]
            total = Mux(self.first, 0, h) + self._drive(self.x[lane])
            if self._bias_shape is not None:
                total = total + self.bias[lane]
            threshold = self._constant if self._constant is not None else self.threshold[lane]
            m.d.comb += [
                # The parameter `membrane` is the proof that u fits.
                u.eq(exact(total, self._u_shape)),
                spike.eq(u >= threshold),
            ]
            with m.If(self.en):
                # u < threshold where it is kept, so `carried_interval` proves the shape of h.
                m.d.sync += h.eq(self._carried(u, spike, threshold))
        return m

    @property
    def _law(self):
        return self.law if self._carry.select_bits else Const(0)

    def _drive(self, x):
        """What an input adds to the membrane."""
        if not self._carry.conducts:
            return x
        first, *others = range(len(self._carry.laws[0].conduct))
        driven = self._carry.drive(x, first, self._law)
        for t in others:
            driven = Mux(self.step == t, self._carry.drive(x, t, self._law), driven)
        return driven

    def _carried(self, u, spike, threshold):
        """What goes into the next step: nothing after the last one of a sequence."""
        if not any(law.subtracts for law in self._carry.laws):
            return self._carry.carried(u, spike | self.last, threshold, self._law, self._h_shape)
        return Mux(self.last, 0, self._carry.carried(u, spike, threshold, self._law, self._h_shape))
