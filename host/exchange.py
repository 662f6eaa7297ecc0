"""Requests over a line that may lose, alter or repeat anything: the right answer, or an error."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.link import DAMAGED, OVERHEAD, Code, Frame, FrameDecoder, Kind, encode
from s2tdpt.host.port import Port

Answer = TypeVar("Answer")

BITS_PER_BYTE = 10
"""On the line, start and stop bit included."""

PAUSE = 0.05
"""Share of the time-out after which a request that was refused as busy is sent again."""


class LinkError(UserError):
    """The board does not answer, or not as one should."""


@dataclass
class Statistics:
    """What happened on a link so far.

    Attributes
    ----------
    requests, repeats : int
        Frames that were sent; how many of them were sent before.
    answers : int
        Answers that were taken.
    damaged, strays, refusals : int
        Frames that arrived damaged; that nobody waited for; ERROR replies.
    timeouts : int
        Requests whose time was over.
    received : int
        Bytes.
    """

    requests: int = 0
    repeats: int = 0
    answers: int = 0
    damaged: int = 0
    strays: int = 0
    refusals: int = 0
    timeouts: int = 0
    received: int = 0


@dataclass
class _Waiting:
    """A request that is under way: its place among the payloads, and when it is sent again."""

    index: int
    frame: Frame
    order: int
    due: float
    attempts: int = 1
    why: str = "no answer"


class Exchange:
    """Requests and answers over a port.

    Parameters
    ----------
    port : Port
    timeout : float
        Seconds that a board may take for an answer, on top of the time of the bytes on the line.
    attempts : int
        Times that a request is sent before the exchange is given up.
    """

    def __init__(self, port: Port, timeout: float = 1.0, attempts: int = 10):
        self.port, self.statistics = port, Statistics()
        self._timeout, self._attempts = timeout, attempts
        self._decoder = FrameDecoder()
        self._sequence = random.SystemRandom().randrange(1 << 16)  # not that of a program that ran before

    def ask(
        self,
        kind: Kind,
        payloads: Sequence[bytes],
        window: int,
        reply_bytes: int,
        read: Callable[[Frame, Frame], Answer | None],
        take: Callable[[int, Answer], None],
    ) -> None:
        """Send a request for every payload until all are answered.

        Parameters
        ----------
        kind : Kind
            Of the requests.
        payloads : sequence of bytes
        window : int
            Requests that may be under way.
        reply_bytes : int
            Payload of an answer, for the time that it takes on the line.
        read : callable
            Request and reply with its sequence number, to the answer; None: the reply is none to this
            request.
        take : callable
            Told the index of a payload and the answer, once for each, in any order.

        Raises
        ------
        LinkError
            A request was sent as often as allowed.
        PortError
            The port stopped working.
        """
        longest = max(map(len, payloads), default=0) + reply_bytes + 2 * OVERHEAD
        patience = self._timeout + 2 * window * longest * BITS_PER_BYTE / self.port.baud  # 2: all escaped
        waiting: dict[int, _Waiting] = {}
        begun = done = 0
        while done < len(payloads):
            while begun < len(payloads) and len(waiting) < window:
                self._sequence = (self._sequence + 1) % (1 << 16)
                frame = Frame(kind, self._sequence, bytes(payloads[begun]))
                waiting[frame.sequence] = self._send(_Waiting(begun, frame, 0, 0.0), patience)
                begun += 1
            for late in [one for one in waiting.values() if one.due <= self.port.now()]:
                self.statistics.timeouts += late.why == "no answer"
                self._again(late, patience, done, len(payloads))
            data = self.port.read(max(0.0, min(one.due for one in waiting.values()) - self.port.now()))
            self.statistics.received += len(data)
            for event in self._decoder.feed(data):
                one = self._waited_for(event, waiting)
                answer = None if one is None else read(one.frame, event)
                if answer is None:
                    self.statistics.strays += isinstance(event, Frame) and event.kind != Kind.ERROR
                    continue
                take(one.index, answer)
                self.statistics.answers += 1
                done += 1
                del waiting[one.frame.sequence]
                for older in waiting.values():  # answers come in order: those before are lost
                    if older.order < one.order:
                        older.due, older.why = self.port.now(), "overtaken"

    def _waited_for(self, event: Frame | object, waiting: dict[int, _Waiting]) -> _Waiting | None:
        """The request that a frame answers; what is refused is sent again or ends the exchange."""
        if event is DAMAGED:
            self.statistics.damaged += 1
            return None
        one = waiting.get(event.sequence)
        if event.kind != Kind.ERROR or len(event.payload) != 1:
            return one
        self.statistics.refusals += 1
        code = event.payload[0]
        if code == Code.DAMAGED and len(waiting) == 1:  # it was that one; else a later answer tells
            (one,) = waiting.values()
            one.due, one.why = self.port.now(), "damaged on its way"
        elif one is not None and code == Code.BUSY:
            one.due, one.why = self.port.now() + PAUSE * self._timeout, "the board is busy"
        elif one is not None and code in (Code.LENGTH, Code.KIND):
            one.due, one.why = self.port.now(), f"refused as {Code(code).name}"
        return None

    def _send(self, one: _Waiting, patience: float) -> _Waiting:
        self.statistics.requests += 1
        one.order, one.why = self.statistics.requests, "no answer"
        self.port.write(encode(one.frame))
        one.due = self.port.now() + patience
        return one

    def _again(self, one: _Waiting, patience: float, done: int, count: int) -> None:
        if one.attempts == self._attempts:
            raise LinkError(
                f"the board at {self.port.name} did not answer ({one.attempts} attempts, the last one: "
                f"{one.why}; {done} of {count} requests done); expected an answer within {patience:.2g} s; "
                "check cable, baud rate and board"
            )
        one.attempts += 1
        self.statistics.repeats += 1
        self._send(one, patience)
