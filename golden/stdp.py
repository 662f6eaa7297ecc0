"""STDP self-attention on spike counts: the table of weights.

Ref: S2TDPT (arXiv 2511.14691), latency coding and STDP kernel. Only the difference of spike counts
d = r_K(j) - r_Q(i) enters, so a table of 2 d_h + 1 integers in 1/256 is the whole kernel.
"""

from __future__ import annotations

import math

import numpy as np

from golden.arith import round_half_even
from golden.config import ATTENTION_UNITS, NetworkConfig


def build_lut(config: NetworkConfig) -> np.ndarray:
    """Attention weights by count difference.

    Entry ``d + d_h`` for d = r_K(j) - r_Q(i) in -d_h..d_h is offset + e for d < 0 (the key fires later than
    the query: LTP) and offset - e for d >= 0 (LTD; a tie is LTD), with e = round(amplitude exp(-kappa |d|)),
    ties to even.

    Returns
    -------
    ndarray
        int16, shape ``(2 d_h + 1,)``, units of 1/256, every entry strictly between 0 and 256.
    """
    span = config.head_dim
    entries = []
    for d in range(-span, span + 1):
        e = round_half_even(config.stdp_amplitude * math.exp(-config.kappa * abs(d)))
        entries.append(config.stdp_offset + e if d < 0 else config.stdp_offset - e)
    assert all(0 < entry < ATTENTION_UNITS for entry in entries)
    return np.array(entries, dtype=np.int16)
