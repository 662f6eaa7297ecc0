"""Serves the requests of the serial link with an accelerator (docs/link.md). Twin: `golden.responder`."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.golden.link import HEADER, Code, Identity, Kind
from s2tdpt.hw.board.image_buffer import ImageBuffer
from s2tdpt.hw.board.link import LinkReceiver, LinkSender
from s2tdpt.hw.plan.records import LINK_BYTE, UART_BYTE, Bus, bits_for

__all__ = ["Responder"]

TAG = data.StructLayout({"sequence": 16, "crc": 32})
"""Which request an image came with."""

HEAD_BYTES = HEADER.size + 8
"""Longest reply that is not a stream: header, CRC of the request, mark."""


class Reply(wiring.Component):
    """One reply after the other as the bytes of frames.

    Members
    -------
    refusal, greeting, result : ``In(1)``
        Send an ERROR, an IDENTITY, a RESULT; the first of them counts. Stays until `done`.
    sequence : ``In(16)``
    code : ``In(8)``
        Of an ERROR.
    crc : ``In(32)``
        Of the request of a RESULT.
    words : ``In(Bus)``
        Logits and class of a RESULT.
    done : ``Out(1)``
        Pulse: its last byte is gone.
    o : ``Out(stream.Signature(LINK_BYTE))``
    """

    def __init__(self, identity: Identity):
        self._identity = identity
        super().__init__(
            {
                "refusal": In(1),
                "greeting": In(1),
                "result": In(1),
                "sequence": In(16),
                "code": In(8),
                "crc": In(32),
                "words": In(Bus(8 * identity.word_bytes)),
                "done": Out(1),
                "o": Out(stream.Signature(LINK_BYTE)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        identity = self._identity
        card = identity.pack()
        head = Signal(8 * HEAD_BYTES)  # sent from the low end
        left = Signal(range(HEAD_BYTES + 1))
        index = Signal(range(max(len(card), identity.word_bytes)))
        # A register between what chooses the byte and what escapes it: both are deep.
        byte, last, offered, sent = Signal(8), Signal(), Signal(), Signal()
        m.d.comb += sent.eq(offered & ~self.o.valid)
        with m.If(sent):
            m.d.sync += [self.o.payload.data.eq(byte), self.o.payload.last.eq(last), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += index.eq(0)
                with m.If(self.refusal):
                    fields = (Const(int(Kind.ERROR), 8), self.sequence, Const(1, 16), self.code)
                    m.d.sync += [head.eq(Cat(*fields)), left.eq(HEADER.size + 1)]
                    m.next = "HEAD"
                with m.Elif(self.greeting):
                    fields = (Const(int(Kind.IDENTITY), 8), self.sequence, Const(len(card), 16))
                    m.d.sync += [head.eq(Cat(*fields)), left.eq(HEADER.size)]
                    m.next = "HEAD"
                with m.Elif(self.result):
                    fields = (Const(int(Kind.RESULT), 8), self.sequence, Const(identity.result_bytes, 16))
                    mark = Const(int.from_bytes(identity.mark, "little"), 32)
                    m.d.sync += [head.eq(Cat(*fields, self.crc, mark)), left.eq(HEAD_BYTES)]
                    m.next = "HEAD"
            with m.State("HEAD"):
                m.d.comb += [offered.eq(1), byte.eq(head[:8]), last.eq((left == 1) & self.refusal)]
                with m.If(sent):
                    m.d.sync += [head.eq(head >> 8), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.d.comb += self.done.eq(self.refusal)
                        m.next = "IDLE"
                        with m.If(~self.refusal):
                            m.next = "CARD"
                            with m.If(~self.greeting):
                                m.next = "WORDS"
            with m.State("CARD"):
                bits = Const(int.from_bytes(card, "little"), 8 * len(card))
                m.d.comb += [
                    offered.eq(1),
                    byte.eq(bits.word_select(index, 8)),
                    last.eq(index == len(card) - 1),
                ]
                with m.If(sent):
                    m.d.sync += index.eq(index + 1)
                    with m.If(last):
                        m.d.comb += self.done.eq(1)
                        m.next = "IDLE"
            with m.State("WORDS"):
                final = index == identity.word_bytes - 1
                m.d.comb += [
                    offered.eq(self.words.tvalid),
                    byte.eq(self.words.tdata.word_select(index, 8)),
                    last.eq(final & self.words.tlast),
                    self.words.tready.eq(final & ~self.o.valid),
                ]
                with m.If(sent):
                    m.d.sync += index.eq(Mux(final, 0, index + 1))
                    with m.If(last):
                        m.d.comb += self.done.eq(1)
                        m.next = "IDLE"
        return m


class Responder(wiring.Component):
    """Takes images from the link to an accelerator and its results back; refuses what is no request.

    An image goes to the accelerator when its frame has proved whole. At most `identity.window` images are
    under way; one more is refused. One refusal or greeting waits for the sender; what would need
    another one meanwhile gets no answer, and the host asks again.

    Latency and throughput: those of the line.
    Resources: `ImageBuffer`, a queue of 48 bits an image, about 400 flip-flops.

    Parameters
    ----------
    identity : Identity

    Members
    -------
    i : ``In(stream.Signature(UART_BYTE, always_ready=True))``
        Bytes from the line.
    o : ``Out(stream.Signature(8))``
        Bytes to the line.
    pixels : ``Out(Bus(8))``
        Images to the accelerator.
    results : ``In(Bus(8 * identity.word_bytes))``
        Logits and class of every image.
    refused : ``Out(1)``
        Pulse: something else than a request arrived, or one that cannot be served.
    """

    def __init__(self, identity: Identity):
        self._identity = identity
        super().__init__(
            {
                "i": In(stream.Signature(UART_BYTE, always_ready=True)),
                "o": Out(stream.Signature(8)),
                "pixels": Out(Bus(8)),
                "results": In(Bus(8 * identity.word_bytes)),
                "refused": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        identity = self._identity
        m.submodules.receiver = receiver = LinkReceiver()
        m.submodules.buffer = buffer = ImageBuffer(identity.window, identity.image_bytes)
        m.submodules.tags = tags = fifo.SyncFIFOBuffered(width=TAG.size, depth=identity.window)
        m.submodules.reply = reply = Reply(identity)
        m.submodules.sender = sender = LinkSender()
        wiring.connect(m, wiring.flipped(self.i), receiver.i)
        wiring.connect(m, buffer.o, wiring.flipped(self.pixels))
        wiring.connect(m, wiring.flipped(self.results), reply.words)
        wiring.connect(m, reply.o, sender.i)
        wiring.connect(m, sender.o, wiring.flipped(self.o))

        code, keep = self._judge(m, receiver, tags)
        header, tag = receiver.header, data.View(TAG, tags.r_data)
        m.d.comb += [
            buffer.i.payload.eq(receiver.payload.payload),
            buffer.i.valid.eq(receiver.payload.valid & tags.w_rdy),
            buffer.keep.eq(keep),
            buffer.drop.eq(receiver.end & ~keep),
            tags.w_data.eq(Cat(header.sequence, receiver.crc)),
            tags.w_en.eq(keep),
            self.refused.eq(receiver.end & (code != 0)),
        ]
        # What is to be sent next, apart from results: one refusal or one greeting.
        refusal, greeting, sequence, reason = Signal(), Signal(), Signal(16), Signal(bits_for(max(Code)))
        with m.If(receiver.end & ~keep & ~refusal & ~greeting):
            m.d.sync += [refusal.eq(code != 0), greeting.eq(code == 0), reason.eq(code)]
            m.d.sync += sequence.eq(Mux(receiver.good, header.sequence, 0))
        serving = Signal()  # a result is on its way: the refusal waits
        m.d.comb += [
            reply.refusal.eq(refusal & ~serving),
            reply.greeting.eq(greeting & ~serving),
            reply.result.eq(serving | (self.results.tvalid & tags.r_rdy)),
            reply.code.eq(reason),
            reply.crc.eq(tag.crc),
            reply.sequence.eq(Mux(serving | ~(refusal | greeting), tag.sequence, sequence)),
            tags.r_en.eq(reply.done & serving),
        ]
        with m.If(reply.done):
            m.d.sync += serving.eq(0)
            with m.If(~serving):
                m.d.sync += [refusal.eq(0), greeting.eq(0)]
        with m.Elif(reply.result & ~refusal & ~greeting):
            m.d.sync += serving.eq(1)
        return m

    def _judge(self, m, receiver: LinkReceiver, tags):
        """Why a frame is refused (0: it is not), and whether its image is kept."""
        identity, header = self._identity, receiver.header
        missed = Signal()  # a byte of this payload found no room
        with m.If(receiver.payload.valid & ~tags.w_rdy):
            m.d.sync += missed.eq(1)
        with m.If(receiver.end):
            m.d.sync += missed.eq(0)
        code, keep = Signal(bits_for(max(Code))), Signal()
        with m.If(~receiver.good):
            m.d.comb += code.eq(Code.DAMAGED)
        with m.Elif(header.kind == Kind.CLASSIFY):
            with m.If(header.length != identity.image_bytes):
                m.d.comb += code.eq(Code.LENGTH)
            with m.Elif(missed):
                m.d.comb += code.eq(Code.BUSY)
            with m.Else():
                m.d.comb += keep.eq(receiver.end)
        with m.Elif(header.kind != Kind.HELLO):
            m.d.comb += code.eq(Code.KIND)
        return code, keep
