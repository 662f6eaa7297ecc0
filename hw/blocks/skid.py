"""Cuts the way back of a stream's handshake."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class SkidBuffer(wiring.Component):
    """A stream whose `ready` comes from a register: what is sent while the receiver stands still is kept.

    Latency: none; throughput: one payload a cycle.
    Resources: a payload and one bit of flip-flops, a multiplexer of the payload.

    Parameters
    ----------
    shape : ShapeCastable

    Members
    -------
    source : In(stream)
    sink : Out(stream)
    """

    def __init__(self, shape):
        self._shape = shape
        super().__init__({"source": In(stream.Signature(shape)), "sink": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        source, sink = self.source, self.sink
        full, kept = Signal(), Signal(self._shape)
        m.d.comb += [
            source.ready.eq(~full),
            sink.valid.eq(source.valid | full),
            sink.payload.eq(Mux(full, kept, source.payload)),
        ]
        m.d.sync += full.eq(sink.valid & ~sink.ready)
        with m.If(~full):
            m.d.sync += kept.eq(source.payload)
        return m
