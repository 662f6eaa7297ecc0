"""Frames of the serial link between a host and a board, as pure bytes (docs/link.md). Twin: `hw.board.link`.

A frame stands between two flag bytes; a flag or an escape inside is escaped, as in HDLC. A receiver is
therefore in step again at the next flag, whatever was lost, added or altered before it, and needs no clock.

References
----------
RFC 1662, PPP in HDLC-like framing (flag, escape). CRC-32/ISO-HDLC: the one of zlib and Ethernet.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params

BAUD = 3_000_000
"""Bits a second unless told otherwise."""

FLAG, ESCAPE, FLIP = 0x7E, 0x7D, 0x20
"""A frame's bounds; what an escaped byte follows, and what it is combined with by exclusive or."""

HEADER = struct.Struct("<BHH")
"""Kind, sequence number, bytes of the payload."""

CRC_BYTES = 4
OVERHEAD = HEADER.size + CRC_BYTES
"""Bytes of a frame beside its payload, before escaping."""

LONGEST = OVERHEAD + (1 << 16) - 1
"""Bytes of the longest frame, before escaping."""

VERSION = 1
"""Of the protocol."""


class Kind(IntEnum):
    """What a frame is: requests below 0x80, replies above."""

    HELLO = 0x01
    CLASSIFY = 0x02
    IDENTITY = 0x81
    RESULT = 0x82
    ERROR = 0xFF


class Code(IntEnum):
    """Why a request was not served: the payload of an ERROR.

    DAMAGED: what stood between two flags is no frame (its sequence number is unknown: 0). LENGTH: the
    payload is not one image. KIND: no request of this version. BUSY: no room for another image.
    """

    DAMAGED = 1
    LENGTH = 2
    KIND = 3
    BUSY = 4


@dataclass(frozen=True)
class Frame:
    """A frame that arrived whole.

    Attributes
    ----------
    kind : int
        One of `Kind`, or a number that this version does not know.
    sequence : int
        0 .. 65535; a reply has that of its request.
    payload : bytes
    """

    kind: int
    sequence: int
    payload: bytes

    @property
    def body(self) -> bytes:
        """Header, payload and CRC, not escaped."""
        checked = HEADER.pack(self.kind, self.sequence, len(self.payload)) + self.payload
        return checked + zlib.crc32(checked).to_bytes(CRC_BYTES, "little")

    @property
    def crc(self) -> int:
        """CRC-32 of header and payload."""
        return zlib.crc32(self.body[:-CRC_BYTES])


DAMAGED = object()
"""What `FrameDecoder` gives for bytes between two flags that are no frame."""


def escape(data: bytes) -> bytes:
    """`data` without a flag in it."""
    data = data.replace(bytes([ESCAPE]), bytes([ESCAPE, ESCAPE ^ FLIP]))
    return data.replace(bytes([FLAG]), bytes([ESCAPE, FLAG ^ FLIP]))


def encode(frame: Frame) -> bytes:
    """The bytes on the line, both flags included; twin of `hw.board.link.LinkSender`."""
    return bytes([FLAG]) + escape(frame.body) + bytes([FLAG])


class FrameDecoder:
    """Bytes of the line to frames; twin of `hw.board.link.LinkReceiver`.

    Bytes before the first flag are dropped, nothing between two flags is nothing.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """As after power-up."""
        self._synced = self._escaped = self._started = False
        self._body = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame | object]:
        """Every `Frame`, or `DAMAGED`, that ends within `data`."""
        for byte in data:
            if byte == FLAG:
                if self._synced and self._started:
                    yield self._end()
                self._synced, self._escaped, self._started = True, False, False
                self._body.clear()
            elif self._synced:
                self._started = True
                if byte == ESCAPE and not self._escaped:
                    self._escaped = True
                    continue
                if len(self._body) <= LONGEST:  # one byte more than fits tells that it is too long
                    self._body.append(byte ^ FLIP if self._escaped else byte)
                self._escaped = False

    def _end(self) -> Frame | object:
        body = bytes(self._body)
        if self._escaped or not OVERHEAD <= len(body) <= LONGEST:
            return DAMAGED
        kind, sequence, length = HEADER.unpack_from(body)
        if len(body) != OVERHEAD + length:
            return DAMAGED
        frame = Frame(kind, sequence, body[HEADER.size : -CRC_BYTES])
        return frame if frame.body == body else DAMAGED


@dataclass(frozen=True)
class Identity:
    """What a board says of itself: the payload of an IDENTITY.

    Attributes
    ----------
    height, width, channels : int
        Of an image, a byte a channel.
    classes : int
    word_bytes : int
        Of a logit and of the class in a result: 4 or 8.
    window : int
        Images that may be under way.
    clock : int
        Of the accelerator, Hz.
    digest : bytes
        SHA-256 of the parameters (`Params.checksum`), 32 bytes.
    """

    height: int
    width: int
    channels: int
    classes: int
    word_bytes: int
    window: int
    clock: int
    digest: bytes

    LAYOUT = struct.Struct("<BBBBHHHI32s")

    @property
    def image_bytes(self) -> int:
        """Payload of a CLASSIFY."""
        return self.height * self.width * self.channels

    @property
    def mark(self) -> bytes:
        """The beginning of the digest, which every result carries."""
        return self.digest[:4]

    @property
    def result_bytes(self) -> int:
        """Payload of a RESULT: CRC of the request, mark, logits and class."""
        return 8 + (self.classes + 1) * self.word_bytes

    def pack(self) -> bytes:
        """The payload."""
        return self.LAYOUT.pack(
            VERSION,
            self.window,
            self.word_bytes,
            self.channels,
            self.height,
            self.width,
            self.classes,
            self.clock,
            self.digest,
        )

    @classmethod
    def unpack(cls, payload: bytes) -> Identity | None:
        """From a payload; None if it is none of this version."""
        if len(payload) != cls.LAYOUT.size or payload[0] != VERSION:
            return None
        _, window, word_bytes, channels, height, width, classes, clock, digest = cls.LAYOUT.unpack(payload)
        found = cls(height, width, channels, classes, word_bytes, window, clock, digest)
        sizes = (height, width, channels, classes, window)
        return found if all(sizes) and word_bytes in (4, 8) else None


def identity_of(params: Params, *, window: int, word_bytes: int, clock: int) -> Identity:
    """What a board with these parameters says of itself."""
    config = params.config
    return Identity(
        config.image_height,
        config.image_width,
        config.image_channels,
        config.num_classes,
        word_bytes,
        window,
        clock,
        bytes.fromhex(params.checksum()),
    )


def pack_result(identity: Identity, request: Frame, words: list[int]) -> bytes:
    """Payload of the RESULT of a request: `words` are the logits and the class."""
    size = identity.word_bytes
    data = b"".join(word.to_bytes(size, "little", signed=True) for word in words)
    return request.crc.to_bytes(4, "little") + identity.mark + data


def unpack_result(identity: Identity, payload: bytes) -> list[int]:
    """Logits and class of a RESULT of the right length."""
    size = identity.word_bytes
    return [
        int.from_bytes(payload[at : at + size], "little", signed=True) for at in range(8, len(payload), size)
    ]
