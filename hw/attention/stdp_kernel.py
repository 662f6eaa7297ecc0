"""The synapse of the STDP attention."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, index_shape, interval_shape

__all__ = ["KERNEL_DELAY", "StdpKernel", "checked_lut"]

KERNEL_DELAY = 2
"""From the counts to their weight."""


def checked_lut(lut: Iterable[int], head_dim: int) -> tuple[int, ...]:
    """The table as integers.

    Raises
    ------
    ValueError
        Its length is not that of `head_dim` channels.
    """
    lut = tuple(int(entry) for entry in lut)
    if len(lut) != 2 * head_dim + 1:
        raise ValueError(
            f"the STDP table of {head_dim} channels must have {2 * head_dim + 1} entries, not {len(lut)}"
        )
    return lut


class StdpKernel(wiring.Component):
    """Attention weight of a key and a query, from their spike counts: ``lut[key - query + head_dim]``.

    The counts are the whole of the spike timing, so the table is exact; there is no exponential.

    Latency: `KERNEL_DELAY`, a register behind the difference and one behind the table. Throughput: a weight
    a cycle. Resources: a subtractor and a table of ``2 * head_dim + 1`` entries in LUTs.

    Parameters
    ----------
    lut : iterable of int
        ``2 * head_dim + 1`` weights, for ``r_K - r_Q`` from ``-head_dim`` to ``head_dim``.
    head_dim : int
        Channels of a head.

    Members
    -------
    key, query : ``In``, 0..head_dim
        Spike counts ``r_K``, ``r_Q``.
    weight : ``Out``
        Table entry, in the smallest shape that holds all of them.

    References
    ----------
    S2TDPT (arXiv 2511.14691), STDP kernel. Software twin: `golden.attention.stdp`.
    """

    def __init__(self, lut: Iterable[int], head_dim: int):
        self._lut = checked_lut(lut, head_dim)
        self._head_dim = head_dim
        super().__init__(
            {
                "key": In(interval_shape(0, head_dim)),
                "query": In(interval_shape(0, head_dim)),
                "weight": Out(interval_shape(min(self._lut), max(self._lut))),
            }
        )

    @property
    def lut(self) -> tuple[int, ...]:
        return self._lut

    def elaborate(self, platform):
        m = Module()
        index = Signal(index_shape(len(self._lut)))
        # Counts lie in 0..head_dim, so the difference lies inside the table.
        m.d.sync += [
            index.eq(exact(self.key + self._head_dim - self.query, index.shape())),
            self.weight.eq(Array(self._lut)[index]),
        ]
        return m
