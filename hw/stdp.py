"""STDP self-attention on spike counts, streamed: no N x N matrix exists at any time."""

from amaranth import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import exact, index_shape, interval_shape, onehot_index, without_lowest
from hw.latency import RateToLatency
from hw.lif import LifCell, membrane_interval
from hw.memory import SpikeMemoryClient, head_groups
from hw.stdp_cycles import attention_cycles, row_memory_bits, y_interval

__all__ = ["StdpAttention", "StdpKernel", "attention_cycles", "row_memory_bits"]


def _checked_lut(lut, head_dim):
    lut = tuple(int(entry) for entry in lut)
    if len(lut) != 2 * head_dim + 1:
        raise ValueError(f"the STDP table of {head_dim} channels must have {2 * head_dim + 1} entries, "
                         f"not {len(lut)}")
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
        super().__init__({
            "key": In(interval_shape(0, head_dim)),
            "query": In(interval_shape(0, head_dim)),
            "weight": Out(interval_shape(min(self._lut), max(self._lut))),
        })

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


class Fetch(enum.Enum, shape=unsigned(2)):
    """What the reader asks the spike memory for next."""

    SCAN = 0    # pass 1: a query word, for the counts that occur
    KEY = 1     # pass 2: a key word
    VALUE = 2   # pass 2: the value word of the same token
    QUERY = 3   # pass 3: a query word, for the output row


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
        self._lut = _checked_lut(lut, head_dim)
        self._threshold = threshold
        self._head_dim = head_dim
        self._heads = heads
        self._tokens = tokens
        self._timesteps = timesteps
        self._lanes = lanes
        self._groups = head_groups(heads, head_dim, lanes)
        self._y_interval = y_interval(self._lut, tokens)
        self._y_shape = interval_shape(*self._y_interval)
        super().__init__({
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
        })

    @property
    def y_shape(self):
        """Shape of one sum: proven by ``tokens`` times the ends of the table."""
        return self._y_shape

    @property
    def row_memory_bits(self):
        return row_memory_bits(head_dim=self._head_dim, timesteps=self._timesteps, y_bits=self._y_shape.width)

    def elaborate(self, platform):
        m = Module()
        mem = self.mem
        steps, width, tokens, heads = self._timesteps, self._head_dim, self._tokens, self._heads
        spots = width + 1                           # counts 0..head_dim
        per_word = self._lanes // width             # heads in a word
        count_shape = interval_shape(0, width)
        step_shape = index_shape(steps)
        address = mem.rd_addr.shape()
        # Which token and head a stage works on.
        where = data.StructLayout({
            "offset": interval_shape(0, tokens * self._groups),
            "token": index_shape(tokens),
            "head": index_shape(heads),
            "slot": index_shape(per_word),
        })

        # --- Reader: a fixed order of words; it waits for the row pipeline where noted. --------------------
        active = Signal()
        waits = Signal()                            # only when the fetched token has been loaded
        fetch = Signal(Fetch)
        at = Signal(where)
        group = Signal(interval_shape(0, self._groups))
        merging = Signal()                          # the read port fetches the destination word
        load = Signal()
        issue = Signal()
        m.d.comb += issue.eq(active & ~merging & (~waits | load))

        last_token = at.token == tokens - 1
        next_token = Mux(last_token, 0, exact(at.token + 1, at.token.shape()))
        next_offset = Mux(last_token, group, exact(at.offset + self._groups, at.offset.shape()))
        base = Signal(address)
        with m.Switch(fetch):
            with m.Case(Fetch.KEY):
                m.d.comb += base.eq(self.k_base)
            with m.Case(Fetch.VALUE):
                m.d.comb += base.eq(self.v_base)
            with m.Default():
                m.d.comb += base.eq(self.q_base)

        with m.If(self.start):
            m.d.sync += [active.eq(1), waits.eq(0), fetch.eq(Fetch.SCAN), at.eq(0), group.eq(0)]
        with m.If(issue):
            with m.Switch(fetch):
                with m.Case(Fetch.SCAN):
                    m.d.sync += [waits.eq(0), at.token.eq(next_token), at.offset.eq(next_offset)]
                    with m.If(last_token):
                        m.d.sync += fetch.eq(Fetch.KEY)
                with m.Case(Fetch.KEY):
                    m.d.sync += [waits.eq(0), fetch.eq(Fetch.VALUE)]
                with m.Case(Fetch.VALUE):
                    m.d.sync += [waits.eq(1), at.token.eq(next_token), at.offset.eq(next_offset),
                                 fetch.eq(Mux(last_token, Fetch.QUERY, Fetch.KEY))]
                with m.Case(Fetch.QUERY):
                    m.d.sync += [waits.eq(1), at.token.eq(next_token), at.offset.eq(next_offset)]
                    with m.If(last_token):
                        m.d.sync += [fetch.eq(Fetch.SCAN), at.head.eq(exact(at.head + 1, at.head.shape()))]
                        with m.If(at.head == heads - 1):
                            m.d.sync += active.eq(0)
                        with m.If(at.slot == per_word - 1):
                            m.d.sync += [
                                at.slot.eq(0),
                                at.offset.eq(exact(group + 1, at.offset.shape())),
                                group.eq(exact(group + 1, group.shape())),
                            ]
                        with m.Else():
                            m.d.sync += [at.slot.eq(exact(at.slot + 1, at.slot.shape()))]

        # --- Fetched words: the slice of the head, one token ahead of the row pipeline. ---------------------
        fetched = Signal()
        fetched_kind = Signal(Fetch)
        ahead = Signal(where)                       # whose word was asked for last
        scanned = Signal()
        ready = Signal()                            # all words of a token are here
        m.d.sync += [fetched.eq(issue), scanned.eq(fetched & (fetched_kind == Fetch.SCAN))]
        with m.If(issue):
            m.d.sync += [fetched_kind.eq(fetch), ahead.eq(at)]

        size = width * steps
        head_word = Array(mem.rd_data[i * size:(i + 1) * size] for i in range(per_word))[ahead.slot]
        counted_word = Signal(size)                 # query or key
        value_word = Signal(size)
        with m.If(load):
            m.d.sync += ready.eq(0)
        with m.If(fetched):
            with m.If(fetched_kind == Fetch.VALUE):
                m.d.sync += value_word.eq(head_word)
            with m.Else():
                m.d.sync += counted_word.eq(head_word)
            with m.If((fetched_kind == Fetch.VALUE) | (fetched_kind == Fetch.QUERY)):
                m.d.sync += ready.eq(1)

        counts = []
        for t in range(steps):
            m.submodules[f"count{t}"] = counter = RateToLatency(width)
            m.d.comb += counter.spikes.eq(counted_word[t::steps])
            counts.append(counter.rank)

        present = [Signal(spots, name=f"present{t}") for t in range(steps)]
        with m.If(scanned):
            for t in range(steps):
                m.d.sync += present[t].eq(present[t] | Cat(counts[t] == c for c in range(spots)))
        with m.If(issue & (fetch == Fetch.SCAN) & (at.token == 0)):
            m.d.sync += [bitmap.eq(0) for bitmap in present]

        # --- Row pipeline, stage A: the next (step, count) of the token. ------------------------------------
        valid = Signal()
        emitting = Signal()                         # pass 3
        defining = Signal()                         # token 0 of pass 2: rows begin with its value
        current = Signal(where)
        count = [Signal(count_shape, name=f"count_of_step{t}") for t in range(steps)]
        value = Signal(size)
        step = Signal(step_shape)
        later_steps = Signal(steps)
        pending = Signal(spots)                     # counts still to be updated in this step,
        others = Signal(spots)                      # and all but the lowest of them

        next_emits = fetched_kind == Fetch.QUERY
        next_defines = ahead.token == 0
        spiking = Cat(value_word[t::steps].any() for t in range(steps))
        all_steps = Mux(next_emits | next_defines, (1 << steps) - 1, spiking)
        new_steps = Mux(load, all_steps, later_steps)
        new_later = without_lowest(new_steps)
        new_step = onehot_index(new_steps & ~new_later)

        query_count = Signal(count_shape)
        key_count = Array(count)[step]
        lowest = exact(onehot_index(pending & ~others), count_shape)
        m.d.comb += query_count.eq(Mux(emitting, key_count, lowest))
        zero_row = steps * spots                    # never written: what token 0 adds to
        row = Signal(index_shape(zero_row + 1))
        first_row = Array(range(0, zero_row, spots))[step]
        m.d.comb += row.eq(exact(first_row + query_count, row.shape()))

        blocked = Signal()
        advance = Signal()
        step_done = Signal()
        m.d.comb += [
            advance.eq(valid & ~blocked),
            step_done.eq(~valid | emitting | ~others.any()),
            load.eq(ready & (~valid | advance & step_done & ~later_steps.any())),
        ]
        new_pending = Signal(spots)
        m.d.comb += new_pending.eq(Mux(step_done, Array(present)[new_step], others))
        with m.If(load | advance):
            m.d.sync += [pending.eq(new_pending), others.eq(without_lowest(new_pending))]
        with m.If(load | advance & step_done):
            m.d.sync += [
                valid.eq(new_steps.any()),
                step.eq(exact(new_step, step_shape)),
                later_steps.eq(new_later),
            ]
        with m.If(load):
            m.d.sync += [emitting.eq(next_emits), defining.eq(next_defines & ~next_emits), current.eq(ahead),
                         value.eq(value_word)]
            m.d.sync += [kept.eq(new) for kept, new in zip(count, counts, strict=True)]

        # --- Stage B: read the row, look up the weight. -----------------------------------------------------
        m.submodules.rows = rows = memory.Memory(shape=unsigned(width * self._y_shape.width),
                                                 depth=steps * spots + 1, init=[])
        read = rows.read_port()
        write = rows.write_port()
        m.submodules.kernel = kernel = StdpKernel(self._lut, width)
        b_valid = Signal()
        b_emits = Signal()
        b_defines = Signal()
        b_row = Signal.like(row)
        b_value = Signal(width)
        b_step = Signal(step_shape)
        m.d.sync += b_valid.eq(advance | blocked)
        with m.If(advance):
            m.d.sync += [
                b_emits.eq(emitting), b_defines.eq(defining), b_row.eq(row), b_step.eq(step),
                b_value.eq(Array(value[t::steps] for t in range(steps))[step]),
                kernel.key.eq(key_count), kernel.query.eq(query_count),
            ]
        reading = b_valid & ~blocked
        m.d.comb += [read.addr.eq(Mux(b_defines, zero_row, b_row)), read.en.eq(reading)]

        # --- Stage C: add and write back, or hand the row to the LIF. ---------------------------------------
        c_valid = Signal()
        c_emits = Signal()
        c_row = Signal.like(row)
        c_value = Signal(width)
        c_weight = Signal(kernel.weight.shape())
        c_step = Signal(step_shape)
        m.d.sync += c_valid.eq(reading)
        with m.If(reading):
            m.d.sync += [c_emits.eq(b_emits), c_row.eq(b_row), c_step.eq(b_step),
                         c_value.eq(b_value), c_weight.eq(kernel.weight)]
        sums = data.ArrayLayout(self._y_shape, width)
        old = data.View(sums, read.data)
        new = data.View(sums, write.data)
        for c in range(width):
            total = old[c] + Mux(c_value[c], c_weight, 0)
            # At most `tokens` table entries are added to a row between two definitions of it.
            m.d.comb += new[c].eq(exact(total, self._y_shape))
        m.d.comb += [
            write.addr.eq(c_row),
            write.en.eq(c_valid & ~c_emits),
            # A row written in this cycle is read in the next one. Waiting, rather than forwarding, costs an
            # address comparator instead of a multiplexer as wide as the row, and synthesis can prove from it
            # that the ports never meet, so it adds none of its own.
            blocked.eq(b_valid & write.en & (read.addr == c_row)),
        ]

        m.submodules.lif = lif = LifCell(
            width, self._y_shape, threshold=self._threshold,
            membrane=membrane_interval(self._y_interval, self._threshold, steps))
        emit = c_valid & c_emits
        c_last = c_step == steps - 1
        m.d.comb += [lif.en.eq(emit), lif.last.eq(c_last), lif.x.eq(read.data)]

        # --- Destination: spikes of all steps of a token, merged with the heads already in the word. --------
        loaded = Signal(2)                          # an output token was loaded one, two cycles ago
        out = Signal(where)
        out_word = Signal(per_word * size)
        m.d.sync += loaded.eq(Cat(load & next_emits, loaded[0]))
        m.d.comb += merging.eq(loaded[0] & (current.slot != 0) if per_word > 1 else 0)
        m.d.comb += [
            mem.rd_en.eq(issue | merging),
            # Word addresses of the map lie in the memory by the layout.
            mem.rd_addr.eq(exact(Mux(merging, self.dst_base, base) + Mux(merging, current.offset, at.offset),
                                 address)),
        ]
        with m.If(loaded[1]):
            # The merged word arrives now; the token before has just been written.
            arrived = mem.rd_data[:per_word * size]
            m.d.sync += [out.eq(current), out_word.eq(Mux(current.slot == 0, 0, arrived))]

        earlier = Signal(width * (steps - 1))       # spikes of the steps before, oldest lowest
        spikes = Cat(earlier, lif.spikes)
        with m.If(emit):
            m.d.sync += earlier.eq(spikes[width:])
        finished = emit & c_last
        head_spikes = Cat(spikes[t * width + c] for c in range(width) for t in range(steps))
        final = Signal()
        m.d.sync += [
            mem.wr_en.eq(finished.replicate(len(mem.wr_en))),
            final.eq(finished & (out.token == tokens - 1) & (out.head == heads - 1)),
            self.done.eq(final),
        ]
        with m.If(finished):
            m.d.sync += mem.wr_addr.eq(exact(self.dst_base + out.offset, address))
            for slot in range(per_word):
                lanes = slice(slot * size, (slot + 1) * size)
                m.d.sync += mem.wr_data[lanes].eq(Mux(out.slot == slot, head_spikes, out_word[lanes]))

        m.d.comb += [self.y_en.eq(emit), self.y_data.eq(read.data), self.y_token.eq(out.token),
                     self.y_t.eq(c_step), self.y_head.eq(out.head)]
        return m
