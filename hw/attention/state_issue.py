"""Which rows of the state are used, one a cycle and engine, skipping channels without a spike."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.columns import steps_of_word
from s2tdpt.hw.attention.records import HeadSizes, K, Q, V
from s2tdpt.hw.attention.state_records import TOKENS, Rounds, StateUse
from s2tdpt.hw.attention.store import StorePort
from s2tdpt.hw.fixed import exact, index_shape, onehot_index, without_lowest
from s2tdpt.hw.plan.program import Program

__all__ = ["RoundReader", "StateIssue"]

ROUND = {"emits": 1, "turns": 1, "ends": 1}
"""Flags of a round: it reads rows; it is the last one that updates, that reads."""


def _operands(sizes: HeadSizes, flow: type[Out]) -> dict[str, wiring.Member]:
    """Members `query`, `key` and `value`."""
    names = {"query": Q, "key": K, "value": V}
    return {
        name: flow(sizes.head_dim * sizes.operands[projection].bits).array(sizes.steps)
        for name, projection in names.items()
    }


class RoundReader(wiring.Component):
    """Reads the tokens of a head twice and cuts them into rounds.

    Latency: the first round is offered 3 cycles after `start`. Throughput: a round a cycle. Resources: a
    register of a token, counters.

    Parameters
    ----------
    program : Program

    Members
    -------
    base : ``In``
        Address of the head's token 0, stable from `start` to the end.
    start : ``In(1)``
        Pulse, when nothing is offered.
    tokens : ``Out(StorePort)``, `TOKENS`
    second : ``Out(1)``
        The word that is asked for belongs to the second pass, which needs no value.
    valid : ``Out(1)``, take : ``In(1)``
        A round is offered; it is taken.
    round : ``Out``
        Which of its token.
    flags : ``Out(ROUND)``
    query, key, value : ``Out(head_dim)``, array of ``T``
        Spikes of the token, or numbers of their bits.
    """

    def __init__(self, program: Program):
        self._sizes = sizes = HeadSizes(program)
        self._rounds = Rounds(sizes)
        super().__init__(
            {
                "base": In(sizes.word),
                "start": In(1),
                "tokens": Out(StorePort(sizes, TOKENS)),
                "second": Out(1),
                "valid": Out(1),
                "take": In(1),
                "round": Out(index_shape(self._rounds.count)),
                "flags": Out(data.StructLayout(ROUND)),
                **_operands(sizes, Out),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, port = self._sizes, self.tokens
        more, emits = Signal(), self.second  # words are left to be read; in the second pass
        index, last = Signal(sizes.token), Signal()
        read, read_emits, read_last = Signal(), Signal(), Signal()  # a word is at the port; what it is
        load = Signal()
        m.d.comb += [last.eq(index == sizes.tokens - 1), port.en.eq(more & (~read | load))]
        m.d.sync += read.eq(port.en | read & ~load)
        with m.If(self.start):
            m.d.sync += [more.eq(1), emits.eq(0), index.eq(0), port.address.eq(self.base)]
        with m.Elif(port.en):
            m.d.sync += [
                index.eq(Mux(last, 0, (index + 1)[: len(index)])),
                # The last increments may wrap, and are then not used.
                port.address.eq(Mux(last, self.base, (port.address + 1)[: len(port.address)])),
                emits.eq(emits | last),
                more.eq(~(emits & last)),
                read_emits.eq(emits),
                read_last.eq(last),
            ]
        token_last, last_round = Signal(), Signal()
        m.d.comb += [
            last_round.eq(self.round == self._rounds.count - 1),
            load.eq(read & (~self.valid | (self.take & last_round))),
            self.flags.turns.eq(token_last & last_round & ~self.flags.emits),
            self.flags.ends.eq(token_last & last_round & self.flags.emits),
        ]
        with m.If(self.take):
            m.d.sync += self.round.eq(Mux(last_round, 0, exact(self.round + 1, self.round.shape())))
            with m.If(last_round):
                m.d.sync += self.valid.eq(0)
        with m.If(load):
            m.d.sync += [self.valid.eq(1), self.flags.emits.eq(read_emits), token_last.eq(read_last)]
            for spikes, word, operand in (
                (self.query, port.query, sizes.operands[Q]),
                (self.key, port.key, sizes.operands[K]),
                (self.value, port.value, sizes.operands[V]),
            ):
                steps = steps_of_word(word, sizes, operand.bits)
                m.d.sync += [held.eq(step) for held, step in zip(spikes, steps, strict=True)]
        return m


class StateIssue(wiring.Component):
    """Chooses the rows that the engines use, round by round.

    First pass: the rows of the key's channels, where the value has a spike in the step. Second pass: those of
    the query's channels, as far as something was added to them. All engines begin a round together.

    Latency: a round that is offered while nothing is going on has its first `use` 3 cycles later.
    Throughput: a row a cycle and engine; a round takes as long as in the engine that has the most rows, and
    not less than `state_records.Rounds` says. Resources: in every engine two registers of a step, a priority
    tree over its channels, and ``head_dim`` flip-flops a step; where keys are numbers, two registers of them
    and a selection.

    Parameters
    ----------
    program : Program
    partner : bool
        Something else goes on beside the rounds of the second pass, which last until it has ended.

    Members
    -------
    clear : ``In(1)``
        Pulse: a head begins; all rows are empty.
    reader : the members of `RoundReader` from `valid` on, seen from here
    use0, use1 ... : ``Out(StateUse)``
        One an engine; no array, since an engine with fewer steps has fewer rows.
    done : ``Out(1)``
        A round of the second pass ends with the uses of this cycle.
    short : ``Out(1)``
        It is the last one of a token.
    ended : ``Out(1)``
        The head's last round ends; `done` follows a cycle later.
    advance : ``Out(1)``, beside : ``In(1)``
        A round of the second pass begins in the next cycle, that of `beside_round` and `beside_last`; what
        goes on beside it has nothing to do after this cycle. Only with `partner`.
    """

    def __init__(self, program: Program, partner: bool = False):
        self._sizes = sizes = HeadSizes(program)
        self._rounds = Rounds(sizes)
        self._partner = partner
        more = {
            "advance": Out(1),
            "beside_round": Out(index_shape(self._rounds.count)),
            "beside_last": Out(1),
            "beside": In(1),
        }
        super().__init__(
            {
                "clear": In(1),
                "valid": In(1),
                "take": Out(1),
                "round": In(index_shape(self._rounds.count)),
                "flags": In(data.StructLayout(ROUND)),
                **_operands(sizes, In),
                **{f"use{engine}": Out(StateUse(sizes, engine)) for engine in range(sizes.engines)},
                "done": Out(1),
                "short": Out(1),
                "ended": Out(1),
                **(more if partner else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rounds = self._rounds
        layout = data.StructLayout({"valid": 1, "round": self.round.shape(), **ROUND})
        waits, works = Signal(layout), Signal(layout)  # the next round, and the one in work
        advance, over = Signal(), Signal()
        m.d.comb += [
            advance.eq(waits.valid & (~works.valid | over)),
            self.take.eq(self.valid & (~waits.valid | advance)),
            self.ended.eq(over & works.ends),
        ]
        with m.If(advance):
            m.d.sync += [works.eq(waits), waits.valid.eq(0)]
        with m.Elif(over):
            m.d.sync += works.valid.eq(0)
        with m.If(self.take):
            m.d.sync += [waits.valid.eq(1), waits.round.eq(self.round)]
            m.d.sync += [waits[name].eq(self.flags[name]) for name in ROUND]
        begins = Signal()  # first cycle of a round
        m.d.sync += [
            begins.eq(advance),
            self.done.eq(over & works.emits),
            self.short.eq(works.round == rounds.count - 1),
        ]
        single = [
            self._engine(m, engine, advance, begins, waits, works) for engine in range(self._sizes.engines)
        ]
        if self._partner:
            single.append(self.beside)
            m.d.comb += [
                self.advance.eq(advance & waits.emits),
                self.beside_round.eq(waits.round),
                self.beside_last.eq(waits.round == rounds.count - 1),
            ]
        m.d.comb += over.eq(works.valid & Cat(single).all() & self._long_enough(m, advance, waits, single))
        return m

    def _long_enough(self, m: Module, advance: Signal, waits: data.View, single: list[Signal]) -> Signal:
        """The round in work has taken as long as it must, apart from its rows."""
        rounds = self._rounds
        least = Signal(index_shape(max(rounds.read, rounds.update)))  # cycles to come at least
        idle = Signal(range(max(rounds.update_idle, rounds.turn) + 1))  # behind the rows
        enough = Signal()
        m.d.comb += enough.eq((least == 0) & (idle == 0))
        with m.If(least != 0):
            m.d.sync += least.eq(least - 1)
        with m.Elif(Cat(single).all() & (idle != 0)):
            m.d.sync += idle.eq(idle - 1)
        with m.If(advance):
            m.d.sync += [
                least.eq(Mux(waits.emits, rounds.read - 1, rounds.update - 1)),
                idle.eq(
                    Mux(
                        waits.emits, 0, Mux(waits.turns, rounds.turn + rounds.update_idle, rounds.update_idle)
                    )
                ),
            ]
        return enough

    def _engine(self, m, engine: int, advance, begins, waits, works) -> Signal:
        """Chooses the rows of an engine; its round has no row after this cycle's."""
        sizes, use = self._sizes, getattr(self, f"use{engine}")
        steps = sizes.steps_of(engine)
        width, count = sizes.head_dim, self._rounds.count

        def of_round(words, at):
            """The word of the engine's step in a round; nothing where it has none."""
            chosen = [words[t] for t in steps]
            return Array(chosen + [0] * (count - len(chosen)))[at]

        mask = Signal(width, name=f"mask{engine}")
        value = Signal(width * sizes.operands[V].bits, name=f"value{engine}")
        with m.If(self.take):
            spikes = of_round(self.value, self.round)
            keys = Mux(spikes.any(), self._spiking(of_round(self.key, self.round)), 0)
            m.d.sync += [
                value.eq(spikes),
                mask.eq(Mux(self.flags.emits, of_round(self.query, self.round), keys)),
            ]

        filled = [Signal(width, name=f"filled{engine}_{t}") for t in steps]  # rows that are not empty
        pending, others = Signal(width, name=f"pending{engine}"), Signal(width, name=f"others{engine}")
        held, single = Signal.like(value, name=f"held{engine}"), Signal(name=f"single{engine}", init=1)
        todo = Signal(width, name=f"todo{engine}")
        allowed = Mux(waits.emits, of_round(dict(zip(steps, filled, strict=True)), waits.round), ~0)
        m.d.comb += todo.eq(Mux(advance, mask & allowed, others))
        m.d.sync += [pending.eq(todo), others.eq(without_lowest(todo)), single.eq(without_lowest(todo) == 0)]
        with m.If(advance):
            m.d.sync += held.eq(value)

        chosen, any_row = Signal(width, name=f"chosen{engine}"), Signal(name=f"any{engine}")
        m.d.comb += [chosen.eq(pending & ~others), any_row.eq(pending.any() & works.valid)]
        full = of_round(dict(zip(steps, filled, strict=True)), works.round)
        row = onehot_index(chosen)
        local = sizes.local_step(engine)
        m.d.sync += [
            use.row.eq(Cat(works.round[:local], row)),
            use.update.eq(any_row & ~works.emits),
            use.zero.eq(~any_row | (~works.emits & ~(chosen & full).any())),
            use.add.eq(works.valid & works.emits & (any_row | begins)),
            use.first.eq(begins),
            use.mask.eq(held),
        ]
        if hasattr(use, "amount"):
            m.d.sync += use.amount.eq(self._amount(m, engine, advance, chosen, of_round))
        for local_step, rows in enumerate(filled):
            with m.If(any_row & ~works.emits & (works.round == local_step)):
                m.d.sync += rows.eq(rows | chosen)
            with m.If(self.clear):
                m.d.sync += rows.eq(0)
        return single

    def _spiking(self, keys: Value) -> Value:
        """Which keys are not 0."""
        bits = self._sizes.operands[K].bits
        if bits == 1:
            return keys
        return Cat(keys.word_select(c, bits).any() for c in range(self._sizes.head_dim))

    def _amount(self, m: Module, engine: int, advance: Signal, chosen: Signal, of_round) -> Value:
        """The key's number in the channel that is chosen, of the round in work."""
        bits = self._sizes.operands[K].bits
        waiting = Signal(self._sizes.head_dim * bits, name=f"amounts{engine}")
        at_work = Signal.like(waiting, name=f"at_work{engine}")
        with m.If(self.take):
            m.d.sync += waiting.eq(of_round(self.key, self.round))
        with m.If(advance):
            m.d.sync += at_work.eq(waiting)
        numbers = [at_work.word_select(c, bits) for c in range(self._sizes.head_dim)]
        return reduce(or_, [Mux(chosen[c], number, 0) for c, number in enumerate(numbers)])
