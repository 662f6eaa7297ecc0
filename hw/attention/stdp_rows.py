"""The row engine: adds every token to the rows of the query counts that occur."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Shape, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.attention.records import BLOCK, HeadSizes
from s2tdpt.hw.attention.stdp_kernel import StdpKernel
from s2tdpt.hw.attention.stdp_records import CountList, KeyValue, RowRequest, RowUse, row_depth
from s2tdpt.hw.fixed import exact, index_shape, onehot_index, without_lowest

__all__ = ["RowIssue", "RowUpdate"]


class RowIssue(wiring.Component):
    """Chooses the rows that a row engine works on, one a cycle.

    For the token in work: in every step of this engine in which the value spikes (token 0: in every step),
    the row of every listed query count, the last listed first. The uses of a row by two tokens are as many
    rows apart as its step has counts, or more; where a step has less than `REUSE`, the engine waits
    ``REUSE - 1`` cycles at the end of every token that it had a row for.

    Latency: `use` is there in the cycle after the choice. Throughput: a row a cycle. Resources: the
    selection of a step out of ``ceil(T / engines)``, a counter, registers of a row.

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
    lists : ``In(CountList)``, array, one a step of this engine, seen from here
    request : ``In(RowRequest)``
        Only while there is no token in work.
    use : ``Out(RowUse)``
    """

    def __init__(self, sizes: HeadSizes, engine: int):
        self._sizes, self._engine = sizes, engine
        super().__init__(
            {
                "token": In(KeyValue(sizes)),
                "done": Out(1),
                "lists": Out(CountList(sizes)).array(len(sizes.steps_of(engine))),
                "request": In(RowRequest(sizes)),
                "use": Out(RowUse(sizes, engine)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, token = self._sizes, self.token
        steps = sizes.steps_of(self._engine)
        busy, few = Signal(), Signal()
        step, index = Signal(index_shape(len(steps))), Signal(index_shape(sizes.entries))
        later = Signal(len(steps))  # steps behind this one
        ends, ends_step = Signal(), Signal()  # the last row of the last step; of its step
        m.d.comb += [
            ends.eq(ends_step & (later == 0)),
            self.done.eq(Mux(few, ~busy & ~self.use.en, ~busy | ends)),
        ]
        m.d.sync += few.eq(Cat(entry.few for entry in self.lists).any())

        def begin(todo):
            """Starts the lowest of the steps `todo`, if there is one."""
            rest = without_lowest(todo)
            lowest = onehot_index(todo & ~rest)
            m.d.sync += [
                busy.eq(todo.any()),
                later.eq(rest),
                step.eq(lowest),
                index.eq(Array(entry.top for entry in self.lists)[lowest]),
                ends_step.eq(Array(entry.single for entry in self.lists)[lowest]),
            ]

        with m.If(token.load):
            begin(token.active[self._engine :: sizes.engines] | token.first.replicate(len(steps)))
        with m.Elif(ends_step):
            begin(later)
        with m.Else():
            m.d.sync += [index.eq((index - 1)[: len(index)]), ends_step.eq(index == 1)]
        m.d.comb += [entry.index.eq(index) for entry in self.lists]
        self._choose(m, busy, step)
        return m

    def _choose(self, m: Module, busy: Signal, step: Signal) -> None:
        """The row's address and count, or those of a row that the neurons ask for; then what is added."""
        sizes, token, request, use = self._sizes, self.token, self.request, self.use
        steps, width = sizes.steps_of(self._engine), sizes.count.width
        emits = request.en[self._engine]
        count, chosen = Signal(sizes.count), Signal(step.shape())
        m.d.comb += [
            count.eq(Mux(emits, request.count, Array(entry.count for entry in self.lists)[step])),
            chosen.eq(Mux(emits, exact(request.step, step.shape()), step)),
        ]
        local = sizes.local_step(self._engine)
        m.d.sync += [
            use.row.eq(Cat(chosen[:local], count)),
            use.en.eq(busy | emits),
            use.emits.eq(emits),
            use.query.eq(count),
        ]
        used = Signal(step.shape())
        m.d.sync += used.eq(step)
        m.d.comb += [
            use.defines.eq(token.defines),
            use.mask.eq(Array(token.value[t :: sizes.steps] for t in steps)[used]),
            use.key.eq(Array(token.counts.word_select(t, width) for t in steps)[used]),
        ]


class RowUpdate(wiring.Component):
    """The rows of an engine: a weight is added to the channels of a mask, or a row is handed out.

    Latency: a row leaves 3 cycles after `use`, and a sum is in the memory 4 cycles after it. Throughput: a
    row a cycle; the same row not before 3 cycles. Resources: `row_depth` words of ``head_dim`` sums, as
    many adders, registers of a mask, of as many weights and of a row of sums, a `StdpKernel`.

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
    use : ``In(RowUse)``
    sums : ``Out(head_dim * y)``
        The row handed out, valid with `sums_en`. 0 when the engine has had nothing to do for a cycle.
    sums_en : ``Out(1)``
    """

    def __init__(self, sizes: HeadSizes, engine: int, lut, y_shape: Shape):
        self._sizes, self._engine = sizes, engine
        self._lut, self._y_shape = lut, y_shape
        super().__init__(
            {
                "use": In(RowUse(sizes, engine)),
                "sums": Out(sizes.head_dim * y_shape.width),
                "sums_en": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes = self._sizes
        m.submodules.kernel = kernel = StdpKernel(self._lut, sizes.head_dim)
        m.submodules.rows = rows = memory.Memory(
            shape=unsigned(len(self.sums)), depth=row_depth(sizes, self._engine), init=[], attrs=BLOCK
        )
        read, write = rows.read_port(), rows.write_port()
        use = self.use
        layout = data.StructLayout({"row": use.row.shape(), "mask": sizes.head_dim, "en": 1, "emits": 1})
        looked, fetched = Signal(layout), Signal(layout)  # its weight is looked up; row and weight are there
        goes_on, counts = Signal(), Signal()  # of the address, of the row read: it is no row that begins
        m.d.sync += [
            looked.row.eq(use.row),
            looked.mask.eq(use.mask),
            looked.en.eq(use.en),
            looked.emits.eq(use.emits),
            read.addr.eq(use.row),
            read.en.eq(use.en | looked.en),
            # Rows begin at zero, and the sums of an engine that hands out no row are zero.
            goes_on.eq(use.en & (use.emits | ~use.defines)),
            fetched.eq(looked),
            self.sums_en.eq(fetched.emits),
            write.addr.eq(fetched.row),
            write.en.eq(fetched.en & ~fetched.emits),
        ]
        m.d.comb += [kernel.key.eq(use.key), kernel.query.eq(use.query)]
        with m.If(read.en):
            m.d.sync += counts.eq(goes_on)
        m.d.sync += self.sums.eq(Mux(counts, read.data, 0))

        layout = data.ArrayLayout(self._y_shape, sizes.head_dim)
        before, after = data.View(layout, self.sums), data.View(layout, write.data)
        for channel in range(sizes.head_dim):
            # A register for every channel: the weight has a cycle to reach all the adders.
            addend = Signal(kernel.weight.shape(), name=f"addend{channel}")
            m.d.sync += addend.eq(Mux(fetched.mask[channel], kernel.weight, 0))
            # At most `tokens` table entries are added to a row between two definitions of it.
            m.d.comb += after[channel].eq(exact(before[channel] + addend, self._y_shape))
        return m
