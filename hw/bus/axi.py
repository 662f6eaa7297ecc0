"""AXI4-Stream ends of the accelerator: pixel bytes in, logits and class out.

Both parts are plain byte or word streams with ``tlast`` framing, no ``tkeep``, ``tstrb``, ``tid``,
``tdest`` or ``tuser``. Members are named after the AXI4-Stream signals so that the top can connect them
to ``s_axis_*`` and ``m_axis_*`` one by one.

References
----------
.. [1] Arm IHI 0051B, AMBA AXI-Stream Protocol Specification: ``tvalid`` never waits for ``tready`` and
       stays high, with stable data, until the transfer.
"""

from functools import reduce
from operator import or_

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.verilog import REPLICA

__all__ = ["FrameReceiver", "ResultSender", "result_subgroups"]

REGISTER_SUBGROUPS = 2  # more of them are cheaper in a memory


def _positive(name, value):
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer, not {value!r}")
    return value


class FrameReceiver(wiring.Component):
    """Receive image frames from a byte stream into a double-buffered pixel memory.

    A frame is ``height * width * channels`` bytes in (row, column, channel) raster order with ``tlast`` on
    the last byte. The memory is outside; it has ``2 * height * width`` words of ``channels`` bytes, each
    byte with its own write enable. Frames alternate between the two halves (banks) of that memory.

    The consumer waits for ``frame_valid``, reads the frame at ``frame_bank * height * width`` and onwards
    and pulses ``frame_release`` when it needs the bank no longer. The stream keeps running meanwhile: up to
    two complete frames are held.

    A frame of the wrong length is dropped, reported by a sticky flag, and disturbs nothing else: the next
    frame starts at the byte after its ``tlast``. Too short: ``tlast`` before the last byte. Too long: no
    ``tlast`` on the last byte; everything up to and including the next ``tlast`` is dropped.

    Latency: a byte is written in the cycle of its transfer; ``frame_valid`` rises in the cycle after the
    last one's. Throughput: one byte a cycle, without gaps between frames. ``tready`` is a function of
    registers alone and is low only while both banks hold a frame.

    Resources: ``clog2(2 * height * width) + clog2(channels) + 7`` flip-flops and one incrementer.

    Parameters
    ----------
    height, width : int
        Size of the image, at least 1.
    channels : int
        Bytes a pixel, at least 1.

    Members
    -------
    tdata : In(8)
        Pixel byte, transferred in a cycle with ``tvalid`` and ``tready``.
    tvalid : In(1)
    tready : Out(1)
    tlast : In(1)
        End of frame.
    wr_en : Out(channels)
        Write enable of the pixel memory, one-hot: bit *c* writes byte *c* of the word.
    wr_addr : Out(range(2 * height * width))
        ``bank * height * width + row * width + column``.
    wr_data : Out(8 * channels)
        The byte, on all lanes.
    frame_valid : Out(1)
        A complete frame is waiting in bank ``frame_bank``. Stays high until it is released.
    frame_bank : Out(1)
        Bank of the oldest complete frame; the bank of the next one while there is none.
    frame_release : In(1)
        Pulse: free the bank ``frame_bank``. Ignored while ``frame_valid`` is low.
    dropped_short, dropped_long : Out(1)
        Pulse: a short or a long frame is dropped in this cycle.
    error_short, error_long : Out(1)
        One was; stays high until reset.

    Raises
    ------
    ValueError
        If a parameter is not a positive integer.
    """

    def __init__(self, height, width, channels):
        self._height = _positive("Frame height", height)
        self._width = _positive("Frame width", width)
        self._channels = _positive("Frame channel count", channels)
        super().__init__(
            {
                "tdata": In(8),
                "tvalid": In(1),
                "tready": Out(1),
                "tlast": In(1),
                "wr_en": Out(channels),
                "wr_addr": Out(range(2 * height * width)),
                "wr_data": Out(8 * channels),
                "frame_valid": Out(1),
                "frame_bank": Out(1),
                "frame_release": In(1),
                "dropped_short": Out(1),
                "dropped_long": Out(1),
                "error_short": Out(1),
                "error_long": Out(1),
            }
        )

    @property
    def height(self):
        return self._height

    @property
    def width(self):
        return self._width

    @property
    def channels(self):
        return self._channels

    @property
    def positions(self):
        """Pixels in a frame, words in a bank."""
        return self._height * self._width

    def elaborate(self, platform):
        m = Module()

        fill_bank = Signal()  # bank that the stream writes to
        full = Signal(2)  # bank b holds a complete frame
        address = Signal.like(self.wr_addr)
        lane = Signal(self._channels, init=1)  # one-hot channel of the next byte
        dropping = Signal()  # inside the tail of a long frame

        # Depends on registers only: a combinational path from tvalid could close a loop outside.
        # While a tail is dropped the bank is not full, so tready needs no term for it.
        m.d.comb += self.tready.eq(~full.bit_select(fill_bank, 1))

        transfer = Signal()
        last_position = Signal()
        last_byte = Signal()
        m.d.comb += [
            transfer.eq(self.tvalid & self.tready),
            last_position.eq(address == Mux(fill_bank, 2 * self.positions - 1, self.positions - 1)),
            last_byte.eq(last_position & lane[-1]),
            self.wr_en.eq(Mux(transfer & ~dropping, lane, 0)),
            self.wr_addr.eq(address),
            self.wr_data.eq(self.tdata.replicate(self._channels)),
        ]

        with m.If(transfer & ~dropping):
            m.d.sync += lane.eq(lane.rotate_left(1))
            with m.If(lane[-1]):
                m.d.sync += address.eq(address + 1)
            with m.If(self.tlast | last_byte):
                # A new frame starts, in the other bank if this one is complete.
                m.d.sync += [
                    lane.eq(1),
                    address.eq(Mux(fill_bank ^ (self.tlast & last_byte), self.positions, 0)),
                ]
                with m.If(~last_byte):
                    m.d.sync += self.error_short.eq(1)
                    m.d.comb += self.dropped_short.eq(1)
                with m.Elif(~self.tlast):
                    m.d.comb += self.dropped_long.eq(1)
                    m.d.sync += [self.error_long.eq(1), dropping.eq(1)]
                with m.Else():
                    m.d.sync += fill_bank.eq(~fill_bank)
        with m.If(transfer & dropping & self.tlast):
            m.d.sync += dropping.eq(0)

        complete = Signal()
        release = Signal()
        m.d.comb += [
            complete.eq(transfer & ~dropping & self.tlast & last_byte),
            release.eq(self.frame_release & self.frame_valid),
            self.frame_valid.eq(full.bit_select(self.frame_bank, 1)),
        ]
        for bank in range(2):
            # Both never concern one bank: a bank that is released is full, one that completes is not.
            with m.If(complete & (fill_bank == bank)):
                m.d.sync += full[bank].eq(1)
            with m.If(release & (self.frame_bank == bank)):
                m.d.sync += full[bank].eq(0)
        with m.If(release):
            m.d.sync += self.frame_bank.eq(~self.frame_bank)

        return m


def result_subgroups(classes: int, post_lanes: int) -> int:
    """Writes of `post_lanes` logits that hold those of all classes."""
    return -(-classes // post_lanes)


class ResultSender(wiring.Component):
    """Send the logits of one image and the index of the largest as a stream of words.

    The logits are written ``post_lanes`` at a time, in any order and as often as liked, while ``busy`` is
    low; ``start`` then sends ``classes`` sign-extended logits in class order and one more word, with
    ``tlast``, that holds the class: the lowest index of the largest logit.

    Latency: ``tvalid`` rises in the cycle after ``start``. Throughput: one word a cycle, ``classes + 1``
    words, ``busy`` for ``classes + 1`` cycles when ``tready`` is always high; the comparison rides along
    with the stream and costs no cycle. ``tvalid`` never waits for ``tready``, and ``tdata`` and ``tlast``
    are stable until the transfer.

    Resources: one signed comparison and two registers of ``logit_width`` bits; if two writes hold all
    logits, a register of ``classes * logit_width`` bits and a ``classes`` : 1 multiplexer, else distributed
    memory of ``ceil(classes / post_lanes)`` words of ``post_lanes * logit_width`` bits and a
    ``post_lanes`` : 1 one.

    Parameters
    ----------
    classes : int
        Number of logits, at least 1.
    post_lanes : int
        Logits a write, at least 1. Lanes past ``classes`` in the last subgroup are ignored.
    logit_width : int
        Bits of a logit, 1 to 64, two's complement.

    Members
    -------
    wr_en : In(1)
        Write one subgroup of logits. Not while ``busy``.
    wr_index : In(range(subgroups))
        Subgroup: lane *p* of subgroup *s* is class ``s * post_lanes + p``. At least 1 bit wide.
    wr_data : In(post_lanes * logit_width)
        The logits, lane 0 in the low bits.
    start : In(1)
        Pulse after the cycle of the last ``wr_en``. Ignored while ``busy``.
    busy : Out(1)
        From the cycle after ``start`` until the last word is transferred.
    tdata : Out(32) or Out(64)
        64 bits if ``logit_width`` is above 32.
    tvalid : Out(1)
    tready : In(1)
    tlast : Out(1)
        Marks the word with the class.

    Raises
    ------
    ValueError
        If a parameter is not a positive integer or ``logit_width`` is above 64.
    """

    def __init__(self, classes, post_lanes, logit_width):
        self._classes = _positive("Class count", classes)
        self._post_lanes = _positive("Post-processing lane count", post_lanes)
        self._logit_width = _positive("Logit width", logit_width)
        if logit_width > 64:
            raise ValueError(f"Logit width must be at most 64 bits, not {logit_width}")
        super().__init__(
            {
                "wr_en": In(1),
                "wr_index": In(range(max(2, self.subgroups))),
                "wr_data": In(post_lanes * logit_width),
                "start": In(1),
                "busy": Out(1),
                "tdata": Out(self.data_width),
                "tvalid": Out(1),
                "tready": In(1),
                "tlast": Out(1),
            }
        )

    @property
    def classes(self):
        return self._classes

    @property
    def post_lanes(self):
        return self._post_lanes

    @property
    def logit_width(self):
        return self._logit_width

    @property
    def subgroups(self):
        """Writes that hold all logits."""
        return result_subgroups(self._classes, self._post_lanes)

    @property
    def data_width(self):
        """Width of ``tdata``: 32 or 64."""
        return 32 if self._logit_width <= 32 else 64

    def elaborate(self, platform):
        m = Module()

        index = Signal(range(self._classes + 1))  # class of the current beat; classes: the last beat
        logit = Signal(signed(self._logit_width))  # of that class; 0 in the last beat
        # The one that is compared: that of the bus may lie at its pins.
        rival = Signal.like(logit, attrs=REPLICA)
        best = Signal(signed(self._logit_width))
        best_index = Signal(range(max(2, self._classes)))
        transfer, load, done = Signal(), Signal(), Signal()
        # The next logit is chosen while the current one is sent and compared.
        in_memory = self.subgroups > REGISTER_SUBGROUPS
        lane = Signal(self._post_lanes if in_memory else self._classes, init=1)  # one-hot; none: no more
        kept = self._keep_in_memory(m, load & lane[-1], done) if in_memory else self._keep_in_register(m)
        chosen = [value & bit.replicate(len(value)) for value, bit in zip(kept, lane, strict=True)]
        m.d.comb += [
            transfer.eq(self.tvalid & self.tready),
            load.eq(Mux(self.busy, self.tready, self.start)),
            done.eq(transfer & self.tlast),
            self.tvalid.eq(self.busy),
            self.tlast.eq(index == self._classes),
            self.tdata.eq(logit | Mux(self.tlast, best_index, 0)),
        ]
        with m.If(load):
            m.d.sync += [target.eq(reduce(or_, chosen)) for target in (logit, rival)]
            m.d.sync += lane.eq(lane.rotate_left(1))
        with m.If(load & ((index + 2 == self._classes) & self.busy | (self._classes == 1))):
            m.d.sync += lane.eq(0)  # the last class is being loaded
        with m.If(done):
            m.d.sync += [self.busy.eq(0), index.eq(0), lane.eq(1)]
        with m.Elif(transfer):
            m.d.sync += index.eq(index + 1)
            # Strictly larger, so that the lowest index wins a tie.
            with m.If(rival > best):
                m.d.sync += [best.eq(rival), best_index.eq(index)]
        with m.Elif(self.start & ~self.busy):
            # Class 0 wins unless another logit is larger than the smallest number.
            m.d.sync += [self.busy.eq(1), best.eq(-(1 << self._logit_width - 1)), best_index.eq(0)]

        return m

    def _keep_in_register(self, m):
        """A register for all logits; returns them."""
        width, size = self._logit_width, len(self.wr_data)
        held = Signal(self._classes * width, reset_less=True)
        for s in range(self.subgroups):
            part = held[s * size : (s + 1) * size]
            with m.If(self.wr_en & (self.wr_index == s)):
                m.d.sync += part.eq(self.wr_data[: len(part)])
        return [held[c * width : (c + 1) * width] for c in range(self._classes)]

    def _keep_in_memory(self, m, step, done):
        """A memory of subgroups; returns the logits of one: the first, after `step` the next one."""
        width = self._logit_width
        m.submodules.logits = logits = memory.Memory(shape=len(self.wr_data), depth=self.subgroups, init=[])
        write, read = logits.write_port(), logits.read_port(domain="comb")
        subgroup = Signal.like(self.wr_index)
        m.d.comb += [
            write.en.eq(self.wr_en),
            write.addr.eq(self.wr_index),
            write.data.eq(self.wr_data),
            read.addr.eq(subgroup),
        ]
        with m.If(done):
            m.d.sync += subgroup.eq(0)
        with m.Elif(step):
            m.d.sync += subgroup.eq(subgroup + 1)
        return [read.data[p * width : (p + 1) * width] for p in range(self._post_lanes)]
