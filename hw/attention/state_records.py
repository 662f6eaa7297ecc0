"""What passes between the stages of an attention with a state of ``head_dim`` rows (`ssa`, `a2os2a`)."""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from s2tdpt.hw.attention.records import HeadSizes, K, Q, V
from s2tdpt.hw.attention.store import Hold

__all__ = ["REUSE", "TOKENS", "Rounds", "StateUse", "local_step"]

REUSE = 3
"""Cycles from an update of a row to the next use of the same row, at least."""

TOKENS = {"query": (Q, Hold.SPIKES), "key": (K, Hold.SPIKES), "value": (V, Hold.SPIKES)}
"""What is read of a token."""


def local_step(sizes: HeadSizes, engine: int) -> int:
    """Bits of a row's address that tell the steps of an engine apart; may be none."""
    return sizes.local_step(engine)


class Rounds:
    """A token in rounds: in each of them every engine works on one step.

    Attributes
    ----------
    count : int
        Rounds of a token, ``ceil(T / engines)``; engine ``e`` works on step ``round * engines + e``.
    last_steps : int
        Steps of the last one.
    update, update_idle : int
        A round that updates rows takes so long at least, and so much longer: a row comes back `REUSE` cycles
        later or more.
    turn : int
        The last round that updates takes so much longer: what is read then is complete.
    read : int
        A round that reads rows takes so long at least: its sums leave one by one, and the pieces of a token.
    """

    def __init__(self, sizes: HeadSizes):
        engines = sizes.engines
        self.count = -(-sizes.steps // engines)
        self.last_steps = sizes.steps - (self.count - 1) * engines
        # Between two uses of a row lie the other rounds of its token.
        self.update = REUSE - 1 if self.count == 2 else 1
        self.update_idle = REUSE - 1 if self.count == 1 else 0
        self.turn = 0 if self.count == 1 else REUSE - 1
        self.read = max(engines, -(-sizes.parts // self.count))


class StateUse(wiring.Signature):
    """A use of a row of an engine, seen from who chose it.

    Members
    -------
    row : ``Out``
        Its address: channel, and the step of the engine in the lowest bits.
    update : ``Out(1)``
        The channels of `mask` are counted up, or changed by `amount` in its direction.
    zero : ``Out(1)``
        The row is zero before.
    add : ``Out(1)``, first : ``Out(1)``
        The row is added to the sums; they begin with it.
    mask : ``Out(head_dim * bits of a value)``
    amount : ``Out``
        The key's number; only where it is no spike.
    """

    def __init__(self, sizes: HeadSizes, engine: int):
        row = max(1, (sizes.head_dim - 1).bit_length()) + local_step(sizes, engine)
        key, value = sizes.operands[K], sizes.operands[V]
        amount = {"amount": Out(key.bits)} if key.bits > 1 else {}
        super().__init__(
            {
                "row": Out(row),
                "update": Out(1),
                "zero": Out(1),
                "add": Out(1),
                "first": Out(1),
                "mask": Out(sizes.head_dim * value.bits),
                **amount,
            }
        )
