"""A board that classifies images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.link import BAUD, Frame, Identity, Kind, unpack_result
from s2tdpt.host.exchange import Exchange, LinkError, Statistics
from s2tdpt.host.port import Port, SerialPort

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params

GREETINGS = 5
"""Times that a board is greeted before it counts as absent."""


@dataclass(frozen=True)
class Inference:
    """What a board said of images.

    Attributes
    ----------
    logits : ndarray
        int64 [B, classes].
    classes : ndarray
        int64 [B]: the lowest index of the largest logit.
    seconds : float
        From the first byte sent to the last one received.
    """

    logits: np.ndarray
    classes: np.ndarray
    seconds: float


class Accelerator:
    """A board at the other end of a port, as a context; see `open`.

    Attributes
    ----------
    identity : Identity
        What the board says of itself.
    """

    def __init__(self, port: Port, timeout: float = 1.0, attempts: int = 10):
        self._port = port
        self._exchange = Exchange(port, timeout, attempts)
        self.identity = self._greet(timeout)

    @classmethod
    def open(
        cls,
        port: str | Port,
        *,
        params: Params | None = None,
        baud: int = BAUD,
        timeout: float = 1.0,
        attempts: int = 10,
    ) -> Accelerator:
        """Find the board at a port.

        Parameters
        ----------
        port : str or Port
            Name of a serial port, or a line that is open already.
        params : Params, optional
            What the board must hold.
        baud : int
            Bits a second of a serial port.
        timeout : float
            Seconds that the board may take for an image, on top of the time of the bytes on the line.
        attempts : int
            Times that an image is sent before an error is raised.

        Raises
        ------
        UserError
            No such port, another program has it, nothing answers, what answers is no board or runs at
            another baud rate, or the board holds other parameters.
        """
        line = SerialPort(port, baud) if isinstance(port, str) else port
        try:
            board = cls(line, timeout, attempts)
            if params is not None:
                board.check(params)
            return board
        except BaseException:
            line.close()
            raise

    @property
    def port_name(self) -> str:
        """Of the port."""
        return self._port.name

    @property
    def statistics(self) -> Statistics:
        """What happened on the line so far."""
        return self._exchange.statistics

    def check(self, params: Params) -> None:
        """Refuse a board that holds something else.

        Raises
        ------
        LinkError
            Its digest is another.
        """
        if self.identity.digest.hex() != params.checksum():
            raise LinkError(
                f"the board at {self._port.name} holds other parameters "
                f"({self.identity.digest.hex()[:12]}); expected those of {params.config.name} "
                f"({params.checksum()[:12]}); name its parameter file, or load another bitstream"
            )

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Classes of images, int64 [B]; see `infer`."""
        return self.infer(images).classes

    def infer(self, images: np.ndarray, tell: Callable[[int], None] | None = None) -> Inference:
        """Logits and classes of images.

        Parameters
        ----------
        images : ndarray
            uint8 [B, height, width, channels].
        tell : callable, optional
            Told how many images are done.

        Raises
        ------
        UserError
            Images of another type or shape; the line or the board does not work. No result is
            reported then.
        """
        identity = self.identity
        payloads = _payloads(np.asarray(images), identity)
        words = np.zeros((len(payloads), identity.classes + 1), np.int64)
        done = 0

        def take(index: int, found: list[int]) -> None:
            nonlocal done
            words[index] = found
            done += 1
            if tell is not None:
                tell(done)

        start = self._port.now()
        self._exchange.ask(
            Kind.CLASSIFY, payloads, identity.window, identity.result_bytes, self._result, take
        )
        return Inference(words[:, :-1], words[:, -1], self._port.now() - start)

    def close(self) -> None:
        """Give the port back."""
        self._port.close()

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _greet(self, timeout: float) -> Identity:
        found: list[Identity] = []

        def read(request: Frame, reply: Frame) -> Identity | None:
            return Identity.unpack(reply.payload) if reply.kind == Kind.IDENTITY else None

        asked = Exchange(self._port, timeout, GREETINGS)
        try:
            asked.ask(
                Kind.HELLO, [b""], 1, Identity.LAYOUT.size, read, lambda _, identity: found.append(identity)
            )
        except LinkError:
            name, seen = self._port.name, asked.statistics
            if seen.strays:
                raise LinkError(
                    f"what answers at {name} speaks another version of the link; expected a board of this "
                    "version; build its bitstream anew"
                ) from None
            if seen.received:
                raise LinkError(
                    f"{name} sends {seen.received} bytes that make no sense at {self._port.baud} baud; "
                    "expected a board with this baud rate; check --baud and the port"
                ) from None
            raise LinkError(
                f"nothing answers at {name} at {self._port.baud} baud; expected a board with its bitstream "
                "loaded; check cable, port, bitstream and --baud"
            ) from None
        return found[0]

    def _result(self, request: Frame, reply: Frame) -> list[int] | None:
        """Logits and class, if the reply is the result of just this request."""
        identity = self.identity
        if reply.kind != Kind.RESULT or len(reply.payload) != identity.result_bytes:
            return None
        if reply.payload[:4] != request.crc.to_bytes(4, "little"):
            return None
        if reply.payload[4:8] != identity.mark:
            raise LinkError(
                f"the board at {self._port.name} was given other parameters meanwhile; expected those that "
                "it had at the start; run again"
            )
        words = unpack_result(identity, reply.payload)
        if words[-1] != words.index(max(words[:-1])):
            raise LinkError(
                f"the board at {self._port.name} names class {words[-1]}, but class "
                f"{words.index(max(words[:-1]))} has "
                "the largest logit; expected the same; its clock may be too fast, build its bitstream anew"
            )
        return words


def _payloads(images: np.ndarray, identity: Identity) -> list[bytes]:
    """The images as bytes; a `UserError` if they are none for this board."""
    shape = (identity.height, identity.width, identity.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        raise UserError(
            f"images are {images.dtype} {list(images.shape)}; expected uint8 [B, "
            f"{', '.join(map(str, shape))}] for "
            "the network on the board; choose images of its size"
        )
    return [image.tobytes() for image in images]
