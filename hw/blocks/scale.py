"""Scale and bias of a piece of sums."""

from __future__ import annotations

from amaranth import Module, Mux, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.delay import delayed
from s2tdpt.hw.fixed import wrap
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import constant_layout
from s2tdpt.hw.plan.widths import Widths


class Scale(wiring.Component):
    """``value = (sums << shift) + bias`` for every step; a number made of planes is the same at every step.

    A constant holds by how much its shift exceeds the smallest one of the network, `Widths.min_shift`.

    Latency: `delay`; throughput: one piece a cycle.
    Resources: post_lanes x T x (a multiplexer of sums and total, one for every bit of a shift, an adder).

    Parameters
    ----------
    program : Program
    widths : Widths

    Members
    -------
    by_planes : In(1)
    sums : In(ArrayLayout(ArrayLayout(signed(accumulator), T), post_lanes))
    total : In(ArrayLayout(signed(combined), post_lanes))
    constants : In(ArrayLayout(constant_layout, post_lanes))
        One cycle after `sums` and `total`.
    value : Out(ArrayLayout(ArrayLayout(signed(value), T), post_lanes))
    """

    delay = 2

    def __init__(self, program: Program, widths: Widths):
        self._lanes, self._steps = program.machine.post_lanes, program.network.timesteps
        self._widths = widths
        sums = data.ArrayLayout(signed(widths.accumulator), self._steps)
        values = data.ArrayLayout(signed(widths.value), self._steps)
        super().__init__(
            {
                "by_planes": In(1),
                "sums": In(data.ArrayLayout(sums, self._lanes)),
                "total": In(data.ArrayLayout(signed(widths.combined), self._lanes)),
                "constants": In(data.ArrayLayout(constant_layout(widths), self._lanes)),
                "value": Out(data.ArrayLayout(values, self._lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        least = self._widths.min_shift
        shape = signed(self._widths.value)
        # Proven: the scaled and biased number fits `shape`, so arithmetic modulo its size is exact.
        narrow = signed(max(1, shape.width - least))
        for lane in range(self._lanes):
            constant = self.constants[lane]
            for t in range(self._steps):
                total, sums = wrap(self.total[lane], narrow), wrap(self.sums[lane][t], narrow)
                source = Mux(self.by_planes, total, sums)
                scaled = delayed(m, source, name=f"source_{lane}_{t}", shape=narrow)
                for place, more in enumerate(constant.shift):
                    scaled = Mux(more, wrap(scaled << (1 << place), narrow), scaled)
                scaled = wrap(scaled << least, shape)
                value = wrap(scaled + constant.bias, shape)
                m.d.comb += self.value[lane][t].eq(delayed(m, value, name=f"value_{lane}_{t}", shape=shape))
        return m
