"""Independent pieces of a batch on all processors.

The layers of a small network are too short to be shared out one by one: waiting for each other at the end of
every operation costs more than it gains, and much more on a busy machine. Whole pieces of the batch are
given to threads instead, each of which works alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


def map_pieces(function: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """``[function(piece) for piece in pieces]`` on as many threads as the torch setting allows."""
    workers = min(torch.get_num_threads(), len(pieces))
    if workers < 2:
        return [function(piece) for piece in pieces]
    return list(_pool(workers).map(function, pieces))


def _pool(workers: int) -> ThreadPoolExecutor:
    # By process: threads do not survive a fork.
    key = (os.getpid(), workers)
    with _lock:
        if key not in _pools:
            pool = ThreadPoolExecutor(workers, thread_name_prefix="golden")
            ready = threading.Barrier(workers)

            def pin() -> None:
                torch.get_num_threads()  # a thread takes the default at its first look, once
                torch.set_num_threads(1)
                ready.wait()

            before = torch.get_num_threads()
            for started in [pool.submit(pin) for _ in range(workers)]:
                started.result()
            torch.set_num_threads(before)  # the default of threads to come
            _pools[key] = pool
    return _pools[key]
