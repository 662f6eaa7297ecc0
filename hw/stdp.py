"""STDP self-attention on spike counts, streamed: no N x N matrix exists at any time."""

from amaranth import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, index_shape, interval_shape, onehot_index, without_lowest
from s2tdpt.hw.lif import LifCell, membrane_interval
from s2tdpt.hw.memory import SpikeMemoryClient
from s2tdpt.hw.stdp_cycles import attention_cycles, row_memory_bits, y_interval
from s2tdpt.hw.stdp_reader import TokenReader

__all__ = ["StdpAttention", "StdpKernel", "attention_cycles", "row_memory_bits"]


def _checked_lut(lut, head_dim):
    lut = tuple(int(entry) for entry in lut)
    if len(lut) != 2 * head_dim + 1:
        raise ValueError(
            f"the STDP table of {head_dim} channels must have {2 * head_dim + 1} entries, not {len(lut)}"
        )
    return lut


class StdpKernel(wiring.Component):
    """The synapse: attention weight of a key and a query, from their spike counts alone.

    ``weight = lut[key - query + head_dim]``. The counts are the whole of the spike timing, so the table is
    exact; there is no exponential.

    Latency: combinational. Throughput: one weight a cycle. Resources: a subtractor and a ROM of
    ``2 * head_dim + 1`` entries in LUTs.

    Parameters
    ----------
    lut : sequence of int
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
    S2TDPT (arXiv 2511.14691), STDP kernel. Software twin: `golden.stdp.build_lut`.
    """

    def __init__(self, lut, head_dim):
        self._lut = _checked_lut(lut, head_dim)
        self._head_dim = head_dim
        super().__init__(
            {
                "key": In(interval_shape(0, head_dim)),
                "query": In(interval_shape(0, head_dim)),
                "weight": Out(interval_shape(min(self._lut), max(self._lut))),
            }
        )

    @property
    def lut(self):
        return self._lut

    def elaborate(self, platform):
        m = Module()
        index = Signal(index_shape(len(self._lut)))
        # Counts lie in 0..head_dim, so the difference lies inside the table.
        m.d.comb += index.eq(exact(self.key + self._head_dim - self.query, index.shape()))
        with m.Switch(index):
            for position, entry in enumerate(self._lut):
                with m.Case(position):
                    m.d.comb += self.weight.eq(entry)
        return m


class StdpAttention(wiring.Component):
    """Streaming STDP attention of all heads of a layer: ``attn = LIF(A(Q, K) V)``, exactly.

    Row ``i`` of ``A V`` depends on token ``i`` only through its spike count ``r_Q(i)``. So the unit keeps
    one row of ``head_dim`` sums for every count and time step, and for each head makes three passes:

    1. read the queries; note which counts occur in each step;
    2. read key and value of each token ``j``; for every step in which the value has a spike and every
       count ``q`` that occurs, ``row[t][q][c] += lut[r_K(j) - q]`` where ``V_j[c]`` is 1 (one row a cycle);
    3. read the query of each token ``i``; the row of its count is its ``Y``; LIF over the steps; write.

    Additions only. The state does not grow with the number of tokens but for the ``log2`` of the widths.

    Latency and throughput: `hw.stdp_cycles.attention_cycles`, exact; one row update a cycle; the reads of
    a token hide behind the updates of the one before. Resources: a row memory of `row_memory_bits`,
    ``head_dim`` adders of the width of ``Y``, a `LifCell` of ``head_dim`` lanes, ``timesteps`` popcounts.

    Words are in the head layout of `hw.memory`; the destination must not overlap the queries, keys and
    values. The fields stay stable from `start` to `done`.

    Parameters
    ----------
    lut : sequence of int
        ``2 * head_dim + 1`` attention weights (`golden.stdp.build_lut`).
    threshold : int
        Firing threshold of the attention LIF, in the units of the weights.
    head_dim, heads, tokens, timesteps : int
        Sizes of the network.
    lanes, post_lanes, addr_width : int
        As in `SpikeMemoryClient`; ``lanes >= head_dim``.

    Members
    -------
    start : ``In(1)``
        Begins the operation; only while none runs.
    done : ``Out(1)``
        One cycle, when the last word has been written.
    q_base, k_base, v_base, dst_base : ``In(addr_width)``
        First words of queries, keys, values and output.
    mem : ``Out(SpikeMemoryClient(...))``
        The spike memory.
    y_en : ``Out(1)``
        Observation: a row leaves the row memory for the LIF.
    y_data : ``Out(ArrayLayout(y_shape, head_dim))``
        Its sums, before the LIF.
    y_token, y_t, y_head : ``Out``
        Whose row it is.

    References
    ----------
    S2TDPT (arXiv 2511.14691), spiking STDP self-attention. Software twin: `golden.stdp.attention_rows`.
    """

    def __init__(self, *, lut, threshold, head_dim, heads, tokens, timesteps, lanes, post_lanes, addr_width):
        for name, value in (("head_dim", head_dim), ("heads", heads), ("tokens", tokens)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"attention {name} must be a positive integer, not {value!r}")
        if lanes < head_dim:
            raise ValueError(f"a head of {head_dim} channels does not fit into {lanes} lanes")
        self._lut = _checked_lut(lut, head_dim)
        self._threshold = threshold
        self._head_dim = head_dim
        self._heads = heads
        self._tokens = tokens
        self._timesteps = timesteps
        self._lanes = lanes
        self._y_interval = y_interval(self._lut, tokens)
        self._y_shape = interval_shape(*self._y_interval)
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "q_base": In(addr_width),
                "k_base": In(addr_width),
                "v_base": In(addr_width),
                "dst_base": In(addr_width),
                "mem": Out(SpikeMemoryClient(addr_width, lanes, timesteps, post_lanes)),
                "y_en": Out(1),
                "y_data": Out(data.ArrayLayout(self._y_shape, head_dim)),
                "y_token": Out(index_shape(tokens)),
                "y_t": Out(index_shape(timesteps)),
                "y_head": Out(index_shape(heads)),
            }
        )

    @property
    def y_shape(self):
        """Shape of one sum: proven by ``tokens`` times the ends of the table."""
        return self._y_shape

    @property
    def row_memory_bits(self):
        return row_memory_bits(head_dim=self._head_dim, timesteps=self._timesteps, y_bits=self._y_shape.width)

    def elaborate(self, platform):
        m = Module()
        steps, spots = self._timesteps, self._head_dim + 1
        mem = self.mem
        m.submodules.reader = reader = TokenReader(
            tokens=self._tokens,
            heads=self._heads,
            head_dim=self._head_dim,
            timesteps=steps,
            lanes=self._lanes,
            addr_width=len(mem.rd_addr),
        )
        m.d.comb += [
            reader.start.eq(self.start),
            reader.q_base.eq(self.q_base),
            reader.k_base.eq(self.k_base),
            reader.v_base.eq(self.v_base),
            reader.rd_data.eq(mem.rd_data),
        ]

        # A piece of work, as it goes down the pipeline: one row in one cycle.
        work = data.StructLayout(
            {
                "emits": 1,  # pass 3: the row goes to the LIF
                "defines": 1,  # token 0 of pass 2: the row begins here
                "row": index_shape(steps * spots + 1),
                "step": index_shape(steps),
                "value": self._head_dim,
            }
        )
        m.submodules.kernel = kernel = StdpKernel(self._lut, self._head_dim)
        choose = Signal(work)
        chosen = Signal()  # `choose` is work for the next stage
        current = Signal(reader.where.shape())
        blocked = Signal()  # the next stage cannot move
        self._choose_rows(m, reader, kernel, choose, chosen, current, blocked)
        emit = Signal()
        emitted = Signal(work)
        spikes = self._update_rows(m, kernel, choose, chosen, blocked, emit, emitted)
        self._write_spikes(m, reader, current, emit, emitted, spikes)
        return m

    def _choose_rows(self, m, reader, kernel, choose, chosen, current, blocked):
        """Stage A: the (step, count) pairs of a token, one a cycle."""
        steps, spots = self._timesteps, self._head_dim + 1
        count_shape = kernel.key.shape()
        valid = Signal()
        emitting = Signal()
        defining = Signal()
        counts = [Signal(count_shape, name=f"count{t}") for t in range(steps)]
        values = Signal(len(reader.values))
        step = Signal(index_shape(steps))
        later_steps = Signal(steps)
        pending = Signal(spots)  # counts still to be visited in this step,
        others = Signal(spots)  # and all but the lowest of them

        load = Signal()
        step_done = Signal()
        m.d.comb += [
            chosen.eq(valid & ~blocked),
            step_done.eq(~valid | emitting | ~others.any()),
            reader.ready.eq(~valid | chosen & step_done & ~later_steps.any()),
            load.eq(reader.valid & reader.ready),
        ]

        defines = Signal()
        new_steps = Signal(steps)
        new_later = Signal(steps)
        new_step = Signal(index_shape(steps))
        new_pending = Signal(spots)
        active = Cat(reader.values[t::steps].any() for t in range(steps))
        m.d.comb += [
            defines.eq((reader.where.token == 0) & ~reader.emits),
            new_steps.eq(Mux(load, active | (reader.emits | defines).replicate(steps), later_steps)),
            new_later.eq(without_lowest(new_steps)),
            new_step.eq(exact(onehot_index(new_steps & ~new_later), new_step.shape())),
            new_pending.eq(Mux(step_done, Array(reader.present)[new_step], others)),
        ]
        with m.If(load | chosen):
            m.d.sync += [pending.eq(new_pending), others.eq(without_lowest(new_pending))]
        with m.If(load | chosen & step_done):
            m.d.sync += [valid.eq(new_steps.any()), step.eq(new_step), later_steps.eq(new_later)]
        with m.If(load):
            m.d.sync += [
                emitting.eq(reader.emits),
                defining.eq(defines),
                current.eq(reader.where),
                values.eq(reader.values),
            ]
            m.d.sync += [counts[t].eq(reader.counts[t]) for t in range(steps)]

        count = Signal(count_shape)  # of the key, or in pass 3 of the query
        query = Signal(count_shape)
        first_row = Array(range(0, steps * spots, spots))[step]
        m.d.comb += [
            count.eq(Array(counts)[step]),
            query.eq(Mux(emitting, count, exact(onehot_index(pending & ~others), count_shape))),
            choose.emits.eq(emitting),
            choose.defines.eq(defining),
            choose.row.eq(exact(first_row + query, choose.row.shape())),
            choose.step.eq(step),
            choose.value.eq(Array(values[t::steps] for t in range(steps))[step]),
        ]
        with m.If(chosen):
            m.d.sync += [kernel.key.eq(count), kernel.query.eq(query)]

    def _update_rows(self, m, kernel, choose, chosen, blocked, emit, emitted):
        """Stages B, read the row and look up the weight, and C, add and write back or hand to the LIF."""
        steps, width = self._timesteps, self._head_dim
        zero_row = steps * (width + 1)  # never written: what token 0 adds to
        m.submodules.rows = rows = memory.Memory(
            shape=unsigned(width * self._y_shape.width), depth=zero_row + 1, init=[]
        )
        read, write = rows.read_port(), rows.write_port()

        b = Signal(choose.shape())
        b_valid = Signal()
        c = Signal(choose.shape())
        c_valid = Signal()
        weight = Signal(kernel.weight.shape())
        m.d.sync += [b_valid.eq(chosen | blocked), c_valid.eq(read.en)]
        with m.If(chosen):
            m.d.sync += b.eq(choose)
        with m.If(read.en):
            m.d.sync += [c.eq(b), weight.eq(kernel.weight)]
        m.d.comb += [
            read.addr.eq(Mux(b.defines, zero_row, b.row)),
            read.en.eq(b_valid & ~blocked),
            write.addr.eq(c.row),
            write.en.eq(c_valid & ~c.emits),
            # A row written in this cycle is read in the next one. Waiting, rather than forwarding, costs an
            # address comparator instead of a multiplexer as wide as the row, and synthesis can prove from it
            # that the ports never meet, so it adds none of its own.
            blocked.eq(b_valid & write.en & (read.addr == write.addr)),
        ]
        sums = data.ArrayLayout(self._y_shape, width)
        old, new = data.View(sums, read.data), data.View(sums, write.data)
        for channel in range(width):
            total = old[channel] + Mux(c.value[channel], weight, 0)
            # At most `tokens` table entries are added to a row between two definitions of it.
            m.d.comb += new[channel].eq(exact(total, self._y_shape))

        m.submodules.lif = lif = LifCell(
            width,
            self._y_shape,
            threshold=self._threshold,
            membrane=membrane_interval(self._y_interval, self._threshold, steps),
        )
        m.d.comb += [
            emit.eq(c_valid & c.emits),
            emitted.eq(c),
            lif.en.eq(emit),
            lif.last.eq(c.step == steps - 1),
            lif.x.eq(read.data),
            self.y_en.eq(emit),
            self.y_data.eq(read.data),
            self.y_t.eq(c.step),
        ]
        return lif.spikes

    def _write_spikes(self, m, reader, current, emit, emitted, spikes):
        """Collects the steps of a token and merges them with the heads already in the word."""
        steps, width, mem = self._timesteps, self._head_dim, self.mem
        per_word = self._lanes // width
        size = width * steps
        address = mem.rd_addr.shape()

        # An output token was loaded one, two cycles ago. Its destination word is read in the first of them
        # and arrives in the second, when the token before it has just left.
        loaded = Signal(2)
        out = Signal(current.shape())
        out_word = Signal(per_word * size)
        m.d.sync += loaded.eq(Cat(reader.valid & reader.ready & reader.emits, loaded[0]))
        if per_word > 1:
            m.d.comb += reader.hold.eq(loaded[0] & (current.slot != 0))
        with m.If(loaded[1]):
            m.d.sync += [
                out.eq(current),
                out_word.eq(Mux(current.slot == 0, 0, mem.rd_data[: per_word * size])),
            ]
        m.d.comb += [
            mem.rd_en.eq(reader.rd_en | reader.hold),
            # Words of the maps lie in the memory.
            mem.rd_addr.eq(
                exact(
                    Mux(reader.hold, self.dst_base, reader.rd_base)
                    + Mux(reader.hold, current.offset, reader.rd_offset),
                    address,
                )
            ),
            self.y_token.eq(out.token),
            self.y_head.eq(out.head),
        ]

        history = spikes
        if steps > 1:
            earlier = Signal(width * (steps - 1))  # spikes of the steps before, oldest lowest
            history = Cat(earlier, spikes)
            with m.If(emit):
                m.d.sync += earlier.eq(history[width:])
        head_word = Signal(size)
        finished = Signal()
        final = Signal()
        m.d.comb += [
            head_word.eq(Cat(history[t * width + c] for c in range(width) for t in range(steps))),
            finished.eq(emit & (emitted.step == steps - 1)),
        ]
        m.d.sync += [
            mem.wr_en.eq(finished.replicate(len(mem.wr_en))),
            final.eq(finished & (out.token == self._tokens - 1) & (out.head == self._heads - 1)),
            self.done.eq(final),
        ]
        with m.If(finished):
            m.d.sync += mem.wr_addr.eq(exact(self.dst_base + out.offset, address))
            for slot in range(per_word):
                lanes = slice(slot * size, (slot + 1) * size)
                m.d.sync += mem.wr_data[lanes].eq(Mux(out.slot == slot, head_word, out_word[lanes]))
