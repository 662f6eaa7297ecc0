"""Images from the link on their way into the accelerator: kept back until it is known that they are whole."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.plan.records import Bus, bits_for

__all__ = ["ImageBuffer"]


class ImageBuffer(wiring.Component):
    """A ring of images. What is written becomes an image when it is kept, or is as if it had never come.

    Who writes sees to it that at most `images` images are between their first byte and their last one's read.

    Latency: the first byte of an image is offered two cycles after `keep`. Throughput: a byte a cycle on both
    sides, a cycle between two images read. Resources: a memory of `images` x `size` bytes, four counters.

    Parameters
    ----------
    images : int
        Images that it holds.
    size : int
        Bytes of an image.

    Members
    -------
    i : ``In(stream.Signature(8, always_ready=True))``
        Bytes of an image; those past its `size` are dropped.
    keep : ``In(1)``
        Pulse, after the `size` bytes: they are an image.
    drop : ``In(1)``
        Pulse: what was written since the last pulse is nothing.
    o : ``Out(Bus(8))``
        The images, `tlast` with the last byte of each.
    """

    def __init__(self, images: int, size: int):
        for name, value in (("images", images), ("size", size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"Image buffer {name} must be a positive integer, not {value!r}")
        self._images, self._size = images, size
        super().__init__(
            {
                "i": In(stream.Signature(8, always_ready=True)),
                "keep": In(1),
                "drop": In(1),
                "o": Out(Bus(8)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self._images * self._size
        m.submodules.store = store = memory.Memory(shape=8, depth=depth, init=[])
        write, read = store.write_port(), store.read_port()
        base, written = Signal(range(depth)), Signal(bits_for(self._size))
        m.d.comb += [
            write.addr.eq(base + written),
            write.data.eq(self.i.payload),
            write.en.eq(self.i.valid & (written != self._size)),
        ]
        with m.If(write.en):
            m.d.sync += written.eq(written + 1)
        with m.If(self.drop):
            m.d.sync += written.eq(0)
        with m.If(self.keep):
            last = base == depth - self._size
            m.d.sync += [written.eq(0), base.eq(base + self._size)]
            with m.If(last):
                m.d.sync += base.eq(0)

        waiting = Signal(range(self._images + 1))  # kept, and not begun to be read
        left = Signal(bits_for(self._size))  # bytes of the image that is being read
        begin, fetch = Signal(), Signal()
        address = Signal(range(depth))
        m.d.comb += [
            begin.eq((waiting != 0) & (left == 0)),
            fetch.eq((left != 0) & (~self.o.tvalid | self.o.tready)),
            read.addr.eq(address),
            read.en.eq(fetch),
            self.o.tdata.eq(read.data),
        ]
        m.d.sync += waiting.eq(waiting + self.keep - begin)
        with m.If(begin):
            m.d.sync += left.eq(self._size)
        with m.If(fetch):
            m.d.sync += [left.eq(left - 1), self.o.tvalid.eq(1), self.o.tlast.eq(left == 1)]
            m.d.sync += address.eq(address + 1)
            with m.If(address == depth - 1):
                m.d.sync += address.eq(0)
        with m.Elif(self.o.tready):
            m.d.sync += self.o.tvalid.eq(0)
        return m
