"""Keep freed memory for the next step instead of giving it back to the system after every tensor."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Ask the C library to serve large tensors from its own heap and never to trim it; false if it cannot.

    A training step frees and allocates the same hundreds of megabytes. By default glibc maps each block
    afresh, and clearing its pages costs up to half the time of an evaluation on a CPU. The process keeps its
    peak instead.
    """
    try:
        library = ctypes.CDLL(None)
        return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):  # another C library
        return False
