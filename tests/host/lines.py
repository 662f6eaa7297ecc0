"""Ports for the tests of the host: the twin of a board, in memory or behind a pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import threading
import tty

import numpy as np

from s2tdpt.golden.link import Identity
from s2tdpt.golden.responder import Responder

IDENTITY = Identity(2, 3, 1, 3, 4, 4, 50_000_000, bytes(range(0x60, 0x80)))


def infer(image: bytes) -> list[int]:
    """A network of a kind: no two images of `pictures` have the same logits."""
    logits = [image[0] * 256 + image[1] - 30_000, image[2] * 256 + image[3] - 30_000, image[4] * 256 - 30_000]
    return [*logits, logits.index(max(logits))]


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 3, 1), dtype=np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    """Logits and class of every image."""
    return np.array([infer(image.tobytes()) for image in images])


def twin(identity: Identity = IDENTITY) -> Responder:
    return Responder(identity, infer)


@contextlib.contextmanager
def terminal(answer):
    """A pseudo-terminal whose other end says ``answer(bytes)``: its name, a function that unplugs it."""
    board, host = pty.openpty()
    tty.setraw(host)
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            try:
                data = os.read(board, 4096)
                if reply := answer(data):
                    os.write(board, reply)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def unplug():
        stop.set()
        for end in (host, board):
            with contextlib.suppress(OSError):
                os.close(end)

    try:
        yield os.ttyname(host), unplug
    finally:
        unplug()
