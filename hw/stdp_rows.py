"""The row engine: adds every token to the rows of the query counts that occur."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Shape, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, index_shape, onehot_index, without_lowest
from s2tdpt.hw.stdp_kernel import StdpKernel
from s2tdpt.hw.stdp_records import CountList, HeadSizes, KeyValue, RowRequest, row_depth, row_layout

__all__ = ["RowIssue", "RowUpdate"]


class RowIssue(wiring.Component):
    """Chooses the rows that a row engine works on, one a cycle.

    For the token in work: in every step of this engine in which the value spikes (token 0: in every step),
    the row of every listed query count, the last listed first. A row comes back 3 cycles after it was
    issued, at the earliest: 1 or 2 cycles of waiting where a step has fewer than 3 counts and
    two tokens follow each other in it.

    Latency: `row` is there in the cycle after the choice. Throughput: a row a cycle. Resources: the selection
    of a step out of ``ceil(T / engines)``, a counter, registers of a row.

    Parameters
    ----------
    sizes : HeadSizes
    engine : int
        Serves the time steps ``sizes.steps_of(engine)``.

    Members
    -------
    token : ``In(KeyValue)``
    done : ``Out(1)``
        Nothing is left to do for the token in work after this cycle.
    lists : ``Out(CountList)``, array, one a step of this engine
    request : ``In(RowRequest)``
        Only while there is no token in work.
    row : ``Out(row_layout)``
    key, query : ``Out``
        Counts that the weight of an update follows from.
    """

    def __init__(self, sizes: HeadSizes, engine: int):
        self._sizes, self._engine = sizes, engine
        super().__init__(
            {
                "token": In(KeyValue(sizes)),
                "done": Out(1),
                "lists": Out(CountList(sizes)).array(len(sizes.steps_of(engine))),
                "request": In(RowRequest(sizes)),
                "row": Out(row_layout(sizes, engine)),
                "key": Out(sizes.count),
                "query": Out(sizes.count),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, token = self._sizes, self.token
        steps = sizes.steps_of(self._engine)
        busy, waits = Signal(), Signal()
        step, later = Signal(index_shape(len(steps))), Signal(len(steps))
        index = Signal(index_shape(sizes.entries))
        issue, last = Signal(), Signal()
        begun = Signal(len(steps))
        m.d.comb += [
            issue.eq(busy & ~waits),
            last.eq(issue & (index == 0) & ~later.any()),
            self.done.eq(~busy | last),
            begun.eq(token.active[self._engine :: sizes.engines] | token.first.replicate(len(steps))),
        ]

        def begin(todo):
            """Starts the lowest of the steps `todo`, if there is one."""
            rest = without_lowest(todo)
            lowest = onehot_index(todo & ~rest)
            m.d.sync += [busy.eq(todo.any()), later.eq(rest), step.eq(lowest)]
            m.d.sync += index.eq(Array(entry.top for entry in self.lists)[lowest])

        with m.If(token.load):
            begin(begun)
        with m.Elif(issue):
            m.d.sync += index.eq((index - 1)[: len(index)])
            with m.If(index == 0):
                begin(later)
        self._wait(m, issue, waits, step, index)
        self._choose(m, issue, step, index)
        return m

    def _wait(self, m: Module, issue: Signal, waits: Signal, step: Signal, index: Signal) -> None:
        """Whether the row is one of the last two that were issued.

        The uses of a row in two tokens are as many rows apart as its step has counts, or more.
        """
        top = Signal(index.shape())
        issued, issued_step, issued_odd = Signal(2), Signal(step.shape()), Signal()
        earlier_step, earlier_odd = Signal(step.shape()), Signal()
        m.d.comb += [
            top.eq(Array(entry.top for entry in self.lists)[step]),
            waits.eq(
                (top == 0) & issued[0] & (issued_step == step)
                | (top < 2) & issued[1] & (earlier_step == step) & (earlier_odd == index[0])
            ),
        ]
        m.d.sync += [
            issued.eq(Cat(issue, issued[0])),
            issued_step.eq(step),
            issued_odd.eq(index[0]),
            earlier_step.eq(issued_step),
            earlier_odd.eq(issued_odd),
        ]

    def _choose(self, m: Module, issue: Signal, step: Signal, index: Signal) -> None:
        """The row's address, counts and mask, or those of a row that the neurons ask for."""
        sizes, token, request, row = self._sizes, self.token, self.request, self.row
        steps, width = sizes.steps_of(self._engine), sizes.count.width
        emits = request.en[self._engine]
        count = Signal(sizes.count)
        chosen_step = Signal(step.shape())
        m.d.comb += [entry.index.eq(index) for entry in self.lists]
        m.d.comb += [
            count.eq(Mux(emits, request.count, Array(entry.count for entry in self.lists)[step])),
            chosen_step.eq(Mux(emits, exact(request.step, step.shape()), step)),
        ]
        masks = [token.value[t :: sizes.steps] for t in steps]
        local = sizes.local_step(self._engine)
        m.d.sync += [
            row.row.eq(count << local | chosen_step[:local]),
            row.updates.eq(issue),
            row.emits.eq(emits),
            row.defines.eq(token.defines),
            row.mask.eq(Array(masks)[step]),
            self.query.eq(count),
            self.key.eq(Array(token.counts.word_select(t, width) for t in steps)[step]),
        ]


class RowUpdate(wiring.Component):
    """The rows of an engine: a weight is added to the channels of a mask, or a row is handed out.

    Latency: a row leaves 2 cycles after `row`, and a sum is in the memory 3 cycles after it. Throughput: a
    row a cycle; the same row not before 3 cycles. Resources: `row_depth` words of ``head_dim`` sums, as many
    adders, two registers of a mask and one of sums, a `StdpKernel`.

    Parameters
    ----------
    sizes : HeadSizes
    engine : int
    lut : iterable of int
        As in `StdpKernel`.
    y_shape : Shape
        Of a sum.

    Members
    -------
    row : ``In(row_layout)``
    key, query : ``In``
        Counts that belong to it.
    sums : ``Out(head_dim * y)``
        The row handed out; 0 where none is. Valid with `sums_en`.
    sums_en : ``Out(1)``
    """

    def __init__(self, sizes: HeadSizes, engine: int, lut, y_shape: Shape):
        self._sizes, self._engine = sizes, engine
        self._lut, self._y_shape = lut, y_shape
        super().__init__(
            {
                "row": In(row_layout(sizes, engine)),
                "key": In(sizes.count),
                "query": In(sizes.count),
                "sums": Out(sizes.head_dim * y_shape.width),
                "sums_en": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes = self._sizes
        m.submodules.kernel = kernel = StdpKernel(self._lut, sizes.head_dim)
        m.submodules.rows = rows = memory.Memory(
            shape=unsigned(len(self.sums)), depth=row_depth(sizes, self._engine), init=[]
        )
        read, write = rows.read_port(), rows.write_port()
        fetched, adds = Signal(self.row.shape()), Signal(self.row.shape())
        m.d.sync += [fetched.eq(self.row), adds.eq(fetched), self.sums_en.eq(fetched.emits)]
        m.d.comb += [
            kernel.key.eq(self.key),
            kernel.query.eq(self.query),
            read.addr.eq(self.row.row),
            # `RowIssue` keeps a row's uses apart. Said here as a condition of the read, it spares the logic
            # that would otherwise define what a read of a word that is being written returns.
            read.en.eq((self.row.updates | self.row.emits) & ~(write.en & (read.addr == write.addr))),
            write.addr.eq(adds.row),
            write.en.eq(adds.updates),
        ]
        old = Signal(len(self.sums))
        with m.If(fetched.emits | fetched.updates & ~fetched.defines):
            m.d.sync += old.eq(read.data)
        with m.Else():
            m.d.sync += old.eq(0)
        m.d.comb += self.sums.eq(old)

        layout = data.ArrayLayout(self._y_shape, sizes.head_dim)
        before, after = data.View(layout, old), data.View(layout, write.data)
        for channel in range(sizes.head_dim):
            total = before[channel] + Mux(adds.mask[channel], kernel.weight, 0)
            # At most `tokens` table entries are added to a row between two definitions of it.
            m.d.comb += after[channel].eq(exact(total, self._y_shape))
        return m
