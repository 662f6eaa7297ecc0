"""The rounds of a local field where nothing else sets their pace."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.fixed import exact, index_shape
from s2tdpt.hw.plan.program import Program

__all__ = ["FieldRounds", "least_round"]


def least_round(sizes: HeadSizes, beside: int) -> int:
    """A round takes so long at least: its rows leave one by one, and the pieces of a token; what goes on
    beside the field takes `beside` cycles."""
    rounds = -(-sizes.steps // sizes.engines)
    return max(sizes.engines, -(-sizes.parts // rounds), beside)


class FieldRounds(wiring.Component):
    """Takes a head through the rounds of the field: every token's steps, `engines` at a time.

    Latency: the first round begins in the cycle after `begin`. Throughput: a round as long as its taps, and
    not less than `least_round`. Resources: counters of tokens, rounds and cycles.

    Parameters
    ----------
    program : Program
    beside : int
        As in `least_round`.

    Members
    -------
    begin : ``In(1)``
        Pulse; not before the cycle after that of `LocalField`.
    advance : ``Out(1)``, round : ``Out``, last : ``Out(1)``, single : ``In(1)``
        To and from `LocalField`.
    over : ``Out(1)``, token_over : ``Out(1)``
        A round ends; it is the last one of its token.
    ended : ``Out(1)``
        The head's last round ends.
    """

    def __init__(self, program: Program, beside: int):
        self._sizes = sizes = HeadSizes(program)
        self._least = least_round(sizes, beside)
        self._count = -(-sizes.steps // sizes.engines)
        super().__init__(
            {
                "begin": In(1),
                "advance": Out(1),
                "round": Out(index_shape(self._count)),
                "last": Out(1),
                "single": In(1),
                "over": Out(1),
                "token_over": Out(1),
                "ended": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, least = self._sizes, self._least
        running, left = Signal(), Signal(range(least))
        number, token = Signal(self.round.shape()), Signal(sizes.token)  # of the round in work
        m.d.comb += [
            self.over.eq(running & self.single & (left == 0)),
            self.token_over.eq(self.over & (number == self._count - 1)),
            self.ended.eq(self.token_over & (token == sizes.tokens - 1)),
            self.advance.eq(self.begin | (self.over & ~self.ended)),
            self.last.eq(self.round == self._count - 1),
            self.round.eq(Mux(self.begin | self.token_over, 0, exact(number + 1, number.shape()))),
        ]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(self.token_over):
            m.d.sync += token.eq((token + 1)[: len(token)])
        with m.If(self.begin):
            m.d.sync += token.eq(0)
        with m.If(self.advance):
            m.d.sync += [running.eq(1), left.eq(least - 1), number.eq(self.round)]
        with m.Elif(self.over):
            m.d.sync += running.eq(0)
        return m
