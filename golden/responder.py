"""A board at the end of the serial link, as bytes in and bytes out. Twin of `hw.board.responder`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from s2tdpt.golden.link import DAMAGED, Code, Frame, FrameDecoder, Identity, Kind, encode, pack_result

if TYPE_CHECKING:
    from s2tdpt.golden.network import GoldenNetwork


class Responder:
    """Answers requests at once; every answer is what the hardware sends, though the hardware takes time.

    Parameters
    ----------
    identity : Identity
    infer : callable
        Bytes of an image to its logits and class.
    """

    def __init__(self, identity: Identity, infer: Callable[[bytes], list[int]]):
        self.identity, self._infer = identity, infer
        self._decoder = FrameDecoder()

    def reset(self) -> None:
        """Forget what has arrived."""
        self._decoder.reset()

    def feed(self, data: bytes) -> bytes:
        """Bytes of the line to the bytes that answer them."""
        return b"".join(encode(self._answer(event)) for event in self._decoder.feed(data))

    def _answer(self, event: Frame | object) -> Frame:
        if event is DAMAGED:
            return Frame(Kind.ERROR, 0, bytes([Code.DAMAGED]))
        match event.kind:
            case Kind.HELLO:
                return Frame(Kind.IDENTITY, event.sequence, self.identity.pack())
            case Kind.CLASSIFY if len(event.payload) == self.identity.image_bytes:
                words = self._infer(event.payload)
                return Frame(Kind.RESULT, event.sequence, pack_result(self.identity, event, words))
            case Kind.CLASSIFY:
                return Frame(Kind.ERROR, event.sequence, bytes([Code.LENGTH]))
        return Frame(Kind.ERROR, event.sequence, bytes([Code.KIND]))


def infer_with(network: GoldenNetwork) -> Callable[[bytes], list[int]]:
    """The golden model as `Responder` asks for it."""
    config = network.params.config
    shape = (1, config.image_height, config.image_width, config.image_channels)

    def infer(image: bytes) -> list[int]:
        logits = network.forward(np.frombuffer(image, np.uint8).reshape(shape).copy())[0].tolist()
        return [*logits, logits.index(max(logits))]

    return infer
