"""What passes between the stages of the STDP attention, and how its rows lie in memory."""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import HeadSizes, K, Q, V
from s2tdpt.hw.attention.store import Hold
from s2tdpt.hw.fixed import index_shape

REUSE = 3
"""Cycles from an update of a row to the next one of the same row, at least."""

QUERIES = {"counts": (Q, Hold.COUNTS)}
"""What is read of a query."""

TOKENS = {"counts": (K, Hold.COUNTS), "active": (V, Hold.STEPS), "value": (V, Hold.SPIKES)}
"""What is read of a key and a value: its counts; the steps in which it has a spike; its spikes."""


class RowRequest(wiring.Signature):
    """A row to be handed to the neurons, seen from who asks every row engine for it.

    Members
    -------
    en : ``Out(engines)``
        The engine of the step.
    step : ``Out``
        Which of the steps of that engine.
    count : ``Out``
        Spike count of the query.
    """

    def __init__(self, sizes: HeadSizes):
        super().__init__(
            {
                "en": Out(sizes.engines),
                "step": Out(index_shape(len(sizes.steps_of(0)))),
                "count": Out(sizes.count),
            }
        )


class KeyValue(wiring.Signature):
    """The token that the row engines work on, seen from its reader.

    Members
    -------
    load : ``Out(1)``
        A token begins in the next cycle; `active` and `first` speak of it.
    active : ``Out(T)``
        Steps in which its value has a spike.
    first : ``Out(1)``
        It is token 0.
    counts : ``Out(T * count)``, value : ``Out(head_dim * T)``
        Key counts and value of the token that was in work in the cycle before.
    defines : ``Out(1)``
        That was token 0: rows begin with it.
    """

    def __init__(self, sizes: HeadSizes):
        super().__init__(
            {
                "load": Out(1),
                "active": Out(sizes.steps),
                "first": Out(1),
                "counts": Out(sizes.counts_bits),
                "value": Out(sizes.head_dim * sizes.steps),
                "defines": Out(1),
            }
        )


class CountList(wiring.Signature):
    """The spike counts that occur in one step, seen from who reads them.

    Members
    -------
    index : ``Out``
        Which of them.
    count : ``In``
        The count, in the same cycle.
    top : ``In``
        Index of the last one.
    single, few : ``In(1)``
        There is only one; there are less than `REUSE`.
    """

    def __init__(self, sizes: HeadSizes):
        index = index_shape(sizes.entries)
        super().__init__(
            {"index": Out(index), "count": In(sizes.count), "top": In(index), "single": In(1), "few": In(1)}
        )


class RowUse(wiring.Signature):
    """A row on its way into the row memory of an engine, seen from who chose it.

    Members
    -------
    row : ``Out``
        Its address.
    en : ``Out(1)``
    emits : ``Out(1)``
        It is handed to the neurons, not added to.
    defines : ``Out(1)``
        It is zero before the addition.
    key, query : ``Out``
        Spike counts that the weight follows from.
    mask : ``Out(head_dim)``
        Channels of the value that spike.
    """

    def __init__(self, sizes: HeadSizes, engine: int):
        super().__init__(
            {
                "row": Out(sizes.local_step(engine) + sizes.count.width),
                "en": Out(1),
                "emits": Out(1),
                "defines": Out(1),
                "key": Out(sizes.count),
                "query": Out(sizes.count),
                "mask": Out(sizes.head_dim),
            }
        )


def row_depth(sizes: HeadSizes, engine: int) -> int:
    """Rows of an engine: one for every query count and step, the step in the lowest address bits."""
    return (sizes.head_dim + 1) << sizes.local_step(engine)
