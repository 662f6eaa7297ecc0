"""A line without a board: the board's twin in memory, and faults on any line, at random and counted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from s2tdpt.golden.responder import Responder
from s2tdpt.host.port import Port


class MemoryPort:
    """A board's twin as a port. It answers at once, and waiting for what does not come takes no time.

    Parameters
    ----------
    responder : Responder
    """

    name, baud = "memory", 3_000_000

    def __init__(self, responder: Responder):
        self._responder, self._arrived, self._time = responder, bytearray(), 0.0

    def write(self, data: bytes) -> None:
        self._arrived += self._responder.feed(data)

    def read(self, seconds: float) -> bytes:
        if not self._arrived:
            self._time += seconds
        data = bytes(self._arrived)
        self._arrived.clear()
        return data

    def now(self) -> float:
        return self._time

    def close(self) -> None:
        pass

    def reset(self) -> None:
        """As the board's reset: what was under way is gone."""
        self._responder.reset()
        self._arrived.clear()


SPAN = 32
"""Bytes, about a frame of a small network."""


class FaultyPort:
    """A port on which things go wrong.

    Parameters
    ----------
    port : Port
    seed : int
    rate : float
        Faults for every chunk of `SPAN` bytes and more, in either direction; a shorter one has
        them less often, so that an answer fares alike whether it is read at once or, by a slow computer, byte
        by byte.
    reset : callable, optional
        Resets the board; without it, that fault does not occur.

    Attributes
    ----------
    rate : float
        May be changed at any time.
    faults : Counter
        How many of each kind there were.
    """

    KINDS = (
        "bits",
        "burst",
        "lost bytes",
        "lost chunk",
        "repeated bytes",
        "repeated chunk",
        "noise",
        "cut",
        "old chunk",
    )

    def __init__(self, port: Port, seed: int, rate: float, reset: Callable[[], None] | None = None):
        self.name, self.baud = port.name, port.baud
        self._port, self._random, self.rate, self._reset = port, random.Random(seed), rate, reset
        self._old: list[bytes] = []
        self.faults: Counter[str] = Counter()

    def write(self, data: bytes) -> None:
        cut = len(data)
        if self._reset is not None and self._random.random() < self.rate / 10:
            cut = self._random.randrange(len(data) + 1)
            self._port.write(data[:cut])  # in mid-frame
            self._reset()
            self.faults["reset"] += 1
            data = data[cut:]
        if data := self._damaged(data):
            self._port.write(data)

    def read(self, seconds: float) -> bytes:
        return self._damaged(self._port.read(seconds))

    def now(self) -> float:
        return self._port.now()

    def close(self) -> None:
        self._port.close()

    def _damaged(self, data: bytes) -> bytes:
        """The chunk, or what a fault makes of it."""
        if not data or self._random.random() >= self.rate * min(1.0, len(data) / SPAN):
            self._remember(data)
            return data
        kind = self._random.choice(self.KINDS)
        self.faults[kind] += 1
        damaged = self._change(kind, data)
        self._remember(data)
        return damaged

    def _remember(self, data: bytes) -> None:
        if data and self._random.random() < 0.2:
            self._old = [*self._old[-9:], data]

    def _change(self, kind: str, data: bytes) -> bytes:
        draw, at = self._random, self._random.randrange(len(data))
        some = data[at : at + draw.randint(1, 4)]
        match kind:
            case "bits":
                changed = bytearray(data)
                for _ in range(draw.randint(1, 4)):
                    changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
                return bytes(changed)
            case "burst":
                return data[:at] + draw.randbytes(len(some)) + data[at + len(some) :]
            case "lost bytes":
                return data[:at] + data[at + len(some) :]
            case "lost chunk":
                return b""
            case "repeated bytes":
                return data[:at] + some + data[at:]
            case "repeated chunk":
                return data + data
            case "noise":
                return data[:at] + draw.randbytes(draw.randint(1, 20)) + data[at:]
            case "cut":
                return data[:at]
        return draw.choice(self._old or [data]) + data
